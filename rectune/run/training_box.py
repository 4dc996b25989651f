"""A training of the line: from the base, or from what the training before it left."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import Ranking
from rectune.decoding.rollouts import Rollouts
from rectune.decoding.shelf import Shelf
from rectune.log.split import evenly
from rectune.methods.contract import Trainable
from rectune.methods.language_model import CARD
from rectune.methods.out_of_memory import advised, for_fingerprint
from rectune.methods.validation import hidden_while_choosing, validation_metrics
from rectune.model.adapters import load_tuned, with_adapter
from rectune.model.load import load_base
from rectune.model.new_tokens import new_token_ids
from rectune.model.settings import settings_for_fingerprint
from rectune.recipe.box import Box, Held
from rectune.recipe.fingerprints import name_of
from rectune.run.asked import Asked, Training
from rectune.runtime.attempts import Attempts
from rectune.runtime.files import write_atomic
from rectune.runtime.processes import is_main, wait
from rectune.runtime.resident import resident
from rectune.tasks.examples import warn_unknown
from rectune.tasks.rows import TaskRows
from rectune.tasks.task_calls import rows_of, specs_of

SECONDS = "seconds.txt"  # of each attempt at a training


def training_box(asked: Asked, training: Training, before: str | None, own: tuple[str, ...], without: Path) -> Box:
    """The box of a training. `before`: the name of the training that it goes on from; `own`: boxes that its method asked for."""
    evaluates = training.section.get("eval_strategy", "no") != "no"
    searches = getattr(training.method, "searches", None)
    evaluates = evaluates or (searches is not None and searches(training.section))
    reads = training.needs
    chosen = any(task.reads_vectors for task in (*training.tasks, asked.ranked)) or "vectors" in reads
    strong = ("prior",) * ("prior" in reads)
    needs = ("split", "index", "base", *(("vectors",) * chosen), *(("trie",) * evaluates), *strong, *own)

    def keys() -> dict[str, Any]:
        said: dict[str, Any] = {
            "stage": for_fingerprint(training.section, training.config()), "method": name_of(training.method),
            "tasks": [task.keys(without=without) for task in training.tasks], "model": settings_for_fingerprint(asked.model),
            "seed": asked.seed,
        }  # fmt: skip
        if evaluates:
            read = ("wording", "beams", "scores", "max_length", "normaliser", "spellings")
            said["rank"] = {
                "tasks": [task.keys(without=without) for task in asked.tasks], "template": asked.template.hash,
                **{name: getattr(asked.rank, name) for name in read},
            }  # fmt: skip
        return said

    def build(held: Held, folder: Path) -> None:
        _train(asked, training, before, own, held, folder)

    made_by = (training.method.train, load_tuned, load_base, *(f for task in training.tasks for f in task.made_by))
    if hasattr(training.method, "made_by"):
        made_by = (*made_by, *training.method.made_by(training.section))
    if evaluates:
        made_by = (*made_by, validation_metrics)
    if not all(task.call.known for task in training.tasks):
        made_by = ()  # a finished run whose task's files are gone: there is nothing to compare with
    return Box(
        training.name, (*needs, *(() if before is None else (before,))), keys, build, lambda held, folder: folder, made_by,
        resumes=True,
    )  # fmt: skip


def _train(
    asked: Asked, training: Training, before: str | None, own: tuple[str, ...], held: Held, folder: Path
) -> None:
    if (folder / "model" / CARD).exists():  # killed after its training had ended: the card is written last
        if is_main():
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return
    config, settings, index, encoder = training.config(), asked.model, held["index"], held["base"]
    tokens, base, adapter = (
        new_token_ids(encoder.tokenizer, index),
        held.folder("base"),
        bool(settings.library.use_peft),
    )

    def load() -> Any:
        if before is not None:
            return load_tuned(settings, base, held.folder(before) / "model", index, seed=asked.seed, trainable=True)
        model = load_base(settings, base, index, seed=asked.seed)
        return with_adapter(model, settings, tokens, seed=asked.seed) if adapter else model

    def as_ranker(model: Any, *, progress: bool = False) -> LanguageModelRanker:
        # The beam chooses checkpoints, whatever lists are for.
        rank = replace(asked.rank, exact=False, beams=asked.list_width)
        return LanguageModelRanker(model, encoder, asked.template, rank, held["trie"], progress=progress)

    def rank_validation(model: Any, most: int) -> dict[str, float]:
        split, rows = held["split"], rows_of(asked.ranked, held, "validation")
        which = evenly(len(rows), most)
        task = rows.take(which)
        hidden = hidden_while_choosing(task, split, split.validation.take(which))
        return validation_metrics(as_ranker(model), task, Shelf(hidden=hidden), items=split.log.n_items)

    def search(model: Any, rows: TaskRows, shelf: Shelf, *, shards: Path) -> Ranking:
        return as_ranker(model, progress=True).rank(rows, shelf, shards=shards)

    def rollouts() -> Rollouts:
        pad, rank = int(encoder.tokenizer.pad_token_id), asked.rank
        return Rollouts(held["trie"], pad=pad, scores=rank.scores, batch_tokens=rank.batch_tokens)

    at_first, clock = resident(), Attempts(folder / SECONDS)
    specs = specs_of(training.tasks, held)
    if is_main():
        warn_unknown(encoder, specs)
    rows = [spec.rows("train") for spec in specs]
    names_items = not training.own or any(some.kind == "item" for some in rows)
    named = tokens if names_items else []  # a stage's own tasks, such as instructions, need not
    with clock if is_main() else nullcontext(), advised(training.number, config):
        task = Trainable(
            load, held["split"], index, encoder, specs, named, asked.seed, adapter, rank_validation, search, rollouts,
            {name: held.folder(name) for name in own}, {name: held[name] for name in training.needs},
        )  # fmt: skip
        training.method.train(task, config, folder)
    if is_main():
        card = {
            "templates": {task.template.name: task.template.hash for task in asked.every_task},
            "base": base_name(asked, held),
            "seconds": clock.seconds,
            "before": at_first,
            "tasks": [{"task": s.name, "rows": len(some), **some.notes} for s, some in zip(specs, rows, strict=True)],
        }
        (folder / "model").mkdir(exist_ok=True)
        write_atomic(folder / "model" / CARD, json.dumps(card))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # not before what they led to is safe
    wait()


def base_name(asked: Asked, held: Held) -> str:
    """The name of the base: of the checkpoint, or the fingerprint of a base whose weights the run made."""
    settings = asked.model
    return str(settings.library.model_name_or_path) if not settings.makes_weights else held.mark("base")
