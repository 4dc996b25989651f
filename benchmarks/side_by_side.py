"""How two are measured in one process: CPU seconds, taking turns, a ratio with its interval, and when it is no claim."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Process CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def side_by_side(ours: Callable[[], Any], rival: Callable[[], Any], pairs: int) -> tuple[float, float, np.ndarray]:
    """Median seconds of both, and the rival : ours ratio as (median, low, high); they take turns."""
    ours()
    times = np.array([(cpu_seconds(ours), cpu_seconds(rival)) for _ in range(pairs)])
    return *np.median(times, axis=0), interval(times[:, 1] / times[:, 0])


def interval(ratios: np.ndarray) -> np.ndarray:
    """(median, low, high), the last two a 95 % bootstrap interval of the median."""
    medians = np.median(np.random.default_rng(0).choice(ratios, (2000, len(ratios))), axis=1)
    return np.array([np.median(ratios), *np.quantile(medians, [0.025, 0.975])])


def claim(ratio: np.ndarray) -> str:
    """A ratio with its interval, marked where the interval is too wide for a claim."""
    wide = (ratio[2] - ratio[1]) / ratio[0] > 0.1
    return f"{ratio[0]:.2f}x [{ratio[1]:.2f}, {ratio[2]:.2f}]" + (" (no claim: interval above 10 %)" if wide else "")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def say_versions() -> None:
    """The line above all rows: versions, threads, machine, seed and date."""
    import torch
    import transformers

    say(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} thread, "
        f"{platform.machine()}, seed 0, {time.strftime('%Y-%m-%d')}"
    )
