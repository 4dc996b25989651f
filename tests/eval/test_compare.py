"""Finished runs beside each other: the figures of their own reports, paired on the same rows, or a refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rectune.eval.compare import compare

from rectune.cli import main
from rectune.run.judged import HIDDEN, SHOWN
from tests.runs import results, stages, train
from tests.test_cli import fails


def figures(rows: list[dict[str, Any]], run: str, model: str) -> dict[str, Any]:
    return next(row for row in rows if (row["run"], row["model"]) == (run, model))


@pytest.fixture(scope="module")
def two(finished: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run, and the same recipe with another learning rate and longer histories."""
    place = tmp_path_factory.mktemp("two")
    run = shutil.copytree(finished[1], place / "run")
    assert main(["eval", str(run), "--eval.k", "[10]"]) == 0
    more = ["--stages.0.learning_rate", "3e-3", "--split.max_history", "11", "--eval.k", "[10]"]
    train(finished[0], *more, "--output_dir", str(place / "other"))
    return run, place / "other"


def test_figures_are_those_of_the_reports_and_differences_are_paired(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = [stages(run) for run in two]
    data, text = compare(two)
    assert [stages(run) for run in two] == before
    assert list(data["runs"]) == ["run", "other"]
    assert data["rows"] == 60
    for protocol in (HIDDEN, SHOWN):
        rows, table = data["tables"][protocol], [results(run)["protocols"][protocol] for run in two]
        for run, own in zip(("run", "other"), table, strict=True):
            for model in ("untuned model", "tuned model"):
                found = figures(rows, run, model)["figures"]
                for metric in ("recall@10", "ndcg@10"):
                    assert found[metric] == pytest.approx(own[model][metric])
        ours, theirs = (figures(rows, run, "tuned model") for run in ("run", "other"))
        assert ours["differences"] == {}
        for metric, apart in theirs["differences"].items():
            value, low, high = apart["difference"]
            assert value == pytest.approx(theirs["figures"][metric][0] - ours["figures"][metric][0])
            assert low <= value <= high
            wide = [f["figures"][metric][2] - f["figures"][metric][1] for f in (ours, theirs)]
            assert high - low < sum(wide)
    assert "minus run, ndcg@10" in text
    assert "tuned model of other is" in text
    capsys.readouterr()
    assert main(["compare", *map(str, two), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 60


def test_a_copy_does_not_differ(two: tuple[Path, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(two[0], tmp_path / "copy")
    data, text = compare([two[0], copy])
    for rows in data["tables"].values():
        for model in ("untuned model", "tuned model"):
            for apart in figures(rows, "copy", model)["differences"].values():
                assert apart == {"difference": (0.0, 0.0, 0.0), "word": "not shown to differ"}
    assert "is not shown to differ from that of run: +.0000 ndcg@10" in text


def test_lists_are_compared_at_the_length_that_is_asked(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data, _ = compare(two, k=3)
    for rows in data["tables"].values():
        assert list(rows[0]["figures"]) == ["recall@3", "ndcg@3"]
    ten = figures(compare(two)[0]["tables"][HIDDEN], "run", "tuned model")["figures"]
    three = figures(data["tables"][HIDDEN], "run", "tuned model")["figures"]
    assert three["recall@3"][0] < ten["recall@10"][0]
    for k in ("11", "0"):
        said = fails(capsys, "compare", *map(str, two), "--k", k)
        assert (
            f"`--k`: got {k}, and the lists of `run` have 10 items. For longer ones: rectune eval RUN --rank.beams"
            in said
        )


def test_answers_are_compared_by_auc(rated_recipe: Path, tmp_path: Path) -> None:
    for name, rate in (("slow", "1e-4"), ("fast", "1e-2")):
        train(rated_recipe, "--data.path", str(tmp_path / "log.csv"), "--data.items_path", str(tmp_path / "items.csv"),
              "--stages.0.learning_rate", rate, "--output_dir", str(tmp_path / name))  # fmt: skip
    data, _ = compare([tmp_path / "slow", tmp_path / "fast"])
    (rows,) = data["tables"].values()
    for run in ("slow", "fast"):
        own = results(tmp_path / run)["table"]["tuned model"]
        assert figures(rows, run, "tuned model")["figures"]["auc"][0] == pytest.approx(own["auc"][0])
    assert figures(rows, "fast", "untuned model")["differences"]["auc"]["difference"] == (0.0, 0.0, 0.0)


def test_what_cannot_be_compared_is_refused(
    two: tuple[Path, Path],
    finished: tuple[Path, Path],
    tmp_path: Path,
    rated_recipe: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*folders: Path) -> str:
        capsys.readouterr()
        assert main(["compare", *map(str, folders)]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    train(finished[0], "--seed", "1", "--output_dir", str(tmp_path / "seed"))
    assert "have other test rows, so their figures cannot be compared: 60 and 60 rows" in refused(
        two[0], tmp_path / "seed"
    )
    train(rated_recipe, "--data.path", str(tmp_path / "log.csv"), "--data.items_path", str(tmp_path / "items.csv"),
          "--output_dir", str(tmp_path / "rated"))  # fmt: skip
    assert "answer different kinds of questions" in refused(two[0], tmp_path / "rated")
    assert "give at least two run folders" in refused(two[0])
    assert "is named twice" in refused(two[0], two[0])
    assert "has no report. Run `rectune train`" in refused(two[0], tmp_path / "nowhere")
