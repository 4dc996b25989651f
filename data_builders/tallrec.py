"""TALLRec's instruction JSON: already split, every row is an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from rectune.data_builders.already_split import GivenRow, given_log
from rectune.data_builders.files import find_file

from rectune.log.log import Log
from rectune.log.split import Part
from rectune.runtime.text_files import read_json

BY = " written by "
FILES: dict[Part, str] = {"train": "train.json", "validation": "valid.json", "test": "test.json"}
_INPUT = re.compile(
    r"User Preference: (?P<liked>.*?)\s*\nUser Unpreference: (?P<disliked>.*?)\s*\nWhether the user will like the target "
    r"(?:movie|book) (?P<target>.*)\?\s*$",
    re.DOTALL,
)
_TITLE = re.compile(r'"(?P<title>.*?)"(?=\s*(?:,\s*"|$))', re.DOTALL)
_BOOK = re.compile(r'"(?P<title>.*?)" written by (?P<author>.*?)(?=\s*(?:,\s*"|$))', re.DOTALL)


def tallrec(*, path: Path) -> Log:
    """Read `train.json`, `valid.json`, `test.json` (plain or .gz) of TALLRec's movie or book set.

    The titles in `input` become items (rated 1 where preferred, 0 where not), those of books with their `author`, `output` the
    rating of the target. The files name no users: each row counts as a user of its own. Liked items come before disliked ones, as the files
    have them. Use the split `given` and `like_above: 0.5`. Raises ValueError naming file and row.
    """
    rows = [row for part, name in FILES.items() for row in _rows(find_file(path, name), part)]
    names = list(dict.fromkeys(name for row in rows for name in (*row.history, row.target)))
    parts = [_parts(name) for name in names]
    shelf = {"item_id": names, "title": [title for title, _ in parts]}
    if any(author for _, author in parts):
        shelf["author"] = [author for _, author in parts]
    return given_log(rows, pl.DataFrame(shelf), source=f"TALLRec {path.name}")


def _rows(file: Path, part: Part) -> Iterator[GivenRow]:
    data = read_json(file)
    if not isinstance(data, list):
        raise ValueError(f"{file.name}: it must hold a list of rows.")
    for number, row in enumerate(data, start=1):
        where = f"{file.name}: row {number}"
        if not isinstance(row, dict) or not {"input", "output"} <= row.keys():
            raise ValueError(f"{where}: a row needs `instruction`, `input` and `output`.")
        if not all(isinstance(row[key], str) for key in ("input", "output")):
            raise ValueError(f"{where}: `input` and `output` must be texts.")
        match = _INPUT.match(row["input"])
        answer = {"Yes.": 1.0, "No.": 0.0}.get(row["output"].strip())
        if match is None or answer is None:
            raise ValueError(f"{where}: `input` or `output` is not of TALLRec's form.")
        liked, disliked = (_names(match[side], f"{where}: {side} titles") for side in ("liked", "disliked"))
        target = (
            _names(match["target"], f"{where}: the target")[0]
            if match["target"].strip()[:1] == '"'
            else match["target"].strip()
        )
        yield GivenRow(
            part, f"{part} {number}", [*liked, *disliked], target, [1.0] * len(liked) + [0.0] * len(disliked) + [answer]
        )


def _names(text: str, where: str) -> list[str]:
    """The names of the items of a list: a title, or 'TITLE written by AUTHOR'; titles may hold quotes and commas.

    Raises ValueError where something of the text belongs to no item.
    """
    form = _BOOK if '" written by ' in text else _TITLE
    found = list(form.finditer(text))
    rest = form.sub("", text)
    if rest.strip(" ,\n"):
        raise ValueError(f'{where} are not a list of "TITLE" or "TITLE" written by AUTHOR: {text.strip()[:80]!r}.')
    return [m["title"] if form is _TITLE else f"{m['title']}{BY}{m['author'].strip()}" for m in found]


def _parts(name: str) -> tuple[str, str]:
    """Title and author of an item's name; a film has no author."""
    title, _, author = name.rpartition(BY)
    return (title, author) if title else (name, "")
