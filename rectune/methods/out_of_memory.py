"""What to change when memory runs out during a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from rectune.runtime.processes import world_size

SAME_RESULT = ("save_minutes", "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing", "gradient_checkpointing_kwargs")  # fmt: skip
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


@contextlib.contextmanager
def advised(stage: int, config: Any) -> Iterator[None]:
    """Turn running out of memory in stage `stage` into a MemoryError of one line that names the keys to change."""
    try:
        yield
    except (
        RuntimeError,
        MemoryError,
    ) as error:  # torch.OutOfMemoryError is a RuntimeError, and so is the CPU allocator's error
        if not ran_out(error):
            raise
        first = " ".join(str(error).split())[:160]
        raise MemoryError(
            f"memory ran out in stage {stage} ({first or 'no more is known'}). {advice(stage, config)} The same command with that change continues "
            "from the last complete checkpoint (`save_strategy`, `save_minutes`), or from the start where there is none. `rectune plan` says what fits."
        ) from None


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # DefaultCPUAllocator


def advice(stage: int, config: Any) -> str:
    """Keys and values that take less memory and change the result least, the best first."""
    batch, steps = config.per_device_train_batch_size, config.gradient_accumulation_steps
    budget = vars(config).get("batch_tokens")
    if budget is not None:
        return f"Give `--stages.{stage}.batch_tokens {budget // 2} --stages.{stage}.{BATCH[1]} {2 * steps}` (a new training: batches are others)."
    group = int(getattr(config, "group", 1))  # which stays whole
    if batch > group:
        half = group * largest_divisor(batch // group, batch // group // 2)
        less = f"`--stages.{stage}.{BATCH[0]} {half} --stages.{stage}.{BATCH[1]} {steps * batch // half}` (the same global batch)"
        more = "" if config.activation_checkpointing else f", or `--stages.{stage}.activation_checkpointing true`"
        return f"Give {less}{more}."
    if not config.activation_checkpointing:
        return f"Give `--stages.{stage}.activation_checkpointing true`."
    length = config.max_length
    shorter = f"`--stages.{stage}.max_length {length // 2}`" if length else f"a `--stages.{stage}.max_length`"
    return f"Give {shorter} (a new training: histories are cut), or a smaller or quantised base."


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(d for d in range(max(1, most), 0, -1) if number % d == 0)


def for_fingerprint(section: dict[str, Any], config: Any) -> dict[str, Any]:
    """The keys of a stage that its result depends on: the batch as a whole, not how it is cut up or shared by processes, and nothing that only
    trades time for memory. The method and its tasks are told apart elsewhere. So a training that ran out of memory goes on after the change that `advice` names."""
    keys = {k: v for k, v in section.items() if k not in (*SAME_RESULT, *BATCH, "call", "tasks")}
    known = vars(config)
    if all(name in known for name in BATCH):
        keys["global_batch"] = known[BATCH[0]] * known[BATCH[1]] * world_size()
    else:
        keys.update({k: section[k] for k in BATCH if k in section})
        if world_size() > 1:
            keys["processes"] = world_size()
    return keys
