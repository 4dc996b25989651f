"""What the page shows of a history: lists side by side with marks of agreement, and answers as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from rectune.bundle.recommender import Opinion, Recommendation, Recommender

BOTH = "✓"
STYLE = """
.rt-lists { display: flex; flex-wrap: wrap; gap: 1rem; }
.rt-list { flex: 1 1 15rem; min-width: 0; }
.rt-list ol { padding-left: 1.6rem; margin: .3rem 0; }
.rt-list li { overflow-wrap: anywhere; margin: .15rem 0; }
.rt-score { opacity: .65; font-size: .85em; font-variant-numeric: tabular-nums; }
.rt-agree { font-weight: 600; }
.rt-bar { display: grid; grid-template-columns: 4rem 1fr 4rem; gap: .5rem; align-items: center; margin: .2rem 0; }
.rt-bar div { height: .9rem; background: currentColor; opacity: .6; }
"""


def lists_of(
    recommender: Recommender, history: Sequence[str], k: int, weight: float | None
) -> dict[str, list[Recommendation]]:
    """The lists after a history: of the model, and where there is a prior, of the prior and of both with this weight."""
    past = list(history)
    if recommender.bundle.prior is None:
        return {"Model": recommender.recommend(past, k)}
    return {
        "Model": recommender.recommend(past, k, prior_weight=0),
        "Prior": recommender.prior_list(past, k),
        "Model + prior": recommender.recommend(past, k, prior_weight=weight),
    }


def lists_html(lists: Mapping[str, Sequence[Recommendation]]) -> str:
    """Lists side by side; an item that stands in every one is marked."""
    held = [{item.item_id for item in listed} for listed in lists.values()]
    agreed = set.intersection(*held) if len(held) > 1 else set()
    columns = []
    for name, listed in lists.items():
        rows = "".join(_row(item, item.item_id in agreed) for item in listed)
        proven = (
            " · proven to be its exact best"
            if listed and name != "Prior" and all(item.proven for item in listed)
            else ""
        )
        columns.append(
            f'<section class="rt-list" aria-label="{escape(name)}"><h3>{escape(name)}</h3><ol>{rows}</ol><small>{len(listed)} items{proven}</small></section>'
        )
    mark = f"<p><small>{BOTH} stands in every list: {len(agreed)} items.</small></p>" if len(held) > 1 else ""
    return f'<div class="rt-lists">{"".join(columns)}</div>{mark}'


def _row(item: Recommendation, agreed: bool) -> str:
    mark = f'<span title="in every list">{BOTH}</span> ' if agreed else ""
    title = f"<span{' class=rt-agree' if agreed else ''}>{escape(item.title)}</span>"
    return f'<li data-item="{escape(item.item_id, quote=True)}">{mark}{title} <span class="rt-score">{item.score:.3f}</span></li>'


def opinion_html(opinion: Opinion, *, rates: bool) -> str:
    """The chance of each answer as a bar, and what it comes to."""
    said = f"expected rating {opinion.score:.2f}" if rates else f"Yes with {opinion.score:.1%}"
    bars = "".join(
        f'<div class="rt-bar"><span>{escape(answer)}</span><div style="width:{100 * chance:.1f}%"></div><span>{chance:.1%}</span></div>'
        for answer, chance in opinion.chances.items()
    )
    return f"<h3>{escape(opinion.title)}: {said}</h3>{bars}"
