"""Logits only where a label is, beside TRL's own fused head: time and peak memory of a training step, same loss.

    python -m benchmarks.target_head [--width 256] [--layers 4] [--vocabulary 50000] [--length 256] [--targets 2]

Each side runs in a process of its own, on the same model and batch, one thread; the sides take turns. CPU seconds are of the
process, memory is the highest resident memory of the step above what the process had before it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("trl", "targets")


def step(side: str, sizes: dict[str, int]) -> dict[str, float]:
    """One forward and backward pass of a batch; CPU seconds, bytes above the start, loss, and a sum of gradients."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed
    from trl.trainer.utils import add_fused_lm_head

    from rectune.methods.target_head import put_target_head

    torch.set_num_threads(1)
    set_seed(0)
    config = AutoConfig.for_model(
        "qwen3", hidden_size=sizes["width"], intermediate_size=3 * sizes["width"], num_hidden_layers=sizes["layers"],
        num_attention_heads=8, num_key_value_heads=4, head_dim=sizes["width"] // 8, vocab_size=sizes["vocabulary"],
        tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if side == "targets":
        put_target_head(model)
    ids = torch.randint(0, sizes["vocabulary"], (sizes["batch"], sizes["length"]))
    labels = torch.full_like(ids, -100)
    labels[:, -sizes["targets"] :] = ids[:, -sizes["targets"] :]

    def once() -> float:
        model.zero_grad(set_to_none=True)
        out = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True, use_cache=False
        )
        loss = -out.log_probs.sum() / out.label_mask.sum()
        loss.backward()
        return float(loss)

    with Peak() as peak:
        once()
    started = time.process_time()
    loss = once()
    seconds = time.process_time() - started
    gradient = sum(float(p.grad.double().abs().sum()) for p in model.parameters() if p.grad is not None)
    return {"seconds": seconds, "bytes": peak.above, "loss": loss, "gradient": gradient}


class Peak:
    """The highest resident memory while the block runs, above that before it, in bytes (Linux)."""

    def __enter__(self) -> Peak:
        self._before = self._most = _resident()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._watch.join()
        self.above = self._most - self._before

    def _sample(self) -> None:
        while not self._stop.wait(0.002):
            self._most = max(self._most, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run both sides in turn and print the medians of the pairwise ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("width", 256),
        ("layers", 4),
        ("vocabulary", 50_000),
        ("length", 256),
        ("targets", 2),
        ("batch", 8),
        ("pairs", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = {name: value for name, value in vars(args).items() if name not in ("side", "pairs")}
    if args.side:
        print(json.dumps(step(args.side, sizes)))
        return
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(args.pairs):
        for side in SIDES:
            out = subprocess.run(
                [sys.executable, "-m", "benchmarks.target_head", *options, "--side", side],
                capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            found[side].append(json.loads(out.stdout.splitlines()[-1]))
    for a, b in zip(found["trl"], found["targets"], strict=True):
        if (
            abs(a["loss"] - b["loss"]) > 1e-5 * abs(a["loss"])
            or abs(a["gradient"] - b["gradient"]) > 1e-4 * a["gradient"]
        ):
            raise SystemExit(f"not the same loss or gradients: {a} against {b}; no speed is claimed")
    print(
        ", ".join(f"{name} {value:,}" for name, value in sizes.items())
        + f"; {args.pairs} pairs; loss {a['loss']:.5f} on both"
    )
    for what, unit in (("seconds", 1.0), ("bytes", 2**20)):
        each = {side: np.array([one[what] for one in found[side]]) / unit for side in SIDES}
        ratio = each["trl"] / each["targets"]
        low, high = np.quantile(_medians(ratio), [0.025, 0.975])
        name = "CPU seconds" if what == "seconds" else "MiB above the start"
        print(
            f"{name}: TRL's head {np.median(each['trl']):.3g}, targets only {np.median(each['targets']):.3g}, "
            f"ratio {np.median(ratio):.2f} [{low:.2f}, {high:.2f}]"
        )


def _medians(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.median(rng.choice(values, (2000, len(values))), axis=1)


if __name__ == "__main__":
    main()
