"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rectune

_OVERRIDE = re.compile(r"--([A-Za-z_][\w@]*(?:\.[\w@]+)*)(?:=(.*))?", re.DOTALL)
DOES_NOT_FIT = 3  # the exit code of `rectune plan`; 1 is an error and 2 argparse's
USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors of the user are one line on standard error."""
    parser = build_parser()
    known, rest = parser.parse_known_args(argv)
    if sys.path[0:1] != [""]:
        sys.path.insert(0, "")  # a recipe may name callables of the working folder
    warnings.formatwarning = lambda message, category, *_: f"warning: {message}\n"
    if not sys.warnoptions:  # what libraries tell each other about their next version
        warnings.simplefilter("ignore", FutureWarning)
    try:
        overrides = parse_overrides(rest)
        if overrides and known.command in ("ls", "recommend", "index", "export"):
            raise ValueError(
                f"`--{overrides[0][0]}`: `rectune {known.command}` has no such option. See `rectune {known.command} --help`."
            )
        code: int = known.run(known, overrides) or 0
    except Exception as error:
        if known.traceback or not of_the_user(error):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command continues where it was.", file=sys.stderr)
        return 130
    return code


def entry() -> None:
    """Console script."""
    sys.exit(main())


def of_the_user(error: Exception) -> bool:
    """Whether an error is for the user to mend. A full disk reaches us as each library's own kind of error."""
    library = type(error).__module__.startswith(("polars", "safetensors", "sqlite3"))
    return isinstance(error, USER_ERRORS) or library or "PytorchStreamWriter" in str(error)


def message_of(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror and error.errno:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{place}"
    return " ".join(str(error).split()) or type(error).__name__


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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    recipe = "a recipe file, or the name of a bundled recipe"
    override = "Any key of the recipe can be set by its dotted name: --stages.0.learning_rate 1e-4"
    _command(commands, "ls", _ls, "list the bundled recipes and templates")
    show = _command(commands, "show", _show, "print a recipe as it is resolved", epilog=override)
    show.add_argument("recipe", help=recipe)
    preview = _command(
        commands,
        "preview",
        _preview,
        "print examples with the trained tokens marked, and token lengths",
        epilog=override,
    )
    preview.add_argument("recipe", help=recipe)
    preview.add_argument("--examples", type=int, default=5, help="how many examples to print (default 5)")
    plan = _command(
        commands,
        "plan",
        _plan,
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
    train = _command(commands, "train", _train, "run a recipe from log to report, or continue it", epilog=override)
    train.add_argument("recipe", help=recipe)
    train.add_argument(
        "--seeds",
        type=_seeds,
        default=None,
        help="run several seeds, e.g. 0,1,2, and sum them up in one report; replaces the seeds of the recipe's `grid`",
    )
    evaluate = _command(commands, "eval", _eval, "rank and report again in a run folder", epilog=override)
    evaluate.add_argument("folder", help="a run folder")
    recommend = _command(commands, "recommend", _recommend, "recommend items after a history")
    recommend.add_argument("folder", help="a run folder")
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
    export = _command(commands, "export", _export, "write a run as a folder that transformers alone loads")
    export.add_argument("folder", help="a run folder")
    export.add_argument("--to", default=None, metavar="FOLDER", help="where to (default: export in the run folder)")
    index = commands.add_parser(
        "index", help="add items to the index of a run", description="add items to the index of a run"
    )
    add = _command(
        index.add_subparsers(dest="verb", required=True, metavar="VERB"),
        "add",
        _index_add,
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


def _command(commands: Any, name: str, run: Any, help_: str, **options: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_, description=help_, allow_abbrev=False, **options
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    parser.set_defaults(run=run)
    return parser


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    return seeds


def _ls(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from rectune.recipe import bundled, read_yaml

    print("recipes (rectune show NAME, rectune train NAME)")
    for folder in bundled("recipes"):
        files = sorted(folder.glob("*.yaml"))
        width = max((len(file.stem) for file in files), default=0)
        for file in files:
            about = (read_yaml(file.read_text(encoding="utf-8"), file.name)[0] or {}).get("about", "")
            print(f"  {file.stem:<{width}}  {about}")
    print("templates")
    for folder in bundled("templates"):
        for file in sorted(folder.glob("*.jinja")):
            print(f"  {file.name}")


def _show(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from rectune.recipe import load_recipe

    print(load_recipe(args.recipe, overrides).dump(), end="")


def _preview(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from rectune.preview import preview
    from rectune.recipe import load_recipe

    print(preview(load_recipe(args.recipe, overrides), examples=args.examples))


def _plan(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    from rectune.planning.cards import card_named
    from rectune.recipe import load_recipe

    card = None if args.gpu is None else card_named(args.gpu)
    recipe = load_recipe(args.recipe, overrides)
    _quiet_libraries()
    from rectune.planning.advice import change_for
    from rectune.planning.plan import forecast
    from rectune.planning.text import text_of

    made = forecast(recipe, card)
    short = [stage for stage in made.stages if card is not None and stage.need.total > card.memory]
    changes = {stage.stage: change_for(recipe, card, stage) for stage in short if card is not None}
    print(text_of(made, changes))
    return DOES_NOT_FIT if short else 0


def _train(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    _quiet_libraries()
    from rectune.grid import train_grid
    from rectune.recipe import load_recipe
    from rectune.run import train

    recipe = load_recipe(args.recipe, overrides)
    if args.seeds is None and not recipe.settings.get("grid"):
        train(recipe)
        return
    train_grid(args.recipe, overrides, args.seeds)


def _eval(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    _quiet_libraries()
    from rectune.run import evaluate

    evaluate(args.folder, overrides)


def _recommend(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    given = [name for name in ("items", "titles", "users") if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError("give the history in exactly one way: --items ID …, --titles TITLE …, or --users FILE.")
    _quiet_libraries()
    from rectune.run import recommend

    users, histories, candidates = _histories(args)
    lists = recommend(
        args.folder,
        histories,
        k=args.k,
        by="title" if given == ["titles"] else "item_id",
        hide_seen=not args.show_seen,
        allow=None if args.allow is None else _ids(args.allow),
        deny=() if args.deny is None else _ids(args.deny),
        candidates=candidates,
    )
    for user, items in zip(users, lists, strict=True):
        if args.json:
            print(json.dumps({"user": user, "items": items}, ensure_ascii=False))
            continue
        print("" if user is None else f"user {user}")
        for place, item in enumerate(items, start=1):
            print(f"{place:3}. {item['title']}  [{item['item_id']}]  {item['score']:.3f}")


def _export(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    _quiet_libraries()
    from rectune.run_export import export

    place, about = export(args.folder, args.to)
    items = f"{about['items']['total']:,} items, {about['items']['added']:,} of them added"
    print(f"exported to {place}: weights in {about['weights']['dtype']}, {items}.")
    for step, found in about["weights"].items():
        if step != "dtype":
            away, largest = found["largest_difference"], found["largest_logit"]
            print(
                f"  {step.replace('_', ' ')} moved the probe's logits by {away:.2g} at most (the largest is {largest:.3g})"
            )
    for form, metrics in about.get("forms", {}).items():
        print(f"  {form:<31}" + "   ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def _index_add(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    _quiet_libraries()
    from rectune.run import add_to_index

    done = add_to_index(args.folder, args.items, args.rows)
    print(f"added {done['added']} items; no name of an old item changed.")
    if found := done["report"]:
        print(f"recall@{found['k']} of {found['rows']} targets among {found['added']} added items:")
        for name in ("model", "model + prior", "text nearest-neighbour", "chance"):
            if name in found:
                print(f"  {name:<24}" + "   ".join(f"{where} {value:.4f}" for where, value in found[name].items()))


def _histories(args: argparse.Namespace) -> tuple[list[Any], list[list[str]], list[list[str]] | None]:
    """Users, their histories, and the candidates of each where the file gives them."""
    if args.users is None:
        return [None], [args.titles if args.titles is not None else args.items], None
    file = Path(args.users)
    users, histories, candidates = [], [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            users.append(row["user"])
            histories.append([str(item) for item in row["items"]])
            if "candidates" in row:
                candidates.append([str(item) for item in row["candidates"]])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f'{file.name}:{number}: a line must be {{"user": …, "items": [ID, …]}}.') from None
    if not users:
        raise ValueError(f"{file.name}: the file names no user.")
    if candidates and len(candidates) < len(users):
        raise ValueError(f"{file.name}: {len(users) - len(candidates)} lines have no `candidates`; give all or none.")
    return users, histories, candidates or None


def _ids(file: str) -> list[str]:
    """Item ids, one a line."""
    return [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()]


def _quiet_libraries() -> None:
    """Keep libraries from talking over the report; their errors still come through."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.disable_progress_bar()
