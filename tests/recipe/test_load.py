"""Recipes: includes, overrides, and errors that name key and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rectune.recipe.calls import bind, resolve_call
from rectune.recipe.load import load_recipe, merge, read_yaml
from rectune.run.asked import ask

BASE = """data: {call: synthetic, users: 50}
split: {call: leave_one_out}
tasks:
  - {call: next_item, template: next-item.jinja}
model: {model_name_or_path: some/where}
stages:
  - {call: sft, learning_rate: 1e-4}
rank: {template: next-item.jinja}
eval: {call: ranking}
output_dir: runs/base
"""


def write(folder: Path, text: str, name: str = "base.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_1e_4_is_a_number_and_no_is_a_word() -> None:
    data, _ = read_yaml("a: 1e-4\nb: no\nc: true\nd: 3\ne: 1.5\nf: 1_0x", "x")
    assert data == {"a": 1e-4, "b": "no", "c": True, "d": 3, "e": 1.5, "f": "1_0x"}


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"base.yaml:2: key `a.b` was already given on line 1"):
        read_yaml("a: {b: 1,\n  b: 2}", "base.yaml")


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bad.yaml:2: not valid YAML"):
        load_recipe(write(tmp_path, "data: [1,\nb: }", "bad.yaml"))


def test_include_takes_over_what_is_not_changed(tmp_path: Path) -> None:
    write(tmp_path, BASE)
    child = load_recipe(write(tmp_path, "include: base.yaml\ndata: {users: 9}\nseed: 4\n", "child.yaml"))
    assert child.settings["data"] == {"call": "synthetic", "users": 9}
    assert child.settings["seed"] == 4
    assert child.name == "child"
    assert child.where("data.users") == "`data.users` (child.yaml:2)"
    assert child.where("rank.template") == "`rank.template` (base.yaml:8)"


def test_another_call_drops_the_old_keys() -> None:
    assert merge({"call": "a:f", "x": 1}, {"call": "b:g", "y": 2}) == {"call": "b:g", "y": 2}
    assert merge({"call": "a:f", "x": 1}, {"call": "a:f", "y": 2}) == {"call": "a:f", "x": 1, "y": 2}


def test_positions_change_and_add_entries_of_an_included_list(tmp_path: Path) -> None:
    (first,) = load_recipe(write(tmp_path, BASE)).settings["stages"]
    text = "include: base.yaml\nstages:\n  0: {learning_rate: 0.5}\n  1:\n    call: dpo\n    beta: 0.2\n"
    child = load_recipe(write(tmp_path, text, "child.yaml"))
    assert child.settings["stages"] == [{**first, "learning_rate": 0.5}, {"call": "dpo", "beta": 0.2}]
    assert child.where("stages.1.beta") == "`stages.1.beta` (child.yaml:6)"
    assert child.where("stages.0.call").startswith("`stages.0.call` (base.yaml")
    whole = load_recipe(write(tmp_path, "include: child.yaml\nstages: [{call: grpo}]\n", "grandchild.yaml"))
    assert whole.settings["stages"] == [{"call": "grpo"}]
    other = load_recipe(write(tmp_path, "include: child.yaml\nstages: {1: {call: s_dpo}}\n", "other.yaml"))
    assert other.settings["stages"][1] == {"call": "s_dpo"}  # the keys of another method go with it


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stages: {2: {call: dpo}}", "`stages.2` (child.yaml:2): the list that is included ends with 0; a number up to that changes an entry, 1 adds one."),
        ("stages: {-1: {call: dpo}}", "`stages.-1` (child.yaml:2): the list that is included ends with 0"),
        ("stages: {0: {learning_rate: 1.0}, 2: {call: dpo}}", "`stages.2` (child.yaml:2)"),
        ("stages: {first: {call: dpo}}", "`stages` (child.yaml:2): got {'first': {'call': 'dpo'}}, but it must be a list."),
        ("vectors: {0: {call: tfidf}}", "`vectors` (child.yaml:2): got {0: {'call': 'tfidf'}}, but it must be a list."),
        ("stages: {0: null}", "must be a list of at least one mapping"),
    ],
)  # fmt: skip
def test_positions_that_mean_nothing_are_one_line(text: str, told: str, tmp_path: Path) -> None:
    write(tmp_path, BASE)
    with pytest.raises((ValueError, TypeError), match=re.escape(told)):
        load_recipe(write(tmp_path, f"include: base.yaml\n{text}\n", "child.yaml"))


def test_an_include_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "include: b.yaml\n", "a.yaml")
    write(tmp_path, "include: a.yaml\n", "b.yaml")
    with pytest.raises(ValueError, match=r"circle: a.yaml -> b.yaml -> a.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_overrides_reach_every_key(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, BASE),
        [("stages.0.learning_rate", "3e-4"), ("seed", "7"), ("index.call", "a:b"), ("rank.beams", "5")],
    )
    assert recipe.settings["stages"][0]["learning_rate"] == 3e-4
    assert recipe.settings["seed"] == 7
    assert recipe.settings["index"] == {"call": "a:b"}
    assert recipe.settings["rank"]["beams"] == 5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dta.users", "1", "unknown section. Did you mean `data`"),
        ("stages.3.learning_rate", "1", "must be a position from 0 to 0"),
        ("seed", "x", "must be a whole number"),
        ("seed", "-1", "must be a whole number"),
        ("data.users.deep", "1", "which has no keys"),
        ("tasks", "[]", "at least one mapping"),
        ("include", "quickstart", "`--include`: what a recipe includes stands in its file"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        load_recipe(write(tmp_path, BASE), [(key, value)])


def test_an_unknown_section_gets_a_near_miss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`modle` \(base.yaml:11\): unknown section. Did you mean `model`"):
        load_recipe(write(tmp_path, BASE + "modle: {}\n"))


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the section `split` is missing"):
        load_recipe(write(tmp_path, BASE.replace("split: {call: leave_one_out}\n", "")))


def test_an_unknown_recipe_gets_a_near_miss() -> None:
    with pytest.raises(FileNotFoundError, match="Did you mean `quickstart`"):
        load_recipe("quikstart")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("rectune.data_builders.synthetik:synthetic", "Did you mean `rectune.data_builders.synthetic`"),
        ("rectune.data_builders.synthetic:synthetics", "Did you mean `synthetic`"),
        ("nowhere_at_all:f", "no module `nowhere_at_all`"),
    ],
)
def test_a_call_that_does_not_exist_gets_a_near_miss(tmp_path: Path, call: str, message: str) -> None:
    recipe = load_recipe(write(tmp_path, BASE), [("data.call", call)])
    with pytest.raises(ValueError, match=message):
        resolve_call(recipe, "data")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.user", "3", r"unknown key. Did you mean `users`"),
        ("data.users", "many", r"got 'many' \(str\), but it must be a whole number"),
        ("data.users", "1.5", "must be a whole number"),
        ("data.users", "true", "must be a whole number"),
    ],
)
def test_keys_are_bound_by_the_signature(tmp_path: Path, key: str, value: str, message: str) -> None:
    recipe = load_recipe(write(tmp_path, BASE), [(key, value)])
    with pytest.raises(TypeError, match=message):
        bind(recipe, "data", resolve_call(recipe, "data"), given=("seed",))


def test_a_path_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    text = BASE.replace("call: synthetic", "call: lc_rec")
    recipe = load_recipe(write(tmp_path, text.replace("users: 50", "path: set")))
    assert bind(recipe, "data", resolve_call(recipe, "data"))["path"] == tmp_path / "set"
    other = load_recipe(tmp_path / "base.yaml", [("data.path", "nowhere")])
    with pytest.raises(FileNotFoundError, match=r"`data.path`: `nowhere` was not found. Looked for"):
        bind(other, "data", resolve_call(other, "data"))


def test_windows_with_a_loss_on_completions_only_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rectune.cli import main

    (tmp_path / "r.yaml").write_text(f"include: quickstart.yaml\noutput_dir: {tmp_path / 'run'}\n")
    assert main(["train", str(tmp_path / "r.yaml"), "--stages.0.completion_only_loss", "true"]) == 1
    assert "`windows` trains all targets only where the loss covers the whole sequence" in capsys.readouterr().err
    own = "[{call: next_item, template: next-item-names.jinja, examples: windows}]"
    stage = ["--stages.0.tasks", own, "--stages.0.completion_only_loss", "true", "--tasks.0.examples", "targets"]
    assert main(["train", str(tmp_path / "r.yaml"), *stage]) == 1
    assert "stages.0.tasks.0.examples" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_callable_within_an_index_is_checked_and_its_path_found(tmp_path: Path) -> None:
    from rectune.run.run import open_recipe

    (tmp_path / "names.json").write_text("{}")
    text = f"""
include: quickstart.yaml
index: {{call: hybrid, base: {{call: given, path: names.json}}}}
output_dir: {tmp_path / "run"}
"""
    (tmp_path / "r.yaml").write_text(text)
    line = open_recipe(load_recipe(tmp_path / "r.yaml"))
    assert line.asked.index.arguments["base"]["path"] == str(tmp_path / "names.json")
    with pytest.raises(TypeError, match=r"`index.base.leaves`: unknown key. Known: extra_items, path"):
        open_recipe(load_recipe(tmp_path / "r.yaml", [("index.base.leaves", "3")]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: &a {x: *a}\n", "r.yaml:1: `seed.x` is an alias of what it stands in"),
        (f"about: {'[' * 5000}{']' * 5000}\n", "r.yaml: not readable YAML: it is nested too deeply"),
        ("".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9) if n else '1, 2'}]\n" for n in range(9)), "more than 20,000 keys"),
        ("include: quickstart.yaml\noutput_dir: ''\n", "`output_dir` .r.yaml:2.: got '', but it must be a folder"),
        (f"include: quickstart.yaml\noutput_dir: {'x' * 3000}\n", "but it must be a folder"),
        ("include: quickstart.yaml\ndata: {path: \"a\\0b\", call: lc_rec}\n", "is no path of a file"),
    ],
)  # fmt: skip
def test_what_no_recipe_can_mean_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        ask(load_recipe(tmp_path / "r.yaml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1: {}", r"`1` .base.yaml:11.: unknown section"),
        ("true: {}", r"`True`.*unknown section"),
        ("about: {{ name }}", r"base.yaml:11: a key must be a word"),
        ("about: 2026-13-45", r"base.yaml: not readable YAML: month must be in 1..12"),
    ],
)
def test_keys_and_values_that_yaml_reads_as_something_else(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(write(tmp_path, BASE + line + "\n"))
