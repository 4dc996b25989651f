"""The ranker: memory that runs out, shards that stay, shelves, and the trie from codes alone."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rectune.decoding.batching
from rectune.decoding.answers import answer_log_probabilities, choice_probabilities
from rectune.decoding.batching import Batches
from rectune.decoding.engine import AnswerEngine, Engine
from rectune.decoding.language_model import LanguageModelRanker, RankSettings, catalogue_trie
from rectune.decoding.shelf import Shelf
from rectune.decoding.trie import build_trie
from rectune.indexing.item_index import from_levels
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import codes_value, load_template
from rectune.tasks.rows import TaskRows

NAMES = '{% set wordings = 1 %}{% set end = false %}{% macro prompt(wording, history) %}{% for i in history %}{{ i.name }}{% endfor %}{% endmacro %}{% macro completion(wording, target) %}{{ target.name }}{% endmacro %}'  # fmt: skip
LEVELS = np.array([[i % 5, i // 5] for i in range(20)], dtype=np.int32)


def named(item: int) -> dict[str, Any]:
    """What a template sees of an item that has a name and nothing else."""
    return {"name": codes_value([int(c) for c in from_levels(LEVELS).codes[item]])}


@pytest.fixture
def ranker(checkpoints: dict[str, Path], tmp_path: Path) -> LanguageModelRanker:
    """A tiny model over 20 items with names of two codes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rectune.model.new_tokens import add_tokens

    index = from_levels(LEVELS)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["untied"])
    add_tokens(tokenizer, index.vocabulary)
    model = AutoModelForCausalLM.from_pretrained(checkpoints["untied"]).eval()
    torch.manual_seed(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    (tmp_path / "names.jinja").write_text(NAMES)
    template, encoder = load_template(tmp_path / "names.jinja"), Encoder(tokenizer, index.vocabulary, form="plain")
    trie = catalogue_trie(encoder, template, 0, named, index)
    settings = RankSettings(template="names.jinja", beams=4, k=3, scores="catalogue", batch_tokens=200)
    return LanguageModelRanker(model, encoder, template, settings, trie, progress=False)


def rows_of(count: int) -> TaskRows:
    index = from_levels(LEVELS)

    def variables(i: int) -> dict[str, Any]:
        items = [(i * 3 + n) % 20 for n in range(1 + i % 4)]
        return {"history": [{"name": codes_value([int(c) for c in index.codes[item]])} for item in items]}

    return TaskRows(np.arange(count), variables, "item", np.zeros(count, dtype=np.int64))


def test_a_trie_from_codes_alone_is_the_trie_of_rendered_names(ranker: LanguageModelRanker) -> None:
    index = from_levels(LEVELS)
    names = [
        ranker.encoder.completion_ids(
            ranker.template.completion(0, {"target": {"name": codes_value([int(c) for c in index.codes[i]])}}),
            end=False,
        )
        for i in range(20)
    ]
    rendered = build_trie(names, fixed_length=True)
    assert ranker.trie is not None
    for name in ("codes", "first", "items"):
        assert np.array_equal(getattr(ranker.trie, name), getattr(rendered, name))


def test_when_memory_runs_out_the_batch_is_halved_and_lists_stay(
    ranker: LanguageModelRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ranker.rank(rows_of(40))
    plain, sizes = Engine.search, []

    def tight(self: Engine, prompts: Any, *, beams: int, **rest: Any) -> Any:
        if len(prompts) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        sizes.append((len(prompts), beams))
        return plain(self, prompts, beams=beams, **rest)

    monkeypatch.setattr(Engine, "search", tight)
    with pytest.warns(UserWarning, match="ranking goes on with `rank") as told:
        again = ranker.rank(rows_of(40))
    assert np.array_equal(again.items, whole.items)
    assert {beams for _, beams in sizes} == {4}
    assert max(size for size, _ in sizes) <= 3
    assert len(told) < 6  # what was learnt holds for later batches
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ranker.rank(rows_of(2))


def test_a_conditional_template_is_not_taken_for_codes_alone(ranker: LanguageModelRanker, tmp_path: Path) -> None:
    (tmp_path / "odd.jinja").write_text(NAMES.replace("{% set end = false %}", "").replace("{{ target.name }}", "{{ target.name }}{% if target.brand is defined %} by {{ target.brand }}{% endif %}"))  # fmt: skip
    template, index = load_template(tmp_path / "odd.jinja"), from_levels(LEVELS)

    trie = catalogue_trie(ranker.encoder, template, 0, lambda item: {**named(item), "brand": f"B{item}"}, index)
    name = ranker.encoder.completion_ids(template.completion(0, {"target": {**named(3), "brand": "B3"}}), end=True)
    assert trie.depth > 2
    assert int(trie.item_of(np.array(trie.walk(name)))) == 3


def test_answers_that_share_a_long_history_are_regrouped_when_memory_runs_out(
    ranker: LanguageModelRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"name": codes_value([0, 5])}] * 30

    def variables(i: int) -> dict[str, Any]:
        last = {"name": codes_value([i % 5, 5 + i % 4])}
        return {"history": [*history, last], "target": {"name": codes_value([1])}}

    answers = ({"target": {"name": codes_value([1])}}, {"target": {"name": codes_value([2])}})
    rows = TaskRows(np.arange(20), variables, "answer", np.zeros(20, dtype=np.int64), answers)
    whole, plain = ranker.answer(rows), AnswerEngine.score

    def tight(self: AnswerEngine, groups: Any) -> Any:
        if sum(map(len, groups)) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(self, groups)

    monkeypatch.setattr(AnswerEngine, "score", tight)
    with pytest.warns(UserWarning, match="ranking goes on with `rank"):
        again = ranker.answer(rows)
    np.testing.assert_allclose(again, whole, atol=1e-6)


NUMBERS = NAMES.replace("{{ target.name }}", "{{ rating }}").replace("macro completion(wording, target)", "macro completion(wording, rating)")  # fmt: skip


def test_an_answer_that_begins_another_is_scored_with_its_end(ranker: LanguageModelRanker, tmp_path: Path) -> None:
    texts = ("12", "123")
    rows = replace(rows_of(3), kind="answer", answers=tuple({"rating": text} for text in texts))
    (tmp_path / "numbers.jinja").write_text(NUMBERS)
    template = load_template(tmp_path / "numbers.jinja")
    ids = [ranker.encoder.completion_ids(template.completion(0, {"rating": text}), end=False) for text in texts]
    assert ids[1][: len(ids[0])] == ids[0]
    with pytest.raises(ValueError, match="one is the beginning of another, so their chances can't be compared"):
        replace(ranker, template=template, trie=None).answer(rows)

    (tmp_path / "numbers.jinja").write_text(NUMBERS.replace("{% set end = false %}", ""))
    ended = replace(ranker, template=load_template(tmp_path / "numbers.jinja"), trie=None)
    prompts, end = ended.prompts(rows, range(3)), ended.encoder.end_id
    logp = answer_log_probabilities(ended.model, prompts, [[*one, end] for one in ids], pad=ended._pad)
    np.testing.assert_allclose(ended.answer(rows), choice_probabilities(logp), atol=1e-6)


def test_one_row_that_does_not_fit_is_an_error_and_other_errors_are_not_caught() -> None:
    def fail(batch: list[int]) -> None:
        raise MemoryError

    with pytest.raises(MemoryError, match="shorten prompts with"):
        list(Batches(100).each([5], fail, most=10))

    def broken(batch: list[int]) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(Batches(100).each([5, 5], broken, most=10))


def test_batches_hold_like_lengths_within_the_budget() -> None:
    lengths = [9, 2, 5, 30, 3, 2, 8]
    done = list(Batches(20).each(lengths, lambda batch: len(batch), most=3))
    assert sorted(i for batch, _ in done for i in batch) == list(range(7))
    for batch, size in done:
        assert size <= 3
        assert size == 1 or size * max(lengths[i] for i in batch) <= 20


def test_finished_shards_are_not_ranked_again(
    ranker: LanguageModelRanker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rectune.decoding.batching, "CHUNK", 8)
    monkeypatch.setattr("rectune.decoding.language_model.CHUNK", 8)
    shards = tmp_path / "shards"
    shards.mkdir()
    whole = ranker.rank(rows_of(20), shards=shards)
    files = sorted(shards.iterdir())
    assert [f.name for f in files] == [f"rows-{n:06d}.parquet" for n in range(3)]
    files[1].unlink()
    ranked = []
    plain = LanguageModelRanker._rank_chunk

    def watched(self: Any, rows: Any, chunk: Any, *rest: Any) -> Any:
        ranked.append(chunk.tolist())
        return plain(self, rows, chunk, *rest)

    monkeypatch.setattr(LanguageModelRanker, "_rank_chunk", watched)
    again = ranker.rank(rows_of(20), shards=shards)
    assert ranked == [list(range(8, 16))]
    assert np.array_equal(again.items, whole.items)
    assert np.array_equal(again.scores, whole.scores)


def test_a_shelf_says_what_may_be_listed(ranker: LanguageModelRanker) -> None:
    allowed = np.arange(20) < 3
    found = ranker.rank(rows_of(3), Shelf(allowed=allowed, hidden=[[0], [], [0, 1, 2]], only=[[0, 1], [2], [5]]))
    assert [sorted(i for i in row if i >= 0) for row in found.items.tolist()] == [[1], [2], []]
    assert found.lengths.tolist() == [1, 1, 0]
    assert found.exact.all()
    with pytest.raises(ValueError, match="no item may be listed"):
        ranker.rank(rows_of(3), Shelf(allowed=np.zeros(20, dtype=bool)))


def test_a_history_longer_than_the_context_loses_its_oldest_items(ranker: LanguageModelRanker) -> None:
    ranker.model.config.max_position_embeddings = 12
    index = from_levels(LEVELS)
    items = [n % 20 for n in range(30)]
    history = [{"name": codes_value([int(c) for c in index.codes[i]])} for i in items]
    rows = TaskRows(np.arange(1), lambda i: {"history": history}, "item", np.zeros(1, dtype=np.int64))
    (prompt,) = ranker.prompts(rows, [0])
    assert len(prompt) <= 12 - 2
    assert prompt[-4:] == [t for i in items[-2:] for t in (ranker.encoder.code_ids[c] for c in index.codes[i])]
    assert (ranker.rank(rows).items >= 0).all()
