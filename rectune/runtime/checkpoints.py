"""What is in a folder of the Hub's kind, read before anything of it is loaded: whole, a base, and no code of its own."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any, Literal

Part = Literal["model", "tokenizer", "weights"]
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def check_checkpoint(
    name: str, *, key: str, parts: tuple[Part, ...] = ("model", "tokenizer", "weights"), revision: str = "main", fetch: bool = True
) -> None:  # fmt: skip
    """Raise ValueError for what cannot be a base: a GGUF file, an adapter, a checkpoint that needs Python code of its own, an unfinished download
    (FileNotFoundError where files are missing).

    `key`: the recipe's key, for messages. `parts`: what is going to be loaded. `fetch`: whether small files of the Hub may be fetched;
    else only those are read that are here. rectune runs no code that comes with a checkpoint: where transformers has a class
    of its own for it, that one is used and one warning says so.
    """
    _refuse_gguf(Path(name), key)
    read = {file: _read(name, file, revision, fetch) for file in ("config.json", "tokenizer_config.json")}
    adapter = _read(name, "adapter_config.json", revision, fetch and read["config.json"] is None)
    if adapter is not None and "model" in parts:
        base = adapter.get("base_model_name_or_path") or "its base"
        raise ValueError(
            f"`{key}`: `{name}` holds an adapter (adapter_config.json), not a base. Name its base, `{base}`, or merge the two first "
            "(PEFT's `merge_and_unload`, then `save_pretrained`)."
        )
    config, tokenizer = read["config.json"] or {}, read["tokenizer_config.json"] or {}
    if "model" in parts:
        _check_code(name, key, "config.json", config.get("auto_map"), native=_model_is_known(config.get("model_type")))
    if "tokenizer" in parts:
        # transformers looks for a tokenizer's code in the model's config, too
        for file, said in (("tokenizer_config.json", tokenizer), ("config.json", config)):
            code = {k: v for k, v in _mapping(said.get("auto_map")).items() if k == "AutoTokenizer"}
            known = _tokenizer_is_known(tokenizer.get("tokenizer_class"), config.get("model_type"))
            _check_code(name, key, file, code, native=known)
        _check_backend(name, key, tokenizer.get("tokenizer_class"))
    if "weights" in parts and config and Path(name).is_dir():
        _check_weights(Path(name), key)


def _refuse_gguf(place: Path, key: str) -> None:
    """Raise ValueError for a GGUF file, or a folder that holds nothing else to load."""
    alone = place.is_dir() and not (place / "config.json").exists() and any(place.glob("*.gguf"))
    if alone or (place.suffix.lower() == ".gguf" and place.is_file()):
        raise ValueError(
            f"`{key}`: `{place}` is GGUF, rounded weights for inference, which cannot be tuned. Name the model that it was made from, such as its "
            "repository on the Hub."
        )


def check_modules(name: str, *, key: str, fetch: bool = True) -> None:
    """Raise ValueError for a sentence-transformers model that holds modules or a config with code of its own."""
    modules = _read(name, "modules.json", "main", fetch)
    for module in modules if isinstance(modules, list) else []:
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            _refuse(name, key, "modules.json", str(module.get("type")))
        if module.get("path"):
            config = _read(name, f"{module['path']}/config.json", "main", fetch) or {}
            file = f"{module['path']}/config.json"
            _check_code(name, key, file, config.get("auto_map"), native=_model_is_known(config.get("model_type")))
    check_checkpoint(name, key=key, parts=("model", "tokenizer"), fetch=fetch)


def _read(name: str, file: str, revision: str, fetch: bool) -> Any:
    """A JSON file of a checkpoint, or None where there is none (or none that can be had)."""
    from transformers.utils import cached_file

    if Path(name).is_dir():
        found = Path(name) / file
        if not found.is_file():
            return None
    else:
        try:
            place = cached_file(
                name, file, revision=revision, local_files_only=not fetch, _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
            )  # fmt: skip
        except (OSError, ValueError):
            return None  # whoever loads it says why
        if place is None:
            return None
        found = Path(place)
    try:
        return json.loads(found.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"`{name}`: {file} is no JSON ({error}). The download may be unfinished: fetch it again."
        ) from None


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"AutoTokenizer": value}  # the old form: a list of two classes


def _check_code(name: str, key: str, file: str, auto_map: Any, *, native: bool) -> None:
    code = _mapping(auto_map)
    if not code:
        return
    first = next(iter(code.values()))
    classes = [c for c in (first if isinstance(first, list) else [first]) if c]
    said = str(classes[0]) if classes else next(iter(code))
    if not native:
        _refuse(name, key, file, said)
    warnings.warn(
        f"`{key}`: {file} of `{name}` names code of its own (`{said}`); it is not run, transformers' own class is used.",
        stacklevel=4,
    )


def _refuse(name: str, key: str, file: str, said: str) -> None:
    raise ValueError(
        f"`{key}`: `{name}` needs Python code of its own ({file} names `{said}`), and rectune runs no code that comes with a checkpoint. "
        "Use a base that transformers itself knows, or a copy that was converted to one."
    )


def _model_is_known(kind: Any) -> bool:
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _tokenizer_is_known(name: Any, kind: Any) -> bool:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    if isinstance(name, str):
        plain = name.removesuffix("Fast")
        return any(tokenizer_class_from_name(some) is not None for some in (plain, f"{plain}Fast"))
    return kind in TOKENIZER_MAPPING_NAMES


def _check_backend(name: str, key: str, kind: Any) -> None:
    """Raise ValueError for a tokenizer of which it is known that the library `tokenizers` does not run it."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    folder = Path(name)
    if not isinstance(kind, str) or not folder.is_dir() or (folder / "tokenizer.json").is_file():
        return
    known = tokenizer_class_from_name(kind)
    if known is not None and not any("backend_tokenizer" in vars(base) for base in known.__mro__):
        raise ValueError(
            f"`{key}`: its tokenizer is a `{kind}`, which has no `tokenizer.json` of the library `tokenizers`; rectune needs one to keep "
            "item texts apart from special tokens. Use another base."
        )


def _check_weights(folder: Path, key: str) -> None:
    """Raise FileNotFoundError where weights are missing, ValueError where they are cut short."""
    indexes = [folder / name for name in _INDEXES if (folder / name).is_file()]
    whole = [folder / name for name in _WHOLE if (folder / name).is_file()]
    if not indexes and not whole:
        raise FileNotFoundError(
            f"`{key}`: no weights could be loaded from `{folder}`: no model.safetensors, and no model.safetensors.index.json with the files it "
            f"names. The download is unfinished, or it is another folder: it holds {_listed(sorted(f.name for f in folder.iterdir()))}."
        )
    files = whole[:1]
    if not whole:
        named = sorted(set(json.loads(indexes[0].read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [name for name in named if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"`{key}`: `{folder}` lacks {len(missing)} of the {len(named)} files that {indexes[0].name} names "
                f"({_listed(missing)}). The download is unfinished: run it again."
            )
        files = [folder / name for name in named]
    for file in files:
        if file.suffix == ".safetensors":
            _check_length(file, key)


def _check_length(file: Path, key: str) -> None:
    """A safetensors file says how long it is: 8 bytes of length, a JSON header, the tensors."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise ValueError(f"`{key}`: {file} is a Git LFS pointer, not weights. Run `git lfs pull` in its folder.")
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else size
        opened.seek(8)
        header = opened.read(length) if length < size else b""
    ends = [0]
    if header:
        ends = [tensor["data_offsets"][1] for name, tensor in json.loads(header).items() if name != "__metadata__"]
    needed = 8 + length + max(ends, default=0)
    if size < needed or not header:
        raise ValueError(
            f"`{key}`: {file} is cut short ({size:,} bytes, its header says {needed:,}). The download is unfinished: run it again."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "nothing"
