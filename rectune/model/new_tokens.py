"""Tokenizers made from scratch, and the tokens of an item index in a tokenizer and a model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch

from rectune.indexing.item_index import ItemIndex
from rectune.prompts.encoder import Encoder

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer trained on `texts`; any text can be encoded, `<|start|>` goes before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, raw.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, bos_token=START, eos_token=END)


def add_tokens(tokenizer: Any, vocabulary: Sequence[str]) -> None:
    """Add the index vocabulary to a tokenizer, above every id that it has. Raises ValueError for a token that it already has."""
    from transformers import AddedToken

    taken = set(vocabulary) & set(tokenizer.get_vocab())
    if taken:
        raise ValueError(
            f"the tokenizer already has the token {sorted(taken)[0]!r} of the item index; use another base or index."
        )
    used = set(tokenizer.get_vocab().values())
    if vocabulary and len(used) <= max(used):
        _fill_gaps(tokenizer, set(range(max(used))) - used)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in vocabulary])
    new = tokenizer.convert_tokens_to_ids(list(vocabulary))
    if len(set(new) - used) < len(vocabulary):
        token = next(token for token, number in zip(vocabulary, new, strict=True) if number in used)
        raise ValueError(
            f"the tokenizer puts the new token {token!r} on an id that is taken, as its ids have gaps. Use another base, or an index "
            "without new tokens (`titles`)."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _fill_gaps(tokenizer: Any, gaps: set[int]) -> None:
    """Name the ids that a vocabulary leaves out: the library gives the next token the number of those before it, which is taken
    where there are gaps. No text is encoded to a filler."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict):  # a Unigram's is a list and has none
        vocabulary.update({f"<|no token {number}|>": number for number in sorted(gaps)})
        tokenizer.backend_tokenizer.model = Tokenizer.from_str(json.dumps({**state, "added_tokens": []})).model


def rows_needed(tokenizer: Any) -> int:
    """How many rows an embedding matrix needs: one more than the highest id."""
    return 1 + max(int(number) for number in tokenizer.get_vocab().values())


def new_token_ids(tokenizer: Any, index: ItemIndex) -> list[int]:
    """Ids of the index vocabulary in the tokenizer, in the order of the vocabulary."""
    return list(tokenizer.convert_tokens_to_ids(list(index.vocabulary))) if index.vocabulary else []


def tied(model: Any) -> bool:
    """Whether input and output embeddings are one matrix."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


@torch.no_grad()
def start_new_tokens(model: Any, tokenizer: Any, index: ItemIndex, *, seed: int, kept: Collection[int] = ()) -> None:
    """Set each new row to the mean of the words it stands for, or to the mean of all old rows plus a little noise. `kept`: ids of the
    index's tokens that the model knows already; their rows stay."""
    every = new_token_ids(tokenizer, index)
    new = [i for i, number in enumerate(every) if number not in set(kept)]
    ids = [every[i] for i in new]
    if not ids:
        return
    encoder = Encoder(tokenizer, index.vocabulary, form="plain")
    meanings = [index.meanings[i] if index.meanings else "" for i in new]
    words = [encoder.text_ids(meaning)[:64] if meaning else [] for meaning in meanings]
    rows = rows_needed(tokenizer)
    old = torch.ones(rows, dtype=torch.bool)
    old[ids] = False
    matrices = [model.get_input_embeddings().weight]
    matrices += [] if tied(model) else [model.get_output_embeddings().weight]
    for matrix in matrices:
        known = matrix[:rows][old.to(matrix.device)].float()
        noise = torch.randn((len(ids), matrix.shape[1]), generator=torch.Generator().manual_seed(seed))
        begin = known.mean(0) + 0.1 * known.std(0) * noise.to(matrix.device)
        for i, word in enumerate(words):
            if word:
                begin[i] = matrix[word].float().mean(0)
        matrix[ids] = begin.to(matrix.dtype)
