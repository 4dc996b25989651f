"""Random numbers that depend on what they are for alone, so that a prompt draws the same items in any batch, part and process."""

from __future__ import annotations

import torch

_GAMMA, _FIRST, _SECOND = (x - 2**64 for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def uniform(seeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Numbers between 0 and 1, neither included, float64 (B, …): of each the seed of its row, int64 (B,), and its place, int64 (B, …), from 0.

    Numbers of a row at different places, and of rows with different seeds, are independent. Source: SplitMix64 (Steele, Lea and Flood, 2014,
    "Fast splittable pseudorandom number generators"): of the generator that a seed begins, the number at that place.
    """
    begin = _mixed(seeds.view(-1, *[1] * (places.dim() - 1)))
    return (
        _right(_mixed(begin + (places + 1) * _GAMMA), 12).double() + 0.5
    ) * 2.0**-52  # exact: with a bit more it may round to 1


def gumbel(seeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The same by the standard Gumbel distribution."""
    return -torch.log(-torch.log(uniform(seeds, places)))


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    bits = (bits ^ _right(bits, 30)) * _FIRST
    bits = (bits ^ _right(bits, 27)) * _SECOND
    return bits ^ _right(bits, 31)


def _right(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Shifted as a number without sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
