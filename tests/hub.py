"""A Hub on the loopback, for huggingface_hub itself to talk to: repositories in memory, one commit after another."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_a-token-of-the-tests"
Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by id, and what points to them."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: Files, message: str) -> str:
        """Let a branch point to these files."""
        told = json.dumps(
            [len(self.commits), sorted((name, hashlib.sha256(held).hexdigest()) for name, held in files.items())]
        )
        oid = hashlib.sha1(told.encode()).hexdigest()
        self.commits[oid], self.refs[branch] = files, oid
        self.messages.append(message)
        return oid

    def oid(self, revision: str) -> str | None:
        """The commit that a revision means."""
        return self.refs.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """Its state, and what it was asked. `fail`: a path on which it answers 500, so many times."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.objects: Files = {}
        self.large = 10**12  # files from this size on are sent apart, as LFS
        self.fail: dict[str, int] = {}
        self.slow: float = 0.0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name: str, files: Files, *, kind: str = "models", private: bool = False) -> str:
        """A repository that is there already."""
        repository = self.repositories.setdefault(f"{kind}/{name}", Repository(private))
        return repository.commit("main", dict(files), "first")


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, verb: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        if len(self.body) < length:  # whoever sent it is gone
            self.close_connection = True
            return None
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            self.body = b"".join(iter(self._chunk, b""))
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        with self.server.lock:
            self.server.asked.append(f"{verb} {path}")
            for part, times in self.server.fail.items():
                if part in path and times:
                    self.server.fail[part] = times - 1
                    return self._say(500, {"error": "the stub fails"})
            for pattern, method in _ROUTES:
                match = re.fullmatch(pattern, f"{verb} {path}")
                if match:
                    return method(self, *match.groups())
        return self._say(404, {"error": "not found"})

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().strip() or b"0", 16)
        held = self.rfile.read(size)
        self.rfile.readline()
        return held

    def _say(
        self, status: int, said: Any = None, *, headers: dict[str, str] | None = None, raw: bytes | None = None
    ) -> None:
        body = raw if raw is not None else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _authorised(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, kind: str, name: str, *, write: bool = False) -> Repository | None:
        found = self.server.repositories.get(f"{kind}/{name}")
        if found is None or ((write or found.private) and not self._authorised()):
            self._say(
                404 if not write or found is None else 401,
                {"error": "Repository not found"},
                headers={"X-Error-Code": "RepoNotFound"},
            )
            return None
        return found

    def who(self) -> None:
        self._say(200, {"name": "anna", "type": "user", "orgs": []}) if self._authorised() else self._say(
            401, {"error": "Invalid token"}
        )

    def create(self) -> None:
        if not self._authorised():
            return self._say(401, {"error": "Invalid token"})
        asked = json.loads(self.body)
        kind = f"{asked.get('type') or 'model'}s"
        name = f"{asked.get('organization') or 'anna'}/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        url = f"{self.server.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if f"{kind}/{name}" in self.server.repositories:
            return self._say(409, {"error": "You already created this repo", "url": url})
        self.server.repositories[f"{kind}/{name}"] = Repository(bool(private))
        self.server.repositories[f"{kind}/{name}"].commit("main", {".gitattributes": b""}, "initial commit")
        return self._say(200, {"url": url, "name": name, "id": name})

    def validate(self) -> None:
        text = json.loads(self.body)["content"]
        wrong = [] if "license:" in text else [{"message": '"license" is missing'}]
        self._say(400 if wrong else 200, {"errors": wrong, "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if self._repository(kind, name, write=True):
            files = json.loads(self.body)["files"]
            self._say(200, {"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= self.server.large else "regular", "shouldIgnore": False, "oid": None}
                for f in files
            ]})  # fmt: skip

    def batch(self, name: str) -> None:
        objects = json.loads(self.body)["objects"]
        at = self.server.url
        self._say(200, {"transfer": "basic", "objects": [
            {"oid": o["oid"], "size": o["size"], **({} if o["oid"] in self.server.objects else {"actions": {
                "upload": {"href": f"{at}/objects/{o['oid']}"}, "verify": {"href": f"{at}/verify/{o['oid']}"}}})} for o in objects
        ]})  # fmt: skip

    def store(self, oid: str) -> None:
        self.server.objects[oid] = self.body
        self._say(200, {})

    def verify(self, oid: str) -> None:
        self._say(200 if hashlib.sha256(self.server.objects[oid]).hexdigest() == oid else 400, {})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name, write=True)
        if repository is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        pr = self.query.get("create_pr") == ["1"]
        files, message = dict(repository.commits[repository.refs["main" if pr else revision]]), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"])
        branch = "refs/pr/1" if pr else revision
        oid = repository.commit(branch, files, message)
        said = {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.server.url}/{name}/commit/{oid}",
            "hookOutput": "",
        }
        if pr:
            said["pullRequestUrl"] = f"{self.server.url}/{name}/discussions/1"
        return self._say(200, said)

    def point(self, kind: str, name: str, what: str, at: str) -> None:
        repository = self._repository(kind, name, write=True)
        if repository is None:
            return None
        asked = json.loads(self.body or b"{}")
        if what == "tag":
            tag = asked["tag"]
            if tag in repository.tags:
                return self._say(409, {"error": "Tag reference exists already"})
            repository.tags[tag] = str(repository.oid(at))
        elif at in repository.refs:
            return self._say(409, {"error": "Reference already exists"})
        else:
            repository.refs[at] = repository.refs["main"]
        return self._say(200, {})

    def refs(self, kind: str, name: str) -> None:
        repository = self._repository(kind, name)
        if repository is not None:

            def listed(prefix: str, of: dict[str, str]) -> list[dict[str, str]]:
                return [{"name": n, "ref": f"{prefix}{n}", "targetCommit": oid} for n, oid in of.items()]

            self._say(
                200,
                {
                    "branches": listed("refs/heads/", repository.refs),
                    "converts": [],
                    "tags": listed("refs/tags/", repository.tags),
                },
            )

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return None
        oid = repository.oid(revision)
        if oid is None:
            return self._say(404, {"error": "Invalid rev id"}, headers={"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[oid]
        data = _front(files.get("README.md", b"").decode())
        return self._say(200, {
            "id": name, "modelId": name, "sha": oid, "private": repository.private, "tags": [], "cardData": data,
            "siblings": [{"rfilename": n} for n in files],
        })  # fmt: skip

    def tree(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        if repository is None:
            return None
        oid = repository.oid(revision)
        if oid is None:
            return self._say(404, {"error": "Invalid rev id"}, headers={"X-Error-Code": "RevisionNotFound"})
        return self._say(200, [
            {"type": "file", "path": n, "size": len(held), "oid": hashlib.sha1(held).hexdigest()} for n, held in repository.commits[oid].items()
        ])  # fmt: skip

    def resolve(self, prefix: str | None, name: str, revision: str, file: str) -> None:
        repository = self._repository(prefix.rstrip("/") if prefix else "models", name)
        if repository is None:
            return None
        oid = repository.oid(revision)
        if oid is None:
            return self._say(404, {"error": "Invalid rev id"}, headers={"X-Error-Code": "RevisionNotFound"})
        held = repository.commits[oid].get(file)
        if held is None:
            return self._say(
                404, {"error": "Entry not found"}, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
            )
        told = {
            "X-Repo-Commit": oid,
            "ETag": f'"{hashlib.sha1(held).hexdigest()}"',
            "Content-Type": "application/octet-stream",
        }
        return self._say(200, headers=told, raw=held)


_NAME, _KIND = r"([^/]+/[^/]+)", "(models|spaces|datasets)"
_ROUTES: list[tuple[str, Any]] = [
    (r"GET /api/whoami-v2", _Answers.who),
    (r"POST /api/repos/create", _Answers.create),
    (r"POST /api/validate-yaml", _Answers.validate),
    (rf"POST /api/{_KIND}/{_NAME}/preupload/(.+)", _Answers.preupload),
    (rf"POST /api/{_KIND}/{_NAME}/commit/(.+)", _Answers.commit),
    (rf"POST /api/{_KIND}/{_NAME}/(tag|branch)/(.+)", _Answers.point),
    (rf"GET /api/{_KIND}/{_NAME}/refs", _Answers.refs),
    (rf"GET /api/{_KIND}/{_NAME}/tree/([^/]+|refs/.+)", _Answers.tree),
    (rf"GET /api/{_KIND}/{_NAME}/revision/(.+)", _Answers.info),
    (rf"GET /api/{_KIND}/{_NAME}", _Answers.info),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Answers.batch),
    (r"PUT /objects/(\w+)", _Answers.store),
    (r"POST /verify/(\w+)", _Answers.verify),
    (rf"(?:GET|HEAD) /(spaces/|datasets/)?{_NAME}/resolve/(refs/pr/\d+|[^/]+)/(.+)", _Answers.resolve),
]


def _front(text: str) -> dict[str, Any]:
    import yaml

    match = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    return yaml.safe_load(match[1]) if match else {}


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that listens."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
