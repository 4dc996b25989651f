"""Runs that go on from another: names, tokens, rows that were forgotten, and what cannot be gone on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from rectune.data_builders.synthetic import synthetic

from rectune.cli import main
from rectune.indexing.item_index import ItemIndex
from rectune.indexing.residual_kmeans import residual_kmeans
from rectune.indexing.titles import titles as titled
from rectune.log.cleaning import make_log
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.run.run import open_run
from rectune.vectors.sentences import sentences
from tests.data_builders.small import quietly
from tests.runs import results, train

NEW, GONE = 6, 2  # items


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log of a shop as it was (`early.csv`, `early-items.csv`) and as it is."""
    place = tmp_path_factory.mktemp("shop")
    log = synthetic(users=60, items=90, categories=5, shortest=8, longest=14)
    events = log.interactions.select(
        user=log.users.gather(log.user_codes),
        item=log.items["item_id"].gather(log.item_codes),
    ).with_columns(time=pl.int_range(pl.len()).over("user"))
    ids = log.items["item_id"].to_list()
    new, gone = ids[-NEW:], ids[:GONE]
    early = events.filter(pl.col("time") < 6, ~pl.col("item").is_in(new))
    for name, rows, items in (
        ("early", early, log.items.filter(~pl.col("item_id").is_in(new))),
        ("now", events.filter(~pl.col("item").is_in(gone)), log.items.filter(~pl.col("item_id").is_in(gone))),
    ):
        rows.write_csv(place / f"{name}.csv")
        items.write_csv(place / f"{name}-items.csv")
    return place


def recipe(place: Path, shop: Path, name: str, when: str, **changes: Any) -> Path:
    """A recipe over one of the logs."""
    from tests.conftest import QUICK

    settings = yaml.safe_load(QUICK)
    settings["data"] = {"call": "table", "path": str(shop / f"{when}.csv"), "items_path": str(shop / f"{when}-items.csv"), "time": "time", "item_id": "item_id"}  # fmt: skip
    settings["eval"] = {"k": [1, 5], "shuffled_rows": 0, "wording_rows": 0, "oracle": None}
    settings["model"]["from_scratch"]["max_position_embeddings"] = 512
    settings["stages"][0] |= {"max_steps": 6, "eval_steps": 3, "save_steps": 3}
    settings = {**settings, **changes, "output_dir": str(place / name)}
    (place / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return place / f"{name}.yaml"


@pytest.fixture(scope="module")
def earlier(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("earlier")
    train(recipe(place, shop, "old", "early"))
    return place / "old"


@pytest.fixture(scope="module")
def refreshed(shop: Path, earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("refreshed")
    assert main(["train", str(recipe(place, shop, "new", "now")), "--from", str(earlier), "--traceback"]) == 0
    return place / "new"


def bundle_of(run: Path) -> Path:
    return next(run.glob("from-*"))


def names(run: Any) -> dict[str, str]:
    return {item: run.index.name(i) for i, item in enumerate(run.log.items["item_id"].to_list())}


@pytest.mark.heavy
def test_old_names_stay_and_new_items_get_names_of_known_tokens(earlier: Path, refreshed: Path) -> None:
    old, new = names(open_run(earlier)), names(open_run(refreshed))
    both = set(old) & set(new)
    assert (len(both), len(set(new) - set(old)), len(set(old) - set(new))) == (len(old) - GONE, NEW, GONE)
    assert all(old[item] == new[item] for item in both)
    assert len(set(new.values())) == len(new)
    assert not {new[item] for item in set(new) - set(old)} & set(old.values())  # nor those of items that are gone
    assert open_run(refreshed).index.vocabulary == open_run(earlier).index.vocabulary


@pytest.mark.heavy
def test_the_untuned_model_is_the_earlier_one_to_the_bit(earlier: Path, refreshed: Path) -> None:
    old, new = open_run(earlier), open_run(refreshed)
    one, other = old.models["tuned"].model, new.models["untuned"].model
    weights = dict(other.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in one.named_parameters())
    assert new.encoder.frame == old.encoder.frame


@pytest.mark.heavy
def test_the_report_says_what_it_goes_on_from_and_what_was_forgotten(
    earlier: Path, refreshed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = results(refreshed)["earlier"]
    assert found["name"] == "old (old)"
    assert found["grown"] == {"kept": 84 - GONE, "new": NEW, "gone": GONE}
    old, new = open_run(earlier), open_run(refreshed)
    ids, today = old.log.items["item_id"].to_list(), new.log.items["item_id"].to_list()
    left = [0, 0, 0]  # rows, gone, trained, by hand
    for i, item in enumerate(old.split.targets(old.split.test)):
        user = old.log.users[int(old.split.test.user[i])]
        if ids[item] not in today:
            left[1] += 1
        elif user in new.log.users.to_list():
            since = new.split.trained(new.log.users.to_list().index(user))
            left[2 if ids[item] in {today[code] for code in since} else 0] += 1
        else:
            left[0] += 1
    assert [found["rows"], found["gone"], found["trained"]] == left
    assert found["trained"] > 0
    page = (refreshed / "report.html").read_text()
    assert "The run goes on from old (old): the untuned model is that one&#39;s." in page
    assert "82 items keep their names and 6 got new ones; 2 are no items any more." in page


@pytest.mark.heavy
def test_rows_that_were_not_trained_since_are_ranked_by_both_models(shop: Path, earlier: Path, tmp_path: Path) -> None:
    """The same log: each earlier test row is one of today's, so both rankings have to agree row by row."""
    same = recipe(tmp_path, shop, "again", "early")
    assert main(["train", str(same), "--from", str(earlier), "--traceback"]) == 0
    found = results(tmp_path / "again")
    table = found["protocols"]["seen items hidden"]
    before = found["earlier"]
    assert (before["rows"], before["gone"], before["trained"]) == (found["rows"], 0, 0)
    assert before["ndcg@5"]["earlier"] == pytest.approx(table["untuned model"]["ndcg@5"])
    assert before["ndcg@5"]["now"] == pytest.approx(table["tuned model"]["ndcg@5"])
    assert before["ndcg@5"]["difference"] == pytest.approx(found["tuned_against"]["seen items hidden"]["differences"]["untuned model"])  # fmt: skip
    assert before["ndcg@5"]["earlier"][0] == pytest.approx(
        results(earlier)["protocols"]["seen items hidden"]["tuned model"]["ndcg@5"][0]
    )


@pytest.mark.heavy
def test_a_refreshed_run_is_kept_judged_again_and_exported(
    earlier: Path, refreshed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(refreshed, tmp_path / "new")
    file = run.parent / "new.yaml"
    shutil.copy(refreshed.parent / "new.yaml", file)
    assert main(["train", str(file), "--from", str(earlier), "--output_dir", str(run), "--traceback"]) == 0
    said = capsys.readouterr().out
    assert "built" not in said
    assert main(["eval", str(run), "--traceback"]) == 0
    assert results(run)["earlier"] == results(refreshed)["earlier"]
    assert main(["export", str(run), "--traceback"]) == 0
    new = open_run(run).log.items["item_id"].to_list()[-1]
    capsys.readouterr()
    assert main(["recommend", str(run / "export"), "--items", new, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["items"]) == 5
    moved = earlier.with_name("moved")
    earlier.rename(moved)  # a finished run ranks without what it went on from
    try:
        assert main(["recommend", str(run), "--items", new, "--json"]) == 0
    finally:
        moved.rename(earlier)


@pytest.mark.heavy
@pytest.mark.parametrize("index", [{"call": "atomic", "user_tokens": 3}, {"call": "titles"}])
def test_indexes_without_vectors_grow_too(shop: Path, tmp_path: Path, index: dict[str, Any]) -> None:
    template = {"rank": {"template": "next-item.jinja", "batch_tokens": 1024, "beams": 6, "k": 5}} if index["call"] == "titles" else {}  # fmt: skip
    more = {"index": index, "vectors": None, **template}
    if template:
        more["tasks"] = [{"call": "next_item", "template": "next-item.jinja"}]
        more["stages"] = [{"call": "sft", "max_steps": 2, "per_device_train_batch_size": 8, "max_length": 512}]
    train(recipe(tmp_path, shop, "old", "early", **more))
    assert main(["train", str(recipe(tmp_path, shop, "new", "now", **more)), "--from", str(tmp_path / "old"), "--traceback"]) == 0  # fmt: skip
    old, new = open_run(tmp_path / "old"), open_run(tmp_path / "new")
    was, now = names(old), names(new)
    assert all(was[item] == now[item] for item in set(was) & set(now))
    assert len(set(now.values())) == len(now) == len(was) - GONE + NEW
    if index["call"] == "titles":
        return
    assert new.index.user_tokens == 3
    assert new.index.vocabulary[-3:] == old.index.vocabulary[-3:]
    user = old.log.users[0]
    assert new.index.vocabulary[new.index.user_code(user) or 0] == old.index.vocabulary[old.index.user_code(user) or 0]
    one, other = old.models["tuned"].model, new.models["untuned"].model
    for token in [*old.index.vocabulary, "<|start|>"]:
        place, there = (run.encoder.tokenizer.convert_tokens_to_ids(token) for run in (old, new))
        assert torch.equal(one.get_input_embeddings().weight[place], other.get_input_embeddings().weight[there])
    added = [token for token in new.index.vocabulary if token not in old.index.vocabulary]
    ids = new.encoder.tokenizer.convert_tokens_to_ids(added)
    assert len(added) == NEW
    assert len(torch.unique(other.get_input_embeddings().weight[ids], dim=0)) == NEW  # rows of their own


@pytest.mark.heavy
@pytest.mark.parametrize("call", ["residual_kmeans", "titles"])
def test_a_name_is_nobody_elses_and_an_item_that_returns_has_it_again(shop: Path, tmp_path: Path, call: str) -> None:
    """The two first items leave, then come back beside one with the title of the first."""
    from rectune.run.earlier import Earlier

    titles = call == "titles"
    items = pl.read_csv(shop / "early-items.csv")
    split = leave_one_out(make_log(pl.read_csv(shop / "early.csv"), items, source="shop", warn_unordered=False))
    vectors = sentences(split, text=["title", "categories"])
    first = titled(split) if titles else residual_kmeans(split, vectors, levels=2, codes=12)

    class Place(Earlier):
        @property
        def name(self) -> str:
            return "old"

    def written(index: ItemIndex, catalogue: pl.DataFrame, name: str) -> Earlier:
        (tmp_path / name / "index").mkdir(parents=True)
        index.save(tmp_path / name / "index")
        (tmp_path / name / "items.jsonl").write_text(
            "".join(json.dumps({"item_id": one}) + "\n" for one in catalogue["item_id"])
        )
        return Place(tmp_path / name, None)

    def on(index: ItemIndex, before: pl.DataFrame, now: pl.DataFrame, name: str) -> ItemIndex:
        events = pl.read_csv(shop / "early.csv").filter(pl.col("item").is_in(now["item_id"].implode()))
        log = quietly(make_log, interactions=events, items=now, source="shop", warn_unordered=False)
        today = leave_one_out(log)
        return written(index, before, name).grown(
            today, None if titles else sentences(today, text=["title", "categories"]), 200
        )

    log_items = split.log.items
    fewer = log_items[GONE:]
    second = on(first, log_items, fewer, "one")
    assert second.health["grown"] == {"from": "old", "kept": len(fewer), "new": 0, "gone": GONE}
    assert set(second.health["retired"]) == set(log_items["item_id"][:GONE])
    more = pl.concat([fewer, log_items[:1].with_columns(item_id=pl.lit("twin")), log_items[:GONE]])
    third = on(second, fewer, more, "two")
    was = {item: first.name(i) for i, item in enumerate(log_items["item_id"])}
    now = {item: third.name(i) for i, item in enumerate(more["item_id"])}
    assert {item: now[item] for item in was} == was
    assert now["twin"] not in was.values()
    assert third.health["grown"] == {"from": "old", "kept": len(log_items), "new": 1, "gone": 0}
    assert third.health["retired"] == {}


@pytest.mark.heavy
def test_training_the_earlier_run_again_leaves_its_heirs_alone(shop: Path, tmp_path: Path) -> None:
    old, new = recipe(tmp_path, shop, "old", "early"), recipe(tmp_path, shop, "new", "now")
    train(old)
    assert main(["train", str(new), "--from", str(tmp_path / "old"), "--traceback"]) == 0
    weights = open_run(tmp_path / "new").models["untuned"].model.state_dict()
    train(old, "--stages.0.max_steps", "3")
    other = recipe(tmp_path, shop, "other", "now")
    assert main(["train", str(other), "--from", str(tmp_path / "old"), "--traceback"]) == 0
    assert len(list((tmp_path / "old").glob("from-*"))) == 2
    again = open_run(tmp_path / "new").models["untuned"].model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


@pytest.mark.heavy
def test_what_cannot_be_gone_on_from_is_one_line(
    shop: Path, earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*more: str, file: Path) -> str:
        assert main(["train", str(file), *more]) == 1
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    file = recipe(tmp_path, shop, "new", "now")
    assert "neither a finished run folder, nor a bundle" in refused("--from", str(shop), file=file)
    assert "lies in the folder that this recipe writes" in refused(
        "--from", str(earlier), "--output_dir", str(earlier), file=file
    )
    other = recipe(tmp_path, shop, "other", "now", vectors=[{"call": "sentences", "text": ["title"]}])
    assert "the earlier run has other item vectors" in refused("--from", str(earlier), file=other)
    other = recipe(tmp_path, shop, "other", "now", index={"call": "atomic"})
    assert "the earlier run has names by `residual_kmeans`" in refused("--from", str(earlier), file=other)
    broken = shutil.copytree(bundle_of(earlier), tmp_path / "broken")
    with (broken / "items.jsonl").open("a") as out:
        out.write("\n")
    assert "items.jsonl" in refused("--from", str(broken), file=file)
    direct = recipe(tmp_path, shop, "direct", "now", **{"from": str(shop)})
    assert "`from`" in refused(file=direct)
    about = json.loads((bundle_of(earlier) / "rectune.json").read_text())
    for name, change, message in (
        ("older", {"asked": {}}, "was written by an older rectune"),
        ("adapter", {"adapter_only": True}, "holds an adapter alone"),
    ):
        written = shutil.copytree(bundle_of(earlier), tmp_path / name)
        (written / "rectune.json").write_text(json.dumps({**about, **change}))
        direct = recipe(tmp_path, shop, "direct", "now", **{"from": str(written)})
        assert message in refused(file=direct)
    assert not (tmp_path / "new").exists()


@pytest.mark.heavy
def test_test_targets_that_the_earlier_model_was_tuned_on_are_told(
    shop: Path, earlier: Path, refreshed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results(refreshed)["earlier"]["leaked"] == 0
    assert main(["check", str(refreshed)]) == 0
    assert "clean  test targets among training events of the earlier run" in capsys.readouterr().out
    log = pl.read_csv(shop / "early.csv")
    short = log.filter(
        pl.col("time") < pl.col("time").max().over("user") - 1
    )  # today's log ends before the earlier one
    short.write_csv(tmp_path / "short.csv")
    file = recipe(tmp_path, shop, "short", "early")
    assert main(["train", str(file), "--from", str(earlier), "--data.path", str(tmp_path / "short.csv"), "--traceback"]) == 0  # fmt: skip
    found = results(tmp_path / "short")
    then = open_run(earlier)
    by_hand = 0
    lasts = short.group_by("user", maintain_order=True).agg(pl.col("item"))
    for user, items in lasts.rows():
        trained = [then.log.items["item_id"][int(i)] for i in then.split.trained(then.log.users.to_list().index(user))]
        by_hand += len(items) >= 3 and trained.count(items[-1]) > items[:-1].count(items[-1])
    assert found["earlier"]["leaked"] == by_hand > 0
    told = f"{by_hand} of the {found['rows']} test targets are events that the earlier model was tuned on"
    assert told in (tmp_path / "short" / "report.html").read_text()
    capsys.readouterr()
    assert main(["check", str(tmp_path / "short")]) == 3
    assert "leak   test targets among training events of the earlier run" in capsys.readouterr().out


def test_a_title_that_an_earlier_item_has_gets_a_number() -> None:
    from rectune.indexing.titles import numbered

    assert numbered(["Soap", "soap ", "Tea"], 200, taken=("Soap", "Soap (2)")) == (["Soap (3)", "soap (4)", "Tea"], 2)
    assert isinstance(ItemIndex(np.zeros((1, 0), dtype=np.int32), titles=("Soap",)).name(0), str)
