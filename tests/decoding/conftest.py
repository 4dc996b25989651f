from __future__ import annotations

from typing import Any

import pytest

from tests.decoding.models import LLAMA, build


@pytest.fixture(scope="module")
def model() -> Any:
    return build("qwen3", **LLAMA)
