"""What tells two askings apart: hashes of keys, inputs and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rectune


def fingerprint(name: str, keys: Any, inputs: Sequence[str]) -> str:
    """Twelve hex digits of a SHA-256 over everything a stage depends on."""
    text = json.dumps([rectune.__version__, name, keys, list(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_of(function: Callable[..., Any]) -> str:
    """Hash of the file that defines `function`, so that editing it rebuilds what it made.

    A module whose work is done elsewhere names functions from there in `MADE_OF`; their files, and so on, count as well.
    """
    import inspect

    files: dict[str, None] = {}
    waiting = [inspect.getmodule(function)]
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if file and file not in files:
            files[file] = None
            waiting += [inspect.getmodule(other) for other in getattr(module, "MADE_OF", ())]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:12] if files else ""
