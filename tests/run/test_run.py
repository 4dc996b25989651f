"""Runs: from log to report, repeated, with several seeds, stages and tasks."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rectune.cli import main
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe
from rectune.run.single import evaluate
from tests.runs import results, stages, train

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_a_run_leaves_a_whole_report(finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = finished
    report = json.loads((folder / "report.json").read_text())
    rows = report["results"]["protocols"]["seen items hidden"]
    assert list(rows) == [
        "popularity", "repeat last", "first-order Markov", "item-KNN", "EASE, recency-weighted", "EASE + Markov",
        "oracle", "untuned model", "tuned model",
    ]  # fmt: skip
    assert set(report["results"]["protocols"]) == {"seen items hidden", "seen items not hidden"}
    for entry in rows.values():
        mean, low, high = entry["ndcg@5"]
        assert 0 <= low <= mean <= high <= 1
    assert report["results"]["rows"] == 60
    assert {"results", "measured", "environment", "settings", "training"} <= set(report)
    page = (folder / "report.html").read_text()
    for needed in ("<svg", "Item index", "A few users", "Recall by history length", "seen items hidden", "perplexity"):
        assert needed in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "<script" not in page


@pytest.mark.heavy
def test_lists_are_complete_distinct_and_free_of_seen_items(finished: tuple[Path, Path]) -> None:
    from rectune.run.run import open_run

    _, folder = finished
    line = open_run(folder)
    from rectune.run.rankings import ranked

    ranking, _ = ranked(line, "tuned", "seen items hidden")
    assert np.array_equal(ranking.row, line.split.test.row)
    for i, row in enumerate(ranking.items):
        assert len(set(row)) == 10
        assert not set(row) & set(line.split.seen(line.split.test, i).tolist())


@pytest.mark.heavy
def test_running_again_builds_nothing_and_changing_k_ranks_nothing(finished: tuple[Path, Path]) -> None:
    recipe, folder = finished
    before, figures = stages(folder), results(folder)
    train(recipe)
    assert stages(folder) == before
    assert results(folder) == figures
    assert main(["eval", str(folder), "--eval.k", "[2]", "--traceback"]) == 0
    assert stages(folder) == before
    assert "ndcg@2" in results(folder)["protocols"]["seen items hidden"]["tuned model"]
    train(recipe)
    assert results(folder) == figures


@pytest.mark.heavy
def test_eval_ranks_again_with_another_beam_but_trains_nothing(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert main(["eval", str(copy), "--rank.beams", "1", "--rank.k", "1", "--eval.k", "[1]", "--traceback"]) == 0
    new = {name.partition("-")[0] for name in set(stages(copy)) - set(stages(folder))}
    assert new == {"rank"}
    one = results(copy)["protocols"]["seen items hidden"]["tuned model"]["recall@1"][0]
    assert 0 <= one <= 1


@pytest.mark.heavy
def test_eval_can_prove_every_list(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = finished
    copied = tmp_path / "exact"
    shutil.copytree(folder, copied)
    assert main(["eval", str(copied), "--rank.exact", "true", "--traceback"]) == 0
    assert results(copied)["proven_exact"]["seen items hidden"] == {"untuned model": 1.0, "tuned model": 1.0}
    assert results(folder)["proven_exact"]["seen items hidden"]["tuned model"] <= 1.0


@pytest.mark.heavy
def test_a_failed_eval_leaves_the_folder_as_it_was(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished[1], copy)
    for wrong, message in (
        (["--eval.k", "[1, 100]"], "k = 100, but it must be from 1 to `rank.beams` = 10"),
        (["--seed", "4"], "`rectune eval` changes only keys of `rank`, `eval` and `sasrec`"),
    ):
        assert main(["eval", str(copy), *wrong]) == 1
        assert message in capsys.readouterr().err
    assert (copy / "recipe.yaml").read_text() == (finished[1] / "recipe.yaml").read_text()
    assert main(["eval", str(copy), "--traceback"]) == 0


@pytest.mark.heavy
def test_a_run_folder_needs_neither_its_source_nor_its_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.conftest import QUICK

    events = [f"u{u},p{(u + step * (1 + u % 3)) % 9}" for u in range(20) for step in range(5)]
    (tmp_path / "log.csv").write_text("user,item\n" + "\n".join(events))
    change = "\ndata: {call: table, path: log.csv}\nindex: {call: atomic}\n"
    (tmp_path / "base.yaml").write_text(QUICK)
    (tmp_path / "own.yaml").write_text(
        "include: base.yaml"
        + change
        + f"rank: {{beams: 5, k: 5}}\neval: {{oracle: null}}\noutput_dir: {tmp_path / '2024-05-01'}\n"
    )
    (tmp_path / "next-item-names.jinja").write_text((ROOT / "templates" / "next-item-names.jinja").read_text())
    train(tmp_path / "own.yaml")
    for file in ("log.csv", "own.yaml", "base.yaml", "next-item-names.jinja"):
        (tmp_path / file).unlink()
    capsys.readouterr()
    assert main(["recommend", str(tmp_path / "2024-05-01"), "--items", "p1", "--json", "--traceback"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 5
    assert main(["eval", str(tmp_path / "2024-05-01"), "--traceback"]) == 0


@pytest.mark.heavy
def test_another_learning_rate_rebuilds_no_index(finished: tuple[Path, Path]) -> None:
    recipe, folder = finished
    before = stages(folder)
    train(recipe, "--stages.0.learning_rate", "2e-2")
    new = {name.partition("-")[0] for name in set(stages(folder)) - set(before)}
    assert new == {"train0", "rank", "plan0"}
    assert all(stages(folder)[name] == when for name, when in before.items())
    train(recipe)


@pytest.mark.heavy
def test_what_reads_the_line_is_rebuilt_by_its_name(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A run says of any box that was made by other code how to make it anew, of its rankings and baselines, too.
    recipe, folder = finished
    out = ["--output_dir", str(shutil.copytree(folder, tmp_path / "run"))]
    before = stages(tmp_path / "run")
    train(recipe, *out, "--rebuild", "baselines", "--rebuild", "rank-tuned")
    after = stages(tmp_path / "run")
    assert {name.rpartition("-")[0] for name in after if after[name] != before[name]} == {"baselines", "rank-tuned"}
    assert main(["train", str(recipe), *out, "--rebuild", "baseline"]) == 1
    assert "no such box. Did you mean `baselines`" in capsys.readouterr().err


@pytest.mark.heavy
def test_several_seeds_are_summed_up(quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        "--stages.0.max_steps",
        "2",
        "--stages.0.eval_strategy",
        "no",
        "--stages.0.save_strategy",
        "no",
        "--eval.shuffled_rows",
        "0",
    ]
    train(quick_recipe, "--seeds", "0,1", *few, "--stages.0.load_best_model_at_end", "false")
    (summary,) = json.loads((tmp_path / "run" / "grid.json").read_text())["grid"]
    ones = [results(tmp_path / "run" / f"seed-{seed}") for seed in (0, 1)]
    means = [r["protocols"]["seen items hidden"]["tuned model"]["ndcg@5"][0] for r in ones]
    mean, spread = summary["results"]["seen items hidden"]["tuned model"]["ndcg@5"]
    assert mean == pytest.approx(np.mean(means))
    assert spread == pytest.approx(np.std(means, ddof=1))
    assert "seed-1/report.html" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.heavy
def test_stages_chain(quick_recipe: Path, tmp_path: Path) -> None:
    text = quick_recipe.read_text()
    start = text.index("stages:")
    end = text.index("rank:")
    short = "{call: sft, completion_only_loss: false, max_steps: 2, max_length: 128, learning_rate: RATE}"
    two = f"stages:\n  - {short.replace('RATE', '1.0e-2')}\n  - {short.replace('RATE', '0.0')}\n"
    quick_recipe.write_text(text[:start] + two + text[end:])
    train(quick_recipe)
    from safetensors.torch import load_file

    (first,), (second,) = ((tmp_path / "run" / "stages").glob(f"train{i}-*/model/model.safetensors") for i in (0, 1))
    one, two_ = load_file(first), load_file(second)
    assert all((one[key] == two_[key]).all() for key in one)  # a learning rate of 0 leaves what the first stage made


@pytest.mark.heavy
def test_a_further_stage_over_the_same_template_keeps_what_was_trained(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    # Hours of a first stage must not be lost because somebody adds a second one.
    recipe, folder = finished
    shutil.copytree(folder, tmp_path / "run")
    before = stages(tmp_path / "run")
    more = "  - {call: dpo, tasks: [{call: next_item, template: next-item-names.jinja}], max_steps: 1, max_length: 128, learning_rate: 1.0e-4}\n"
    own = tmp_path / recipe.name
    own.write_text(recipe.read_text().replace("rank: {", more + "rank: {").replace(str(folder), str(tmp_path / "run")))
    train(own)
    new = {name.partition("-")[0] for name in set(stages(tmp_path / "run")) - set(before)}
    assert new == {"train1", "rank", "plan1"}
    # Nor does a third over that of the second change what the second added.
    second = more.replace("names.jinja", "titles.jinja").replace("next-item-titles", "next-item")
    text = own.read_text().replace(more, second)
    own.write_text(text)
    two = [task.template.name for task in open_recipe(load_recipe(own)).asked.read_tasks]
    own.write_text(text.replace(second, second + second))
    assert [task.template.name for task in open_recipe(load_recipe(own)).asked.read_tasks] == two
    assert len(two) == 2
    own.write_text(text.replace(second, more))
    # One whose texts no task of the recipe has is read by the tokenizer that is made for them.
    own.write_text(
        own.read_text().replace(
            "template: next-item-names.jinja}], max_steps", "template: next-item.jinja}], max_steps"
        )
    )
    other = open_recipe(load_recipe(own))
    assert other.place("base").fingerprint not in {name.partition("-")[2] for name in before}


@pytest.mark.heavy
def test_yes_no_runs_end_to_end(tmp_path: Path, data: Any) -> None:
    few = [
        "--stages.0.max_steps",
        "20",
        "--stages.0.ranked_rows",
        "50",
        "--stages.0.num_train_epochs",
        "1",
        "--eval.bootstrap_samples",
        "50",
    ]
    recipe = "tallrec-movie-json-cpu"
    out = ["--output_dir", str(tmp_path / "run"), "--data.path", str(data("tallrec/movie"))]
    assert main(["train", recipe, "--traceback", *few, *out]) == 0
    table = results(tmp_path / "run")["table"]
    assert list(table) == [
        "share of likes in the history",
        "item's like-rate",
        "share and like-rate",
        "logistic regression on both",
        "untuned model",
        "tuned model",
    ]
    assert round(table["share of likes in the history"]["auc"][0], 4) == 0.7260
    assert all(0 <= entry["calibration_error"] <= 1 for entry in table.values())


@pytest.mark.heavy
def test_six_families_train_in_one_run_and_the_report_shows_the_spread_over_wordings(tmp_path: Path) -> None:
    place = tmp_path / "source"
    place.mkdir()
    draw = np.random.default_rng(0)
    kinds = ("soap", "lamp", "rope", "nail", "glue")
    items = {
        str(i): {
            "title": f"{draw.choice(['red', 'tall', 'old'])} {kinds[i % 5]} {i}", "brand": f"B{i % 4}",
            "categories": f"Shop,{kinds[i % 5]}", "description": f"A {kinds[i % 5]} that lasts {i} years.",
        }
        for i in range(40)
    }  # fmt: skip
    walks = {str(u): [(u * 7 + step) % 40 for step in range(7)] for u in range(30)}
    (place / "s.item.json").write_text(json.dumps(items))
    (place / "s.inter.json").write_text(json.dumps(walks))
    ids = [{"call": "next_item", "template": "next-item-names.jinja", "examples": "windows"}]
    stage = {
        "call": "sft", "completion_only_loss": False, "per_device_train_batch_size": 16, "max_length": 384,
        "learning_rate": 0.003,
    }  # fmt: skip
    settings = {
        "include": "lcrec-scientific-cpu.yaml",
        "data": {"path": str(place)},
        "index": {"levels": 2, "codes": 8},
        "model": {"from_scratch": {"n_embd": 32, "n_layer": 1}, "text_vocab_size": 600},
        "stages": [{**stage, "max_steps": 3, "tasks": ids}, {**stage, "max_steps": 6}],
        "rank": {"prior": None, "beams": 5, "k": 5},
        "eval": {"k": [5], "shuffled_rows": 0, "wording_rows": 6},
        "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "six.yaml").write_text(yaml.safe_dump(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(tmp_path / "six.yaml")
    found = results(tmp_path / "run")
    assert len(found["wordings"]["each"]) == 14
    low, mean, high = (found["wordings"]["recall@5"][name] for name in ("min", "mean", "max"))
    assert low <= mean <= high
    assert [audit["gradient_in"] > 0 for audit in found["audits"]] == [True, True]
    assert "wordings of the prompt" in (tmp_path / "run" / "report.html").read_text()
    # the same model, asked as another of its tasks
    evaluate(tmp_path / "run", [("rank.template", "next-item-names.jinja")])
    bare = results(tmp_path / "run")
    assert bare["wordings"] is None
    assert bare["protocols"] != found["protocols"]
