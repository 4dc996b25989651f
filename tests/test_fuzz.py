"""Whatever is wrong with a recipe, a log or an index file, it is told in one line that names a key or a place. More: `python -m tests.fuzz 300`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from tests.fuzz import KINDS, LCREC, SHOP, TABLE, TALLREC, ended, tried, write_sources


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_wrong_is_one_line_that_names_it(kind: str) -> None:
    wrong, ends = tried(kind, 50, seed=0)
    assert not wrong, "\n".join(wrong)
    assert ends.get(1, 0) > 5  # something was wrong indeed


def test_what_is_not_touched_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path)
    for recipe in (SHOP, TALLREC, LCREC, TABLE):
        Path("r.yaml").write_text(yaml.safe_dump(recipe))
        assert ended(["preview", "r.yaml", "--examples", "1"]) == (0, ""), recipe


@pytest.mark.parametrize("kind", list(KINDS))
def test_tries_are_the_same_each_time(kind: str, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    write_sources(tmp_path)
    write_sources(tmp_path / "whole")
    said = [[KINDS[kind](draw, tmp_path) for _ in range(10)] for draw in (random.Random(4), random.Random(4))]
    assert said[0] == said[1]
