"""A server under load: `rectune serve` beside a service around `generate`, on the same export, over loopback.

    python -m benchmarks.serving [--seconds 20] [--clients 1 8 64] [--requests 20000] [--out FILE] [--page docs/serving.md]

The model is a Qwen3 of 8 layers of 512 units with random weights, prompts of about 256 tokens, 20 beams. The rival is the code of the export's card, which asks
transformers' `generate`, one request after another. Clients are threads of this process that send one request after another. With `--requests` the quickstart's
bundle (`--quickstart FOLDER`) is asked so often, and the server's memory is read on the way. Servers end with this program; each cell has its time.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.metadata
import json
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HISTORY, CODES, BEAMS = 62, 4, 20  # 62 names of 4 tokens and the frame: about 256 tokens
RECIPE: dict[str, Any] = {
    "data": {"call": "synthetic", "users": 300, "items": 3000, "categories": 15, "shortest": HISTORY + 2, "longest": HISTORY + 4},
    "split": {"call": "leave_one_out", "max_history": HISTORY},
    "index": {"call": "random_numbers", "base": 8},
    "tasks": [{"call": "next_item", "template": "next-item-names.jinja"}],
    "model": {
        "from_scratch": {
            "model_type": "qwen3", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
            "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 512, "tie_word_embeddings": True,
        },
        "text_vocab_size": 4096,
    },
    "stages": [{"call": "sft", "max_steps": 1, "per_device_train_batch_size": 1, "learning_rate": 1e-6, "max_length": 512}],
    "rank": {"template": "next-item-names.jinja", "beams": BEAMS, "k": BEAMS, "scores": "full"},
    "eval": {"call": "ranking", "k": [10], "shuffled_rows": 0, "wording_rows": 0, "examples": 0, "ease_items": 100},
    "seed": 0,
}  # fmt: skip


def bundle_of(folder: Path) -> Path:
    """The bundle of the large model, made once."""
    from rectune.bundle.export import export
    from rectune.run.train import train

    (folder / "load.yaml").write_text(yaml.safe_dump({**RECIPE, "output_dir": str(folder / "run")}))
    train(folder / "load.yaml")
    place, _ = export(folder / "run", folder / "bundle")
    return place


# ------------------------------------------------------------------------------------------------------------- servers


@contextmanager
def process(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, once it answers; ended at the end."""
    with tempfile.TemporaryFile() as log, _ended(subprocess.Popen(command, stdout=log, stderr=log)) as started:
        until = time.monotonic() + 180
        while not _ready(port):
            if time.monotonic() > until or started.poll() is not None:
                log.seek(0)
                raise RuntimeError(log.read().decode()[-2000:])
            time.sleep(0.1)
        yield started


@contextmanager
def _ended(started: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(40)
        started.kill()


def _ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        return asked(port, "GET", "/ready", None)[0] == 200
    return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def rival(bundle: Path, port: int) -> None:
    """A service around `generate`: the code of the card behind HTTP, one request at a time."""
    from rectune.bundle import plain

    it, lock = plain.load(bundle), threading.Lock()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._say({"status": "ready"})

        def do_POST(self) -> None:
            history = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["history"]
            with lock:
                found = plain.recommend(it, history, 10)
            self._say({"items": [{"item_id": item["item_id"], "score": score} for item, score in found]})

        def _say(self, said: Any) -> None:
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


# ------------------------------------------------------------------------------------------------------------- clients


def asked(
    port: int, verb: str, path: str, body: Any, connection: http.client.HTTPConnection | None = None
) -> tuple[int, bytes]:
    """Status and body of one request."""
    link = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    link.request(verb, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    answer = link.getresponse()
    return answer.status, answer.read()


def load(
    port: int, clients: int, seconds: float, histories: list[list[str]], most: int | None = None
) -> dict[str, Any]:
    """Ask for so many seconds (or `most` requests), each client one request after another; those under way are waited for."""
    took: list[float] = []
    statuses: list[int] = []
    started, until = time.perf_counter(), time.perf_counter() + seconds
    left = threading.Semaphore(most) if most is not None else None

    def client(number: int) -> None:
        draw = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        while time.perf_counter() < until and (left is None or left.acquire(blocking=False)):
            begun = time.perf_counter()
            status, _ = asked(port, "POST", "/recommend", {"history": draw.choice(histories), "k": 10}, connection)
            took.append(time.perf_counter() - begun)
            statuses.append(status)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    p50, p95, p99 = (float(1000 * np.quantile(took, q)) for q in (0.5, 0.95, 0.99))
    return {
        "clients": clients, "requests": len(took), "failed": sum(status != 200 for status in statuses), "per_second": len(took) / elapsed,
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
    }  # fmt: skip


def resident(pid: int) -> float:
    """Resident memory of a process in MiB (Linux)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def same_lists(port: int, other: int, histories: list[list[str]]) -> float:
    """Of some histories the share whose lists are equal, but for swaps of scores within 1e-5 of each other."""
    equal = 0
    for history in histories:
        ours, theirs = (
            json.loads(asked(p, "POST", "/recommend", {"history": history, "k": 10})[1])["items"] for p in (port, other)
        )
        near = all(abs(a["score"] - b["score"]) <= 1e-4 for a, b in zip(ours, theirs, strict=True))
        equal += near and {a["item_id"] for a in ours[:9]} <= {b["item_id"] for b in theirs}
    return equal / len(histories)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All cells, ours and the rival's in turn, and the memory over many requests."""
    figures: dict[str, Any] = {"cells": [], "environment": {
        "date": time.strftime("%Y-%m-%d"), "device": platform.processor() or platform.machine(), "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"), "seconds": given.seconds,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "fastapi", "uvicorn")},
    }}  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        bundle = given.bundle or bundle_of(Path(temporary))
        histories = made_up(bundle, HISTORY)
        ports = {"rectune serve": free_port(), "generate": free_port()}
        ours = [
            sys.executable,
            "-m",
            "rectune",
            "serve",
            str(bundle),
            "--port",
            str(ports["rectune serve"]),
            "--timeout",
            "600",
        ]
        theirs = [sys.executable, "-m", "benchmarks.serving", "--rival", str(bundle), "--port", str(ports["generate"])]
        with process(ours, ports["rectune serve"]), process(theirs, ports["generate"]):
            figures["equal_lists"] = same_lists(ports["rectune serve"], ports["generate"], histories[:8])
            for clients in given.clients:
                for name, port in ports.items():
                    cell = {"server": name, **load(port, clients, given.seconds, histories)}
                    figures["cells"].append(cell)
                    print(json.dumps(cell), flush=True)
        if given.quickstart is not None:
            figures["memory"] = memory(given.quickstart, given.requests)
    return figures


def memory(bundle: Path, requests: int) -> dict[str, Any]:
    """The server's memory while it answers so many requests of 16 clients."""
    port, histories = free_port(), made_up(bundle, 12)
    with process([sys.executable, "-m", "rectune", "serve", str(bundle), "--port", str(port)], port) as server:
        load(port, 16, 1e9, histories, most=500)
        seen = [resident(server.pid)]
        for _ in range(10):
            cell = load(port, 16, 1e9, histories, most=requests // 10)
            seen.append(resident(server.pid))
            print(json.dumps({**cell, "resident_mib": seen[-1]}), flush=True)
    return {"requests": requests, "resident_mib": seen, "per_second": cell["per_second"], "p99_ms": cell["p99_ms"]}


def made_up(bundle: Path, length: int) -> list[list[str]]:
    """Histories of random items."""
    lines = (bundle / "items.jsonl").read_text(encoding="utf-8").strip().split("\n")
    ids, draw = [json.loads(line)["item_id"] for line in lines], random.Random(0)
    return [draw.choices(ids, k=length) for _ in range(200)]


def page(figures: dict[str, Any], file: Path) -> None:
    """Put the figures into a page, between its marks."""
    where = figures["environment"]
    rows = [
        f"| {c['clients']} | {c['server']} | {c['per_second']:.2f} | {c['p50_ms']:,.0f} | {c['p95_ms']:,.0f} | {c['p99_ms']:,.0f} | {c['requests']} | {c['failed']} |"
        for c in figures["cells"]
    ]
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    told = [
        f"`python -m benchmarks.serving`, {where['date']}, {where['cores']} CPU cores shared by server and clients, {where['seconds']:g} s a cell, {versions}. "
        f"Of 8 histories {figures['equal_lists']:.0%} have the same list from both servers, but for swaps of equal scores.", "",
        "| clients | server | requests/s | p50, ms | p95, ms | p99, ms | requests | failed |", "|---|---|---|---|---|---|---|---|", *rows,
    ]  # fmt: skip
    if (held := figures.get("memory")) is not None:
        mib = held["resident_mib"]
        told += ["", f"Over {held['requests']:,} requests of 16 clients on the quickstart's bundle ({held['per_second']:.0f} a second, p99 {held['p99_ms']:.0f} ms) the server's "
                 f"memory went from {mib[0]:.0f} to {mib[-1]:.0f} MiB (largest {max(mib):.0f})."]  # fmt: skip
    text = file.read_text(encoding="utf-8")
    begin, end = "<!-- figures -->", "<!-- end of figures -->"
    if begin not in text or end not in text:
        raise ValueError(f"{file} has no place for figures.")
    body = "\n".join(told)
    file.write_text(text[: text.index(begin) + len(begin)] + f"\n{body}\n" + text[text.index(end) :], encoding="utf-8")


def main() -> None:
    """Measure, write, or be the rival."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--bundle", type=Path, default=None, help="a bundle instead of the large model's")
    parser.add_argument("--quickstart", type=Path, default=None, help="the quickstart's bundle, for the memory")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/measured/serving/two-cores.json"))
    parser.add_argument("--page", type=Path, default=None)
    parser.add_argument("--rival", type=Path, default=None)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    if given.rival is not None:
        rival(given.rival, given.port)
        return
    figures = measure(given) if given.seconds else json.loads(given.out.read_text())
    given.out.write_text(json.dumps(figures, indent=1))
    if given.page is not None:
        page(figures, given.page)


if __name__ == "__main__":
    main()
