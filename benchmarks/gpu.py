"""What rectune does on one GPU, in a quarter of an hour: eight bounded sections, each with a file of figures.

    python benchmarks/gpu.py                                   # the GPU of this machine, figures in runs/gpu
    python benchmarks/gpu.py --inputs runs/gpu-inputs          # with SmolLM2 and data sets, for sections 6 and 8
    python benchmarks/gpu.py --only search planner --again     # measure some of them anew
    python benchmarks/gpu.py --only kshot --rows "seed 1"      # some rows of a section; the page joins what several folders hold
    python benchmarks/gpu.py --device cpu --quick              # everything in small: does it run?

A section ends by its own clock (--seconds, 90); what it measured is in its file at once, and the same command goes on with what is
missing. Each section is a process of its own: what it fails of is written down and the next one begins. Inputs are the folders
`smollm2` (python benchmarks/smollm2.py), `ml-100k`, `amazon18_scientific` and, to save its first minutes, `lcrec-scientific-smollm2`,
a run folder with log, split, vectors and index. `python benchmarks/gpu_page.py runs/gpu` makes a page of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a clone that nobody installed is enough

SECTIONS = {
    "rates": "rates of the card",
    "qlora": "QLoRA from end to end",
    "planner": "the planner beside a capped allocator",
    "search": "users a second of the search",
    "evaluation": "a whole evaluation",
    "kshot": "TALLRec K-shot with SmolLM2",
    "step": "a LoRA step beside TRL with packing",
    "lc_rec": "LC-Rec with SmolLM2",
}
LIGHT = ("rates",)  # needs torch alone
WHOLE = ("done", "no input")


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing; 0 when every chosen section is done, 1 when one is not, 2 for bad input."""
    args = _parser().parse_args(argv)
    if args.part:
        return _part(args)
    chosen = [name for name in SECTIONS if name in (args.only or SECTIONS)]
    if args.device == "cuda" and (why := _no_cuda()):
        print(f"--device cuda: {why}. Use --device cpu --quick to see it run.", file=sys.stderr)
        return 2
    if args.inputs is not None and not args.inputs.is_dir():
        print(f"--inputs {args.inputs}: there is no such folder.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.again and (why := _others(chosen, args)):
        print(f"{why} Give another --out, or measure anew with --again.", file=sys.stderr)
        return 2
    if args.again:
        for name in chosen:
            (args.out / f"{name}.json").unlink(missing_ok=True)
    return _measure(chosen, args)


def _others(chosen: list[str], args: argparse.Namespace) -> str:
    """Which of the figures that are there belong to another device, to other sizes or to another commit; '' where none does."""
    from benchmarks.gpu_sections.bench import origin, read

    now = {"device": args.device, "quick": args.quick, "commit": origin()["commit"]}
    for name in chosen:
        about = read(args.out / f"{name}.json")
        if not about or not about["rows"]:
            continue
        held = {"device": about["card"]["device"], "quick": about["quick"], "commit": about["commit"]}
        if other := [key for key in now if now[key] != held[key]]:
            told, asked = (", ".join(f"{key} {each[key]}" for key in other) for each in (held, now))
            return f"{args.out / f'{name}.json'} holds figures of {told}; this call is of {asked}."
    return ""


def _measure(chosen: list[str], args: argparse.Namespace) -> int:
    waiting = [name for name in chosen if not _whole(args, name)]
    for name in chosen:
        if name not in waiting:
            print(f"{name}: {_state(args, name)} already", flush=True)
    began, following = time.monotonic(), None
    for number, name in enumerate(waiting):
        if args.total and time.monotonic() - began > args.total - args.seconds:
            print(f"{name}: not begun, --total {args.total:g} seconds are over", flush=True)
            continue
        child = following or _start(name, args)
        # The next section loads its libraries while this one measures.
        following = _start(waiting[number + 1], args) if number + 1 < len(waiting) else None
        _run(child, name, list(SECTIONS).index(name) + 1, args)
    if following is not None:
        following.kill()
        following.wait()
        shutil.rmtree(_scratch(args, waiting[-1]), ignore_errors=True)
    states = {name: _state(args, name) for name in chosen}
    print("; ".join(f"{name}: {state}" for name, state in states.items()))
    return 0 if all(state in WHOLE for state in states.values()) else 1


def _run(child: subprocess.Popen[str], name: str, number: int, args: argparse.Namespace) -> None:
    """Let a section measure, for no longer than it may."""
    print(f"{number} of {len(SECTIONS)}, {SECTIONS[name]}", flush=True)
    started = time.monotonic()
    assert child.stdin is not None
    try:
        child.stdin.write("go\n")
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died while it loaded; its log says why
    try:
        code = child.wait(timeout=args.load + args.seconds + 5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        code = CUT
    _note_the_end(args, name, code)
    shutil.rmtree(_scratch(args, name), ignore_errors=True)  # a section that was stopped leaves its base there
    print(f"  {_state(args, name)}, {time.monotonic() - started:.0f} s", flush=True)


def _scratch(args: argparse.Namespace, name: str) -> Path:
    """A section's place for bases and run folders."""
    return Path(args.out.resolve() / f".{name}.scratch")


def _note_the_end(args: argparse.Namespace, name: str, code: int) -> None:
    """Write down that a section ended otherwise than by itself."""
    from benchmarks.gpu_sections.bench import origin, read
    from rectune.runtime.files import write_atomic

    file = args.out / f"{name}.json"
    about = read(file)
    if code == 0:
        return
    log = (args.out / f"{name}.log").read_text(errors="replace").strip().splitlines()
    last = next((line for line in reversed(log) if line.strip()), "no output")
    why = (
        f"stopped at its limit of {args.seconds:g} seconds" if code == CUT else f"ended with code {code}: {last[:400]}"
    )
    about = about or {
        "section": name,
        "card": None,
        "quick": args.quick,
        "seed": 0,
        **origin(),
        "rows": {},
        "failed": {},
        "left": [],
        "reason": "",
    }
    about["failed"] = {"the section": why}
    write_atomic(file, json.dumps({**about, "state": "partly" if about["rows"] else "failed"}, indent=1))


# ----------------------------------------------------------------------------------------------------------- a section's process

CUT = 75  # how a section ends that its own clock stopped


def _start(name: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    options = ["--part", name, "--device", args.device, "--out", str(args.out), "--seconds", str(args.seconds)]
    options += ["--load", str(args.load)]
    options += ["--quick"] if args.quick else []
    options += ["--inputs", str(args.inputs)] if args.inputs is not None else []
    options += ["--rows", *args.rows] if args.rows else []
    options += ["--beside", str(args.beside)] if args.beside else []
    log = (args.out / f"{name}.log").open("w")
    _scratch(args, name).mkdir(exist_ok=True)
    own = {"TMPDIR": str(_scratch(args, name)), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, __file__, *options], stdin=subprocess.PIPE, stderr=log, text=True, cwd=ROOT,
        env={**os.environ, **own},
    )  # fmt: skip


def _part(args: argparse.Namespace) -> int:
    """One section, in this process: load, wait for the word, measure."""
    import importlib

    warnings.simplefilter("ignore")
    module = importlib.import_module(f"benchmarks.gpu_sections.{args.part}")
    if args.part not in LIGHT:
        import peft  # noqa: F401
        import transformers
        import trl  # noqa: F401

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    if not sys.stdin.readline():
        return 1  # whoever asked is gone
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    watch = threading.Timer(args.seconds, os._exit, (CUT,))
    watch.daemon = True
    watch.start()
    from benchmarks.gpu_sections.bench import Bench
    from benchmarks.gpu_sections.rates import card_of

    started = time.monotonic()
    card = card_of(args.device, quick=args.quick)
    left = args.seconds - (time.monotonic() - started)
    bench = Bench(
        args.part, args.out / f"{args.part}.json", card=card, seconds=left, quick=args.quick, inputs=args.inputs,
        only=args.rows, beside=args.beside,
    )  # fmt: skip
    bench.tidy()
    module.run(bench)
    bench.close()
    return 0


def _end_with(parent: int) -> None:
    """End when the process that asked is gone: nothing may write beside the next call."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _whole(args: argparse.Namespace, name: str) -> bool:
    """Whether a section needs no further call: it is done, or its input is still missing."""
    state = _state(args, name)
    return state == "done" or (state == "no input" and args.inputs is None)


def _state(args: argparse.Namespace, name: str) -> str:
    file = args.out / f"{name}.json"
    return str(json.loads(file.read_text())["state"]) if file.exists() else "not measured"


def _no_cuda() -> str:
    """Why there is no CUDA device, asked in a process of its own: this one leaves the card alone."""
    asked: Any = [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"]
    out = subprocess.run(asked, capture_output=True, text=True, check=False)
    if out.returncode:
        return f"torch cannot be imported ({out.stderr.strip().splitlines()[-1] if out.stderr.strip() else 'no reason given'})"
    return "" if out.stdout.strip() == "True" else "torch sees no CUDA device"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu", help="a folder for the figures")
    parser.add_argument("--again", action="store_true", help="measure the chosen sections anew")
    parser.add_argument("--inputs", type=Path, help="a folder of prepared inputs, see above")
    parser.add_argument("--seconds", type=float, default=90, help="the clock of each section (90)")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="TEXT",
        help="only rows whose name holds one of these, so that processes share a section",
    )
    parser.add_argument(
        "--beside",
        type=int,
        default=0,
        metavar="N",
        help="note that N other processes have the card: times are then no rates",
    )
    parser.add_argument("--load", type=float, default=60, help="seconds that a section may load its libraries (60)")
    parser.add_argument(
        "--total", type=float, default=0, help="begin no section that could end after so many seconds (0: no limit)"
    )
    parser.add_argument("--part", choices=list(SECTIONS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
