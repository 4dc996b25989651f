"""What each command does with its parsed arguments and the overrides of the recipe."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rectune.runtime.text_files import read_lines, read_text

DOES_NOT_FIT = 3  # the exit code of `rectune plan`; 1 is an error and 2 argparse's
LEAKS = 3  # the exit code of `rectune check`


def ls(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """List the bundled recipes and templates, or what a section of a recipe can name."""
    from rectune.recipe.load import bundled, read_yaml

    if args.home is not None:
        _ls_home(args.home, args.name)
        return
    print("recipes (rectune show NAME, rectune train NAME)")
    for folder in bundled("recipes"):
        files = sorted(folder.glob("*.yaml"))
        width = max((len(file.stem) for file in files), default=0)
        for file in files:
            about = (read_yaml(read_text(file), file.name)[0] or {}).get("about", "")
            print(f"  {file.stem:<{width}}  {about}")
    print("templates")
    for folder in bundled("templates"):
        for file in sorted(folder.glob("*.jinja")):
            print(f"  {file.name}")


def _ls_home(section: str, name: str | None) -> None:
    from rectune.recipe.homes import HOMES, first_sentence, offered
    from rectune.runtime.near import near

    if section not in HOMES:
        raise ValueError(f"`rectune ls {section}`: no section of that name is made of callables.{near(section, HOMES)}")
    names = offered(HOMES[section])
    if name is not None:
        _ls_name(section, name, names)
        return
    width = max(map(len, names))
    home = HOMES[section]
    call = "{}" if home.plain else "{{call: {}, …}}"
    own = (
        "a module of your own: " + call.format("'module'")
        if home.needs
        else "a function of your own: " + call.format("'module:function'")
    )
    print(f"{section}: {call.format('NAME')} in a recipe, or {own}")
    for one, says in names.items():
        print(f"  {one:<{width}}  {first_sentence(says)}")
    print(f"rectune ls {section} NAME tells what one of them does and which keys it takes")
    if home.needs:
        also = f", and may define {', '.join(home.may_define)}" if home.may_define else ""
        print(f"one of your own is a module that defines {', '.join(home.needs)}{also}")
    elif (takes := home.call) is not None:
        begins = f"is called with ({takes})" if takes.first else "is called with its keys"
        may = f", and is given {' and '.join(home.may)} where it has such a parameter" if home.may else ""
        print(f"a function of your own {begins}{may}")


def _ls_name(section: str, name: str, names: dict[str, str]) -> None:
    from rectune.recipe.calls import keys_of
    from rectune.runtime.near import near

    if name not in names:
        raise ValueError(f"`rectune ls {section} {name}`: there is no such name.{near(name, names)}")
    print(names[name])
    if section == "stages":
        print("\nIts keys are in docs/keys.md.")
    elif keys := keys_of(section, name):
        width = max(map(len, keys))
        print("\nkeys, and what they are where the recipe does not say")
        for key, default in keys.items():
            print(f"  {key:<{width}}  {default or 'has to be given'}")


def init(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Write a recipe for a log."""
    from rectune.forecast.starter import starter
    from rectune.planning.cards import card_named
    from rectune.runtime.files import write_atomic

    log, items = Path(args.log), None if args.items_file is None else Path(args.items_file)
    for path in (log, items):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"`{path}` was not found.")
    to = Path(args.to) if args.to is not None else Path(f"{log.stem.partition('.')[0]}.yaml")
    if to.exists():
        raise ValueError(f"{to} exists and is not overwritten. Give another file with --to.")
    if args.gpu is not None:
        _quiet_libraries()
    named = {role: getattr(args, role) for role in ("user", "item", "time") if getattr(args, role) is not None}
    text, notes = starter(log, items, to, card=None if args.gpu is None else card_named(args.gpu), given=named)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(to, text)
    print("\n".join(notes))
    print(f"wrote {to}. Next: rectune preview {to}")


def show(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Print a recipe as it is resolved."""
    from rectune.recipe.load import load_recipe

    print(load_recipe(args.recipe, overrides).dump(), end="")


def preview(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Print examples as they are trained."""
    _quiet_libraries()
    from rectune.recipe.load import load_recipe
    from rectune.run import preview as previews

    print(previews.preview(load_recipe(args.recipe, overrides), examples=args.examples))


def plan(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    """Say what a recipe takes; 3 when that does not fit the card."""
    from rectune.planning.cards import card_named
    from rectune.recipe.load import load_recipe

    card = None if args.gpu is None else card_named(args.gpu)
    recipe = load_recipe(args.recipe, overrides)
    _quiet_libraries()
    from rectune.forecast.advice import change_for
    from rectune.forecast.forecast import forecast
    from rectune.forecast.text import text_of

    made = forecast(recipe, card)
    short = [stage for stage in made.stages if card is not None and stage.need.total > card.memory]
    changes = {stage.stage: change_for(recipe, card, stage) for stage in short if card is not None}
    print(text_of(made, changes))
    return DOES_NOT_FIT if short else 0


def train(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Run a recipe, or its grid."""
    _quiet_libraries()
    from rectune.run import train

    if args.push is None:
        if args.public or args.public_titles or args.license is not None:
            raise ValueError(
                "`--public`, `--license` and `--public-titles` say how to push; give `--push USER/REPO`, too."
            )
        train.train(_asked_for(args, overrides), seeds=args.seeds, rebuild=args.rebuild)
        return
    from rectune.bundle.export import export
    from rectune.bundle.push import Pushing, check_push, push
    from rectune.runtime.processes import is_main, wait

    recipe = _asked_for(args, overrides)
    if args.seeds is not None or recipe.settings.get("grid"):
        raise ValueError(
            "`--push`: several runs were asked for. Train them, and push the one that you choose with `rectune push`."
        )
    how = Pushing(args.push, public=args.public, licence=args.license, public_titles=args.public_titles)
    check_push(_base_of(recipe), how)
    place, _ = export(train.train(recipe, rebuild=args.rebuild))  # by all processes; one sends it
    if is_main():
        _tell_pushed(push(place, how))
    wait()


def _base_of(recipe: Any) -> str | None:
    """The base that a card names: the recipe's, or that of the run which it goes on from."""
    earlier = recipe.settings.get("from")
    if earlier is None:
        named: str | None = (recipe.settings["model"] or {}).get("model_name_or_path")
        return named
    about = json.loads((Path(earlier) / "rectune.json").read_text(encoding="utf-8"))
    return (about.get("base") or {}).get("on_hub")  # type: ignore[no-any-return]


def _asked_for(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> Any:
    """The recipe, going on from an earlier run where one is named."""
    from rectune.recipe.load import load_recipe

    recipe = load_recipe(args.recipe, overrides)
    if args.earlier is None:
        return recipe
    from rectune.bundle.refresh import refreshed

    return refreshed(recipe, args.earlier)


def evaluate(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Rank and report again in a run folder."""
    _quiet_libraries()
    from rectune.run import single

    single.evaluate(args.folder, overrides, lists=args.lists)


def compare(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Compare finished runs on the same test rows."""
    _quiet_libraries()
    from rectune.recipe.calls import named
    from rectune.run.judged import as_json

    data, text = named("rectune.eval.compare:compare", None, "compare")(args.folders, k=args.k)
    print(as_json(data) if args.json else text)


def check(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> int:
    """Look for leaks in a run; 3 when there is one."""
    _quiet_libraries()
    from rectune.run.leaks import leaks

    found = leaks(args.folder)
    width = max(len(finding.kind) for finding in found)
    for finding in found:
        print(f"{finding.kind:<{width}}  {finding.what}: {finding.told}.")
    leaking = sum(finding.kind == "leak" for finding in found)
    print(f"{leaking} leaks" if leaking != 1 else "1 leak")
    return LEAKS if leaking else 0


def recommend(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Recommend items after histories."""
    given = [name for name in ("items", "titles", "users") if getattr(args, name) is not None]
    if len(given) != 1:
        raise ValueError("give the history in exactly one way: --items ID …, --titles TITLE …, or --users FILE.")
    _quiet_libraries()
    from dataclasses import asdict

    from rectune.bundle.recommender import Recommender

    users, histories, candidates = _histories(args)
    recommender = Recommender.from_pretrained(args.folder)
    lists = recommender.recommend(
        histories,
        min(recommender.bundle.rank.k, recommender.max_k) if args.k is None else args.k,
        by="title" if given == ["titles"] else "item_id",
        hide_seen=not args.show_seen,
        allow=None if args.allow is None else _ids(args.allow),
        deny=() if args.deny is None else _ids(args.deny),
        candidates=candidates,
        users=None if args.users is None else [str(user) for user in users],
    )
    for user, items in zip(users, lists, strict=True):
        if args.json:
            shown = [{key: value for key, value in asdict(item).items() if value is not None} for item in items]
            print(json.dumps({"user": user, "items": shown}, ensure_ascii=False))
            continue
        print("" if user is None else f"user {user}")
        for place, item in enumerate(items, start=1):
            print(f"{place:3}. {item.title}  [{item.item_id}]  {item.score:.3f}")


def rank(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Write lists for every user of a file."""
    _quiet_libraries()
    from rectune.bundle.everybody import rank_everybody
    from rectune.bundle.recommender import Recommender
    from rectune.runtime.processes import is_main, start_processes

    start_processes()
    recommender = Recommender.from_pretrained(args.folder)
    found = rank_everybody(
        recommender, Path(args.users), Path(args.to), k=min(recommender.bundle.rank.k, recommender.max_k) if args.k is None else args.k,
        hide_seen=not args.show_seen, allow=None if args.allow is None else _ids(args.allow), deny=() if args.deny is None else _ids(args.deny),
        size=args.shard, named=args.folder,
    )  # fmt: skip
    if not is_main():
        return
    kept = f", {found['kept']:,} of them kept" if found["kept"] else ""
    print(f"{found['lists']:,} lists in {found['shards']:,} files of {args.to}{kept}")
    if found["unknown"]:
        print(f"{found['unknown']:,} items of histories are not in the catalogue and counted for nothing")


def clean(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Remove what a run folder no longer uses."""
    _quiet_libraries()
    from rectune.run import clean as cleaning

    removed = cleaning.clean(args.folder, dry_run=args.dry_run)
    for stage, size in removed:
        print(f"{'would remove' if args.dry_run else 'removed'} {stage.name} ({size / 2**20:,.1f} MiB)")
    total = sum(size for _, size in removed)
    print(f"{len(removed)} stages, {total / 2**20:,.1f} MiB" if removed else "nothing to remove")


def export(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Write a run as a folder that transformers alone loads."""
    _quiet_libraries()
    from rectune.bundle import export as run_export
    from rectune.bundle.for_engines import FOLDER, is_bundle, write_beside

    if args.engines and is_bundle(Path(args.folder)):
        for engine, said in write_beside(Path(args.folder), args.engines, args.to).items():
            print(f"{Path(args.to) / engine}/{said}")
        return
    place, about = run_export.export(args.folder, args.to, adapter_only=args.adapter_only, engines=args.engines)
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
    for engine, said in about.get("engines", {}).items():
        print(f"  {FOLDER}/{engine}/{said}")


def push(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Put a run or a bundle on the Hub."""
    _quiet_libraries()
    from rectune.bundle import push as pushing

    how = pushing.Pushing(
        args.repo, public=args.public, licence=args.license, revision=args.revision, create_pr=args.create_pr, message=args.message,
        keep_card=args.keep_card, adapter_only=args.adapter_only, public_titles=args.public_titles,
        space=args.space,
    )  # fmt: skip
    if args.dry_run:
        found = pushing.planned(args.folder, how)
        print(
            f"would push to {found['repo']} ({'private' if found['private'] else 'public'}), licence {found['licence']}, tag {found['tag'] or 'none'}:"
        )
        for name, size in found["files"].items():
            print(f"  {size / 2**20:9.2f} MiB  {name}")
        print(found["card"])
        return
    _tell_pushed(pushing.push(args.folder, how))


def _tell_pushed(done: Any) -> None:
    tag = f", tag {done.tag}" if done.tag else ""
    print(f"pushed {done.files} files, {done.size / 2**20:,.1f} MiB, as commit {done.commit[:12]}{tag}: {done.url}")
    probed = "" if done.probe is None else f" and gives the probe's logits within {done.probe:.2g}"
    if done.space:
        print(f"its page: {done.space} (a private model needs the secret HF_TOKEN there)")
    print(f"fetched back into a fresh cache: every file is equal{probed}.")


def demo(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Show a page."""
    _quiet_libraries()
    _needs_extra("demo", "gradio")
    from rectune.bundle.recommender import Recommender

    recommender = Recommender.from_pretrained(args.source, device=args.device, revision=args.revision)
    from rectune.bundle.demo.page import launch

    launch(recommender, host=args.host, port=args.port)


def serve(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Answer over HTTP."""
    for name, least in (("batch_tokens", 1), ("wait_ms", 0), ("queue", 1), ("timeout", 0.01), ("port", 0)):
        if not getattr(args, name) >= least:
            raise ValueError(f"`--{name.replace('_', '-')}` must be at least {least}, got {getattr(args, name)}.")
    _quiet_libraries()
    _needs_extra("serve", "fastapi", "uvicorn", "prometheus_client")
    from rectune.bundle.serving.guard import Limits
    from rectune.bundle.serving.serve import serve as serving

    limits = Limits(tokens=args.batch_tokens, wait=args.wait_ms / 1000, queue=args.queue, timeout=args.timeout)
    serving(args.source, host=args.host, port=args.port, device=args.device, revision=args.revision, limits=limits)


def _needs_extra(extra: str, *modules: str) -> None:
    """Raise ImportError where an extra is not installed."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"`rectune {extra}` needs {', '.join(missing)}. Type `pip install 'rectune[{extra}]'`.")


def index_add(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    """Name new items, and judge them where rows are given."""
    _quiet_libraries()
    from rectune.run import add_items

    done = add_items.add_to_index(args.folder, args.items, args.rows)
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
    from rectune.bundle.user_lines import user_line

    file = Path(args.users)
    read = [user_line(line, f"{file.name}:{number}") for number, line in read_lines(file)]
    if not read:
        raise ValueError(f"{file.name}: the file names no user.")
    candidates = [row.candidates for row in read if row.candidates is not None]
    if candidates and len(candidates) < len(read):
        raise ValueError(f"{file.name}: {len(read) - len(candidates)} lines have no `candidates`; give all or none.")
    return [row.user for row in read], [row.items for row in read], candidates or None


def _ids(file: str) -> list[str]:
    """Item ids, one a line."""
    return [line.strip() for _, line in read_lines(Path(file))]


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
