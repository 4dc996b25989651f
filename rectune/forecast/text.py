"""A forecast as text."""

from __future__ import annotations

import math

from rectune.forecast.advice import Change
from rectune.forecast.forecast import Forecast, StageForecast
from rectune.forecast.judging import Judging
from rectune.planning.cards import GB

# Shares of a card's dense bfloat16 rate that trainings reach: NVIDIA NeMo reports 41-43 % for LoRA on one H100 (its performance
# summary); small batches, short sequences and checkpointing reach less. Not measured by us.
_RATES = (0.2, 0.4)
_MOMENTS = {
    "forward": "the end of the forward pass",
    "backward": "the end of the backward pass",
    "update": "the optimiser's update",
}


def text_of(forecast: Forecast, changes: dict[int, Change | None]) -> str:
    """Everything that is known, a block for each stage; `changes` for the stages that don't fit."""
    where = (
        forecast.card.name if forecast.card else "the CPU of this machine" if forecast.device == "cpu" else "this GPU"
    )
    parts = [f"{forecast.recipe.name}, planned for {where} (GB = 2^30 bytes)"]
    for stage in forecast.stages:
        parts += ["", *_stage(forecast, stage)]
        if stage.stage in changes:
            parts.append(_advice(stage, changes[stage.stage]))
    if (log := forecast.reading) is not None:
        about = "" if log.exact else "about "
        parts += [
            "",
            f"the log: {about}{log.rows:,} rows, read with about {log.peak / GB:.2f} GB of memory at its peak",
        ]
    if forecast.judging is not None:
        parts += ["", _judging(forecast.judging)]
    parts += ["", *(f"not known: {note}" for note in forecast.known.notes)]
    if forecast.card is None:
        parts.append("With --gpu 24GB, or a card's name, it says whether that fits and how large a batch may be.")
    return "\n".join(parts).rstrip()


def _judging(judging: Judging) -> str:
    """What baselines, prior and figures take of this machine's memory, whatever the card."""
    line = f"baselines, prior and figures: at most {judging.room.gigabytes:.2f} GB of memory beside the model (`eval.memory`)"
    if judging.items is None:
        return line
    where = "in memory" if judging.in_memory else "in a file"
    return f"{line}; EASE's weights of {judging.items:,} items take {judging.weights / GB:.2f} GB {where}"


def _stage(forecast: Forecast, stage: StageForecast) -> list[str]:
    plan, need = stage.plan, stage.need
    made_of = f"{stage.rows} examples of up to {stage.length} tokens"
    if plan.sequences > 1:
        made_of = f"{stage.rows} examples of {plan.sequences} sequences, each up to {stage.length} tokens"
    elif plan.group > 1:
        made_of = f"{stage.rows // plan.group} prompts with {plan.group} items each, up to {stage.length} tokens with one of them"
    lines = [
        f"stage {stage.stage}: {plan.parameters:,} parameters, {plan.trainable:,} trained ({plan.trainable / plan.parameters:.2%})",
        f"  a step: {made_of}, {stage.accumulation} times; {plan.optimiser}"
        + (", activations checkpointed" if plan.checkpointing else ""),
        f"  memory at its peak, {_MOMENTS[need.moment]}:",
    ]
    parts = {
        "weights": need.weights, "adapter": need.adapter, "gradients": need.gradients, "optimiser": need.optimiser,
        "activations": need.activations, "logits and loss": need.logits, "libraries and device": need.fixed,
        "held by the allocator": need.slack,
    }  # fmt: skip
    lines += [f"    {name:<24}{size / GB:9.2f} GB" for name, size in parts.items() if size]
    lines.append(f"    {'together':<24}{need.total / GB:9.2f} GB{_verdict(forecast, stage)}")
    lines.append(f"  cache while ranking: {stage.cache / GB:.2f} GB for `rank.batch_tokens` tokens, weights beside it")
    lines += _work(forecast, stage)
    disk = ", ".join(f"{name} {size / GB:.2f} GB" for name, size in stage.disk.items())
    return [*lines, f"  disk: {disk}; the log and the ranked lists not counted"]


def _verdict(forecast: Forecast, stage: StageForecast) -> str:
    if forecast.card is None:
        return ""
    fits = "fits into" if stage.need.total <= forecast.card.memory else "DOES NOT FIT into"
    most = "; not one example fits"
    if stage.fits_rows:
        size = (
            f"batch_tokens that fits: {stage.fits_rows * stage.length:,}"
            if stage.by_tokens
            else f"per_device_train_batch_size that fits: {stage.fits_rows}"
        )
        most = f"; the largest {size}"
    return f", {fits} {forecast.card.memory / GB:g} GB{most}"


def _work(forecast: Forecast, stage: StageForecast) -> list[str]:
    work, card, plan = stage.work, forecast.card, stage.plan
    if work.steps is None:
        return [f"  {work.flops / 1e9:.2f} GFLOP a token"]
    lines = [f"  {work.steps:,} steps" + (f", about {work.tokens:,.0f} tokens" if work.tokens is not None else "")]
    tokens = (
        work.tokens
        if work.tokens is not None
        else work.steps * stage.accumulation * math.prod(plan.forwarded(stage.rows, stage.length))
    )
    at_most = "" if work.tokens is not None else ", if every example had its full length"
    if card is not None and card.rate is not None:
        slow, fast = (tokens * work.flops / (card.rate * share) / 3600 for share in _RATES)
        lines.append(
            f"  {_time(fast)} to {_time(slow)} at 40 to 20 % of the {card.rate / 1e12:g} TFLOP/s of its data sheet{at_most}"
        )
    elif card is not None:
        lines.append("  hours: give --gpu a card's name, for its rate")
    return lines


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(hours * 60, 0.1):.1f} minutes"


def _advice(stage: StageForecast, change: Change | None) -> str:
    if change is None:
        return "  nothing that is tried here makes it fit: take a smaller base or a larger card."
    return f"  change: {change.overrides}\n    takes {change.total / GB:.2f} GB{change.note}"
