"""Train the stages of several recipes one after the other: python -m tests.several RECIPE…, under a launcher of several processes."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.runs import tuned

if __name__ == "__main__":
    for recipe in sys.argv[1:]:
        tuned(Path(recipe))
