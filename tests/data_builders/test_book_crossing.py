"""Book-Crossing from files in the form of the originals: escapes, a glued row, implicit zeros, unknown books."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from rectune.data_builders.book_crossing import book_crossing

BOOKS = (
    '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"\n'
    '"1";"Plain; with a semicolon";"Ann A";"2000";"P";"s";"m";"l"\n'
    '"2";"The \\"Quoted\\" One &amp; Co";"B\u00f6ll";"2001";"P";"s";"m";"l"\n'
    '"3";"Glued (Level 4)\\";Michael T";"2000";"P";"s";"m";"l"\n'
    '"4";"Fourth";"D";"2000";"P";"s";"m";"l"\n'
    '"5";"Fifth";"E";"2000";"P";"s";"m";"l"\n'
)
HEAD = '"User-ID";"ISBN";"Book-Rating"\n'


def written(folder: Path, ratings: list[tuple[str, str, int]]) -> Path:
    (folder / "BX-Books.csv").write_bytes(BOOKS.encode("latin-1"))
    (folder / "BX-Book-Ratings.csv").write_text(HEAD + "".join(f'"{u}";"{i}";"{r}"\n' for u, i, r in ratings))
    return folder


RATED = [("7", "1", 0), ("7", "2", 8), ("7", "3", 5), ("7", "4", 9), ("7", "5", 2), ("7", "unknown", 9), ("8", "1", 6)]


def test_books_are_read_as_the_source_means_them(tmp_path: Path) -> None:
    log = book_crossing(path=written(tmp_path, RATED), user_core=0, implicit="dislike")
    titles = dict(zip(log.items["item_id"], log.items["title"], strict=True))
    authors = dict(zip(log.items["item_id"], log.items["author"], strict=True))
    assert titles["1"] == "Plain; with a semicolon"
    assert titles["2"] == 'The "Quoted" One & Co'
    assert (titles["3"], authors["3"]) == ("Glued (Level 4)", "Michael T")
    assert authors["2"] == "B\u00f6ll"


def test_zeros_and_unknown_books_are_left_out_and_counted(tmp_path: Path) -> None:
    log = book_crossing(path=written(tmp_path, RATED))
    assert log.users.to_list() == ["7"]  # user 8 has one rating, fewer than `user_core`
    assert sorted(log.ratings.tolist()) == [2.0, 5.0, 8.0, 9.0]  # type: ignore[union-attr]
    assert log.notes["left_out"] == {"implicit_ratings": 1, "ratings_of_unknown_books": 1}
    with_zeros = book_crossing(path=tmp_path, implicit="dislike")
    assert sorted(with_zeros.ratings.tolist()) == [0.0, 2.0, 5.0, 8.0, 9.0]  # type: ignore[union-attr]


def test_the_order_of_a_user_is_drawn_from_the_seed(tmp_path: Path) -> None:
    folder = written(
        tmp_path, [("7", str(n), n + 1) for n in range(1, 6)] + [("9", str(n), 10 - n) for n in range(1, 6)]
    )
    orders = {tuple(book_crossing(path=folder, order_seed=s).interactions["rating"].to_list()) for s in range(6)}
    assert len(orders) > 1
    first = book_crossing(path=folder, order_seed=1)
    assert first.interactions.equals(book_crossing(path=folder, order_seed=1).interactions)
    assert first.users.to_list() == ["7", "9"]
    assert isinstance(first.interactions, pl.DataFrame)


def test_a_damaged_row_names_file_and_line(tmp_path: Path) -> None:
    folder = written(tmp_path, RATED)
    (folder / "BX-Book-Ratings.csv").write_text(HEAD + '"7";"1"\n')
    with pytest.raises(ValueError, match=r"BX-Book-Ratings.csv:2: 2 fields, but 3 columns"):
        book_crossing(path=folder)


def test_the_newer_release_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "Books.csv").write_text('ISBN,Book-Title,Book-Author,Year\n1,"A, B",Ann,2000\n2,C,D,2001\n')
    (tmp_path / "Ratings.csv").write_text("User-ID,ISBN,Book-Rating\n7,1,8\n7,2,3\n")
    log = book_crossing(path=tmp_path, user_core=2)
    assert sorted(log.items["title"].to_list()) == ["A, B", "C"]


def test_a_column_too_many_is_told(tmp_path: Path) -> None:
    written(tmp_path, RATED)
    file = tmp_path / "BX-Book-Ratings.csv"
    file.write_text("\n".join(f'{line};"x"' for line in file.read_text().splitlines()) + "\n")
    with pytest.raises(
        ValueError, match=r"BX-Book-Ratings.csv: it has 4 columns .* but 3 are expected: user, book and rating"
    ):
        book_crossing(path=tmp_path)
