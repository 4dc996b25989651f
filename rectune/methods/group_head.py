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
    """Where the hidden states of a forward pass lead to: `place` (P, G, C), the position that says each token; `follow` (P, G, C, F), the token
    ids that may stand there, -1 for none, or None for the whole vocabulary."""

    place: torch.Tensor
    names: torch.Tensor
    follow: torch.Tensor | None
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
    after = mask.sum(1, keepdim=True) + at
    return {
        "input_ids": ids, "attention_mask": additive(visible, dtype), "position_ids": torch.cat([positions(mask), after], 1),
        "scored": Scored(place.expand(rows, -1, -1), names, None if table is None else following(table, names, named), temperature),
    }  # fmt: skip


def following(table: Table, names: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """Token ids that the trie allows at each place of some names, (..., C, F), -1 for none."""
    node = torch.zeros(names.shape[:-1], dtype=torch.long, device=names.device)
    columns = []
    for level in range(names.shape[-1]):
        start, count = table.span(node)
        wide = table.trie.fan_out[level]
        child = start[..., None] + torch.arange(wide, device=names.device)
        code = table.codes[child.clamp(max=len(table.codes) - 1)].long()
        tokens = table.tokens[level][code.clamp(max=len(table.tokens[level]) - 1)]
        there = (torch.arange(wide, device=names.device) < count[..., None]) & named[..., level, None].bool()
        tokens = tokens.masked_fill(~there, -1)
        node = torch.where(named[..., level].bool(), start + (tokens == names[..., level, None]).int().argmax(-1), node)
        columns.append(tokens)
    widest = max(column.shape[-1] for column in columns)
    return torch.stack([torch.nn.functional.pad(c, (0, widest - c.shape[-1]), value=-1) for c in columns], -2)


def _group_output(hidden: torch.Tensor, scored: Scored, head: Any, config: Any) -> GroupOutput:
    rows, each, length = scored.names.shape
    states = hidden.gather(1, scored.place.reshape(rows, -1, 1).expand(-1, -1, hidden.shape[2])).flatten(0, 1)
    names = scored.names.reshape(-1)
    follow = None if scored.follow is None else scored.follow.reshape(len(names), -1)
    size = max(1, PIECE // int(head.weight.shape[0]))
    again = len(names) > size and torch.is_grad_enabled()
    pieces = []
    for at in range(0, len(names), size):
        given = (
            states[at : at + size], names[at : at + size], None if follow is None else follow[at : at + size], head,
            scored.temperature, *scale_and_cap(config, seq2seq=False),
        )  # fmt: skip
        pieces.append(checkpoint(_piece, *given, use_reentrant=False) if again else _piece(*given))
    log_probs, entropy = (torch.cat(column).view(rows, each, length) for column in zip(*pieces, strict=True))
    return GroupOutput(log_probs, entropy)


def _piece(
    states: torch.Tensor, names: torch.Tensor, follow: torch.Tensor | None, head: Any, temperature: float, scale: float, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    logits = head(states).float() * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    logits = logits / temperature
    if follow is None:
        labels = names
    else:
        logits = logits.gather(1, follow.clamp(min=0)).masked_fill(follow < 0, torch.finfo(torch.float32).min)
        labels = (follow == names[:, None]).int().argmax(1)
    every = logits.log_softmax(-1)
    return every.gather(1, labels[:, None])[:, 0], -(every.exp() * every).sum(-1)
