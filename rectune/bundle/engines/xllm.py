"""xLLM: a binary vocabulary of items of three tokens."""

from __future__ import annotations

import struct

from rectune.bundle.catalogue import Catalogue, Written

TOKENS = 3
RECORD = struct.Struct("<q3i")  # as a little-endian machine holds them


def xllm(catalogue: Catalogue) -> Written:
    """Write `items.vocab`: for each item an int64, its number, and three int32, the token ids of its name.

    Source: jd-opensource/xllm, `core/framework/state_dict/rec_vocab_dict.cpp` (87e8d6e), without `enable_extended_item_info`. Items are numbers there: ids that are
    whole numbers stay, else an item's number is its line in `items.jsonl`, from 0. Raises ValueError for names of another length.
    """
    other = next((i for i, ids in enumerate(catalogue.names) if len(ids) != TOKENS), None)
    if other is not None:
        raise ValueError(
            f"xLLM needs names of exactly three tokens, and item `{catalogue.items[other]['item_id']}` has {len(catalogue.names[other])}. Set "
            "`index.levels: 3`; where names are told apart by a level of their own, also `index.repair: reassign`."
        )
    ids = [item["item_id"] for item in catalogue.items]
    kept = all(is_number(item_id) for item_id in ids)
    numbers = map(int, ids) if kept else range(len(ids))
    held = b"".join(RECORD.pack(number, *name) for number, name in zip(numbers, catalogue.names, strict=True))
    said = "item ids" if kept else "the lines of items.jsonl, from 0"
    use = f"`vocab_file` of tokenizer_config.json: items.vocab, --enable_constrained_decoding; items are {said}"
    return Written("items.vocab", held, use)


def is_number(item_id: str) -> bool:
    """Whether an id is an int64 written in the one way that gives it back."""
    if not item_id.removeprefix("-").isascii() or not item_id.removeprefix("-").isdigit() or len(item_id) > 20:
        return False
    return str(int(item_id)) == item_id and -(2**63) <= int(item_id) < 2**63
