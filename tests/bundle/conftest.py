"""A run with a prior and its bundle, made once for all tests that only read them; a Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exports import GPT2, NAMES, SHOP, SHORT, exported, tune
from tests.hub import TOKEN, Hub, running


@pytest.fixture(scope="session")
def shop_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 items from scratch, with a prior."""
    settings = {
        **SHOP, "tasks": [{"call": "next_item", "template": NAMES}], "stages": [{**SHORT, "max_length": 128}], "model": GPT2,
        "rank": {**SHOP["rank"], "template": NAMES, "prior": {"call": "prior", "weight": 7}},
    }  # fmt: skip
    return tune(tmp_path_factory.mktemp("shop-run"), settings)


@pytest.fixture(scope="session")
def shop_bundle(shop_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle."""
    return exported(shop_run, "--to", str(tmp_path_factory.mktemp("shop-bundle") / "bundle"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that huggingface_hub talks to in this process."""
    import huggingface_hub.constants as constants
    from huggingface_hub import hf_api
    from transformers.utils import hub as of_transformers

    with running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(hf_api.api, "endpoint", found.url)  # made when it is imported
        monkeypatch.setattr(of_transformers, "_hf_api", None)  # made when it is first asked
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found
