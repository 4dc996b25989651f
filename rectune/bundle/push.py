"""`rectune push`: a bundle on the Hub, in one commit, fetched back and compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rectune.bundle.card import card, example
from rectune.bundle.export import export
from rectune.bundle.files import ABOUT
from rectune.bundle.hub import is_repository, told
from rectune.bundle.manifest import FILE, check_files
from rectune.bundle.reading import read_bundle
from rectune.bundle.recommender import Recommender
from rectune.bundle.space import check_space, check_visibility, push_space
from rectune.decoding.language_model import LanguageModelRanker
from rectune.methods.probe import EXACT, PROBE, ROUNDED, probed, refuse
from rectune.run.run import RESOLVED
from rectune.runtime.files import sha256

MAY_CHANGE = ("report.json", "report.html", "rectune.json")  # dates and versions of the same model
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,40}")


@dataclass(frozen=True)
class Pushed:
    """Where a bundle lies now. `tag`: '' where none was set; `probe`: how far the fetched model's logits are from those that were written, None where
    its method has no probe; `space`: where its page is."""

    url: str
    commit: str
    tag: str
    files: int
    size: int
    probe: float | None
    space: str = ""


@dataclass(frozen=True)
class Pushing:
    """How a bundle is pushed, see `rectune push --help`."""

    repo: str
    public: bool = False
    licence: str | None = None
    revision: str | None = None
    create_pr: bool = False
    message: str | None = None
    keep_card: bool = False
    adapter_only: bool = False
    public_titles: bool = False
    space: bool = False

    def __post_init__(self) -> None:
        if self.create_pr and self.revision is not None:
            raise ValueError("`--create-pr` opens a pull request against the default branch; leave `--revision` out.")
        if not is_repository(self.repo):
            raise ValueError(f"`{self.repo}` is no name of a repository. Give USER/REPO, e.g. anna/tea-shop.")
        if self.licence is not None and not LICENCE.fullmatch(self.licence):
            raise ValueError(
                f"`--license`: {self.licence!r} is no licence of the Hub. Give its id, e.g. apache-2.0, mit, cc-by-4.0, other."
            )


def push(folder: str | Path, how: Pushing) -> Pushed:
    """Put a run or a bundle into a repository of the Hub, private unless asked otherwise, and load it back.

    One commit: what an earlier bundle left there and this one does not hold goes with it. The tag is the fingerprint of the run. A push that was cut off is made again by
    the same call. Raises ValueError or OSError with one line: no token, an unknown licence, a tag that stands for other files, a copy that is not equal.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    if how.space:
        check_space()
    with told(how.repo):
        who(api)
        with staged(folder, how) as (place, licence):
            about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
            tag = tag_of(about, place, how)
            api.create_repo(how.repo, private=not how.public, exist_ok=True)
            check_visibility(api, how.repo, public=how.public)
            if how.revision is not None and not how.create_pr:
                api.create_branch(how.repo, branch=how.revision, exist_ok=True)
            tagged = _tagged(api, how.repo, tag, place) if tag else False
            done = api.create_commit(  # upload_folder may cut a large folder into several
                how.repo, _operations(api, how, place), revision=how.revision, create_pr=how.create_pr or None,
                commit_message=how.message or f"{about['run']['recipe']}, run {about['run']['fingerprint']}",
            )  # fmt: skip
            commit = done.oid
            probe = fetched_back(how.repo, done.pr_revision or commit, place)
            if tag and not tagged:
                api.create_tag(how.repo, tag=tag, revision=commit, exist_ok=True)
            files = [file for file in place.rglob("*") if file.is_file()]
            url = done.pr_url or f"{api.endpoint}/{how.repo}"
            page = push_space(api, how.repo, licence, private=not how.public) if how.space else ""
            return Pushed(str(url), commit, tag, len(files), sum(file.stat().st_size for file in files), probe, page)


def planned(folder: str | Path, how: Pushing) -> dict[str, Any]:
    """What `push` would do, with nothing sent: the files with their sizes, licence, tag, and the card."""
    with staged(folder, how) as (place, licence):
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        files = {f.relative_to(place).as_posix(): f.stat().st_size for f in sorted(place.rglob("*")) if f.is_file()}
        return {
            "repo": how.repo, "private": not how.public, "licence": licence, "tag": tag_of(about, place, how),
            "files": files, "card": (place / "README.md").read_text(encoding="utf-8"),
        }  # fmt: skip


def tag_of(about: dict[str, Any], place: Path, how: Pushing) -> str:
    """The fingerprint of the run, and where items were added to it a mark of them; '' for a pull request."""
    if how.create_pr:
        return ""
    run = str(about["run"]["fingerprint"])
    return run if not about["items"]["added"] else f"{run}-{sha256(place / 'items.jsonl')[:8]}"


def check_push(base: str | None, how: Pushing) -> None:
    """Raise ValueError where a push after a training would fail for what can be known before it: no token, or no licence."""
    from huggingface_hub import HfApi

    with told(how.repo):
        who(HfApi())
        licence_of({"base": {"on_hub": base if base and not Path(base).exists() else None, "name": base}}, how)


def who(api: Any) -> str:
    """The name of the token's owner. Raises ValueError where there is none."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        return str(api.whoami()["name"])
    except LocalTokenNotFoundError:
        raise ValueError("no token of the Hub was found. Type `hf auth login`, or set HF_TOKEN.") from None
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            raise ValueError(
                "the Hub does not know this token. Type `hf auth login`, or set HF_TOKEN to one that may write."
            ) from None
        raise


def licence_of(about: dict[str, Any], how: Pushing) -> str:
    """The licence that is given, or the base's own. Raises ValueError where neither is known."""
    if how.licence is not None:
        return how.licence
    base = about["base"].get("on_hub")
    known = _licence_of_base(base) if base else None
    if known is None:
        why = (
            f"the card of the base `{base}` names none"
            if base
            else "the model has no base of the Hub that could name one"
        )
        raise ValueError(f"the licence is not known: {why}. Give it, e.g. --license apache-2.0.")
    return known


def _licence_of_base(base: str) -> str | None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        data = HfApi().model_info(base).card_data
    except RepositoryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"the licence is not known: the Hub could not be asked for the card of `{base}` ({why}). Give --license."
        ) from None
    licence = data.get("license") if data is not None else None
    return licence if isinstance(licence, str) and licence != "other" else None


@contextmanager
def staged(folder: str | Path, how: Pushing) -> Iterator[tuple[Path, str]]:
    """The files that are pushed, in a folder of their own: of a bundle as they are, of a run exported; with the card for the Hub. And the licence."""
    source = Path(folder)
    with tempfile.TemporaryDirectory(prefix="rectune-push-") as temporary:
        place = Path(temporary) / "bundle"
        if (source / ABOUT).exists() or (source / FILE).exists():
            if how.adapter_only:
                raise ValueError(
                    "`--adapter-only`: give the run's folder, or `rectune export --adapter-only` and push that."
                )
            for name in (*check_files(source), FILE):  # nothing else that lies there
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                _linked(source / name, place / name)
        elif (source / RESOLVED).exists():
            export(source, place, adapter_only=how.adapter_only)
        else:
            raise FileNotFoundError(
                f"`{folder}` is neither a finished run folder nor a bundle that `rectune export` wrote."
            )
        about = json.loads((place / ABOUT).read_text(encoding="utf-8"))
        if how.space and about.get("chooses"):
            raise ValueError(
                "`--space`: this model chooses among candidates, and the page of a Space asks for none. Leave `--space` out."
            )
        licence = licence_of(about, how)
        listed = _listed(place, about) if how.public_titles and about["kind"] == "item" else None
        card_file = place / "README.md"
        card_file.unlink(missing_ok=True)  # it may be a link to the source's own
        card_file.write_text(card(place, repo=how.repo, licence=licence, listed=listed), encoding="utf-8")
        yield place, licence


def _linked(source: Path, target: Path) -> None:
    """A file without a second copy of its bytes, where the disk allows."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _listed(place: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    recommender, shown = Recommender(read_bundle(place)), example(place, about)
    offered = shown["candidates"] if about.get("chooses") else None
    found = recommender.recommend(list(shown["history"]), min(5, recommender.max_k), candidates=offered)
    return [asdict(item) for item in found]


def _operations(api: Any, how: Pushing, place: Path) -> list[Any]:
    """What the commit adds, and of an earlier bundle in the repository what it takes away; what others put there stays."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    revision = None if how.create_pr else how.revision
    there = set(api.list_repo_files(how.repo, revision=revision))
    ours = {file.relative_to(place).as_posix(): file for file in sorted(place.rglob("*")) if file.is_file()}
    if how.keep_card and "README.md" in there:
        del ours["README.md"]
    old = _manifest_at(api, how.repo, revision) or {"files": {}}
    gone = sorted(name for name in old["files"] if name in there and name not in ours)
    adds = [CommitOperationAdd(name, str(file)) for name, file in ours.items()]
    return [*adds, *(CommitOperationDelete(name) for name in gone)]


def _tagged(api: Any, repo: str, tag: str, place: Path) -> bool:
    """Whether the tag is there already, for the same files. Raises ValueError where it stands for others."""
    if tag not in {ref.name for ref in api.list_repo_refs(repo).tags}:
        return False
    old, new = _manifest_at(api, repo, tag), json.loads((place / FILE).read_text(encoding="utf-8"))
    models = [{n: f for n, f in held["files"].items() if n not in MAY_CHANGE} if held else None for held in (old, new)]
    if models[0] != models[1]:
        raise ValueError(
            f"`{repo}` has the tag `{tag}` already, for other files: the same run was pushed from another export. Delete the tag there, or push to another "
            "repository."
        )
    return True


def _manifest_at(api: Any, repo: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub.errors import EntryNotFoundError

    with tempfile.TemporaryDirectory() as cache:
        try:
            file = api.hf_hub_download(repo, FILE, revision=revision, cache_dir=cache)
            found = json.loads(Path(file).read_text(encoding="utf-8"))
        except (EntryNotFoundError, ValueError):
            return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def fetched_back(repo: str, revision: str, place: Path) -> float | None:
    """Fetch what was pushed into a cache of its own and load it. Returns how far its logits on the probe are from those that were written.

    Raises ValueError where a file is another one or the logits differ by more than rounding does.
    """
    from rectune.bundle.hub import fetched

    with tempfile.TemporaryDirectory(prefix="rectune-pushed-") as cache:
        copy, commit = fetched(repo, revision=revision, cache_dir=cache)
        if (copy / FILE).read_bytes() != (place / FILE).read_bytes():
            raise ValueError(f"`{repo}` holds other files than were pushed (its {FILE} differs). Push again.")
        ranker = read_bundle(copy, commit=commit).ranker
        if not isinstance(ranker, LanguageModelRanker) or not (copy / PROBE).exists():
            return None
        found = probed(ranker.model, copy)
        whole = not (copy / "adapter_config.json").exists()
        refuse(found, EXACT if whole else ROUNDED, f"pushing to `{repo}` and loading it back")
        return found["largest_difference"]
