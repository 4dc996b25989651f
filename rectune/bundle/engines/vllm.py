"""vLLM: the names as the choices of a structured output."""

from __future__ import annotations

import json

from rectune.bundle.catalogue import Catalogue, Written


def vllm(catalogue: Catalogue) -> Written:
    """Write `choices.json`, a list of names.

    Source: vllm-project/vllm, `ChoiceTrie` of its main branch and pull request 35022. A choice is encoded behind a line break, whose ids are taken off, and gets an
    end token in the trie. Beams are cut to the most probable tokens before the choices are looked at, so many are lost. Raises ValueError for names that are
    read as other ids.
    """
    text = json.dumps(catalogue.texts(before="\n"), ensure_ascii=False)
    use = f"structured_outputs choice=<the list in choices.json>, max_tokens {catalogue.longest}"
    return Written("choices.json", text.encode(), use)
