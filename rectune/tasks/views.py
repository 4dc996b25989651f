"""What a template sees of an item."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from rectune.indexing.item_index import ItemIndex
from rectune.log.split import Split
from rectune.prompts.template import clean_value, codes_value

if TYPE_CHECKING:
    import polars as pl

Variables = dict[str, Any]


class ItemTexts:
    """The columns of an item (`title`, `brand`, …) as a template sees them, without the item's name."""

    def __init__(self, items: pl.DataFrame, *, max_characters: int = 300) -> None:
        self._limit = max_characters
        self._items = items

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        return {name: self._items[name].to_list() for name in self._items.columns if name != "item_id"}

    def __call__(self, item: int) -> Variables:
        """Return the texts of an item, each cut to `max_characters`; cut ones end with '…'."""
        return {name: self._cut(values[item]) for name, values in self._columns.items()}

    def _cut(self, text: str) -> str:
        text = clean_value(text)
        return text if len(text) <= self._limit else text[: self._limit - 1].rstrip() + "…"


class ItemViews:
    """What a template sees of an item: its texts (`title`, `brand`, …) and `name`, its name in the index."""

    def __init__(self, split: Split, index: ItemIndex, *, max_characters: int = 300) -> None:
        self._index, self._items = index, split.log.items
        self._texts = ItemTexts(split.log.items, max_characters=max_characters)

    def __call__(self, item: int) -> Variables:
        """Return the view of an item; texts are cut like those of `ItemTexts`."""
        codes = [int(code) for code in self._index.codes[item] if code >= 0]
        name = codes_value(codes) if codes else clean_value(self._index.titles[item])
        return {**self._texts(item), "name": name}

    def __len__(self) -> int:
        return len(self._index)

    def same_as(self, other: ItemViews) -> bool:
        """Whether these are views of the same catalogue under the same names."""
        return self._index is other._index and self._items is other._items

    def called(self, item: int) -> str:
        """How messages name an item: its id and its title."""
        return f"`{self._items['item_id'][item]}` ({self._texts(item)['title']!r})"
