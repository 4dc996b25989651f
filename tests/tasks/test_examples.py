"""Examples: cut to length from the oldest, mixed by share, the same for whoever asks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune.indexing.titles import titles
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.recipe.load import bundled
from rectune.tasks.examples import Mixture, TaskSpec, fit
from rectune.tasks.index_to_item import index_to_item
from rectune.tasks.item_to_index import item_to_index
from rectune.tasks.next_item import next_item

TEMPLATES = bundled("templates")[0]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(train_tokenizer(["Apple Bread Cheese Dates Egg"], 300), ())


def specs(log: Any, share: float = 1.0) -> list[TaskSpec]:
    split = leave_one_out(log)
    index = titles(split)
    return [
        TaskSpec("next_item", partial(next_item, split, index), load_template(TEMPLATES / "next-item.jinja")),
        TaskSpec(
            "item_to_index",
            partial(item_to_index, split, index),
            load_template(TEMPLATES / "item-to-index.jinja"),
            share,
        ),
    ]


def mixture(
    log: Any, encoder: Encoder, *, share: float = 1.0, max_length: int | None = None, on_all: bool = False
) -> Mixture:
    return Mixture(specs(log, share), "train", encoder, seed=0, max_length=max_length, loss_on_all=on_all)


def test_the_loss_is_on_the_completion_and_its_end(tiny_log: Any, encoder: Encoder) -> None:
    made = mixture(tiny_log, encoder)
    for position in range(len(made)):
        row = made.features([position], 0)[0]
        trained = [t for t, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert trained == [label for label in row["labels"] if label != -100]
        spec, rows, i = made.locate(position, 0)
        variables = rows.variables(i)
        target = variables["target"] if spec.name == "next_item" else variables["item"]
        assert encoder.tokenizer.decode(trained) == f" {target['name']}<|end|>"


def test_the_loss_can_be_on_all(tiny_log: Any, encoder: Encoder) -> None:
    row = mixture(tiny_log, encoder, on_all=True).features([0], 0)[0]
    assert row["labels"] == row["input_ids"]


def test_the_oldest_history_goes_first_and_the_target_never(tiny_log: Any, encoder: Encoder) -> None:
    template = load_template(TEMPLATES / "next-item.jinja")
    names = ["Apple", "Bread", "Cheese", "Dates", "Egg"] * 3
    variables = {"history": [{"name": n} for n in names], "target": {"name": "Egg"}}
    whole = fit(encoder, template, 1, variables, max_length=None, what="row")
    limit = len(whole.prompt) + len(whole.completion) - 1
    cut = fit(encoder, template, 1, variables, max_length=limit, what="row")
    assert 0 < cut.dropped < len(names)
    assert len(cut.prompt) + len(cut.completion) <= limit
    assert cut.completion == whole.completion
    text = encoder.tokenizer.decode(cut.prompt)
    assert text.endswith(", ".join(names[cut.dropped :]) + "\nNext item:")


def test_what_cannot_fit_is_an_error_not_a_dropped_example(tiny_log: Any, encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"task `item_to_index`, row \d+: \d+ tokens of prompt without any history"):
        mixture(tiny_log, encoder, max_length=12).example(4, 0)


def test_a_share_draws_that_many_rows_anew_each_epoch(small_shop: Any, encoder: Encoder) -> None:
    made = mixture(small_shop, encoder, share=0.25)
    targets = len(made.tasks[0][1])
    assert len(made) == targets + round(0.25 * small_shop.n_items)
    drawn = [{made.locate(p, epoch)[2] for p in range(targets, len(made))} for epoch in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert len(drawn[0]) == len(made) - targets


def test_a_share_above_one_repeats_whole_rounds(tiny_log: Any, encoder: Encoder) -> None:
    made = mixture(tiny_log, encoder, share=2.4)
    counts = np.bincount([made.locate(p, 0)[2] for p in range(3, len(made))])
    assert counts.sum() == 12
    assert set(counts) == {2, 3}


def test_any_row_can_be_rendered_again_alone(small_shop: Any, encoder: Encoder) -> None:
    one, other = mixture(small_shop, encoder), mixture(small_shop, encoder)
    forward = [one.example(p, 1) for p in range(20)]
    assert forward == [other.example(p, 1) for p in reversed(range(20))][::-1]
    assert forward != [one.example(p, 0) for p in range(20)]


def test_titles_with_nasty_texts_render_in_every_task(tmp_path: Path, encoder: Encoder) -> None:
    import polars as pl

    from rectune.log.cleaning import make_log

    nasty = ["<|end|>", "<a_12>", "{{ 7*7 }}", "y" * 5000, "🙂", "مرحبا", "two\nlines", ""]
    items = pl.DataFrame({"item_id": [str(i) for i in range(len(nasty))], "title": nasty})
    events = pl.DataFrame({"user": ["u"] * len(nasty), "item": items["item_id"]})
    with pytest.warns(UserWarning, match="empty title"):
        log = make_log(events, items, source="nasty")
    split = leave_one_out(log)
    index = titles(split)
    ends = {}
    for task, name in ((next_item, "next-item"), (item_to_index, "item-to-index"), (index_to_item, "index-to-item")):
        spec = TaskSpec(name, partial(task, split, index), load_template(TEMPLATES / f"{name}.jinja"))
        made = Mixture([spec], "train", encoder, seed=0, max_length=None, loss_on_all=False)
        for position in range(len(made)):
            ids = made.features([position], 0)[0]["input_ids"]
            ends[name, position] = [i for i in ids if i in encoder.tokenizer.added_tokens_decoder]
            assert "49" not in encoder.tokenizer.decode(ids)
    start, end = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
    assert set(map(tuple, ends.values())) == {(start, end)}


def test_a_given_history_is_as_long_as_what_the_model_was_tuned_on(tiny_log: Any) -> None:
    from rectune.tasks.asked_histories import outside_of

    split = leave_one_out(tiny_log, max_history=2)
    rows = outside_of(split).split([[0, 1, 2, 3], []])
    assert [rows.history(rows.test, i).tolist() for i in range(2)] == [[2, 3], []]
    assert rows.seen(rows.test, 0).tolist() == [0, 1, 2, 3]
