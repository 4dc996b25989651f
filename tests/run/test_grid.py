"""A grid of runs: its cells, their folders, the table and the curve above them, and going on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rectune.cli import main
from rectune.recipe.load import Recipe, load_recipe
from rectune.run.folder import RunFolder
from rectune.run.grid import cell_folder, cells_of


def recipe(grid: Any, **more: Any) -> Recipe:
    return Recipe("r", {"seed": 7, "output_dir": "runs/r", "grid": grid, **more})


def test_cells_are_every_combination_and_the_seed_runs_fastest() -> None:
    asked = recipe({"seed": [0, 1], "split": {"shots": [16, None]}, "stages.0.learning_rate": [0.1]})
    found = cells_of(asked)
    assert found == [
        {"split.shots": shots, "stages.0.learning_rate": 0.1, "seed": seed} for shots in (16, None) for seed in (0, 1)
    ]
    assert str(cell_folder(asked, found[2])) == "runs/r/shots-all/learning_rate-0.1/seed-0"
    assert cells_of(asked, [5])[0]["seed"] == 5
    assert cells_of(recipe(None), [3, 4]) == [{"seed": 3}, {"seed": 4}]
    assert cells_of(recipe({"split.shots": [1]})) == [{"split.shots": 1, "seed": 7}]


def test_keys_that_end_in_one_word_give_a_cell_folders_of_its_own() -> None:
    asked = recipe({"stages.0.learning_rate": [0.1, 0.2], "stages.1.learning_rate": [0.1, 0.2], "index.seed": [3]})
    found = cells_of(asked)
    folders = [str(cell_folder(asked, cell)) for cell in found]
    assert folders[1] == "runs/r/stages.0.learning_rate-0.1/stages.1.learning_rate-0.2/index.seed-3/seed-7"
    assert len(set(folders)) == len(found) == 4


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"split.shots": 16}, "must be a list of at least one value"),
        ({"split.shots": []}, "must be a list of at least one value"),
        ({"split.shots": [1, 1]}, "a value is listed twice"),
        ({"splitt.shots": [1]}, "unknown section. Did you mean `split`"),
        ({"model.model_name_or_path": ["a/b", "a_b"]}, "'a/b' and 'a_b' would lie in one folder, `…-a_b`"),
        ({"split.shots": [None, "all"]}, "None and 'all' would lie in one folder, `…-all`"),
        ({"split.shots": [1, "1"]}, "1 and '1' would lie in one folder, `…-1`"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cells_of(recipe(grid))


FEW = """
include: tallrec-movie-kshot-cpu.yaml
split: {rows: 600}
stages:
  - call: sft
    max_steps: 6
    per_device_train_batch_size: 8
    max_length: 64
    eval_strategy: steps
    eval_steps: 2
    save_strategy: steps
    save_steps: 2
    load_best_model_at_end: true
    metric_for_best_model: eval_auc
    greater_is_better: true
    early_stopping_patience: 2
    ranked_rows: 60
grid: {split.shots: [16, null], seed: [0, 1]}
eval: {bootstrap_samples: 20}
"""


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:MovieLens 100k")
def test_the_grid_of_k_shots_ends_with_a_table_and_goes_on_where_it_stopped(
    tmp_path: Path, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.yaml"
    file.write_text(FEW + f"output_dir: {tmp_path / 'run'}\n")
    command = ["train", str(file), "--traceback", "--data.path", str(data("ml-100k"))]
    assert main([*command[:2], *command[3:], "--grid", "{split.shots: [16, 90000], seed: [0]}"]) == 1
    assert "`split.shots` is 90000" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("train0-*"))  # said before any cell is trained
    assert main([*command, "--grid", "{split.shots: [16], seed: [0]}"]) == 0
    assert main(["plan", str(file)]) == 0
    kept = next((tmp_path / "run" / "shots-16" / "seed-0" / "stages").glob("train0-*/model/model.safetensors"))
    stamp = kept.stat().st_mtime_ns
    capsys.readouterr()
    assert main(command) == 0
    assert kept.stat().st_mtime_ns == stamp  # the cell that was done is not trained again
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "grid.json").read_text())["grid"]
    assert [(group["setting"], group["seeds"]) for group in summary] == [
        ({"split.shots": k}, [0, 1]) for k in (16, None)
    ]
    for group in summary:
        place = tmp_path / "run" / f"shots-{'all' if group['setting']['split.shots'] is None else 16}"
        ones = [json.loads((place / f"seed-{seed}" / "report.json").read_text())["results"] for seed in (0, 1)]
        tuned = [one["table"]["tuned model"]["auc"][0] for one in ones]
        assert group["results"]["yes or no"]["tuned model"]["auc"][0] == pytest.approx(sum(tuned) / 2)
        assert ones[0]["split"].get("shots") == group["setting"]["split.shots"]
    assert "seed 1 [95 % interval]" in shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in page
    assert "shots-all/seed-1/report.html" in page


def test_a_bundled_grid_lists_four_sizes_and_three_seeds() -> None:
    assert len(cells_of(load_recipe("tallrec-movie-kshot-cpu"))) == 12


def test_train_of_the_package_runs_the_grid(
    monkeypatch: pytest.MonkeyPatch, quick_recipe: Path, tmp_path: Path
) -> None:
    import rectune
    from rectune.run import grid

    trained: list[tuple[int, str]] = []
    known: list[bool] = []

    def train_one(recipe: Any, *, rebuild: Any, elsewhere: Any) -> None:
        trained.append((recipe.settings["seed"], recipe.settings["output_dir"]))
        known.append("rank-tuned" in elsewhere)

    monkeypatch.setattr(grid, "train_one", train_one)
    monkeypatch.setattr(RunFolder, "names", lambda self: {"rank-tuned"} if self.path.name == "seed-5" else set())
    monkeypatch.setattr(grid, "is_main", lambda: False)
    whole = load_recipe(quick_recipe, [("grid", "{seed: [3, 5]}"), ("output_dir", str(tmp_path / "grid"))])
    assert rectune.train(whole) == tmp_path / "grid"
    assert trained == [(3, str(tmp_path / "grid" / "seed-3")), (5, str(tmp_path / "grid" / "seed-5"))]
    # `--rebuild rank-tuned` is no mistake for a cell that has ranked nothing yet, where another has.
    assert known == [True, True]
    trained.clear()
    rectune.train(quick_recipe, [("output_dir", str(tmp_path / "seeds"))], seeds=[8])
    assert trained == [(8, str(tmp_path / "seeds" / "seed-8"))]
