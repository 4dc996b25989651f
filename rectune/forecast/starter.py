"""`rectune init`: a recipe for a log that somebody has, its columns told by their names, a base that fits the card."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rectune.log.times import EITHER, as_number
from rectune.planning.cards import Card
from rectune.recipe.calls import named

NAMES = {
    "user": "user user_id userid uid visitorid visitor_id customer customer_id customerid client client_id member_id reviewerid session session_id",
    "item": "item item_id itemid iid product product_id productid sku asin parent_asin movieid movie_id isbn article_id book_id track_id artist_id thing",
    "time": "time timestamp ts date datetime at when created_at event_time unixreviewtime order_date purchased_at viewed_at",
    "rating": "rating score stars overall book-rating",
    "event": "event event_type eventtype action behavior behaviour behavior_type interaction type",
    "title": "title name product_name productname item_name book-title movie_title product_title prod_name",
}
TAKEN = ("purchase", "transaction", "buy", "order", "checkout", "sale", "play", "listen", "read", "click", "view")
SAMPLE = 20_000  # rows that are looked at
# Bases from the largest, 4-bit where that is what makes them fit.
BASES = (("Qwen/Qwen3-8B", True), ("Qwen/Qwen3-4B", True), ("Qwen/Qwen3-1.7B", True), ("Qwen/Qwen3-0.6B", True))
BY_MEMORY = ((22, "Qwen/Qwen3-8B"), (11, "Qwen/Qwen3-1.7B"), (0, "Qwen/Qwen3-0.6B"))  # GB; the recipes for cards


@dataclass
class Found:
    """What a log's columns are: `columns` by role, `notes` on what was seen, `lines` for the recipe."""

    columns: dict[str, str]
    time_format: str | None
    where: str | None
    events: list[tuple[str, int]]
    notes: list[str]


def starter(
    log: Path, items: Path | None, to: Path, *, card: Card | None, given: dict[str, str]
) -> tuple[str, list[str]]:
    """The text of a recipe for a log, and what was found, in lines. `given`: columns by role that need not be guessed.

    Raises ValueError where user or item cannot be told from the columns.
    """
    frame, keys = _sample(log, "path")
    found = _look(frame, log.name, given)
    shelf, shelf_keys = _sample(items, "items_path") if items is not None else (None, {})
    data: list[tuple[str, Any, str]] = [
        ("path", _beside(log, to), "a folder or a pattern such as events/*.csv is read, too")
    ]
    data += [(key, value, "") for key, value in keys.items()]
    data += [(role, name, "") for role, name in found.columns.items() if role in ("user", "item", "time", "rating")]
    if found.time_format:
        data.append(("time_format", found.time_format, "CHECK: month or day first cannot be told from these dates"))
    if found.where:
        told = ", ".join(f"{name} ({count:,})" for name, count in found.events)
        data.append(("where", {found.columns["event"]: found.where}, f"the log has {told}, among the rows looked at"))
    texts: list[str] = []
    if items is not None and shelf is not None:
        extra, texts, seen = _items(items, shelf, frame, found, to)
        data += [*extra, *((f"items_{key}", value, "") for key, value in shelf_keys.items())]
        found.notes += seen
    items_seen = frame[found.columns["item"]].n_unique() if shelf is None else shelf.height
    if items_seen < 100:  # too few to learn names for
        texts = []
    base = None if card is None else _base(card, found.notes)
    lists = [k for k in (5, 10) if k <= items_seen] or [1]
    return _recipe(to, data, texts, base, lists), found.notes


def _sample(path: Path, key: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The first rows of a log as it is read without further keys, or with the separator that its header shows."""
    keys: dict[str, Any] = {}
    files_of, reader_of = (
        named(f"rectune.data_builders.reader:{name}", None, "init") for name in ("files_of", "reader_of")
    )
    for _ in range(2):
        frame: pl.DataFrame = reader_of(separator=keys.get("separator")).read(
            files_of(path)[:1], None, "train", key, lambda names: names
        )
        header = frame.columns[0] if len(frame.columns) == 1 else ""
        mark = next((mark for mark in ("\t", ";", "|", ",") if mark in header), None)
        if mark is None:
            break
        keys["separator"] = mark
    return frame.head(SAMPLE), keys


def _look(frame: pl.DataFrame, source: str, given: dict[str, str]) -> Found:
    columns = dict(given)
    for role, told in given.items():
        if told not in frame.columns:
            raise ValueError(f"{source}: no column `{told}` (`--{role}`). It has: {', '.join(frame.columns)[:300]}.")
    for role in ("user", "item", "time", "rating", "event"):
        if role not in columns and (name := _by_name(frame.columns, NAMES[role].split(), set(columns.values()))):
            columns[role] = name
    for role in ("user", "item"):
        if role not in columns:
            raise ValueError(
                f"{source}: which column is the {role}? It has: {', '.join(frame.columns)[:300]}. Say `--{role} COLUMN`."
            )
    notes = [f"{role}: column `{name}`" for role, name in columns.items()]
    time_format: str | None = None
    if "time" in columns:
        time_format, said = _time(frame[columns["time"]])
        notes.append(said)
        if said.startswith("time: not"):
            del columns["time"]
    else:
        notes.append("time: no column of that name; the order of the rows is taken for it (--time COLUMN)")
    if "rating" in columns and frame[columns["rating"]].cast(pl.Float64, strict=False).is_null().any():
        del columns["rating"]
    where, events = None, list[tuple[str, int]]()
    if "event" in columns:
        events = [
            (str(name), count)
            for name, count in frame[columns["event"]].cast(pl.String).value_counts(sort=True).head(12).rows()
        ]
        if 2 <= len(events) <= 12:
            where = next((name for word in TAKEN for name, _ in events if word in name.lower()), None)
            notes.append(
                f"event types: {', '.join(f'{name} ({count:,})' for name, count in events)}; kept: {where or 'all'}"
            )
    return Found(columns, time_format, where, events, notes)


def _by_name(columns: list[str], likely: list[str], taken: set[str]) -> str | None:
    plain = {
        column.strip().lower().removesuffix(":token").removesuffix(":float"): column
        for column in columns
        if column not in taken
    }
    return next((plain[name] for name in likely if name in plain), None)


def _time(column: pl.Series) -> tuple[str | None, str]:
    """A `time_format` where one must be said, and what was found."""
    known = column.drop_nulls()
    try:
        numbers = as_number(known, "time").to_numpy()
        plain = known.dtype.is_numeric() or known.cast(pl.String).str.contains("^[0-9.]+$").all()
        return None, f"time: read as {'numbers' if plain else 'dates'}, {numbers.min():g} to {numbers.max():g}"
    except ValueError as error:
        either = next((forms for forms in EITHER if f'"{forms[0]}"' in str(error)), None)
        if either is not None:
            return either[
                0
            ], f"time: {known[0]!r} may be month or day first; written as month first, CHECK `time_format`"
        return None, f"time: not read ({str(error).partition('. Of dates')[0][:160]}); say `time_format`"


def _items(
    items: Path, shelf: pl.DataFrame, frame: pl.DataFrame, found: Found, to: Path
) -> tuple[list[tuple[str, Any, str]], list[str], list[str]]:
    """Keys of the item file, its columns of text, and what was found."""
    inside = frame[found.columns["item"]].cast(pl.String).str.strip_chars().unique()
    share = {
        name: int(inside.is_in(shelf[name].cast(pl.String).str.strip_chars().unique().implode()).sum()) / max(1, len(inside))
        for name in shelf.columns if shelf[name].dtype != pl.List
    }  # fmt: skip
    item_id = max(share, key=lambda name: (share[name], name == found.columns["item"]))
    title = _by_name(shelf.columns, NAMES["title"].split(), {item_id})
    notes = [
        f"items: id `{item_id}` ({share[item_id]:.0%} of the log's items looked at are there), title {f'`{title}`' if title else 'none found'}"
    ]
    keys: list[tuple[str, Any, str]] = [("items_path", _beside(items, to), ""), ("item_id", item_id, "")]
    if title:
        keys.append(("title", title, ""))
    words = [
        name for name in shelf.columns
        if name not in (item_id, title) and shelf[name].dtype in (pl.String, pl.List(pl.String))
        and shelf[name].dtype == pl.String and 2 < _letters(shelf[name]) < 80
        and shelf[name].cast(pl.Float64, strict=False).is_null().any()
    ][:3]  # fmt: skip
    keys.append(("text", words, "other columns of text"))
    return keys, [*(["title"] if title else []), *words], notes


def _letters(column: pl.Series) -> float:
    """Mean length of the texts of a column."""
    lengths = column.drop_nulls().str.len_chars().to_list()
    return sum(lengths) / len(lengths) if lengths else 0.0


def _base(card: Card, notes: list[str]) -> tuple[str, bool]:
    """The largest base that the planner says fits the card; by the card's memory where no config can be read."""
    from rectune.forecast.forecast import forecast
    from rectune.recipe.load import load_recipe

    for name, four in BASES:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "tried.yaml"
            file.write_text(_recipe(file, [("path", "log.csv", "")], [], (name, four), [10]))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if forecast(load_recipe(file), card, search=False).fits:
                        notes.append(
                            f"base: {name} in 4 bits, the largest of {len(BASES)} that the planner says fits {card.name}"
                        )
                        return name, four
            except (OSError, ValueError) as error:
                name = next(name for memory, name in BY_MEMORY if card.memory >= memory * 2**30)
                told = " ".join(str(error).split())[:100]
                notes.append(f"base: {name} by the card's memory; not planned, as no config could be read ({told})")
                return name, True
    raise ValueError(f"`--gpu`: no base fits {card.name}. Use --cpu.")


def _beside(path: Path, to: Path) -> str:
    """A path as the recipe writes it: beside itself where it lies there."""
    folder = to.resolve().parent
    whole = path.resolve()
    return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)


def _line(key: str, value: Any, why: str) -> str:
    return f"  {key}: {json.dumps(value, ensure_ascii=False)}" + (f"  # {why}" if why else "")


def _recipe(
    to: Path, data: list[tuple[str, Any, str]], texts: list[str], base: tuple[str, bool] | None, lists: list[int]
) -> str:
    """The recipe as commented YAML."""
    name = to.stem
    lines = [
        f"# Written by `rectune init`. See what the model will read: rectune preview {to.name}",
        f"# Then: rectune plan {to.name}; rectune train {to.name}",
        f"about: Next items of {name}",
        "data:", "  call: table", *(_line(*entry) for entry in data),
        "  user_core: 4  # users with fewer events leave nothing to train on and to test with",
        "split: {call: leave_one_out, max_history: 20}  # or {call: by_time}: the whole log cut at two moments",
    ]  # fmt: skip
    if texts:
        lines += [
            f"vectors: [{{call: sentences, text: {json.dumps(texts)}}}]  # what items have in common by their texts",
            "index: {call: residual_kmeans, levels: 3, codes: 64}  # an item's name: three codes out of its vector",
        ]
    else:
        lines.append("index: {call: atomic}  # one new token an item; with an item file, names out of texts are better")
    lines += [
        "tasks:",
        "  - {call: next_item, template: next-item-names.jinja, examples: windows}  # a history is one sequence",
    ]
    if base is None:
        lines += [
            "model:",
            "  from_scratch:  # small, for a CPU; with a GPU: rectune init … --gpu 24GB",
            "    {model_type: gpt2, n_embd: 128, n_layer: 2, n_head: 4, n_positions: 256, resid_pdrop: 0.2, embd_pdrop: 0.2, attn_pdrop: 0.1, tie_word_embeddings: false}",
            "  text_vocab_size: 300",
        ]
        rate, epochs, rows, more = "2.0e-3", 20, 64, ""
    else:
        four = ", load_in_4bit: true, use_bnb_nested_quant: true" if base[1] else ""
        lines += [
            f"model: {{model_name_or_path: {base[0]}, prompt_form: plain, dtype: bfloat16, use_peft: true, lora_r: 16, lora_alpha: 32, lora_target_modules: [all-linear]{four}}}"
        ]
        rate, epochs, rows, more = "5.0e-4", 4, 16, "\n    activation_checkpointing: true"
    lines += [
        "stages:", "  - call: sft", "    completion_only_loss: false  # the loss is on every item of a sequence",
        f"    num_train_epochs: {epochs}", f"    per_device_train_batch_size: {rows}", f"    learning_rate: {rate}",
        f"    lr_scheduler_type: cosine\n    warmup_steps: 0.05\n    max_length: 128{more}", "    train_sampling_strategy: group_by_length",
        "    eval_strategy: epoch\n    save_strategy: epoch\n    load_best_model_at_end: true\n    metric_for_best_model: eval_ndcg@10\n    greater_is_better: true",
        "rank: {template: next-item-names.jinja, beams: 20, k: 10, scores: catalogue, prior: {call: prior, weight: [0, 20, 40, 80]}}  # EASE and Markov beside the model",
        f"eval: {{call: ranking, k: {lists}}}", "seed: 0", f"output_dir: runs/{name}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
