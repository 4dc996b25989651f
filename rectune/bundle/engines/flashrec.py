"""FlashRec: a JSON object whose keys are names as codes."""

from __future__ import annotations

import json

import numpy as np

from rectune.bundle.catalogue import Catalogue, Written
from rectune.indexing.item_index import SID_BEGIN, level_letter

BOUNDARY = 4  # levels: FlashRec takes the fourth code of a name for its end token


def flashrec(catalogue: Catalogue) -> Written:
    """Write `catalog.json`, {"3,0,7": 1, …}, a key an item.

    Source: sohu-mptc/FlashRec, `python/flashrec/sid_layout.py` (41f12b0) and `catalog.py` (853bebd). Codes count from 0 on each level. The engine finds tokens by
    their names in the tokenizer: all of `<s_a_0>` … of the first level, then those of the second, and so on, then `<|sid_begin|>` and `<|sid_end|>`, ids
    without a gap. Values are not read. Raises ValueError for an index without `complete`, and for one of four levels.
    """
    index = catalogue.index
    levels = index.codes.shape[1]
    if SID_BEGIN not in index.vocabulary:
        raise ValueError(
            "FlashRec needs a token for every code of every level, and a begin and an end behind them. Set `index.complete: true` (residual_kmeans, "
            "balanced_kmeans, rq_vae, letter), and train again."
        )
    if levels == BOUNDARY:
        raise ValueError(
            "FlashRec takes the fourth code of a name for its end token, and this index has four levels. Set `index.levels: 3`; where names are told "
            "apart by a level of their own, also `index.repair: reassign`."
        )
    ids = [catalogue.tokenizer.token_to_id(token) for token in index.vocabulary]
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise ValueError("FlashRec needs the tokens of an index one behind another; this tokenizer holds them apart.")
    if [np.array(ids)[codes].tolist() for codes in index.codes] != catalogue.names:
        raise ValueError(
            "FlashRec writes names and nothing else, but this model's template says more. Use a template whose completion is the name alone."
        )
    starts = [index.vocabulary.index(f"<s_{level_letter(level)}_0>") for level in range(levels)]
    names = [",".join(map(str, codes)) for codes in (index.codes - np.array(starts)).tolist()]
    text = json.dumps(dict.fromkeys(names, 1))
    return Written("catalog.json", text.encode(), f"--sid-vocab-file catalog.json --max-tokens {levels}")
