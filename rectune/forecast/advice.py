"""What to change when a stage does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rectune.forecast.forecast import StageForecast, forecast
from rectune.methods.out_of_memory import BATCH, largest_divisor
from rectune.planning.cards import Card
from rectune.recipe.load import Recipe


@dataclass(frozen=True)
class Change:
    """Overrides as they are typed, what the stage takes with them, and what else changes."""

    overrides: str
    total: int
    note: str = ""


def change_for(recipe: Recipe, card: Card, stage: StageForecast) -> Change | None:
    """The change that costs the result least: a smaller batch with more accumulation, then checkpointing, then a smaller
    optimiser, an adapter, a quantised base, and last of all shorter examples; one after the other until it fits."""
    if stage.fits_rows:
        most = min(stage.fits_rows, stage.rows - 1)
        while (
            most >= stage.plan.group
        ):  # accumulated gradients are alive at the peak, so what fits without them may not
            rows = _whole(stage, most)
            keys = _batch(stage, rows)
            total = _smaller(recipe, keys, card, stage.stage).need.total
            if total <= card.memory:
                return Change(
                    _typed(keys), total, ", as many tokens a step" if stage.by_tokens else ", the same global batch"
                )
            most = rows - 1
    given: list[tuple[str, Any]] = []
    note, group = "", stage.plan.group
    for keys, what in _steps(recipe, stage):
        given, note = [*given, *keys], f"{note}, {what}"
        one = _smaller(recipe, [*given, *_batch(stage, group, given)], card, stage.stage)
        if one.need.total <= card.memory:
            rows = _whole(stage, min(one.fits_rows or group, stage.rows))
            found = [*given, *_batch(stage, rows, given)]
            return Change(_typed(found), _smaller(recipe, found, card, stage.stage).need.total, note)
    return None


def _steps(recipe: Recipe, stage: StageForecast) -> Iterator[tuple[list[tuple[str, Any]], str]]:
    """Changes, the mildest first, that the recipe has not made yet."""
    model, key = recipe.settings["model"], f"stages.{stage.stage}"
    quantised = model.get("load_in_4bit") or model.get("load_in_8bit")
    if not stage.plan.checkpointing:
        yield [(f"{key}.activation_checkpointing", True)], "the same result in more time"
    if not stage.plan.adapts and "8bit" not in stage.plan.optimiser:
        yield [(f"{key}.optim", "adamw_8bit")], "an optimiser of 8 bits"
    if not stage.plan.adapts and model.get("from_scratch") is None:
        yield [("model.use_peft", True), ("model.dtype", "bfloat16")], "an adapter instead of all weights"
    if not quantised and model.get("from_scratch") is None:
        yield [("model.load_in_4bit", True), ("model.use_bnb_nested_quant", True)], "the base in 4 bits"
    length = stage.length
    while length > 128:
        length //= 2
        yield [(f"{key}.max_length", length)], f"histories cut to {length} tokens"


def _whole(stage: StageForecast, most: int) -> int:
    """The largest batch of at most so many rows that divides the stage's, groups left whole."""
    group = stage.plan.group
    return group * largest_divisor(stage.rows // group, most // group)


def _batch(stage: StageForecast, rows: int, given: Sequence[tuple[str, Any]] = ()) -> list[tuple[str, Any]]:
    """The keys of a batch of so many rows, of the length that `given` leaves them, and of as many of them as make the stage's."""
    size, times = BATCH
    values = {size: rows, times: stage.rows * stage.accumulation // rows}
    if stage.by_tokens:
        length = dict(given).get(f"stages.{stage.stage}.max_length", stage.length)
        values = {"batch_tokens": rows * length, times: values[times]}
    return [(f"stages.{stage.stage}.{name}", value) for name, value in values.items()]


def _smaller(recipe: Recipe, keys: list[tuple[str, Any]], card: Card, stage: int) -> StageForecast:
    return forecast(changed(recipe, keys), card, search=False).stages[stage]


def changed(recipe: Recipe, keys: list[tuple[str, Any]]) -> Recipe:
    """The recipe with other values for dotted keys; of a key given twice the last counts."""
    settings = json.loads(json.dumps(recipe.settings, default=str))
    for key, value in keys:
        at = settings
        *path, last = key.split(".")
        for name in path:
            at = at[int(name)] if isinstance(at, list) else at[name]
        at[last] = value
    return replace(recipe, settings=settings)


def _typed(keys: list[tuple[str, Any]]) -> str:
    return " ".join(f"--{key} {json.dumps(value).strip(chr(34))}" for key, value in dict(keys).items())
