"""Cards by name and by size."""

from __future__ import annotations

import pytest

from rectune.planning.cards import CARDS, card_named


@pytest.mark.parametrize(
    ("text", "memory"),
    [("24GB", 24 * 2**30), ("7.5 gb", 7.5 * 2**30), ("16G", 16 * 2**30), ("RTX 4090", 24 * 2**30), ("nvidia geforce rtx4090", 24 * 2**30), ("a100-80gb", 80 * 2**30)],
)  # fmt: skip
def test_a_card_by_size_or_name(text: str, memory: float) -> None:
    assert card_named(text).memory == memory


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("24", "`--gpu 24` has no unit. Type `--gpu 24GB`"),
        ("big", "neither a size such as 24GB nor a known card. Known: RTX 3080"),
        ("RTX 4091", "Did you mean RTX 4090"),
        ("A100", "Did you mean A100 40GB or A100 80GB?"),
        ("0GB", "must be above 0"),
        ("", "neither a size"),
    ],
)
def test_what_is_no_card_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="--gpu") as caught:
        card_named(text)
    assert message in str(caught.value)


def test_every_card_has_its_figures_and_their_source() -> None:
    for card in CARDS:
        assert min(card.rate or 0, card.bandwidth or 0) > 1e10
        assert card.source
        assert 8 * 2**30 <= card.memory <= 192 * 2**30
