"""What a machine without a network needs to run `benchmarks/gpu.py`: wheels, inputs, the source, in parts that travel.

    python benchmarks/gpu_pack.py --smollm2 --movielens PATH/TO/ml-100k --scientific PATH/TO/amazon18_scientific
    python benchmarks/gpu_pack.py --have pip-list-of-that-machine.txt       # leave out what it has already

Run it where a network is. The folder (runs/gpu-pack) gets `part-1`, `part-2`, … of at most 60 MiB each and prints the one command that
installs and runs them there, beside each other in one folder, with a Python that has PyTorch: PyTorch itself is not packed. `--have`: lines
of `pip list --format=freeze` (NAME==VERSION, or NAME); such a package is left out where its version is one that everything which needs it allows.
With `--scientific` the first boxes of recipe lcrec-scientific-smollm2 (log, split, item vectors, index) are built here, minutes on a CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST = 60 * 2**20  # bytes of a part
PIECE = 46 * 2**20  # bytes of a piece of a file that is cut, so that something fits beside it
NEEDED = "accelerate bitsandbytes datasets evaluate gguf huggingface_hub jinja2 matplotlib numpy peft polars pyyaml safetensors scikit-learn scipy threadpoolctl tokenizers tqdm transformers trl"
NOT_PACKED = {"torch", "triton", "setuptools"}
PLATFORMS = [
    f"manylinux{tag}_x86_64"
    for tag in ("_2_34", "_2_31", "_2_28", "_2_27", "_2_24", "_2_17", "2014", "2010", "1", "_2_12", "_2_5")
]
RECIPE = "lcrec-scientific-smollm2"


def main() -> int:
    """Make the parts; the folder is whole or not there."""
    args = _parser().parse_args()
    if args.to.exists() and any(args.to.iterdir()) and not (args.to / "part-1").is_dir():
        print(f"--to {args.to}: it holds something else. Give an empty folder.", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as place:
            work = Path(place)
            wheels = download(work / "wheels", args.python, _have(args.have))
            inputs = prepare(args, work / "inputs")
            source = pack_source(work / "rectune.tar.gz")
            parts = write_parts([source, *wheels, *inputs], work, args.to)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        told = (
            error.stderr.strip()[-600:]
            if isinstance(error, subprocess.CalledProcessError)
            else " ".join(str(error).split())
        )
        print(f"no pack was made: {told}", file=sys.stderr)
        return 1
    for part in parts:
        print(f"{part}: {sum(f.stat().st_size for f in part.iterdir()) / 2**20:.1f} MiB")
    print(
        f"copy the parts beside each other and type: bash {args.to.name}/part-1/run.sh [options of benchmarks/gpu.py]"
    )
    return 0


# ---------------------------------------------------------------------------------------------------------------- wheels


def download(folder: Path, python: str, have: dict[str, str]) -> list[Path]:
    """The wheels of everything that the benchmark imports and the machine lacks, in the versions that are installed here."""
    folder.mkdir(parents=True)
    wanted = closure(NEEDED.split(), python)
    names = sorted(name for name, need in wanted.items() if not need.met_by(have.get(name)))
    print(
        f"{len(names)} wheels; left out, because they are there: {', '.join(sorted(set(wanted) - set(names))) or 'none'}",
        flush=True,
    )
    target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    target += [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "-d", str(folder)]
    exact = [f"{name}=={wanted[name].version}" for name in names]
    subprocess.run([*pip, *target, *exact], check=True, capture_output=True, text=True)
    return sorted(folder.glob("*.whl"))


@dataclass
class Wanted:
    """A package: the version that is packed, and what those that need it say of it (`>=2.0,<3`)."""

    version: str
    said: list[str]

    def met_by(self, there: str | None) -> bool:
        """Whether what is installed over there will do; '' is an unknown version, which has to."""
        from packaging.specifiers import SpecifierSet

        return there is not None and (
            not there or all(SpecifierSet(text).contains(there, prereleases=True) for text in self.said)
        )


def closure(names: Sequence[str], python: str) -> dict[str, Wanted]:
    """What `names` need on that Python, other than through PyTorch, with the versions of this environment.

    Raises ValueError for a package that is not installed here.
    """
    from packaging.requirements import Requirement

    there = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found: dict[str, Wanted] = {}
    own = [
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    said = {_key(need.name): [str(need.specifier)] for need in own}
    waiting = [_key(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in NOT_PACKED:
            continue
        try:
            found[name] = Wanted(importlib.metadata.version(name), said.setdefault(name, []))
        except importlib.metadata.PackageNotFoundError:
            raise ValueError(
                f"`{name}` is not installed here. Type: pip install -c constraints.txt -e . gguf"
            ) from None
        needs = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        for need in needs:
            if need.marker is None or need.marker.evaluate(there):
                said.setdefault(_key(need.name), []).append(str(need.specifier))
                waiting.append(_key(need.name))
    return found


def _have(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    pairs = [line.strip().partition("==") for line in file.read_text().splitlines() if line.strip()]
    return {_key(name): version for name, _, version in pairs}


def _key(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


# ---------------------------------------------------------------------------------------------------------------- inputs


def prepare(args: argparse.Namespace, folder: Path) -> list[Path]:
    """Copy what was given, build the first boxes of LC-Rec; returns the files."""
    folder.mkdir(parents=True)
    if args.smollm2:
        from benchmarks.smollm2 import download as download_gguf

        (folder / "gguf").mkdir()
        shutil.move(download_gguf(folder / "gguf"), folder / "gguf" / "smollm2.gguf")
        for rest in (folder / "gguf").iterdir():
            if rest.name != "smollm2.gguf":
                rest.unlink() if rest.is_file() else shutil.rmtree(rest)
    if args.movielens:
        _copy(args.movielens, folder / "ml-100k", ("u.data*", "u.item*", "u.genre*", "u.user*"))
    if args.scientific:
        _copy(args.scientific, folder / "amazon18_scientific", ("*.inter.json*", "*.item.json*"))
        first_boxes(folder / "amazon18_scientific", folder / RECIPE, args.made)
    return sorted(file for file in folder.rglob("*") if file.is_file())


def first_boxes(source: Path, folder: Path, made: Path) -> None:
    """Log, split, item vectors and index of the recipe. `made`: a folder that keeps them between calls."""
    from rectune.recipe.load import load_recipe
    from rectune.run.run import open_recipe

    # A base is named but not opened: none of these boxes reads it.
    line = open_recipe(load_recipe(RECIPE, [("data.path", str(source)), ("output_dir", str(made))]))
    with line.folder.lock():
        boxes = [line.place("log"), line.place("split"), line.place("vectors"), line.place("index")]
    for box in boxes:
        shutil.copytree(box.folder, folder / "stages" / box.folder.name)
    shutil.copy(made / "run.json", folder / "run.json")


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    found = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    if not found:
        raise ValueError(f"{source} holds none of {', '.join(patterns)}.")
    target.mkdir(parents=True)
    for file in found:
        shutil.copyfile(file, target / file.name)


def pack_source(file: Path) -> Path:
    """The files of this clone as they are now, and the commit that they are of."""
    git = ["git", "-C", str(ROOT)]
    names = subprocess.run(
        [*git, "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True, text=True).stdout.strip()
    mark = file.parent / "COMMIT"
    mark.write_text(commit + (" and changes" if changed else "") + "\n")
    with tarfile.open(file, "w:gz") as archive:
        archive.add(mark, "rectune/COMMIT")
        for name in names:
            if name and (ROOT / name).is_file():
                archive.add(ROOT / name, f"rectune/{name}")
    return file


# ----------------------------------------------------------------------------------------------------------------- parts


def write_parts(files: Sequence[Path], root: Path, folder: Path) -> list[Path]:
    """Put the files, large ones in pieces, into as few parts as they fill; part-1 holds the list of all of them and the command."""
    pieces: list[tuple[Path, int, int]] = []
    for file in files:
        size = file.stat().st_size
        cuts = list(range(0, size, PIECE)) if size > MOST - 2**20 else [0]
        pieces += [(file, start, min(start + PIECE, size) if len(cuts) > 1 else size) for start in cuts]
    bins: list[list[tuple[Path, int, int]]] = [[]]
    room = [MOST - 2**19]  # of the first part, which holds the list and the command, too
    for piece in sorted(pieces, key=lambda p: p[1] - p[2]):
        size = piece[2] - piece[1]
        place = next((i for i, left in enumerate(room) if size <= left), len(room))
        if place == len(room):
            bins.append([])
            room.append(MOST)
        bins[place].append(piece)
        room[place] -= size
    for old in folder.glob("part-*"):
        shutil.rmtree(old)
    listed = []
    for number, some in enumerate(bins, 1):
        part = folder / f"part-{number}"
        part.mkdir(parents=True)
        for n, (file, start, stop) in enumerate(some):
            with file.open("rb") as source:
                source.seek(start)
                data = source.read(stop - start)
            (part / f"{n:03d}").write_bytes(data)
            where = {"part": f"part-{number}/{n:03d}", "file": str(file.relative_to(root)), "start": start}
            listed.append({**where, "sha256": hashlib.sha256(data).hexdigest()})
    listed.sort(key=lambda piece: (piece["file"], piece["start"]))
    (folder / "part-1" / "list.json").write_text(json.dumps(listed, indent=0))
    (folder / "part-1" / "unpack.py").write_text(UNPACK)
    (folder / "part-1" / "run.sh").write_text(RUN)
    return [folder / f"part-{number}" for number in range(1, len(bins) + 1)]


UNPACK = '''"""Join the pieces of all parts into a folder: python3 unpack.py PACK FOLDER"""
import hashlib, json, pathlib, shutil, sys, tarfile

pack, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
pieces = json.loads((pack / "part-1" / "list.json").read_text())
missing = sorted({p["part"].partition("/")[0] for p in pieces if not (pack / p["part"]).exists()})
if missing:
    sys.exit(f"missing beside part-1: {', '.join(missing)}")
for old in (folder / "wheels").glob("*.whl"):
    old.unlink()
for piece in pieces:
    data = (pack / piece["part"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != piece["sha256"]:
        sys.exit(f"{piece['part']} is damaged: copy it again")
    file = folder / piece["file"]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab" if piece["start"] else "wb") as out:
        out.write(data)
shutil.rmtree(folder / "rectune", ignore_errors=True)
with tarfile.open(folder / "rectune.tar.gz") as archive:
    archive.extractall(folder, filter="data")
'''
RUN = """#!/usr/bin/env bash
# Installs what lies in the parts and measures: bash PACK/part-1/run.sh [options of benchmarks/gpu.py]
# PYTHON: a Python with PyTorch (python3). WORK: where things are put (PACK/work). FIGURES: where figures are put (WORK/figures).
set -euo pipefail
pack=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=${WORK:-$pack/work}
mkdir -p "$work"
pack_is=$(cksum < "$pack/part-1/list.json")
[ "$(cat "$work/unpacked" 2>/dev/null)" = "$pack_is" ] || { "$python" "$pack/part-1/unpack.py" "$pack" "$work"; echo "$pack_is" > "$work/unpacked"; }
# The folder is called as packages expect: dill pickles what lies elsewhere by its contents.
if [ "$(cat "$work/installed" 2>/dev/null)" != "$pack_is" ]; then
  mkdir -p "$work/site-packages"
  find "$work" -path "$work/wheels/*.whl" -print0 | xargs -0 -r "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check --upgrade --target "$work/site-packages"
  echo "$pack_is" > "$work/installed"
fi
export PYTHONPATH="$work/site-packages:$work/rectune${PYTHONPATH:+:$PYTHONPATH}"
[ ! -e "$work/inputs/gguf" ] || "$python" "$work/rectune/benchmarks/smollm2.py" --gguf "$work/inputs/gguf/smollm2.gguf" --to "$work/inputs/smollm2"
mkdir -p "$work/inputs"
exec "$python" "$work/rectune/benchmarks/gpu.py" --inputs "$work/inputs" --out "${FIGURES:-$work/figures}" "$@"
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "runs" / "gpu-pack")
    parser.add_argument("--python", default="3.12", help="the version of Python over there (3.12)")
    parser.add_argument("--have", type=Path, help="what is installed over there, by `pip list --format=freeze`")
    parser.add_argument("--smollm2", action="store_true", help="pack SmolLM2-135M-Instruct, for sections 6 and 8")
    parser.add_argument("--movielens", type=Path, help="MovieLens 100K, for section 6")
    parser.add_argument("--scientific", type=Path, help="Amazon 2018 Scientific in LC-Rec's form, for section 8")
    parser.add_argument(
        "--made",
        type=Path,
        default=ROOT / "runs" / "gpu-first-boxes",
        help="keeps the first boxes of LC-Rec between calls",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
