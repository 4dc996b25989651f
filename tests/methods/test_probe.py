"""Logits that are kept beside weights: what rounding does passes, what is wrong is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rectune.methods import probe
from tests.decoding.models import LLAMA, build

IDS = torch.arange(3, 15)[None]


def half() -> Any:
    """A model in bfloat16 whose rounding changes its logits as much as a fault does: sharp attention, in which a rounded key can win or lose."""
    model = build("qwen3", **{**LLAMA, "num_hidden_layers": 16})
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.mul_(4)
    return model.to(torch.bfloat16)


def test_the_first_position_whose_values_are_huge_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = torch.tensor([[900.0, -900.0], [10.0, -20.0], [3.0, 4.0]])
    save_file({"ids": torch.tensor([[1, 2, 3]]), "logits": was}, tmp_path / probe.PROBE)
    for moved, at, fine in ((90.0, 0, True), (0.9, 1, True), (1.1, 2, False)):  # 5 % of 20
        now = was.clone()
        now[at, 0] += moved
        monkeypatch.setattr(probe, "probe_logits", lambda model, ids, now=now: now)
        assert probe.compared(now, was)["largest_difference"] == pytest.approx(0.0 if at == 0 else moved, abs=1e-5)
        assert probe.compared(now, was)["largest_logit"] == 20.0
        assert probe.compared(now, was)["difference"] == pytest.approx(0.0 if at == 0 else moved / 2, abs=1e-5)
        if fine:
            probe.check_reloaded(None, tmp_path)
        else:
            with pytest.raises(
                ValueError, match=r"than at the end of its training \(difference 1.1 beside 20, the largest\)"
            ):
                probe.check_reloaded(None, tmp_path)
    monkeypatch.setattr(probe, "probe_logits", lambda model, ids: was + 0.6)  # none of them alone is much
    with pytest.raises(ValueError, match=r"\(difference 0.6 beside 11.5, root mean squares\)"):
        probe.check_reloaded(None, tmp_path)


def test_numbers_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was = torch.ones(3, 2)
    save_file({"ids": torch.tensor([[1, 2, 3]]), "logits": was}, tmp_path / probe.PROBE)
    monkeypatch.setattr(probe, "probe_logits", lambda model, ids: was * float("nan"))
    with pytest.raises(ValueError, match="other logits"):
        probe.check_reloaded(None, tmp_path)
    with pytest.raises(ValueError, match="changed the logits"):
        probe.refuse(probe.compared(was * float("nan"), was), probe.ROUNDED, "loading")


def test_rounding_that_is_as_large_as_a_fault_is_not_one(tmp_path: Path) -> None:
    model = half()
    with torch.no_grad():
        rounded = model(IDS).logits[0].float()
    probe.write_probe(model, IDS, tmp_path)
    assert probe.probed(model, tmp_path)["largest_difference"] == 0
    with pytest.raises(ValueError, match="changed the logits"):  # calculated as it is, this model differs from itself
        probe.refuse(probe.compared(rounded, probe.probe_logits(model, IDS)), probe.ROUNDED, "rounding")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert probe.check_reloaded(model, tmp_path)["difference"] < 1e-3
    finally:
        torch.set_num_threads(threads)


def merged(wrong: float = 1.0) -> Any:
    """A model in bfloat16 with its adapter merged, that of one matrix with another scale than in training."""
    model = adapted()
    model.base_model.model.model.layers[1].mlp.up_proj.scaling["default"] *= wrong
    return model.merge_and_unload().eval()


def adapted() -> Any:
    from peft import LoraConfig, get_peft_model

    model = build("qwen3", **LLAMA).to(torch.bfloat16)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def test_merging_is_judged_by_what_rounding_the_weights_does(tmp_path: Path) -> None:
    probe.write_probe(adapted(), IDS, tmp_path)
    model = merged()
    allowed = probe.rounding(model, IDS, probe.probe_logits(model, IDS))
    assert allowed == probe.rounding(model, IDS, probe.probe_logits(model, IDS))
    found = probe.probed(model, tmp_path)
    assert 0 < 3 * found["difference"] < allowed.difference * found["logits"]
    assert 2 * found["largest_difference"] < allowed.largest * found["largest_logit"]
    probe.refuse(found, allowed, "merging")
    with pytest.raises(ValueError, match="merging changed the logits of the run's probe by"):
        probe.refuse(probe.probed(merged(2), tmp_path), allowed, "merging")


def test_one_row_of_one_token_that_is_wrong_is_found(tmp_path: Path) -> None:
    model = build("qwen3", **LLAMA, tie_word_embeddings=False).to(torch.bfloat16)
    probe.write_probe(model, IDS, tmp_path)
    with torch.no_grad():
        model.get_output_embeddings().weight[17] *= 1.3
    found = probe.probed(model, tmp_path)
    assert found["difference"] < probe.ROUNDED.difference * max(found["logits"], 1.0)  # by the mean nothing is wrong
    with pytest.raises(ValueError, match="other logits than at the end"):
        probe.check_reloaded(model, tmp_path)
    allowed = probe.rounding(model, IDS, probe.probe_logits(model, IDS))
    with pytest.raises(ValueError, match="changed the logits"):
        probe.refuse(found, allowed, "merging")


def test_in_float32_only_sums_in_another_order_are_rounding() -> None:
    model = build("qwen3", **LLAMA)
    logits = probe.probe_logits(model, IDS)
    assert probe.rounding(model, IDS, logits) == probe.EXACT
    assert torch.equal(probe.probe_logits(model, IDS, rounded=True), logits)
