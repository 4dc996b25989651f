"""Short names: every section has a home, a dotted name works everywhere, a name that has moved says what to type."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rectune.cli import main
from rectune.recipe.calls import keys_of, resolve_call
from rectune.recipe.fingerprints import name_of
from rectune.recipe.homes import HOMES, MOVED, first_sentence, home_of, offered
from rectune.recipe.load import Recipe, bundled, load_recipe
from rectune.run.run import open_recipe

EVERY = [(key, name) for key, home in HOMES.items() for name in offered(home)]


def resolved(key: str, name: str) -> Any:
    """What `key`.call = `name` means."""
    settings: Any = {"call": name}
    for part in reversed(key.split(".")):
        settings = [settings] if part == "0" else {part: settings}
    return resolve_call(Recipe("r", settings), key)


@pytest.mark.parametrize(("key", "name"), EVERY, ids=lambda part: str(part))
def test_a_short_name_is_its_dotted_name(key: str, name: str) -> None:
    home = HOMES[key]
    found = resolved(key, name)
    assert found is resolved(key, home.full(name))
    assert name_of(found) == home.full(name)
    assert first_sentence(offered(home)[name]).endswith(".")
    home.check(found, "here")


def test_the_homes_hold_what_recipes_need_and_no_helper() -> None:
    names = {key: set(offered(home)) for key, home in HOMES.items()}
    assert names["data"] >= {
        "synthetic",
        "table",
        "movielens",
        "amazon",
        "lc_rec",
        "recbole",
        "minionerec",
        "tallrec",
        "sdpo",
        "book_crossing",
    }
    assert names["split"] == {"leave_one_out", "by_time", "given", "by_user", "tallrec_movie"}
    assert names["vectors"] == {"sentences", "tfidf", "hidden_states", "sasrec", "from_file"}
    assert names["stages"] == {"dpo", "grpo", "s_dpo", "seq2seq", "sft"}
    assert names["stages.rewards"] == {"hit", "rank", "similarity", "prior"}
    assert names["tasks.history"] == {"window", "recent", "similar", "mixed"}
    assert names["tasks.writer"] == {"extractive", "causal_model"}
    assert names["rank.prior"] == {"prior"}
    assert names["eval"] == {"ranking", "choices", "answers", "ratings"}
    assert names["eval.oracle"] == {"synthetic"}
    assert not {"quantised", "repair", "health", "item_index", "added"} & names["index"]
    assert not {"rows", "views", "written", "opinions", "examples"} & names["tasks"]


@pytest.mark.parametrize(
    ("key", "home"),
    [
        ("tasks.3", "tasks"), ("stages.0", "stages"), ("stages.1.tasks.0", "tasks"), ("stages.1.tasks.0.writer", "tasks.writer"),
        ("tasks.0.history", "tasks.history"), ("vectors.1", "vectors"), ("index.base", "index"), ("writer", "tasks.writer"),
    ],
)  # fmt: skip
def test_a_key_knows_its_home(key: str, home: str) -> None:
    assert home_of(key) == HOMES[home]


def test_a_function_of_ones_own_needs_its_module() -> None:
    assert resolved("data", "tests.recipe.test_calls:resolved") is resolved
    with pytest.raises(ValueError, match=r"here only 'package\.module:function' is a name"):
        resolved("rank", "own")


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("tasks.0", "next_itm", "there is no `next_itm`. Did you mean `next_item`"),
        ("index", "rqvae", "there is no `rqvae`. Did you mean `rq_vae`?"),
        ("index", "quantised", "there is no `quantised`."),
        ("stages.0", "training", "there is no `training`."),
        ("split", "leave_one_out.leave_one_out", "no module `leave_one_out.leave_one_out`"),
        ("eval", "Ranking", "there is no `Ranking`. Did you mean `ranking`"),
        ("data", "", "there is no ``."),
    ],
)
def test_a_wrong_short_name_is_answered_with_the_right_one(key: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"`" + key.replace(".", r"\.") + r"\.call`: ") as error:
        resolved(key, name)
    assert said in str(error.value)


OLD = [
    ("split", "rectune.split:leave_one_out", "leave_one_out"),
    ("split", "rectune.row_splits:by_user", "by_user"),
    ("tasks.0", "rectune.tasks:next_item", "next_item"),
    ("tasks.0", "rectune.text_tasks:item_search", "item_search"),
    ("stages.0.tasks.0", "rectune.instructions:instructions", "instructions"),
    ("tasks.0.history", "rectune.history:similar", "similar"),
    ("tasks.0.writer", "rectune.writers.extractive:extractive", "extractive"),
    ("vectors.0", "rectune.vectors.texts:sentences", "sentences"),
    ("vectors.0", "rectune.vectors.texts:hidden_states", "hidden_states"),
    ("rank.prior", "rectune.eval.prior", "prior"),
]


@pytest.mark.parametrize(("key", "old", "short"), OLD)
def test_a_name_that_has_moved_says_what_to_type(key: str, old: str, short: str) -> None:
    with pytest.raises(ValueError, match=f"`{old}` has moved. Type `{short}`"):
        resolved(key, old)
    assert resolved(key, short)


def test_every_place_that_things_moved_from_is_tried() -> None:
    assert {old.partition(":")[0] for _, old, _ in OLD} | {"rectune.writers.causal_model"} == set(MOVED)


@pytest.mark.parametrize(
    "name",
    [
        "rectune.data_builders.table:table",
        "rectune.indexing.rq_vae:rq_vae",
        "rectune.eval.ranking:ranking",
        "rectune.methods.sft",
    ],
)
def test_a_dotted_name_that_has_not_moved_still_works(name: str) -> None:
    key = {"data_builders": "data", "indexing": "index", "eval": "eval", "methods": "stages.0"}[name.split(".")[1]]
    assert name_of(resolved(key, name)) == name


def test_bundled_recipes_use_short_names_alone() -> None:
    for folder in bundled("recipes"):
        for file in folder.glob("*.yaml"):
            assert "rectune." not in file.read_text(), file.name
    assert load_recipe("quickstart").settings["data"]["call"] == "synthetic"


def test_short_and_dotted_names_are_one_asking(tmp_path: Path) -> None:
    marks = []
    for name in ("synthetic", "rectune.data_builders.synthetic:synthetic"):
        data = f"{{call: '{name}', users: 40, items: 60, categories: 4, shortest: 6, longest: 8}}"
        line = open_recipe(load_recipe("quickstart", [("data", data), ("output_dir", str(tmp_path / "run"))]))
        marks.append(line.place("log").fingerprint)
    assert marks[0] == marks[1]


def test_a_stage_is_told_by_its_method_not_by_how_that_is_named() -> None:
    from rectune.methods.out_of_memory import for_fingerprint

    line = open_recipe(load_recipe("quickstart"))
    config = line.asked.trainings[0].config()
    short, dotted = ({"call": name, "max_steps": 3} for name in ("sft", "rectune.methods.sft"))
    assert for_fingerprint(short, config) == for_fingerprint(dotted, config)


def test_an_index_inside_another_is_told_by_what_it_is(tmp_path: Path) -> None:
    marks = []
    for name in ("category_path", "rectune.indexing.category_path:category_path"):
        more = [("index", f"{{call: hybrid, base: {{call: '{name}'}}}}"), ("output_dir", str(tmp_path / "run"))]
        line = open_recipe(load_recipe("quickstart", more))
        marks.append(line.asked.index.arguments["base"])
    assert marks[0] == marks[1] == {"call": "rectune.indexing.category_path:category_path"}


def test_ls_lists_a_home(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "split"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("split: {call: NAME")
    assert (
        "  leave_one_out  Hold out the last event of each user for the test and the one before it for validation."
        in lines
    )
    assert len(lines) == 8
    main(["ls", "vectors"])
    assert "averaged over the tokens (LC-Rec, sec. 3.2)." in capsys.readouterr().out
    assert main(["ls", "splits"]) == 1
    assert capsys.readouterr().err.strip() == (
        "error: `rectune ls splits`: no section of that name is made of callables. Did you mean `split`?"
    )


def test_ls_tells_what_a_name_does_and_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "tasks", "like_or_dislike"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("From liked and disliked items, does the user like the target?")
    assert "whether its rating is above `like_above`" in text
    assert text.endswith("  like_above  3.0\n  history     window\n")
    main(["ls", "eval", "choices"])
    assert re.search(r"^  ease_items +\d+$", capsys.readouterr().out, re.M)  # not what the code calls it
    main(["ls", "data", "lc_rec"])
    assert re.search(r"^  path +has to be given$", capsys.readouterr().out, re.M)
    main(["ls", "stages", "sft"])
    assert capsys.readouterr().out.endswith("\nIts keys are in docs/keys.md.\n")
    assert main(["ls", "split", "by_tme"]) == 1
    assert "there is no such name. Did you mean `by_time`" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "name"), EVERY, ids=lambda part: str(part))
def test_the_keys_of_a_name_are_those_that_its_function_takes(key: str, name: str) -> None:
    told, home = keys_of(key, name), HOMES[key]
    if home.needs:
        assert not told
        return
    parameters = inspect.signature(resolved(key, name)).parameters
    assert set(parameters) - set(told) == set(parameters) & {*home.first, *home.may} - {"seed", "history"}
    for one, default in told.items():
        assert (default == "") == (parameters[one].default is inspect.Parameter.empty)


def test_listing_a_home_imports_nothing_heavy() -> None:
    code = "import sys; from rectune.cli import main; main(['ls', 'index']); print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "polars", "sklearn"} & set(out.stdout.split())


def test_a_file_put_into_a_home_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry: a third party's package that adds a folder to a home's path is not needed, a file beside the others is."""
    import rectune.indexing

    file = tmp_path / "indexing" / "mine.py"
    file.parent.mkdir()
    file.write_text('def mine(split) -> ItemIndex:\n    """Names of my own."""\n')
    monkeypatch.setattr(rectune, "__path__", [str(tmp_path), *rectune.__path__])
    monkeypatch.setattr(rectune.indexing, "__path__", [str(file.parent), *rectune.indexing.__path__])
    offered.cache_clear()
    try:
        assert offered(HOMES["index"]) == {"mine": "Names of my own."}
        monkeypatch.setitem(sys.modules, "rectune.indexing.mine", importlib.import_module("rectune.indexing.titles"))
    finally:
        offered.cache_clear()


def test_a_method_may_be_a_file_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_method_.py").write_text(
        "class Config: ...\ndef config_defaults(given, *, cpu, seed): ...\ndef train(task, config, folder): ...\ndef load(given, folder): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert resolved("stages.0", "my_method_").__name__ == "my_method_"
    with pytest.raises(ValueError, match="there is no `my_method_`"):
        resolved("tasks.0", "my_method_")  # a task is a function


@pytest.mark.parametrize(
    ("key", "begins", "says"),
    [
        ("split", "events", "begins with (events), but functions of this section are called with (log); it may also take `seed`"),
        ("index", "vectors, split", "begins with (vectors), but functions of this section are called with (split)"),
        ("tasks.0", "split, part, index", "are called with (split, index, part); it may also take `history`"),
        ("eval", "found", "are called with (evidence)."),
    ],
)  # fmt: skip
def test_a_function_that_takes_something_else_than_its_section_gives_is_one_line(
    key: str,
    begins: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    section = key.partition(".")[0]
    (tmp_path / f"own_{section}.py").write_text(f"def mine({begins}):\n    pass\n")
    value = f"{{call: 'own_{section}:mine'}}"
    given = f"[{value[:-1]}, template: next-item-names.jinja}}]" if section == "tasks" else value
    assert main(["train", "quickstart", f"--{section}", given, "--output_dir", "run"]) == 1
    error = capsys.readouterr().err
    assert f"`{key}.call`" in error
    assert says in error
    assert not (tmp_path / "run").exists()
