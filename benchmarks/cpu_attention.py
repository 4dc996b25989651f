"""What attention costs a training in bfloat16 on a CPU: torch's kernel as it is, and in float32 as `rectune.methods.cpu_attention` has it.

    OMP_NUM_THREADS=1 python -m benchmarks.cpu_attention [--pairs 7]

Forward and backward pass of one layer's attention, 9 heads of 64, with a mask, random values; both must agree within bfloat16's rounding.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch.nn import functional

from benchmarks.side_by_side import claim, say, say_versions, side_by_side

SHAPES = ((32, 24), (32, 36), (8, 128), (8, 192), (8, 224), (8, 256), (2, 1024))  # rows, tokens


def layer(values: list[torch.Tensor], mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Gradients of the queries after both passes, multiplied in `dtype`."""
    query, key, value = (one.detach().requires_grad_() for one in values)
    q, k, v = (one.to(dtype) for one in (query, key, value))
    functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).to(query.dtype).float().square().sum().backward()
    assert query.grad is not None
    return query.grad


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="how often each runs")
    args = parser.parse_args()
    say_versions()
    torch.manual_seed(0)
    for rows, tokens in SHAPES:
        values = [torch.randn(rows, 9, tokens, 64, dtype=torch.bfloat16) for _ in range(3)]
        mask = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, -1, -1)
        ours, theirs = (partial(layer, values, mask, dtype) for dtype in (torch.float32, torch.bfloat16))
        label = f"{rows} rows of {tokens} tokens"
        one, other = ours().float(), theirs().float()
        if (one - other).norm() > 0.02 * one.norm():
            say(f"{label}: GATE FAILED: gradients differ by {(one - other).norm() / one.norm():.1%}")
            continue
        mine, library, ratio = side_by_side(ours, theirs, args.pairs)
        say(f"{label}: float32 {1e3 * mine:.1f} ms, bfloat16 {1e3 * library:.1f} ms: {claim(ratio)}")


if __name__ == "__main__":
    main()
