"""Contracts: a Protocol is read as it stands, and what does not keep it is named in one line before anything is built."""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from rectune.cli import main
from rectune.recipe.contracts import Takes, contract_at
from rectune.recipe.homes import HOMES


@pytest.mark.parametrize("key", HOMES)
def test_a_contract_is_a_protocol_and_is_read_as_python_reads_it(key: str) -> None:
    for place in filter(None, (HOMES[key].contract, HOMES[key].may_have)):
        module, _, name = place.partition(":")
        stated = getattr(importlib.import_module(module), name)
        assert Protocol in stated.__bases__
        read = contract_at(place)
        functions = {**read.functions, **({"__call__": read.call} if read.call else {})}
        own = {name for name, value in vars(stated).items() if inspect.isfunction(value) and not name.startswith("_")}
        assert set(read.functions) == own
        assert set(read.attributes) == set(vars(stated).get("__annotations__", {}))
        for member, takes in functions.items():
            assert takes is not None
            parameters = list(inspect.signature(getattr(stated, member)).parameters.values())[1:]
            named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
            assert takes.first == tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
            assert takes.always == tuple(p.name for p in named if p.default is p.empty)
            assert takes.may == tuple(p.name for p in named if p.default is not p.empty)
            assert takes.open == any(p.kind is p.VAR_KEYWORD for p in parameters)
            assert takes.returns == stated.__dict__[member].__annotations__["return"]


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda a, b, *, n: 0, True),
        (lambda a, b, n=1, other=2: 0, True),
        (lambda *all, **more: 0, True),
        (lambda a, b: 0, False),
        (lambda a, *, n: 0, False),
        (lambda a, b, *, n, own: 0, False),
    ],
)
def test_a_function_fits_where_it_can_be_called_so(function: Callable[..., Any], fits: bool) -> None:
    assert Takes(("a", "b"), ("n",), (), False, "int").fits(function) is fits


def test_a_key_of_the_recipe_may_have_no_default() -> None:
    assert Takes(("split", "folder"), (), ("seed",), True, "None").fits(lambda split, folder, *, strength: 0)


def test_what_it_may_be_given_needs_no_default() -> None:
    takes = Takes(("groups",), (), ("vectors", "prior"), False, "Reward")
    assert takes.fits(lambda groups, vectors: 0)
    assert takes.fits(lambda groups, *, prior, vectors=None: 0)
    assert not takes.fits(lambda groups, scale: 0)


METHOD = "class Config: pass\ndef config_defaults(given, *, cpu, seed): return given\ndef load(given, folder): pass\ndef train({}): pass\n"
PRIOR = "def load(folder): pass\ndef fit(split, folder): pass\n"


@pytest.mark.parametrize(
    ("section", "code", "told"),
    [
        ("stages", METHOD.format("task, config"), "`train` of a method is called with (task, config, folder), and this one cannot be"),
        ("stages", METHOD.format("task, config, folder, steps"), "`train` of a method is called with (task, config, folder)"),
        ("stages", METHOD.format("task, config, folder").replace(", *, cpu, seed", ""), "`config_defaults` of a method is called with (given, cpu=…, seed=…)"),
        ("stages", METHOD.format("task, config, folder") + "def needs(): return ()\n", "`needs` of a method is called with (section)"),
        ("stages", METHOD.format("task, config, folder") + "check_rows = True\n", "`check_rows` of a method is called with (config, tasks)"),
        ("stages", METHOD.format("task, config, folder").replace("def load", "def lod"), "a method is a module with `Config`, `config_defaults`, `train`, `load`; it has no `load`"),
        ("rank.prior", PRIOR.replace("def fit(split, folder)", "def fit(split)"), "`fit` of a prior is called with (split, folder), and this one cannot be"),
        ("rank.prior", PRIOR.replace("load(folder)", "load()"), "`load` of a prior is called with (folder)"),
        ("rank.prior", PRIOR.replace("def load", "def lod"), "a prior is a module with `fit`, `load`; it has no `load`"),
        ("eval", "def mine(split): pass\n", "`mine` begins with (split), but functions of this section are called with (evidence)"),
        ("eval.oracle", "def mine(rows): pass\n", "`mine` begins with (rows), but functions of this section are called with (split, rows)"),
        ("tasks.writer", "def mine(items, asked): pass\n", "called with (items, asked, kind=…)"),
    ],
)  # fmt: skip
def test_what_does_not_keep_its_contract_is_named(section: str, code: str, told: str) -> None:
    module = types.ModuleType("own")
    exec(code, module.__dict__)
    named = module if HOMES[section].needs else module.mine
    with pytest.raises(ValueError, match="the key") as raised:
        HOMES[section].check(named, "the key")
    assert told in str(raised.value)


@pytest.mark.parametrize("named", [types, max, 3])
def test_what_is_no_function_is_named(named: Any) -> None:
    with pytest.raises(ValueError, match=r"the key: `.*` is not a function; type 'package\.module:function'"):
        HOMES["index"].check(named, "the key")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["--stages.0.call", "half"], "`stages.0.call`: `train` of a method"),
        (["--rank.prior.call", "half"], "`rank.prior.call`: `fit` of a prior"),
        (["--eval.call", "half:load"], "`load` begins with (folder)"),
        (["--eval.oracle", "half:load"], "`load` begins with (folder)"),
        (["--split.call", "half:load"], "`load` begins with (folder)"),
    ],
)
def test_ask_holds_every_section_to_it(
    keys: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half.py").write_text(
        "class Config: pass\ndef config_defaults(given, *, cpu, seed): return given\ndef train(task): pass\ndef fit(split): pass\ndef load(folder): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["train", "quickstart", *keys]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
