"""Small tokenizers built like those of public model families: `FAMILIES[name]()`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Items so far: small blue kettle, red lamp, tall vase. Which comes next? Yes. No. Liked Disliked",
    "A reader liked The Salt Orchard and Moth (1995). user assistant model <think> [INST] naïve café 12345 67",
] * 30
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
TURNS = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)


def _wrapped(raw: Tokenizer, template: str | None = None, **special: str) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=raw, **special)
    made.chat_template = template
    return made


def byte_level(pattern: str | None, special: list[str], *, words: bool = False, bos: str | None = None) -> Tokenizer:
    """Byte-level BPE. `words`: whole words of the vocabulary are taken as they are (`ignore_merges`)."""
    raw = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    raw.pre_tokenizer = level
    if pattern is not None:
        raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior="isolated"), level])
        raw.normalizer = normalizers.NFC()
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    if words:
        state = json.loads(raw.to_str())
        state["model"]["ignore_merges"] = True
        raw = Tokenizer.from_str(json.dumps(state))
    raw.add_special_tokens(special)
    raw.add_tokens(["<think>", "</think>"])
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    return raw


@cache
def _learnt() -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a SentencePiece BPE, bytes first."""
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    )
    model = json.loads(raw.to_str())["model"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    pieces = dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, *sorted(model["vocab"], key=model["vocab"].get)])
    return list(pieces), [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]


def sentencepiece(scheme: str, *, more: tuple[str, ...] = (), bos: bool = True) -> Tokenizer:
    """SentencePiece BPE with byte fallback. `scheme`: `legacy` (a normaliser puts a blank before every piece of text), `first` (only
    before the first one) or `never`."""
    pieces, merges = _learnt()
    names = [*pieces, *more]
    raw = Tokenizer(
        models.BPE(
            vocab={name: i for i, name in enumerate(names)}, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
        )
    )  # fmt: skip
    if scheme == "legacy":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "first":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        raw.normalizer = normalizers.Replace(" ", "▁")
    blank = [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *blank])
    if bos:
        raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return raw


BPE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def gpt_2() -> Any:
    return _wrapped(byte_level(None, ["<|endoftext|>"]), bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def qwen() -> Any:
    raw = byte_level(QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return _wrapped(raw, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama_3() -> Any:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    raw = byte_level(LLAMA_3, special, words=True, bos="<|begin_of_text|>")
    return _wrapped(raw, HEADERS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def llama_2() -> Any:
    return _wrapped(sentencepiece("legacy"), INST, **BPE)


def mistral() -> Any:
    raw = sentencepiece("first", more=("[INST]", "[/INST]"))
    raw.add_special_tokens(["[INST]", "[/INST]"])
    return _wrapped(raw, INST.replace("{{ m.content }} {{ eos", "{{ m.content }}{{ eos"), **BPE)


def gemma() -> Any:
    blanks = ("\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁")
    raw = sentencepiece("never", more=(*blanks, "<start_of_turn>", "<end_of_turn>", "<h1>"))
    raw.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    raw.add_tokens([AddedToken(text, normalized=False) for text in (*blanks, "<h1>")])
    return _wrapped(raw, TURNS, **BPE)


def phi_3() -> Any:
    raw = sentencepiece("legacy", more=("<|user|>", "<|assistant|>", "<|end|>"), bos=False)
    raw.add_special_tokens([AddedToken(text, rstrip=True) for text in ("<|user|>", "<|assistant|>", "<|end|>")])
    return _wrapped(raw, PHI, **BPE)


def phi_2() -> Any:
    raw = byte_level(None, ["<|endoftext|>"])
    raw.add_tokens([AddedToken(" " * length, normalized=True) for length in range(8, 1, -1)])
    return _wrapped(raw, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def unigram(*, old: bool) -> Any:
    """T5's. `old`: white space is cut before the blanks are put, as in the first conversions."""
    raw = Tokenizer(models.Unigram())
    meta = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    raw.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta]) if old else meta
    raw.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    raw.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=110, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return _wrapped(raw, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def from_scratch() -> Any:
    from rectune.model.new_tokens import train_tokenizer

    return train_tokenizer(TEXTS, 420)


FAMILIES: dict[str, Callable[[], Any]] = {
    "made from scratch by a recipe": from_scratch,
    "byte-level BPE, GPT-2": gpt_2,
    "byte-level BPE, Phi-2 (runs of blanks are tokens)": phi_2,
    "byte-level BPE, Qwen": qwen,
    "byte-level BPE, Llama 3 (whole words first)": llama_3,
    "SentencePiece BPE, Llama 2 (a blank before every piece)": llama_2,
    "SentencePiece BPE, Mistral (a blank before the first)": mistral,
    "SentencePiece BPE, Gemma (no blank; line ends are tokens)": gemma,
    "SentencePiece BPE, Phi-3 (turns take the white space after them)": phi_3,
    "Unigram, T5": lambda: unigram(old=False),
    "Unigram, T5 as first converted (cut at white space)": lambda: unigram(old=True),
}
