"""Section 1: what the card can do at most. Every other section gives its figures as a share of these."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_sections.bench import Bench


def card_of(device: str, *, quick: bool) -> dict[str, Any]:
    """The device's name, driver, libraries and its two measured ceilings: bf16 matrix products and copies in its memory."""
    about: dict[str, Any] = {"device": device, "torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info(0)
        about |= {
            "name": properties.name, "memory_gb": round(properties.total_memory / 2**30, 2), "driver": _driver(),
            "cuda": torch.version.cuda, "capability": f"{properties.major}.{properties.minor}",
            "context_gb": round((total - free - torch.cuda.memory_reserved(0)) / 2**30, 3),
        }  # fmt: skip
    else:
        about |= {"name": f"cpu ({platform.machine()})", "threads": torch.get_num_threads()}
    size = 512 if device == "cpu" else 8192
    about["matrix_tflops"] = round(matrix_rate(device, size, torch.bfloat16), 3)
    about["copy_gb_s"] = round(copy_rate(device, 2**24 if quick or device == "cpu" else 2**30), 1)
    return about


def matrix_rate(device: str, size: int, dtype: torch.dtype) -> float:
    """TFLOP/s of a product of two random size x size matrices: the median of nine, after a warm-up."""
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, device) / 1e12


def copy_rate(device: str, size: int) -> float:
    """GB/s (10^9 bytes, read and written bytes both counted) of copying `size` bytes within the device's memory."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device) / 1e9


def median_seconds(work: Callable[[], Any], device: str, *, times: int = 9, warm: int = 3) -> float:
    """Median seconds of a call, on the device's own clock where it has one."""
    for _ in range(warm):
        work()
    found = []
    for _ in range(times):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()  # type: ignore[no-untyped-call]
            work()
            end.record()  # type: ignore[no-untyped-call]
            end.synchronize()  # type: ignore[no-untyped-call]
            found.append(start.elapsed_time(end) / 1e3)  # type: ignore[no-untyped-call]
        else:
            began = time.perf_counter()
            work()
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def run(bench: Bench) -> None:
    """Products of several sizes and types, copies within the device and from the host."""
    device = bench.card["device"]
    sizes = (256, 512) if bench.quick else (2048, 4096, 8192, 16384)
    for size in sizes:
        bench.measure(f"bfloat16, {size} x {size}", lambda n=size: {"tflops": matrix_rate(device, n, torch.bfloat16)})
    largest = sizes[-2]
    bench.measure(f"float32, {largest} x {largest}", lambda: {"tflops": matrix_rate(device, largest, torch.float32)})
    size = 2**24 if bench.quick else 2**30
    bench.measure("copy within the device", lambda: {"gb_s": copy_rate(device, size)})
    if bench.cuda:
        bench.measure("copy from the host, pinned", lambda: {"gb_s": _from_host(size)})
    bench.measure("a product of 64 x 64 (launch)", lambda: {"microseconds": _launch(device)})


def _from_host(size: int) -> float:
    source = torch.empty(size, dtype=torch.uint8).pin_memory()
    target = torch.empty(size, dtype=torch.uint8, device="cuda")
    return size / median_seconds(lambda: target.copy_(source, non_blocking=True), "cuda") / 1e9


def _launch(device: str) -> float:
    """Microseconds of a product that has nothing to do, one of a thousand in a row: what a kernel costs by itself."""
    a = torch.zeros(64, 64, device=device)
    count = 1000

    def many() -> None:
        for _ in range(count):
            torch.mm(a, a)

    return 1e6 * median_seconds(many, device, times=3, warm=1) / count


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        out = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return "unknown"
    return out.stdout.strip().splitlines()[0] if out.stdout.strip() else "unknown"
