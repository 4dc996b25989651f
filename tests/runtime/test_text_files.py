"""Texts as programs write them: byte order marks, newlines of three kinds, encodings that are told."""

from __future__ import annotations

import argparse
import ast
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rectune import commands
from rectune.prompts.template import load_template
from rectune.recipe.load import load_recipe
from rectune.run.new_items import READERS
from rectune.runtime.text_files import first_line, read_json, read_json_lines, read_lines, read_text

ROOT = Path(__file__).parents[2]
MARK = b"\xef\xbb\xbf"
SEPARATORS = "a\u2028b\x85c\x0cd\x0be\u2029f"  # str.splitlines() cuts at each


def written(file: Path, raw: bytes) -> Path:
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
    return file


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / name, MARK + "é\n".encode())
    assert read_text(file) == "é\n"
    assert read_text(file, encoding="utf-8") == "é\n"
    assert read_text(file, encoding="latin-1") == "Ã©\n"  # what was asked for, without the mark
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        raw = ("\ufeff" if encoding == "utf-16-le" else "") + "é\n"
        assert read_text(written(tmp_path / name, raw.encode(encoding)), encoding=encoding) == "é\n"


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", f"{SEPARATORS}\r\n\n x \n".encode())
    assert list(read_lines(file)) == [(1, SEPARATORS), (3, " x ")]
    file = written(tmp_path / "a.jsonl", f'{{"a": "{SEPARATORS[:2]}"}}\r\n'.encode())
    assert list(read_json_lines(file)) == [(1, {"a": "a\u2028"})]


@pytest.mark.parametrize(
    ("raw", "encoding", "message"),
    [
        ("é,ü\n".encode("utf-16"), "utf-8", r"a.csv: this is UTF-16 text \(its first bytes are ff fe\), not utf-8. Say `encoding: utf-16`"),
        ("é,ü\n".encode("utf-16"), "latin-1", "Say `encoding: utf-16`"),
        (b"\xfe\xff" + "é,ü\n".encode("utf-16-be"), "utf-8", r"first bytes are fe ff\), not utf-8. Say `encoding: utf-16`"),
        ("é,ü\n".encode("utf-32"), "utf-8", "Say `encoding: utf-32`"),
        ("é,ü\n".encode("utf-16"), None, "this is UTF-16 text .* Save it as UTF-8"),
        (b"a\nb\xe9\n", "utf-8", "a.csv:2: not utf-8 text .* Say `encoding: latin-1`"),
        (b"a\nb\xe9\n", None, "a.csv:2: not utf-8 text .* Save it as UTF-8"),
        (b"a\nb\x81\n", "cp1252", "a.csv:2: not cp1252 text .* Say `encoding: utf-8`"),
        (b"a", "utf-9", "`encoding`: there is none named 'utf-9'"),
        (b"a", "rot13", "`encoding`: .*rot13"),
    ],
)  # fmt: skip
def test_another_encoding_is_told_with_what_can_be_said(
    tmp_path: Path, raw: bytes, encoding: str | None, message: str
) -> None:
    file = written(tmp_path / "a.csv", raw)
    with pytest.raises(ValueError, match=message) as told:
        read_text(file, encoding=encoding)
    if encoding is None:  # the caller has no such key
        assert "encoding:" not in str(told.value)


def test_json_lines_obey_the_encoding_that_is_said(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", '{"title": "café"}\n'.encode("latin-1"))
    assert [row for _, row in read_json_lines(file, encoding="latin-1")] == [{"title": "café"}]
    with pytest.raises(ValueError, match="Save it as UTF-8"):
        list(read_json_lines(file))


def test_json_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.json: not readable JSON"):
        read_json(written(tmp_path / "a.json", b"[" * 200_000))


def test_the_files_of_recommend_are_read_so(tmp_path: Path) -> None:
    assert commands._ids(str(written(tmp_path / "ids.txt", MARK + b"p1\r\np2\n"))) == ["p1", "p2"]
    line = json.dumps({"user": "u\u2028", "items": ["a"]}, ensure_ascii=False)
    users = written(tmp_path / "users.jsonl", MARK + line.encode() + b"\r\n")
    assert commands._histories(argparse.Namespace(users=str(users))) == (["u\u2028"], [["a"]], None)


def test_recipes_and_templates_are_read_so(tmp_path: Path) -> None:
    recipe = written(tmp_path / "r.yaml", MARK + b"include: quickstart.yaml\r\nseed: 7\r\n")
    assert load_recipe(recipe).settings["seed"] == 7
    for name in ("utf-16", "latin-1"):
        with pytest.raises(ValueError, match=r"r.yaml.*Save it as UTF-8"):
            load_recipe(written(recipe, "about: é\ninclude: quickstart.yaml\n".encode(name)))
    source = (ROOT / "templates" / "next-item.jinja").read_bytes()
    plain = load_template(written(tmp_path / "t.jinja", source))
    for changed in (MARK + source, source.replace(b"\n", b"\r\n")):
        assert load_template(written(tmp_path / "t.jinja", changed)).hash == plain.hash


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_new_items_are_read_so(tmp_path: Path, name: str) -> None:
    rows: dict[str, Any] = {"item_id": ["007"], "title": ["a\u2028b"]}
    text = "item_id,title\n007,a\u2028b\n" if name.endswith("csv") else '{"item_id": "007", "title": "a\u2028b"}\n'
    file = written(tmp_path / name, MARK + text.encode())
    assert READERS[file.suffix](file).equals(pl.DataFrame(rows))


def test_an_error_without_words_has_a_first_line() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(OSError()) == "OSError"


def test_no_other_file_cuts_lines_by_itself() -> None:
    """Lines of /proc are ours to cut."""
    found = {
        file.name
        for top in ("rectune", "data_builders", "eval")
        for file in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    }
    assert found <= {"resident.py"}
