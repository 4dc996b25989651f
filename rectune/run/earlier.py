"""What a run goes on from: the bundle of an earlier run, whose items keep their names, and that run's test rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rectune.indexing.health import judged
from rectune.indexing.item_index import ItemIndex, health_of
from rectune.indexing.quantised import names_of_new
from rectune.indexing.titles import numbered
from rectune.log.log import Log
from rectune.log.split import Split
from rectune.prompts.encoder import Frame
from rectune.recipe.box import Box, Held
from rectune.recipe.calls import Call
from rectune.recipe.fingerprints import fingerprint
from rectune.recipe.load import Recipe
from rectune.run.new_items import new_vectors
from rectune.runtime.near import shown
from rectune.vectors.item_vectors import ItemVectors, load_fitted

ABOUT, EARLIER, ROWS, TRAINED = "rectune.json", "from-", "rows.parquet", "trained.json"
OF_ITSELF = (
    "report.json",
    "report.html",
    "rectune.json",
    "README.md",
    "probe",
)  # files of a bundle that change no model
REPLACED = ("model_name_or_path", "model_revision", "from_scratch", "text_vocab_size", "random_weights")
NO_ROWS: dict[str, Any] = {"user": pl.String, "items": pl.List(pl.String), "target": pl.String}


@dataclass(frozen=True)
class Earlier:
    """An earlier run. `bundle`: the folder that `rectune export` wrote of it; `run`: its run folder, where that is known."""

    bundle: Path
    run: Path | None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the bundle says of itself."""
        found: dict[str, Any] = json.loads((self.bundle / ABOUT).read_text(encoding="utf-8"))
        return found

    @cached_property
    def mark(self) -> str:
        """Twelve hex digits that tell its model and its names."""
        files = json.loads((self.bundle / "manifest.json").read_text())["files"]
        kept = {name: about for name, about in files.items() if not name.startswith(OF_ITSELF)}
        return fingerprint("earlier", [kept, self.about["asked"].get("frame")], [])

    @property
    def stages(self) -> dict[str, str]:
        """The fingerprints of its run's boxes; {} where that is not known."""
        if self.run is None:
            return {}
        found: dict[str, str] = json.loads((self.run / "run.json").read_text())["stages"]
        return found

    @property
    def name(self) -> str:
        """How a report calls it: its recipe and, of its folder, the last part."""
        folder = self.bundle if self.run is None else self.run
        return f"{self.about['run']['recipe']} ({folder.name})"

    @property
    def frame(self) -> Frame:
        """What stands around every prompt, as the earlier model knows it: rendered anew it might hold another date."""
        return Frame(**self.about["asked"]["frame"])

    def vectors(self, split: Split, sources: Sequence[Call]) -> ItemVectors:
        """Vectors of a split's catalogue from what the sources learned in the earlier run, as its index knows them; those that it does not read are made anew."""
        index, fitted = ItemIndex.load(self.bundle / "index"), load_fitted(self.bundle / "vectors", len(sources))
        known = new_vectors(split.log.items, index, sources, fitted)
        blocks, learned = list(known.blocks), list(fitted)
        for i in set(range(len(sources))) - {int(i) for i in index.fitted.get("blocks", ())}:
            own = sources[i](split).of(split.log.items["item_id"].to_list())  # no name depends on it
            blocks[i], learned[i] = own.blocks[0], own.fitted[0] if own.fitted else {}
        return ItemVectors(known.item_ids, tuple(blocks), tuple(learned))

    def grown(self, split: Split, vectors: ItemVectors | None, limit: int) -> ItemIndex:
        """The earlier names for the items of a split's catalogue, and new ones for the others; `vectors`: those of the catalogue, `limit`:
        characters of a title.

        Raises ValueError for an index that cannot name a new item.
        """
        index, known = self._with_retired()
        ids = split.log.items["item_id"].to_list()
        place = np.array([known.get(item, -1) for item in ids], dtype=np.int64)
        new = np.flatnonzero(place < 0)
        if len(new):
            index = _with(index, split.log.items[new], vectors, limit)
            place[new] = np.arange(len(known), len(index))
        shared = index.colliding
        if len(shared):
            shared = np.append(shared, np.zeros(len(index) - len(shared), dtype=bool))[place]
        codes = index.codes[place]
        titles = tuple(index.titles[i] for i in place) if index.titles else ()
        health = health_of(codes, shared) if codes.shape[1] else {**index.health, "items": len(ids)}
        gone = set(known) - set(ids)
        names = index.titles or index.codes.tolist()
        health["retired"] = {item: names[row] for item, row in known.items() if item in gone}
        told = {
            "from": self.name,
            "kept": len(ids) - len(new),
            "new": len(new),
            "gone": len(known) - (len(ids) - len(new)),
        }
        found = replace(index, codes=codes, titles=titles, colliding=shared, health={**health, "grown": told})
        found.health.update(judged(found, split))
        return found

    def _with_retired(self) -> tuple[ItemIndex, dict[str, int]]:
        """The index with the names of items that had left before, and item id -> row: nobody else gets a name, and who returns has it again."""
        index = ItemIndex.load(self.bundle / "index")
        with (self.bundle / "items.jsonl").open(encoding="utf-8") as file:
            known = {json.loads(line)["item_id"]: i for i, line in enumerate(file)}
        retired = {item: name for item, name in index.health.get("retired", {}).items() if item not in known}
        if not retired:
            return index, known
        known |= {item: len(known) + i for i, item in enumerate(retired)}
        if index.titles:
            none = np.zeros((len(known), 0), dtype=np.int32)
            return replace(index, titles=(*index.titles, *retired.values()), codes=none), known
        return replace(index, codes=np.vstack([index.codes, np.array(list(retired.values()), dtype=np.int32)])), known


def read_earlier(recipe: Recipe, *, finished: bool = False) -> Earlier | None:
    """The section `from`, or None. Puts the earlier model into the recipe's section `model` as its base.

    `finished`: of a run that is done, which ranks without what it went on from. Raises ValueError or FileNotFoundError for what is no bundle
    with whole weights.
    """
    named = recipe.settings.get("from")
    if named is None:
        return None
    where = recipe.where("from")
    if not isinstance(named, str) or not named:
        raise TypeError(f"{where}: got {shown(named)}; give the folder that `rectune export` wrote.")
    bundle = Path(named).resolve()
    run = bundle.parent if (bundle.parent / "run.json").exists() else None
    earlier = Earlier(bundle, run)
    if finished:
        return earlier
    if not (bundle / ABOUT).exists() or not (bundle / "manifest.json").exists():
        raise FileNotFoundError(
            f"{where}: `{named}` is no bundle. For a finished run type `rectune train {recipe.name} --from RUN`, which exports it first."
        )
    if "frame" not in earlier.about.get("asked", {}):
        raise ValueError(f"{where}: {bundle} was written by an older rectune. Export the run anew.")
    if earlier.about.get("adapter_only") or earlier.about.get("method_files"):
        what = "an adapter alone" if earlier.about.get("adapter_only") else "a model of its method's own form"
        raise ValueError(
            f"{where}: {bundle} holds {what}; tuning goes on from whole weights. Export the run without `--adapter-only`."
        )
    _check_same(recipe, earlier.about["asked"])
    section = recipe.settings["model"]
    if section.get("random_weights"):
        raise ValueError(
            f"{recipe.where('model.random_weights')}: a run that goes on `from` another has its weights. Leave the key out."
        )
    kept = {key: value for key, value in section.items() if key not in REPLACED}
    recipe.settings["model"] = {"model_name_or_path": str(earlier.bundle), **kept}
    return earlier


def _check_same(recipe: Recipe, had: dict[str, Any]) -> None:
    """Raise ValueError where the recipe names another index, or vectors of other sources, than the earlier run has."""
    kind = _short((recipe.settings.get("index") or {}).get("call", "titles"))
    if had.get("index", kind) != kind:
        raise ValueError(
            f"{recipe.where('index')}: the earlier run has names by `{had['index']}`, and names stay. Take that index."
        )
    before, now = (
        [_short(one["call"]) for one in several]
        for several in (had.get("vectors", []), recipe.settings.get("vectors") or [])
    )
    if before and before != now:
        raise ValueError(
            f"{recipe.where('vectors')}: the earlier run has other item vectors ({', '.join(before)}), by which its index names items. Take those."
        )


def _short(call: str) -> str:
    return call.rpartition(":")[2].rpartition(".")[2]


def rows_box(earlier: Earlier) -> Box:
    """The test rows of the earlier run: all that a user did before the target, and the target, as ids; and of how many test rows of today the
    target was trained by it. Of a bundle, which has no users, neither is known."""

    def build(held: Held, folder: Path) -> None:
        frame, trained = pl.DataFrame(schema=NO_ROWS), None
        if earlier.run is not None:
            log, split = (earlier.run / "stages" / f"{name}-{earlier.stages[name]}" for name in ("log", "split"))
            then = Split.load(split, Log.load(log))
            frame, trained = _rows_of(then), trained_targets(held["split"], then)
        frame.write_parquet(folder / ROWS)
        (folder / TRAINED).write_text(json.dumps(trained))

    def load(held: Held, folder: Path) -> tuple[pl.DataFrame, int | None]:
        return pl.read_parquet(folder / ROWS), json.loads((folder / TRAINED).read_text())

    def keys() -> list[str | None]:
        return [earlier.mark, *(earlier.stages.get(name) for name in ("log", "split"))]

    return Box("before", ("split",), keys, build, load, (_rows_of, trained_targets))


def trained_targets(now: Split, then: Split) -> int:
    """How many test rows of `now` have a target that was a training event of their user `then`: one that the user had more often among those than
    among all that is before the target by now."""
    ids = now.log.items["item_id"].to_list()
    known = {item: i for i, item in enumerate(then.log.items["item_id"].to_list())}
    user_code = {user: i for i, user in enumerate(then.log.users.to_list())}
    rows, targets, found = now.test, now.targets(now.test), 0
    for i, target in enumerate(targets):
        user, item = user_code.get(now.log.users[int(rows.user[i])]), known.get(ids[target])
        if user is not None and item is not None:
            found += int((then.trained(user) == item).sum() > (now.earlier(rows, i) == target).sum())
    return found


def _rows_of(split: Split) -> pl.DataFrame:
    ids = split.log.items["item_id"].to_list()
    rows, targets = split.test, split.targets(split.test)
    return pl.DataFrame(
        {
            "user": [split.log.users[int(user)] for user in rows.user],
            "items": [[ids[item] for item in split.earlier(rows, i)] for i in range(len(rows))],
            "target": [ids[item] for item in targets],
        },
        schema=NO_ROWS,
    )


def _with(index: ItemIndex, items: pl.DataFrame, vectors: ItemVectors | None, limit: int) -> ItemIndex:
    """The index with names for new items behind its own."""
    if index.titles:
        titles = numbered(items["title"].to_list(), limit, taken=index.titles)[0]
        return replace(
            index, titles=(*index.titles, *titles), codes=np.zeros((len(index) + len(titles), 0), dtype=np.int32)
        )
    if index.codes.shape[1] == 1 and len(index.vocabulary) - index.user_tokens == len(index):
        return _more_tokens(index, items["title"].to_list())
    ids = items["item_id"].to_list()
    names = names_of_new(index, ItemVectors(tuple(ids), ()) if vectors is None else vectors.of(ids))
    return replace(index, codes=np.vstack([index.codes, names]))


def _more_tokens(index: ItemIndex, titles: Sequence[str]) -> ItemIndex:
    """An index of a token an item, with a token for each title; those of users stay the last ones."""
    own = len(index.vocabulary) - index.user_tokens
    highest = max(int(token.rpartition("_")[2].rstrip(">")) for token in index.vocabulary[:own])
    opening = index.vocabulary[0].rpartition("_")[0]
    tokens = [f"{opening}_{highest + 1 + i}>" for i in range(len(titles))]
    meanings = index.meanings and (*index.meanings[:own], *titles, *index.meanings[own:])
    codes = np.vstack([index.codes, np.arange(own, own + len(titles), dtype=np.int32)[:, None]])
    return replace(
        index, codes=codes, vocabulary=(*index.vocabulary[:own], *tokens, *index.vocabulary[own:]), meanings=meanings
    )
