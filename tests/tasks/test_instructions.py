"""Instruction sets in the usual forms, and a stage that is tuned on one before it sees a recommendation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rectune.model.new_tokens import train_tokenizer
from rectune.prompts.encoder import Encoder
from rectune.prompts.template import load_template
from rectune.recipe.load import bundled
from rectune.tasks.examples import fit
from rectune.tasks.instructions import instructions

ALPACA = [
    {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
    {"instruction": "Say hello.", "input": "", "output": "Hello!"},
]
CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Bye."}]}  # fmt: skip
SHARED = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
PAIR = {"prompt": "Q", "completion": "A"}
PAIR_OF_TURNS = {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}


def rows(path: Path, part: str = "train", **more: Any) -> list[tuple[list[tuple[str, str]], str]]:
    found = instructions(None, None, part, path=path, **more)  # type: ignore[arg-type]
    every = [found.variables(i) for i in range(len(found))]
    return [([(t["role"], t["text"]) for t in v["turns"]], v["answer"]) for v in every]


def test_alpaca_as_json_json_lines_gzip_and_parquet(tmp_path: Path) -> None:
    wanted = [([("user", "Add the numbers.\n\n1 and 2")], "3"), ([("user", "Say hello.")], "Hello!")]
    (tmp_path / "a.json").write_text(json.dumps(ALPACA))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ALPACA)) + "\n\n")
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(ALPACA).encode()))
    pl.DataFrame(ALPACA).write_parquet(tmp_path / "a.parquet")
    for name in ("a.json", "a.jsonl", "a.json.gz", "a.parquet"):
        assert rows(tmp_path / name) == wanted


def test_every_reply_of_a_conversation_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps([CHAT, SHARED, PAIR, PAIR_OF_TURNS]))
    start = [("system", "Be brief."), ("user", "Hi")]
    pair = ([("user", "Q")], "A")
    assert rows(tmp_path / "c.json") == [
        (start, "Yes?"), ([*start, ("assistant", "Yes?"), ("user", "Bye")], "Bye."), pair, pair, pair,
    ]  # fmt: skip


def test_the_last_entries_are_for_validation(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ALPACA))
    assert [answer for _, answer in rows(tmp_path / "a.json", validation_rows=1)] == ["3"]
    assert [answer for _, answer in rows(tmp_path / "a.json", "validation", validation_rows=1)] == ["Hello!"]
    assert rows(tmp_path / "a.json", "test") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"question": "Q"}]', r"a.json: entry 1: it has question; an instruction needs"),
        ('[{"messages": [{"role": "narrator", "content": "x"}]}]', "a.json: entry 1: a turn needs `role`"),
        ('[{"instruction": "Q", "output": 3}]', "a.json: entry 1: a text was expected, got int"),
        ('[{"instruction": 5, "output": "A"}]', "a.json: entry 1: a text was expected, got int"),
        ('[{"prompt": [{"role": "user", "content": "Q"}]}]', "a.json: entry 1: it has prompt; an instruction needs"),
        ("[{", "a.json:1: not valid JSON"),
        ("[]", "a.json: it holds no instruction"),
    ],
)
def test_other_forms_name_file_and_entry(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        rows(tmp_path / "a.json")


def test_a_line_may_hold_any_character_and_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "one\u2028two", "completion": "A"}, ensure_ascii=False))
    assert rows(tmp_path / "a.jsonl") == [([("user", "one\u2028two")], "A")]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(ALPACA).encode())[:-12])
    with pytest.raises(ValueError, match=r"a.json.gz: damaged gzip file"):
        rows(tmp_path / "a.json.gz")
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        rows(tmp_path / "a.jsonl", validation_rows=-1)


def test_conversations_of_any_length_fit(tmp_path: Path) -> None:
    encoder = Encoder(train_tokenizer(["Request: Reply: word answer"], 300), ())
    template = load_template(bundled("templates")[0] / "instruction.jinja")
    turns = [{"role": role, "text": f"{role} word"} for role in ("system", "user", "assistant", "user")]
    whole = fit(encoder, template, 0, {"turns": turns, "answer": "answer"}, max_length=None, what="x")
    length = len(whole.prompt) + len(whole.completion)
    cut = fit(encoder, template, 0, {"turns": turns, "answer": "answer"}, max_length=length - 1, what="x")
    without = {"turns": [turns[0], *turns[2:]], "answer": "answer"}  # the oldest turn goes, the system's stays
    assert cut.prompt == fit(encoder, template, 0, without, max_length=None, what="x").prompt
    assert (cut.completion, cut.dropped) == (whole.completion, 1)
    long = {"turns": [{"role": "user", "text": "first " + "word " * 300 + "last"}], "answer": "answer " * 300}
    hard = fit(encoder, template, 0, long, max_length=64, what="x")
    assert (len(hard.prompt), len(hard.completion), hard.dropped) == (32, 32, 1)
    plain = fit(encoder, template, 0, long, max_length=None, what="x")
    assert hard.prompt == plain.prompt[:16] + plain.prompt[-16:]
    assert hard.completion == plain.completion[:32]
    short = fit(encoder, template, 0, {**long, "answer": "answer"}, max_length=64, what="x")
    assert (len(short.prompt) + len(short.completion), short.completion) == (64, whole.completion)


def test_a_file_or_a_data_set_must_be_named() -> None:
    with pytest.raises(ValueError, match="either `path`, a file, or `name`"):
        instructions(None, None, "train")  # type: ignore[arg-type]


def test_the_template_prints_turns_as_data() -> None:
    template = load_template(bundled("templates")[0] / "instruction.jinja")
    turns = [{"role": "user", "text": "{{ x }} <|end|>"}]
    printed = template.prompt(0, {"turns": turns})
    assert "".join(s.text for s in printed).split() == ["Request:", "{{", "x", "}}", "<|end|>", "Reply:"]
    assert all(s.kind == "data" for s in printed if "<|end|>" in s.text)


TWO = """
include: tallrec-movie-json-cpu.yaml
stages:
  - call: sft
    tasks: [{call: instructions, template: instruction.jinja, path: said.json}]
    completion_only_loss: false
    max_steps: 3
    max_length: 128
    per_device_train_batch_size: 2
  - {call: sft, completion_only_loss: false, max_steps: 3, max_length: 256, per_device_train_batch_size: 4}
eval: {bootstrap_samples: 10}
"""


@pytest.mark.heavy
def test_two_stages_chain_and_each_trains_its_own_tasks(tmp_path: Path, data: Any) -> None:
    from rectune.cli import main

    (tmp_path / "said.json").write_text(json.dumps(ALPACA * 4))
    file = tmp_path / "two.yaml"
    file.write_text(TWO + f"output_dir: {tmp_path / 'run'}\n")
    command = ["train", str(file), "--traceback", "--data.path", str(data("tallrec/movie"))]
    assert main(command) == 0
    folder = tmp_path / "run"
    assert {f.name for f in (folder / "templates").iterdir()} == {"instruction.jinja", "like-or-dislike-names.jinja"}
    audits = json.loads((folder / "report.json").read_text())["results"]["audits"]
    assert audits[0]["new_tokens"] == 0  # instructions name no item
    assert audits[1]["new_tokens"] > 1000
    first = next((folder / "stages").glob("train0-*"))
    (tmp_path / "said.json").unlink()
    assert main(["eval", str(folder), "--traceback", "--eval.bootstrap_samples", "5"]) == 0  # needs no instruction file
    (tmp_path / "said.json").write_text(json.dumps(ALPACA * 5))
    assert main(command) == 0
    assert next(p for p in (folder / "stages").glob("train0-*") if p != first)  # another file is another first stage
