"""Log-probabilities of the items of a group, of which the model reads the prompt once."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint
from transformers.utils import ModelOutput

from rectune.decoding.body import scale_and_cap
from rectune.decoding.padding import additive, positions
from rectune.decoding.table import Table
from rectune.methods.target_head import PIECE


class Groups(NamedTuple):
    """Prompts and what was rolled out after each. `prompt`, `mask` (P, L), padded on the left; `names` (P, G, C), token ids of items, and
    `named`, which of them are some."""

    prompt: torch.Tensor
    mask: torch.Tensor
    names: torch.Tensor
    named: torch.Tensor


@dataclass
class Scored:
    """Where the hidden states of a forward pass lead to: `place` (P, G, C), the position that says each token of `names`; `node` (P, G, C), the node
    of the trie that each stands below, or None where all of the vocabulary counts."""

    place: torch.Tensor
    names: torch.Tensor
    node: torch.Tensor | None
    table: Table | None
    temperature: float


@dataclass
class GroupOutput(ModelOutput):  # type: ignore[misc]
    """Log-probability of each token of the names and entropy there, both (P, G, C)."""

    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None


def put_group_head(model: Any) -> None:
    """Make `model(..., scored=…)` give a `GroupOutput`; other calls stay as they are. With or without a PEFT adapter."""
    whole = model.get_base_model() if hasattr(model, "peft_config") else model
    before = whole.forward
    config = whole.config.get_text_config()

    def forward(self: Any, *args: Any, scored: Scored | None = None, **kwargs: Any) -> Any:
        if scored is None:
            return before(*args, **kwargs)
        out = self.base_model(*args, **{**kwargs, "use_cache": False})
        return _group_output(out.last_hidden_state, scored, self.get_output_embeddings(), config)

    forward.__wrapped__ = before.__func__ if isinstance(before, MethodType) else before  # type: ignore[attr-defined]
    whole.forward = MethodType(forward, whole)


def inputs_of(groups: Groups, table: Table | None, *, temperature: float, dtype: torch.dtype) -> dict[str, Any]:
    """What a model with a group head is called with: one sequence a prompt, in which each name sees the prompt and itself.

    `table`: probabilities are over the names that the trie allows; None: over the vocabulary. `dtype`: of the mask.
    """
    prompt, mask, names, named = groups
    rows, each, length = names.shape
    start = prompt.shape[1]
    own = names[..., :-1].reshape(rows, -1)  # a name's last token says nothing more
    ids = torch.cat([prompt, own], 1)
    inside = torch.cat([mask, named[..., :-1].reshape(rows, -1)], 1).bool()
    at = torch.arange(length - 1, device=ids.device).repeat(each)
    group = torch.arange(each, device=ids.device).repeat_interleave(length - 1)
    own_seen = (group[:, None] == group) & (at[:, None] >= at)
    seen = torch.zeros((ids.shape[1], ids.shape[1]), dtype=torch.bool, device=ids.device)
    seen[:start, :start] = torch.ones((start, start), dtype=torch.bool, device=ids.device).tril()
    seen[start:, :start] = True
    seen[start:, start:] = own_seen
    visible = (seen & inside[:, None]) | torch.eye(
        len(seen), dtype=torch.bool, device=ids.device
    )  # padding sees itself
    place = torch.full((each, length), start - 1, device=ids.device)
    place[:, 1:] = start + torch.arange(each * (length - 1), device=ids.device).view(each, length - 1)
    after = (mask.sum(1, keepdim=True) + at) * named[..., :-1].reshape(rows, -1)  # padding needs no position of its own
    node = None if table is None else nodes_above(table, names, named)
    return {
        "input_ids": ids, "attention_mask": additive(visible, dtype), "position_ids": torch.cat([positions(mask), after], 1),
        "scored": Scored(place.expand(rows, -1, -1), names, node, table, temperature),
    }  # fmt: skip


def nodes_above(table: Table, names: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """The node that each token of some names stands below, (..., C); the root where nothing is named."""
    node = torch.zeros(names.shape[:-1], dtype=torch.long, device=names.device)
    columns = []
    for level in range(names.shape[-1]):
        columns.append(node)
        start, count = table.span(node)
        code = torch.searchsorted(table.tokens[level], names[..., level].contiguous())
        low, high = start, start + count
        for _ in range(int(table.trie.fan_out[level]).bit_length()):  # children stand in the order of their codes
            middle = (low + high) // 2
            right = table.codes[middle.clamp(max=len(table.codes) - 1)].long() < code
            low, high = torch.where(right & (low < high), middle + 1, low), torch.where(right, high, middle)
        node = torch.where(named[..., level].bool(), low, torch.zeros_like(node))
    return torch.stack(columns, -1)


def _group_output(hidden: torch.Tensor, scored: Scored, head: Any, config: Any) -> GroupOutput:
    rows, each, length = scored.names.shape
    columns = []
    for level in range(length):
        # Before the first token all names of a group stand at the same place: it is scored once.
        some = 1 if level == 0 else each
        place = scored.place[:, :some, level, None].expand(-1, -1, hidden.shape[2])
        states = hidden.gather(1, place).flatten(0, 1)
        names = scored.names[..., level].reshape(len(states), -1)
        node = None if scored.node is None else scored.node[:, :some, level].flatten()
        columns.append(_scores(states, names, node, level, scored, head, config))
    log_probs, entropy = (
        torch.stack([c.view(rows, each) for c in column], -1) for column in zip(*columns, strict=True)
    )
    return GroupOutput(log_probs, entropy)


def _scores(
    states: torch.Tensor, names: torch.Tensor, node: torch.Tensor | None, level: int, scored: Scored, head: Any, config: Any
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Log-probabilities of `names` (N, M) after `states` (N, width) and entropies there, in pieces that are made again in the backward pass."""
    size = max(1, PIECE // int(head.weight.shape[0]))
    again = len(states) > size and torch.is_grad_enabled()
    pieces = []
    for at in range(0, len(states), size):
        some = slice(at, at + size)
        given = (
            states[some], names[some], None if node is None else node[some], level, scored.table, head, scored.temperature,
            *scale_and_cap(config, seq2seq=False),
        )  # fmt: skip
        pieces.append(checkpoint(_piece, *given, use_reentrant=False) if again else _piece(*given))
    log_probs, entropy = (torch.cat(column) for column in zip(*pieces, strict=True))
    return log_probs, entropy


def _piece(
    states: torch.Tensor, names: torch.Tensor, node: torch.Tensor | None, level: int, table: Table | None, head: Any, temperature: float,
    scale: float, cap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    logits = head(states).float() * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logits = logits / temperature
    if node is None or table is None:
        every, labels = logits.log_softmax(-1), names
    else:
        start, count = table.span(node)
        wide = torch.arange(max(1, int(count.max())), device=node.device)
        code = table.codes[(start[:, None] + wide).clamp(max=len(table.codes) - 1)].long()
        tokens = table.tokens[level][code.clamp(max=len(table.tokens[level]) - 1)]
        there = wide < count[:, None]
        every = logits.gather(1, tokens).masked_fill(~there, torch.finfo(torch.float32).min).log_softmax(-1)
        wanted = torch.searchsorted(table.tokens[level], names.contiguous())
        labels = torch.searchsorted(code.masked_fill(~there, torch.iinfo(torch.long).max), wanted).clamp(
            max=len(wide) - 1
        )
    entropy = -(every.exp() * every).sum(-1, keepdim=True)
    return every.gather(1, labels), entropy.expand(-1, names.shape[1])
