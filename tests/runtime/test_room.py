"""The memory that a step may take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rectune.runtime import room as rooms
from rectune.runtime.room import Matrix, Room


def test_rows_at_a_time_by_hand() -> None:
    # a quarter of 2 GB, 64 bytes a score: 2 ** 29 / 64 / 20,000 = 419.4 rows -> 384, the next lower multiple of 64
    assert Room(2).rows(20_000) == 384
    assert Room(0.5).rows(20_000) == 64
    assert Room(8).rows(20_000) == 512
    assert [len(part) for part in Room(2).blocks(1000, 20_000)] == [384, 384, 232]
    assert np.array_equal(np.concatenate(list(Room(2).blocks(1000, 20_000))), np.arange(1000))


def test_a_room_that_is_too_small_says_what_to_type() -> None:
    # 64 rows of 1,000,000 scores of 64 bytes are 3.8 GB, and they are a quarter
    with pytest.raises(
        ValueError, match=r"`eval.memory` is 2 GB, but scores of 1,000,000 items .* Give `eval.memory: 16`"
    ):
        Room(2).rows(1_000_000)
    assert Room(16).rows(1_000_000) == 64
    for wrong in (0, -1.0, True, "2"):
        with pytest.raises(ValueError, match=r"`eval.memory` is in GB and must be a number above 0"):
            Room(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.625, 0.0])
def test_a_matrix_in_a_file_is_one_in_memory(share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rooms, "MATRIX", share)
    matrix = Matrix(7, 5, np.float64, Room(folder=tmp_path))
    assert matrix.in_memory == (share > 0)
    assert (matrix.rows(np.arange(7)) == 0).all()
    expected = np.arange(35.0).reshape(7, 5)
    for begin, end in ((0, 3), (3, 7)):
        matrix.window(begin, end)[:] = expected[begin:end]
    matrix.window(2, 4)[:, 1:3] += 100
    expected[2:4, 1:3] += 100
    assert np.array_equal(matrix.rows(np.array([6, 0, 2, 2])), expected[[6, 0, 2, 2]])
    assert np.array_equal(matrix.window(1, 9), expected[1:])
    assert list(tmp_path.iterdir()) == []  # the file has no name, and goes with the matrix
