"""A run with a prior and its bundle, made once for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports import GPT2, NAMES, SHOP, SHORT, exported, tune


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
