"""What every method is given to train with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rectune.prompts.encoder import Encoder
from rectune.tasks.examples import TaskSpec


@dataclass(frozen=True)
class Trainable:
    """The inputs of a stage.

    `model`: loaded, with an adapter where the recipe asks for one. `new_tokens`: ids of the index vocabulary.
    `rank_validation(model, rows)` ranks so many validation rows and returns metrics by name.
    """

    model: Any
    encoder: Encoder
    specs: list[TaskSpec]
    new_tokens: list[int]
    seed: int
    adapter: bool
    rank_validation: Callable[[Any, int], dict[str, float]]
