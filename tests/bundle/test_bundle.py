"""Bundles: what a run lists and answers, its bundle lists and answers to the bit, and a damaged one is one line."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rectune import Recommender
from rectune.bundle.manifest import write_manifest
from tests.bundle.test_export_answers import films
from tests.exports import GPT2, LORA, NAMES, SHOP, SHORT, T5, exported, listed_by_the_run, same_lists, tune
from tests.runs import forked
from tests.test_cli import fails

HISTORIES = [["i3", "i7"], ["i1"], [], [f"i{n}" for n in (5, 9, 2, 30, 11, 0, 8, 21)]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of semantic ids from TF-IDF with a prior that has a SASRec, to be copied."""
    settings = {
        **SHOP,
        "vectors": [{"call": "tfidf", "text": ["categories", "title"], "dimensions": 12}],
        "index": {"call": "residual_kmeans", "levels": 2, "codes": 8},
        "tasks": [{"call": "next_item", "template": NAMES}],
        "model": GPT2,
        "stages": [{**SHORT, "max_length": 128}],
        "rank": {**SHOP["rank"], "template": NAMES, "prior": {"call": "prior", "weight": 7}},
        "sasrec": {"epochs": 1},
    }
    run = tune(tmp_path_factory.mktemp("shop"), settings)
    exported(run)
    return run


@pytest.mark.heavy
def test_a_bundle_lists_what_its_run_lists_with_the_prior_and_without(shop: Path) -> None:
    ours, theirs = Recommender.from_pretrained(shop), Recommender.from_pretrained(shop / "export")
    lists = ours.recommend(HISTORIES, 5)
    assert lists == theirs.recommend(HISTORIES, 5)
    assert [len(row) for row in lists] == [5] * 4
    for weight in (0, 1.5):
        assert ours.recommend(HISTORIES, prior_weight=weight) == theirs.recommend(HISTORIES, prior_weight=weight)
    assert ours.recommend(HISTORIES, 5, prior_weight=7) == lists != ours.recommend(HISTORIES, 5, prior_weight=0)


@pytest.mark.heavy
def test_one_history_many_ids_titles_and_what_may_be_listed(shop: Path) -> None:
    it = Recommender.from_pretrained(shop / "export")
    one = it.recommend(["i3", "i7"], 4)
    assert it.recommend([["i3", "i7"]], 4) == [one]
    titles = dict(it.items.select("item_id", "title").iter_rows())
    assert it.recommend([titles["i3"], titles["i7"]], 4, by="title") == one
    assert [item.title for item in one] == [titles[item.item_id] for item in one]
    assert all(item.score < 0 and item.commit is None for item in one)
    assert {item.item_id for item in it.recommend(["i3"], 3, candidates=["i5", "i4", "i3"])} == {"i4", "i5"}
    first = one[0].item_id
    assert first not in {item.item_id for item in it.recommend(["i3", "i7"], 4, deny=[first])}
    assert {item.item_id for item in it.recommend(["i3"], 2, allow=["i3", first], hide_seen=False)} == {"i3", first}
    assert len(it.recommend([])) == 6  # 10, or as many as there are beams
    for wrong, message in (
        ({"history": ["x9"]}, "no item with item_id `x9`"),
        ({"history": ["i3"], "k": 7}, "k = 7, but it must be from 1 to 6"),
        ({"history": ["i3"], "k": True}, "k = True"),
        ({"history": ["i3"], "by": "name"}, "`by` is 'item_id' or 'title'"),
        ({"history": [["i3"]], "candidates": []}, "there are 1 histories, but candidates for 0"),
    ):
        with pytest.raises(ValueError, match=message):
            it.recommend(**wrong)
    with pytest.raises(TypeError, match=r"got the text 'i3'. Write \['i3'\]"):
        it.recommend("i3")
    with pytest.raises(ValueError, match="this model lists items; it has no answers"):
        it.score(["i3"], "i4")


@pytest.mark.heavy
def test_items_are_found_by_words_of_their_titles(shop: Path) -> None:
    it = Recommender.from_pretrained(shop)
    title = it.items["title"][4]
    first, second = title.split()[:2]
    assert it.search_items(title.upper())[0]["item_id"] == "i4"
    assert "i4" in {item["item_id"] for item in it.search_items(f"{second[:3]} {first.lower()}", 40)}
    assert it.search_items("no such thing") == []
    assert len(it.search_items("", 3)) == 3
    assert it.search_items(".*") == []  # words, not patterns


@pytest.mark.heavy
def test_new_items_get_names_in_a_bundle_as_in_its_run(shop: Path, tmp_path: Path) -> None:
    like = Recommender.from_pretrained(shop).items.row(5, named=True)
    new = [{**like, "item_id": f"new{n}", "title": f"{like['title']} mark {n}"} for n in range(2)]
    found = []
    for place in (shop, shop / "export"):
        it = Recommender.from_pretrained(place)
        assert it.add_items(new) == 2
        assert it.items.height == 42
        found.append(it.recommend([["i5"], ["new0", "i3"]], 6))
        assert [item.item_id for item in it.recommend(["i5"], 1, candidates=["new1"])] == ["new1"]
        with pytest.raises(ValueError, match="the catalogue already has the item `new0`"):
            it.add_items(new)
    assert found[0] == found[1]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, new)))
    it = Recommender.from_pretrained(shop)
    assert it.add_items(tmp_path / "new.jsonl") == 2
    # TF-IDF keeps the words of the catalogue: what is called as item 5 is named like it, but for the last code
    codes = it.bundle.index.codes
    assert (codes[40] == codes[5]).sum() >= 1
    assert (codes[[40, 41]][:, 0] == codes[5, 0]).all()


@pytest.mark.heavy
def test_names_of_titles_with_an_adapter(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = {"model_name_or_path": str(checkpoints["chat"]), "dtype": "float32", **LORA}
    run = tune(tmp_path, {**SHOP, "index": {"call": "titles"}, "model": model})
    assert listed_by_the_run(exported(run), HISTORIES) == listed_by_the_run(run, HISTORIES)
    assert str(tmp_path) not in (run / "export" / "rectune.json").read_text()


@pytest.mark.heavy
def test_an_encoder_decoder_with_a_token_an_item_and_one_a_user(tmp_path: Path) -> None:
    template = "next-item-names-user.jinja"
    settings = {
        **SHOP, "index": {"call": "atomic", "user_tokens": 20}, "tasks": [{"call": "next_item", "template": template}], "model": T5,
        "stages": [{**SHORT, "call": "seq2seq", "max_length": 128}], "rank": {**SHOP["rank"], "template": template},
    }  # fmt: skip
    run = tune(tmp_path, settings)
    ours, theirs = Recommender.from_pretrained(run), Recommender.from_pretrained(exported(run))
    users = ["u1", "u2", "u3", "u4"]
    assert ours.recommend(HISTORIES, 5, users=users) == theirs.recommend(HISTORIES, 5, users=users)
    assert ours.recommend(HISTORIES, 5, users=users) != theirs.recommend(HISTORIES, 5)
    with pytest.raises(ValueError, match="this index cannot name a new item without tuning again"):
        theirs.add_items([{"item_id": "x", "title": "Kettle"}])


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["likes", "ratings"])
def test_answers_about_an_item(tmp_path: Path, kind: str) -> None:
    task, template, judge = {
        "likes": ("like_or_dislike", "like-or-dislike.jinja", "answers"), "ratings": ("rating", "rating.jinja", "ratings"),
    }[kind]  # fmt: skip
    similar = {"history": {"call": "similar", "events": 3}}
    more = {
        "tasks": [{"call": task, "template": template, **similar}], "rank": {"template": template},
        "vectors": [{"call": "tfidf", "text": ["title"]}], "eval": {"call": judge, "bootstrap_samples": 20},
    }  # fmt: skip
    run = films(tmp_path, GPT2, more=more)
    ours, theirs = Recommender.from_pretrained(run), Recommender.from_pretrained(exported(run))
    history = [("p1", 5), ("p4", 1), "p7", ("p9", False)]
    said = ours.score(history, "p3")
    assert said == theirs.score(history, "p3")
    assert ours.score([history, []], ["p3", "p5"]) == theirs.score([history, []], ["p3", "p5"])
    assert list(said.chances) == (["No", "Yes"] if kind == "likes" else ["1", "2", "3", "4", "5"])
    assert sum(said.chances.values()) == pytest.approx(1)
    assert said.score != theirs.score([("p1", 1)], "p3").score
    expected = said.chances["Yes"] if kind == "likes" else sum(int(k) * v for k, v in said.chances.items())
    assert said.score == pytest.approx(expected)
    split, test = ours.bundle, _rows(run)
    assert split.kind == "answer"
    for past, target, chance in test:  # a run's own test rows, asked from outside
        assert list(theirs.score(past, target).chances.values()) == pytest.approx(chance, abs=1e-6)
    with pytest.raises(ValueError, match="a rating of `p1` is 9; they run from 1 to 5"):
        ours.score([("p1", 9)], "p3")
    with pytest.raises(ValueError, match=r"answers about one item .* Ask with `score`"):
        ours.recommend(["p1"])


def _rows(run: Path) -> list[tuple[list[tuple[str, float]], str, list[float]]]:
    """Histories with ratings, targets and the run's own chances of some test rows."""
    from rectune.run.rankings import answered
    from rectune.run.run import open_run

    opened = open_run(run)
    ids, split, chances = opened.log.items["item_id"].to_list(), opened.split, answered(opened, "tuned")[0]
    ratings, found = split.log.ratings, []
    assert ratings is not None
    for i in range(3):
        events = range(split.test.first[i], split.test.stop[i])
        past = [(ids[split.log.item_codes[event]], float(ratings[event])) for event in events]
        found.append((past, ids[int(split.targets(split.test)[i])], chances[i].tolist()))
    return found


# ---------------------------------------------------------------------------------------------------------- what it holds


@pytest.mark.heavy
def test_nothing_in_a_bundle_is_private(shop: Path) -> None:
    folder = shop / "export"
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert {
        "index/codes.npy",
        "prior/ease.npz",
        "vectors/fitted0.npz",
        "report.json",
        "report.html",
        "trie.safetensors",
    } <= set(files)
    for name, held in files.items():
        assert str(shop.parent).encode() not in held, name
    assert json.loads(files["report.json"])["examples"] == []
    assert b"A few users" not in files["report.html"]
    assert b"A few users" in (shop / "report.html").read_bytes()
    manifest = json.loads(files["manifest.json"])
    assert manifest["schema"] == 1
    assert set(manifest["files"]) == set(files) - {"README.md", "manifest.json"}


def _told(folder: Path, change: Any) -> None:
    about = json.loads((folder / "rectune.json").read_text())
    change(about)
    (folder / "rectune.json").write_text(json.dumps(about))
    write_manifest(folder)


def _flipped(file: Path) -> None:
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    file.write_bytes(held)


def _named(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 3, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _linked(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    shutil.move(folder / "config.json", outside)
    (folder / "config.json").symlink_to(outside)


def _templated(folder: Path, text: str) -> None:
    import hashlib

    source = (folder / "template.jinja").read_text()
    changed = source.replace("{% macro prompt(", text + "{% macro prompt(")
    (folder / "template.jinja").write_text(changed)
    _told(folder, lambda about: about["rank"].update(template_hash=hashlib.sha256(changed.encode()).hexdigest()))


def _other_tokenizer(folder: Path) -> None:
    held = json.loads((folder / "tokenizer.json").read_text())
    tokens = held["added_tokens"]
    tokens[-1]["content"], tokens[-2]["content"] = tokens[-2]["content"], tokens[-1]["content"]
    (folder / "tokenizer.json").write_text(json.dumps(held))
    write_manifest(folder)


def _weights_from(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    write_manifest(folder)


def _half_the_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    save_file(
        {name: held[name] for name in sorted(held) if "mlp" not in name}, folder / "model.safetensors", {"format": "pt"}
    )
    write_manifest(folder)


def _as_a_run(folder: Path) -> None:
    (folder / "recipe.yaml").write_text('data: {call: "os:system", command: "touch ran"}')
    (folder / "run.json").write_text('{"recipe": "x", "stages": {}}')


def _adapter_on(folder: Path, base: str) -> None:
    (folder / "adapter_config.json").write_text("{}")
    _told(folder, lambda about: about["model"].update(model_name_or_path=base))


def _config(folder: Path, **keys: Any) -> None:
    held = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**held, **keys}))
    write_manifest(folder)


def _names_out_of_range(folder: Path) -> None:
    import numpy as np

    codes = np.load(folder / "index" / "codes.npy")
    np.save(folder / "index" / "codes.npy", codes + 1000)
    write_manifest(folder)


def _another_trie(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    held = load_file(folder / "trie.safetensors")
    held["codes"][-1] = 255
    save_file(held, folder / "trie.safetensors")
    write_manifest(folder)


def _first_item(folder: Path, **keys: Any) -> None:
    first, *rest = (folder / "items.jsonl").read_text().splitlines()
    (folder / "items.jsonl").write_text("\n".join([json.dumps({**json.loads(first), **keys}), *rest]))
    write_manifest(folder)


FAULTS: dict[str, tuple[Any, str]] = {
    "a changed byte": (lambda f: _flipped(f / "model.safetensors"), "`model.safetensors` is not the one that was written"),
    "a changed byte of the trie": (lambda f: _flipped(f / "trie.safetensors"), "`trie.safetensors` is not the one"),
    "a missing file": (lambda f: (f / "index" / "codes.npy").unlink(), "the file `index/codes.npy` is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing or damaged"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text('{"schema": 1'), "missing or damaged"),
    "a pickle": (lambda f: _named(f, "pytorch_model.bin"), "a pickle can run code"),
    "code": (lambda f: _named(f, "modeling.py"), "of a kind that bundles don't hold"),
    "a way out": (lambda f: _named(f, "../../secrets.json"), "leads out of the folder"),
    "an absolute name": (lambda f: _named(f, "/etc/hosts.json"), "leads out of the folder"),
    "a link": (_linked, "is a link to a place outside"),
    "a pickle beside it": (lambda f: ((f / "model.safetensors").rename(f / "kept"), (f / "pytorch_model.bin").write_bytes(b"x")), "model.safetensors` is missing"),
    "a file of others": (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), "`pytorch_model.bin` is not of the bundle"),
    "code of others": (lambda f: (f / "datasets.py").write_text("raise SystemExit(9)"), "`datasets.py` is not of the bundle"),
    "a link of others": (lambda f: (f / "report.html").unlink() or (f / "notes.html").symlink_to("/etc/passwd"), "is missing"),
    "a folder of others": (lambda f: ((f / "tokenizer").mkdir(), (f / "tokenizer" / "tokenizer.json").write_text("{}")), "`tokenizer/tokenizer.json` is not of"),
    "weights from outside": (lambda f: _weights_from(f, "../outside.bin"), "names `../outside.bin`, which is no file of the bundle"),
    "half the weights": (_half_the_weights, "changed the logits of the run's probe by"),
    "a run's recipe": (_as_a_run, "`recipe.yaml` is not of the bundle"),
    "a base of this machine": (lambda f: _adapter_on(f, "/etc"), "is no repository of the Hub"),
    "attention from the Hub": (lambda f: _told(f, lambda a: a["model"].update(attn_implementation="someone/kernel")), "which transformers fetches as code"),
    "code in the config": (lambda f: _config(f, auto_map={"AutoModelForCausalLM": "m.M"}), "brings code of its own"),
    "a config of no model": (lambda f: _config(f, n_head=0), "is not as it was written"),
    "a file as an argument": (
        lambda f: _told(f, lambda a: a["asked"].update(vectors=[{"call": "from_file", "path": "../../etc/passwd.npy"}])), "is of this bundle's maker's machine",
    ),
    "sources of text": (lambda f: _told(f, lambda a: a["asked"].update(vectors=["tfidf"])), "is not as it was written"),
    "no base": (lambda f: _told(f, lambda a: a.update(base=None)), "is not as it was written"),
    "a seed without end": (lambda f: _told(f, lambda a: a["asked"].update(seed=float("inf"))), "is not as it was written"),
    "a history without end": (lambda f: _told(f, lambda a: a["asked"].update(longest_history=10**30)), "it must be from 1 to 100,000"),
    "a list without end": (lambda f: _told(f, lambda a: a["asked"]["rank"].update(beams=10**12)), "it must be from 1 to 100,000"),
    "deep JSON": (lambda f: ((f / "rectune.json").write_text("[" * 100_000), write_manifest(f)), "is not as it was written"),
    "a deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "missing or damaged"),
    "an empty array": (lambda f: ((f / "index" / "codes.npy").write_bytes(b""), write_manifest(f)), "is not as it was written"),
    "no archive": (lambda f: ((f / "prior" / "ease.npz").write_bytes(b"PK zzz"), write_manifest(f)), "is not as it was written"),
    "names out of range": (_names_out_of_range, "Its parts are not of one run"),
    "another trie": (_another_trie, "trie.safetensors is not the one of its items"),
    "an item without an id": (lambda f: _first_item(f, item_id=None), "has no id, or that of another"),
    "two items of one id": (lambda f: _first_item(f, item_id="i1"), "has no id, or that of another"),
    "work without end": (
        lambda f: _templated(f, "{% for i in range(30000) %}{% set x = range(300000)|sort|list|length %}{% endfor %}"), "steps",
    ),
    "a newer version": (
        lambda f: (f / "manifest.json").write_text('{"schema": 9, "files": {}}'), "has schema 9, and this rectune reads up to 1",
    ),
    "an unknown method": (lambda f: _told(f, lambda a: a["asked"].update(method="grpoo")), "'grpoo' is unknown to this rectune"),
    "a method of others": (lambda f: _told(f, lambda a: a["asked"].update(method="os:system")), "code outside of rectune"),
    "a task of others": (lambda f: _told(f, lambda a: a["asked"]["task"].update(call="os:system")), "code outside of rectune"),
    "a source of others": (lambda f: _told(f, lambda a: a["asked"]["vectors"][0].update(call="subprocess:run")), "code outside of rectune"),
    "a prior of others": (lambda f: _told(f, lambda a: a["prior"].update(call="shutil")), "is unknown to this rectune"),
    "a key of others": (lambda f: _told(f, lambda a: a["asked"]["task"].update(shell="ls")), "unknown key"),
    "a frame of others": (lambda f: _told(f, lambda a: a["asked"]["frame"].update(run="ls")), "unknown key"),
    "a missing key": (lambda f: _told(f, lambda a: a["asked"].pop("columns")), "does not say `columns`"),
    "another template": (
        lambda f: ((f / "template.jinja").write_text((f / "template.jinja").read_text() + "{# #}"), write_manifest(f)),
        "its template is not the one that the model was tuned with",
    ),
    "a loop without end": (
        lambda f: _templated(f, "{% for a in range(100000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}"), "steps",
    ),
    "a gigabyte": (lambda f: _templated(f, "{{ 'x' * 1000000000 }}"), "it repeats something to a length of 1,000,000,000"),
    "another tokenizer": (_other_tokenizer, "it is that of another base"),
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_bundle_is_one_line_and_nothing_is_run(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    folder = Path(shutil.copytree(shop / "export", tmp_path / "shop"))
    change, message = FAULTS[fault]
    change(folder)
    error = fails(capsys, "recommend", str(folder), "--items", "i3")
    assert message in error
    assert len(error) < 700


@pytest.mark.heavy
def test_what_others_write_into_a_repository_does_no_harm(shop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shop / "export", tmp_path / "shop"))
    (folder / "README.md").write_text("edited on the Hub")
    (folder / ".gitattributes").write_text("*.npz filter=lfs")
    (folder / "picture.png").write_bytes(b"of the card")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("of git")
    same_lists(listed_by_the_run(folder, HISTORIES), listed_by_the_run(shop, HISTORIES), within=1e-12)


def test_what_is_no_recommender_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (str(tmp_path), "nothing", "./nothing", "../x/y", "a/b/c"):
        assert "is neither a finished run folder, nor a bundle" in fails(capsys, "recommend", name, "--items", "i3")


@pytest.mark.heavy
def test_an_export_that_is_killed_leaves_nothing_and_the_same_command_makes_it(shop: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(shop, tmp_path / "run", ignore=shutil.ignore_patterns("export")))
    place = tmp_path / "bundle"

    def export(point: str, times: int) -> int:
        command = ["export", str(run), "--to", str(place)]
        return forked("-m", "tests.kill_at", point, str(times), "--", *command).returncode

    assert export("write", 7) == -signal.SIGKILL  # parts are written, the last ones are not
    assert not place.exists()
    assert export("none", 0) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "run"]
    whole = json.loads((shop / "export" / "manifest.json").read_text())["files"]
    again = json.loads((place / "manifest.json").read_text())["files"]
    assert again.keys() == whole.keys()
    assert [name for name in whole if again[name] != whole[name]] == []
