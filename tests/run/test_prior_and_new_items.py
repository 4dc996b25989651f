"""Runs with a prior beside the model, and items that are added after the tuning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from rectune.cli import main
from tests.runs import results, train


@pytest.fixture(scope="module")
def with_prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a recipe with item vectors, a prior and a SASRec row."""
    from tests.conftest import QUICK

    place = tmp_path_factory.mktemp("prior")
    settings = yaml.safe_load(QUICK)
    settings["vectors"] = [{"call": "sentences", "text": ["categories", "title"]}]
    settings["index"] = {"call": "residual_kmeans", "levels": 2, "codes": 12}
    settings["rank"]["prior"] = {"call": "prior", "weight": [0, 20, 80], "rows": 60}
    settings["sasrec"] = {"epochs": 2}
    settings["output_dir"] = str(place / "run")
    (place / "prior.yaml").write_text(yaml.safe_dump(settings))
    train(place / "prior.yaml")
    return place / "run"


@pytest.mark.heavy
def test_a_prior_stands_in_the_table_alone_and_beside_the_model(with_prior: Path) -> None:
    found = results(with_prior)
    rows = found["protocols"]["seen items hidden"]
    assert {"prior alone", "tuned model + prior", "SASRec, full softmax"} <= set(rows)
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
    assert set(report["model + prior"]) == set(report["model"]) == set(report["text nearest-neighbour"])
    assert (
        report["text nearest-neighbour"]["whole catalogue"] == 1.0
    )  # the new item is the copy of the history's only one
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
    train(quick_recipe, "--index", "{call: atomic}")
    (tmp_path / "new.csv").write_text("item_id,title\nx9,Soap\n")
    assert main(["index", "add", str(tmp_path / "run"), str(tmp_path / "new.csv")]) == 1
    assert "this index cannot name a new item without tuning again" in capsys.readouterr().err
    assert not (tmp_path / "run" / "added.json").exists()
