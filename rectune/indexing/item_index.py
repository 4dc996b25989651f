"""The item index: the name each item has inside the language model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rectune.log.split import Split
from rectune.vectors.item_vectors import ItemVectors

Codes = NDArray[np.int32]
SID_BEGIN, SID_END = "<|sid_begin|>", "<|sid_end|>"  # OneRec's tokens around a name


@dataclass(frozen=True)
class ItemIndex:
    """Names of all items.

    `codes`: (items, levels) int32, each a position in `vocabulary`, -1 where a name is shorter. `vocabulary`: the
    new tokens, such as '<a_12>'. An index of titles has no levels and keeps its names in `titles`.
    `meanings`: for each token the words that it stands for, or '' (new embeddings start from their mean).
    `health`: counts for the report. `colliding`: (items,) whether an item shared its name before repair, or empty.
    `fitted`: arrays of a fitted indexer, by which items that come later are named. `user_tokens`: how many tokens at the
    end of the vocabulary stand for users.
    """

    codes: Codes
    vocabulary: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    health: dict[str, Any] = field(default_factory=dict)
    colliding: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    fitted: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    user_tokens: int = 0

    def __len__(self) -> int:
        return len(self.codes)

    def tokens(self, item: int) -> list[str]:
        """The new tokens of an item's name, in order."""
        return [self.vocabulary[code] for code in self.codes[item] if code >= 0]

    def name(self, item: int) -> str:
        """The name of an item as text."""
        return self.titles[item] if self.titles else "".join(self.tokens(item))

    def with_user_tokens(self, count: int) -> ItemIndex:
        """The same index with `count` more tokens, '<user_0>' …, that users are hashed to (TIGER, sec. 4.1: 2,000)."""
        tokens = tuple(f"<user_{i}>" for i in range(count))
        meanings = self.meanings and (*self.meanings, *("" for _ in tokens))
        return replace(self, vocabulary=(*self.vocabulary, *tokens), meanings=meanings, user_tokens=count)

    def user_code(self, user_id: str) -> int | None:
        """The position in the vocabulary of a user's token, or None where users have none or the id is ''."""
        if not self.user_tokens or not user_id:
            return None
        return len(self.vocabulary) - self.user_tokens + zlib.crc32(user_id.encode()) % self.user_tokens

    def save(self, folder: Path) -> None:
        """Write `index.json`, `codes.npy` and `fitted.npz` into an existing folder."""
        np.save(folder / "codes.npy", self.codes)
        np.savez(folder / "fitted.npz", colliding=self.colliding, **self.fitted)  # type: ignore[arg-type]
        rest = {k: getattr(self, k) for k in ("vocabulary", "meanings", "titles", "health", "user_tokens")}
        (folder / "index.json").write_text(json.dumps(rest, ensure_ascii=False), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> ItemIndex:
        """Read what `save` wrote."""
        rest = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        health, user_tokens = rest.pop("health"), rest.pop("user_tokens")
        with np.load(folder / "fitted.npz") as arrays:
            fitted = dict(arrays)
        return ItemIndex(
            np.load(folder / "codes.npy"),
            health=health,
            colliding=fitted.pop("colliding"),
            fitted=fitted,
            user_tokens=user_tokens,
            **{k: tuple(v) for k, v in rest.items()},
        )


class Indexer(Protocol):
    """A way to name items; it is given item vectors, the recipe's seed and `model.device` where it names them."""

    def __call__(
        self, split: Split, *, vectors: ItemVectors = ..., seed: int = ..., device: str = ..., **keys: Any
    ) -> ItemIndex:
        """Names of the items of a split; what learns from events reads training events alone."""


def from_levels(
    levels: Codes,
    *,
    meanings: Sequence[Sequence[str]] = (),
    colliding: NDArray[np.bool_] | None = None,
    fitted: dict[str, NDArray[np.float32]] | None = None,
    sizes: Sequence[int] = (),
    prefix: str = "",
) -> ItemIndex:
    """Build an index from codes that count from 0 within each level, shape (items, levels), -1 = none.

    Tokens are '<a_0>', '<a_1>' … for the first level, '<b_0>' … for the second. Only codes that are used get a
    token. `meanings[level][code]` are words for a token, where known. `colliding`: which items shared a name before repair; `fitted`: see `ItemIndex`.
    `sizes`: all codes of each level get a token, so many in their order, and behind them stand `SID_BEGIN` and `SID_END`, as OneRec's
    tokenizers hold them. `prefix`: what stands before the letter, OneRec's is 's_'.
    Raises ValueError when two items share a name.
    """
    check_unique(levels)
    vocabulary: list[str] = []
    words: list[str] = []
    codes = np.full(levels.shape, -1, dtype=np.int32)
    for level in range(levels.shape[1]):
        column = levels[:, level]
        held = np.arange(sizes[level]) if sizes else np.unique(column[column >= 0])
        codes[:, level] = np.where(column >= 0, np.searchsorted(held, column) + len(vocabulary), -1)
        letter = level_letter(level)
        vocabulary += [f"<{prefix}{letter}_{code}>" for code in held]
        known = meanings[level] if level < len(meanings) else ()
        words += [known[code] if code < len(known) else "" for code in held.tolist()]
    if sizes:
        vocabulary += [SID_BEGIN, SID_END]
        words += ["", ""]
    shared = np.zeros(len(levels), dtype=bool) if colliding is None else colliding
    return ItemIndex(
        codes, tuple(vocabulary), tuple(words), health=health_of(levels, shared), colliding=shared, fitted=fitted or {}
    )


def level_letter(level: int) -> str:
    """'a' for level 0, 'b' for level 1 … Raises ValueError beyond 26 levels."""
    if level >= 26:
        raise ValueError(f"an index can have at most 26 levels, got level {level + 1}.")
    return chr(ord("a") + level)


def check_unique(levels: Codes) -> None:
    """Raise ValueError when two rows of `levels` are equal, naming the first such pair."""
    _unique, first, counts = np.unique(levels, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = int(first[np.flatnonzero(counts > 1)[0]])
        twin = int(np.flatnonzero((levels == levels[row]).all(axis=1))[1])
        raise ValueError(f"items {row} and {twin} share the name {levels[row].tolist()}; repair collisions first.")


def colliding_items(levels: Codes) -> NDArray[np.bool_]:
    """Which items share their name with another one, shape (items,)."""
    _, inverse, counts = np.unique(levels, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse.reshape(-1)] > 1)


def repair_with_digit(levels: Codes) -> tuple[Codes, NDArray[np.bool_]]:
    """Make names unique by one more level that numbers the items of a shared name (TIGER, sec. 3.1).

    Items with a name of their own get 0 there. Returns the codes (unchanged where nothing collides) and which
    items collided.
    """
    shared = colliding_items(levels)
    if not shared.any():
        return levels, shared
    digit = np.zeros(len(levels), dtype=np.int32)
    counts: dict[bytes, int] = {}
    for item in np.flatnonzero(shared):
        key = levels[item].tobytes()
        digit[item] = counts.get(key, 0)
        counts[key] = digit[item] + 1
    return np.column_stack([levels, digit]).astype(np.int32), shared


def perplexity(counts: NDArray[np.int64]) -> float:
    """exp of the entropy of codes that are used `counts` times, (codes,), none of them 0."""
    share = counts / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def health_of(levels: Codes, colliding: NDArray[np.bool_]) -> dict[str, Any]:
    """Items per code, codes in use and perplexity for each level, and collisions before and after repair."""
    report: dict[str, Any] = {
        "items": len(levels),
        "levels": [],
        "colliding_items_before_repair": int(colliding.sum()),
        "colliding_items_after_repair": 0,
    }
    for level in range(levels.shape[1]):
        counts = np.unique(levels[levels[:, level] >= 0, level], return_counts=True)[1]
        report["levels"].append(
            {
                "codes_used": len(counts),
                "items_per_code_mean": float(counts.mean()),
                "items_per_code_max": int(counts.max()),
                "perplexity": perplexity(counts),
            }
        )
    return report
