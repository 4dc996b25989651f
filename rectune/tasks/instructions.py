"""General instruction sets as a task: what a stage is tuned on before it sees a recommendation (TALLRec's first stage)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Part, Split
from rectune.prompts.template import clean_value
from rectune.runtime.near import shown
from rectune.runtime.text_files import read_json, read_json_lines
from rectune.tasks.rows import TaskRows

ROLES = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
}  # fmt: skip


class Turn(NamedTuple):
    """One turn of a conversation: 'system', 'user' or 'assistant', and what it says."""

    role: str
    text: str


def instructions(
    split: Split,
    index: ItemIndex,
    part: Part,
    *,
    path: Path | None = None,
    name: str | None = None,
    validation_rows: int = 0,
) -> TaskRows:
    """Answer as an instruction set does. Variables: `turns` ({role, text}, oldest first) and `answer`; neither split nor index is read.

    `path`: a .json, .jsonl or .parquet file (.json and .jsonl also .gz); `name`: a data set of the Hub instead. Each entry is
    of one of these forms: `instruction`, `input`, `output` (Alpaca); `prompt`, `completion`; `messages` with `role` and
    `content`; `conversations` with `from` and `value` (ShareGPT). Every assistant turn is a row. The last
    `validation_rows` entries are for validation. Raises ValueError naming file and entry for any other form.
    """
    if (path is None) == (name is None):
        raise ValueError("`instructions` needs either `path`, a file, or `name`, a data set of the Hub.")
    if validation_rows < 0:
        raise ValueError(f"`validation_rows` of `instructions` must not be negative, got {validation_rows}.")
    entries = list(_entries(path)) if path is not None else _from_hub(str(name))
    source = path.name if path is not None else str(name)
    cut = max(len(entries) - validation_rows, 0)
    chosen = {"train": range(cut), "validation": range(cut, len(entries)), "test": range(0)}[part]
    rows = [row for i in chosen for row in _rows(entries[i], f"{source}: entry {i + 1}")]
    if part == "train" and not rows:
        raise ValueError(f"{source}: it holds no instruction to train on.")

    def variables(i: int) -> dict[str, Any]:
        turns, answer = rows[i]
        return {
            "turns": [{"role": t.role, "text": clean_value(t.text)} for t in turns],
            "answer": clean_value(answer),
        }

    number = np.arange(len(rows))
    return TaskRows(number, variables, "text", number)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        import polars as pl

        yield from pl.read_parquet(path).to_dicts()
        return
    if kind not in ("json", "jsonl"):
        raise ValueError(f"{path.name}: an instruction file must be .json, .jsonl or .parquet (.gz for the first two).")
    if kind == "jsonl":
        yield from (entry for _, entry in read_json_lines(path))
        return
    data = read_json(path)
    yield from data if isinstance(data, list) else [data]


def _from_hub(name: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    return [dict(entry) for entry in load_dataset(name, split="train")]


def _rows(entry: Any, where: str) -> list[tuple[list[Turn], str]]:
    """The rows of an entry: the turns before each assistant turn, and that turn."""
    turns = _turns(entry, where)
    return [(turns[:i], turn.text) for i, turn in enumerate(turns) if turn.role == "assistant" and i and turn.text]


def _turns(entry: Any, where: str) -> list[Turn]:
    keys = entry.keys() if isinstance(entry, dict) else set()
    if {"instruction", "output"} <= keys:
        asked = (_text(entry["instruction"], where), _text(entry.get("input") or "", where))
        return [Turn("user", "\n\n".join(filter(None, asked))), Turn("assistant", _text(entry["output"], where))]
    for field, role, said in (
        ("messages", "role", "content"),
        ("prompt", "role", "content"),
        ("conversations", "from", "value"),
    ):
        listed = entry.get(field) if isinstance(entry, dict) else None
        after = entry.get("completion") if isinstance(entry, dict) and field == "prompt" else []
        if isinstance(listed, list) and isinstance(after, list):
            return [_turn(turn, role, said, where) for turn in [*listed, *after]]
    if {"prompt", "completion"} <= keys:
        return [Turn("user", _text(entry["prompt"], where)), Turn("assistant", _text(entry["completion"], where))]
    raise ValueError(
        f"{where}: it has {', '.join(sorted(keys)) or 'no fields'}; an instruction needs `instruction` and `output`, `prompt` and "
        "`completion`, `messages`, or `conversations`."
    )


def _turn(turn: Any, role: str, said: str, where: str) -> Turn:
    if not isinstance(turn, dict) or turn.get(role) not in ROLES:
        raise ValueError(
            f"{where}: a turn needs `{role}` ({', '.join(ROLES)}) and `{said}`, got {shown(str(turn)[:80])}."
        )
    return Turn(ROLES[turn[role]], _text(turn.get(said), where))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: a text was expected, got {type(value).__name__}.")
    return value.strip()
