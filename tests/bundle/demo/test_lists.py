"""What the page shows, without the page: agreement, escaping, answers."""

from __future__ import annotations

from rectune.bundle.demo.lists import lists_html, opinion_html
from rectune.bundle.recommender import Opinion, Recommendation


def item(name: str, title: str = "Tea", *, proven: bool = False) -> Recommendation:
    return Recommendation(name, title, -1.25, proven)


def test_items_that_stand_in_every_list_are_marked() -> None:
    text = lists_html(
        {"Model": [item("a"), item("b")], "Prior": [item("b"), item("c")], "Model + prior": [item("b"), item("a")]}
    )
    assert text.count("✓") == 4  # one a list, and the line that explains it
    assert "stands in every list: 1 items" in text
    assert text.index("Model") < text.index("Prior") < text.index("Model + prior")
    assert "✓" not in lists_html({"Model": [item("a")]})


def test_titles_are_text() -> None:
    text = lists_html({"Model": [item('"><img src=x onerror=alert(1)>', "<script>alert(1)</script> & co")]})
    assert "<script>" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text


def test_a_proven_list_says_so() -> None:
    assert "proven to be its exact best" in lists_html({"Model": [item("a", proven=True)]})
    assert "proven" not in lists_html({"Model": [item("a", proven=True), item("b")]})
    assert "0 items" in lists_html({"Model": []})


def test_answers_are_bars() -> None:
    likes = opinion_html(Opinion("p1", "A & B", 0.75, {"No": 0.25, "Yes": 0.75}), rates=False)
    assert "A &amp; B: Yes with 75.0%" in likes
    assert "width:25.0%" in likes
    rates = opinion_html(Opinion("p1", "A", 3.456, {"1": 0.5, "5": 0.5}), rates=True)
    assert "expected rating 3.46" in rates
