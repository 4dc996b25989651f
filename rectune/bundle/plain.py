"""An exported folder used with transformers alone: the code that its README shows, taken from here word for word."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

Item = dict[str, Any]


def load(folder: Path) -> SimpleNamespace:
    """What an exported folder holds: `about`, `items` by their id, `template`, `tokenizer`, `model`."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(folder, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return SimpleNamespace(**read(folder), model=model, tokenizer=tokenizer)


def read(folder: Path) -> dict[str, Any]:
    """The files that are not transformers' own."""
    items = map(json.loads, (folder / "items.jsonl").read_text(encoding="utf-8").strip().split("\n"))
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return {
        "about": json.loads((folder / "rectune.json").read_text(encoding="utf-8")),
        "items": {item["item_id"]: item for item in items},
        "template": jinja.from_string((folder / "template.jinja").read_text(encoding="utf-8")).module,
    }


def prompt_ids(it: SimpleNamespace, history: list[Item], target: Item | None = None) -> list[int]:
    """Token ids of a prompt: the whole text at once. In plain form the tokenizer's beginning stands before it."""
    prompt = it.about["prompt"]
    history = history[-prompt["max_history"] :]
    given = {"history": history, "target": target, "user": ""}
    wanted = {name: given.get(name, "") for name in it.template.prompt.arguments if name != "wording"}
    text = it.template.prompt(it.about["rank"]["wording"], **wanted).rstrip()
    chat = prompt["form"] == "chat"
    text = prompt["before"] * chat + text + prompt["between"]
    begins = [it.tokenizer.convert_tokens_to_ids(prompt["before"])] if prompt["before"] and not chat else []
    flat: list[int] = begins + it.tokenizer.encode(text, add_special_tokens=False)
    room = prompt["max_tokens"]
    if room is None or len(flat) <= room or not history:
        return flat
    return prompt_ids(it, history[max(1, int(len(history) * (1 - room / len(flat)) / 2)) :], target)  # oldest go first


@torch.no_grad()
def recommend(it: SimpleNamespace, history: list[str], k: int = 10) -> list[tuple[Item, float]]:
    """The `k` best items after a history of item ids (oldest first) that are not in it, each with its score."""
    names = {tuple(item["tokens"]): item for item in it.items.values() if item["item_id"] not in set(history)}
    following: dict[tuple[int, ...], set[int]] = {}
    for name in names:
        for n, token in enumerate(name):
            following.setdefault(name[:n], set()).add(token)
    ids = prompt_ids(it, [it.items[name] for name in history])
    start = 1 if it.model.config.is_encoder_decoder else len(ids)  # where the answer begins
    settings, nothing = it.model.generation_config, [it.tokenizer.pad_token_id]
    inputs = torch.tensor([ids], device=it.model.device)
    out = it.model.generate(
        input_ids=inputs,
        attention_mask=torch.ones_like(inputs),
        prefix_allowed_tokens_fn=lambda _, row: list(following.get(tuple(row[start:].tolist()), nothing)),
        num_return_sequences=settings.num_beams,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = []
    for row, score in zip(out.sequences[:, start:].tolist(), out.sequences_scores.tolist(), strict=True):
        name = tuple(row[: row.index(settings.eos_token_id) + 1] if settings.eos_token_id in row else row)
        if score > -1e8 and name in names:  # a beam that found no item scores -1e9
            found.append((names[name], score))
    return found[:k]


@torch.no_grad()
def chance_of_yes(it: SimpleNamespace, history: list[tuple[str, bool]], target: str) -> float:
    """The probability of Yes for a target after a history of (item id, whether it was liked), oldest first."""
    prompt = prompt_ids(it, [{**it.items[name], "liked": liked} for name, liked in history], it.items[target])
    scores = []
    for answer in (found["tokens"] for found in it.about["answers"]):
        whole = {"input_ids": [prompt + answer]}
        if it.model.config.is_encoder_decoder:
            whole = {
                "input_ids": [prompt],
                "decoder_input_ids": [[it.model.config.decoder_start_token_id, *answer]],
            }
        logits = it.model(**{name: torch.tensor(ids, device=it.model.device) for name, ids in whole.items()}).logits[0]
        chosen = torch.tensor(answer, device=it.model.device)[:, None]
        scores.append(logits[-len(answer) - 1 : -1].double().log_softmax(-1).gather(1, chosen).sum())
    return float(torch.stack(scores).softmax(0)[-1])
