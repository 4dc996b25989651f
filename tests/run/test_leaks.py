"""Each way in which a held-out event reaches training is found, and a clean run has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.cli import main
from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split
from rectune.run import leaks as looking
from rectune.run.run import open_run


def kinds(folder: Path) -> dict[str, str]:
    return {finding.what: finding.kind for finding in looking.leaks(folder)}


def test_a_clean_run_has_no_leak(finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = kinds(finished[1])
    assert set(found.values()) == {"clean", "note"}
    assert found["training events later than test targets"] == "note"  # leave one out
    assert main(["check", str(finished[1])]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 leaks"


def trains_on_targets(split: Split) -> Split:
    return replace(split, train_events=np.sort(np.append(split.train_events, split.test.target[:3])))


def row_of_a_target(split: Split) -> Split:
    test, train = split.test, split.train
    joined = {
        name: np.concatenate([getattr(train, name), getattr(test, name)[:2]]) for name in train.__dataclass_fields__
    }
    return replace(split, train=replace(train, **joined))


def long_histories(split: Split) -> Split:
    return replace(split, train=replace(split.train, stop=np.minimum(split.train.stop + 3, split.log.n_events)))


def own_target(split: Split) -> Split:
    return replace(split, test=replace(split.test, stop=split.test.stop + 1))


LEAKS: dict[Callable[[Split], Split], list[str]] = {
    trains_on_targets: ["test targets among training events, which index, vectors and baselines read"],
    row_of_a_target: ["test targets among targets of training rows", "test rows that are training rows, too (user, history and target)"],
    long_histories: ["test targets among histories of training rows", "train: histories that hold a later event than their target"],
    own_target: ["test: histories that hold a later event than their target"],
}  # fmt: skip


@pytest.mark.parametrize("leaky", LEAKS)
def test_a_split_that_leaks_is_found(
    leaky: Callable[[Split], Split], finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def opened(folder: Any) -> Any:
        run = open_run(folder)
        run._held["split"] = leaky(run.split)
        return run

    monkeypatch.setattr(looking, "open_run", opened)
    found = kinds(finished[1])
    for what in LEAKS[leaky]:
        assert found[what] == "leak"
    assert main(["check", str(finished[1])]) == 3
    assert "leak" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(("shuffled", "kind"), [(False, "leak"), (True, "clean")])
def test_numbers_in_the_order_of_the_log_are_found(
    shuffled: bool, kind: str, finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(folder: Any) -> Any:
        run = open_run(folder)
        codes = run.log.item_codes
        met, first = np.unique(codes, return_index=True)
        order = [*met[np.argsort(first)].tolist(), *sorted(set(range(run.log.n_items)) - set(met.tolist()))]
        if shuffled:
            np.random.default_rng(0).shuffle(order)
        number = {item: place for place, item in enumerate(order)}
        titles = tuple(str(1000 + number[item]) for item in range(run.log.n_items))
        run._held["index"] = ItemIndex(np.zeros((len(titles), 0), dtype=np.int32), titles=titles)
        return run

    monkeypatch.setattr(looking, "open_run", opened)
    assert kinds(finished[1])["names that follow the order in which the log meets the items"] == kind


def test_what_was_made_elsewhere_is_not_called_clean(quick_recipe: Path, tmp_path: Path) -> None:
    run = open_run_of(quick_recipe, tmp_path)
    assert [finding.kind for finding in looking._fitted(run)] == ["clean", "unknown"]


def open_run_of(recipe: Path, tmp_path: Path) -> Any:
    from rectune.recipe.load import load_recipe
    from rectune.run.run import open_recipe

    vectors = tmp_path / "vectors.npz"
    np.savez(vectors, item_id=np.array(["i0"]), vectors=np.zeros((1, 2)))
    return open_recipe(load_recipe(recipe, [("vectors", f"[{{call: from_file, path: {vectors}}}]")]))


def test_a_split_in_time_has_no_later_training_event(quick_recipe: Path, tmp_path: Path) -> None:
    more = ["--split", "{call: by_time, max_history: 10, validation: 0.2, test: 0.2}", "--eval.oracle", "null"]
    assert main(["train", str(quick_recipe), *more, "--traceback"]) == 0
    assert kinds(tmp_path / "run")["training events later than test targets"] == "clean"


def test_a_text_that_tells_the_target_is_found(finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    what = "titles of held-out targets in training texts about the same user"
    assert kinds(finished[1])[what] == "clean"

    def opened(folder: Any) -> Any:
        run = open_run(folder)
        split, specs = run.split, run.specs
        titles = split.log.items["title"].to_list()
        target = dict(zip(split.test.user.tolist(), split.targets(split.test).tolist(), strict=True))
        user = dict(zip(split.train.row.tolist(), split.train.user.tolist(), strict=True))

        def leaky(tasks: Any) -> Any:
            made = []
            for spec in specs(tasks):

                def rows(part: Any, spec: Any = spec) -> Any:
                    before = spec.rows(part)

                    def variables(i: int) -> Any:
                        told = titles[target[user[int(before.row[i])]]]
                        given = before.variables(i)
                        return {
                            **given,
                            "history": [{**item, "name": f"{item['name']} {told}"} for item in given["history"]],
                        }

                    return replace(before, variables=variables)

                made.append(replace(spec, rows=rows))
            return made

        run.specs = leaky  # type: ignore[method-assign]
        return run

    monkeypatch.setattr(looking, "open_run", opened)
    assert kinds(finished[1])[what] == "leak"
