"""What can be known at the start is refused at the start: before items are embedded and an index is fitted."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from rectune.cli import main
from rectune.recipe.load import load_recipe
from rectune.run import start
from rectune.run.run import open_recipe
from rectune.runtime.files import check_disk
from tests.test_cli import fails

NAMED = ["--model.from_scratch", "null", "--model.model_name_or_path"]
T5 = "{model_type: t5, d_model: 16, d_kv: 8, d_ff: 32, num_layers: 1, num_heads: 2}"


def nothing_built(folder: Path) -> bool:
    return not list(folder.glob("run/stages/*"))


@pytest.mark.parametrize("command", ["train", "preview"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*NAMED, "some-org/no-such-base"], "`model.model_name_or_path`: no tokenizer could be loaded from `some-org/no-such-base`"),
        (["--model.from_scratch.num_attention_heads", "3"], "`model.from_scratch`: transformers can make no `qwen3` that runs with these fields"),
        (["--model.from_scratch.num_key_value_heads", "3"], "`model.from_scratch`: transformers can make no `qwen3`"),
        (["--model.from_scratch.hidden_act", "swish9"], "`model.from_scratch`: no `qwen3` can be made of these fields: 'swish9'"),
        (["--model.from_scratch.hidden_size", "-8"], "`model.from_scratch.hidden_size`: got -8, but it must be a number from 1 on"),
        (["--model.from_scratch.hidden_size", "wide"], "`model.from_scratch.hidden_size`: got 'wide' (str), but it must be a whole number"),
        (["--model.from_scratch.vocab_size", "300"], "`model.from_scratch.vocab_size`: it comes from the tokenizer"),
        (["--model.from_scratch", T5], "`sft` trains models that go on with their prompt, and the base is a `t5`"),
        (["--stages.0", "{call: seq2seq, max_length: 64}", "--tasks.0.examples", "targets"], "`seq2seq` trains encoder-decoders such as t5"),
        (["--stages.0.max_length", "4096"], "`stages.0.max_length`: `max_length` is 4096, but the model has positions for 256 tokens"),
    ],
)  # fmt: skip
def test_a_base_that_does_not_fit_is_told_before_anything_is_built(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, overrides: list[str], message: str
) -> None:  # fmt: skip
    if command == "preview":
        (tmp_path / "run").mkdir()
    error = fails(capsys, command, str(quick_recipe), *overrides).replace(f" ({quick_recipe.name}:", " (")
    assert message in error.replace(" (quickstart.yaml:", " (") or message in drop_places(error)
    assert nothing_built(tmp_path)


def drop_places(error: str) -> str:
    """A message without the places of keys in files."""
    import re

    return re.sub(r" \(\d+\)", "", re.sub(r" \([\w.-]+\.yaml:\d+\)", "", error))


def base(folder: Path, checkpoints: dict[str, Path], *gone: str) -> str:
    shutil.copytree(checkpoints["tied"], folder)
    for name in gone:
        (folder / name).unlink()
    return str(folder)


def test_what_is_missing_in_a_local_base_is_named(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoints: dict[str, Path]
) -> None:
    weightless = base(tmp_path / "weightless", checkpoints, "model.safetensors")
    assert "it holds config.json, generation_config.json, tokenizer.json" in fails(
        capsys, "train", str(quick_recipe), *NAMED, weightless
    )
    assert nothing_built(tmp_path)
    assert main(["preview", str(quick_recipe), *NAMED, weightless]) == 0  # a preview reads no weights
    wordless = base(tmp_path / "wordless", checkpoints, "tokenizer.json", "tokenizer_config.json")
    assert "no tokenizer could be loaded from" in fails(capsys, "preview", str(quick_recipe), *NAMED, wordless)
    unknown = base(tmp_path / "unknown", checkpoints)
    config = json.loads((tmp_path / "unknown" / "config.json").read_text())
    (tmp_path / "unknown" / "config.json").write_text(json.dumps({**config, "model_type": "qwen99"}))
    assert "`model.model_name_or_path`" in fails(capsys, "preview", str(quick_recipe), *NAMED, unknown)
    adapter = base(tmp_path / "adapter", checkpoints, "config.json")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "holds an adapter (adapter_config.json), not a base" in fails(
        capsys, "preview", str(quick_recipe), *NAMED, adapter
    )


def test_weights_are_looked_for_in_the_cache_and_on_the_hub(
    quick_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_recipe(load_recipe(quick_recipe)).asked.model
    import dataclasses

    import huggingface_hub

    named = dataclasses.replace(
        model, from_scratch=None, library=dataclasses.replace(model.library, model_name_or_path="org/base")
    )
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(FileNotFoundError, match="its weights are not in the cache, and the Hub cannot be asked"):
        start.check_weights(named)  # the tests are offline
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: "/cache/model.safetensors")
    start.check_weights(named)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: None)
    start.check_weights(named)


def test_a_disk_without_room_is_told_before_anything_is_built(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 100))
    assert "the weights of the tuned model take 0." in fails(capsys, "train", str(quick_recipe))
    assert nothing_built(tmp_path)


def test_the_size_of_the_tuned_model_is_counted(quick_recipe: Path) -> None:
    asked = open_recipe(load_recipe(quick_recipe)).asked
    config = start.check_base(asked)
    # hidden 32, 1 layer, 2 heads of 16, inner 64, tied: embeddings, 4 projections, MLP, norms (two of 32, of heads two of 16, a last one)
    parameters = 300 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32 + 2 * 16 + 32
    assert start.size_of(asked.model, config) == 4 * parameters


def test_a_folder_that_cannot_be_written_is_told_with_its_key(
    quick_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path and allowed(place, mode))
    assert f"`output_dir`: {tmp_path} cannot be written" in fails(capsys, "train", str(quick_recipe))


def test_a_finished_run_asks_for_no_base(finished: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is missing, so nothing is asked for")

    run = open_recipe(load_recipe(finished[0]))
    monkeypatch.setattr(start, "check_base", never)
    start.check_start(run)
    start.check_preview(run)
    with pytest.raises(AssertionError):
        start.check_start(run, rebuild=["train0"])


def test_the_hub_is_asked_once_where_the_cache_holds_nothing(
    quick_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from transformers import AutoTokenizer

    asked: list[str] = []

    def away(_: object, name: str, **__: object) -> None:
        asked.append(name)
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", away)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: asked.append("a minute of retries"))
    error = fails(capsys, "preview", str(quick_recipe), *NAMED, "some-org/no-such-base")
    assert "(it is not in the cache, and the Hub says: Name or service not known)" in error
    assert asked == ["some-org/no-such-base"]


@pytest.mark.parametrize(
    ("needed", "free", "said"),
    [
        (2_500_000_000, 1_000_000, "the weights take 2.50 GB and 0.00 GB are free"),
        (400_000, 100_000, "the weights take 0.40 MB and 0.10 MB are free"),
        (999_999_999, 5, "the weights take 1000.00 MB and 0.00 MB are free"),
    ],
)
def test_what_is_missing_on_a_disk_is_told_in_a_unit_that_shows_it(
    needed: int, free: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("usage", "free")(free))
    with pytest.raises(OSError, match=re.escape(f"no room in {tmp_path}: {said}. Give another folder with --to.")):
        check_disk(tmp_path / "not" / "there", needed, "the weights", "--to")
    check_disk(tmp_path, free, "the weights", "--to")
