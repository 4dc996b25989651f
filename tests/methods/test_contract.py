"""Methods of other kinds than a tuned language model: a dot product without a trie, and one with a box of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rectune.cli import main

DOTS = '''
"""Item vectors from counts of what follows what; no trie, no text."""
import json
from dataclasses import dataclass

import numpy as np

from rectune.decoding.scored import ranking_of


@dataclass
class Config:
    rank: int = 8
    max_length: int = 64


def config_defaults(given, *, cpu, seed):
    return given


def train(task, config, folder):
    n = task.split.log.n_items
    counts = np.zeros((n, n))
    for spec in task.specs:
        rows = spec.rows("train")
        for i in range(len(rows)):
            counts[rows.history(i), rows.target[i]] += 1.0
    left, values, right = np.linalg.svd(counts)
    scale = np.sqrt(values[: config.rank])
    (folder / "model").mkdir(exist_ok=True)
    np.savez(folder / "model" / "dots.npz", asks=left[:, : config.rank] * scale, items=right[: config.rank].T * scale)
    (folder / "log_history.json").write_text("[]")
    (folder / "audit.json").write_text("{}")


class Ranker:
    def __init__(self, given, file):
        self.given = given
        n = given.split.log.n_items
        if file is None:
            self.asks = self.items = np.zeros((n, 1))
        else:
            saved = np.load(file)
            self.asks, self.items = saved["asks"], saved["items"]

    def rank(self, rows, shelf, *, shards=None):
        asked = np.stack([self.asks[rows.history(i)].sum(0) for i in range(len(rows))])
        return ranking_of(asked @ self.items.T, rows, shelf, width=self.given.rank.beams)

    def answer(self, rows):
        raise ValueError("this model has no answers.")


def load(given, folder):
    return Ranker(given, None if folder is None else folder / "dots.npz")


def export(given, folder, to):
    (to / "dots.npz").write_bytes((folder / "dots.npz").read_bytes())
    return {"dtype": "float64"}
'''
BOXED = DOTS.replace('Config:\n', 'Config:\n    smooth: float = 0.5\n').replace(
    '''    n = task.split.log.n_items
    counts = np.zeros((n, n))
''',
    '''    n = task.split.log.n_items
    counts = np.load(task.boxes["popular"] / "counts.npy")[None, :] * config.smooth + np.zeros((n, n))
''',
) + '''

def boxes(section, seed):
    from rectune.recipe.box import Box

    def build(held, folder):
        split = held["split"]
        np.save(folder / "counts.npy", np.bincount(split.log.item_codes[split.train_events], minlength=split.log.n_items) / 1e6)

    return [Box("popular", ("split",), lambda: {"seed": seed}, build, lambda held, folder: folder, (build,))]
'''  # fmt: skip
RECIPE = """
include: quickstart.yaml
data: {users: 200, items: 300}
tasks: [{call: next_item, template: next-item-names.jinja}]
stages: [{call: METHOD, rank: 8}]
rank: {template: next-item-names.jinja, beams: 10, k: 5, prior: {call: prior, weight: [0, 1]}}
eval: {shuffled_rows: 50, examples: 2, oracle: null}
output_dir: run
"""


@pytest.fixture(scope="module", params=["dots", "boxed"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a method of one's own and a run of it."""
    place = tmp_path_factory.mktemp(request.param)
    (place / f"{request.param}_method.py").write_text(DOTS if request.param == "dots" else BOXED)
    (place / "own.yaml").write_text(RECIPE.replace("METHOD", f"{request.param}_method"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(place)
        assert main(["train", "own.yaml", "--traceback"]) == 0
    return place


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.syspath_prepend(trained)
    return trained


def test_a_method_without_a_trie_is_trained_ranked_and_judged(here: Path) -> None:
    results = json.loads((here / "run" / "report.json").read_text())["results"]
    rows = results["protocols"]["seen items hidden"]
    assert rows["tuned model"]["ndcg@10"][0] > 2 * rows["untuned model"]["ndcg@10"][0]
    assert results["proven_exact"]["seen items hidden"]["tuned model"] == 1.0
    assert results["prior_weight"]["weight"] in (0, 1)
    assert "tuned model + prior" in rows
    boxes = {folder.name.rpartition("-")[0] for folder in (here / "run" / "stages").iterdir()}
    assert ("popular" in boxes) == (here.name.startswith("boxed"))


def test_it_is_reported_again_recommends_and_is_exported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rectune import Recommender
    from rectune.run.run import open_run

    before = (here / "run" / "report.json").read_text()
    assert main(["eval", "run", "--traceback"]) == 0
    again = json.loads((here / "run" / "report.json").read_text())
    assert again["results"] == json.loads(before)["results"]
    run = open_run("run")
    ids = run.log.items["item_id"].to_list()
    history = [ids[item] for item in run.split.history(run.split.test, 0)]
    listed = Recommender.from_pretrained("run").recommend(history, k=5)
    assert len({entry.item_id for entry in listed} - set(history)) == 5
    weight = again["results"]["prior_weight"]["weight"]
    alone = run.models["tuned"].rank(run.rows.take(np.array([0])), _shelf(history, ids))
    if weight == 0:
        assert [entry.item_id for entry in listed] == [ids[item] for item in alone.items[0, :5]]
    assert main(["export", "run", "--traceback"]) == 0
    written = {file.name for file in (here / "run" / "export").iterdir()}
    assert written >= {"dots.npz", "items.jsonl", "rectune.json", "README.md", "template.jinja"}
    about = json.loads((here / "run" / "export" / "rectune.json").read_text())
    assert about["method"].endswith("_method")
    assert "tuned model: " in (here / "run" / "export" / "README.md").read_text()


def _shelf(history: list[str], ids: list[str]) -> object:
    from rectune.decoding.shelf import Shelf

    return Shelf(hidden=[[ids.index(item) for item in history]])


def test_a_module_that_is_no_method_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_method.py").write_text("class Config: pass\ndef train(task, config, folder): pass\n")
    (tmp_path / "own.yaml").write_text(RECIPE.replace("METHOD", "half_method"))
    assert main(["train", "own.yaml"]) == 1
    error = capsys.readouterr().err
    assert "`stages.0.call` (own.yaml" in error
    assert "it has no `config_defaults`, `load`" in error
    assert not (tmp_path / "run").exists()
