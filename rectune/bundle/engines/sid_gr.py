"""NVIDIA's sid-gr-inference: JSON lines of items and their token paths."""

from __future__ import annotations

import json

from rectune.bundle.catalogue import Catalogue, Written

OWN = ("item_id", "name", "tokens")


def sid_gr(catalogue: Catalogue) -> Written:
    """Write `catalog.jsonl`: `item_id`, `token_ids` and `metadata` a line.

    Source: NVIDIA/recsys-examples, examples/sid-gr-inference, `gr_runtime/item_constraints.py` (43465ae): ids and paths are unique, and no path is empty. The
    engine allows the end token behind a whole path itself and cuts what it wrote there, so a path does not hold it.
    """
    lines = [
        {
            "item_id": item["item_id"],
            "token_ids": ids,
            "metadata": {key: value for key, value in item.items() if key not in OWN},
        }
        for item, ids in zip(catalogue.items, catalogue.names, strict=True)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    end = "" if catalogue.end is None else f" --catalog-eos-token-id {catalogue.end}"
    use = f"--catalog-jsonl catalog.jsonl{end}, {catalogue.longest} decode steps"
    return Written("catalog.jsonl", text.encode(), use)
