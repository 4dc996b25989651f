"""Exports: loaded with transformers alone they list what the run lists, and nothing half-written stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rectune.cli import main
from tests.exports import (
    LORA,
    SHOP,
    SHORT,
    exported,
    listed_by_the_card,
    listed_by_the_run,
    same_lists,
    tune,
)  # fmt: skip
from tests.test_cli import fails

HISTORIES = [["i3", "i7"], ["i1"], [], [f"i{n}" for n in (5, 9, 2, 30, 11, 0, 8, 21)]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model from scratch whose names have no end token."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}  # fmt: skip
    template = "next-item-names.jinja"
    settings = {
        **SHOP,
        "index": {"call": "random_numbers", "base": 8},
        "tasks": [{"call": "next_item", "template": template}],
        "model": {"from_scratch": {"model_type": "qwen3", **sizes, "tie_word_embeddings": True}, "text_vocab_size": 300},
        "rank": {**SHOP["rank"], "template": template},
    }  # fmt: skip
    return tune(tmp_path_factory.mktemp("scratch"), settings)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """A run of an adapter on a checkpoint with chat turns, whose own generation settings would change every list."""
    from transformers import GenerationConfig

    place = tmp_path_factory.mktemp("adapted")
    base = shutil.copytree(checkpoints["chat"], place / "base")
    GenerationConfig(do_sample=True, top_k=3, temperature=0.3, repetition_penalty=1.7, num_beams=3).save_pretrained(
        base
    )
    return tune(place, {**SHOP, "model": {"model_name_or_path": str(base), "dtype": "float32", **LORA}})


@pytest.mark.heavy
def test_the_readmes_code_lists_what_the_run_lists(scratch: Path) -> None:
    folder = exported(scratch)
    same_lists(listed_by_the_card(folder, HISTORIES), listed_by_the_run(scratch, HISTORIES))
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert len(items) == 40
    assert items[3].keys() == {"item_id", "title", "name", "tokens"}
    assert items[3]["item_id"] == "i3"
    about = json.loads((folder / "rectune.json").read_text())
    assert about["items"] == {"total": 40, "added": 0}
    assert about["prompts"] == {"compared": 30, "same": 30}
    assert about["weights"]["writing"]["largest_difference"] == 0


@pytest.mark.heavy
def test_a_merged_adapter_scores_as_beside_its_base_and_inherits_no_sampling(adapted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = exported(adapted)
    about = json.loads((folder / "rectune.json").read_text())
    assert about["prompt"]["form"] == "chat"
    assert about["base"]["name"] == "base"  # no path of this machine
    assert about["weights"]["merging"]["largest_difference"] < 1e-5
    assert not list(folder.glob("adapter*"))
    written = json.loads((folder / "generation_config.json").read_text())
    assert written["length_penalty"] == 0.0
    assert written["num_beams"] == 6
    assert written["max_new_tokens"] == 2  # the item's token and the end of the turn
    for name in ("temperature", "top_k", "repetition_penalty"):
        assert name not in written
    assert not written["do_sample"]
    same_lists(listed_by_the_card(folder, HISTORIES), listed_by_the_run(adapted, HISTORIES))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    first = json.loads((folder / "items.jsonl").read_text().splitlines()[0])
    assert tokenizer(first["name"], add_special_tokens=False)["input_ids"] == first["tokens"][:-1]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_names_of_titles_and_untied_embeddings(checkpoints: dict[str, Path], tmp_path: Path, dtype: str) -> None:
    model = {"model_name_or_path": str(checkpoints["untied"]), "dtype": dtype}
    settings = {**SHOP, "index": {"call": "titles"}, "model": {**model, **LORA}}
    run = tune(tmp_path, settings)
    folder = exported(run, "--to", str(tmp_path / "models" / "shop"))
    about = json.loads((folder / "rectune.json").read_text())
    assert about["weights"]["dtype"] == dtype
    assert about["weights"]["writing"]["largest_difference"] == 0
    if dtype == "float32":
        same_lists(listed_by_the_card(folder, HISTORIES), listed_by_the_run(run, HISTORIES))
        return
    assert 0 < about["weights"]["merging"]["largest_difference"] < 0.05  # the sum is rounded to bfloat16
    assert len(listed_by_the_card(folder, [["i1"]])[0]) == 5


@pytest.mark.heavy
def test_encoder_decoders_are_exported(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "dropout_rate": 0.0}
    template = "next-item-names-user.jinja"
    settings = {
        **SHOP,
        "index": {**SHOP["index"], "user_tokens": 20},
        "tasks": [{"call": "next_item", "template": template}],
        "model": {"from_scratch": {"model_type": "t5", **sizes}, "text_vocab_size": 300},
        "stages": [{**SHORT, "call": "seq2seq", "max_length": 128}],
        "rank": {**SHOP["rank"], "template": template},
    }
    run = tune(tmp_path, settings)
    same_lists(listed_by_the_card(exported(run), HISTORIES), listed_by_the_run(run, HISTORIES))


@pytest.mark.heavy
def test_scores_over_the_catalogue_are_those_of_generate_where_nothing_is_hidden(scratch: Path, tmp_path: Path) -> None:
    run = shutil.copytree(scratch, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    assert main(["eval", str(run), "--rank.scores", "catalogue", "--traceback"]) == 0
    folder = exported(run)
    assert json.loads((folder / "generation_config.json").read_text())["renormalize_logits"]
    same_lists(listed_by_the_card(folder, [[]]), listed_by_the_run(run, [[]]))


# ------------------------------------------------------------------------------------------------------------ the place


@pytest.mark.heavy
def test_an_export_of_the_same_run_is_replaced_and_nothing_else_is(
    scratch: Path, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "shop"
    exported(scratch, "--to", str(place))
    (place / "stray.txt").write_text("from before")
    exported(scratch, "--to", str(place))
    assert not (place / "stray.txt").exists()
    before = (place / "rectune.json").read_text()
    assert "is an export of another run (recipe `shop`" in fails(capsys, "export", str(adapted), "--to", str(place))
    assert (place / "rectune.json").read_text() == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    assert "exists and is not an export" in fails(capsys, "export", str(scratch), "--to", str(tmp_path / "thesis"))
    assert [f.name for f in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]
    for wrong, message in (
        (scratch, "exists and is not an export"),
        (scratch / "stages" / "mine", "belongs to the run itself"),
        (tmp_path / "thesis" / "thesis.tex", "is a file, not a folder"),
        (tmp_path / "thesis" / "thesis.tex" / "inside", "is a file, not a folder"),
    ):
        assert message in fails(capsys, "export", str(scratch), "--to", str(wrong))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shop", "thesis"]


def test_which_places_may_be_written(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from rectune.bundle.files import check_place

    run = tmp_path / "run"
    line: Any = SimpleNamespace(
        folder=SimpleNamespace(path=run),
        asked=SimpleNamespace(recipe=SimpleNamespace(name="shop")),
        tuned=SimpleNamespace(fingerprint="new"),
    )

    def export_of(place: Path, recipe: str, fingerprint: str) -> Path:
        place.mkdir(parents=True)
        (place / "rectune.json").write_text(json.dumps({"run": {"recipe": recipe, "fingerprint": fingerprint}}))
        return place

    (tmp_path / "empty").mkdir()
    for place in (
        tmp_path / "absent" / "below", tmp_path / "empty", export_of(tmp_path / "same", "shop", "new"),
        export_of(run / "export", "shop", "from before it was tuned again"),
    ):  # fmt: skip
        check_place(place, line)
    for place in (export_of(tmp_path / "tuned otherwise", "shop", "old"), export_of(tmp_path / "b", "books", "new")):
        with pytest.raises(ValueError, match="is an export of another run"):
            check_place(place, line)
    for text in ("[]", "{}", '{"run": "shop"}', "half writ"):
        (tmp_path / "same" / "rectune.json").write_text(text)
        with pytest.raises(ValueError, match="exists and is not an export"):
            check_place(tmp_path / "same", line)


def test_a_folder_that_is_no_finished_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a finished run folder" in fails(capsys, "export", str(tmp_path))
    assert "has no such option" in fails(capsys, "export", str(tmp_path), "--rank.k", "3")
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_a_base_that_is_gone_is_one_line(adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = adapted.parent / "base"
    base.rename(tmp_path / "elsewhere")
    try:
        error = fails(capsys, "export", str(adapted), "--to", str(tmp_path / "out"))
    finally:
        (tmp_path / "elsewhere").rename(base)
    assert f"`model.model_name_or_path`: the base `{base}` could not be loaded" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_a_disk_without_room_is_one_line_and_leaves_nothing(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import rectune.bundle.files as files

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda place: usage._replace(free=1000))
        assert "no room in" in fails(capsys, "export", str(scratch), "--to", str(tmp_path / "out"))

    def full(*args: Any, **keys: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "generation_settings", full)
    assert "No space left on device" in fails(capsys, "export", str(scratch), "--to", str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.heavy
def test_weights_that_score_otherwise_are_not_exported(
    adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import rectune.bundle.fidelity as fidelity
    from rectune.methods.probe import Share

    place, plain = tmp_path / "out", fidelity.load_plain

    def damaged(*args: Any) -> Any:
        model = plain(*args)
        with torch.no_grad():
            model.get_input_embeddings().weight[7] += 0.01
        return model

    exported(adapted, "--to", str(place))
    before = (place / "README.md").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_plain", damaged)
        patch.setattr(fidelity, "EXACT", Share(1e-9, 1e-9))
        error = fails(capsys, "export", str(adapted), "--to", str(place))
    assert "changed the logits of the run's probe by" in error
    assert "Nothing was done with it" in error
    assert (place / "README.md").stat().st_mtime_ns == before  # what stood there still stands
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


# ---------------------------------------------------------------------------------------------------------- added items


@pytest.mark.heavy
def test_items_that_were_added_to_the_run_are_exported_and_marked(tmp_path: Path) -> None:
    settings = {
        **SHOP,
        "vectors": [{"call": "sentences", "text": ["categories", "title"]}],
        "index": {"call": "residual_kmeans", "levels": 2, "codes": 8},
        "tasks": [{"call": "next_item", "template": "next-item-names.jinja"}],
        "model": {"from_scratch": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}, "text_vocab_size": 300},
        "stages": [{**SHORT, "max_length": 128}],
        "rank": {**SHOP["rank"], "template": "next-item-names.jinja"},
    }  # fmt: skip
    run = tune(tmp_path, settings)
    (tmp_path / "new.csv").write_text("item_id,title,categories\nx1,Lamp of brass,lamp\nx2,Rope of hemp,rope\n")
    assert main(["index", "add", str(run), str(tmp_path / "new.csv"), "--traceback"]) == 0
    folder = exported(run)
    about = json.loads((folder / "rectune.json").read_text())
    assert about["items"] == {"total": 42, "added": 2}
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert [item["item_id"] for item in items if item.get("added")] == ["x1", "x2"]
    assert "2 of them added after the tuning" in (folder / "README.md").read_text()
    histories = [["x1", "i3"], ["i5"]]
    same_lists(listed_by_the_card(folder, histories), listed_by_the_run(run, histories))


def state_of(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))}


def test_a_run_that_cannot_be_written_is_exported_elsewhere(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    run = Path(shutil.copytree(finished[1], tmp_path / "run"))
    (trie,) = (run / "stages").glob("trie-*")
    shutil.rmtree(trie)  # what is missing is built elsewhere
    (run / ".lock").unlink(missing_ok=True)
    before, allowed = state_of(run), os.access
    monkeypatch.setattr(
        os, "access", lambda place, mode: run not in (Path(place), *Path(place).parents) and allowed(place, mode)
    )
    assert f"`--to`: {run} cannot be written" in fails(capsys, "export", str(run))
    assert main(["export", str(run), "--to", str(tmp_path / "out"), "--traceback"]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert state_of(run) == before
