"""Train several recipes one after the other: python -m tests.several RECIPE…, under a launcher of several processes."""

from __future__ import annotations

import sys

from rectune.cli import main

if __name__ == "__main__":
    sys.exit(max(main(["train", recipe, "--traceback"]) for recipe in sys.argv[1:]))
