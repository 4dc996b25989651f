"""Catalogues for engines, read back by readers that were written from each engine's own description of its format."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectune import Recommender
from rectune.bundle.catalogue import Catalogue
from rectune.bundle.engines.flashrec import flashrec
from rectune.bundle.engines.xllm import is_number, xllm
from rectune.bundle.for_engines import known_engines, writer_of
from rectune.bundle.manifest import check_files, read_manifest
from rectune.cli import build_parser, main
from rectune.indexing.item_index import ItemIndex, from_levels
from tests.bundle.test_bundle import GPT2, NAMES
from tests.exports import SHOP, SHORT, exported, tune
from tests.test_cli import fails

Path_ = tuple[int, ...]
COMPLETE = {"call": "residual_kmeans", "levels": 3, "codes": 8, "repair": "reassign", "complete": True}
FOR = [word for name in ("flashrec", "sglang", "sid-gr", "vllm", "xllm") for word in ("--for", name)]


# ------------------------------------------------------------------------------------------------------------- readers


def read_sid_gr(file: Path, end: int | None) -> dict[Path_, str]:
    """Whole answers -> ids. README of sid-gr-inference: `item_id` and `token_ids` a line, ids and paths unique; a path is over at its end or at the end token."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    paths = [tuple(row["token_ids"]) for row in rows]
    assert len(set(paths)) == len({row["item_id"] for row in rows}) == len(rows)
    assert all(paths)
    assert not any(end in path for path in paths)
    return {(*path, *([] if end is None else [end])): row["item_id"] for path, row in zip(paths, rows, strict=True)}


def read_flashrec(file: Path, tokenizer: Path) -> set[Path_]:
    """Paths of ids. FlashRec's configuration page: the tokens `<s_x_n>` of a tokenizer are levels, each from 0 without a gap, one behind another, then begin and
    end; a key holds a code a level."""
    ids = {token["content"]: token["id"] for token in json.loads(tokenizer.read_text())["added_tokens"]}
    levels: dict[str, dict[int, int]] = {}
    for token, number in ids.items():
        if found := re.fullmatch(r"<s_([A-Za-z0-9]+)_(\d+)>", token):
            levels.setdefault(found[1], {})[int(found[2])] = number
    starts, after = [], None
    for book in sorted(levels.values(), key=lambda book: min(book.values())):
        assert sorted(book) == list(range(len(book)))
        assert [book[code] for code in range(len(book))] == list(range(book[0], book[0] + len(book)))
        assert after in (None, book[0])
        starts.append(book[0])
        after = book[0] + len(book)
    assert [ids["<|sid_begin|>"], ids["<|sid_end|>"]] == [after, after + 1]  # type: ignore[operator]
    keys = [tuple(map(int, key.split(","))) for key in json.loads(file.read_text())]
    assert {len(key) for key in keys} == {len(starts)}
    return {tuple(start + code for start, code in zip(starts, key, strict=True)) for key in keys}


def read_lines(names: list[str], folder: Path, before: str = "") -> set[Path_]:
    """Paths of ids. SGLang's guide: a line is an entry, encoded by the model's tokenizer. vLLM: the same of a choice, behind a line break."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = len(tokenizer.encode(before, add_special_tokens=False)) if before else 0
    return {tuple(tokenizer.encode(before + name, add_special_tokens=False)[cut:]) for name in names}


def read_xllm(file: Path) -> dict[Path_, int]:
    """Paths of ids -> numbers. xLLM: records of 20 bytes, a 64-bit item and three 32-bit tokens, until the file is over."""
    held = file.read_bytes()
    assert len(held) % 20 == 0
    found = {}
    for at in range(0, len(held), 20):
        found[struct.unpack("<iii", held[at + 8 : at + 20])] = int.from_bytes(held[at : at + 8], "little", signed=True)
    return found


# ------------------------------------------------------------------------------------------------------------ a bundle


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of complete semantic ids, exported for all engines."""
    settings = {
        **SHOP,
        "vectors": [{"call": "tfidf", "text": ["categories", "title"], "dimensions": 12}],
        "index": COMPLETE,
        "tasks": [{"call": "next_item", "template": NAMES}],
        "model": GPT2,
        "stages": [{**SHORT, "max_length": 128}],
        "rank": {**SHOP["rank"], "template": NAMES},
    }
    run = tune(tmp_path_factory.mktemp("engines"), settings)
    assert main(["export", str(run), *FOR, "--traceback"]) == 0
    return run


def written(folder: Path) -> dict[Path_, str]:
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    return {tuple(row["tokens"]): row["item_id"] for row in rows}


@pytest.mark.heavy
def test_every_engine_lists_the_items_of_the_bundle(shop: Path) -> None:
    folder = shop / "export"
    place, items = folder / "engines", written(folder)
    assert len(items) == 40
    assert read_sid_gr(place / "sid-gr" / "catalog.jsonl", None) == items
    assert read_flashrec(place / "flashrec" / "catalog.json", folder / "tokenizer.json") == set(items)
    assert read_lines((place / "sglang" / "catalog.txt").read_text().splitlines(), folder) == set(items)
    assert read_lines(json.loads((place / "vllm" / "choices.json").read_text()), folder, "\n") == set(items)
    numbers = read_xllm(place / "xllm" / "items.vocab")
    assert {path: list(items.values())[number] for path, number in numbers.items()} == items
    metadata = json.loads((place / "sid-gr" / "catalog.jsonl").read_text().splitlines()[0])["metadata"]
    assert "title" in metadata


@pytest.mark.heavy
def test_catalogues_are_sealed_with_the_bundle(shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shop / "export", tmp_path / "shop"))
    files = {name for name in read_manifest(folder)["files"] if name.startswith("engines/")}
    assert files == {f"engines/{name}" for name in ("flashrec/catalog.json", "sglang/catalog.txt", "sid-gr/catalog.jsonl", "vllm/choices.json", "xllm/items.vocab")}  # fmt: skip
    assert Recommender.from_pretrained(folder).recommend(["i3"], 3) == Recommender.from_pretrained(shop).recommend(
        ["i3"], 3
    )
    (folder / "engines" / "xllm" / "items.vocab").write_bytes(b"")
    with pytest.raises(ValueError, match=r"`engines/xllm/items.vocab` is not the one that was written"):
        check_files(folder)


@pytest.mark.heavy
def test_of_a_bundle_only_catalogues_are_written(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, place = shop / "export", tmp_path / "catalogues"
    assert main(["export", str(bundle), "--to", str(place), "--for", "xllm", "--for", "sid-gr"]) == 0
    assert "items are the lines of items.jsonl, from 0" in capsys.readouterr().out
    assert sorted(file.relative_to(place).as_posix() for file in place.rglob("*.*")) == ["sid-gr/catalog.jsonl", "xllm/items.vocab"]  # fmt: skip
    assert (place / "xllm" / "items.vocab").read_bytes() == (bundle / "engines" / "xllm" / "items.vocab").read_bytes()
    assert "Say where its catalogue goes: --to FOLDER" in fails(capsys, "export", str(bundle), "--for", "xllm")
    inside = fails(capsys, "export", str(bundle), "--for", "xllm", "--to", str(bundle / "more"))
    assert "is in the exported folder" in inside
    changed = Path(shutil.copytree(bundle, tmp_path / "changed"))
    (changed / "items.jsonl").write_text("")
    assert "`items.jsonl` is not the one" in fails(capsys, "export", str(changed), "--for", "xllm", "--to", str(tmp_path / "x"))  # fmt: skip
    assert not (tmp_path / "x").exists()


@pytest.mark.heavy
def test_names_with_an_end_token_and_items_that_came_later(tmp_path: Path) -> None:
    settings = {
        **SHOP,
        "vectors": [{"call": "tfidf", "text": ["categories", "title"], "dimensions": 12}],
        "index": COMPLETE,
        "model": GPT2,
    }
    run = tune(tmp_path, settings)
    like = Recommender.from_pretrained(run).items.row(5, named=True)
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({**like, "item_id": "7", "title": f"{like['title']} mark 2"}))
    assert main(["index", "add", str(run), str(new)]) == 0
    folder = exported(run)
    assert main(["export", str(folder), "--to", str(tmp_path / "to"), *FOR, "--traceback"]) == 0
    items, end = written(folder), json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert len(items) == 41
    assert read_sid_gr(tmp_path / "to" / "sid-gr" / "catalog.jsonl", end) == items
    bare = {path[:-1] for path in items}
    assert {path[-1] for path in items} == {end}
    assert read_flashrec(tmp_path / "to" / "flashrec" / "catalog.json", folder / "tokenizer.json") == bare
    assert read_lines((tmp_path / "to" / "sglang" / "catalog.txt").read_text().splitlines(), folder) == bare
    assert set(read_xllm(tmp_path / "to" / "xllm" / "items.vocab")) == bare


@pytest.mark.heavy
def test_what_an_engine_cannot_list_is_one_line_and_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tune(tmp_path, {**SHOP, "index": {"call": "titles"}, "model": GPT2})
    for engine, message in (
        ("flashrec", "Set `index.complete: true`"),
        ("xllm", "names of exactly three tokens"),
        ("sglang", "this engine reads names as text"),
        ("sid_gr", "`--for sid_gr`: no engine of that name. Did you mean `sid-gr`?"),
    ):
        assert message in fails(capsys, "export", str(run), "--for", engine)
        assert not (run / "export").exists()
    assert main(["export", str(run), "--for", "sid-gr", "--traceback"]) == 0


# ------------------------------------------------------------------------------------------------------- without a run


class Tokens:
    """A tokenizer whose ids are given."""

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids

    def token_to_id(self, token: str) -> int:
        return self.ids[token]


def catalogue(index: ItemIndex, ids: list[str], first: int = 100) -> Catalogue:
    names = [[first + code for code in codes] for codes in index.codes.tolist()]
    tokens = Tokens({token: first + at for at, token in enumerate(index.vocabulary)})
    return Catalogue([{"item_id": item_id} for item_id in ids], names, None, index, tokens)


def test_flashrecs_codes_by_hand() -> None:
    levels = np.array([[0, 3, 1], [2, 0, 1]], dtype=np.int32)
    index = from_levels(levels, sizes=[3, 4, 2], prefix="s_")
    assert json.loads(flashrec(catalogue(index, ["x", "y"])).held) == {"0,3,1": 1, "2,0,1": 1}


def test_xllms_bytes_by_hand() -> None:
    index = from_levels(np.array([[0, 0, 0], [1, 0, 0]], dtype=np.int32))
    made = xllm(catalogue(index, ["-2", "300"]))
    assert made.held == (
        b"\xfe" + b"\xff" * 7 + b"\x64\0\0\0" b"\x66\0\0\0" b"\x67\0\0\0" + b"\x2c\x01" + b"\0" * 6 + b"\x65\0\0\0" b"\x66\0\0\0" b"\x67\0\0\0"
    )  # fmt: skip
    assert "items are item ids" in made.use
    assert [is_number(text) for text in ("12", "-3", "012", "-0", "", "-", "1.5", "٣", str(2**63), str(2**63 - 1))] == [
        True, True, False, False, False, False, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "sizes", "message"),
    [
        (np.zeros((1, 3)), [], r"Set `index.complete: true`"),
        (np.zeros((1, 4)), [2, 2, 2, 2], r"Set `index.levels: 3`; .* also `index.repair: reassign`"),
    ],
)
def test_flashrec_says_which_option_to_set(levels: Any, sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flashrec(catalogue(from_levels(levels.astype(np.int32), sizes=sizes, prefix="s_"), ["x"]))


def test_flashrec_refuses_tokens_apart_and_templates_that_say_more() -> None:
    whole = catalogue(from_levels(np.zeros((1, 3), np.int32), sizes=[2, 2, 2], prefix="s_"), ["x"])
    whole.names[0] = [7, *whole.names[0]]
    with pytest.raises(ValueError, match="template says more"):
        flashrec(whole)
    whole.tokenizer.ids["<s_b_0>"] = 7
    with pytest.raises(ValueError, match="holds them apart"):
        flashrec(whole)


def test_the_help_names_every_engine() -> None:
    commands = next(action for action in build_parser()._actions if action.dest == "command").choices
    said = " ".join(commands["export"].format_help().split())
    assert f"into engines/ENGINE: {', '.join(known_engines())}" in said.replace("- ", "-")
    assert all(callable(writer_of(name)) for name in known_engines())
