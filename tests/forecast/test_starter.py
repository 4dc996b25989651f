"""`rectune init`: columns told by their names, times, event types, item files, a base that fits, and what it cannot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rectune.cli import main
from rectune.forecast import starter as starters
from rectune.recipe.load import load_recipe
from rectune.run.asked import ask

EVENTS = "timestamp,visitorid,event,itemid\n" + "".join(
    f"{n},u{n % 7},{'transaction' if n % 3 else 'view'},i{n % 11}\n" for n in range(200)
)
ITEMS = "sku,product_name,brand,price\n" + "".join(f"i{n},Tea number {n},Leaf {n % 3},{n}.5\n" for n in range(11))


def init(folder: Path, monkeypatch: pytest.MonkeyPatch, log: str, *more: str, name: str = "log.csv") -> Any:
    """The recipe that is written for a log, bound and checked."""
    monkeypatch.chdir(folder)
    (folder / name).write_text(log)
    assert main(["init", name, "--traceback", *more]) == 0
    return ask(load_recipe(folder / f"{name.partition('.')[0]}.yaml"))


def test_columns_event_types_and_items_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    asked = init(tmp_path, monkeypatch, EVENTS, "--items", "items.csv")
    said = {key: asked.data.arguments[key] for key in ("user", "item", "time", "where", "item_id", "title", "text")}
    assert said == {
        "user": "visitorid", "item": "itemid", "time": "timestamp", "where": {"event": "transaction"}, "item_id": "sku",
        "title": "product_name", "text": ["brand"],
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "event types: transaction (133), view (67); kept: transaction" in out
    assert "items: id `sku` (100% of the log's items looked at are there), title `product_name`" in out
    assert out.endswith("wrote log.yaml. Next: rectune preview log.yaml\n")
    assert (
        main(
            [
                "preview",
                "log.yaml",
                "--traceback",
                "--vectors",
                "null",
                "--index",
                "{call: atomic}",
                "--eval.k",
                "[1]",
                "--rank.k",
                "1",
            ]
        )
        == 0
    )
    assert "7 users, 11 items, 133 events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "user", "item", "time"),
    [
        ("userId,movieId,rating,timestamp", "userId", "movieId", "timestamp"),
        ("customer_id,article_id,when", "customer_id", "article_id", "when"),
        ("session_id;sku;date", "session_id", "sku", "date"),
        ("reviewerID\tasin\tunixReviewTime", "reviewerID", "asin", "unixReviewTime"),
        ("user_id,user_name,item_id,item_name", "user_id", "item_id", None),
    ],
)
def test_common_names_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, user: str, item: str, time: str | None
) -> None:
    mark = next(mark for mark in ",;\t" if mark in header)
    rows = [mark.join(str(1 + (n * k) % 5) for k in range(1, header.count(mark) + 2)) for n in range(40)]
    asked = init(tmp_path, monkeypatch, "\n".join([header, *rows]))
    assert (asked.data.arguments["user"], asked.data.arguments["item"]) == (user, item)
    assert asked.data.arguments.get("time") == time


def test_dates_that_may_be_two_are_written_with_a_word_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    rows = "".join(f"u,i{n},0{1 + n % 5}/0{1 + n % 7}/2014\n" for n in range(20))
    asked = init(tmp_path, monkeypatch, "user,item,date\n" + rows)
    assert asked.data.arguments["time_format"] == "%m/%d/%Y"
    assert "CHECK" in (tmp_path / "log.yaml").read_text()
    assert "may be month or day first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("log", "more", "message"),
    [
        ("a,b\n1,2\n", [], "log.csv: which column is the user? It has: a, b. Say `--user COLUMN`"),
        ("user,b\n1,2\n", [], "which column is the item?"),
        ("user,item\n1,2\n", ["--user", "usr"], "no column `usr` (`--user`). It has: user, item"),
        ("user,item\n1,2\n", ["--items", "nothing.csv"], "`nothing.csv` was not found"),
        ("user,item\n1,2\n", ["--gpu", "1XB"], "--gpu 1XB"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, log: str, more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(log)
    assert main(["init", "log.csv", *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "log.yaml").exists()


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    init(tmp_path, monkeypatch, EVENTS)
    assert main(["init", "log.csv"]) == 1
    assert "log.yaml exists and is not overwritten" in capsys.readouterr().err


def test_the_base_is_the_largest_that_the_planner_says_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path], capsys: Any
) -> None:
    from tests.conftest import save_checkpoint

    large = tmp_path / "large"
    save_checkpoint(large, tied=False, hidden_size=2048, intermediate_size=2048, num_hidden_layers=2)
    monkeypatch.setattr(starters, "BASES", ((str(large), False), (str(checkpoints["tied"]), False)))
    asked = init(tmp_path, monkeypatch, EVENTS, "--gpu", "24GB", name="wide.csv")
    assert asked.model.library.model_name_or_path == str(large)
    assert "the largest of 2 that the planner says fits a card of 24 GB" in capsys.readouterr().out
    asked = init(tmp_path, monkeypatch, EVENTS, "--gpu", "0.7GB", name="narrow.csv")
    assert asked.model.library.model_name_or_path == str(checkpoints["tied"])
