"""Random choices that depend on named things only, so that any of them can be made again alone."""

from __future__ import annotations

import hashlib

import numpy as np


def hashed(*parts: object) -> int:
    """A whole number of 64 bits that depends on `parts` only."""
    return int.from_bytes(hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def seeded(*parts: object) -> np.random.Generator:
    """A random generator that depends on `parts` only."""
    return np.random.default_rng(hashed(*parts))
