"""What stands before and around every request: key, size, time, counts, and what is told of errors."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LOG = logging.getLogger("rectune.serve")
OPEN = ("/health", "/ready")  # asked by machines that have no key


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


class Metrics:
    """What Prometheus is told."""

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


class Guard:
    """Key, size and time of every request, before anything is parsed; counts, and a line without histories, after it."""

    def __init__(self, app: Any, *, limits: Limits, key: str | None, metrics: Metrics) -> None:
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
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != headers.get(b"host", b"").decode("latin-1"):
            await _say(send, 403, "pages of other sites may not ask this server")
            return
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


async def malformed(_: Request, error: Exception) -> Response:
    """What was wrong with a request, without what it held."""
    assert isinstance(error, RequestValidationError)
    told = [
        {"where": ".".join(map(str, one["loc"]))[:200], "what": str(one["msg"])[:200]} for one in error.errors()[:5]
    ]
    return _answer(422, told)


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, error.detail, dict(error.headers or {}))


async def broken(_: Request, error: Exception) -> Response:
    """Nothing of what went wrong inside is told outside; it stands in the log."""
    LOG.error("an answer failed", exc_info=error)
    return _answer(500, "the answer failed; the server's log says why")
