"""Training rows to token ids: put together, as every run does where names are codes, beside rendering and encoding each row.

    python -m benchmarks.prompts RUN [--rows 4000] [--pairs 7]
    python -m benchmarks.prompts RECIPE [--rows 4000] [--pairs 7] [--KEY VALUE …]

RUN is a finished run; with RECIPE log, split, index and tokenizer are found in its output folder, where a training may still run. The rivals: the template and the fast tokenizer row by row, and the tokenizer given all rendered texts at once (`encode_batch`),
which is right only where no title spells a special token. The gate: the same ids on every row. CPU seconds of one thread, what is met for the first time
(patterns, stretches) known already; the time of a first pass is printed too. `lists`: with examples as the lists that a trainer takes.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import tokenizers
import torch

from benchmarks.side_by_side import claim, say, side_by_side
from rectune.cli import parse_overrides
from rectune.log.split import evenly
from rectune.recipe.load import load_recipe
from rectune.run.run import open_recipe, open_run
from rectune.tasks.examples import RowPrompts, fit


def main() -> int:
    """All sides in turn; the gate, the rates and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=7)
    args, rest = parser.parse_known_args()
    keys = parse_overrides(rest)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    run = open_run(args.run, keys) if Path(args.run).is_dir() else open_recipe(load_recipe(args.run, keys))
    encoder, template, rows = run.encoder, run.asked.template, run.rows_of_split(run.split)
    which, wording = [int(i) for i in evenly(len(rows), args.rows)], run.asked.rank.wording
    made, some = RowPrompts(encoder, template), rows.take(np.array(which))
    wordings = np.full(len(which), wording)

    def ours() -> list[list[int]]:
        return [e.prompt + e.completion for e in made.examples(some, wordings, max_length=None)]

    def arrays() -> None:
        made.encoded(some, wordings, max_length=None)

    def row_by_row() -> list[list[int]]:
        examples = [fit(encoder, template, wording, rows.variables(i), max_length=None, what="") for i in which]
        return [example.prompt + example.completion for example in examples]

    def at_once() -> list[list[int]]:
        return [
            encoding.ids
            for encoding in encoder.tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        ]

    known = row_by_row()
    texts = [encoder.tokenizer.decode(ids) for ids in known]  # what a template that prints names as text would give
    begin = time.process_time()
    if ours() != known:
        say("GATE FAILED: rows differ")
        return 1
    first = time.process_time() - begin
    label = f"{run.asked.recipe.name}, {template.name}, {len(which):,} rows of {np.mean([len(ids) for ids in known]):.0f} tokens"
    say(f"{label}: {len(which) / first:,.0f} rows/s in a first pass")
    rivals = (("row by row", row_by_row), ("texts that are rendered already, encoded at once", at_once))
    for what, mine in (("arrays", arrays), ("lists", ours)):
        for name, rival in rivals:
            seconds, theirs, ratio = side_by_side(mine, rival, args.pairs)
            say(
                f"{label}: {what}, {len(which) / seconds:,.0f} rows/s, {name} {len(which) / theirs:,.0f}; {claim(ratio)}"
            )
    say(f"{platform.machine()}, one thread, tokenizers {tokenizers.__version__}, torch {torch.__version__}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
