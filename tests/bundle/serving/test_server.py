"""The server over real sockets: the lists of the bundle, limits, leaving, reloading, stopping."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")

from rectune import Recommender
from tests.bundle.test_export_answers import films
from tests.exports import GPT2, exported
from tests.runs import free_port

pytestmark = pytest.mark.heavy


@contextmanager
def listening(load: Any, *, key: str | None = None, **limits: Any) -> Iterator[Client]:
    """A server in a thread, and a client of it."""
    import uvicorn

    from rectune.bundle.serving.app import app_of
    from rectune.bundle.serving.guard import Limits

    app = app_of(load, limits=Limits(**limits), key=key)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    client = Client(server.servers[0].sockets[0].getsockname()[1], key)
    client.app = app
    until = time.monotonic() + 30
    while client.get("/ready")[0] != 200 and time.monotonic() < until:
        time.sleep(0.02)
    try:
        yield client
    finally:
        server.should_exit = True
        thread.join(30)


class Client:
    """Asks one server."""

    app: Any

    def __init__(self, port: int, key: str | None = None) -> None:
        self.port, self.headers = port, {"Authorization": f"Bearer {key}"} if key else {}

    def ask(
        self, verb: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                verb, path, body, {"Content-Type": "application/json", **self.headers, **(headers or {})}
            )
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON."""
        status, body, _ = self.ask("GET", path)
        return status, json.loads(body)

    def post(self, path: str, asked: Any) -> tuple[int, Any]:
        """Status and JSON."""
        status, body, _ = self.ask("POST", path, json.dumps(asked).encode())
        return status, json.loads(body)


@pytest.fixture(scope="module")
def server(shop_bundle: Path) -> Iterator[Client]:
    with listening(partial(Recommender.from_pretrained, shop_bundle)) as client:
        yield client


def test_it_lists_what_the_bundle_lists(server: Client, shop_bundle: Path) -> None:
    it = Recommender.from_pretrained(shop_bundle)
    status, said = server.post("/recommend", {"history": ["i3", "i7"], "k": 5})
    assert status == 200
    ours = it.recommend(["i3", "i7"], 5)
    assert [(i["item_id"], i["title"], i["score"], i["proven"]) for i in said["items"]] == [
        (i.item_id, i.title, i.score, i.proven) for i in ours
    ]
    assert said["model"] == "shop"
    status, said = server.post(
        "/recommend", {"histories": [["i3", "i7"], [], ["i1"]], "k": 4, "deny": ["i9"], "hide_seen": False}
    )
    lists = it.recommend([["i3", "i7"], [], ["i1"]], 4, deny=["i9"], hide_seen=False)
    assert [[i["item_id"] for i in row] for row in said["lists"]] == [[i.item_id for i in row] for row in lists]
    _, said = server.post("/recommend", {"history": ["i3"], "candidates": ["i4", "i5"], "prior_weight": 0})
    some = it.recommend(["i3"], candidates=["i4", "i5"], prior_weight=0)
    assert [(i["item_id"], i["score"]) for i in said["items"]] == [(i.item_id, i.score) for i in some]
    title = it.items["title"][3]
    assert server.post("/recommend", {"history": [title], "by": "title"})[0] == 200
    word = title.split()[0]
    found = server.get(f"/items?query={word}")[1]["items"]
    assert found
    assert all(word.lower() in item["title"].lower() for item in found)


def test_answers_about_items(tmp_path: Path) -> None:
    folder = exported(films(tmp_path, GPT2))
    it = Recommender.from_pretrained(folder)
    with listening(partial(Recommender.from_pretrained, folder)) as client:
        status, said = client.post("/score", {"history": ["p1", ["p4", False], ["p6", 4]], "items": ["p3", "p5"]})
        assert status == 200
        ours = it.score([["p1", ("p4", False), ("p6", 4.0)]] * 2, ["p3", "p5"])
        assert [(i["item_id"], i["score"], i["chances"]) for i in said["items"]] == [
            (i.item_id, i.score, i.chances) for i in ours
        ]
        status, said = client.post("/recommend", {"history": ["p1"]})
        assert (status, "Ask with `score`" in said["detail"]) == (422, True)
        status, said = client.post("/score", {"history": [["p1", 77]], "items": ["p3"]})
        assert (status, "they run from 1 to 5" in said["detail"]) == (422, True)


def test_many_clients_at_once_get_their_own_lists(server: Client, shop_bundle: Path) -> None:
    it = Recommender.from_pretrained(shop_bundle)
    asked = [[f"i{n % 40}", f"i{(n * 7 + 1) % 40}"] for n in range(64)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda history: server.post("/recommend", {"history": history, "k": 3}), asked))
    assert {status for status, _ in answers} == {200}
    for (_, said), ours in zip(answers, it.recommend(asked, 3), strict=True):
        near = [pytest.approx(i.score, abs=1e-5) for i in ours]
        assert [i["score"] for i in said["items"]] == near
        swapped = {i["item_id"] for i in said["items"]} ^ {i.item_id for i in ours}
        assert not swapped or abs(ours[-1].score - ours[-2].score) < 1e-5
    counts = server.ask("GET", "/metrics")[1].decode()
    assert 'rectune_requests_total{path="/recommend",status="200"}' in counts
    (most,) = [
        float(line.rpartition(" ")[2])
        for line in counts.splitlines()
        if line.startswith('rectune_batch_requests_bucket{le="1.0"')
    ]
    (all_of_them,) = [
        float(line.rpartition(" ")[2])
        for line in counts.splitlines()
        if line.startswith("rectune_batch_requests_count")
    ]
    assert most < all_of_them  # some were answered together


def test_what_is_not_of_the_api_is_refused_with_what_to_send(server: Client) -> None:
    for asked, message in (
        ({}, "give either `history` or `histories`"),
        ({"history": ["i3"], "histories": [["i3"]]}, "give either"),
        ({"history": ["x9"]}, "the catalogue has no item with item_id `x9`"),
        ({"history": ["i3"], "k": 7}, "k = 7, but it must be from 1 to 6"),
        ({"history": ["i3"], "k": 0}, "greater than or equal to 1"),
        ({"history": ["i3"], "k": 2.5}, "valid integer"),
        ({"history": ["i3"], "kk": 2}, "Extra inputs are not permitted"),
        ({"history": "i3"}, "valid list"),
        ({"history": ["i1"] * 1001}, "at most 1000 items"),
        ({"history": ["i3"], "candidates": ["i3"] * 10001}, "at most 10000 items"),
        ({"history": ["i3"], "allow": ["gone"]}, "no item may be listed"),
        ({"history": ["i3"], "prior_weight": -1}, "greater than or equal to 0"),
        ({"histories": []}, "at least 1 item"),
    ):
        status, said = server.post("/recommend", asked)
        assert status == 422, (asked, said)
        assert message in json.dumps(said), (asked, said)
    assert server.ask("GET", "/nothing")[0] == 404
    assert server.ask("GET", "/recommend")[0] == 405
    assert server.ask("POST", "/recommend", b"x" * 1_100_000)[0] == 413
    paths = json.loads(server.ask("GET", "/openapi.json")[1])["paths"]
    assert set(paths) == {"/recommend", "/score", "/items", "/health", "/ready", "/reload"}
    assert server.ask("GET", "/docs")[0] == 200


def test_a_thousand_malformed_requests_are_4xx_and_it_lives(server: Client) -> None:
    draw = random.Random(0)
    good = json.dumps(
        {"history": ["i3", "i7"], "k": 3, "deny": ["i9"], "candidates": ["i4"], "by": "item_id", "hide_seen": True}
    ).encode()
    strange: list[Any] = [
        None,
        True,
        -1,
        1e308,
        "\ud800",
        "\x00",
        "x" * 5000,
        [],
        {},
        [[[]]],
        {"a": {"b": 1}},
        10**40,
        "💥",
    ]
    seen: dict[int, int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for n in range(1000):
        body = bytearray(good)
        if n % 3 == 0:
            for _ in range(draw.randint(1, 6)):
                body[draw.randrange(len(body))] = draw.randrange(256)
        elif n % 3 == 1:
            key = draw.choice(
                [
                    "history",
                    "histories",
                    "k",
                    "deny",
                    "allow",
                    "candidates",
                    "by",
                    "hide_seen",
                    "user",
                    "prior_weight",
                    "new",
                ]
            )
            body = bytearray(json.dumps({"history": ["i3"], key: draw.choice(strange)}).encode())
        else:
            body = body[: draw.randrange(len(body))] + bytes(draw.randrange(256) for _ in range(draw.randint(0, 9)))
        if n == 500:
            body = bytearray(b'{"history": ' + b"[" * 100_000)
        path = draw.choice(["/recommend", "/recommend", "/score"])
        connection.request(
            "POST",
            path,
            bytes(body),
            {"Content-Type": draw.choice(["application/json", "text/plain", "application/json; charset=latin-1"])},
        )
        answer = connection.getresponse()
        said = answer.read()
        seen[answer.status] = seen.get(answer.status, 0) + 1
        assert answer.status < 500, (body, said)
        assert b"Traceback" not in said
    assert seen.get(422, 0) > 500
    assert server.post("/recommend", {"history": ["i3"]})[0] == 200


def test_no_socket_of_garbage_stops_it(server: Client) -> None:
    draw = random.Random(1)
    for n in range(30):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw, contextlib.suppress(OSError):
            raw.sendall(
                bytes(draw.randrange(256) for _ in range(200))
                if n % 2
                else b"POST /recommend HTTP/1.1\r\nContent-Length: 99999\r\n\r\n{"
            )
    assert server.get("/health")[0] == 200


def test_a_key_stands_before_everything_but_health(shop_bundle: Path) -> None:
    with listening(partial(Recommender.from_pretrained, shop_bundle), key="a secret") as client:
        assert client.post("/recommend", {"history": ["i3"]})[0] == 200
        client.headers = {}
        for wrong in (
            {},
            {"Authorization": "Bearer another"},
            {"Authorization": "a secret"},
            {"Authorization": "Bearer a secret2"},
        ):
            for verb, path in (
                ("POST", "/recommend"),
                ("POST", "/reload"),
                ("GET", "/metrics"),
                ("GET", "/items"),
                ("GET", "/docs"),
            ):
                status, body, headers = client.ask(verb, path, b"{}", wrong)
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
                assert b"a secret" not in body
        assert client.get("/health")[0] == client.get("/ready")[0] == 200


class Held:
    """A recommender whose model waits until it may go on."""

    def __init__(self, shop_bundle: Path) -> None:
        self.it, self.go, self.asked = Recommender.from_pretrained(shop_bundle), threading.Event(), 0
        self.bundle = self.it.bundle
        self.wish = self.it.wish

    def lists(self, wishes: Any) -> Any:
        self.asked += len(wishes)
        self.go.wait(20)
        return self.it.lists(wishes)


def test_a_full_queue_a_time_out_and_clients_that_leave(shop_bundle: Path) -> None:
    held = Held(shop_bundle)
    with listening(lambda: held, queue=2, timeout=1.0, wait=0.0) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/recommend", {"history": ["i3"]})
        while not held.asked:
            time.sleep(0.005)
        leaving = [_leaves(client) for _ in range(2)]
        assert len(client.app.state.batcher) == 2
        status, _, headers = client.ask("POST", "/recommend", b'{"history": ["i3"]}')
        assert (status, headers["Retry-After"]) == (503, "1")
        for connection in leaving:
            connection.close()
        until = time.monotonic() + 5
        while len(client.app.state.batcher) and time.monotonic() < until:
            time.sleep(0.02)
        assert len(client.app.state.batcher) == 0  # their places are free
        status, said = first.result()
        assert (status, said["detail"]) == (504, "no answer within 1 seconds")
        held.go.set()
        assert client.post("/recommend", {"history": ["i3"]})[0] == 200
        assert held.asked == 2  # nobody asked the model for those who left


def _leaves(client: Client) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=5)
    connection.request("POST", "/recommend", b'{"history": ["i1"]}', {"Content-Type": "application/json"})
    time.sleep(0.05)
    return connection


def test_a_request_that_is_sent_too_slowly_is_given_up(shop_bundle: Path) -> None:
    with (
        listening(partial(Recommender.from_pretrained, shop_bundle), reading=0.3) as client,
        socket.create_connection(("127.0.0.1", client.port), timeout=5) as raw,
    ):
        raw.sendall(
            b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        assert b"408" in raw.recv(100)


def test_a_reload_under_load_loses_no_request_and_a_broken_one_keeps_the_old(shop_bundle: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(shop_bundle, tmp_path / "bundle"))
    with listening(partial(Recommender.from_pretrained, place)) as client:
        stop, seen = threading.Event(), []

        def load() -> None:
            while not stop.is_set():
                seen.append(client.post("/recommend", {"history": ["i3"], "k": 3})[0])

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for round_ in range(3):
            assert client.ask("POST", "/reload")[0] == 200
            while len(seen) < 10 * (round_ + 1):
                time.sleep(0.01)
        (place / "items.jsonl").write_text("broken")
        status, said, _ = client.ask("POST", "/reload")
        assert (status, b"the old model stays" in said, str(tmp_path).encode() in said) == (409, True, False)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(seen) == {200}
        assert b"rectune_reloads_total 3.0" in client.ask("GET", "/metrics")[1]


# ------------------------------------------------------------------------------------------------------------ the process


def _process(shop_bundle: Path, *options: str, **environment: str) -> tuple[subprocess.Popen[str], Client]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "rectune", "serve", str(shop_bundle), "--port", str(port), *options], env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}" in line, line + (process.stderr.read() if process.stderr else "")
    client = Client(port, environment.get("RECTUNE_KEY"))
    for _ in range(200):
        with contextlib.suppress(OSError):
            if client.get("/ready")[0] == 200:
                break
        time.sleep(0.05)
    return process, client


def test_sigterm_ends_it_after_what_was_asked_and_its_log_holds_no_history(shop_bundle: Path) -> None:
    process, client = _process(shop_bundle, "--wait-ms", "400", RECTUNE_KEY="k")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.post, "/recommend", {"history": ["i33", f"i{n}"], "k": 3}) for n in range(4)]
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert [future.result()[0] for future in asked] == [200] * 4
    _, log = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert log.count("POST /recommend 200") == 4
    assert "i33" not in log
    assert "Traceback" not in log


def test_killed_it_starts_again_and_leaves_the_bundle_as_it_was(shop_bundle: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in shop_bundle.rglob("*")}
    process, _ = _process(shop_bundle)
    process.kill()
    process.communicate()
    again, client = _process(shop_bundle)
    assert client.post("/recommend", {"history": ["i3"]})[0] == 200
    again.terminate()
    again.communicate(timeout=30)
    assert {file: file.stat().st_mtime_ns for file in shop_bundle.rglob("*")} == before


def test_what_cannot_be_served_is_one_line(
    shop_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_cli import fails

    assert "is neither a finished run folder, nor a bundle" in fails(capsys, "serve", "nothing")
    assert "`--queue` must be at least 1" in fails(capsys, "serve", str(shop_bundle), "--queue", "0")
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "fastapi" else found(name, *more)
    )
    assert "needs fastapi. Type `pip install 'rectune[serve]'`" in fails(capsys, "serve", str(shop_bundle))


def test_pages_of_other_sites_are_refused_and_no_path_of_the_machine_is_told(server: Client, shop_bundle: Path) -> None:
    assert server.ask("POST", "/reload", b"{}", {"Origin": "https://evil.example"})[0] == 403
    assert server.ask("GET", "/health", headers={"Origin": "https://evil.example"})[0] == 403
    assert server.ask("GET", "/health", headers={"Origin": f"http://127.0.0.1:{server.port}"})[0] == 200
    for status, said, _ in (
        server.ask("GET", "/ready"), server.ask("POST", "/recommend", b'{"history": ["i3"]}'), server.ask("POST", "/score", b'{"history": [], "items": ["i3"]}'),
    ):  # fmt: skip
        assert status in (200, 422)
        assert str(shop_bundle.parent).encode() not in said


def test_the_largest_request_takes_one_place_and_a_broken_one_fails_alone(shop_bundle: Path) -> None:
    held = Held(shop_bundle)
    held.go.set()
    whole = held.lists

    def lists(wishes: Any) -> Any:
        if any(wish.prior_weight == 3 for wish in wishes):
            raise RuntimeError("broken")
        return whole(wishes)

    held.lists = lists  # type: ignore[method-assign]
    with listening(lambda: held, queue=3, wait=0.2) as client, ThreadPoolExecutor(3) as pool:
        asked = [
            {"histories": [["i1"]] * 256, "k": 1},
            {"history": ["i3"], "prior_weight": 3},
            {"history": ["i3"], "k": 2},
        ]
        (many, broken, one) = pool.map(lambda body: client.post("/recommend", body), asked)
        assert (many[0], len(many[1]["lists"]), one[0]) == (200, 256, 200)
        assert broken == (500, {"detail": "the answer failed; the server's log says why"})
