"""Pushing: through huggingface_hub to a Hub on the loopback, and back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rectune import Recommender
from rectune.cli import main
from tests.exports import GPT2, LORA, NAMES, SHOP, SHORT, exported, tune
from tests.hub import TOKEN, Hub, Repository
from tests.test_cli import fails

HISTORIES = [["i3", "i7"], ["i1"], []]
REPO = "anna/tea-shop"


def there(hub: Hub, repo: str = REPO, kind: str = "models") -> Repository:
    return hub.repositories[f"{kind}/{repo}"]


def pushes(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert main(["push", *options, "--traceback"]) == 0
    return capsys.readouterr().out


@pytest.mark.heavy
@pytest.mark.parametrize("form", ["run", "bundle"])
def test_what_is_pushed_is_fetched_and_lists_the_same(
    hub: Hub, shop_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    hub.large = 20_000  # larger files go apart
    source = shop_run if form == "run" else exported(shop_run, "--to", str(tmp_path / "bundle"))
    if form == "bundle":
        (source / "picture.png").write_bytes(b"not sent")
    said = pushes(capsys, str(source), REPO, "--license", "mit")
    repository = there(hub)
    assert repository.private
    (fingerprint,) = repository.tags
    assert f"tag {fingerprint}: {hub.url}/{REPO}" in said
    assert "every file is equal and gives the probe's logits within 0." in said
    assert len(repository.messages) == 2  # the first commit of the repository, and ours
    files = repository.commits[repository.refs["main"]]
    assert {
        "config.json",
        "model.safetensors",
        "manifest.json",
        "prior/ease.npz",
        "index/codes.npy",
        "README.md",
    } <= set(files)
    it = Recommender.from_pretrained(REPO, cache_dir=tmp_path / "fresh")
    lists = it.recommend(HISTORIES, 5)
    ours = Recommender.from_pretrained(shop_run).recommend(HISTORIES, 5)
    assert [[(i.item_id, i.title, i.score, i.proven) for i in row] for row in lists] == [
        [(i.item_id, i.title, i.score, i.proven) for i in row] for row in ours
    ]
    assert {i.commit for row in lists for i in row} == {repository.refs["main"]}
    asked = len(hub.asked)
    again = Recommender.from_pretrained(REPO, cache_dir=tmp_path / "fresh", local_files_only=True)
    assert again.recommend(HISTORIES, 5) == lists
    assert len(hub.asked) == asked
    assert main(["recommend", REPO, "--items", "i3", "--traceback"]) == 0
    # the same again: nothing new but what the Hub makes of it, and the tag stays
    pushes(capsys, str(source), REPO, "--license", "mit")
    assert list(repository.tags) == [fingerprint]


@pytest.mark.heavy
def test_the_card_is_valid_and_shows_nobody(hub: Hub, shop_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub import ModelCard

    pushes(capsys, str(shop_run), REPO, "--license", "cc-by-4.0", "--public")
    assert not there(hub).private
    files = there(hub).commits[there(hub).refs["main"]]
    text = files["README.md"].decode()
    card = ModelCard(text)
    card.validate()
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.tags[:3] == ["rectune", "recommendation", "recommender-system"]
    assert {result.metric_type for result in card.data.eval_results} >= {"recall@5", "ndcg@5"}
    assert f'Recommender.from_pretrained("{REPO}")' in text
    assert "it.recommend(['i0', 'i1', 'i2'])" in text
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ") and "[" in line]
    for row in (
        "popularity",
        "EASE, recency-weighted",
        "prior alone",
        "untuned model",
        "tuned model",
        "tuned model + prior",
    ):
        assert rows.count(row) == 2, row  # both protocols
    assert "rectune is not on the package index yet: install it from a clone of its repository" in text
    assert "Seen items not hidden" in text
    assert "95 % interval" in text
    assert "the prior alone" in text
    assert "prior `prior` with weight 7" in text
    items = [json.loads(line) for line in files["items.jsonl"].decode().splitlines()]
    assert not [item["title"] for item in items if item["title"] in text]
    pushes(capsys, str(shop_run), REPO, "--license", "cc-by-4.0", "--public", "--public-titles")
    text = there(hub).commits[there(hub).refs["main"]]["README.md"].decode()
    assert len([item["title"] for item in items if item["title"] in text]) >= 5


@pytest.mark.heavy
def test_a_dry_run_sends_nothing(hub: Hub, shop_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = pushes(capsys, str(shop_run), REPO, "--license", "mit", "--dry-run")
    assert not hub.asked
    assert f"would push to {REPO} (private), licence mit, tag " in said
    assert "MiB  model.safetensors" in said
    assert "# shop" in said


@pytest.mark.heavy
def test_a_branch_a_pull_request_and_a_card_that_is_kept(
    hub: Hub, shop_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pushes(capsys, str(shop_run), REPO, "--license", "mit", "--revision", "next", "--message", "the second shop")
    repository = there(hub)
    assert set(repository.refs) == {"main", "next"}
    assert repository.messages[-1] == "the second shop"
    assert "model.safetensors" not in repository.commits[repository.refs["main"]]
    assert repository.tags == {next(iter(repository.tags)): repository.refs["next"]}
    said = pushes(capsys, str(shop_run), "anna/other", "--license", "mit", "--create-pr")
    other = there(hub, "anna/other")
    assert f"{hub.url}/anna/other/discussions/1" in said
    assert not other.tags
    assert "model.safetensors" not in other.commits[other.refs["main"]]
    hub.put("anna/kept", {"README.md": b"---\nlicense: mit\n---\nby hand", "stale/file.json": b"{}", "notes.txt": b"ours", "manifest.json": json.dumps(
        {"schema": 1, "files": {"stale/file.json": {"bytes": 2, "sha256": "0"}}}).encode()})  # fmt: skip
    assert "is public already: give --public" in fails(capsys, "push", str(shop_run), "anna/kept", "--license", "mit")
    assert there(hub, "anna/kept").messages == ["first"]
    pushes(capsys, str(shop_run), "anna/kept", "--license", "mit", "--public", "--keep-card")
    files = there(hub, "anna/kept").commits[there(hub, "anna/kept").refs["main"]]
    assert files["README.md"].endswith(b"by hand")
    assert "stale/file.json" not in files  # of the bundle before
    assert files["notes.txt"] == b"ours"
    pushes(capsys, str(shop_run), "anna/kept", "--license", "mit", "--public")
    files = there(hub, "anna/kept").commits[there(hub, "anna/kept").refs["main"]]
    assert b"# shop" in files["README.md"]


@pytest.mark.heavy
def test_what_cannot_be_pushed_is_one_line(
    hub: Hub, shop_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = fails(capsys, "push", str(shop_run), REPO)
    assert "the licence is not known" in error
    assert "--license apache-2.0" in error
    assert "is no name of a repository" in fails(capsys, "push", str(shop_run), "tea shop", "--license", "mit")
    assert "is no licence of the Hub" in fails(capsys, "push", str(shop_run), REPO, "--license", "MIT License")
    assert "neither a finished run folder nor a bundle" in fails(
        capsys, "push", str(tmp_path), REPO, "--license", "mit"
    )
    assert "this run tuned all weights and has no adapter" in fails(
        capsys, "push", str(shop_run), REPO, "--license", "mit", "--adapter-only"
    )
    assert "has no such option" in fails(capsys, "push", str(shop_run), REPO, "--rank.k", "3")
    assert not hub.repositories
    pushes(capsys, str(shop_run), REPO, "--license", "mit")
    repository = there(hub)
    oid = repository.refs["main"]
    manifest = json.loads(repository.commits[oid]["manifest.json"])
    manifest["files"]["items.jsonl"]["sha256"] = "0" * 64
    repository.commits[oid]["manifest.json"] = json.dumps(manifest).encode()
    assert "already, for other files" in fails(capsys, "push", str(shop_run), REPO, "--license", "mit")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "the Hub does not know this token" in fails(capsys, "push", str(shop_run), REPO, "--license", "mit")
    monkeypatch.delenv("HF_TOKEN")
    assert "no token of the Hub was found. Type `hf auth login`" in fails(
        capsys, "push", str(shop_run), REPO, "--license", "mit"
    )
    assert f"the Hub has no repository `{REPO}`, or it is private" in fails(capsys, "recommend", REPO, "--items", "i3")
    assert "no revision" in _raised(lambda: Recommender.from_pretrained(REPO, revision="v9", token=TOKEN))
    assert "is not in the cache" in _raised(lambda: Recommender.from_pretrained("anna/nothing", local_files_only=True))


def _raised(call: Any) -> str:
    with pytest.raises(FileNotFoundError) as error:
        call()
    return str(error.value)


@pytest.mark.heavy
def test_a_hub_that_breaks_off_is_one_line_and_the_same_command_goes_on(
    hub: Hub, shop_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.large = 1000
    hub.fail["/commit/"] = 99
    assert f"the Hub refused `{REPO}`" in fails(capsys, "push", str(shop_run), REPO, "--license", "mit")
    hub.fail.clear()
    sent = len([line for line in hub.asked if line.startswith("PUT")])
    assert sent > 3
    pushes(capsys, str(shop_run), REPO, "--license", "mit")
    again = len([line for line in hub.asked if line.startswith("PUT")]) - sent
    assert again <= 2  # what the Hub held was not sent once more
    assert there(hub).tags


@pytest.mark.heavy
def test_a_push_that_is_killed_is_made_by_the_same_command(
    hub: Hub, shop_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.large = 1000
    bundle = exported(shop_run, "--to", str(tmp_path / "bundle"))
    command = [sys.executable, "-m", "rectune", "push", str(bundle), REPO, "--license", "mit"]
    process = subprocess.Popen(command, env=_elsewhere(hub, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not any(line.startswith("PUT") for line in hub.asked) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert REPO in {name.partition("/")[2] for name in hub.repositories}
    assert pushes(capsys, str(bundle), REPO, "--license", "mit")
    assert Recommender.from_pretrained(REPO).recommend(["i3"])


# ---------------------------------------------------------------------------------------------------------------- a base


@pytest.fixture
def based(hub: Hub, checkpoints: dict[str, Path]) -> str:
    """A base on the Hub, with a licence."""
    files = {file.name: file.read_bytes() for file in checkpoints["tied"].iterdir()}
    hub.put("tiny/base", {**files, "README.md": b"---\nlicense: apache-2.0\n---\n"})
    return "tiny/base"


@pytest.mark.heavy
@pytest.mark.parametrize("bits", [{}, {"load_in_4bit": True}])
def test_an_adapter_alone_lists_what_its_run_lists(
    hub: Hub, based: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], bits: dict[str, Any]
) -> None:
    model = {"model_name_or_path": based, "dtype": "bfloat16" if bits else "float32", **LORA, **bits}
    run = tune(tmp_path, {**SHOP, "model": model})
    pushes(capsys, str(run), REPO, "--adapter-only")
    files = there(hub).commits[there(hub).refs["main"]]
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json"} <= set(files)
    assert "model.safetensors" not in files
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (front["license"], front["base_model"], front["base_model_relation"]) == ("apache-2.0", based, "adapter")

    def lists(it: Recommender) -> list[list[tuple[str, float]]]:
        return [[(item.item_id, item.score) for item in row] for row in it.recommend(HISTORIES, 5)]

    ours = lists(Recommender.from_pretrained(run))
    assert lists(Recommender.from_pretrained(REPO)) == ours
    pushes(capsys, str(run), "anna/merged")
    merged = there(hub, "anna/merged").commits[there(hub, "anna/merged").refs["main"]]
    assert yaml.safe_load(merged["README.md"].decode().split("---")[1])["base_model_relation"] == "finetune"
    if not bits:  # a quantised base and its merged weights are two models
        assert lists(Recommender.from_pretrained("anna/merged")) == ours


@pytest.mark.heavy
def test_a_training_pushes_what_it_made_and_says_before_it_starts_what_would_fail(
    hub: Hub, based: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "shop.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                **SHOP,
                "model": {"model_name_or_path": based, "dtype": "float32", **LORA},
                "output_dir": str(tmp_path / "run"),
            }
        )
    )
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_another")
        assert "does not know this token" in fails(capsys, "train", str(recipe), "--push", REPO)
    hub.put(
        "tiny/base",
        {**there(hub, "tiny/base").commits[there(hub, "tiny/base").refs["main"]], "README.md": b"no front matter"},
    )
    assert "the card of the base `tiny/base` names none" in fails(capsys, "train", str(recipe), "--push", REPO)
    assert "give `--push USER/REPO`, too" in fails(capsys, "train", str(recipe), "--public")
    assert "several runs were asked for" in fails(capsys, "train", str(recipe), "--push", REPO, "--seeds", "0,1")
    assert not (tmp_path / "run").exists()
    assert main(["train", str(recipe), "--push", REPO, "--license", "apache-2.0", "--traceback"]) == 0
    assert "fetched back into a fresh cache: every file is equal" in capsys.readouterr().out
    assert there(hub).tags
    shutil.rmtree(tmp_path / "run")


@pytest.mark.heavy
def test_of_two_processes_one_pushes(hub: Hub, tmp_path: Path) -> None:
    settings = {
        **SHOP, "tasks": [{"call": "next_item", "template": NAMES}], "stages": [{**SHORT, "max_length": 128}], "model": GPT2,
        "rank": {**SHOP["rank"], "template": NAMES}, "output_dir": str(tmp_path / "run"),
    }  # fmt: skip
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        "-m",
        "rectune",
    ]
    command = [*launch, "train", str(tmp_path / "shop.yaml"), "--push", REPO, "--license", "mit"]
    out = subprocess.run(
        command,
        env=_elsewhere(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert out.stdout.count("every file is equal") == 1
    assert len(there(hub).messages) == 2
    assert len(there(hub).tags) == 1


def _elsewhere(hub: Hub, place: Path) -> dict[str, str]:
    """The environment of another process that talks to the Hub."""
    return {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(place / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1", "TMPDIR": str(place),
    }  # fmt: skip
