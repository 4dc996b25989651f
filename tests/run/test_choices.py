"""Runs that choose among candidates: trained, judged, asked again, killed, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rectune.eval.choices import met_in_training
from rectune.eval.several import summarise

from rectune.bundle.push import Pushing, planned
from rectune.bundle.recommender import Recommender
from rectune.cli import main
from rectune.run.run import Run, open_run
from rectune.runtime.ragged import Ragged
from tests.exports import exported
from tests.offered import RECIPE, files
from tests.runs import results, train
from tests.test_cli import fails


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("choices")
    (place / "recipe.yaml").write_text(RECIPE.format(path=files(place / "data"), out=place / "run"))
    train(place / "recipe.yaml")
    return place


@pytest.fixture(scope="module")
def run(made: Path) -> Run:
    return open_run(made / "run")


def test_only_candidates_are_listed_and_the_hits_are_counted(run: Run) -> None:
    from rectune.run.judged import SHOWN
    from rectune.run.rankings import ranked

    found, offered, table = results(run.folder.path), run.rows.candidates, results(run.folder.path)["table"]
    assert offered is not None
    weight = float(found["prior_weight"]["weight"])
    for who, by, name in (
        ("untuned", 0.0, "untuned model"),
        ("tuned", 0.0, "tuned model"),
        ("tuned", weight, "tuned model + prior"),
    ):
        lists, _ = ranked(run, who, SHOWN, weight=by)
        for row, some in zip(lists.items, offered.lists(), strict=True):
            assert sorted(row.tolist()) == sorted(some)
        place = np.array([row.tolist().index(t) for row, t in zip(lists.items, run.rows.target, strict=True)])
        assert table[name]["hit ratio@1"][0] == pytest.approx((place == 0).mean())
        assert table[name]["hit ratio@3"][0] == pytest.approx((place < 3).mean())
        assert table[name]["mrr"][0] == pytest.approx((1 / (place + 1)).mean())
    assert found["by_chance"] == pytest.approx(0.2)
    assert found["candidates"] == [5, 5]
    tuned, best = found["tuned_against"], found["tuned_against"]["best_baseline"]
    assert tuned["differences"][best][0] == pytest.approx(
        table["tuned model"]["hit ratio@1"][0] - table[best]["hit ratio@1"][0]
    )


def test_seeds_are_summed_up(run: Run) -> None:
    data = json.loads((run.folder.path / "report.json").read_text())
    other = copy.deepcopy(data)
    other["results"]["table"]["tuned model"]["mrr"][0] += 0.2
    made = summarise([data, other], [{"seed": 0}, {"seed": 1}])
    (group,) = made.data["grid"]
    table, free = group["results"]["among candidates"], group["results"]["written freely"]
    mrr = data["results"]["table"]["tuned model"]["mrr"][0]
    assert table["tuned model"]["mrr"] == [pytest.approx(mrr + 0.1), pytest.approx(0.2 / np.sqrt(2))]
    assert free["tuned model"]["valid"] == [data["results"]["free"]["table"]["tuned model"]["valid"][0], 0.0]
    assert [one["tuned"] for one in group["each"]["among candidates"]] == [
        data["results"]["table"]["tuned model"]["hit ratio@1"]
    ] * 2
    assert made.text.count("Tuned minus the best baseline: seed 0") == 1  # nobody is judged by what is written freely
    assert "written freely" in made.text
    data["results"]["free"] = None
    assert list(summarise([data], [{"seed": 0}]).data["grid"][0]["results"]) == ["among candidates"]


def test_baselines_rank_the_candidates_alone(run: Run) -> None:
    from rectune.baselines.popularity import popularity

    split, offered = run.split, run.split.candidates(run.split.test)
    assert offered is not None
    scores = popularity(split).score(split.test)
    first = [
        sum(scores[i, item] >= scores[i, target] for item in some) == 1
        for i, (target, some) in enumerate(zip(split.targets(split.test), offered.lists(), strict=True))
    ]
    table = results(run.folder.path)["table"]
    assert table["popularity"]["hit ratio@1"][0] == pytest.approx(np.mean(first))
    assert table["prior alone"] != table["popularity"]


def test_the_rule_that_reads_no_history_finds_the_list_again(run: Run) -> None:
    split = run.split
    train, offered = split.candidates(split.train), split.candidates(split.test)
    assert train is not None
    assert offered is not None
    scores = met_in_training(split, train, offered).score(split.test)
    targets = split.targets(split.train)
    for i in (0, 7, 35):
        for item in range(split.log.n_items):
            shared = [
                len(set(own) & set(offered.lists()[i]) - {item})
                for own, t in zip(train.lists(), targets, strict=True)
                if t == item
            ]
            assert scores[i, item] == max(shared, default=0)
    assert "candidates met in training" in results(run.folder.path)["table"]


def test_settings_that_came_with_a_checkpoint_change_nothing_that_is_written(run: Run) -> None:
    ranker = run.models["tuned"]
    rows = run.rows.take(np.arange(4))
    before = ranker.write(rows, most=6)  # type: ignore[attr-defined]
    inherited = ranker.model.generation_config  # type: ignore[attr-defined]
    inherited.repetition_penalty, inherited.no_repeat_ngram_size = 20.0, 1
    assert ranker.write(rows, most=6) == before  # type: ignore[attr-defined]
    assert ranker.model.generation_config is inherited  # type: ignore[attr-defined]
    inherited.repetition_penalty, inherited.no_repeat_ngram_size = 1.0, 0


def test_runs_are_compared_where_they_choose_among_the_same(made: Path, tmp_path: Path, capsys: Any) -> None:
    recipe, few = str(made / "recipe.yaml"), ["--stages.0.max_steps", "2", "--eval.free_rows", "0"]
    other, plain = tmp_path / "other", tmp_path / "plain"
    assert main(["train", recipe, "--output_dir", str(other), *few, "--seed", "1", "--traceback"]) == 0
    whole = [
        "--tasks",
        "[{call: next_item, template: next-item.jinja}]",
        "--rank.template",
        "next-item.jinja",
        "--eval",
        "{call: ranking, k: [1, 3]}",
    ]
    whole += ["--stages", "[{call: sft, max_steps: 2, per_device_train_batch_size: 8, max_length: 400}]"]
    assert main(["train", recipe, "--output_dir", str(plain), *whole, "--traceback"]) == 0
    capsys.readouterr()
    assert main(["compare", str(made / "run"), str(other)]) == 0
    said = capsys.readouterr().out
    assert "seen items not hidden" in said
    assert "seen items hidden" not in said
    assert "answer different kinds of questions" in fails(capsys, "compare", str(made / "run"), str(plain))


def test_what_is_written_freely_is_what_the_model_generates(run: Run) -> None:
    from rectune.log.split import evenly

    free, ranker = results(run.folder.path)["free"], run.models["tuned"]
    which = evenly(len(run.rows), 7)
    (folder,) = (run.folder.path / "stages").glob("written-tuned-*")
    texts = json.loads((folder / "written.json").read_text())
    assert free["rows"] == len(texts) == 7
    assert ranker.room(100) == 412  # type: ignore[attr-defined]  # so that what is written has positions, too
    titles, hits, valid = run.log.items["title"].to_list(), [], []
    offered = run.rows.candidates
    assert offered is not None
    for i, text in zip(which, texts, strict=True):
        (prompt,) = ranker.prompts(run.rows, [int(i)])  # type: ignore[attr-defined]
        with torch.no_grad():
            out = ranker.model.generate(  # type: ignore[attr-defined]
                torch.tensor([prompt]),
                max_new_tokens=6,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=run.encoder.end_id,
            )
        assert run.encoder.tokenizer.decode(out[0, len(prompt) :], skip_special_tokens=True) == text
        inside = [titles[item] for item in offered.lists()[int(i)] if titles[item] in text]
        valid.append(len(inside) == 1)
        hits.append(inside == [titles[int(run.rows.target[int(i)])]])
    assert free["table"]["tuned model"]["valid"][0] == pytest.approx(np.mean(valid))
    assert free["table"]["tuned model"]["hit ratio@1"][0] == pytest.approx(np.mean(hits))


def test_whoever_asks_with_the_candidates_gets_the_lists_of_the_report(run: Run, tmp_path: Path, capsys: Any) -> None:
    from rectune.run.judged import SHOWN
    from rectune.run.rankings import ranked

    bundle = exported(run.folder.path, "--to", str(tmp_path / "bundle"))
    lists, _ = ranked(run, "tuned", SHOWN)
    ids = run.log.items["item_id"].to_list()
    asked = [[ids[item] for item in run.split.history(run.split.test, i)] for i in range(6)]
    offered = run.split.candidates(run.split.test)
    assert offered is not None
    candidates = [[ids[item] for item in some] for some in offered.lists()[:6]]
    for place in (run.folder.path, bundle):
        found = Recommender.from_pretrained(place, dtype="float32").recommend(
            asked, 5, candidates=candidates, hide_seen=False, prior_weight=0.0
        )
        assert [[item.item_id for item in row] for row in found] == [[ids[i] for i in row] for row in lists.items[:6]]
    how = {"repo": "anna/bands", "licence": "mit", "public_titles": True}
    card = planned(bundle, Pushing(**how))["card"]  # type: ignore[arg-type]
    assert "| 1 | " in card
    with pytest.raises(ValueError, match="`--space`: this model chooses among candidates"):
        planned(bundle, Pushing(**how, space=True))  # type: ignore[arg-type]
    text = (bundle / "README.md").read_text()
    assert "candidates=[" in text
    assert "rectune demo" not in text
    (tmp_path / "users.jsonl").write_text(
        json.dumps({"user": "a", "items": asked[0], "candidates": candidates[0]}) + "\n"
    )
    capsys.readouterr()
    assert main(["recommend", str(bundle), "--users", str(tmp_path / "users.jsonl"), "--k", "2"]) == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_a_report_says_what_it_is(run: Run) -> None:
    page = (run.folder.path / "report.html").read_text()
    assert "Choosing among candidates" in page
    assert "Written freely" in page
    said = json.loads((run.folder.path / "report.json").read_text())["said"]
    assert any("By chance the hit ratio is .2000 (5 candidates a row)." in line for line in said)


def test_without_candidates_one_line_says_what_to_give(run: Run, tmp_path: Path, capsys: Any) -> None:
    folder, ids = str(run.folder.path), run.log.items["item_id"].to_list()
    assert "this model chooses among candidates" in fails(capsys, "recommend", folder, "--items", ids[0])
    users, to = tmp_path / "users.jsonl", tmp_path / "lists"
    users.write_text(json.dumps({"user": "a", "items": ids[:2]}) + "\n")
    assert "Give `candidates`" in fails(capsys, "rank", folder, "--users", str(users), "--to", str(to))
    assert not to.exists()
    new = tmp_path / "new.csv"
    new.write_text("item_id,title\nx,New Band\n")
    users.write_text(json.dumps({"items": ids[:2], "target": "x"}) + "\n")
    assert "Leave `--rows` out" in fails(capsys, "index", "add", folder, str(new), "--rows", str(users))
    assert not (run.folder.path / "added").exists()
    recommender = Recommender.from_pretrained(run.folder.path)
    lists = recommender.recommend(ids[:2], 5, candidates=ids[4:8], allow=ids[5:7], hide_seen=False)
    wish = recommender.wish(ids[:2], 5, candidates=ids[4:8], allow=ids[5:7], hide_seen=False)  # as a server asks
    assert recommender.lists([wish]) == [lists]
    assert {item.item_id for item in lists} == set(ids[5:7])
    whole = recommender.recommend(ids[:2], 5, candidates=ids[4:8], hide_seen=False)
    said = {item.item_id: item.score for item in whole}
    for item in lists:  # what may be listed changes no score
        assert item.score == pytest.approx(said[item.item_id], abs=1e-4)
    ranker = recommender.bundle.ranker
    ranker.settings = replace(ranker.settings, max_length=20)  # type: ignore[attr-defined]
    with pytest.raises(
        ValueError, match="tokens of prompt without any history"
    ):  # told before it is asked, as a server has to
        recommender.wish(ids[:2], 5, candidates=ids)
    elsewhere = tmp_path / "lists.jsonl"
    elsewhere.write_text("")
    assert "does not rank the catalogue" in fails(capsys, "eval", folder, "--lists", str(elsewhere))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--eval", "{call: ranking, k: [1]}"], "`ranking` judges tasks of the kind `item`, but `choose_item` is of the kind `choice`"),
        (["--stages.1.negatives_each", "5"], "5 are to be rejected, and 4 candidates are left"),
        (["--stages.1", "{call: s_dpo, tasks: [{call: next_item, template: next-item.jinja}], negatives: candidates, max_steps: 1, max_length: 400}"],
         "task `next_item` offers no candidates to reject"),
        (["--stages.1", "{call: grpo, rewards: [hit], num_generations: 2, per_device_train_batch_size: 4, max_steps: 1, max_length: 400}"],
         "chooses among candidates, and groups are rolled out over the whole catalogue"),
        (["--eval.k", "[0]"], "a list holds at least 1 item"),
        (["--rank.beams", "4"], "rows offer up to 5 candidates, and 4 beams list so many at most. Raise it to 5."),
        (["--rank.max_length", "20"], "tokens of prompt without any history, but only 20 fit"),
        (["--stages.1.max_length", "30"], "tokens of prompt without any history"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(made: Path, tmp_path: Path, capsys: Any, more: list[str], said: str) -> None:
    assert said in fails(capsys, "train", str(made / "recipe.yaml"), "--output_dir", str(tmp_path / "run"), *more)
    assert not list(tmp_path.glob("run/stages/train*"))  # a second stage's fault is told before the first is trained


def test_candidates_that_tell_the_target_are_found(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rectune.run import leaks as looking

    what = "candidates of test rows that tell the target"
    assert {finding.what: finding.kind for finding in looking.leaks(run.folder.path)}[what] == "clean"
    split = run.split
    train, test = split.candidates(split.train), split.candidates(split.test)
    assert train is not None
    assert test is not None

    def by_the_target(self: Any, rows: Any) -> Ragged:
        """Four others that depend on the target alone, as in S-DPO's files."""
        return Ragged.of(
            [[int(t), *((int(t) + n * n) % split.log.n_items for n in range(1, 5))] for t in self.targets(rows)]
        )

    monkeypatch.setattr(type(split), "candidates", by_the_target)
    found = {finding.what: finding for finding in looking.leaks(run.folder.path)}[what]
    assert found.kind == "leak"
    known = sum(int(t) in set(split.targets(split.train).tolist()) for t in split.targets(split.test))
    assert f"the targets of {known} of these are the same" in found.told
