"""The recipes of the small real language model, 20 steps each, on the real base: trained, ranked or answered, exported, asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rectune.bundle.recommender import Recommender
from rectune.cli import main
from tests.offered import files
from tests.runs import results

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.benchmark
STEPS = ["--stages.0.max_steps", "20", "--stages.0.per_device_train_batch_size", "2", "--stages.0.logging_steps", "20"]
LISTS = ["--rank.beams", "10", "--eval.shuffled_rows", "0"]
SEVERAL = [
    "--stages.0.eval_strategy",
    "no",
    "--stages.0.save_strategy",
    "no",
    "--stages.0.load_best_model_at_end",
    "false",
]


@pytest.fixture(scope="module")
def base() -> str:
    """SmolLM2-135M as a folder, or a skip with the reason."""
    folder = Path(os.environ.get("RECTUNE_SMOLLM2", ROOT / "runs" / "gpu-inputs" / "smollm2"))
    if not (folder / "WEIGHTS").exists():
        pytest.skip(f"{folder} is not there: pip install gguf, then python benchmarks/smollm2.py")
    return str(folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small logs in the formats of the recipes, with titles that are words."""
    place = tmp_path_factory.mktemp("sources")
    words = "red blue small large folding steel garden kitchen travel desk".split()
    nouns = "lamp kettle chair rope".split()
    titles = [f"{words[i % 10].title()} {nouns[i // 10]}" for i in range(40)]
    (place / "lc_rec").mkdir()
    sequences = {str(u): [(u * 7 + s * 3) % 40 for s in range(5)] for u in range(24)}
    (place / "lc_rec" / "S.inter.json").write_text(json.dumps(sequences))
    about = {"brand": "Birk", "categories": "Home", "description": "A thing for the house."}
    (place / "lc_rec" / "S.item.json").write_text(
        json.dumps({str(i): {"title": title, **about} for i, title in enumerate(titles)})
    )
    (place / "movielens").mkdir()
    rows = [
        f"{u + 1}\t{(u * 7 + s * 3) % 40 + 1}\t{1 + (u + s * s) % 5}\t{1000 * s + u}"
        for u in range(12)
        for s in range(10)
    ]
    (place / "movielens" / "u.data").write_text("\n".join(rows))
    (place / "movielens" / "u.genre").write_text("unknown|0\nDrama|1\n")
    films = [f"{i + 1}|{title} (1995)|01-Jan-1995||x|0|1" for i, title in enumerate(titles)]
    (place / "movielens" / "u.item").write_text("\n".join(films), encoding="latin-1")
    files(place / "sdpo")
    return {name: place / name for name in ("lc_rec", "movielens", "sdpo")}


IDS = [
    "--vectors",
    "[{call: tfidf, text: [title]}]",
    "--index",
    "{call: rq_vae, levels: 2, codes: 8, epochs: 5, sinkhorn: 0.003, repair: digit}",
]
PRIOR = ["--rank.prior.weight", "[0, 20]"]
# names that were never seen start at a loss of 14, and 20 steps must bring it well below 12
FASTER = ["--stages.0.learning_rate", "3e-3"]
RECIPES = {
    "quickstart-llm": (None, ["--data.users", "24", "--data.longest", "8", "--data.shortest", "5", "--data.items", "100", *LISTS]),
    "lcrec-scientific-smollm2": ("lc_rec", [*IDS, *LISTS, *PRIOR, *FASTER]),
    "lcrec-beauty-smollm2": ("lc_rec", [*IDS, *LISTS, *PRIOR, *FASTER]),
    "titles-scientific-smollm2": ("lc_rec", [*LISTS, *PRIOR]),
    "tallrec-movie-kshot-smollm2": (
        "movielens",
        ["--grid", "null", "--split.shots", "16", "--split.rows", "60", "--split.history", "3", *SEVERAL, "--eval.wording_rows", "0"],
    ),
    "tallrec-ml-100k-smollm2": ("movielens", SEVERAL),
    "rating-ml-100k-smollm2": ("movielens", SEVERAL),
    "sdpo-lastfm-smollm2": (
        "sdpo",
        ["--stages.1.max_steps", "2", "--stages.1.per_device_train_batch_size", "2", "--rank.beams", "5", "--rank.k", "5", "--eval.free_rows", "3"],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_ranks_and_exports(recipe: str, base: str, sources: dict[str, Path], tmp_path: Path) -> None:
    source, keys = RECIPES[recipe]
    data = [] if source is None else ["--data.path", str(sources[source])]
    run = tmp_path / "run"
    where = ["--model.model_name_or_path", base, "--output_dir", str(run)]
    assert main(["train", recipe, *where, *data, *STEPS, *keys, "--traceback"]) == 0
    report = json.loads((run / "report.json").read_text())
    losses = [entry["loss"] for entry in report["training"][0] if "loss" in entry]
    assert len(losses) == 1
    assert 0 < losses[0] < 12
    assert report["environment"]["base"]["name"] == Path(base).name
    assert len(report["environment"]["base"]["sha256"]["model.safetensors"]) == 64
    found = results(run)
    if "protocols" in found:
        table = found["protocols"]["seen items hidden"]
        assert table["tuned model"]["coverage@10"] > 0
        assert table["tuned model"] != table["untuned model"]
    else:
        assert found["table"]["tuned model"] != found["table"]["untuned model"]
    assert main(["export", str(run), "--traceback"]) == 0
    bundle = Recommender.from_pretrained(run / "export")
    items = [json.loads(line)["item_id"] for line in (run / "export" / "items.jsonl").read_text().splitlines()]
    if "free" in found:
        listed = bundle.recommend(items[:3], k=2, candidates=items[5:9])
        assert len({one.item_id for one in listed} & set(items[5:9])) == 2
        assert listed == Recommender.from_pretrained(run).recommend(items[:3], k=2, candidates=items[5:9])
    elif "protocols" in found:
        listed = bundle.recommend(items[:3], k=5)
        assert len({one.item_id for one in listed}) == 5
        assert listed == Recommender.from_pretrained(run).recommend(items[:3], k=5)
    else:
        history = [(items[0], 5.0), (items[1], 1.0)]
        opinions = [one.score([history] * 2, items[2:4]) for one in (bundle, Recommender.from_pretrained(run))]
        assert opinions[0] == opinions[1]
        assert len(opinions[0]) == 2
