"""Measured results: pages are what the data says, and published rows are looked at before they are quoted."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from pathlib import Path

import pytest
import yaml

from benchmarks import published, results, results_page
from tests.runs import results as report_of


def test_pages_are_what_the_data_says() -> None:
    for file, text in results_page.pages().items():
        assert file.read_text(encoding="utf-8") == text, (
            f"{file.name} is out of date: python -m benchmarks.results pages"
        )


def test_every_line_of_the_overview_is_of_a_recipe_and_links_to_its_page() -> None:
    text = results.README.read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(results/([\w-]+)\.md\)", text))
    kept = {file.stem for file in results.FOLDER.glob("*.json")}
    assert kept <= linked
    for name in kept:
        assert (results.ROOT / "recipes" / f"{name}.yaml").exists()
        assert (results.FOLDER / f"{name}.md").exists()


def test_what_is_said_to_be_not_measured_has_no_figures() -> None:
    said = results.README.read_text(encoding="utf-8").partition("## Not measured yet")[2]
    named = set(re.findall(r"\]\(([\w-]+)\.yaml\)", said))
    assert named
    assert not named & {file.stem for file in results.FOLDER.glob("*.json")}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another place for results."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    monkeypatch.setattr(results, "PUBLISHED", tmp_path / "none.yaml")
    (tmp_path / "README.md").write_text(
        "".join(f"{results_page.BEGIN.format(kind)}\n{results_page.END}\n" for kind in results_page.KINDS)
    )
    return tmp_path / "results"


def test_a_report_becomes_a_page_without_a_place_of_this_machine(
    finished: tuple[Path, Path], tmp_path: Path, kept: Path
) -> None:
    run = shutil.copytree(finished[1], tmp_path / "run")
    report = json.loads((run / "report.json").read_text())
    for seed in (1, 0):
        report["settings"]["seed"] = seed
        (run / "report.json").write_text(json.dumps(report))
        assert results.add([run], "", "quickstart") == ["quickstart"]
    results.add([run], "in another way", "quickstart")
    entries = results.load("quickstart")
    assert [(entry["variant"], entry["seed"]) for entry in entries] == [("", 0), ("", 1), ("in another way", 0)]
    assert "--data.users 60" in entries[0]["command"]
    assert str(tmp_path) not in json.dumps(entries)
    assert str(finished[1].parent) not in json.dumps(entries)
    pages = results_page.pages()
    page, overview = pages[kept / "quickstart.md"], pages[results.README]
    tuned = report_of(run)["protocols"]["seen items hidden"]["tuned model"]["ndcg@5"]
    shown = f"{tuned[0]:.4f}".lstrip("0")
    assert f"{shown} ± .0000" in page  # over two seeds
    assert f"{shown} [" in page  # with its interval
    line = next(line for line in overview.splitlines() if "in another way" in line)
    assert f", {shown} |" in line
    assert "*worse*" in line or "*better*" in line or "*not shown to differ*" in line
    results.add([run], "in another way", "quickstart")
    assert len(results.load("quickstart")) == 3
    assert "\n## in another way\n" in page
    report["settings"]["data"]["sparsity"] = 0.5
    (run / "report.json").write_text(json.dumps(report))
    results.add([run], "in another way", "quickstart")
    pages = results_page.pages()  # cells of one variant are told apart by what differs between them
    told = re.findall(r"^## (in another way.*)$", pages[kept / "quickstart.md"], re.M)
    assert sorted(told) == ["in another way", "in another way, data.sparsity 0.5"]
    assert ", in another way, sparsity 0.5 |" in pages[results.README]
    report["settings"]["vectors"], report["settings"]["split"] = None, {**report["settings"]["split"], "shots": 3}
    assert results.entry_of(report, "", "quickstart")["changed"]["vectors"] is None
    report["settings"]["index"] = None  # a section that was left out is told as such, not key by key
    changed = results.entry_of(report, "", "quickstart")["changed"]
    assert changed["index"] is None
    assert not [key for key in changed if key.startswith("index.")]
    for against in report["results"]["tuned_against"].values():
        against["metric"] = "ndcg@50"  # would stand under the heading of @10
    with pytest.raises(
        ValueError, match=r"judged by ndcg@50, and the tables hold lists of 10. Report it once more: `rectune eval RUN"
    ):
        results.entry_of(report, "", "quickstart")


def test_over_several_seeds_the_best_row_is_that_of_the_mean_and_the_verdict_of_all(kept: Path) -> None:
    entries = [
        {
            "variant": "", "seed": seed, "changed": {}, "kind": "likes", "data": "rows", "device": "cpu", "minutes": {}, "transcribed": True,
            "table": {"steady": {"auc": 0.7}, "lucky": {"auc": lucky}, "tuned model": {"auc": 0.6}, "untuned model": {"auc": 0.9}},
            "tuned_against": {
                "metric": "auc", "best_baseline": best,
                "differences": {"steady": [-0.1, -0.2, high], "lucky": [0.6 - lucky, -0.3, -0.1], "untuned model": [-0.3, -0.4, -0.2]},
            },
        }
        for seed, lucky, best, high in ((0, 0.71, "lucky", -0.05), (1, 0.3, "steady", 0.01))
    ]  # fmt: skip
    kept.mkdir()
    (kept / "one.json").write_text(json.dumps(entries))
    line = results_page.overview("likes", {}).splitlines()[-1]
    assert "| .6000 | steady: .7000 | -.1000 [-.2000, -.0500] | 0, 1 | – | *not shown to differ* |" in line
    entries[1]["tuned_against"]["differences"]["steady"][2] = -0.01
    (kept / "one.json").write_text(json.dumps(entries))
    assert "*worse*" in results_page.overview("likes", {})


def test_a_figure_that_was_published_by_another_protocol_stands_beside_ours_by_that_one() -> None:
    line = next(
        line for line in results.README.read_text(encoding="utf-8").splitlines() if "[tiger-beauty-cpu](r" in line
    )
    assert "ours by that protocol .0554, .0281" in line
    assert ".0554, .0281" in (results.FOLDER / "tiger-beauty-cpu.md").read_text(encoding="utf-8")


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="has no part between"):
        results_page.replaced("nothing", "items", "made")


def test_rows_that_contradict_themselves_are_known() -> None:
    told = yaml.safe_load(published.FILE.read_text(encoding="utf-8"))
    assert set(published.checked(told)) == set(told["known"])


def test_what_is_impossible_is_found() -> None:
    assert published.contradictions([3, 5], [0.1, 0.09], [0.08, 0.08])  # recall falls
    assert published.contradictions([3, 5, 10], [0.1024, 0.1213, 0.15], [0.0991, 0.0989, 0.1082])  # NDCG falls
    assert published.contradictions([10], [0.05], [0.06])  # NDCG above recall
    assert published.contradictions([10], [0.05], [0.01])  # as if all hits stood below the tenth place
    assert published.contradictions([1], [0.05], [0.04])  # the two are one at 1


def test_what_was_measured_is_never_called_impossible() -> None:
    draw = random.Random(0)
    for _ in range(200):
        places = [draw.randrange(40) for _ in range(draw.choice([7, 300]))]
        lengths = sorted(draw.sample(range(1, 41), 3))
        recall = [round(sum(p < k for p in places) / len(places), 4) for k in lengths]
        ndcg = [round(sum(1 / math.log2(p + 2) for p in places if p < k) / len(places), 4) for k in lengths]
        assert published.contradictions(lengths, recall, ndcg) == []
