"""`model.device` is obeyed by everything that trains or embeds beside the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rectune.baselines.sasrec_settings import SasRecSettings
from rectune.baselines.sasrec_training import best_sasrec
from rectune.indexing.letter import letter
from rectune.indexing.rq_vae import rq_vae
from rectune.log.split import Split
from rectune.log.splits.leave_one_out import leave_one_out
from rectune.recipe.load import load_recipe
from rectune.run.asked import ask
from rectune.run.sasrec_box import sasrec_box
from rectune.runtime.device import device_of
from rectune.vectors.hidden_states import hidden_states
from rectune.vectors.item_vectors import ItemVectors
from rectune.vectors.sasrec import sasrec
from rectune.vectors.sentences import sentences


def some_vectors(split: Split, *widths: int) -> ItemVectors:
    draw = np.random.default_rng(0)
    names = split.log.items["item_id"].to_list()
    return ItemVectors(names, tuple(draw.normal(size=(len(names), width)).astype(np.float32) for width in widths))


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch saw a GPU: what goes there fails, as there is none."""
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)  # asked by optimisers


def test_a_device_is_what_was_asked_for_where_it_is_there(a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto") == device_of("cuda") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")


TAKE: dict[str, Any] = {
    "the run's SASRec": lambda split, folder, text, device: best_sasrec(
        split, [SasRecSettings(epochs=1)], seed=0, device=device, folder=folder
    ),
    "SASRec's vectors": lambda split, folder, text, device: sasrec(
        split, dimensions=4, epochs=1, seed=3, device=device
    ),
    "rq_vae": lambda split, folder, text, device: rq_vae(
        split,
        some_vectors(split, 6),
        levels=2,
        codes=8,
        dimensions=4,
        hidden=[8],
        epochs=2,
        repair="digit",
        device=device,
    ),
    "letter": lambda split, folder, text, device: letter(
        split,
        some_vectors(split, 6, 4),
        levels=2,
        codes=8,
        groups=2,
        hidden=[8],
        epochs=2,
        repair="digit",
        device=device,
    ),
    "sentences": lambda split, folder, text, device: sentences(split, text=["title"], device=device),
    "hidden_states": lambda split, folder, text, device: hidden_states(
        split, text=["title"], model=text, device=device
    ),
}


@pytest.mark.parametrize("name", TAKE)
def test_the_cpu_is_used_beside_a_gpu_where_it_was_asked_for(
    name: str,
    small_shop: Any,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    a_gpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path))
    asked: list[Any] = []
    whole = torch.nn.Module.to

    def to(module: Any, *given: Any, **more: Any) -> Any:
        asked.append(given[0] if given else more.get("device"))
        return whole(module, *given, **more)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    TAKE[name](leave_one_out(small_shop), tmp_path, str(checkpoints["untied"]), "cpu")
    assert {str(place) for place in asked if not isinstance(place, torch.dtype)} == {"cpu"}


def test_a_recipe_hands_its_device_on_and_no_fingerprint_holds_it(tmp_path: Path) -> None:
    sections = (
        ("vectors", "[{call: sasrec, epochs: 1}, {call: sentences, text: [title]}]"), ("index", "{call: rq_vae}"),
        ("rank.prior", "{call: prior}"), ("eval.memory", "3"), ("sasrec", "{epochs: 1}"),
    )  # fmt: skip
    found = {}
    for device in ("cpu", "auto"):
        asked = ask(load_recipe("quickstart", (*sections, ("model.device", device))), need="no files")
        assert [call.beside for call in (*asked.vectors, asked.index)] == [{"device": device}] * 3
        assert asked.prior is not None
        assert asked.prior.beside == {"memory": 3}
        assert asked.sasrec is not None
        assert asked.sasrec.device == device
        boxes = [call.keys(without=tmp_path) for call in (*asked.vectors, asked.index)]
        found[device] = boxes, asked.prior.arguments, sasrec_box(asked.sasrec).keys()
    assert found["cpu"] == found["auto"]
