"""`rectune serve`: a bundle behind HTTP, with micro-batches, limits, metrics and a reload under load."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import rectune
from rectune.bundle.recommender import Recommender, Wish
from rectune.bundle.serving.asked import Found, Listed, Lists, Opinions, Recommend, Said, Score
from rectune.bundle.serving.batcher import Batcher, Full, Stopped

LOG = logging.getLogger("rectune.serve")
OPEN = ("/health", "/ready")  # asked by machines that have no key
GONE = 499  # the client left: nobody reads this
PER_ITEM, PER_PROMPT = 8, 32  # tokens, about


@dataclass(frozen=True)
class Limits:
    """What one server takes. `tokens`: of a batch; `wait`: seconds that the first of a batch waits for others; `queue`: requests that wait at a time;
    `body`: bytes of a request; `timeout`: seconds until an answer, `reading`: until a request was read; `histories`: of one request."""

    tokens: int = 8192
    wait: float = 0.003
    queue: int = 256
    body: int = 1_000_000
    timeout: float = 30.0
    reading: float = 10.0


class Served:
    """The recommender that answers now, and how another takes its place."""

    def __init__(self, load: Callable[[], Recommender]) -> None:
        self._load, self._changing = load, threading.Lock()
        self.recommender: Recommender | None = None
        self.name = ""

    def reload(self) -> Recommender:
        """Load it anew; the old one answers until the new one is there."""
        with self._changing:
            fresh = self._load()
            self.recommender, self.name = fresh, str(fresh.bundle.name)
            return fresh


@dataclass(frozen=True)
class Opinionated:
    """A history and the items that are asked about."""

    history: list[Any]
    items: list[str]
    by: str


def app_of(load: Callable[[], Recommender], *, limits: Limits = Limits(), key: str | None = None) -> FastAPI:
    """The application. `load` gives the recommender; `key`: what requests must bring as `Authorization: Bearer KEY`."""
    served, seen = Served(load), _Metrics()
    batcher = Batcher(
        answered,
        tokens=limits.tokens,
        wait=limits.wait,
        queue=limits.queue,
        told=seen.batch,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        first = asyncio.create_task(_first(served))
        yield
        first.cancel()
        await asyncio.to_thread(batcher.stop)

    app = FastAPI(
        title="rectune",
        version=rectune.__version__,
        lifespan=lifespan,
        description="Recommendations of a tuned language model: real items only.",
    )
    app.state.served, app.state.batcher, app.state.metrics = served, batcher, seen
    app.add_middleware(_Guard, limits=limits, key=key, metrics=seen)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)

    def ready() -> Recommender:
        if served.recommender is None:
            raise HTTPException(503, "the model is being loaded", headers={"Retry-After": "2"})
        return served.recommender

    async def ask(request: Request, asked: Sequence[Any], tokens: Sequence[int]) -> list[Any]:
        tasks = [asyncio.ensure_future(batcher.ask(one, size)) for one, size in zip(asked, tokens, strict=True)]
        try:
            return await _while_connected(request, asyncio.gather(*tasks), limits.timeout)
        except Full:
            raise HTTPException(503, f"{limits.queue} requests wait already", headers={"Retry-After": "1"}) from None
        except Stopped:
            raise HTTPException(503, "the server is stopping", headers={"Retry-After": "5"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.timeout:g} seconds") from None
        finally:
            for task in tasks:
                task.cancel()

    @app.post("/recommend", response_model_exclude_none=True)
    async def recommend(request: Request, asked: Recommend) -> Lists:
        """The best items after one history, or after each of many."""
        recommender = ready()
        histories = [asked.history] if asked.history is not None else (asked.histories or [])
        keys = asked.model_dump(include={"k", "hide_seen", "allow", "deny", "candidates", "by", "user", "prior_weight"})
        wishes = [_checked(recommender, history, keys) for history in histories]
        asks = [(recommender, wish) for wish in wishes]
        found = await ask(request, asks, [PER_PROMPT + PER_ITEM * len(wish.history) for wish in wishes])
        lists = [[Listed(**{k: v for k, v in asdict(item).items() if k != "commit"}) for item in one] for one in found]
        name, commit = str(recommender.bundle.name), recommender.bundle.commit
        if asked.history is not None:
            return Lists(items=lists[0], model=name, commit=commit)
        return Lists(lists=lists, model=name, commit=commit)

    @app.post("/score", response_model_exclude_none=True)
    async def score(request: Request, asked: Score) -> Opinions:
        """What a user with this history would say of items: the probability of Yes, or the expected rating."""
        recommender = ready()
        history = [entry if isinstance(entry, str) else tuple(entry) for entry in asked.history]
        size = len(asked.items) * (PER_PROMPT + PER_ITEM * (1 + len(history)))
        (found,) = await ask(request, [(recommender, Opinionated(history, asked.items, asked.by))], [size])
        said = [Said(**{k: v for k, v in asdict(one).items() if k != "commit"}) for one in found]
        return Opinions(items=said, model=str(recommender.bundle.name), commit=recommender.bundle.commit)

    @app.get("/items")
    async def items(query: str = Query("", max_length=200), k: int = Query(10, ge=1, le=100)) -> Found:
        """Items whose titles hold every word of `query`."""
        found = await asyncio.to_thread(ready().search_items, query, k)
        return Found(items=[{"item_id": item["item_id"], "title": item["title"]} for item in found])

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok", "rectune": rectune.__version__}

    @app.get("/ready")
    async def is_ready() -> dict[str, Any]:
        """Whether a model answers."""
        bundle = ready().bundle
        return {
            "status": "ready",
            "model": str(bundle.name),
            "commit": bundle.commit,
            "items": bundle.items.height,
            "kind": bundle.kind,
        }

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        seen.waiting.set(len(batcher))
        return Response(generate_latest(seen.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/reload")
    async def reload() -> dict[str, Any]:
        """Load the same folder or repository anew; requests are answered meanwhile."""
        try:
            bundle = (await asyncio.to_thread(served.reload)).bundle
        except (ValueError, OSError, KeyError) as error:
            raise HTTPException(409, f"the old model stays: {' '.join(str(error).split())[:300]}") from None
        seen.reloads.inc()
        return {"model": str(bundle.name), "commit": bundle.commit, "items": bundle.items.height}

    return app


def answered(batch: Sequence[Any]) -> list[Any]:
    """The results of a batch: its lists ranked together, one call for each recommender that was asked; an exception stands for itself."""
    results: list[Any] = [None] * len(batch)
    groups: dict[int, list[int]] = {}
    for n, (recommender, asked) in enumerate(batch):
        if isinstance(asked, Wish):
            groups.setdefault(id(recommender), []).append(n)
            continue
        try:
            results[n] = recommender.score([asked.history] * len(asked.items), asked.items, by=asked.by)
        except ValueError as error:
            results[n] = HTTPException(422, _short(error))
    for group in groups.values():
        recommender = batch[group[0]][0]
        for n, listed in zip(group, recommender.lists([batch[n][1] for n in group]), strict=True):
            results[n] = listed
    return results


async def _first(served: Served) -> None:
    """Load the model while the server listens already; without one it ends."""
    try:
        await asyncio.to_thread(served.reload)
    except asyncio.CancelledError:
        raise
    except Exception:
        LOG.exception("the model could not be loaded")
        raise


def _checked(recommender: Recommender, history: list[str], keys: dict[str, Any]) -> Wish:
    try:
        return recommender.wish(history, **keys)
    except (ValueError, TypeError) as error:
        raise HTTPException(422, _short(error)) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


async def _while_connected(request: Request, answer: Awaitable[Any], timeout: float) -> Any:
    """Wait for an answer as long as its client does. Raises TimeoutError, and HTTPException where the client has left."""
    task = asyncio.ensure_future(answer)
    until = time.monotonic() + timeout
    try:
        while not task.done():
            rest = until - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            await asyncio.wait({task}, timeout=min(0.1, rest))
            if not task.done() and await request.is_disconnected():
                raise HTTPException(GONE, "the client left")
        return task.result()
    finally:
        task.cancel()


# ------------------------------------------------------------------------------------------------- what stands before it


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rectune_requests", "requests by path and status", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "rectune_request_seconds", "seconds until the answer", ["path"], registry=self.registry
        )
        self.batches = Histogram(
            "rectune_batch_requests",
            "requests in a batch",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.model = Histogram("rectune_batch_seconds", "seconds of the model for a batch", registry=self.registry)
        self.waiting = Gauge("rectune_waiting_requests", "requests that wait", registry=self.registry)
        self.reloads = Counter("rectune_reloads", "models that took another's place", registry=self.registry)

    def batch(self, size: int, seconds: float) -> None:
        """After each batch."""
        self.batches.observe(size)
        self.model.observe(seconds)


class _Guard:
    """Key, size and time of every request, before anything is parsed; counts, and a line without histories, after it."""

    def __init__(self, app: Any, *, limits: Limits, key: str | None, metrics: _Metrics) -> None:
        self.app, self.limits, self.key, self.metrics = app, limits, key, metrics

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, path = time.perf_counter(), 500, scope["path"]

        async def noted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            took = time.perf_counter() - started
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(took)
            LOG.info(
                "%s %s %s %.1f ms", scope["method"], path[:100].encode("unicode_escape").decode(), status, took * 1000
            )

    async def _guarded(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.key is not None and scope["path"] not in OPEN:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.key.encode()):
                await _say(send, 401, "a key is needed: `Authorization: Bearer KEY`", {"WWW-Authenticate": "Bearer"})
                return
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.limits.body:
            await _say(send, 413, f"a request may have {self.limits.body:,} bytes")
            return
        body, more = b"", scope["method"] in ("POST", "PUT", "PATCH")
        until = time.monotonic() + self.limits.reading
        while more:
            try:
                message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0.001))
            except TimeoutError:
                await _say(send, 408, f"the request was not read within {self.limits.reading:g} seconds")
                return
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.limits.body:
                await _say(send, 413, f"a request may have {self.limits.body:,} bytes")
                return
        handed = False

        async def again() -> Any:
            nonlocal handed
            if handed:
                return await receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


async def _say(send: Any, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
    told = _answer(status, detail, headers)
    await send({"type": "http.response.start", "status": status, "headers": told.raw_headers})
    await send({"type": "http.response.body", "body": told.body})


def _answer(status: int, detail: Any, headers: dict[str, str] | None = None) -> Response:
    # ASCII: a text that was sent may hold halves of characters, which no UTF-8 can carry back
    return Response(json.dumps({"detail": detail}), status, dict(headers or {}), "application/json")


async def _malformed(_: Request, error: Exception) -> Response:
    """What was wrong with a request, without what it held."""
    assert isinstance(error, RequestValidationError)
    told = [
        {"where": ".".join(map(str, one["loc"]))[:200], "what": str(one["msg"])[:200]} for one in error.errors()[:5]
    ]
    return _answer(422, told)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, error.detail, dict(error.headers or {}))


async def _broken(_: Request, error: Exception) -> Response:
    """Nothing of what went wrong inside is told outside; it stands in the log."""
    LOG.error("an answer failed", exc_info=error)
    return _answer(500, "the answer failed; the server's log says why")
