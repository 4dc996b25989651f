"""docs/gpu.md from the figures of `benchmarks/gpu.py`.

    python benchmarks/gpu_page.py                 # write the page anew from benchmarks/measured
    python benchmarks/gpu_page.py runs/gpu …      # first take in folders of figures, for their card

A card's figures are one file, `benchmarks/measured/NAME.json`; rows that were measured later replace the older ones.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import SECTIONS  # noqa: E402

MEASURED = ROOT / "benchmarks" / "measured"
PAGE = ROOT / "docs" / "gpu.md"
Column = tuple[str, Callable[[dict[str, Any]], Any], str]


def main() -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", help="figures of benchmarks/gpu.py")
    args = parser.parse_args()
    if args.folders:
        try:
            take_in(args.folders, MEASURED)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    PAGE.write_text(page(MEASURED))
    print(PAGE)
    return 0


def take_in(folders: Sequence[Path], kept: Path) -> Path:
    """Put the sections of folders into the file of their card; a row that was measured again replaces the older one.

    Raises ValueError for small sizes, a CPU, several cards, or no figures.
    """
    found = [
        (name, about)
        for folder in folders
        for name in SECTIONS
        if (folder / f"{name}.json").exists() and (about := json.loads((folder / f"{name}.json").read_text()))["card"]
    ]
    told = ", ".join(map(str, folders))
    if not any(about["rows"] or about["failed"] for _, about in found):
        raise ValueError(f"{told} holds no figures. Run: python benchmarks/gpu.py --out {folders[0]}")
    if any(about["quick"] or about["card"]["device"] != "cuda" for _, about in found):
        raise ValueError(f"{told} holds figures of a CPU or of --quick, which say nothing of a card.")
    cards = {about["card"]["name"] for _, about in found}
    if len(cards) > 1:
        raise ValueError(f"{told} holds figures of several cards ({', '.join(sorted(cards))}). Give a folder a card.")
    kept.mkdir(exist_ok=True)
    file = kept / f"{re.sub(r'[^a-z0-9]+', '-', cards.pop().lower()).strip('-')}.json"
    held: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for name, about in found:
        held[name] = _joined(held.get(name), about)
    file.write_text(json.dumps(held, indent=1) + "\n")
    return file


def _joined(before: dict[str, Any] | None, about: dict[str, Any]) -> dict[str, Any]:
    """A section of which some rows were measured earlier: each row says where it is from."""
    rows = dict(_with_origin(before)) if before else {}
    fresh = [row for row in about["rows"] if row not in rows]
    rows |= dict(_with_origin(about))
    earlier = {row: why for row, why in (before or about)["failed"].items() if row != "the section"}
    failed = {**earlier, **about["failed"]}
    left = [row for row in dict.fromkeys([*(before or about)["left"], *about["left"]]) if row not in {*rows, *failed}]
    seconds = about["seconds"] + (before["seconds"] if before and (fresh or not about["rows"]) else 0.0)
    failed = {row: re.sub(r"/\S*/stages/", "stages/", why) for row, why in failed.items()}  # no paths of that machine
    return {
        **about,
        "rows": rows,
        "failed": {k: v for k, v in failed.items() if k not in rows},
        "left": left,
        "seconds": seconds,
    }


def _with_origin(about: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    own = {"date": about["date"], "commit": about["commit"], "beside": about.get("beside", 0)}
    for name, row in about["rows"].items():
        yield name, {"origin": own, **row}


def page(kept: Path) -> str:
    """The page of all cards in a folder."""
    files = sorted(kept.glob("*.json")) if kept.is_dir() else []
    parts = [HEAD]
    for file in files:
        parts.append(_card(json.loads(file.read_text())))
    if not files:
        parts.append(
            "\nNo card has been measured yet: every figure below is **not measured**.\n\n"
            + "\n".join(f"- {words}: not measured" for words in SECTIONS.values())
        )
    return "\n".join(parts).rstrip() + "\n"


HEAD = """# On a GPU

What `python benchmarks/gpu.py` measured; `python benchmarks/gpu_page.py` makes this page from `benchmarks/measured`, so no figure here is typed.
On your own card the same command takes about a quarter of an hour, 90 s a section (`--seconds`), and writes its figures to `runs/gpu`; sections 3, 6 and 8 below took
several calls, and 6 and 8 need `--inputs`. A machine without a network gets
what it needs from `python benchmarks/gpu_pack.py` ([how](../benchmarks/README.md#gpupy)). Weights are random in sections 2 to 5 and 7: they measure time and
memory, and a score there means nothing. What a recipe needs on a card that you do not have is asked of the planner:

```sh run
rectune plan quickstart --gpu 24GB
```"""


def _card(sections: dict[str, dict[str, Any]]) -> str:
    first = next(iter(sections.values()))
    card = first["card"]
    lines = [
        f"\n## {card['name']}\n",
        f"{card['memory_gb']:.0f} GB, driver {card['driver']}, CUDA {card['cuda']}, PyTorch {card['torch']}, "
        + ", ".join(
            f"{name} {version}"
            for name, version in first["versions"].items()
            if name in ("transformers", "trl", "peft", "bitsandbytes")
        )
        + f"; Python and CUDA's context hold {card['context_gb']:.2f} GB before anything is loaded. Seed 0. GB = 2^30 bytes of memory, 10^9 bytes a second of copies.",
    ]
    for number, (name, words) in enumerate(SECTIONS.items(), 1):
        lines.append(f"\n### {number}. {words[0].upper()}{words[1:]}\n")
        lines.append(_section(name, sections.get(name)))
    return "\n".join(lines)


def _section(name: str, about: dict[str, Any] | None) -> str:
    if about is None or not about["rows"]:
        return f"Not measured{': ' + about['reason'] if about and about['reason'] else ''}. `python benchmarks/gpu.py --only {name}`"
    card = about["card"]
    rates = (
        f"beside it the card made {card['matrix_tflops']:.0f} TFLOP/s in bfloat16 (8,192 x 8,192) and copied "
        f"{card['copy_gb_s']:,.0f} GB/s."
    )
    parts = [WORDS[name], "", TABLES[name](about["rows"]), "", f"{_origins(about)}; {about['seconds']:.0f} s; {rates}"]
    if about["failed"]:
        parts += [
            "",
            "Failed at that commit, and not measured since: "
            + "; ".join(f"{row}: {why.partition('. ')[0].rstrip('.')[:200]}" for row, why in about["failed"].items())
            + ".",
        ]
    if about["left"]:
        parts += ["", f"Not reached within the section's time: {'; '.join(about['left'])}."]
    return "\n".join(parts)


def _origins(about: dict[str, Any]) -> str:
    """Date and commit, and which rows are of which where there are several."""
    groups: dict[str, list[str]] = {}
    for row, figures in _with_origin(about):
        own = figures["origin"]
        shared = f", with {own['beside']} other processes on the card, so times are no rates" if own["beside"] else ""
        groups.setdefault(f"{own['date']}, commit {(own['commit'] or 'unknown')[:12]}{shared}", []).append(row)
    if len(groups) == 1:
        return next(iter(groups))
    last = list(groups)[-1]
    return "; ".join(f"{told} ({'all else' if told == last else '; '.join(rows)})" for told, rows in groups.items())


# ---------------------------------------------------------------------------------------------------------------- tables


def table(rows: Sequence[tuple[str, dict[str, Any]]], columns: Sequence[Column], first: str = "") -> str:
    """A Markdown table; what a row does not have is a dash."""
    lines = ["| " + " | ".join([first, *(title for title, _, _ in columns)]) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows:
        lines.append("| " + " | ".join([name, *(_cell(row, get, form) for _, get, form in columns)]) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], get: Callable[[dict[str, Any]], Any], form: str) -> str:
    try:
        value = get(row)
    except (KeyError, TypeError, IndexError):
        return "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return form.format(value)


def _of(*keys: str) -> Callable[[dict[str, Any]], Any]:
    def get(row: dict[str, Any]) -> Any:
        value: Any = row
        for key in keys:
            value = value[key]
        return value

    return get


def _rates(rows: dict[str, Any]) -> str:
    return table(
        list(rows.items()),
        [
            ("TFLOP/s", _of("tflops"), "{:.1f}"),
            ("GB/s", _of("gb_s"), "{:,.0f}"),
            ("microseconds", _of("microseconds"), "{:.1f}"),
        ],
    )


def _qlora(rows: dict[str, Any]) -> str:
    train, audit, again, export = (rows.get(name, {}) for name in ("train and report", "audit", "reload", "export"))
    forms = (export.get("forms") or {}).items()
    lines = [
        ("train and report", train, "{seconds:.1f} s; loss {first_loss:.2f} to {last_loss:.2f}; {tokens_per_s:,.0f} tokens/s; peak {peak_gb:.2f} GB reserved, planned {planned_gb:.2f} GB"),
        ("new tokens", audit, "{new_tokens} of which {gradient_in} (in) and {gradient_out} (out) get a gradient; adapter {saved_bytes:,} bytes"),
        ("reloaded in this process", again, "largest difference of a logit {largest_difference:.3g}, where the largest is {largest_logit:.3g}"),
        ("exported, merged into bfloat16", export, "{bytes:,} bytes"),
    ]  # fmt: skip
    out = []
    for name, row, form in lines:
        try:
            out.append(f"- {name}: {form.format(**row)}")
        except (KeyError, TypeError, ValueError):
            out.append(f"- {name}: not measured")
    out += [f"- {name}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()) for name, found in forms]
    return "\n".join(out)


def _planner(rows: dict[str, Any]) -> str:
    columns: list[Column] = [
        ("rows planned", _of("planned_rows"), "{}"), ("they run", _of("runs"), "{}"), ("planned, GB", _of("planned_gb"), "{:.2f}"),
        ("allocated, GB", _of("allocated_gb"), "{:.2f}"), ("reserved, GB", _of("reserved_gb"), "{:.2f}"),
        ("plan against reserved", lambda r: 100 * (r["planned_gb"] / r["reserved_gb"] - 1), "{:+.1f} %"),
        ("most rows that ran", _of("largest_rows"), "{}"), ("fewest that did not", _of("failed_rows"), "{}"),
        ("planned of these", lambda r: 100 * r["planned_rows"] / r["largest_rows"], "{:.0f} %"),
    ]  # fmt: skip
    told = dict.fromkeys(row["corrected"] for row in rows.values() if "corrected" in row)
    corrected = [words for words in told if not any(other != words and words in other for other in told)]
    notes = "".join(
        f"\n\nCaps with a fraction were measured under whole ones and corrected: {words}." for words in corrected
    )
    return table(sorted(rows.items(), key=_by_size), columns, "base, adapter, cap") + notes


def _by_size(item: tuple[str, Any]) -> tuple[float, str, float]:
    name, row = item
    size = re.search(r"([\d.]+)B", name)
    return float(size[1]) if size else 0.0, name.split(",")[1], row.get("cap_gb", 0)


def _search(rows: dict[str, Any]) -> str:
    gate = next((row for name, row in rows.items() if "same lists" in name), None)
    columns: list[Column] = [
        ("users/s", _of("users_per_s"), "{:,.0f}"), ("batch", _of("batch"), "{}"), ("limit, users/s", _of("limit_users_per_s"), "{:,.0f}"),
        ("share of it", lambda r: 100 * r["share_of_limit"], "{:.0f} %"), ("`generate`, users/s", _of("generate_users_per_s"), "{:.2f}"),
        ("its batch", _of("generate_batch"), "{}"), ("ratio", _of("ratio"), "{:.0f}x"),
        ("items in common", lambda r: 100 * r["overlap_with_generate"], "{:.1f} %"), ("users compared", _of("lists_compared"), "{}"),
    ]  # fmt: skip
    told = "" if gate is None else (
        f"In float32 {gate['lists_equal']} of {gate['lists_compared']} lists are the same in the same order, scores within "
        f"{gate['largest_score_difference']:.1e}.\n\n"
    )  # fmt: skip
    return told + table([(n, r) for n, r in rows.items() if "same lists" not in n], columns, "shape, beams, scores")


def _evaluation(rows: dict[str, Any]) -> str:
    columns: list[Column] = [
        ("seconds of all users", lambda r: r.get("seconds", r.get("seconds_of_all")), "{:,.1f}"),
        ("users/s", lambda r: r.get("users_per_s") or r.get("prompts_per_s") or 1 / r["s_per_user"], "{:,.1f}"),
        ("measured on", lambda r: r.get("users"), "{:,} users"), ("items in common with the search", lambda r: 100 * r["overlap"], "{:.1f} %"),
        ("tokens a prompt", _of("mean_tokens"), "{:.0f}"),
    ]  # fmt: skip
    return table(list(rows.items()), columns)


def _kshot(rows: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row["auc"]))
    order = ["tuned model", "untuned model", *(n for n in names if "model" not in n)]
    columns: list[Column] = [(f"AUC, {name}", _of("auc", name), "{:.4f}") for name in order]
    columns += [
        ("training, s", _of("training_s"), "{:.1f}"), ("tokens/s", _of("tokens_per_s"), "{:,.0f}"), ("answers/s", _of("answers_per_s"), "{:,.0f}"),
        ("peak, GB", _of("peak_gb"), "{:.2f}"), ("planned, GB", _of("planned_gb"), "{:.2f}"),
    ]  # fmt: skip
    return table(
        sorted(rows.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])]), columns, "rows, seed"
    )


def _step(rows: dict[str, Any]) -> str:
    columns: list[Column] = [
        ("tokens/s", _of("tokens_per_s"), "{:,.0f}"), ("s a step", _of("s_per_step"), "{:.3f}"), ("tokens a step", _of("tokens_per_step"), "{:,}"),
        ("share of the matrix rate", lambda r: 100 * r["share_of_matrix_rate"], "{:.1f} %"), ("peak, GB", _of("peak_gb"), "{:.2f}"),
        ("ratio", _of("ratio"), "{:.2f}x"), ("losses differ by at most", lambda r: 100 * r["largest_relative_difference_of_loss"], "{:.2f} %"),
    ]  # fmt: skip
    return table(list(rows.items()), columns)


def _lc_rec(rows: dict[str, Any]) -> str:
    columns: list[Column] = [
        ("epochs", _of("epochs"), "{:g}"), ("first loss", _of("first_loss"), "{:.2f}"), ("last loss", _of("last_loss"), "{:.2f}"),
        ("training, s", _of("training_s"), "{:.0f}"), ("tokens/s", _of("tokens_per_s"), "{:,.0f}"), ("peak, GB", _of("peak_gb"), "{:.2f}"),
        ("planned, GB", _of("planned_gb"), "{:.2f}"), ("users/s", _of("users_per_s"), "{:,.0f}"),
    ]  # fmt: skip
    listed: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        for who, figures in row["table"].items():
            listed.setdefault(f"{name}: {who}" if "model" in who or "prior" in who else who, figures)
    found: list[Column] = [
        ("Recall@10, seen hidden", _of("recall@10_hidden"), "{:.4f}"), ("NDCG@10, seen hidden", _of("ndcg@10_hidden"), "{:.4f}"),
        ("Recall@10", _of("recall@10_shown"), "{:.4f}"), ("NDCG@10", _of("ndcg@10_shown"), "{:.4f}"),
    ]  # fmt: skip
    ranked = sorted(listed.items(), key=lambda item: -item[1]["ndcg@10_hidden"])
    return table(list(rows.items()), columns, "base, tuned") + "\n\n" + table(ranked, found)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "rates": _rates, "qlora": _qlora, "planner": _planner, "search": _search, "evaluation": _evaluation, "kshot": _kshot,
    "step": _step, "lc_rec": _lc_rec,
}  # fmt: skip
WORDS = {
    "rates": "What the card does at most; the other sections give shares of it.",
    "qlora": "A base of Qwen3-0.6B's shape in NF4 with nested scales, 96 new tokens, LoRA of rank 16 on every linear layer, 20 steps of 16 rows, by `rectune train` and `rectune export`.",
    "planner": "LoRA of rank 16 on every linear layer, checkpointed layers, rows of 512 tokens with the loss on all of them. PyTorch's allocator gets the cap less the context. The plan is that of the commit named below, given without the context; where the planned rows did not run it was too small, and a dash stands where they lie between what ran and what did not. Most rows that ran: the largest of a few batches, 6 to 12 % apart.",
    "search": "Random weights in bfloat16, prompts of 256 tokens, 10,000 items with names of three random codes and a forced digit. The limit is the arithmetic of the layers at the measured matrix rate: 2 x weights x (prompt + forwarded codes). `generate` has a dictionary trie behind `prefix_allowed_tokens_fn` and is given its best batch (up to 16 users).",
    "evaluation": "24,772 users and 9,922 items, as many as in Amazon 2018 Musical Instruments, histories of up to 20 items with names of four codes, Qwen2.5-0.5B's shape, 20 beams, seen items hidden: prompts rendered and encoded on the host, ranked, judged. `generate` is timed user by user on a sample.",
    "kshot": "Recipe `tallrec-movie-kshot-smollm2`: SmolLM2-135M-Instruct (weights rounded to 4 bits once, see `benchmarks/smollm2.py`), the rows of TALLRec's movie set, all 1,000 test rows.",
    "step": "The same examples in every step on both sides: names of four codes, 5 to 60 of them, loss on all; ours in batches of like length, TRL's packed into rows of 1,024 tokens, without flash-attention, which was not installed. A ratio stands only where the losses agree within 2 %. Share of the matrix rate: 6 operations a weight and token, with checkpointed layers.",
    "lc_rec": "Recipe `lcrec-scientific-smollm2` with SmolLM2-135M-Instruct (weights rounded to 4 bits once) on Amazon 2018 Scientific, all 8,317 test users, 20 beams, steps of 128 rows. Tuned with LoRA or in all weights (learning rate 5e-4); from the pre-trained weights, and from weights that transformers starts that architecture with: what pre-training is worth. Each row is a whole `rectune train`.",
}


if __name__ == "__main__":
    raise SystemExit(main())
