"""The catalogue of an exported folder, as writers for engines read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rectune.bundle.files import ABOUT, ITEMS
from rectune.bundle.parts import INDEX, read_template
from rectune.indexing.item_index import ItemIndex
from rectune.runtime.near import shown
from rectune.runtime.text_files import read_json, read_json_lines


class Written(NamedTuple):
    """What is written for an engine: a file's name and what it holds; `use`: what the engine is told."""

    file: str
    held: bytes
    use: str


@dataclass(frozen=True)
class Catalogue:
    """What a folder lists. `items`: the lines of `items.jsonl`; `names`: for each item the token ids of its name, without an end token; `end`: the end token
    that the model writes behind a name, None where it writes none; `index`: names as codes; `tokenizer`: of the folder."""

    items: list[dict[str, Any]]
    names: list[list[int]]
    end: int | None
    index: ItemIndex
    tokenizer: Any

    @property
    def longest(self) -> int:
        """Tokens of the longest name, its end token included: how many an engine has to write."""
        return max(map(len, self.names)) + (self.end is not None)

    def texts(self, *, before: str = "") -> list[str]:
        """Names as text. Raises ValueError where the tokenizer does not read a text, written behind `before`, as the ids that the model learned."""
        skipped = len(self._ids(before))
        for item, ids in zip(self.items, self.names, strict=True):
            if self._ids(before + item["name"])[skipped:] != ids or "\n" in item["name"]:
                raise ValueError(
                    f"this engine reads names as text, and item `{item['item_id']}` is called {shown(item['name'])}, which its tokenizer cuts otherwise "
                    "than the model learned it. Use an index of new tokens, e.g. `index: {call: residual_kmeans}`, and a template whose completion is the "
                    "name alone."
                )
        return [item["name"] for item in self.items]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def read_catalogue(folder: Path) -> Catalogue:
    """The catalogue of an exported folder. Raises ValueError for a model that lists no items."""
    from tokenizers import Tokenizer

    about = read_json(folder / ABOUT)
    if about["kind"] != "item":
        raise ValueError(
            f"{folder}: this model answers about one item (Yes/No, a rating); an engine has nothing to list."
        )
    items = [row for _, row in read_json_lines(folder / ITEMS)]
    ends = read_template(folder, about).end
    names = [row["tokens"][:-1] if ends else row["tokens"] for row in items]
    end = int(about["asked"]["frame"]["end"]) if ends else None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Catalogue(items, names, end, ItemIndex.load(folder / INDEX), tokenizer)
