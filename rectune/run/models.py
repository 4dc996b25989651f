"""The models of a run as rankers: one is held at a time."""

from __future__ import annotations

from collections.abc import Callable

from rectune.decoding.language_model import Ranker


class Models:
    """'untuned', 'tuned', or another form of the tuned model that was put here: loaded when it is asked for, kept for the next
    ranking by the same."""

    def __init__(self, load: Callable[[str], Ranker]) -> None:
        self._load = load
        self._held: dict[str, Ranker] = {}

    def __getitem__(self, who: str) -> Ranker:
        if who not in self._held:
            self._held.clear()
            self._held[who] = self._load(who)
        return self._held[who]

    def __setitem__(self, who: str, ranker: Ranker) -> None:
        self._held = {who: ranker}

    def clear(self) -> None:
        """Let the model go."""
        self._held.clear()
