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

FILES: dict[Part, str] = {"train": "train.json", "validation": "valid.json", "test": "test.json"}
_INPUT = re.compile(
    r"User Preference: (?P<liked>.*?)\s*\nUser Unpreference: (?P<disliked>.*?)\s*\nWhether the user will like the target "
    r"(?:movie|book) (?P<target>.*)\?\s*$",
    re.DOTALL,
)
_TITLE = re.compile(r'"(.*?)"(?=\s*(?:,\s*"|$))', re.DOTALL)


def tallrec(*, path: Path) -> Log:
    """Read `train.json`, `valid.json`, `test.json` (plain or .gz) of TALLRec's movie or book set.

    The titles in `input` become items (rated 1 where preferred, 0 where not), `output` the rating of the target. The
    files name no users: each row counts as a user of its own. Liked items come before disliked ones, as the files
    have them. Use the split `given` and `like_above: 0.5`. Raises ValueError naming file and row.
    """
    rows = [row for part, name in FILES.items() for row in _rows(find_file(path, name), part)]
    titles = list(dict.fromkeys(title for row in rows for title in (*row.history, row.target)))
    return given_log(rows, pl.DataFrame({"item_id": titles, "title": titles}), source=f"TALLRec {path.name}")


def _rows(file: Path, part: Part) -> Iterator[GivenRow]:
    data = read_json(file)
    if not isinstance(data, list):
        raise ValueError(f"{file.name}: it must hold a list of rows.")
    for number, row in enumerate(data, start=1):
        where = f"{file.name}: row {number}"
        if not isinstance(row, dict) or not {"input", "output"} <= row.keys():
            raise ValueError(f"{where}: a row needs `instruction`, `input` and `output`.")
        match = _INPUT.match(row["input"])
        answer = {"Yes.": 1.0, "No.": 0.0}.get(row["output"].strip())
        if match is None or answer is None:
            raise ValueError(f"{where}: `input` or `output` is not of TALLRec's form.")
        liked, disliked = _TITLE.findall(match["liked"]), _TITLE.findall(match["disliked"])
        target = match["target"].strip()
        if len(target) > 1 and target[0] == target[-1] == '"':
            target = target[1:-1]
        yield GivenRow(
            part, f"{part} {number}", [*liked, *disliked], target, [1.0] * len(liked) + [0.0] * len(disliked) + [answer]
        )
