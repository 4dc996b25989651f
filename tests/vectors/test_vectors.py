"""Item vectors: keyed by item id, checked, embedded once, joined."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rectune.data_builders.lc_rec import lc_rec

from rectune.log.splits.leave_one_out import leave_one_out
from rectune.runtime.cache import made_once
from rectune.vectors.from_file import from_file
from rectune.vectors.hidden_states import hidden_states
from rectune.vectors.item_vectors import ItemVectors, checked_vectors, join, refuse_alike
from rectune.vectors.sasrec import sasrec
from rectune.vectors.sentences import sentences
from rectune.vectors.texts import item_texts

IDS = ("a", "b", "c")


def test_vectors_follow_their_item_ids_not_their_place() -> None:
    one = checked_vectors(IDS, np.array([[1.0], [2.0], [3.0]], dtype=np.float32), source="x")
    two = checked_vectors(("c", "a", "b"), np.array([[30.0], [10.0], [20.0]], dtype=np.float32), source="y")
    joined = join([one, two])
    assert joined.item_ids == IDS
    assert joined.blocks[1][:, 0].tolist() == [10, 20, 30]


def test_blocks_are_joined_at_equal_weight() -> None:
    vectors = ItemVectors(("a", "b"), (np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.1], [0.1]])))  # type: ignore[arg-type]
    joined = vectors.joined()
    assert [float((joined[:, part] ** 2).sum(1).mean()) for part in (slice(0, 2), slice(2, 3))] == pytest.approx([1, 1])
    assert vectors.joined(vectors.scales()).tolist() == joined.tolist()


def test_vectors_survive_saving(tmp_path: Path) -> None:
    vectors = ItemVectors(IDS, (np.eye(3, dtype=np.float32), np.ones((3, 2), dtype=np.float32)))
    vectors.save(tmp_path)
    again = ItemVectors.load(tmp_path)
    assert again.item_ids == IDS
    assert all(np.array_equal(x, y) for x, y in zip(again.blocks, vectors.blocks, strict=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[1.0, 2], [np.nan, 1], [0, 0]]), "vector of item `b` holds values that are not numbers"),
        (np.ones((2, 4)), "3 items need an array of so many rows, got shape"),
    ],
)
def test_vectors_that_cannot_be_meant_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_vectors(IDS, values.astype(np.float32), source="x")


def test_vectors_that_are_all_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="all 3 vectors of a source are equal"):
        refuse_alike(checked_vectors(IDS, np.ones((3, 4), dtype=np.float32), source="x"))


def test_an_item_without_text_is_named() -> None:
    items = pl.DataFrame({"item_id": ["7", "8"], "title": ["Soap", ""], "brand": ["", ""]})
    assert item_texts(items.head(1), ["title", "brand"]) == ["Soap"]
    with pytest.raises(ValueError, match=r"item `8` has no text in `title`, `brand` \(1 of 2 items have none\)"):
        item_texts(items, ["title", "brand"])


def test_the_title_that_a_log_gives_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.inter.json").write_text(json.dumps({"0": [0, 1, 2], "1": [2, 1, 0]}))
    items = {"0": {"title": "Soap"}, "1": {"title": "", "brand": ""}, "2": {"title": "", "brand": "Leaf"}}
    (tmp_path / "x.item.json").write_text(json.dumps(items))
    with pytest.warns(UserWarning, match="2 items have an empty title"):
        log = lc_rec(path=tmp_path)
    with pytest.raises(ValueError, match=r"item `1` has no text in `title`, `brand` \(1 of 3 items have none\)"):
        item_texts(log.items, ["title", "brand"])


def test_each_text_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    asked: list[list[str]] = []

    def make(texts: list[str]) -> Iterator[tuple[str, bytes]]:
        asked.append(texts)
        return ((text, text.upper().encode()) for text in reversed(texts))

    assert made_once(["x", "y", "x"], make, name="n", maker="one") == [b"X", b"Y", b"X"]
    assert made_once(["y", "z"], make, name="n", maker="one") == [b"Y", b"Z"]
    assert made_once(["y"], make, name="n", maker="another") == [b"Y"]
    assert asked == [["x", "y"], ["z"], ["y"]]


def test_what_was_made_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    texts = [str(i) for i in range(250)]

    def fails(missing: list[str]) -> Iterator[tuple[str, bytes]]:
        for i, text in enumerate(missing):
            if i == 230:
                raise MemoryError
            yield text, b"made"

    with pytest.raises(MemoryError):
        made_once(texts, fails, name="n", maker="m")
    left: list[int] = []
    made_once(texts, lambda t: left.append(len(t)) or [(x, b"") for x in t], name="n", maker="m")  # type: ignore[func-returns-value]
    assert left == [20]


def test_hidden_states_are_the_mean_over_the_tokens(
    tiny_log: Any, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    folder = str(checkpoints["untied"])
    vectors = hidden_states(leave_one_out(tiny_log), text=["title", "brand"], model=folder, batch_size=2)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.no_grad():
        alone = model(**tokenizer("Bread. B", return_tensors="pt")).last_hidden_state[0].mean(0)
    assert vectors.blocks[0][1] == pytest.approx(alone.numpy(), abs=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("layer", "pooling"), [(1, "mean"), (0, "last"), (-1, "last"), (-2, "last")])
def test_any_layer_and_the_last_token_can_be_taken(
    layer: int, pooling: Any, side: str, tiny_log: Any, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    folder = tmp_path / "base"
    shutil.copytree(checkpoints["untied"], folder)
    AutoTokenizer.from_pretrained(folder, padding_side=side).save_pretrained(folder)
    found = hidden_states(
        leave_one_out(tiny_log), text=["title", "brand"], model=str(folder), layer=layer, pooling=pooling, batch_size=5
    )
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = model(**tokenizer("Bread. B", return_tensors="pt"), output_hidden_states=True).hidden_states[layer][0]
    expected = states[-1] if pooling == "last" else states.mean(0)
    assert found.blocks[0][1] == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_layer_that_a_model_does_not_have_is_refused(
    tiny_log: Any, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"`vectors.layer`: got 40, but .* has layers 0 to "):
        hidden_states(leave_one_out(tiny_log), text=["title"], model=str(checkpoints["untied"]), layer=40)


def test_a_model_that_is_not_there_is_named(tiny_log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"`vectors.model`: no model could be loaded from"):
        hidden_states(leave_one_out(tiny_log), text=["title"], model=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"`vectors.model`: no model could be loaded from"):
        sentences(leave_one_out(tiny_log), text=["title"], model=str(tmp_path / "empty"))


def test_a_file_of_vectors_is_matched_by_item_id(tiny_log: Any, tmp_path: Path) -> None:
    split = leave_one_out(tiny_log)
    table = pl.DataFrame({"item_id": list("edcba"), "vector": [[5.0], [4.0], [3.0], [2.0], [1.0]]})
    table.write_parquet(tmp_path / "v.parquet")
    torch.save(torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]]), tmp_path / "v.pt")
    np.save(tmp_path / "v.npy", np.array([[5.0], [4.0], [3.0], [2.0], [1.0]]))
    (tmp_path / "ids.json").write_text(json.dumps(list("edcba")))
    for name, ids in (("v.parquet", None), ("v.pt", tmp_path / "ids.json"), ("v.npy", tmp_path / "ids.json")):
        vectors = from_file(split, path=tmp_path / name, item_ids=ids)
        assert dict(zip(vectors.item_ids, vectors.blocks[0][:, 0], strict=True)) == {
            "a": 1,
            "b": 2,
            "c": 3,
            "d": 4,
            "e": 5,
        }


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (list("edcb"), "5 vectors, but 4 item ids"),
        (list("edcbb"), "an item id occurs twice"),
        (list("edcbx"), "no vector for item `a` \\(1 of 5 missing\\)"),
    ],
)
def test_a_wrong_file_of_vectors_is_refused(tiny_log: Any, tmp_path: Path, ids: list[str], message: str) -> None:
    np.save(tmp_path / "v.npy", np.arange(10.0).reshape(5, 2))
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    with pytest.raises(ValueError, match=message):
        from_file(leave_one_out(tiny_log), path=tmp_path / "v.npy", item_ids=tmp_path / "ids.json")


def test_a_file_that_holds_no_vectors_is_refused_in_one_line(tiny_log: Any, tmp_path: Path) -> None:
    split = leave_one_out(tiny_log)
    uneven = pl.DataFrame({"item_id": list("abcde"), "vector": [[1.0, 2.0], [1.0], [2.0], [3.0], [4.0]]})
    uneven.write_parquet(tmp_path / "uneven.parquet")
    for name in ("text.pt", "text.npy"):
        (tmp_path / name).write_text("no tensor")
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "one.npy", np.float32(1.0))
    np.save(tmp_path / "v.npy", np.array([[1.0], [np.nan], [2.0], [3.0], [4.0]]))
    (tmp_path / "ids.json").write_text('["a", "b"')
    (tmp_path / "good.json").write_text(json.dumps(list("abcde")))
    for name, ids, message in (
        ("uneven.parquet", None, "the column `vector` must hold lists of numbers, all equally long"),
        ("text.pt", None, "text.pt: it is no file that torch.save wrote"),
        ("text.npy", None, "text.npy: it is no file that numpy.save wrote"),
        ("empty.npy", None, "empty.npy: it is no file that numpy.save wrote"),
        ("one.npy", None, "a table of vectors"),
        ("v.npy", "ids.json", "ids.json:1: not valid JSON"),
        ("v.npy", "good.json", "v.npy: .*`b`"),
    ):
        with pytest.raises(ValueError, match=message):
            from_file(split, path=tmp_path / name, item_ids=tmp_path / ids if ids else None)


def test_the_sasrec_vectors_of_beauty_are_read(data: Any) -> None:
    from rectune.data_builders.lc_rec import lc_rec

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = leave_one_out(lc_rec(path=data("letter") / "Beauty"))
    vectors = from_file(split, path=data("cf_emb") / "Beauty-32d-sasrec.pt")
    assert vectors.blocks[0].shape == (12_101, 32)


def test_sasrec_gives_one_vector_an_item(tiny_log: Any) -> None:
    assert sasrec(leave_one_out(tiny_log), dimensions=4, epochs=1).blocks[0].shape == (5, 4)


def test_no_column_is_no_text() -> None:
    items = pl.DataFrame({"item_id": ["a"], "title": ["Tea"]})
    with pytest.raises(ValueError, match=r"`text`: it names no column. The items have: item_id, title"):
        item_texts(items, [])
