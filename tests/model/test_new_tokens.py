"""New tokens: their ids are free, in every kind of vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from rectune.indexing.item_index import ItemIndex, from_levels
from rectune.model.load import build_base, load_base, load_tokenizer
from rectune.model.new_tokens import add_tokens, new_token_ids, rows_needed
from tests.model.test_model import settings_of
from tests.prompts.families import FAMILIES, unigram

INDEX: ItemIndex = from_levels(np.array([[i % 3, i // 3] for i in range(9)], dtype=np.int32))


def with_gaps(tokenizer: Any, *, move: dict[str, int]) -> Any:
    """The same tokenizer, some of its pieces on other ids."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"].update(move)
    special = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **special)


def scratch(**move: int) -> Any:
    return with_gaps(FAMILIES["made from scratch by a recipe"](), move=move)


def added_far(base: Any) -> Any:
    """An added token a few ids above the others."""
    raw = base.backend_tokenizer
    state = json.loads(raw.to_str())
    far = {"id": raw.get_vocab_size() + 7, "content": "<|far|>", "single_word": False, "lstrip": False, "rstrip": False}
    state["added_tokens"].append({**far, "normalized": False, "special": True})
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token=base.eos_token)


GAPS = {
    "a gap at the end": lambda: scratch(z=500),
    "gaps within": lambda: scratch(z=430, q=431, j=440),
    "one id far above": lambda: scratch(z=5000),
    "words": lambda: PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"</s>": 0, "tea": 3, "pot": 9}, unk_token="</s>")),
        eos_token="</s>",
    ),
    "an added token far above": lambda: added_far(FAMILIES["byte-level BPE, GPT-2"]()),
    "a unigram and an added token far above": lambda: added_far(unigram(old=False)),
    "none": lambda: scratch(),
}


@pytest.mark.parametrize("what", GAPS)
def test_new_tokens_take_no_id_that_is_taken(what: str, tmp_path: Path) -> None:
    tokenizer = GAPS[what]()
    before, said = dict(tokenizer.get_vocab()), tokenizer("tea pot jazz quiz")["input_ids"]
    add_tokens(tokenizer, INDEX.vocabulary)
    ids = new_token_ids(tokenizer, INDEX)
    assert len(set(ids)) == len(INDEX.vocabulary)
    assert not set(ids) & set(before.values())
    tokenizer.save_pretrained(tmp_path)
    for made in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert new_token_ids(made, INDEX) == ids
        assert {token: made.get_vocab()[token] for token in before} == before
        assert made("tea pot jazz quiz")["input_ids"] == said
        assert made.decode(ids, skip_special_tokens=False).replace(" ", "") == "".join(INDEX.vocabulary)
        assert rows_needed(made) == max(*ids, *before.values()) + 1


@pytest.mark.parametrize("name", FAMILIES)
def test_new_tokens_of_every_family_keep_their_ids(name: str, tmp_path: Path) -> None:
    tokenizer = FAMILIES[name]()
    used = set(tokenizer.get_vocab().values())
    add_tokens(tokenizer, INDEX.vocabulary)
    tokenizer.save_pretrained(tmp_path)
    ids = new_token_ids(AutoTokenizer.from_pretrained(tmp_path), INDEX)
    assert ids == new_token_ids(tokenizer, INDEX)
    assert not set(ids) & used


def test_a_base_with_gaps_keeps_its_rows_and_has_one_for_every_new_token(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    folder, base = tmp_path / "checkpoint", tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(checkpoints["untied"]).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["untied"])
    rows = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    with_gaps(tokenizer, move={"z": len(rows) - 1}).save_pretrained(folder)
    settings = settings_of(folder, use_peft=False, dtype="float32")
    base.mkdir()
    build_base(settings, INDEX, [], base, seed=0)
    model = load_base(settings, base, INDEX, seed=0)
    ids = new_token_ids(load_tokenizer(base), INDEX)
    assert min(ids) >= len(rows)
    assert torch.equal(model.get_input_embeddings().weight[: len(rows)], rows)
    assert len(model.get_input_embeddings().weight) == max(ids) + 1


def test_a_token_that_is_there_already_is_refused() -> None:
    tokenizer = scratch()
    tokenizer.add_tokens([AddedToken("<a_1>")])
    with pytest.raises(ValueError, match=r"already has the token '<a_1>'"):
        add_tokens(tokenizer, INDEX.vocabulary)
