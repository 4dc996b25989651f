"""Blocks of reasoning that a chat template leaves open at the end of a prompt."""

from __future__ import annotations

import re

# `<think>`, `<seed:think>`, `<reasoning>`; `[THINK]`; `<|begin_of_thought|>`; `<|START_THINKING|>`; `<|think|>`
_WORD = r"[\w:]*(?:think|thought|reason)[\w:]*"
_OPENED = re.compile(rf"<(?P<tag>{_WORD})>|\[(?P<square>{_WORD})\]|<\|(?P<bar>{_WORD})\|>", re.IGNORECASE)
_PAIRS = (("begin_of_", "end_of_"), ("START_", "END_"), ("start_", "end_"), ("begin_", "end_"))


def close_thinking(text: str) -> tuple[str, str]:
    """Close the last block of reasoning in `text` where it is open, with nothing in it; returns the text and what was added.

    What is added makes `<think>\\n\\n</think>\\n\\n` of it, as the templates that close theirs write it. Raises ValueError for a
    block of which it is not known how it ends.
    """
    opened = [match for match in _OPENED.finditer(text) if not _closes(match)]
    if not opened:
        return text, ""
    last = opened[-1]
    end = _end_of(last)
    if end and end in text[last.end() :]:
        return text, ""
    said = text[last.end() :].strip()
    if end == "" or said:
        inside = f" with {said[:40]!r} in it" if said else ""
        raise ValueError(
            f"the chat template ends a prompt inside an open `{last.group()}` block{inside}, and it is not known how to close it. Use "
            "`model.prompt_form: plain`, or a template that closes it."
        )
    added = "\n" * max(0, 2 - text[last.end() :].count("\n")) + end + "\n\n"
    return text + added, added


def _closes(match: re.Match[str]) -> bool:
    return (match["bar"] or "").lower().startswith("end_")


def _end_of(match: re.Match[str]) -> str:
    """The tag that closes a tag, or "" where it is not known."""
    if match["tag"]:
        return f"</{match['tag']}>"
    if match["square"]:
        return f"[/{match['square']}]"
    for begins, ends in _PAIRS:
        if match["bar"].startswith(begins):
            return f"<|{ends}{match['bar'].removeprefix(begins)}|>"
    return ""
