"""What cannot be a base is told in one line, before anything is built or loaded; no code of a checkpoint is ever run or asked about."""

from __future__ import annotations

import ast
import builtins
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rectune.cli import main
from rectune.model.adapters import with_adapter
from rectune.model.before import check_base
from rectune.model.load import build_base, load_base, load_tokenizer
from rectune.model.new_tokens import new_token_ids
from rectune.runtime.checkpoints import check_checkpoint, check_modules
from tests.model.test_model import settings_of
from tests.model.test_new_tokens import INDEX
from tests.prompts.families import unigram

BOMB = "raise SystemExit('code of a checkpoint was run')\n"


@pytest.fixture(autouse=True)
def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks the user fails the test."""

    def asked(*args: Any) -> str:
        raise AssertionError(f"the user was asked: {args}")

    monkeypatch.setattr(builtins, "input", asked)


def edit(folder: Path, file: str, **fields: Any) -> None:
    held = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({k: v for k, v in {**held, **fields}.items() if v is not None}))


def gguf(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "model.Q4_1.gguf").write_bytes(b"GGUF")


def custom_model(folder: Path) -> None:
    edit(
        folder,
        "config.json",
        model_type="mine",
        auto_map={"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"},
    )


def custom_model_elsewhere(folder: Path) -> None:
    edit(folder, "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "other/repository--mine.MyModel"})


def custom_tokenizer(folder: Path) -> None:
    edit(
        folder,
        "tokenizer_config.json",
        tokenizer_class="MyTokenizer",
        auto_map={"AutoTokenizer": ["mine.MyTokenizer", None]},
    )


def custom_tokenizer_in_the_old_form(folder: Path) -> None:
    edit(
        folder,
        "tokenizer_config.json",
        tokenizer_class="MyTokenizer",
        auto_map=["mine.MyTokenizer", "mine.MyTokenizerFast"],
    )


def custom_tokenizer_in_the_config(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", tokenizer_class="MyTokenizer")
    edit(folder, "config.json", auto_map={"AutoTokenizer": ["mine.MyTokenizer", None]})


CODE: dict[Callable[[Path], None], str] = {
    custom_model: "config.json names `mine.MyConfig`",
    custom_model_elsewhere: "config.json names `other/repository--mine.MyModel`",
    custom_tokenizer: "tokenizer_config.json names `mine.MyTokenizer`",
    custom_tokenizer_in_the_old_form: "tokenizer_config.json names `mine.MyTokenizer`",
    custom_tokenizer_in_the_config: "config.json names `mine.MyTokenizer`",
}


def changed(checkpoints: dict[str, Path], tmp_path: Path, change: Callable[[Path], None]) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoints["tied"], folder)
    (folder / "mine.py").write_text(BOMB)
    change(folder)
    return folder


@pytest.mark.filterwarnings(
    "ignore:.*transformers' own class is used"
)  # the model's own, where only the tokenizer needs code
@pytest.mark.parametrize("change", CODE)
def test_code_of_a_checkpoint_is_refused_on_every_way_in(
    checkpoints: dict[str, Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    from rectune.planning.model import base_config
    from rectune.tasks.writers.causal_model import _load_tokenizer
    from rectune.vectors.hidden_states import _pooled

    folder = changed(checkpoints, tmp_path, change)
    settings, of_model = settings_of(folder, use_peft=False), change in (custom_model, custom_model_elsewhere)
    ways: list[Callable[[], Any]] = [
        lambda: check_base(settings),
        lambda: build_base(settings, INDEX, [], tmp_path / "base", seed=0),
        lambda: _load_tokenizer(str(folder)),
        lambda: _pooled(str(folder), -1, "mean", 16, "auto", 2, "cpu"),
    ]
    if of_model:
        (tmp_path / "ready").mkdir()
        build_base(settings_of(checkpoints["tied"]), INDEX, [], tmp_path / "ready", seed=0)
        ways += [
            lambda: base_config(settings, vocabulary=None),
            lambda: load_base(settings, tmp_path / "ready", INDEX, seed=0),
        ]
    for way in ways:
        with pytest.raises(ValueError, match="rectune runs no code that comes with a checkpoint") as refused:
            way()
        assert CODE[change] in str(refused.value)
        assert str(folder) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_code_that_transformers_does_not_need_is_told_once_and_not_run(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    def native(folder: Path) -> None:
        edit(folder, "config.json", auto_map={"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"})

    folder, base = changed(checkpoints, tmp_path, native), tmp_path / "base"
    base.mkdir()
    settings = settings_of(folder, use_peft=False)
    with pytest.warns(UserWarning, match=r"config.json of .* names code of its own \(`mine.MyConfig`\); it is not run"):
        build_base(settings, INDEX, [], base, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert type(load_base(settings, base, INDEX, seed=0)).__name__ == "Qwen3ForCausalLM"


@pytest.mark.parametrize(
    ("modules", "config"),
    [
        ([{"idx": 0, "name": "0", "path": "", "type": "mine.MyModule"}], {}),
        ([{"idx": 0, "name": "0", "path": "0_T", "type": "sentence_transformers.models.Transformer"}], {"model_type": "mine"}),
        ([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}], {"model_type": "mine"}),
    ],
)  # fmt: skip
def test_code_of_a_sentence_transformer_is_refused(
    tmp_path: Path, modules: list[dict[str, Any]], config: dict[str, str]
) -> None:
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "mine.py").write_text(BOMB)
    place = tmp_path / modules[0]["path"]
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.MyModule"}}))
    with pytest.raises(
        ValueError, match=r"`vectors.model`: .* needs Python code of its own \(.*json names `mine.MyModule`"
    ):
        check_modules(str(tmp_path), key="vectors.model")


def adapter(folder: Path) -> None:
    for file in folder.glob("*"):
        file.unlink()
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="Qwen/Qwen3-0.6B")


def adapter_beside_weights(folder: Path) -> None:
    edit(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path="Qwen/Qwen3-0.6B")


def shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    edit(folder, "model.safetensors.index.json", metadata={}, weight_map=shards)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_its_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def half_a_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qw')


NO_BASE: dict[Callable[[Path], None], str] = {
    adapter: "holds an adapter (adapter_config.json), not a base. Name its base, `Qwen/Qwen3-0.6B`",
    adapter_beside_weights: "holds an adapter (adapter_config.json), not a base",
    shard_missing: "lacks 1 of the 2 files that model.safetensors.index.json names (model-00002-of-00002.safetensors)",
    no_weights: "no weights could be loaded from",
    cut_short: "is cut short",
    cut_in_its_header: "is cut short",
    empty: "is cut short",
    pointer: "is a Git LFS pointer",
    half_a_config: "config.json is no JSON",
    gguf: "is GGUF, rounded weights for inference, which cannot be tuned. Name the model that it was made from",
}


@pytest.mark.parametrize("change", NO_BASE)
def test_what_is_no_whole_base_is_one_line_before_anything_is_built(
    checkpoints: dict[str, Path], tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
) -> None:  # fmt: skip
    folder = changed(checkpoints, tmp_path, change)
    keys = ["--model.from_scratch", "null", "--model.model_name_or_path", str(folder)]
    assert main(["train", str(quick_recipe), *keys]) == 1
    said = capsys.readouterr().err
    assert NO_BASE[change] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "stages").exists()


def test_a_gguf_file_is_no_base(tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.Q4_1.gguf").write_bytes(b"GGUF")
    keys = ["--model.from_scratch", "null", "--model.model_name_or_path", str(tmp_path / "model.Q4_1.gguf")]
    assert main(["train", str(quick_recipe), *keys]) == 1
    said = capsys.readouterr().err
    assert "model.Q4_1.gguf` is GGUF" in said
    assert said.count("\n") == 1


def test_a_gpu_without_bfloat16_is_refused_and_a_cpu_told_of(
    checkpoints: dict[str, Path], tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    base = ["--model.from_scratch", "null", "--model.model_name_or_path", str(checkpoints["tied"])]
    keys = [*base, "--model.dtype", "bfloat16", "--stages.0.max_steps", "1"]
    monkeypatch.setattr("rectune.run.start.has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="this CPU has no instructions for bfloat16"):
        assert main(["train", str(quick_recipe), *keys, "--model.device", "cpu"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert (
        main(["train", str(quick_recipe), *keys, "--model.device", "cuda", "--output_dir", str(tmp_path / "gpu")]) == 1
    )
    said = capsys.readouterr().err
    assert "Tesla T4 has no bfloat16. Use float32, or float16" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "gpu").exists()


def test_whole_checkpoints_are_no_mistake(checkpoints: dict[str, Path]) -> None:
    for folder in checkpoints.values():
        check_checkpoint(str(folder), key="model.model_name_or_path")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lora_target_modules": ["q_proj", "lm_head"]}, "`model.lora_target_modules`: `lm_head` is the embedding matrix or the head"),
        ({"lora_target_modules": ["embed_tokens", "v_proj"]}, "`model.lora_target_modules`: `embed_tokens` is the embedding"),
        ({"lora_target_modules": "lm_head"}, "`model.lora_target_modules`: `lm_head` is the embedding matrix or the head"),
        ({"lora_target_modules": r".*(q_proj|lm_head)"}, "`model.lora_target_modules`: `lm_head` is the embedding matrix"),
        ({"lora_target_modules": ["q_prj", "v_proj"]}, "`model.lora_target_modules`: the base has no module `q_prj`. Did you mean `q_proj`"),
        ({"lora_modules_to_save": ["lm_head"]}, "`model.lora_modules_to_save`: `lm_head` is the embedding matrix or the head"),
        ({"lora_modules_to_save": ["norm", "embed_tokens"]}, "`model.lora_modules_to_save`: `embed_tokens` is the embedding"),
        ({"lora_modules_to_save": ["score"]}, "`model.lora_modules_to_save`: the base has no module `score`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["tied", "untied"])
def test_what_an_adapter_cannot_hold_is_refused_before_training(
    checkpoints: dict[str, Path], which: str, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError) as refused:
        check_base(settings_of(checkpoints[which], **fields))
    assert said in str(refused.value)


@pytest.mark.parametrize("which", ["tied", "untied"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"lora_target_modules": "q_proj"}, {"lora_target_modules": ["q_proj", "v_proj"]}, {"lora_modules_to_save": ["norm"]}],
)  # fmt: skip
def test_what_an_adapter_can_hold_is_not_refused(
    checkpoints: dict[str, Path], tmp_path: Path, which: str, fields: dict[str, Any]
) -> None:
    settings = settings_of(checkpoints[which], dtype="float32", **fields)
    assert check_base(settings).model_type == "qwen3"
    build_base(settings, INDEX, [], tmp_path, seed=0)
    model = with_adapter(
        load_base(settings, tmp_path, INDEX, seed=0), settings, new_token_ids(load_tokenizer(tmp_path), INDEX), seed=0
    )
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert any("trainable_tokens" in name for name in trained)


def test_a_t5_under_sft_and_a_decoder_under_seq2seq_are_refused_at_once(
    checkpoints: dict[str, Path], tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = unigram(old=False)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    capsys.readouterr()  # a bar of the library, where no run before has silenced it
    decoder = tmp_path / "decoder.yaml"
    decoder.write_text(
        "include: quickstart.yaml\ntasks: [{call: next_item, template: next-item-names.jinja}]\n"
        f"stages: [{{call: seq2seq, max_steps: 2}}]\noutput_dir: {tmp_path / 'run'}\n"
    )
    for recipe, base, said in (
        (quick_recipe, tmp_path / "t5", "the base is a `t5`, an encoder-decoder. Use `call: seq2seq`"),
        (decoder, checkpoints["tied"], "the model is a `qwen3`. Use `sft`"),
        (decoder, None, "the model is a `qwen3`. Use `sft`"),
    ):
        keys = ["--model.from_scratch", "null", "--model.model_name_or_path", str(base)] if base else []
        assert main(["train", str(recipe), *keys]) == 1
        err = capsys.readouterr().err
        assert said in err
        assert "`stages.0.call`" in err
        assert err.count("\n") == 1
        assert not (tmp_path / "run" / "stages").exists()


def test_a_byt5_is_refused_at_once(
    checkpoints: dict[str, Path], tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def byt5(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        edit(folder, "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")

    keys = ["--model.from_scratch", "null", "--model.model_name_or_path", str(changed(checkpoints, tmp_path, byt5))]
    assert main(["train", str(quick_recipe), *keys]) == 1
    said = capsys.readouterr().err
    assert "its tokenizer is a `ByT5Tokenizer`, which has no `tokenizer.json`" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "stages").exists()


def test_every_loading_says_that_no_code_is_trusted() -> None:
    root, found = Path(__file__).parents[2], []
    for file in sorted((root / "rectune").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute | ast.Name):
                continue
            name = ast.unparse(call.func)
            if (
                name.endswith("from_pretrained") and not name.startswith(("PeftModel", "Recommender"))
            ) or name == "SentenceTransformer":
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert said.get("trust_remote_code") == "False", f"{file.name}:{call.lineno}"
                found.append(name)
    assert len(found) >= 12


@pytest.mark.parametrize(
    "wrong",
    ["hidden_size=-32", "hidden_size=many", "num_attention_heads=0", "num_hidden_layers=[2]", "intermediate_size=1.5"],
)
def test_a_model_that_cannot_be_made_is_one_line_before_anything_is_built(
    tmp_path: Path, quick_recipe: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    key, value = wrong.split("=")
    assert main(["train", str(quick_recipe), f"--model.from_scratch.{key}", value]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: `model.from_scratch")
    assert said.count("\n") == 1
    assert not (tmp_path / "run" / "stages").exists()
