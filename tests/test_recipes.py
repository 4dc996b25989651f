"""Every bundled recipe loads, resolves and renders, on small files of the same formats and a stand-in checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rectune.recipe.load import bundled, load_recipe
from rectune.run.preview import preview
from tests.offered import files

RECIPES = sorted(file for folder in bundled("recipes") for file in folder.glob("*.yaml"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small files in the formats that the recipes read, by builder."""
    place = tmp_path_factory.mktemp("sources")
    for name in ("lc_rec", "movielens", "tallrec", "book_crossing", "minionerec"):
        (place / name).mkdir()
    titles = [f"Item {i} {'with a longer name' if i % 3 else ''}" for i in range(40)]
    sequences = {str(u): [(u * 7 + s * 3) % 40 for s in range(6)] for u in range(20)}
    (place / "lc_rec" / "S.inter.json").write_text(json.dumps(sequences))
    item = {"brand": "B", "categories": "C,D", "description": "Something."}
    (place / "lc_rec" / "S.item.json").write_text(
        json.dumps({str(i): {"title": t, **item} for i, t in enumerate(titles)})
    )
    names = {str(i): [f"<a_{i % 8}>", f"<b_{i // 8}>"] for i in range(40)}
    (place / "lc_rec" / "S.index.json").write_text(json.dumps(names))
    rows = [
        f"{u}\t{i}\t{1 + (u + n) % 5}\t{1000 * n + u}"
        for u, s in sequences.items()
        for n, i in enumerate(s)
        for u in [int(u)]
    ]
    (place / "movielens" / "u.data").write_text("\n".join(rows))
    (place / "movielens" / "u.genre").write_text("unknown|0\nDrama|1\n")
    films = [f"{i}|{t}|01-Jan-1995||x|0|1" for i, t in enumerate(titles)]
    (place / "movielens" / "u.item").write_text("\n".join(films), encoding="latin-1")
    row = 'User Preference: "{}", "{}"\nUser Unpreference: "{}"\nWhether the user will like the target movie "{}"?'
    for name, count in (("train", 20), ("valid", 5), ("test", 5)):
        data = [
            {
                "instruction": "",
                "input": row.format(*(titles[(n + k) % 40] for k in range(4))),
                "output": ("Yes.", "No.")[n % 2],
            }
            for n in range(count)
        ]
        (place / "tallrec" / f"{name}.json").write_text(json.dumps(data))
    books = [f'"{i}";"{t}";"Author {i}"' for i, t in enumerate(titles)]
    (place / "book_crossing" / "BX-Books.csv").write_text("\n".join(['"ISBN";"Book-Title";"Book-Author"', *books]))
    stars = [f'"{u}";"{i}";"{1 + (3 * n + int(u)) % 10}"' for u, s in sequences.items() for n, i in enumerate(s)]
    (place / "book_crossing" / "BX-Book-Ratings.csv").write_text("\n".join(['"User-ID";"ISBN";"Book-Rating"', *stars]))
    (place / "said.json").write_text(json.dumps([{"instruction": "Say yes.", "output": "Yes."}] * 3))
    (place / "minionerec" / "index").mkdir()
    (place / "minionerec" / "index" / "S.item.json").write_text(
        json.dumps({str(i): {"title": t, **item} for i, t in enumerate(titles)})
    )
    for part in ("train", "valid", "test"):
        (place / "minionerec" / part).mkdir()
        lines = [f'{u},"[{", ".join(f"{i!r}" for i in map(str, s[:3]))}]",{s[3]}' for u, s in sequences.items()]
        (place / "minionerec" / part / "S.csv").write_text("\n".join(["user_id,history_item_id,item_id", *lines]))
    files(place / "sdpo")
    names = ("lc_rec", "movielens", "tallrec", "book_crossing", "minionerec", "sdpo")
    return {**{name: place / name for name in names}, "instructions": place / "said.json"}


@pytest.mark.filterwarnings("ignore:all [0-9]+ validation rows have the same answer")  # they are few here
@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_loads_resolves_and_renders(
    file: Path, sources: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    settings = load_recipe(file).settings
    builder = settings["data"]["call"]
    overrides = [("data.path", str(sources[builder]))] if builder in sources else [("data.users", "80")]
    if "path" in settings.get("index", {}):
        overrides.append(("index.path", str(sources["lc_rec"] / "S.index.json")))
    if "codes" in (settings.get("index") or {}) and builder in sources:  # 40 items, seconds
        overrides += [("index.codes", "8"), ("index.repair", "digit")]
        if settings["index"]["call"] in ("rq_vae", "letter"):
            overrides += [("index.epochs", "2"), ("index.sinkhorn", "0.003")]  # so few epochs need its even spread
    if settings["split"]["call"] == "tallrec_movie":  # 6 events a user
        overrides += [("split.rows", "40"), ("split.history", "3"), ("split.shots", "null")]
    if settings["split"]["call"] == "by_user":
        overrides.append(("split.min_history", "3"))
    if builder in sources and max(settings["eval"].get("k") or [1]) > 40:  # the catalogue is small
        overrides.append(("eval.k", "[1, 10]"))
    for i, stage in enumerate(settings["stages"]):
        if any("path" in task for task in stage.get("tasks", [])):
            overrides.append((f"stages.{i}.tasks.0.path", str(sources["instructions"])))
    for i, source in enumerate(settings.get("vectors") or []):
        overrides += [(f"vectors.{i}.epochs", "2")] if "sasrec" in source["call"] else []
    if settings["model"].get("model_name_or_path"):
        overrides.append(("model.model_name_or_path", str(checkpoints["chat"])))
    text = preview(load_recipe(file, overrides), examples=2)
    own = [task for stage in settings["stages"] for task in stage.get("tasks", [])]
    for task in [*settings["tasks"], *own]:
        assert f"{task['call']}: " in text
        assert task["template"] in text
    assert "⟦" in text
    assert "no example dropped" in text


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_paper_data_hardware_and_command(file: Path) -> None:
    head = file.read_text().partition("about:")[0]
    for needed in ("# Paper:", "# Data:", "# Hardware:", "# Command:"):
        assert needed in head
    assert file.stem in head.partition("# Command:")[2]


def test_accelerate_configurations_are_of_accelerates_form() -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    for folder in bundled("recipes"):
        files = list((folder / "accelerate").glob("*.yaml"))
        assert {f.stem for f in files} >= {"one-gpu", "several-gpus", "fsdp2", "zero3"}
        for file in files:
            known: Any = set(ClusterConfig.__dataclass_fields__)
            assert set(yaml.safe_load(file.read_text())) <= known


def test_the_overview_says_where_the_data_of_every_recipe_is_published() -> None:
    section = (Path(__file__).parents[1] / "recipes" / "README.md").read_text(encoding="utf-8")
    section = section.partition("\n## Data\n")[2].partition("\n## ")[0]
    folders = {load_recipe(str(file)).settings["data"].get("path") for file in RECIPES} - {None}
    assert len(folders) > 5
    assert not [name for name in folders if f"| {name} |" not in section]
