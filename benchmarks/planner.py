"""Predicted against measured peak memory of real trainings, each in a process of its own.

    python benchmarks/planner.py                        # on the CPU: peak resident memory

A base of random weights is saved, a recipe with it is planned, and its training runs two steps through the same code as
`rectune train`. The measured figure is the resident memory of the whole process (VmHWM, set back when the training begins). On a GPU
the same question is section `planner` of gpu.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GB = 2**30


@dataclass(frozen=True)
class Case:
    """A shape and how it is trained: `rows` x `length` tokens."""

    shape: str
    rows: int
    length: int
    lora: bool = False
    checkpointing: bool = False
    dtype: str = "float32"


LLAMA = {"model_type": "llama", "vocab_size": 16000, "tie_word_embeddings": False}
QWEN3 = {"model_type": "qwen3", "vocab_size": 32000, "tie_word_embeddings": True, "head_dim": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-10m": {"model_type": "gpt2", "n_embd": 256, "n_layer": 6, "n_head": 4, "n_positions": 512, "vocab_size": 16000},
    "llama-60m": {**LLAMA, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 14, "num_attention_heads": 8, "num_key_value_heads": 8},
    "qwen3-100m": {**QWEN3, "hidden_size": 640, "intermediate_size": 1792, "num_hidden_layers": 14, "num_attention_heads": 10, "num_key_value_heads": 5},
    "qwen3-300m": {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 8},
    "llama-1b": {**LLAMA, "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 32, "num_key_value_heads": 4},
    "qwen2.5-0.5b": {"model_type": "qwen2", "vocab_size": 151936, "tie_word_embeddings": True, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2},
    "qwen3-1.7b": {**QWEN3, "vocab_size": 151936, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
    "llama-8b": {**LLAMA, "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
ON_CPU = [
    Case("gpt2-10m", 8, 128),
    Case("gpt2-10m", 4, 256),
    Case("llama-60m", 8, 128),
    Case("llama-60m", 8, 128, checkpointing=True),
    Case("qwen3-100m", 4, 128, lora=True),
    Case("qwen3-100m", 8, 128, lora=True),
    Case("qwen3-100m", 8, 128, lora=True, checkpointing=True),
    Case("qwen3-300m", 4, 64),
    Case("llama-60m", 4, 64, lora=True, dtype="bfloat16"),
    Case("llama-1b", 1, 64, lora=True),
    Case("llama-60m", 16, 64, lora=True),
    Case("qwen3-100m", 4, 64, checkpointing=True),
]


def write_base(case: Case, folder: Path) -> None:
    """A checkpoint of random weights with a small tokenizer, as the Hub would hold it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    from rectune.model.new_tokens import train_tokenizer

    set_seed(0)
    fields = dict(SHAPES[case.shape])
    config = AutoConfig.for_model(**fields, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case.dtype)).save_pretrained(folder)
    train_tokenizer(["Which item comes next?"], 300).save_pretrained(folder)


def write_recipe(case: Case, place: Path) -> Path:
    """A recipe whose examples are `case.length` tokens long, or a little less: bare ids of two tokens, with their separators."""
    events = case.length // 2 + 4
    peft = ", use_peft: true, lora_r: 16, lora_dropout: 0.05" if case.lora else ""
    text = f"""include: quickstart.yaml
data: {{users: 100, items: {2 * events + 8}, categories: 2, shortest: {events}, longest: {events + 2}}}
split: {{max_history: {events}}}
index: {{call: random_numbers, base: 36}}
model: {{from_scratch: null, model_name_or_path: {place / "base"}, dtype: {case.dtype}, device: cpu{peft}}}
stages:
  - {{call: sft, completion_only_loss: false, max_steps: 2, per_device_train_batch_size: {case.rows},
     max_length: {case.length}, logging_steps: 1, activation_checkpointing: {str(case.checkpointing).lower()}}}
output_dir: {place / "run"}
"""
    file = place / "planned.yaml"
    file.write_text(text)
    return file


def trained(recipe: Path) -> dict[str, Any]:
    """Train as `rectune train` does, up to the tuned model; what was measured."""
    from rectune.recipe.load import load_recipe
    from rectune.run.run import open_recipe

    line = open_recipe(load_recipe(recipe))
    with line.folder.lock():
        return dict(json.loads((line.tuned.folder / "measured.json").read_text()))


def planned(recipe: Path, shape: list[int]) -> dict[str, Any]:
    """What the planner says of the recipe for the batch `shape` (rows, tokens)."""
    from rectune.forecast.forecast import forecast
    from rectune.recipe.load import load_recipe

    plan = forecast(load_recipe(recipe)).stages[0].plan
    return {"total": plan.need(*shape).total, "parameters": plan.parameters}


def one(kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a part of this script in a process of its own. Raises RuntimeError with the end of its errors."""
    command = [sys.executable, "-W", "ignore", __file__, "--part", kind, "--given", json.dumps(arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode:
        raise RuntimeError(out.stderr[-600:])
    return dict(json.loads(out.stdout.strip().splitlines()[-1]))


def on_cpu(numbers: list[int]) -> None:
    """Print a row for each case."""
    print("| base | parameters | tuned | checkpointing | type | batch | planned | measured | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in [ON_CPU[n] for n in numbers]:
        with tempfile.TemporaryDirectory() as place:
            one("write", {"case": vars(case), "place": place})
            recipe = str(write_recipe(case, Path(place)))
            measured = one("train", {"recipe": recipe})
            said = one("plan", {"recipe": recipe, "shape": measured["largest_batch"]})
        rows, tokens = measured["largest_batch"]
        cells = [
            case.shape, f"{said['parameters'] / 1e6:.0f} M", "LoRA" if case.lora else "all", "yes" if case.checkpointing else "no",
            case.dtype, f"{rows} x {tokens}", f"{said['total'] / GB:.2f} GB", f"{measured['peak'] / GB:.2f} GB",
            f"{said['total'] / measured['peak'] - 1:+.1%}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """All cases, or with --part one part of one in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=None, help="numbers of the CPU's cases, e.g. 0,3 (default: all)")
    parser.add_argument("--part", choices=("write", "train", "plan"), help=argparse.SUPPRESS)
    parser.add_argument("--given", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    given = json.loads(args.given)
    if args.part == "write":
        write_base(Case(**given["case"]), Path(given["place"]) / "base")
        print("{}")
    elif args.part == "train":
        print(json.dumps(trained(Path(given["recipe"]))))
    elif args.part == "plan":
        print(json.dumps(planned(Path(given["recipe"]), given["shape"])))
    else:
        started = time.perf_counter()
        on_cpu([int(n) for n in args.cases.split(",")] if args.cases else list(range(len(ON_CPU))))
        print(f"\n{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
