"""Columns of a log as files of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAPPED = 1 << 20  # bytes; a larger file is mapped, not read


def read_array(file: Path, source: str) -> NDArray[Any]:
    """The array of a file. Raises ValueError naming `source` for one that holds none."""
    try:
        return np.asanyarray(np.load(file, mmap_mode="r" if file.stat().st_size > MAPPED else None))
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{source}: {file.name} is no array of NumPy ({' '.join(str(error).split())}).") from None
