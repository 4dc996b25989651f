"""Train the stages of several recipes one after the other, and run the last one to its report: python -m tests.several RECIPE…, under a launcher of
several processes."""

from __future__ import annotations

import sys
from pathlib import Path

from rectune.cli import main
from tests.runs import tuned

if __name__ == "__main__":
    for recipe in sys.argv[1:]:
        tuned(Path(recipe))
    sys.exit(main(["train", sys.argv[-1], "--traceback"]))
