"""Fewer training rows, drawn by lot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rectune.log.split import Split
from rectune.runtime.near import shown


def few_shots(split: Split, shots: int, seed: int) -> Split:
    """The same split with `shots` training rows, drawn at random; with one seed the smaller sets lie in the larger ones.

    Index and baselines see only the events of those rows. Raises ValueError when there are fewer.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise ValueError(f"`split.shots` must be a whole number from 1 on, or null for all rows; got {shown(shots)}.")
    if shots > len(split.train):
        raise ValueError(
            f"`split.shots` is {shots}, but there are {len(split.train)} training rows. Lower it, or give null for all of them."
        )
    kept = np.sort(np.random.default_rng(seed).permutation(len(split.train))[:shots])
    train = split.train.take(kept)
    events = np.unique(np.concatenate([np.arange(a, b + 1) for a, b in zip(train.start, train.target, strict=True)]))
    notes = {**split.notes, "shots": shots, "training_rows_of_the_split": len(split.train)}
    return replace(split, train=train, train_events=events, notes=notes)
