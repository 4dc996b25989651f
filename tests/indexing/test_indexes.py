"""Indexes: names are unique, collisions are repaired and counted."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rectune.indexing.atomic import atomic
from rectune.indexing.given import given
from rectune.indexing.hybrid import hybrid
from rectune.indexing.item_index import ItemIndex, from_levels, health_of, repair_with_digit
from rectune.indexing.quantiser import fit_residuals
from rectune.indexing.residual_kmeans import residual_kmeans
from rectune.indexing.titles import titles
from rectune.log.cleaning import make_log
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe
from rectune.vectors.sentences import sentences
from rectune.vectors.texts import item_texts


def split_of(item_titles: list[str]) -> Split:
    ids = [str(i) for i in range(len(item_titles))]
    items = pl.DataFrame({"item_id": ids, "title": item_titles})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return leave_one_out(make_log(pl.DataFrame({"user": ["u"] * len(ids), "item": ids}), items, source="x"))


def test_repeated_titles_get_numbers() -> None:
    index = titles(split_of(["Soap", "soap", "SOAP ", "Soap (2)", ""]))
    assert index.titles == ("Soap", "soap (2)", "SOAP (3)", "Soap (2) (2)", "untitled")
    assert len({t.casefold() for t in index.titles}) == 5
    assert index.health["colliding_items_before_repair"] == 3


def test_many_equal_titles_take_no_time() -> None:
    index = titles(split_of(["Soap"] * 20_000))
    assert index.titles[-1] == "Soap (20000)"


def test_atomic_gives_each_item_one_token_that_means_its_title() -> None:
    index = atomic(split_of(["A", "B", "C"]))
    assert [index.tokens(i) for i in range(3)] == [["<a_0>"], ["<a_1>"], ["<a_2>"]]
    assert index.meanings == ("A", "B", "C")


def test_users_share_tokens_that_stand_behind_those_of_items(tmp_path: Path) -> None:
    plain = atomic(split_of(["A", "B", "C"]))
    index = plain.with_user_tokens(2)
    assert index.vocabulary == (*plain.vocabulary, "<user_0>", "<user_1>")
    codes = {index.user_code(f"u{i}") for i in range(50)}
    assert codes == {3, 4}
    assert index.user_code("u7") == index.user_code("u7")
    assert index.user_code("") is None  # nobody in particular
    assert plain.user_code("u7") is None
    index.save(tmp_path)
    again = ItemIndex.load(tmp_path)
    assert [again.user_code(f"u{i}") for i in range(50)] == [index.user_code(f"u{i}") for i in range(50)]


@pytest.mark.parametrize("count", ["-1", "many", "true"])
def test_a_wrong_number_of_user_tokens_is_refused(quick_recipe: Path, count: str) -> None:
    with pytest.raises(ValueError, match=r"index.user_tokens.*it must be a whole number from 0 on"):
        open_recipe(load_recipe(quick_recipe, [("index.user_tokens", count)]))


def test_only_used_codes_become_tokens() -> None:
    index = from_levels(np.array([[5, 1], [5, 9], [7, 1]], dtype=np.int32))
    assert index.vocabulary == ("<a_5>", "<a_7>", "<b_1>", "<b_9>")
    assert [index.name(i) for i in range(3)] == ["<a_5><b_1>", "<a_5><b_9>", "<a_7><b_1>"]


def test_shared_names_are_refused_unless_repaired() -> None:
    levels = np.array([[1, 2], [1, 2], [3, 4]], dtype=np.int32)
    with pytest.raises(ValueError, match=r"items 0 and 1 share the name \[1, 2\]"):
        from_levels(levels)
    repaired, colliding = repair_with_digit(levels)
    assert repaired.tolist() == [[1, 2, 0], [1, 2, 1], [3, 4, 0]]
    assert colliding.tolist() == [True, True, False]


def test_health_by_hand() -> None:
    report = health_of(np.array([[0], [0], [1], [1]], dtype=np.int32), np.zeros(4, dtype=bool))
    assert report["levels"] == [
        {"codes_used": 2, "items_per_code_mean": 2.0, "items_per_code_max": 2, "perplexity": pytest.approx(2.0)}
    ]


def test_residual_clusters_separate_what_is_apart(rng: np.random.Generator) -> None:
    centres = np.array([[0, 0], [10, 0], [0, 10]])[np.repeat([0, 1, 2], 20)]
    vectors = (centres + rng.normal(0, 0.1, (60, 2))).astype(np.float32)
    codes = fit_residuals(vectors, levels=2, codes=3, seed=0).codes(vectors)[0]
    assert [len(set(codes[i : i + 20, 0])) for i in (0, 20, 40)] == [1, 1, 1]
    assert len(set(codes[:, 0])) == 3
    assert np.array_equal(codes, fit_residuals(vectors, levels=2, codes=3, seed=0).codes(vectors)[0])


@pytest.mark.heavy
def test_semantic_ids_of_the_bundled_embedder_are_unique_and_meaningful(small_shop: Any) -> None:
    split = leave_one_out(small_shop)
    index = residual_kmeans(split, sentences(split, text=["categories", "title"]), levels=2, codes=6)
    assert len({index.name(i) for i in range(len(index))}) == split.log.n_items
    first = index.codes[:, 0]
    categories = np.array(split.log.items["categories"].to_list())
    purity = np.mean([max(np.mean(categories[first == c] == k) for k in set(categories)) for c in set(first)])
    assert purity > 0.8
    assert all(index.meanings[c] for c in set(first))


def test_a_text_column_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=r"no column `colour`. They have: item_id, title"):
        item_texts(split_of(["A", "B", "C"]).log.items, ["colour"])


def write(folder: Path, names: Any) -> Path:
    (folder / "x.index.json").write_text(json.dumps(names))
    return folder / "x.index.json"


def test_a_given_index_is_read_and_repaired(tmp_path: Path) -> None:
    names = {"0": ["<a_1>", "<b_2>"], "1": ["<a_1>", "<b_2>"], "2": ["<a_0>", "<b_2>"]}
    with pytest.warns(UserWarning, match="2 items share a name with another one, `0` among them"):
        index = given(split_of(["A", "B", "C"]), path=write(tmp_path, names))
    assert [index.name(i) for i in range(3)] == ["<a_1><b_2><c_0>", "<a_1><b_2><c_1>", "<a_0><b_2><c_0>"]
    assert index.health["colliding_items_before_repair"] == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": ["<a_1>"], "1": ["<a_2>"]}, "no name for item `2`"),
        ({"0": ["<a_1>"], "1": ["<a_2>"], "2": ["<b_1>"]}, "token '<b_1>' is not of the form '<a_12>'"),
        ([1, 2], "maps item ids to lists of tokens, got a list"),
        (
            {"0": ["<a_1>"], "1": ["<a_2>"], "2": ["<a_3>"], "9": ["<a_4>"]},
            "names item `9`, which the catalogue does not",
        ),
        ({"0": ["<a_1>"], "1": ["<a_2>", "<b_1>"], "2": ["<a_3>"]}, "item `0` has 1 tokens and item `1` has 2"),
    ],
)
def test_a_wrong_index_file_is_refused(tmp_path: Path, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(split_of(["A", "B", "C"]), path=write(tmp_path, names))


FORMS: dict[str, tuple[Any, list[str]]] = {
    "one text": ({"0": "<a_1><b_2>", "1": "<a_1><b_3>", "2": "<a_0><b_2>"}, ["<a_1><b_2>", "<a_1><b_3>", "<a_0><b_2>"]),
    "tokens of OneRec": (
        {"0": ["<s_a_1>", "<s_b_2>"], "1": ["<s_a_1>", "<s_b_3>"], "2": ["<s_a_0>", "<s_b_2>"]},
        ["<s_a_1><s_b_2>", "<s_a_1><s_b_3>", "<s_a_0><s_b_2>"],
    ),
    "text of OneRec": (
        {str(i): f"<|sid_begin|><s_a_{i}><s_b_9><s_c_4><|sid_end|>" for i in range(3)},
        ["<s_a_0><s_b_9><s_c_4>", "<s_a_1><s_b_9><s_c_4>", "<s_a_2><s_b_9><s_c_4>"],
    ),
    "codes": ({"0": [340, 6566], "1": [0, 6566], "2": [340, 0]}, ["<s_a_340><s_b_6566>", "<s_a_0><s_b_6566>", "<s_a_340><s_b_0>"]),
    "packed": (  # 5 * 8192 ** 2 + 7 * 8192 + 8191, and 2
        {"335609855": [{"pid": 1, "count": 9}], "2": [{"iid": 0, "count": 9}], "8193": [{"pid": 2}]},
        ["<s_a_0><s_b_0><s_c_2>", "<s_a_5><s_b_7><s_c_8191>", "<s_a_0><s_b_1><s_c_1>"],
    ),
    "with points": (
        {"5.7.8191": [{"pid": 1}], "0.0.2": [{"pid": 0}], "9000.0.1": [{"pid": 2}]},
        ["<s_a_0><s_b_0><s_c_2>", "<s_a_5><s_b_7><s_c_8191>", "<s_a_9000><s_b_0><s_c_1>"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_names_are_read_in_other_forms(tmp_path: Path, form: str) -> None:
    names, expected = FORMS[form]
    index = given(split_of(["A", "B", "C"]), path=write(tmp_path, names))
    assert [index.name(i) for i in range(3)] == expected


def test_a_table_of_onerec_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"pid": [2, 0, 1], "sid": [[4, 5, 6], [1, 2, 3], [1, 2, 4]]}).write_parquet(
        tmp_path / "pid2sid.parquet"
    )
    index = given(split_of(["A", "B", "C"]), path=tmp_path / "pid2sid.parquet")
    assert [index.name(i) for i in (0, 2)] == ["<s_a_1><s_b_2><s_c_3>", "<s_a_4><s_b_5><s_c_6>"]
    pl.DataFrame({"item": ["0"]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="has the columns pid and sid, got item"):
        given(split_of(["A", "B", "C"]), path=tmp_path / "other.parquet")


def test_items_that_share_a_packed_name_are_told_apart(tmp_path: Path) -> None:
    names = {"8193": [{"pid": 0}, {"pid": 2}], "2": [{"pid": 1}]}
    with pytest.warns(UserWarning, match="2 items share a name"):
        index = given(split_of(["A", "B", "C"]), path=write(tmp_path, names))
    assert index.name(2) == "<s_a_0><s_b_1><s_c_1><s_d_1>"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"0": "<s_a_1>", "1": "<s_b_2>", "2": "<s_a_3>"}, "token '<s_b_2>' is not of the form '<s_a_12>'"),
        ({"0": ["<s_a_1>", "<b_1>"], "1": [], "2": []}, "token '<b_1>' is not of the form '<s_b_12>'"),
        ({"0": "<s_a_1>", "1": "<a_2>", "2": "<a_3>"}, "item `0` begin with '<s_a_' and those of item `1` with '<a_'"),
        ({"0": "<|sid_begin|><|sid_end|>", "1": "<a_2>", "2": "<a_3>"}, "must be a list of tokens, got '<|sid_begin|>"),
        ({"0": "tea", "1": "<a_2>", "2": "<a_3>"}, "must be a list of tokens, got 'tea'"),
        ({"0": "tea <a_1>", "1": "<a_2>", "2": "<a_3>"}, "token 'tea ' is not of the form"),
        ({"0": [1, 2000000000], "1": [1], "2": [1]}, "token 1 is not of the form"),
        ({"8193": [{"pid": 0}], "x": [{"pid": 1}]}, "`x` is not of OneRec's form"),
        ({"8193": [{"pid": 0}], "3": 4}, "`3` is not of OneRec's form"),
        ({"8193": [{"pid": 0}], "549755813888": [{"pid": 1}]}, "`549755813888` is not of OneRec's form"),  # 8192 ** 3
        ({"8193": [{"pid": 0}], "3": [{"id": 1}]}, "`3` is not of OneRec's form"),
        ({"8193": [{"pid": 0}], "3": [{"pid": 0}]}, "item `0` is there twice"),
    ],
)  # fmt: skip
def test_a_wrong_name_of_another_form_is_refused(tmp_path: Path, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        given(split_of(["A", "B", "C"]), path=write(tmp_path, names))


def test_all_codes_of_all_levels_get_a_token_one_behind_another() -> None:
    levels = np.array([[2, 1], [0, 1]], dtype=np.int32)
    index = from_levels(levels, sizes=[3, 2], prefix="s_", meanings=[["tea", "milk", "cups"]])
    assert index.vocabulary == ("<s_a_0>", "<s_a_1>", "<s_a_2>", "<s_b_0>", "<s_b_1>", "<|sid_begin|>", "<|sid_end|>")
    assert index.meanings == ("tea", "milk", "cups", "", "", "", "")
    assert [index.name(i) for i in range(2)] == ["<s_a_2><s_b_1>", "<s_a_0><s_b_1>"]
    assert index.health == from_levels(levels).health


def test_an_item_that_an_index_file_names_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.index.json").write_text('{"0": ["<a_1>"], "1": ["<a_2>"], "2": ["<a_3>"], "1": ["<a_4>"]}')
    with pytest.raises(ValueError, match=r"x.index.json: `1` is there twice"):
        given(split_of(["A", "B", "C"]), path=tmp_path / "x.index.json")


def test_a_hybrid_of_an_index_that_reads_vectors_is_refused() -> None:
    base = {"call": "residual_kmeans"}
    with pytest.raises(ValueError, match="names items by their vectors, and a hybrid gives it none"):
        hybrid(split_of(["A", "B", "C"]), base=base)


def test_a_token_that_the_tokenizer_already_has_is_refused() -> None:
    from rectune.model.new_tokens import add_tokens, train_tokenizer

    tokenizer = train_tokenizer(["words"], 300)
    tokenizer.add_tokens(["<a_1>"])
    with pytest.raises(ValueError, match="the tokenizer already has the token '<a_1>' of the item index"):
        add_tokens(tokenizer, from_levels(np.array([[0], [1], [2]], dtype=np.int32)).vocabulary)


def test_an_index_survives_saving(tmp_path: Path) -> None:
    index = atomic(split_of(["A", "B", "C"]))
    index.save(tmp_path)
    again = ItemIndex.load(tmp_path)
    assert again.vocabulary == index.vocabulary
    assert again.meanings == index.meanings
    assert np.array_equal(again.codes, index.codes)


@pytest.mark.parametrize(("name", "colliding"), [("letter_native", None), ("rkmeans_zcr", 0)])
def test_the_indexes_of_scientific_are_read(data: Any, name: str, colliding: int | None) -> None:
    from rectune.data_builders.lc_rec import lc_rec

    folder = data("amazon18_scientific")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = leave_one_out(lc_rec(path=folder))
        index = given(split, path=folder / "indexes" / f"{name}.index.json.gz")
    assert len({index.name(i) for i in range(len(index))}) == 4344
    found = index.health["colliding_items_before_repair"]
    assert found == 0 if colliding == 0 else 27 <= found <= 875
