"""What a next-item report says and shows is what its report.json holds, figure by figure and sentence by sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rectune.eval.ranking import ranking

from rectune.run.judged import HIDDEN, SHOWN, Report
from tests.eval import golden
from tests.eval.tables import Page, bars, console_table, shown, shown_interval

HEAD = ["", "recall@1", "recall@3", "ndcg@1", "ndcg@3", "mrr@3", "coverage@3", "novelty@3", "tuned minus it, ndcg@3"]
# The tuned model's lists of a run that is no better and no worse than the prior: second, second, first, second, second,
# second, missed, second, so 1 + 6 x .63093 = 4.78558 over 8 users are .598197, and .598197 - .549099 = .049099
LIKE_THE_PRIOR = "cdef aefd fce dbf dfe dfe cef fe"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return ranking(golden.evidence(tmp_path_factory.mktemp("golden")), k=[3, 1], oracle="tests.eval.golden:oracle")


@pytest.fixture(scope="module")
def page(made: Report) -> Page:
    return Page(made.page)


def value_of(figure: Any) -> float:
    return float(figure[0] if isinstance(figure, tuple) else figure)


def expected_rows(made: Report, protocol: str) -> list[list[str]]:
    """The cells of a table, from report.json."""
    table = made.data["results"]["protocols"][protocol]
    differences = made.data["results"]["tuned_against"][protocol]["differences"]
    return [
        [name, *(shown(value_of(figure)) for figure in entry.values()), shown_interval(differences[name], sign=True) if name in differences else ""]
        for name, entry in table.items()
    ]  # fmt: skip


@pytest.mark.parametrize("protocol", [HIDDEN, SHOWN])
def test_the_console_shows_the_figures_of_the_json(made: Report, protocol: str) -> None:
    head, rows = console_table(made.text, protocol)
    assert head == HEAD
    assert rows == expected_rows(made, protocol)


@pytest.mark.parametrize(("table", "protocol"), [(0, HIDDEN), (1, SHOWN)])
def test_the_page_shows_the_figures_of_the_json(made: Report, page: Page, table: int, protocol: str) -> None:
    assert made.page.index(f"<h2>Full ranking, {HIDDEN}</h2>") < made.page.index(f"<h2>Full ranking, {SHOWN}</h2>")
    head, *rows = page.cells(table)
    assert head == HEAD
    assert rows == expected_rows(made, protocol)
    for row, entry in zip(page.tables[table][1:], made.data["results"]["protocols"][protocol].values(), strict=True):
        hovers = [title for _, title in row[1:-1]]
        assert hovers == [
            f"95 % interval {shown(figure[1])} to {shown(figure[2])}" if isinstance(figure, tuple) else ""
            for figure in entry.values()
        ]


def test_rows_by_hand_in_console_and_page(made: Report, page: Page) -> None:
    """Figures as in `test_golden_report`, as they are printed."""
    for rows in (console_table(made.text, HIDDEN)[1], page.cells(0)[1:]):
        (untuned,) = [row for row in rows if row[0] == "untuned model"]
        assert untuned[:-1] == ["untuned model", ".1250", ".5000", ".1250", ".3616", ".3125", ".8333", "4.3958"]
        assert untuned[-1].startswith("+.4211 [+.")
        (tuned,) = [row for row in rows if row[0] == "tuned model"]
        assert tuned == ["tuned model", ".6250", ".8750", ".6250", ".7827", ".7500", "1.0000", "4.2500", ""]
        (oracle,) = [row for row in rows if row[0] == "oracle"]
        assert oracle[-1].startswith("-.0923 [-.")


def spread(made: Report, key: str, protocol: str, part: str = "differences") -> tuple[str, str]:
    """Low and high of the difference to the prior, as they are printed; `test_golden_report` has them by hand."""
    _, low, high = made.data["results"][key][protocol][part]["prior alone"]
    return shown(low, sign=True), shown(high, sign=True)


def test_the_sentences_of_the_console_by_hand(made: Report) -> None:
    lines = made.text.split("\n")
    after = lines[max(i for i, line in enumerate(lines) if line.startswith("tuned model + prior")) + 1 :]
    low, high = spread(made, "tuned_against", HIDDEN)
    worst, best = spread(made, "mixed_against", HIDDEN)
    least, most = spread(made, "mixed_against", HIDDEN, "recall_differences")
    cost = made.data["results"]["shuffled_history"]["cost"]
    assert lines[0] == "fruit: 8 users, 6 items, 42 events; 8 test rows, full ranking, 4 beams, scores: full"
    assert after == [
        f"The tuned model is better than the best baseline (prior alone): +.2336 ndcg@3, 95 % interval {low} to {high}.",
        f"The tuned model with the prior is worse than the best baseline (prior alone): -.2827 ndcg@3, 95 % interval {worst} to {best}.",
        f"By recall the difference is -.2500 [{least}, {most}].",
        "Prior's weight 20, by NDCG@10 on validation (0: .1250, 20: .2500).",
        "It is the largest weight tried; a larger one may be better (`rank.prior.weight`).",
        "The tuned model goes 77% of the way from popularity to the oracle.",
        f"Shuffling the history costs .2500 [{shown(cost[1])}, {shown(cost[2])}] ndcg@3 on 4 rows.",
        "Over 2 wordings of the prompt, on the same sample: recall@10 .6250 (lowest .5000, highest .7500), ndcg@10 .3750 (lowest .2500, highest .5000).",
        "75.0% of the tuned model's lists are proven to be its exact top 4.",
        "Took: training, stage 0 12 s; ranking, tuned 3 s.",
    ]


def test_the_sentences_of_the_page_by_hand(made: Report, page: Page) -> None:
    low, high = spread(made, "tuned_against", HIDDEN)
    under, over = spread(made, "tuned_against", SHOWN)
    console = made.text.split("\n")
    mixed = [
        line
        for line in console
        if re.match("The tuned model with the prior|By recall|Prior's weight|It is the largest", line)
    ]
    worded = [line for line in console if line.startswith("Over 2 wordings")]
    (costs,) = [line for line in console if line.startswith("Shuffling the history")]
    assert len(mixed) == 4
    assert page.paragraphs[0] == "8 users, 6 items, 42 events; 8 test rows. Seed 3, cpu, 2026-01-01."
    assert page.paragraphs[1:5] == [
        f"Tuned minus the best baseline (prior alone), ndcg@3: +.2336, 95 % interval {low} to {high} (better).",
        f"Tuned minus the best baseline (prior alone), ndcg@3: -.0461, 95 % interval {under} to {over} (not shown to differ).",
        *worded,
        " ".join(mixed),
    ]  # fmt: skip
    notes = page.paragraphs[5]
    assert "1 test targets stand in their user's history and cannot be hit with seen items hidden." in notes
    assert "Proven to be the exact top 4: 75.0 % of the tuned model's lists, 50.0 % of the untuned model's" in notes
    assert "Lists shorter than searched: 6 tuned, 7 untuned." in notes
    assert "The tuned model goes 77% of the way from popularity to the oracle." in notes
    assert notes.endswith(costs)


def test_the_bars_are_the_breakdowns(page: Page) -> None:
    """Colours of the best baseline, the untuned and the tuned model; heights as shares of the highest bar, here 1."""
    length, popularity = page.figures["Recall by history length"], page.figures["Recall by target popularity"]
    assert bars(length) == {
        "#8aa4c8": pytest.approx([1 / 2, 1, 1, 2 / 3], abs=1e-4),
        "#b9bec7": pytest.approx([0, 1, 1 / 2, 2 / 3], abs=1e-4),
        "#d1603d": pytest.approx([1, 1, 1, 2 / 3], abs=1e-4),
    }
    assert bars(popularity) == {
        "#8aa4c8": pytest.approx([4 / 5, 2 / 3], abs=1e-4),
        "#b9bec7": pytest.approx([4 / 5, 0], abs=1e-4),
        "#d1603d": pytest.approx([1, 2 / 3], abs=1e-4),
    }
    for svg, groups, label in (
        (length, ["2–2", "3–3", "4–5", "6–7"], "events before the target"),
        (popularity, ["0–0", "1–15"], "training events of the target"),
    ):
        texts = re.findall(r">([^<>]*)</text>", svg)
        assert [text for text in texts if "–" in text] == groups
        assert label in texts
        assert texts[-3:] == ["prior alone", "untuned model", "tuned model"]


@pytest.mark.parametrize(
    ("lists", "said", "word"),
    [
        (golden.LISTS["tuned", HIDDEN], "better than the best baseline (prior alone): +.2336", "better"),
        (golden.LISTS["mixed", HIDDEN], "worse than the best baseline (prior alone): -.2827", "worse"),
        (LIKE_THE_PRIOR, "not shown to differ from the best baseline (prior alone): +.0491", "not shown to differ"),
    ],
)
def test_each_verdict_in_console_and_page(tmp_path: Path, lists: str, said: str, word: str) -> None:
    made = ranking(golden.evidence(tmp_path, tuned=lists), k=[3])
    assert f"\nThe tuned model is {said} ndcg@3, 95 % interval " in made.text
    paragraph = Page(made.page).paragraphs[1]
    assert paragraph.startswith(f"Tuned minus the best baseline (prior alone), ndcg@3: {said[-6:]}, 95 % interval")
    assert paragraph.endswith(f"({word}).")


def test_the_page_marks_the_target_where_it_stands_though_a_tie_counts_against_it(tmp_path: Path) -> None:
    made = ranking(golden.evidence(tmp_path, mixed="ced adf ce dfb de def cef e=f"), k=[3], examples=8)
    assert Page(made.page).hits == ["3. Dates", "3. Bread", "3. Fig", "1. Egg"]
    assert "</small> Egg <small>(place 2)</small>" in made.page
    assert "</small> Egg</div>" in made.page  # u1's target is not listed, so it has no place


def test_what_a_stage_did_stands_in_console_and_page(tmp_path: Path) -> None:
    own = golden.evidence(tmp_path)
    before = {"step": 0, "eval_ndcg@10": 0.5, "eval_coverage@10": 0.5}
    kept = [
        {"step": 8, "eval_ndcg@10": 0.4, "eval_coverage@10": 0.5},
        {"step": 8, "eval_ndcg@10": 0.6, "eval_coverage@10": 0.2},
    ]
    recipe = replace(own.recipe, settings={**own.recipe.settings, "stages": [{"call": "sft"}, {"call": "grpo"}]})
    made = ranking(
        replace(own, training=[[before, kept[0]], [before, kept[1]]], audits=own.audits * 2, recipe=recipe), k=[3]
    )  # fmt: skip
    for said in (
        "Stage 0 made nothing better: on validation rows ndcg@10 was .5000 before its first step and is .4000 with the weights that it kept.",
        "Stage 1 bought the top of its lists: on validation rows ndcg@10 rose from .5000 to .6000 while coverage@10 fell from .5000 to .2000.",
    ):
        assert f"\n{said}\n" in made.text
        assert said in Page(made.page).paragraphs
