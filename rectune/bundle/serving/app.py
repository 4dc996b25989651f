"""`rectune serve`: a bundle behind HTTP, with micro-batches, limits, metrics and a reload under load."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import rectune
from rectune.bundle.recommender import Recommender, Wish
from rectune.bundle.serving.asked import Found, Listed, Lists, Opinions, Recommend, Said, Score
from rectune.bundle.serving.batcher import Batcher, Full, Stopped
from rectune.bundle.serving.guard import LOG, Guard, Limits, Metrics, broken, malformed, refused

GONE = 499  # the client left: nobody reads this
PER_ITEM, PER_PROMPT = 8, 32  # tokens, about


class Served:
    """The recommender that answers now, and how another takes its place."""

    def __init__(self, load: Callable[[], Recommender]) -> None:
        self._load, self._changing = load, threading.Lock()
        self.recommender: Recommender | None = None

    def reload(self) -> Recommender:
        """Load it anew; the old one answers until the new one is there. Raises Busy where another call does so already."""
        if not self._changing.acquire(blocking=False):
            raise Busy
        try:
            self.recommender = self._load()
            return self.recommender
        finally:
            self._changing.release()


class Busy(Exception):
    """A model is being loaded already."""


@dataclass(frozen=True)
class Opinionated:
    """A history and the items that are asked about."""

    history: list[Any]
    items: list[str]
    by: str


def app_of(load: Callable[[], Recommender], *, limits: Limits = Limits(), key: str | None = None) -> FastAPI:  # noqa: B008  frozen
    """The application. `load` gives the recommender; `key`: what requests must bring as `Authorization: Bearer KEY`."""
    served, seen = Served(load), Metrics()
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
    app.add_middleware(Guard, limits=limits, key=key, metrics=seen)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, broken)

    def ready() -> Recommender:
        if served.recommender is None:
            raise HTTPException(503, "the model is being loaded", headers={"Retry-After": "2"})
        return served.recommender

    async def ask(request: Request, asked: Any, tokens: int) -> Any:
        try:
            return await _while_connected(request, batcher.ask(asked, tokens), limits.timeout)
        except Full:
            raise HTTPException(503, f"{limits.queue} requests wait already", headers={"Retry-After": "1"}) from None
        except Stopped:
            raise HTTPException(503, "the server is stopping", headers={"Retry-After": "5"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.timeout:g} seconds") from None

    @app.post("/recommend", response_model_exclude_none=True)
    async def recommend(request: Request, asked: Recommend) -> Lists:
        """The best items after one history, or after each of many."""
        recommender = ready()
        histories = [asked.history] if asked.history is not None else (asked.histories or [])
        keys = asked.model_dump(include={"k", "hide_seen", "allow", "deny", "candidates", "by", "user", "prior_weight"})
        wishes = await asyncio.to_thread(
            _checked, recommender, histories, keys
        )  # a large request is no matter of the loop
        size = sum(PER_PROMPT + PER_ITEM * (len(wish.history) + len(wish.offered or ())) for wish in wishes)
        found = await ask(request, (recommender, wishes), size)
        lists = [[Listed(**asdict(item)) for item in one] for one in found]
        name, commit = recommender.bundle.recipe, recommender.bundle.commit
        if asked.history is not None:
            return Lists(items=lists[0], model=name, commit=commit)
        return Lists(lists=lists, model=name, commit=commit)

    @app.post("/score", response_model_exclude_none=True)
    async def score(request: Request, asked: Score) -> Opinions:
        """What a user with this history would say of items: the probability of Yes, or the expected rating."""
        recommender = ready()
        history = [entry if isinstance(entry, str) else tuple(entry) for entry in asked.history]
        size = len(asked.items) * (PER_PROMPT + PER_ITEM * (1 + len(history)))
        found = await ask(request, (recommender, Opinionated(history, asked.items, asked.by)), size)
        said = [Said(**asdict(one)) for one in found]
        return Opinions(items=said, model=recommender.bundle.recipe, commit=recommender.bundle.commit)

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
            "model": bundle.recipe,
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
        except Busy:
            raise HTTPException(409, "a reload is under way") from None
        except Exception as error:  # whatever it is, the old model answers on
            LOG.warning("a reload failed: %s", _short(error))
            raise HTTPException(
                409, "the old model stays: what was to take its place could not be loaded; the server's log says why"
            ) from None
        seen.reloads.inc()
        return {"model": bundle.recipe, "commit": bundle.commit, "items": bundle.items.height}

    return app


def answered(batch: Sequence[tuple[Recommender, Any]]) -> list[Any]:
    """The results of a batch: all lists that were asked of a recommender ranked together; an exception stands for itself. What fails together
    is tried once more alone, so that nobody fails for another."""
    results: list[Any] = [None] * len(batch)
    groups: dict[int, list[int]] = {}
    for n, (recommender, asked) in enumerate(batch):
        if isinstance(asked, Opinionated):
            results[n] = _opinions(recommender, asked)
        else:
            groups.setdefault(id(recommender), []).append(n)
    for group in groups.values():
        recommender = batch[group[0]][0]
        try:
            listed = iter(recommender.lists([wish for n in group for wish in batch[n][1]]))
            for n in group:
                results[n] = [next(listed) for _ in batch[n][1]]
        except Exception as error:
            for n in group:
                results[n] = _alone(recommender, batch[n][1]) if len(group) > 1 else error
    return results


def _alone(recommender: Recommender, wishes: list[Wish]) -> Any:
    try:
        return recommender.lists(wishes)
    except Exception as error:
        return error


def _opinions(recommender: Recommender, asked: Opinionated) -> Any:
    try:
        return recommender.score([asked.history] * len(asked.items), asked.items, by=asked.by)  # type: ignore[call-overload]
    except ValueError as error:
        return HTTPException(422, _short(error))
    except Exception as error:
        return error


async def _first(served: Served) -> None:
    """Load the model while the server listens already; without one it ends."""
    try:
        await asyncio.to_thread(served.reload)
    except asyncio.CancelledError:
        raise
    except Exception:
        LOG.exception("the model could not be loaded")
        raise


def _checked(recommender: Recommender, histories: list[list[str]], keys: dict[str, Any]) -> list[Wish]:
    try:
        return [recommender.wish(history, **keys) for history in histories]
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
