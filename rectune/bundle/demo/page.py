"""`rectune demo`: a page on which one types a history and sees what is recommended."""

from __future__ import annotations

import html
import os
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from rectune.bundle.demo.lists import STYLE, lists_html, lists_of, opinion_html
from rectune.bundle.recommender import Recommender

MOST_CHOICES = 3_000  # titles that the page is given whole; of more, those that match what is typed
SHOWN = 50
FONTS = ["system-ui", "sans-serif"]  # the theme's own fonts would be fetched
Past = list[tuple[str, Any]]  # item id and, for a model that answers, what the user thought of it


def page(recommender: Recommender) -> gr.Blocks:
    """The page of a recommender."""
    if recommender.bundle.chooses:
        raise ValueError(
            f"{recommender.bundle.recipe}: this model chooses among candidates, and the page asks for none. Use `rectune recommend --users FILE`."
        )
    lists = recommender.kind == "item"
    with gr.Blocks(title=f"rectune: {recommender.bundle.recipe}", analytics_enabled=False) as blocks:
        gr.Markdown(
            f"# {recommender.bundle.recipe}\n{recommender.items.height:,} items. Type a title, choose it, and see what comes next."
        )
        with gr.Tab("Recommend" if lists else "Ask"):
            (_lists if lists else _answers)(recommender)
        if recommender.bundle.report is not None:
            with gr.Tab("Report"):
                gr.HTML(_report(recommender.bundle.report))
    return blocks


def launch(recommender: Recommender, *, host: str, port: int, block: bool = True) -> str:
    """Show the page; returns where. With `block` it stays until it is stopped."""
    _, url, _ = page(recommender).launch(
        server_name=host, server_port=port or None, share=False, inbrowser=False, quiet=True, ssr_mode=False, prevent_thread_lock=True,
        theme=gr.themes.Default(font=FONTS, font_mono=["monospace"]), css=STYLE, footer_links=[],
    )  # fmt: skip
    if block:
        print(f"the page is at {url}", flush=True)
        threading.Event().wait()
    return str(url)


# ------------------------------------------------------------------------------------------------------------- the parts


def _chooser(recommender: Recommender, label: str, elem_id: str) -> gr.Dropdown:
    """A field that completes titles."""
    whole = recommender.items.height <= MOST_CHOICES
    field = gr.Dropdown(
        choices=_choices(recommender, "", MOST_CHOICES if whole else SHOWN),
        value=None,
        label=label,
        filterable=True,
        interactive=True,
        elem_id=elem_id,
        num_choices_shown=SHOWN,
    )
    if not whole:

        def matching(typed: gr.KeyUpData) -> Any:
            return gr.update(choices=_choices(recommender, typed.input_value, SHOWN))

        field.key_up(matching, None, field, show_progress="hidden")
    return field


def _choices(recommender: Recommender, text: str, most: int) -> list[tuple[str, str]]:
    return [(item["title"], item["item_id"]) for item in recommender.search_items(text, most)]


def _history(recommender: Recommender, opinions: list[Any]) -> gr.State:
    """The field, and below it the history: each item can be moved, judged where there are `opinions`, and removed."""
    titles = dict(recommender.items.select("item_id", "title").iter_rows())
    past = gr.State([])
    field = _chooser(recommender, "Add an item to the history", "add-item")
    first = opinions[-1] if opinions else None

    def added(item: str | None, held: Past) -> tuple[Past, None]:
        return ([*held, (item, first)] if item is not None and item in titles else held), None

    field.input(added, [field, past], [past, field], show_progress="hidden")

    @gr.render(inputs=[past], show_progress="hidden")
    def shown(held: Past) -> None:
        if not held:
            gr.Markdown("*The history is empty: what follows is for somebody unknown.*")
        for at, (item, opinion) in enumerate(held):
            with gr.Row(equal_height=True):
                gr.Markdown(f"{at + 1}. {html.escape(titles[item])}", min_width=160)
                if opinions:
                    choice = gr.Radio(
                        opinions, value=opinion, interactive=True, show_label=False, container=False, min_width=160
                    )
                    choice.input(_judged(held, at), choice, past, show_progress="hidden")
                for sign, where in (("Up", at - 1), ("Down", at + 1), ("Remove", None)):
                    button = gr.Button(
                        sign,
                        size="sm",
                        min_width=40,
                        scale=0,
                        interactive=where is None or 0 <= where < len(held),
                        elem_classes=["rt-move"],
                    )
                    button.click(_moved(held, at, where), None, past, show_progress="hidden")
        if held:
            gr.Button("Empty the history", size="sm", elem_id="empty").click(list, None, past, show_progress="hidden")

    return past


def _judged(held: Past, at: int) -> Any:
    """The history with another opinion of an entry."""
    return lambda opinion: [*held[:at], (held[at][0], opinion), *held[at + 1 :]]


def _moved(held: Past, at: int, where: int | None) -> Any:
    """The history with an entry elsewhere, or without it."""
    rest = [*held[:at], *held[at + 1 :]]
    return lambda: rest if where is None else [*rest[:where], held[at], *rest[where:]]


def _lists(recommender: Recommender) -> None:
    past = _history(recommender, [])
    most = min(20, recommender.max_k)
    with gr.Row():
        k = gr.Slider(1, most, min(10, most), step=1, label="Items in a list")
        own = recommender.bundle.prior_weight
        weight = gr.Slider(
            0,
            max(4 * own, 10.0),
            own,
            label="Weight of the prior",
            visible=recommender.bundle.prior is not None,
            elem_id="weight",
        )
    button = gr.Button("Recommend", variant="primary", elem_id="recommend")
    out = gr.HTML(elem_id="lists")

    def recommended(held: Past, k: float, weight: float) -> str:
        return lists_html(lists_of(recommender, [item for item, _ in held], int(k), float(weight)))

    gr.on(
        [past.change, k.release, weight.release, k.change, weight.change],
        recommended,
        [past, k, weight],
        out,
        trigger_mode="always_last",
        show_progress="minimal",
    )
    button.click(recommended, [past, k, weight], out)


def _answers(recommender: Recommender) -> None:
    ratings = recommender.bundle.outside.ratings
    asked = recommender.bundle.rows(recommender.bundle.outside.split([[]]))
    rates = bool(asked.values)
    opinions = [f"{value:g}" for value in ratings] if rates else ["dislike", "like"]
    past = _history(recommender, opinions)
    target = _chooser(recommender, "What would they think of", "target")
    button = gr.Button("Ask", variant="primary", elem_id="ask")
    out = gr.HTML(elem_id="answer")

    def said(held: Past, item: str | None) -> str:
        if item is None:
            return "<p>Choose an item to ask about.</p>"
        history = [(name, float(opinion) if rates else opinion == "like") for name, opinion in held]
        return opinion_html(recommender.score(history, item), rates=rates)

    gr.on([past.change, target.change], said, [past, target], out, trigger_mode="always_last", show_progress="minimal")
    button.click(said, [past, target], out)


def _report(file: Path) -> str:
    """The report in a frame of its own, without scripts."""
    text = html.escape(file.read_text(encoding="utf-8"), quote=True)
    return f'<iframe title="report" sandbox="" srcdoc="{text}" style="width:100%;height:80vh;border:0"></iframe>'
