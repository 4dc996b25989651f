"""`rectune plan`: what a recipe's trainings need, before anything is downloaded but the base's config."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from rectune.forecast.judging import Judging, judging_of
from rectune.forecast.known import UNREAD, ClosedFolder, Known, examples_of, known_of
from rectune.forecast.reading import Reading, reading_of
from rectune.methods.token_batches import rows_for
from rectune.model.settings import ModelSettings, pick_device
from rectune.planning.cards import Card
from rectune.planning.model import base_config
from rectune.planning.need import Need, StagePlan
from rectune.planning.stage import LONGEST, length_of, stage_plan
from rectune.recipe.load import Recipe
from rectune.run.asked import Training, ask
from rectune.run.planned_box import Examples
from rectune.run.run import Run

_NAME = 15  # tokens of an item's name where the index is not known


@dataclass(frozen=True)
class Work:
    """What a stage computes. `steps` and `tokens` (padding left out) are None where the log has not been read; `flops` a token."""

    steps: int | None
    tokens: float | None
    flops: float


@dataclass(frozen=True)
class StageForecast:
    """What is said of one stage. `rows` x `length`: its batch; `disk`: bytes by what they are for; `cache`: bytes of the keys and
    values while ranking; `fits_rows`: the most rows on the card, None without one; `by_tokens`: the batch is given as tokens."""

    stage: int
    plan: StagePlan
    rows: int
    accumulation: int
    length: int
    need: Need
    work: Work
    disk: dict[str, int]
    cache: int
    fits_rows: int | None
    by_tokens: bool = False


@dataclass(frozen=True)
class Forecast:
    """The stages of a recipe on a card, or without one on the device at hand."""

    recipe: Recipe
    device: Literal["cpu", "cuda"]
    card: Card | None
    known: Known
    stages: list[StageForecast]
    judging: Judging | None = None
    reading: Reading | None = None

    @property
    def fits(self) -> bool:
        """Whether every stage fits; True without a card."""
        return self.card is None or all(stage.need.total <= self.card.memory for stage in self.stages)


def forecast(recipe: Recipe, card: Card | None = None, *, search: bool = True) -> Forecast:
    """Follow a step of every stage without weights. `search`: also look for the largest batch that fits.

    Raises ValueError, TypeError or FileNotFoundError for a recipe that is not as it must be, or a base without a config.
    """
    if card is not None:  # a card need not be in this machine
        model = {**recipe.settings["model"], "device": "auto"}
        recipe = replace(recipe, settings={**recipe.settings, "model": model})
    asked = ask(recipe, need="no files")
    run = Run(asked, ClosedFolder(Path(recipe.settings["output_dir"]), recipe.name))
    settings = asked.model
    device: Literal["cpu", "cuda"] = "cuda" if card is not None or pick_device(settings).type == "cuda" else "cpu"
    known = known_of(run)
    stages = [_stage(run, training, settings, known, device, card if search else None) for training in asked.trainings]
    if any(stage.work.tokens is None for stage in stages):
        known.notes.append(UNREAD)
    return Forecast(recipe, device, card, known, stages, judging_of(run), reading_of(run))


def _stage(
    run: Run, training: Training, settings: ModelSettings, known: Known, device: Literal["cpu", "cuda"], card: Card | None
) -> StageForecast:  # fmt: skip
    config = training.config()
    examples = examples_of(run, training, config)
    if examples is not None:
        target = examples.completion
    else:  # other tasks answer at any length
        target = (config.max_length or LONGEST) if training.own else (known.levels or _NAME) + 1
    plan = stage_plan(
        settings, training.method, training.section, config, vocabulary=known.vocabulary, new_tokens=known.new_tokens, target=target,
        device=device,
    )  # fmt: skip
    length = length_of(plan.model, config)
    rows = rows_for(config, length)
    fits = None if card is None else plan.largest_batch(card.memory, length, near=rows) // plan.group * plan.group
    return StageForecast(
        stage=training.number, plan=plan, rows=rows, accumulation=config.gradient_accumulation_steps, length=length,
        need=plan.need(rows, length), work=_work(plan, config, examples, length), disk=_disk(settings, plan, config),
        cache=run.asked.rank.batch_tokens * _cache_bytes(plan.model), fits_rows=fits,
        by_tokens=vars(config).get("batch_tokens") is not None,
    )  # fmt: skip


def _work(plan: StagePlan, config: Any, examples: Examples | None, length: int) -> Work:
    """Steps, tokens and FLOPs a token: 2 a parameter forward, 2 for the gradient of the activations, 2 for that of the weights
    where they are trained, 2 to compute a checkpointed forward again (Kaplan et al., 2020, section 2.1; Korthikanti et al.,
    2022), and 4 x layers x width x length / 2 for attention in each of these passes."""
    text = plan.model.config.get_text_config()
    embedding = plan.model.get_input_embeddings().weight.numel()
    tied = bool(text.tie_word_embeddings)
    passes = 2 + (0 if plan.adapts else 1) + (1 if plan.checkpointing else 0) + (1 if plan.keeps_reference else 0)
    used = plan.parameters - (0 if tied else embedding)
    flops = passes * (2 * used + 2 * text.num_hidden_layers * text.hidden_size * length)
    rows = rows_for(config, length if examples is None else round(min(examples.length, length)))
    batch = rows * config.gradient_accumulation_steps
    steps = config.max_steps if config.max_steps > 0 else None
    if steps is None and examples is not None:
        prompts = batch // plan.group
        several = int(getattr(config, "num_iterations", 1)) if plan.group > 1 else 1
        steps = math.ceil(math.ceil(examples.number / prompts) * config.num_train_epochs) * several
    tokens = None
    if steps is not None and examples is not None:
        sequences, each = plan.forwarded(batch, round(min(examples.length, length)))
        tokens = steps * sequences * each
    return Work(steps, tokens, flops)


def _disk(settings: ModelSettings, plan: StagePlan, config: Any) -> dict[str, int]:
    """Bytes that a stage leaves or needs on the way; what the log and the rankings take is not known beforehand."""
    out = {}
    if not settings.makes_weights:
        dtype = base_config(settings, vocabulary=None).dtype or torch.float32
        out["download of the base"] = (plan.parameters - (plan.trainable if plan.adapts else 0)) * dtype.itemsize
    trained = plan.adapter if plan.adapts else plan.weights
    if getattr(config.save_strategy, "value", config.save_strategy) != "no" or vars(config).get("save_minutes"):
        kept = 2 if config.save_total_limit is None else config.save_total_limit
        out["checkpoints"] = (kept + 1) * (trained + plan.state)  # an old one goes once the new one is whole
    out["tuned model"] = trained
    return out


def _cache_bytes(model: Any) -> int:
    """Bytes of keys and values for a token: 2 x layers x key-value heads x size of a head, in the weights' type (at least 16 bit)."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = (
        getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or text.hidden_size // text.num_attention_heads
    )
    width = max(2, model.get_input_embeddings().weight.element_size())
    return int(2 * text.num_hidden_layers * heads * size * width)
