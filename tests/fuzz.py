"""Recipes, logs and index files with one thing wrong: each try ends well, or with one line that names its key or place.

`python -m tests.fuzz COUNT [SEED] [KIND]` tries each kind so often and prints what is not as it must be; tests/test_fuzz.py tries a few.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import json
import os
import random
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from rectune.cli import LONGEST, main

ITEMS, USERS = 24, 16
SMALL = {
    "num_train_epochs": 1,
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "max_length": 96,
    "learning_rate": 0.01,
}
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128,
}  # fmt: skip
SHOP = {
    "data": {"call": "synthetic", "users": 20, "items": 32, "categories": 4, "shortest": 5, "longest": 8},
    "split": {"call": "leave_one_out", "max_history": 6},
    "vectors": [{"call": "from_file", "path": "shop.parquet"}],
    "index": {"call": "residual_kmeans", "levels": 2, "codes": 8},
    "tasks": [{"call": "next_item", "template": "next-item-names.jinja", "examples": "windows"}],
    "model": {"from_scratch": {**LLAMA, "tie_word_embeddings": True}, "text_vocab_size": 300, "device": "cpu"},
    "stages": [{"call": "sft", "completion_only_loss": False, "lr_scheduler_type": "cosine", "weight_decay": 0.1, "ranked_rows": 5, **SMALL}],
    "rank": {"template": "next-item-names.jinja", "wording": 0, "beams": 5, "k": 3, "scores": "catalogue"},
    "eval": {"call": "ranking", "k": [1, 3], "oracle": "synthetic"},
    "seed": 0,
    "output_dir": "runs/fuzzed",
}  # fmt: skip
TALLREC = {
    "data": {"call": "tallrec", "path": "movie"},
    "split": {"call": "given", "max_history": 8, "shots": None},
    "index": {"call": "titles"},
    "tasks": [{"call": "like_or_dislike", "template": "like-or-dislike.jinja", "like_above": 0.5, "share": 1.0}],
    "model": {"from_scratch": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 256, "attn_pdrop": 0.1},
              "text_vocab_size": 300, "use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.05},
    "stages": [
        {"call": "sft", "tasks": [{"call": "instructions", "template": "instruction.jinja", "path": "talk.jsonl"}], **SMALL},
        {"call": "sft", **SMALL, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
         "load_best_model_at_end": True, "metric_for_best_model": "eval_auc", "greater_is_better": True, "early_stopping_patience": 2},
    ],
    "rank": {"template": "like-or-dislike.jinja", "wording": 0, "max_length": 96},
    "eval": {"call": "answers", "bootstrap_samples": 20},
    "seed": 1,
    "output_dir": "runs/fuzzed",
}  # fmt: skip
LCREC = {
    "data": {"call": "lc_rec", "path": "shelf"},
    "split": {"call": "leave_one_out", "max_history": 5},
    "vectors": None,
    "index": {"call": "given", "path": "shelf/shelf.index.json"},
    "tasks": [
        {"call": "next_item", "template": "next-item.jinja", "share": 0.5},
        {"call": "item_to_index", "template": "item-to-index.jinja"},
        {"call": "item_search", "template": "item-search.jinja", "writer": {"call": "extractive"}},
    ],
    "model": {"from_scratch": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}, "prompt_form": "plain"},
    "stages": [{"call": "seq2seq", "label_smoothing_factor": 0.1, "warmup_steps": 1, **SMALL}],
    "rank": {"template": "next-item.jinja", "beams": 5, "k": 3, "prior": {"call": "prior", "weight": [0, 10], "rows": 5}},
    "eval": {"call": "ranking", "k": [1, 3], "shuffled_rows": 5},
    "seed": 2,
    "output_dir": "runs/fuzzed",
}  # fmt: skip
TABLE = {
    **SHOP, "data": {"call": "table", "path": "log.csv", "time": "time", "items_path": "items.csv", "title": "title"}, "vectors": None,
    "index": {"call": "atomic"}, "eval": {"call": "ranking", "k": [1]},
}  # fmt: skip
WRONG: list[Any] = [
    None, "", " ", 0, 7, -1, -0.5, 1.5, 1e30, float("nan"), float("inf"), True, False, [], {}, [1, 2], [None], [[]], {"a": 1}, {"call": "x"},
    "ä€🙂", "x" * 3000, "nothing.there:nothing", "json:loads", "../../etc/passwd", "{{7*7}}", "null", "a\0b", "no\nline", "sft", "cpu",
]  # fmt: skip


def write_sources(folder: Path) -> None:
    """The small files that the recipes read, in `folder`."""
    titles = [f"Item {i}{' of a longer name' if i % 3 else ''}" for i in range(ITEMS)]
    sequences = {str(u): [(u * 5 + step * 7) % ITEMS for step in range(6)] for u in range(USERS)}
    texts = {
        str(i): {"title": title, "brand": "Leaf", "categories": "Tea, Pots", "description": "Made of steel."}
        for i, title in enumerate(titles)
    }
    names = {str(i): [f"<a_{i % 6}>", f"<b_{i // 6}>"] for i in range(ITEMS)}
    for name in ("movie", "shelf"):
        (folder / name).mkdir()
    for name, held in (("inter", sequences), ("item", texts), ("index", names)):
        (folder / "shelf" / f"shelf.{name}.json").write_text(json.dumps(held))
    said = 'User Preference: "{}", "{}"\nUser Unpreference: "{}"\nWhether the user will like the target movie "{}"?'
    for name, count in (("train", 12), ("valid", 6), ("test", 6)):
        rows = [
            {
                "instruction": "",
                "input": said.format(*(titles[(n + k) % ITEMS] for k in range(4))),
                "output": ("Yes.", "No.")[n % 2],
            }
            for n in range(count)
        ]
        (folder / "movie" / f"{name}.json").write_text(json.dumps(rows))
    (folder / "talk.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"Say {n}.", "completion": f"{n}"}) for n in range(8))
    )
    vectors = np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32)
    pl.DataFrame({"item_id": [f"i{i}" for i in range(32)], "vector": vectors.tolist()}).write_parquet(
        folder / "shop.parquet"
    )
    events = [f"u{u},i{i},{100 * step + int(u)}" for u, items in sequences.items() for step, i in enumerate(items)]
    (folder / "log.csv").write_text("user,item,time\n" + "\n".join(events) + "\n")
    (folder / "items.csv").write_text(
        "item,title\n" + "\n".join(f'i{i},"{title}"' for i, title in enumerate(titles)) + "\n"
    )


# ---------------------------------------------------------------------------------------------------- one thing wrong


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys and entries below a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places_in(inner, (*path, key))


def every_value(value: Any) -> list[Any]:
    """All that stands below a value."""
    below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [*below, *(inner for part in below for inner in every_value(part))]


def wrong_recipe(draw: random.Random, folder: Path) -> str:
    """Write a recipe with a wrong value, a misspelt key, a missing one or one too many; says which."""
    name = draw.choice(("shop", "tallrec", "lcrec"))
    recipe: Any = copy.deepcopy({"shop": SHOP, "tallrec": TALLREC, "lcrec": LCREC}[name])
    path = draw.choice(list(places_in(recipe)))
    here = recipe
    for key in path[:-1]:
        here = here[key]
    how, value = draw.random(), draw.choice(WRONG)
    if draw.random() < 0.4:  # one that is right elsewhere, or nearly
        value = draw.choice([1, 2, 3, 0.5, 1.0, "auto", "none", "plain", *map(copy.deepcopy, every_value(recipe))])
    if how < 0.7 or not isinstance(here, dict):
        here[path[-1]] = value
        said = f"= {value!r}"[:60]
    elif how < 0.8:
        del here[path[-1]]
        said = "left out"
    elif how < 0.9:
        here[f"{path[-1]}s"] = here.pop(path[-1])
        said = "misspelt"
    else:
        here[draw.choice(("extra", "call", "seed", "path", "x" * 900))] = value
        said = f"and a key beside it = {value!r}"[:80]
    (folder / "fuzzed.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return f"{name} {'.'.join(map(str, path))} {said}"


def wrong_bytes(draw: random.Random, raw: bytes) -> tuple[bytes, str]:
    """Some bytes of a file otherwise, and what was done."""
    how = draw.choice(("flip", "cut", "lines out", "line twice", "mark", "insert", "empty", "wide"))
    lines = raw.split(b"\n")
    if how == "flip":
        changed = bytearray(raw)
        for _ in range(draw.choice((1, 3, 20))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed), how
    if how == "cut":
        return raw[: draw.randrange(len(raw))], how
    if how == "lines out":
        return b"\n".join(line for line in lines if draw.random() < 0.5), how
    if how == "line twice":
        at = draw.randrange(len(lines))
        return b"\n".join([*lines[:at], lines[at], *lines[at:]]), how
    if how == "insert":
        at, extra = (
            draw.randrange(len(raw)),
            draw.choice((b'"', b"\0", b",", b"\t", b"\x85", b"\xe2\x80\xa8", b"\r", b"'", b"\xff", b"NaN", b"1e400")),
        )
        return raw[:at] + extra + raw[at:], f"insert {extra!r} at {at}"
    if how == "wide":
        return raw.decode("utf-8").encode(draw.choice(("utf-16", "utf-32"))), how
    return (b"\xef\xbb\xbf" + raw if how == "mark" else draw.choice((b"", b"\n", b" "))), how


def wrong_log(draw: random.Random, folder: Path) -> str:
    """Write a log or its items with a column out, another order of columns, or other bytes; says which."""
    write_table(folder)
    file = folder / draw.choice(("log.csv", "items.csv"))
    rows = [line.split(",") for line in file.read_text().strip().split("\n")]
    how = draw.choice(("column out", "column twice", "value", "bytes", "bytes", "bytes"))
    column = draw.randrange(len(rows[0]))
    if how == "bytes":
        raw, how = wrong_bytes(draw, file.read_bytes())
        file.write_bytes(raw)
    elif how == "value":
        value = draw.choice(("", "x" * 3000, "nan", "-1", "1e400", "é\u2028", '""', "0" * 40, "99999999999999999999"))
        for _ in range(draw.choice((1, 30))):
            rows[draw.randrange(1, len(rows))][column] = value
        how = f"column {column} = {value[:20]!r}"
    elif how == "column out":
        rows = [row[:column] + row[column + 1 :] for row in rows]
    else:
        rows = [[*row, row[column]] for row in rows]
    if not how.startswith(("flip", "cut", "line", "mark", "insert", "empty", "wide")):
        file.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    return f"{file.name}: {how}"


def write_table(folder: Path) -> None:
    """The recipe of a table, and its two files as they should be."""
    for name in ("log.csv", "items.csv"):
        (folder / name).write_bytes((folder / "whole" / name).read_bytes())
    (folder / "fuzzed.yaml").write_text(yaml.safe_dump(TABLE), encoding="utf-8")


def wrong_index(draw: random.Random, folder: Path) -> str:
    """Write an index file with other names, items or bytes; says which."""
    (folder / "fuzzed.yaml").write_text(yaml.safe_dump(LCREC), encoding="utf-8")
    names: Any = json.loads((folder / "whole" / "shelf" / "shelf.index.json").read_text())
    item = draw.choice(list(names))
    value = draw.choice(
        (None, "", "<a_1>", [], {}, 3, ["<a_1>"], ["<b_1>", "<a_1>"], ["<a_1>", "<b_x>"], ["<a_-1>", "<b_1>"], [1, 2], [None, None],
         ["<a_99999999999999999999>", "<b_0>"], ["<a_2147483648>", "<b_0>"], ["<a_٣>", "<b_0>"], ["<a_1>"] * 400, [["<a_1>"]], ["x" * 3000, "y"])
    )  # fmt: skip
    how = draw.choice(("name", "name", "all names", "item out", "item more", "whole", "bytes", "bytes"))
    if how == "name":
        names[item] = value
    elif how == "all names":
        names = dict.fromkeys(names, value)
    elif how == "item out":
        del names[item]
    elif how == "item more":
        names[draw.choice(("new", "", "x" * 3000, " 1"))] = ["<a_0>", "<b_9>"]
    elif how == "whole":
        names = draw.choice(([], {}, None, 3, "x", [names]))
    raw, how = json.dumps(names).encode(), f"{how} {str(value)[:30]}"
    if how.startswith("bytes"):
        raw, how = wrong_bytes(draw, raw)
    (folder / "shelf" / "shelf.index.json").write_bytes(raw)
    return f"index {item}: {how}"


KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "recipes": wrong_recipe,
    "logs": wrong_log,
    "indexes": wrong_index,
}


# -------------------------------------------------------------------------------------------------------------- tries


def tried(
    kind: str, count: int, seed: int, *, tell: Callable[[str], None] = lambda line: None
) -> tuple[list[str], dict[int, int]]:
    """Try so many of a kind in a folder of their own; returns what is not as it must be, and how often each exit code came."""
    draw, wrong = random.Random(f"{kind} {seed}"), []
    ends: collections.Counter[int] = collections.Counter()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "whole").mkdir()
        write_sources(folder)
        write_sources(folder / "whole")
        os.chdir(folder)
        try:
            for number in range(count):
                what = f"{kind} {seed}/{number}: {KINDS[kind](draw, folder)}"
                started = time.perf_counter()
                code, complaint = ended(["preview", "fuzzed.yaml", "--examples", "1"])
                ends[code] += 1
                if complaint:
                    wrong.append(f"{what}: {complaint}")
                    tell(wrong[-1])
                if time.perf_counter() - started > 30:
                    tell(f"{what}: took {time.perf_counter() - started:.0f} s")
        finally:
            os.chdir(before)
    return wrong, dict(ends)


def ended(command: list[str]) -> tuple[int, str]:
    """The exit code of a command in this process, and what is wrong with how it ended ('' where nothing is)."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(command)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return 2, f"a traceback: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    said = [line for line in told.getvalue().split("\n") if line.startswith("error:")]
    if code == 0:
        return code, ""
    if code != 1 or len(said) != 1:
        return code, f"exit code {code} and {len(said)} errors: {told.getvalue()[-300:]}"
    if len(said[0]) > LONGEST + len("error: "):
        return code, f"{len(said[0])} characters: {said[0][:200]}"
    if not re.search(r"`[^`]+`|\.\w+:\d+: |^error: [\w.-]+\.(csv|json|jsonl|yaml|parquet)\b", said[0]):
        return code, f"it names neither key nor place: {said[0]}"
    return code, ""


if __name__ == "__main__":
    often = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    failed = 0
    for chosen in sys.argv[3:] or KINDS:
        found, codes = tried(chosen, often, first, tell=print)
        print(f"{chosen}: {often} tries, exit codes {codes}, {len(found)} not as they must be")
        failed += len(found)
    sys.exit(1 if failed else 0)
