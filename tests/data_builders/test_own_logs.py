"""Logs as people have them: what is read, what is warned of, and what is refused with the way out."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rectune.data_builders import files
from rectune.data_builders.files import read_rows
from rectune.data_builders.minionerec import minionerec
from rectune.data_builders.recbole import recbole
from rectune.data_builders.table import table
from rectune.data_builders.tallrec import tallrec

from rectune.log.log import Log, LogWarning
from rectune.log.splits.given import given
from rectune.log.times import as_number
from tests.data_builders.small import quietly


def log_of(folder: Path, text: str, *, name: str = "log.csv", **keys: Any) -> Log:
    """The log of a file, warnings left out."""
    (folder / name).write_text(text, encoding="utf-8")
    return quietly(table, path=folder / name, **keys)


def warned(folder: Path, text: str, **keys: Any) -> list[str]:
    """What reading a file warns of; it stands in the log's notes, too."""
    (folder / "log.csv").write_text(text)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        log = table(path=folder / "log.csv", **keys)
    said = [str(w.message) for w in found if issubclass(w.category, LogWarning)]
    assert log.notes.get("warnings", []) == said
    return said


# ------------------------------------------------------------------------------------------------------------- order


def in_order(users: int, ids: str = "B{:05d}", *, shuffled: bool = False) -> str:
    rng = np.random.default_rng(0)
    lines = ["user,item"]
    for user in range(users):
        items = sorted(rng.choice(200, 8, replace=False).tolist(), key=lambda n: ids.format(n) if "0" in ids else n)
        if shuffled:
            rng.shuffle(items)
        lines += [f"u{user},{ids.format(item)}" for item in items]
    return "\n".join(lines)


@pytest.mark.parametrize("ids", ["B{:05d}", "{}"])
def test_rows_that_are_sorted_by_item_are_told(tmp_path: Path, ids: str) -> None:
    (said,) = warned(tmp_path, in_order(50, ids))
    assert "50 of 50 users with five or more events have them in the order of the item ids" in said
    assert warned(tmp_path, in_order(50, ids, shuffled=True)) == []
    with_time = in_order(50, ids).replace("user,item", "user,item,time").replace("\nu", "\n1,u")  # the time decides
    rows = [line.split(",") for line in with_time.split("\n")[1:]]
    timed = "user,item,time\n" + "\n".join(f"{u},{i},{n}" for n, (_, u, i) in enumerate(rows))
    assert warned(tmp_path, timed, time="time") == []


# --------------------------------------------------------------------------------------------------------------- ids


def test_values_are_read_without_the_white_space_around_them(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item, title\na, A\n b ,B\n")
    log = log_of(tmp_path, "user, item\n1, a\n1,b\n 1 ,a \n", items_path=tmp_path / "items.csv", title="title")
    assert (log.n_users, log.items["item_id"].to_list(), log.items["title"].to_list()) == (1, ["a", "b"], ["A", "B"])


@pytest.mark.parametrize(
    ("inside", "listed", "said"),
    [
        ("108775015", "0108775015", "`108775015`, and the table `0108775015`. They differ in leading zeros"),
        ("1.0", "1", "`1.0`, and the table `1`. They differ in leading zeros, in '.0' or in case"),
        ("B00a", "b00A", "`B00a`, and the table `b00A`. They differ"),
        ("x1", "y1", "`x1`, and the table `y1`. Is `item_id` the right column?"),
    ],
)
def test_ids_that_do_not_match_are_an_error_with_one_of_each(
    tmp_path: Path, inside: str, listed: str, said: str
) -> None:
    (tmp_path / "items.csv").write_text(f"item,title\n{listed},T\nother,U\n")
    with pytest.raises(ValueError, match="0 of the log's 1 items are in the item table") as error:
        log_of(tmp_path, f"user,item\n1,{inside}\n", items_path=tmp_path / "items.csv", title="title")
    assert said in str(error.value)


def test_few_matching_ids_are_an_error_and_most_are_none(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(f"i{n},T{n}" for n in range(3)))
    text = "user,item\n" + "\n".join(f"u,i{n}" for n in range(100))
    with pytest.raises(ValueError, match="3 of the log's 100 items"):
        log_of(tmp_path, text, items_path=tmp_path / "items.csv", title="title")
    (tmp_path / "items.csv").write_text("item,title\n" + "\n".join(f"i{n},T{n}" for n in range(30)))
    assert (
        log_of(tmp_path, text, items_path=tmp_path / "items.csv", title="title").notes["items_without_metadata"] == 70
    )


@pytest.mark.parametrize("word", ["NA", "null", "None", "nan", "N/A", "undefined"])
def test_words_for_a_missing_user_are_told_and_left_out_when_asked(tmp_path: Path, word: str) -> None:
    text = "user,item\n" + "".join(f"{word},{item}\n" for item in "abcd") + "1,a\n1,b\n2,b\n2,c\n"
    (said,) = warned(tmp_path, text)
    assert f"`{word}` (4 events) as user may stand for a missing one. Leave such rows out with `missing`" in said
    log = log_of(tmp_path, text, missing=[word])
    assert (log.n_users, log.n_events, log.notes["rows_without_user_or_item"]) == (2, 4, 4)


def test_one_user_with_a_large_share_is_told(tmp_path: Path) -> None:
    rows = [f"u{n % 20},i{n % 7}" for n in range(60)] + [f"shop,i{n % 9}" for n in range(40)]
    (said,) = warned(tmp_path, "user,item\n" + "\n".join(rows))
    assert "the user `shop` has 40% of all events" in said


def test_without_an_item_file_the_id_is_the_title(tmp_path: Path) -> None:
    assert log_of(tmp_path, "user,item\n1,a\n1,b\n").items["title"].to_list() == ["a", "b"]


# ------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0),
        ("2026-01-31", 1769817600),
        ("2026-01-31 18:00", 1769882400),
        ("2026-01-31 18:00:09.5", 1769882409.5),
        ("2026-01-31T18:00:09Z", 1769882409),
        ("2026-01-31 18:00:09 UTC", 1769882409),
        ("2026-01-31T18:00:09+01:00", 1769878809),
        ("2026/01/31 18:00:09", 1769882409),
        ("31.01.2026", 1769817600),
        ("Jan 31, 2026", 1769817600),
        ("Tue Apr 03 18:00:09 +0000 2012", 1333476009),
        ("12/13/2010 8:26", 1292228760),
        ("13/12/2010 8:26", 1292142360 + 86400),
    ],
)
def test_times_are_read_in_the_forms_that_are_clear(text: str, seconds: float) -> None:
    assert as_number(pl.Series("time", [text]), "log.csv: `time`").to_list() == [seconds]


def test_dates_that_may_be_month_or_day_first_are_refused_unless_it_is_said(tmp_path: Path) -> None:
    text = "user,item,time\nu,jan2,01/02/2014\nu,feb1,02/01/2014\nu,mar5,03/05/2014\n"
    with pytest.raises(ValueError, match="'01/02/2014' may be month or day first") as error:
        log_of(tmp_path, text, time="time")
    assert 'time_format: "%m/%d/%Y"' in str(error.value)
    american = log_of(tmp_path, text, time="time", time_format="%m/%d/%Y")
    european = log_of(tmp_path, text, time="time", time_format="%d/%m/%Y")
    order = [[log.items["item_id"][int(code)] for code in log.item_codes] for log in (american, european)]
    assert order == [["jan2", "feb1", "mar5"], ["feb1", "jan2", "mar5"]]
    one_is_clear = text + "u,dec31,12/31/2014\n"
    assert (
        log_of(tmp_path, one_is_clear, time="time").items["item_id"][
            int(log_of(tmp_path, one_is_clear, time="time").item_codes[0])
        ]
        == "jan2"
    )


def test_a_date_of_no_known_form_lists_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"not a number in 1 rows, the first is data row 2: '2014-13-45'\. Of dates these are read:"
    ):
        log_of(tmp_path, "user,item,time\nu,a,2014-01-01\nu,b,2014-13-45\n", time="time")
    with pytest.raises(ValueError, match="is not of the form '%Y' in 1 rows, the first is data row 1"):
        log_of(tmp_path, "user,item,time\nu,a,yesterday\n", time="time", time_format="%Y")


def test_targets_that_share_their_time_are_counted(tmp_path: Path) -> None:
    from rectune.log.splits.leave_one_out import leave_one_out

    log = log_of(tmp_path, "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, last in (("u", 3), ("v", 4)) for i, t in (("a", 1), ("b", 2), ("c", 3), ("d", last))), time="time")  # fmt: skip
    split = leave_one_out(log)
    assert split.tied(split.test) == 1
    assert split.tied(split.validation) == 0
    untimed = leave_one_out(log_of(tmp_path, "user,item\nu,a\nu,b\nu,c\nu,d\n"))
    assert untimed.tied(untimed.test) is None


# ---------------------------------------------------------------------------------------------- text of another form


def test_quotes_that_are_text(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text('item\ttitle\na\t"Weird Al" Yankovic\nb\tsay "so\n')
    keys: dict[str, Any] = {"items_path": tmp_path / "items.tsv", "title": "title", "name": "log.tsv"}
    with pytest.raises(ValueError, match=r"items.tsv:2: .*\. Where quotes are text, say `quoted: false`"):
        log_of(tmp_path, "user\titem\n1\ta\n1\tb\n", **keys)
    log = log_of(tmp_path, "user\titem\n1\ta\n1\tb\n", quoted=False, **keys)
    assert log.items["title"].to_list() == ['"Weird Al" Yankovic', 'say "so']


def test_log_and_items_may_be_separated_otherwise(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\na,A\n")
    log = log_of(tmp_path, "user\titem\n1\ta\n", separator="\t", items_path=tmp_path / "items.csv", title="title")
    assert log.items["title"].to_list() == ["A"]
    (tmp_path / "items.dat").write_bytes("a::Caf\xe9\n".encode("cp1252"))
    log = log_of(
        tmp_path, "1::a\n", name="log.dat", separator="::", columns=["user", "item"], items_path=tmp_path / "items.dat",
        items_separator="::", items_columns=["item", "title"], items_encoding="cp1252", title="title",
    )  # fmt: skip
    assert log.items["title"].to_list() == ["Café"]


@pytest.mark.parametrize(("mark", "shown"), [("\t", '"\\t"'), (";", '";"'), ("|", '"|"')])
def test_a_line_that_is_one_field_says_which_separator_it_has(tmp_path: Path, mark: str, shown: str) -> None:
    with pytest.raises(ValueError, match="no column `user`") as error:
        log_of(tmp_path, f"user{mark}item\n1{mark}a\n")
    assert f"say `separator: {shown}`" in str(error.value)


def test_lines_of_a_user_and_their_items(tmp_path: Path) -> None:
    log = log_of(tmp_path, "\ufeff7 12 5 12\r\n\n8\t5 3\n", name="set.txt", layout="sequences")
    assert log.users.to_list() == ["7", "8"]
    assert [log.items["item_id"][int(c)] for c in log.item_codes] == ["12", "5", "12", "5", "3"]
    with pytest.raises(ValueError, match=r"set.txt:2: a line must be 'USER ITEM ITEM …', got '8'"):
        log_of(tmp_path, "7 1 2\n8\n", name="set.txt", layout="sequences")


def test_several_files_a_folder_and_a_pattern_are_one_log(tmp_path: Path) -> None:
    from rectune.recipe.calls import bind
    from rectune.recipe.load import Recipe

    folder = tmp_path / "events"
    folder.mkdir()
    (folder / "part-1.csv").write_text("user,item\n1,a\n")
    with gzip.open(folder / "part-2.csv.gz", "wt") as file:
        file.write("item,user\nb,1\n")
    (folder / "_SUCCESS").write_text("")
    whole = quietly(table, path=folder)
    assert whole.n_events == 2
    several = quietly(table, path=[folder / "part-1.csv", folder / "part-2.csv.gz"])
    assert several.interactions.equals(whole.interactions)
    recipe = Recipe("r", {"data": {"call": "table", "path": "events/part-*"}}, folder=tmp_path)
    found = bind(recipe, "data", table)["path"]
    assert [file.name for file in found] == ["part-1.csv", "part-2.csv.gz"]
    listed = Recipe("r", {"data": {"call": "table", "path": ["events/part-1.csv", "events/part-2*"]}}, folder=tmp_path)
    assert bind(listed, "data", table)["path"] == found
    nothing = Recipe("r", {"data": {"call": "table", "path": "events/x*.csv"}}, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`events/x\*.csv` matches no file"):
        bind(nothing, "data", table)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is a folder without a file of a known ending"):
        table(path=tmp_path / "empty")


# -------------------------------------------------------------------------------------------------- rows that count

EVENTS = "timestamp,visitor,event,thing,price\n1,u,view,a,3\n2,u,buy,b,12\n3,v,buy,a,7\n4,v,cart,b,9\n5,u,buy,c,30\n"
NAMES: dict[str, Any] = {"user": "visitor", "item": "thing", "time": "timestamp"}


@pytest.mark.parametrize(
    ("where", "times"),
    [
        ({"event": "buy"}, [2, 3, 5]),
        ({"event": ["buy", "cart"]}, [2, 3, 4, 5]),
        ({"event": "buy", "visitor": "u"}, [2, 5]),
        ("event = 'buy' AND price < 20", [2, 3]),
        ("price BETWEEN 7 AND 12", [2, 3, 4]),
        ("event IN ('cart')", [4]),
    ],
)
def test_only_the_rows_that_are_asked_for_count(tmp_path: Path, where: Any, times: list[int]) -> None:
    for name in ("log.csv", "log.parquet", "log.jsonl"):
        (tmp_path / "log.csv").write_text(EVENTS)
        frame = pl.read_csv(tmp_path / "log.csv")
        if name.endswith("parquet"):
            frame.write_parquet(tmp_path / name)
        if name.endswith("jsonl"):
            frame.write_ndjson(tmp_path / name)
        log = quietly(table, path=tmp_path / name, where=where, **NAMES)
        assert log.times is not None
        assert sorted(log.times.tolist()) == times, name


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            {"event": "purchase"},
            r"no row has `event` 'purchase' \(`data.where`\). It has: buy \(3\), (view|cart) \(1\)",
        ),
        ({"evnt": "buy"}, r"no column `evnt` \(named by `data.where`\). Did you mean `event`"),
        ("evnt = 'buy'", r"no column `evnt` \(named by `data.where`\)"),
        ("event = ", "`data.where`: 'event = ' is not a condition in SQL"),
        ("price > 100", "no row is left by `data.where`"),
    ],
)
def test_a_wrong_condition_is_one_line(tmp_path: Path, where: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_of(tmp_path, EVENTS, where=where, **NAMES)


# --------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("form", ["lines", "list", "objects", "lines in .json"])
def test_items_as_json_of_every_form(tmp_path: Path, form: str) -> None:
    rows = [
        {"item": "a", "title": "A", "details": []},
        {"item": "b", "title": "B", "details": {"Brand": "X", "Size": ["S", "M"]}},
    ]
    file = tmp_path / ("items.jsonl" if form == "lines" else "items.json")
    lines = "\n".join(map(json.dumps, rows))
    objects = {str(row.pop("item")): row for row in map(dict, rows)} if form == "objects" else {}  # type: ignore[call-overload]
    file.write_text({"list": json.dumps(rows), "objects": json.dumps(objects)}.get(form, lines))
    name = "item_id" if form == "objects" else "item"
    log = log_of(tmp_path, "user,item\n1,a\n1,b\n", items_path=file, item_id=name, title="title")
    assert log.items["title"].to_list() == ["A", "B"]
    assert log.items["details"].to_list() == ["", "Brand: X, Size: S, M"]


@pytest.mark.parametrize("text", ['[{"user": "u", "item": "caf\u00e9"}]', '{"user": "u", "item": "caf\u00e9"}\n'])
def test_json_of_every_form_is_read_once_and_in_the_encoding_that_is_said(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rectune.data_builders import reader as module

    (tmp_path / "log.json").write_bytes(text.encode("latin-1"))
    read, whole = [], module.read_text
    monkeypatch.setattr(module, "read_text", lambda *given, **more: read.append(1) or whole(*given, **more))
    log = quietly(table, path=tmp_path / "log.json", encoding="latin-1")
    assert (log.items["item_id"].to_list(), read) == (["caf\u00e9"], [1])


# ------------------------------------------------------------------------------------------------- other people's sets

BOOK = (
    'User Preference: "The Salt Orchard" written by Mara Ellin, "Winter, at Last" written by Jo Adair\n'
    'User Unpreference: "The "Second" Clock" written by R. T. Vance, Jr.\n'
    'Whether the user will like the target book "A, "B" and C" written by D?'
)


def test_tallrecs_books_are_read_with_their_authors(tmp_path: Path) -> None:
    row = {"instruction": "Would the reader like it?", "input": BOOK, "output": "Yes."}
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
    log = quietly(tallrec, path=tmp_path)
    assert log.items["title"].to_list() == ["The Salt Orchard", "Winter, at Last", 'The "Second" Clock', 'A, "B" and C']
    assert log.items["author"].to_list() == ["Mara Ellin", "Jo Adair", "R. T. Vance, Jr.", "D"]
    split = given(log, max_history=10)
    assert log.ratings is not None
    assert log.ratings[split.test.start[0] : split.test.target[0] + 1].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("wrong", ["The Salt Orchard, Winter", '"Salt" by Mara, and more', 'x "Salt" written by Mara'])
def test_a_preference_of_which_nothing_is_read_is_an_error(tmp_path: Path, wrong: str) -> None:
    text = f'User Preference: {wrong}\nUser Unpreference: \nWhether the user will like the target movie "T"?'
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"instruction": "?", "input": text, "output": "No."}]))
    with pytest.raises(ValueError, match=r'train.json: row 1: liked titles are not a list of "TITLE"'):
        tallrec(path=tmp_path)


def test_recboles_benchmark_files_are_read_with_their_split(tmp_path: Path) -> None:
    head = "user_id:token\titem_id:token\ttimestamp:float\titem_id_list:token_seq\n"
    for name, text in (
        ("train", "1\t2\t2\t1\n1\t3\t3\t1 2\n"),
        ("valid", "1\t4\t4\t1 2 3\n"),
        ("test", "1\t5\t5\t1 2 3 4\n"),
    ):
        (tmp_path / f"x.{name}.inter").write_text(head + text)
    log = quietly(recbole, path=tmp_path)
    split = given(log, max_history=10)
    assert [len(split.part(part)) for part in ("train", "validation", "test")] == [2, 1, 1]
    assert [log.items["item_id"][int(c)] for c in split.history(split.test, 0)] == ["1", "2", "3", "4"]
    assert (log.n_users, log.n_items, log.n_events) == (1, 5, 5)
    plain = "user_id:token\titem_id:token\n"
    for name, text in (("train", "1\t1\n1\t2\n"), ("valid", "1\t3\n"), ("test", "1\t4\n")):
        (tmp_path / f"x.{name}.inter").write_text(plain + text)
    log = quietly(recbole, path=tmp_path)
    split = given(log, max_history=10)
    assert [log.items["item_id"][int(c)] for c in split.history(split.test, 0)] == ["1", "2", "3"]


def test_events_of_rows_that_repeat_their_history_are_counted_once(tmp_path: Path) -> None:
    for name in ("train", "valid", "test", "index"):
        (tmp_path / name).mkdir()
    head = "user_id,history_item_id,item_id\n"
    (tmp_path / "train" / "X.csv").write_text(head + 'u,[0],1\nu,"[0, 1]",2\nu,"[0, 1, 2]",3\n')
    (tmp_path / "valid" / "X.csv").write_text(head + 'u,"[0, 1, 2, 3]",4\n')
    (tmp_path / "test" / "X.csv").write_text(head + 'u,"[0, 1, 2, 3, 4]",5\n')
    items = {str(n): {"title": f"T{n}", "description": ""} for n in range(6)}
    (tmp_path / "index" / "X.item.json").write_text(json.dumps(items))
    assert quietly(minionerec, path=tmp_path).n_events == 6


# ----------------------------------------------------------------------------------------------- reading at full speed


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1,2,3\n", "a,b,c\n1,,3\n4,5,\n", 'a,b,c\n1,"x, y",3\n4,"say ""so""",\n', "\ufeffa,b,c\r\n1,2,3\r\n", "a,b,c\n1,2,3\n\n4,5,6\n\n\n",
        ' a , b,c\n 1 ,2, "x"\n', "a,b,c\n1,2,3", 'a,b,c\n"1\n1",2,3\n', "a,b,c\n1,NA,null\n", "a,b,c\n,,\n1,2,3\n",
    ],
)  # fmt: skip
def test_polars_and_python_read_the_same(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    fast = read_rows(tmp_path / "x.csv", separator=",")
    monkeypatch.setattr(files, "_by_polars", lambda *given: None)
    slow = read_rows(tmp_path / "x.csv", separator=",")
    assert fast.equals(slow)
    assert fast.columns == ["a", "b", "c"]


def test_most_files_are_read_at_once_and_only_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_line_by_line", lambda *given: pytest.fail("read line by line"))
    (tmp_path / "log.csv").write_text(
        "user,item,long\n" + "u,a," + "x" * 200_000 + "\nu,b,\n"
    )  # the csv module's limit is 131,072
    assert quietly(table, path=tmp_path / "log.csv").n_events == 2
    (tmp_path / "ratings.dat").write_text("1::10::5\n1::20::4\n")
    assert quietly(table, path=tmp_path / "ratings.dat", separator="::", columns=["user", "item", "r"]).n_events == 2
    with gzip.open(tmp_path / "log.csv.gz", "wt") as file:
        file.write("user,item\nu,a\n")
    assert quietly(table, path=tmp_path / "log.csv.gz").n_events == 1


@pytest.mark.parametrize(
    "text", ["user,item\nu,a\nu\nv,b\n", 'user,item,x\nu,a,"q"\nu,b\n', "user,item,x\nu,a,1\nu,b\nv\n"]
)
def test_a_row_that_is_too_short_is_found_whatever_reads_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"log.csv:3: \d fields?, but \d columns"):
        log_of(tmp_path, text)


@pytest.mark.parametrize(
    "days",
    [
        ["25/12/25", "03/01/26", "14/01/26"],
        ["25-12-25", "03-01-26"],
        ["31.12.99", "01.01.00"],
        ["12/25/25", "01/03/26"],
    ],
)
def test_years_of_two_digits_are_no_years_unless_it_is_said(days: list[str]) -> None:
    with pytest.raises(ValueError, match=r"is not a number in .* for others say `time_format`"):
        as_number(pl.Series("time", days), "log.csv: `time`")
    mark = days[0][2]
    form = f"%m{mark}%d{mark}%y" if days[0].startswith("12") else f"%d{mark}%m{mark}%y"
    read = as_number(pl.Series("time", days), "log.csv: `time`", time_format=form).to_list()
    assert read == sorted(read)
    with pytest.raises(ValueError, match="is not of the form"):
        as_number(pl.Series("time", days), "log.csv: `time`", time_format=form.replace("%y", "%Y"))


@pytest.mark.parametrize("keys", [{"time": "tiem"}, {"rating": "ratng"}])
def test_a_field_that_is_named_must_be_there(tmp_path: Path, keys: dict[str, str]) -> None:
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\ttime:float\nu\ta\t2\nu\tb\t1\n")
    ((key, name),) = keys.items()
    with pytest.raises(ValueError, match=f"no field `{name}` .named by `data.{key}`"):
        recbole(path=tmp_path, **keys)
    assert quietly(recbole, path=tmp_path).times is None
    assert quietly(recbole, path=tmp_path, time="time", rating=None).interactions["time"].to_list() == [1.0, 2.0]


def test_padding_of_sequences_is_left_out_by_its_word(tmp_path: Path) -> None:
    text = "ann 1 2 3 0 0\nbob 2 3 0 0 0\n"
    log = log_of(tmp_path, text, name="set.txt", layout="sequences", missing=["0"])
    assert sorted(log.items["item_id"]) == ["1", "2", "3"]
    assert log.notes["rows_without_user_or_item"] == 5
    as_it_is = log_of(tmp_path, text, name="set.txt", layout="sequences")
    assert len(as_it_is.items) == 4
    assert "rows_without_user_or_item" not in as_it_is.notes
    without_bob = log_of(tmp_path, text, name="set.txt", layout="sequences", missing=["bob"])
    assert without_bob.notes["rows_without_user_or_item"] == 5
    with pytest.raises(ValueError, match=r"every event has one of `data\.missing` as user or item"):
        log_of(tmp_path, text, name="set.txt", layout="sequences", missing=["ann", "bob"])


@pytest.mark.parametrize("keys", [{"where": {"x": "y"}}, {"time": "when"}, {"rating": "r"}, {"columns": ["q"]}])
def test_what_sequences_have_no_use_for_is_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"no use for `data.{next(iter(keys))}`"):
        log_of(tmp_path, "ann 1 2 3\n", name="set.txt", layout="sequences", **keys)


def test_rows_of_items_without_an_id_are_told(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\na,Tea\nb,Cup\n,\n ,\n")
    with pytest.raises(ValueError, match="`item_id` is empty in 2 rows of the item table, the first is data row 3"):
        log_of(tmp_path, "user,item\nu,a\nu,b\n", items_path=tmp_path / "items.csv", title="title")


def test_an_id_of_white_space_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`user` is empty in 1 rows"):
        log_of(tmp_path, '{"user": " ", "item": "a"}\n{"user": "u", "item": "b"}\n', name="log.jsonl")


def test_a_flag_of_parquet_is_compared_with_true_and_false(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["u", "u", "v"], "item": ["a", "b", "a"], "bought": [True, False, True]}).write_parquet(file)
    assert quietly(table, path=file, where={"bought": True}).interactions.height == 2


@pytest.mark.parametrize(
    ("text", "items"), [("user,item\ru,a\ru,b\rv,a\r", 2), (f"user,item,{'x' * 140_000}\nu,a,1\n", 1)]
)
def test_old_line_ends_and_long_first_lines_are_read(tmp_path: Path, text: str, items: int) -> None:
    assert log_of(tmp_path, text).n_items == items
