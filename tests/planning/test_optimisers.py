"""What optimisers keep, counted by hand."""

from __future__ import annotations

import pytest
import torch

from rectune.planning.optimisers import optimiser_bytes

MATRIX, VECTOR = torch.empty(100, 200), torch.empty(256, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "kept", "made"),
    [
        ("adamw_torch_fused", 2 * (20_000 * 4 + 256 * 2), 0),
        ("adamw_torch", 2 * (20_000 * 4 + 256 * 2), 2 * 80_000),
        # 20,000 values: two bytes each and two scales for each of 79 blocks of 256; the small vector in 32 bits
        ("adamw_8bit", 40_000 + 79 * 8 + 256 * 8, 0),
        ("paged_adamw_8bit", 40_000 + 79 * 8 + 256 * 8, 0),
        ("adafactor", 4 * (100 + 200) + 4 * 256, 8 * 20_000),
        ("sgd", 0, 0),
    ],
)
def test_bytes_of_an_optimiser(name: str, kept: int, made: int) -> None:
    assert optimiser_bytes(name, [MATRIX, VECTOR]) == (kept, made)


@pytest.mark.parametrize("name", ["adamw_torch", "adafactor"])
def test_the_library_keeps_as_much(name: str) -> None:
    from transformers import Adafactor

    parameter = torch.nn.Parameter(torch.ones(100, 200))
    parameter.grad = torch.ones_like(parameter)
    kind = torch.optim.AdamW([parameter]) if name == "adamw_torch" else Adafactor([parameter])
    kind.step()
    state = [v for v in kind.state[parameter].values() if isinstance(v, torch.Tensor) and v.numel() > 1]
    assert sum(v.numel() * v.element_size() for v in state) == optimiser_bytes(name, [parameter])[0]


def test_an_unknown_optimiser_is_named() -> None:
    with pytest.raises(ValueError, match="what `muon` keeps in memory is not known"):
        optimiser_bytes("muon", [MATRIX])
