"""MovieLens: a zip, its download, and the public counts."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rectune.data_builders import files
from rectune.data_builders import movielens as movielens_module
from rectune.data_builders.movielens import movielens

from tests.data_builders.small import MOVIES, RATINGS, counts, quietly


def archive(folder: Path) -> Path:
    file = folder / "ml-latest-small.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("ml-latest-small/ratings.csv", RATINGS)
        out.writestr("ml-latest-small/movies.csv", MOVIES)
    return file


def test_movielens_from_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    log = quietly(movielens, size="latest-small", path=archive(tmp_path))
    assert counts(log) == (2, 3, 3)
    assert log.items["genres"].to_list() == ["Western, Drama", "", "Drama"]


def test_a_zip_that_leads_out_of_its_folder_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "evil.zip"
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("../escaped.csv", "x")
    with pytest.raises(ValueError, match=r"the path `../escaped.csv` leads out of the archive"):
        movielens(size="latest-small", path=file)
    assert not list(tmp_path.rglob("escaped.csv"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback that serves a folder."""
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(served))

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    server.server_close()


def test_the_download_is_checked_and_kept(
    tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = site
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens_module, "SITE", address)
    digest = hashlib.md5(archive(served).read_bytes()).hexdigest()
    (served / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")
    assert counts(quietly(movielens, size="latest-small")) == (2, 3, 3)
    for file in served.iterdir():
        file.unlink()
    assert counts(quietly(movielens, size="latest-small")) == (2, 3, 3)  # from the cache


def test_a_checksum_that_differs_leaves_nothing_behind(tmp_path: Path, site: tuple[str, Path]) -> None:
    address, served = site
    archive(served)
    with pytest.raises(ValueError, match=r"its MD5 is \w+, but 0123 was expected"):
        files.download(f"{address}/ml-latest-small.zip", tmp_path / "cache" / "x.zip", md5="0123")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("size", "folder", "expected"),
    [("latest-small", "ml-latest-small", (610, 9742, 100_836)), ("100k", "ml-100k", (943, 1682, 100_000))],
)
def test_real_movielens_has_its_published_counts(
    data: Any, size: Any, folder: str, expected: tuple[int, int, int]
) -> None:
    log = quietly(movielens, size=size, path=data(folder))
    assert counts(log) == expected
    if size == "100k":
        assert "Misérables, Les (1995)" in log.items["title"].to_list()
        assert (
            log.items.filter(pl.col("title").str.starts_with("Toy Story"))["genres"][0]
            == "Animation, Children's, Comedy"
        )


def test_a_damaged_zip_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "ml-latest-small.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("ml-latest-small/movies.csv", MOVIES)
        out.writestr("ml-latest-small/ratings.csv", RATINGS + "1,30,2.0,99\n" * 500)
    raw = bytearray(file.read_bytes())
    at = raw.index(b"ratings.csv") + len("ratings.csv")
    raw[at : at + 6] = b"\xff" * 6
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"ml-latest-small.zip: damaged zip file"):
        movielens(size="latest-small", path=file)
    assert not list((tmp_path / "cache").rglob("*.partial"))
