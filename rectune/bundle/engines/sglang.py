"""SGLang's fork with a trie: a name a line."""

from __future__ import annotations

from rectune.bundle.catalogue import Catalogue, Written


def sglang(catalogue: Catalogue) -> Written:
    """Write `catalog.txt`, a name a line.

    Source: cswuyg/sglang, `docs/beam_search/beam_search_guide.md` sec. 2.2 and `srt/managers/prefix_constrained_trie.py` (9380595); no trie is known of in SGLang
    itself. Each line is stripped and encoded without special tokens; the engine allows its end token behind a whole name. Raises ValueError for names that
    are read as other ids.
    """
    text = "".join(f"{name}\n" for name in catalogue.texts())
    use = f"--beam-search-constraint-dict catalog.txt, max_new_tokens {catalogue.longest}"
    return Written("catalog.txt", text.encode(), use)
