"""The server as a process: model, application and uvicorn."""

from __future__ import annotations

import logging
import os
import warnings
from functools import partial
from pathlib import Path

import uvicorn

from rectune.bundle.recommender import Recommender
from rectune.bundle.serving.app import app_of
from rectune.bundle.serving.guard import Limits

KEY = "RECTUNE_KEY"
MOST_CONNECTIONS = 2_000  # one more gets 503
GRACE = 30  # seconds that answers in work have after SIGTERM


def serve(source: str | Path, *, host: str, port: int, device: str, revision: str | None, limits: Limits) -> None:
    """Serve a run, a bundle or a repository until SIGTERM or SIGINT; what is asked until then is answered."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    warnings.simplefilter("ignore", UserWarning)  # they name items of histories, and the log holds none
    load = partial(Recommender.from_pretrained, source, device=device, revision=revision)
    first = load()  # what cannot be loaded is refused before anything listens
    app = app_of(_starting_with(first, load), limits=limits, key=os.environ.get(KEY) or None)
    print(
        f"serving {source} on http://{host}:{port} ({first.items.height:,} items); the API is described at /docs",
        flush=True,
    )
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        server_header=False,
    )


def _starting_with(first: Recommender, load: partial[Recommender]) -> partial[Recommender]:
    """A loader whose first call gives what is loaded already."""
    held = [first]

    def next_one() -> Recommender:
        return held.pop() if held else load()

    return partial(next_one)
