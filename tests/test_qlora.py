"""QLoRA on a CPU from train to export: a 4-bit base with nested quantisation in bfloat16, its adapter merged into bfloat16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.cli import main
from rectune.decoding.language_model import LanguageModelRanker
from rectune.decoding.ranking import Ranking
from rectune.run.judged import HIDDEN
from rectune.run.rankings import ranked
from rectune.run.run import open_run
from tests.exports import LORA, SHOP, SHORT, exported, listed_by_the_card, tune
from tests.runs import forked

ADAPTER, MERGED = "adapter on the quantised base", "merged"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Path:
    """A finished QLoRA run on a checkpoint of a config."""
    model = {
        "model_name_or_path": str(checkpoints["untied"]), "dtype": "bfloat16", "load_in_4bit": True, "use_bnb_nested_quant": True,
        **LORA,
    }  # fmt: skip
    stage = {**SHORT, "max_steps": 16, "logging_steps": 1}
    return tune(tmp_path_factory.mktemp("qlora"), {**SHOP, "model": model, "stages": [stage]})


def about(folder: Path) -> Any:
    return json.loads((folder / "rectune.json").read_text())


@pytest.mark.heavy
def test_the_loss_falls_new_tokens_learn_and_reloading_gives_the_same_logits(quantised: Path) -> None:
    from rectune.methods.probe import check_reloaded
    from rectune.model.adapters import load_tuned

    (stage,) = quantised.glob("stages/train0-*")
    losses = [entry["loss"] for entry in json.loads((stage / "log_history.json").read_text()) if "loss" in entry]
    assert len(losses) == 16
    assert losses[-1] < losses[0] - 0.3
    audit = json.loads((stage / "audit.json").read_text())
    assert audit["gradient_in"] > 0
    assert audit["gradient_out"] > 0
    assert len(audit["saved_rows"]) == 2
    line = open_run(quantised)
    model = load_tuned(line.asked.model, line.place("base").folder, stage / "model", line.index, seed=line.asked.seed)
    assert check_reloaded(model, stage / "model")["largest_difference"] == 0.0
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds


@pytest.mark.heavy
def test_both_forms_are_measured_on_the_test_rows(quantised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    folder = exported(quantised)
    said = capsys.readouterr().out
    forms = about(folder)["forms"]
    report = json.loads((quantised / "report.json").read_text())["results"]["protocols"]["seen items hidden"]
    assert forms[ADAPTER].keys() == forms[MERGED].keys() == {"recall@5", "ndcg@5"}
    assert forms[ADAPTER] == {name: pytest.approx(report["tuned model"][name][0]) for name in ("recall@5", "ndcg@5")}
    (place,) = quantised.glob("stages/rank-merged-*")
    merged, adapted = Ranking.load(place / "ranking.parquet"), ranked(open_run(quantised), "tuned", HIDDEN)[0]
    assert merged.items.shape == adapted.items.shape
    assert np.abs(merged.scores - adapted.scores).max() > 0  # two models, however close
    for form, metrics in forms.items():
        assert f"  {form}" in said
        for name, value in metrics.items():
            assert f"{name} {value:.4f}" in said
            assert f"{value:.4f}" in (folder / "README.md").read_text()
    assert about(folder)["weights"]["leaving_quantisation"]["largest_difference"] > 0
    assert "leaving quantisation moved the probe's logits by" in said
    assert len(listed_by_the_card(folder, [["i3", "i7"]])[0]) == 5


@pytest.mark.heavy
def test_the_adapter_is_added_to_the_bfloat16_weights_not_to_rounded_4_bit_ones(
    quantised: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    folder = exported(quantised, "--to", str(tmp_path / "out"))
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    merged, base = load_file(folder / "model.safetensors"), load_file(checkpoints["untied"] / "model.safetensors")
    (stage,) = quantised.glob("stages/train0-*")
    adapter = load_file(stage / "model" / "adapter_model.safetensors")
    config = json.loads((stage / "model" / "adapter_config.json").read_text())
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    for layer in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        a, b = (adapter[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
        added = config["lora_alpha"] / config["r"] * (b @ a)
        plain = base[f"{layer}.weight"].to(torch.bfloat16)
        assert added.abs().max() > 0
        torch.testing.assert_close(merged[f"{layer}.weight"], plain + added, rtol=2**-7, atol=1e-3)
    rows = [value for key, value in adapter.items() if "trainable_tokens" in key and "embed_tokens" in key]
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert torch.equal(merged["model.embed_tokens.weight"][[item["tokens"][0] for item in items]], rows[0])


@pytest.mark.heavy
def test_a_ranking_of_the_merged_form_that_is_killed_goes_on(
    quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = about(exported(quantised))["forms"]
    run = shutil.copytree(quantised, tmp_path / "run", ignore=shutil.ignore_patterns("export", "rank-merged-*"))
    died = forked("-m", "tests.kill_at", "shard", "2", "--", "export", str(run))
    assert died.returncode == -9, died.stderr[-2000:]
    assert not (run / "export").exists()
    (half,) = run.glob("stages/rank-merged-*.partial")
    assert [file.name for file in sorted((half / "shards").glob("*.parquet"))] == ["rows-000000.parquet"]
    monkeypatch.setattr("rectune.decoding.batching.CHUNK", 16)
    monkeypatch.setattr("rectune.decoding.language_model.CHUNK", 16)
    chunks, plain = [], LanguageModelRanker._rank_chunk

    def watched(self: Any, rows: Any, chunk: Any, *rest: Any) -> Any:
        chunks.append(len(chunk))
        return plain(self, rows, chunk, *rest)

    monkeypatch.setattr(LanguageModelRanker, "_rank_chunk", watched)
    assert main(["export", str(run), "--traceback"]) == 0
    assert chunks == [14]  # 30 test rows, 16 of them ranked before the kill
    assert about(run / "export")["forms"] == whole
    assert not list(run.rglob("*.partial"))
