"""The command line."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rectune
from rectune import commands
from rectune.runtime.processes import leave_processes
from rectune.runtime.told import one_line_each

_OVERRIDE = re.compile(r"--([A-Za-z_][\w@]*(?:\.[\w@]+)*)(?:=(.*))?", re.DOTALL)
LONGEST = 600  # characters of a message
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors of the user are one line on standard error."""
    parser = build_parser()
    known, rest = parser.parse_known_args(argv)
    if trusted(known) and "" not in sys.path:
        sys.path.append(
            ""
        )  # a recipe may name callables of the working folder; last, so that they stand for no library
    warnings.formatwarning = one_line_each()
    if not sys.warnoptions:  # what libraries tell each other about their next version
        warnings.simplefilter("ignore", FutureWarning)
    try:
        overrides = parse_overrides(rest)
        if overrides and known.command in (
            "ls",
            "init",
            "recommend",
            "rank",
            "compare",
            "check",
            "index",
            "export",
            "push",
            "serve",
            "demo",
            "clean",
        ):
            raise ValueError(
                f"`--{overrides[0][0]}`: `rectune {known.command}` has no such option. See `rectune {known.command} --help`."
            )
        code: int = known.run(known, overrides) or 0
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 141
        if known.traceback or not of_the_user(error):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues where it was.", file=sys.stderr)
        return 130
    return code


def _nobody_reads() -> bool:
    """Whether it is the output that nobody reads any more, as after `| head`."""
    asked = select.poll()
    asked.register(1, select.POLLOUT)
    gone = any(event & select.POLLERR for _, event in asked.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone


def trusted(args: argparse.Namespace) -> bool:
    """Whether the command runs a recipe or a run folder, whose code is the user's; a bundle is others' and must find none."""
    if args.command in ("push", "serve", "demo"):
        return False
    folder = getattr(args, "folder", None)
    return args.command not in ("recommend", "rank", "export") or (Path(str(folder)) / "run.json").exists()


def entry() -> None:
    """Console script."""
    code = main()
    if not code:
        leave_processes()  # as the process ends; whoever calls `main` may go on
    sys.exit(code)


def of_the_user(error: Exception) -> bool:
    """Whether an error is for the user to mend. A full disk reaches us as each library's own kind of error."""
    library = type(error).__module__.startswith(("polars", "safetensors", "sqlite3"))
    return isinstance(error, USER_ERRORS) or library or "PytorchStreamWriter" in str(error)


def message_of(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror and error.errno:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{place}"
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= LONGEST:
        return text
    return (
        f"{text[: LONGEST - 200]} … {text[-190:]}"  # what was got may be pages; the key stands first, what to type last
    )


def parse_overrides(rest: Sequence[str]) -> list[tuple[str, str]]:
    """Read `--data.path X`, `--seed=1` … as (key, text) pairs. Raises ValueError for anything else."""
    pairs = []
    words = list(rest)
    while words:
        word = words.pop(0)
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            raise ValueError(f"`{word}` was not expected. Overrides are written `--section.key value`.")
        if match[2] is None and not words:
            raise ValueError(f"`{word}` needs a value: `{word} VALUE`.")
        pairs.append((match[1], match[2] if match[2] is not None else words.pop(0)))
    return pairs


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; the help in the docs is made from it."""
    parser = argparse.ArgumentParser(
        prog="rectune",
        description="Tune an open language model into a recommender, and say what tuning was worth.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rectune {rectune.__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    recipe = "a recipe file, or the name of a bundled recipe"
    override = "Any key of the recipe can be set by its dotted name: --stages.0.learning_rate 1e-4"
    ls = _command(group, "ls", commands.ls, "list the bundled recipes and templates, or the names that a section knows")
    ls.add_argument(
        "home",
        nargs="?",
        metavar="SECTION",
        help="data, split, vectors, index, tasks, tasks.history, tasks.writer, stages, stages.rewards, rank.prior, eval, eval.oracle",
    )
    ls.add_argument("name", nargs="?", metavar="NAME", help="one of its names: what it does, and its keys")
    init = _command(group, "init", commands.init, "write a commented recipe for a log of your own")
    init.add_argument("log", help="a log: .csv, .tsv, .parquet, .jsonl, plain or .gz, or a folder of such files")
    init.add_argument(
        "--items", dest="items_file", default=None, metavar="FILE", help="the items: an id, a title, other texts"
    )
    for role in ("user", "item", "time"):
        init.add_argument(
            f"--{role}", default=None, metavar="COLUMN", help=f"the column of the {role}, where its name does not tell"
        )
    device = init.add_mutually_exclusive_group()
    device.add_argument(
        "--gpu", default=None, metavar="CARD", help="tune a language model that fits this card, e.g. 24GB or 'RTX 4090'"
    )
    device.add_argument("--cpu", action="store_true", help="a small model from scratch (the default)")
    init.add_argument("--to", default=None, metavar="FILE", help="where to (default: LOG.yaml here)")
    show = _command(group, "show", commands.show, "print a recipe as it is resolved", epilog=override)
    show.add_argument("recipe", help=recipe)
    preview = _command(
        group,
        "preview",
        commands.preview,
        "print examples with the trained tokens marked, and token lengths",
        epilog=override,
    )
    preview.add_argument("recipe", help=recipe)
    preview.add_argument("--examples", type=int, default=5, help="how many examples to print (default 5)")
    plan = _command(
        group,
        "plan",
        commands.plan,
        "say what memory, time and disk a recipe takes, before anything is downloaded or run",
        epilog=override + ". Exit code: 0 when it fits or no card is given, 3 when it does not fit, 1 for an error.",
    )
    plan.add_argument("recipe", help=recipe)
    plan.add_argument(
        "--gpu",
        default=None,
        metavar="CARD",
        help="a card's name or its memory: 'RTX 4090', 24GB (default: this machine)",
    )
    train = _command(group, "train", commands.train, "run a recipe from log to report, or continue it", epilog=override)
    train.add_argument("recipe", help=recipe)
    train.add_argument(
        "--from",
        dest="earlier",
        default=None,
        metavar="RUN",
        help="go on from a finished run, a bundle or a repository of the Hub: its model is the base, its items keep their names",
    )
    train.add_argument(
        "--rebuild",
        action="append",
        default=[],
        metavar="BOX",
        help="build a box anew, with all that reads it: log, split, vectors, index, base, trie, train0, …; one that reads the line, such as rank-tuned or baselines; or all",
    )
    train.add_argument(
        "--seeds",
        type=_seeds,
        default=None,
        help="run several seeds, e.g. 0,1,2, and sum them up in one report; replaces the seeds of the recipe's `grid`",
    )
    train.add_argument(
        "--push",
        default=None,
        metavar="USER/REPO",
        help="put the finished run on the Hugging Face Hub, see `rectune push`",
    )
    _pushing(train)
    evaluate = _command(group, "eval", commands.evaluate, "rank and report again in a run folder", epilog=override)
    evaluate.add_argument("folder", help="a run folder")
    evaluate.add_argument(
        "--lists",
        action="append",
        default=[],
        metavar="FILE",
        help='lists made elsewhere as a row of the table: JSON lines {"user": ID, "items": [ID, …]}, best first; may be given again',
    )
    compare = _command(
        group, "compare", commands.compare, "compare finished runs: paired differences on the same test rows"
    )
    compare.add_argument("folders", nargs="+", metavar="RUN", help="run folders; each is compared with the first")
    compare.add_argument(
        "--k", type=int, metavar="N", help="how many places of a list count (default: 10, or as many as all lists have)"
    )
    compare.add_argument("--json", action="store_true", help="print JSON")
    check = _command(
        group,
        "check",
        commands.check,
        "look for held-out events in what a run was trained on",
        epilog="Exit code: 0 when there is no leak, 3 when there is one, 1 for an error.",
    )
    check.add_argument("folder", help="a run folder")
    recommend = _command(group, "recommend", commands.recommend, "recommend items after a history")
    recommend.add_argument("folder", help="a run folder, an exported one, or a repository of the Hub (USER/REPO)")
    recommend.add_argument(
        "--items",
        nargs="*",
        default=None,
        metavar="ID",
        help="a history as item ids, oldest first (none: an empty history)",
    )
    recommend.add_argument(
        "--titles", nargs="+", default=None, metavar="TITLE", help="a history as titles, oldest first"
    )
    recommend.add_argument(
        "--users",
        default=None,
        metavar="FILE",
        help='JSON lines, one user a line: {"user": …, "items": [ID, …]}, and "candidates": [ID, …] to rank only those',
    )
    recommend.add_argument("--allow", default=None, metavar="FILE", help="list only these items (one id a line)")
    recommend.add_argument("--deny", default=None, metavar="FILE", help="don't list these items (one id a line)")
    recommend.add_argument("--k", type=int, default=None, help="how many items (default: rank.k of the recipe)")
    recommend.add_argument("--show-seen", action="store_true", help="also list items of the history")
    recommend.add_argument("--json", action="store_true", help="print JSON lines")
    everybody = _command(group, "rank", commands.rank, "write lists for every user of a file, in Parquet")
    everybody.add_argument("folder", help="a run folder, an exported one, or a repository of the Hub (USER/REPO)")
    everybody.add_argument(
        "--users",
        required=True,
        metavar="PATH",
        help="a file, or a folder of files: Parquet with the columns `user` and `items` (item ids, oldest first), or JSON lines with these keys",
    )
    everybody.add_argument(
        "--to", required=True, metavar="FOLDER", help="where to; a job that was stopped goes on there"
    )
    everybody.add_argument("--allow", default=None, metavar="FILE", help="list only these items (one id a line)")
    everybody.add_argument("--deny", default=None, metavar="FILE", help="don't list these items (one id a line)")
    everybody.add_argument("--k", type=int, default=None, help="how many items (default: rank.k of the recipe)")
    everybody.add_argument("--show-seen", action="store_true", help="also list items of the history")
    everybody.add_argument(
        "--shard", type=int, default=4096, metavar="USERS", help="users of a file that is written (default: 4096)"
    )
    export = _command(group, "export", commands.export, "write a run as a folder that transformers alone loads")
    export.add_argument("folder", help="a run folder, or, with --for, an exported one")
    export.add_argument("--to", default=None, metavar="FOLDER", help="where to (default: export in the run folder)")
    export.add_argument(
        "--adapter-only",
        action="store_true",
        help="the adapter and the name of its base on the Hub instead of whole weights",
    )
    export.add_argument(
        "--for",
        action="append",
        default=[],
        dest="engines",
        metavar="ENGINE",
        help="also write the catalogue for an inference engine, into engines/ENGINE: flashrec, sglang, sid-gr, vllm, xllm",
    )
    push = _command(group, "push", commands.push, "put a run or a bundle on the Hugging Face Hub, and load it back")
    push.add_argument("folder", help="a run folder, or an exported one")
    push.add_argument("repo", metavar="USER/REPO", help="the repository; made where it is not there")
    _pushing(push)
    push.add_argument("--revision", default=None, metavar="BRANCH", help="the branch (default: main)")
    push.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit; no tag is set")
    push.add_argument("--message", default=None, help="of the commit")
    push.add_argument("--keep-card", action="store_true", help="leave the repository's README.md as it is")
    push.add_argument("--adapter-only", action="store_true", help="the adapter instead of whole weights")
    push.add_argument(
        "--space", action="store_true", help="also make a Space of the same name that shows the page (extra `demo`)"
    )
    push.add_argument("--dry-run", action="store_true", help="print what would be pushed, and send nothing")
    demo = _command(group, "demo", commands.demo, "show a page on which one types a history (extra `demo`)")
    demo.add_argument(
        "source", metavar="BUNDLE", help="an exported folder, a run folder, or a repository of the Hub (USER/REPO)"
    )
    demo.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    demo.add_argument("--port", type=int, default=7860, help="0: whichever is free (default 7860)")
    demo.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    demo.add_argument("--revision", default=None, help="of a repository of the Hub")
    serve = _command(group, "serve", commands.serve, "answer over HTTP (extra `serve`)")
    serve.add_argument(
        "source", metavar="BUNDLE", help="an exported folder, a run folder, or a repository of the Hub (USER/REPO)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine only)")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    serve.add_argument("--revision", default=None, help="of a repository of the Hub")
    serve.add_argument(
        "--batch-tokens", type=int, default=8192, help="about how many tokens are answered together (default 8192)"
    )
    serve.add_argument(
        "--wait-ms", type=float, default=3.0, help="how long a request waits for others to be answered with (default 3)"
    )
    serve.add_argument(
        "--queue", type=int, default=256, help="how many requests wait before others are refused (default 256)"
    )
    serve.add_argument("--timeout", type=float, default=30.0, help="seconds until an answer is given up (default 30)")
    clean = _command(group, "clean", commands.clean, "remove stages of a run folder that its last report did not use")
    clean.add_argument("folder", help="a run folder")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    index = group.add_parser(
        "index", help="add items to the index of a run", description="add items to the index of a run"
    )
    add = _command(
        index.add_subparsers(dest="verb", required=True, metavar="VERB"),
        "add",
        commands.index_add,
        "name new items without tuning",
    )
    add.add_argument("folder", help="a run folder")
    add.add_argument(
        "items", help="new items: .csv, .jsonl or .parquet with item_id, title and the catalogue's other columns"
    )
    add.add_argument(
        "--rows", default=None, metavar="FILE", help='judge them: JSON lines {"items": [ID, …], "target": ID}'
    )
    return parser


def _command(group: Any, name: str, run: Any, help_: str, **options: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=help_, description=help_, allow_abbrev=False, **options
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    parser.set_defaults(run=run)
    return parser


def _pushing(command: argparse.ArgumentParser) -> None:
    """What may be said of a push wherever one is asked for."""
    command.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    command.add_argument(
        "--license", default=None, metavar="ID", help="the licence, e.g. apache-2.0 (default: that of the base)"
    )
    command.add_argument("--public-titles", action="store_true", help="show a list with real titles in the card")


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    return seeds
