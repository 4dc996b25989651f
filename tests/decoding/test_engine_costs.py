"""What a search costs: tokens, forced codes, waits for the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.decoding.models import (
    IDS,
    PROMPTS,
    engine_of,
)


def test_tokens_are_the_prompt_and_the_codes_of_beams(model: Any) -> None:
    names = [[10 + a, 30 + b, 50 + c] for a in range(8) for b in range(8) for c in range(2)]
    for scores in ("full", "catalogue"):
        engine = engine_of(model, names, scores)
        engine.search([PROMPTS[0]], beams=6)
        counts = engine.counts
        assert (counts.prompt, counts.codes, counts.padding, counts.passes) == (5, 2 * 6, 0, 3)


def test_forced_codes_cost_nothing_in_catalogue_scores(model: Any) -> None:
    names = [[10 + a, 30, 50 + a] for a in range(8)]  # the first code says it all
    costs = {}
    for scores in ("full", "catalogue"):
        engine = engine_of(model, names, scores)
        engine.search([PROMPTS[0]], beams=4)
        costs[scores] = engine.counts.codes
    assert costs == {"full": 2 * 4, "catalogue": 0}


@pytest.mark.parametrize("scores", ["full", "catalogue"])
def test_waits_for_the_device_are_per_step_not_per_beam_or_row(
    model: Any, scores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(model, IDS, scores)
    waits = [0]
    for name in ("tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__"):
        plain = getattr(torch.Tensor, name)

        def counted(*args: Any, plain: Any = plain, **kwargs: Any) -> Any:
            waits[0] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    seen = set()
    for rows, beams in ((1, 2), (1, 20), (4, 2), (4, 20)):
        waits[0] = 0
        engine.search([[40, 41, 42]] * rows, beams=beams)
        seen.add(waits[0])
    assert len(seen) == 1
    assert seen.pop() <= 2 * engine._trie.depth + 8
