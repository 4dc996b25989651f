"""The line: every box of a run, in the order in which they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rectune.decoding.language_model import catalogue_trie
from rectune.decoding.trie import FILE, Trie
from rectune.indexing.health import judged
from rectune.indexing.item_index import ItemIndex
from rectune.indexing.quantised import names_of_new
from rectune.indexing.titles import MAX_CHARACTERS
from rectune.log.few_shots import few_shots
from rectune.log.log import Log
from rectune.log.split import Split
from rectune.model.load import build_base, load_tokenizer
from rectune.model.settings import base_identity
from rectune.prompts.encoder import Encoder, Frame
from rectune.recipe.box import Box, Held
from rectune.run.asked import Asked
from rectune.run.earlier import Earlier, rows_box
from rectune.run.prior_box import prior_box
from rectune.run.sasrec_box import NAME as SASREC
from rectune.run.sasrec_box import sasrec_box
from rectune.run.training_box import training_box
from rectune.tasks.examples import sample_texts
from rectune.tasks.task_calls import rows_of, specs_of
from rectune.tasks.views import ItemViews
from rectune.vectors.item_vectors import ItemVectors, join, refuse_alike

AFTER = ("trie", SASREC, "prior")  # boxes that depend on what is ranked how: made anew where `eval` asks otherwise


def line_of(asked: Asked, *, without: Path) -> list[Box]:
    """The boxes of a recipe from its log to its tuned model. `without`: the run folder, whose own files are no input."""
    boxes = [_log(asked, without), _split(asked, without)]
    if asked.reads_vectors:
        boxes.append(_vectors(asked, without))
    boxes += [_index(asked, without), _base(asked, without), _trie(asked)]
    if asked.earlier is not None:
        boxes.append(rows_box(asked.earlier))
    if asked.sasrec is not None:
        boxes.append(sasrec_box(asked.sasrec))
    if asked.prior is not None:
        boxes.append(prior_box(asked.prior, without))
    for training in asked.trainings:
        before = f"train{training.number - 1}" if training.number else None
        own = getattr(training.method, "boxes", None)
        extra: list[Box] = own(training.section, asked.seed) if own is not None else []
        boxes += [*extra, training_box(asked, training, before, tuple(box.name for box in extra), without)]
    return boxes


def _log(asked: Asked, without: Path) -> Box:
    def load(held: Held, folder: Path) -> Log:
        log = Log.load(folder)
        return log if asked.added is None else asked.added.log(log)

    call = asked.data
    return Box(
        "log", (), lambda: call.keys(without=without), lambda held, folder: call().save(folder), load, call.made_by
    )


def _split(asked: Asked, without: Path) -> Box:
    call, shots = asked.split, asked.shots

    def keys() -> dict[str, Any]:
        return {**call.keys(without=without), **({} if shots is None else {"shots": [shots, asked.seed]})}

    def build(held: Held, folder: Path) -> None:
        whole = call(held["log"])
        split: Split = whole if shots is None else few_shots(whole, shots, asked.seed)
        if (tied := split.tied(split.test)) is not None:
            split.notes["test_targets_tied_in_time"] = tied
        split.save(folder)

    made_by = call.made_by if shots is None else (*call.made_by, few_shots)
    return Box("split", ("log",), keys, build, lambda held, folder: Split.load(folder, held["log"]), made_by)


def _vectors(asked: Asked, without: Path) -> Box:
    """The item vectors of all sources, side by side."""

    earlier = asked.earlier

    def build(held: Held, folder: Path) -> None:
        split = held["split"]
        if earlier is not None:
            earlier.vectors(split, asked.vectors).save(folder)
            return
        parts = [refuse_alike(call(split)) for call in asked.vectors]
        join(parts).of(split.log.items["item_id"].to_list()).save(folder)

    def keys() -> Any:
        said = [call.keys(without=without) for call in asked.vectors]
        return said if earlier is None else [*said, {"from": earlier.mark}]

    made_by = tuple(function for call in asked.vectors for function in call.made_by)
    return Box(
        "vectors", ("split",), keys, build, lambda held, folder: ItemVectors.load(folder), made_by,
    )  # fmt: skip


def _index(asked: Asked, without: Path) -> Box:
    call, users = asked.index, asked.user_tokens
    if asked.earlier is not None:
        return _grown(asked, asked.earlier)

    def build(held: Held, folder: Path) -> None:
        given = {"vectors": held["vectors"]} if call.wants("vectors") else {}
        index: ItemIndex = call(held["split"], **given)
        index.health.update(judged(index, held["split"]))
        (index.with_user_tokens(users) if users else index).save(folder)

    def load(held: Held, folder: Path) -> ItemIndex:
        index = ItemIndex.load(folder)
        return index if asked.added is None else asked.added.index(index)

    needs = ("split", "vectors") if call.wants("vectors") else ("split",)
    return Box(
        "index",
        needs,
        lambda: {**call.keys(without=without), "user_tokens": users},
        build,
        load,
        (*call.made_by, judged),
    )


def _grown(asked: Asked, earlier: Earlier) -> Box:
    """The index of the run that this one goes on from, with names for new items."""
    wants = asked.index.wants("vectors")
    limit = int(asked.index.arguments.get("max_characters", MAX_CHARACTERS))

    def build(held: Held, folder: Path) -> None:
        earlier.grown(held["split"], held["vectors"] if wants else None, limit).save(folder)

    def load(held: Held, folder: Path) -> ItemIndex:
        index = ItemIndex.load(folder)
        return index if asked.added is None else asked.added.index(index)

    def keys() -> dict[str, Any]:
        return {"from": earlier.mark, "limit": limit}

    needs = ("split", "vectors") if wants else ("split",)
    return Box("index", needs, keys, build, load, (Earlier.grown, names_of_new, judged))


def _base(asked: Asked, without: Path) -> Box:
    """The tokenizer with the new tokens and the frame around its prompts; the base itself where it is made from scratch."""
    settings = asked.model
    scratch = settings.from_scratch is not None
    read = asked.read_tasks
    chosen = any(task.reads_vectors for task in read)
    needs: tuple[str, ...] = ("split", "index", *(("vectors",) * chosen)) if scratch else ("index",)

    def keys() -> dict[str, Any]:
        said = {"base": base_identity(settings), "seed": asked.seed, "form": settings.prompt_form}
        return {**said, "tasks": [task.text_keys(without=without) for task in read]} if scratch else said

    def build(held: Held, folder: Path) -> None:
        specs = specs_of(read, held) if scratch else []
        frame = None if asked.earlier is None else asked.earlier.frame
        texts = sample_texts(specs, most=20_000)
        build_base(settings, held["index"], texts, folder, seed=asked.seed, frame=frame)

    def load(held: Held, folder: Path) -> Encoder:
        vocabulary = held["index"].vocabulary
        return Encoder(load_tokenizer(folder), vocabulary, form=settings.prompt_form, frame=Frame.load(folder))

    return Box("base", needs, keys, build, load, (build_base, *(sample_texts,) * scratch))


def _trie(asked: Asked) -> Box:
    """The trie of the catalogue; nothing for a task with fixed answers."""
    template, wording = asked.template, asked.rank.wording
    needs = ("split", "index", "base") + (("vectors",) if asked.ranked.reads_vectors else ())

    def build(held: Held, folder: Path) -> None:
        split, index = held["split"], held["index"]
        kind = rows_of(asked.ranked, held, "test").kind
        if kind == "answer":
            return
        if kind != "item":
            raise ValueError(f"the task of `{template.name}` does not name items.")
        view = ItemViews(split, index)
        catalogue_trie(held["base"], template, wording, view, index, called=view.called).save(folder / FILE)

    return Box(
        "trie", needs,
        lambda: {"template": template.hash, "wording": wording, "added": asked.added and asked.added.mark}, build,
        lambda held, folder: Trie.load(folder / FILE) if (folder / FILE).exists() else None, (catalogue_trie,),
    )  # fmt: skip
