"""Runs: from log to report, killed and continued, on one process and on two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from rectune.cli import main
from rectune.ranking import Ranking

ROOT = Path(__file__).parents[1]


def results(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())["results"]


def train(recipe: Path, *more: str) -> None:
    assert main(["train", str(recipe), "--traceback", *more]) == 0


def stages(folder: Path) -> dict[str, float]:
    return {stage.name: stage.stat().st_mtime_ns for stage in (folder / "stages").iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and its finished run folder, shared by the tests that only read or add to it."""
    from tests.conftest import QUICK

    place = tmp_path_factory.mktemp("finished")
    (place / "quick.yaml").write_text(QUICK + f"output_dir: {place / 'run'}\n")
    train(place / "quick.yaml")
    return place / "quick.yaml", place / "run"


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
    from rectune.run import open_run

    _, folder = finished
    line = open_run(folder)
    from rectune.run_ranking import ranked

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
        (["--seed", "4"], "`rectune eval` changes only keys of `rank` and `eval`"),
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
    change = "\ndata: {call: 'rectune.data_builders.table:table', path: log.csv}\nindex: {call: 'rectune.indexing.atomic:atomic'}\n"
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
    assert new == {"train0", "rank"}
    assert all(stages(folder)[name] == when for name, when in before.items())
    train(recipe)


@pytest.mark.heavy
def test_the_same_recipe_gives_the_same_results_elsewhere(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    train(recipe, "--output_dir", str(tmp_path / "again"))
    assert results(tmp_path / "again") == results(folder)


@pytest.mark.heavy
def test_killed_anywhere_it_continues_to_the_same_results(finished: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = finished
    out = tmp_path / "killed"

    def run(point: str, times: int) -> Any:
        """The run, killed at a point, in the folder `out`."""
        command = ["--", "train", str(recipe), "--output_dir", str(out)]
        whole = [sys.executable, "-m", "tests.kill_at", point, str(times), *command]
        return subprocess.run(whole, capture_output=True, text=True, check=False, cwd=ROOT)

    for point, times in (
        ("step", 3),
        ("save", 2),
        ("step", 2),
        ("save", 1),
        ("rank", 8),
        ("shard", 2),
        ("shard", 3),
        ("rank", 6),
    ):
        died = run(point, times)
        assert died.returncode == -9, (point, died.stderr[-2000:])
        assert not (out / "report.json").exists()
        out = out.rename(tmp_path / f"moved-{point}-{times}")  # a folder that was moved goes on where it is
    whole = run("none", 0)
    assert whole.returncode == 0, whole.stderr[-2000:]
    assert results(out) == results(folder)
    assert not list(out.glob("stages/*.partial"))


@pytest.mark.heavy
def test_two_processes_give_the_same_lists_as_one(finished: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = finished
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    for stage in both.glob("stages/rank-*"):
        shutil.rmtree(stage)
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        "-m",
        "tests.kill_at",
        "none",
        "0",
        "--",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(
        [*torchrun, "eval", str(both)], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert out.returncode == 0, out.stderr[-3000:]
    found = sorted(both.glob("stages/rank-*"))
    assert len(found) == 5
    for stage in found:
        one, two = (Ranking.load(place / "stages" / stage.name / "ranking.parquet") for place in (folder, both))
        assert np.array_equal(one.row, two.row)
        assert np.array_equal(one.items, two.items)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)


@pytest.mark.heavy
def test_recommend_lists_only_what_may_be_listed(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = finished
    files = {}
    for name, ids in (("stock", ["i1", "i2", "i4", "gone"]), ("adult", ["i2"]), ("strange", ["gone"])):
        files[name] = tmp_path / f"{name}.txt"
        files[name].write_text("\n".join(ids) + "\n")
    (tmp_path / "users.jsonl").write_text('{"user": 1, "items": ["i3"], "candidates": ["i5", "i4", "i3"]}\n')

    def listed(*options: str) -> dict[str, float]:
        capsys.readouterr()
        assert main(["recommend", str(folder), *options, "--json", "--traceback"]) == 0
        return {item["item_id"]: item["score"] for item in json.loads(capsys.readouterr().out)["items"]}

    with pytest.warns(UserWarning, match="1 of 4 ids in `allow` are not in the catalogue, `gone`"):
        stock = listed("--items", "i3", "--allow", str(files["stock"]))
    assert set(stock) == {"i1", "i2", "i4"}
    with pytest.warns(UserWarning, match="`allow`"):
        both = listed("--items", "i3", "--allow", str(files["stock"]), "--deny", str(files["adult"]))
    assert both == {name: pytest.approx(score) for name, score in stock.items() if name != "i2"}
    few = listed("--users", str(tmp_path / "users.jsonl"))
    assert set(few) == {"i4", "i5"}  # i3 was seen
    assert few["i4"] == pytest.approx(stock["i4"])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="1 of 1 ids in `allow`"):
        assert main(["recommend", str(folder), "--items", "i3", "--allow", str(files["strange"])]) == 1
    assert "error: no item may be listed" in capsys.readouterr().err


@pytest.mark.heavy
def test_recommend_by_ids_by_titles_for_nobody_and_for_a_file(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rectune.run import open_run

    _, folder = finished
    items = open_run(folder).log.items
    capsys.readouterr()
    lists = []
    for history in (
        ["--items", "i3", "i7"],
        ["--titles", *items.filter(items["item_id"].is_in(["i3", "i7"]))["title"].to_list()],
    ):
        assert main(["recommend", str(folder), *history, "--k", "4", "--json", "--traceback"]) == 0
        lists.append([item["item_id"] for item in json.loads(capsys.readouterr().out)["items"]])
    assert lists[0] == lists[1]
    assert len(set(lists[0])) == 4
    assert not {"i3", "i7"} & set(lists[0])
    assert main(["recommend", str(folder), "--items", "--traceback"]) == 0
    assert capsys.readouterr().out.count("[i") == 5
    (tmp_path / "users.jsonl").write_text('{"user": "anna", "items": ["i3", "i7"]}\n\n{"user": 5, "items": []}\n')
    assert (
        main(["recommend", str(folder), "--users", str(tmp_path / "users.jsonl"), "--k", "4", "--json", "--traceback"])
        == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["user"] for row in rows] == ["anna", 5]
    assert [item["item_id"] for item in rows[0]["items"]] == lists[0]
    assert all(item["score"] <= 0 for item in rows[0]["items"])
    for wrong, message in (
        (["--items", "i3", "x9"], "error: the catalogue has no item with item_id `x9`"),
        (["--items", "i3", "--k", "11"], "error: k = 11, but it must be from 1 to `rank.beams` = 10"),
        (["--items", "i3", "--titles", "x"], "error: give the history in exactly one way"),
        ([], "error: give the history in exactly one way"),
    ):
        assert main(["recommend", str(folder), *wrong]) == 1
        assert message in capsys.readouterr().err


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
    short = (
        '{call: "rectune.methods.sft", completion_only_loss: false, max_steps: 2, max_length: 128, learning_rate: RATE}'
    )
    two = f"stages:\n  - {short.replace('RATE', '1.0e-2')}\n  - {short.replace('RATE', '0.0')}\n"
    quick_recipe.write_text(text[:start] + two + text[end:])
    train(quick_recipe)
    from safetensors.torch import load_file

    (first,), (second,) = ((tmp_path / "run" / "stages").glob(f"train{i}-*/model/model.safetensors") for i in (0, 1))
    one, two_ = load_file(first), load_file(second)
    assert all((one[key] == two_[key]).all() for key in one)  # a learning rate of 0 leaves what the first stage made


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


# ------------------------------------------------------------------------------------------------- priors and new items


@pytest.fixture(scope="module")
def with_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a recipe with item vectors, a prior and a SASRec row."""
    from tests.conftest import QUICK

    place = tmp_path_factory.mktemp("prior")
    settings = yaml.safe_load(QUICK)
    settings["vectors"] = [{"call": "rectune.vectors.texts:sentences", "text": ["categories", "title"]}]
    settings["index"] = {"call": "rectune.indexing.residual_kmeans:residual_kmeans", "levels": 2, "codes": 12}
    settings["rank"]["prior"] = {"call": "rectune.eval.prior", "weight": [0, 20, 80], "rows": 60}
    settings["eval"]["sasrec_epochs"] = 2
    settings["output_dir"] = str(place / "run")
    (place / "prior.yaml").write_text(yaml.safe_dump(settings))
    train(place / "prior.yaml")
    return place / "run"


@pytest.mark.heavy
def test_a_prior_stands_in_the_table_alone_and_beside_the_model(with_prior: Path) -> None:
    found = results(with_prior)
    rows = found["protocols"]["seen items hidden"]
    assert {"prior alone", "tuned model + prior", "SASRec, cross-entropy"} <= set(rows)
    tried = {entry["weight"]: entry["ndcg@10"] for entry in found["prior_weight"]["validation"]}
    assert list(tried) == [0.0, 20.0, 80.0]
    assert tried[found["prior_weight"]["weight"]] == max(tried.values())
    assert found["mixed_against"]["seen items hidden"]["best_baseline"] in rows
    assert "Prior&#39;s weight" in (with_prior / "report.html").read_text()


@pytest.mark.heavy
def test_new_items_are_named_listed_and_judged(
    with_prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(with_prior, tmp_path / "run")
    before = np.load(next((folder / "stages").glob("index-*")) / "codes.npy")
    log = pl.read_parquet(next((folder / "stages").glob("log-*")) / "items.parquet")
    like = log.row(5, named=True)
    new = [{**like, "item_id": f"new{i}", "title": f"{like['title']} mark {i}"} for i in range(3)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, new)))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"items": [like["item_id"]], "target": "new1"}))
    assert main(["index", "add", str(folder), str(tmp_path / "new.jsonl"), "--rows", str(tmp_path / "rows.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "added 3 items; no name of an old item changed." in said
    assert "text nearest-neighbour" in said
    report = json.loads(next(folder.glob("added-*/report.json")).read_text())
    assert report["model"]["added items alone"] == 1.0  # three items, ten places
    assert np.array_equal(before, np.load(next((folder / "stages").glob("index-*")) / "codes.npy"))
    every = [*log["item_id"].to_list(), "new0", "new1", "new2"]
    (tmp_path / "allow.txt").write_text("new2\n")
    for stage in (folder / "stages").glob(
        "prior-*"
    ):  # as after a kill while ranking: built again, on the old catalogue
        shutil.rmtree(stage)
    asked = ["recommend", str(folder), "--items", every[0], "new0", "--allow", str(tmp_path / "allow.txt"), "--json"]
    assert main(asked) == 0
    listed = json.loads(capsys.readouterr().out)["items"]
    assert [item["item_id"] for item in listed] == ["new2"]
    # a second time, and what must not be
    assert main(["index", "add", str(folder), str(tmp_path / "new.jsonl")]) == 1
    assert "the catalogue already has the item `new0`" in capsys.readouterr().err
    (tmp_path / "twice.csv").write_text("item_id,title\nx9,Soap\nx9,Soap\n")
    assert main(["index", "add", str(folder), str(tmp_path / "twice.csv")]) == 1
    assert "item `x9` is given twice" in capsys.readouterr().err
    (tmp_path / "more.csv").write_text(
        "item_id,title,categories\n0012,Lamp &amp; oil,lamp\n0013,Lamp &amp; wick,lamp\n"
    )
    (tmp_path / "wrong.jsonl").write_text(json.dumps({"items": [every[0]], "target": "0014"}))
    assert main(["index", "add", str(folder), str(tmp_path / "more.csv"), "--rows", str(tmp_path / "wrong.jsonl")]) == 1
    assert "the target `0014` is not an added item" in capsys.readouterr().err
    assert len(pl.read_parquet(next(folder.glob("added-*/items.parquet")))) == 3  # nothing was kept
    assert main(["index", "add", str(folder), str(tmp_path / "more.csv")]) == 0
    kept = pl.read_parquet(next(folder.glob("added-*/items.parquet")))
    assert kept["item_id"].to_list() == ["new0", "new1", "new2", "0012", "0013"]
    assert kept["title"][3] == "Lamp & oil"
    about = json.loads((folder / "added.json").read_text())
    (folder / "added.json").write_text(json.dumps({**about, "index": "another"}))
    assert main(["recommend", str(folder), "--items", every[0]]) == 1
    assert "added to an index that this run no longer has" in capsys.readouterr().err


@pytest.mark.heavy
def test_an_index_without_vectors_adds_nothing(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(quick_recipe, "--index", '{call: "rectune.indexing.atomic:atomic"}')
    (tmp_path / "new.csv").write_text("item_id,title\nx9,Soap\n")
    assert main(["index", "add", str(tmp_path / "run"), str(tmp_path / "new.csv")]) == 1
    assert "this index cannot name a new item without tuning again" in capsys.readouterr().err
    assert not (tmp_path / "run" / "added.json").exists()


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
    ids = [{"call": "rectune.tasks:next_item", "template": "next-item-names.jinja", "examples": "windows"}]
    stage = {
        "call": "rectune.methods.sft", "completion_only_loss": False, "per_device_train_batch_size": 16, "max_length": 384,
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
    low, mean, high = (found["wordings"]["recall@10"][name] for name in ("min", "mean", "max"))
    assert low <= mean <= high
    assert found["audits"][-1]["gradient_in"] > 0
    assert "wordings of the prompt" in (tmp_path / "run" / "report.html").read_text()
