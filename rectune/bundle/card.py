"""The README of an exported folder: what it is, code that uses it with transformers alone, and what the run measured."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import jinja2

from rectune.bundle import plain as exported
from rectune.run.judged import HIDDEN
from rectune.run.run import Run


def card(listed: Run, about: dict[str, Any], work: Path) -> str:
    """The model card as Markdown, front matter included. `about`: what `rectune.json` says."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined).from_string(
        Path(__file__).with_name("export-card.md.jinja").read_text(encoding="utf-8")
    )
    named = listed.asked.model.library.model_name_or_path
    on_hub = bool(named) and not Path(named).is_absolute() and not Path(named).exists()
    text = template.render(
        about=about,
        lists=listed.rows.kind == "item",
        rates=bool(listed.rows.values),
        shows_code=plain_code(listed),
        code=code(listed.rows.kind),
        example=example(listed) if plain_code(listed) else {},
        on_hub=named if on_hub else None,
        prior=listed.asked.prior is not None,
        measured=measured(listed),
        files=sorted(
            file.name for file in work.iterdir() if file.suffix in (".json", ".safetensors", ".jsonl", ".jinja")
        ),
    )
    return text.rstrip() + "\n"


def own_card(listed: Run, about: dict[str, Any], work: Path) -> str:
    """The card of a run whose method writes its own files."""
    lines = [
        "---", "tags: [recommender-system, rectune]", "---", "", f"# {about['run']['recipe']}", "",
        f"A recommender of {about['items']['total']:,} items, tuned by `{about['method']}` and exported from a rectune run. Its files are "
        f"that method's own: {', '.join(f'`{file.name}`' for file in sorted(work.iterdir()))}.",
    ]  # fmt: skip
    for name, row in measured(listed).items():
        figures = ", ".join(f"{metric} {'–' if value is None else f'{value:.4f}'}" for metric, value in row.items())
        lines += ["" if lines[-1][:2] != "- " else None, f"- {name}: {figures}"]  # type: ignore[list-item]
    return "\n".join(line for line in lines if line is not None) + "\n"


def plain_code(run: Run) -> bool:
    """Whether the card's code asks and scores as the run does: prompts of nothing but history and target, and for a run that
    answers, Yes or No by the ratio of their chances."""
    if not set(run.asked.template.arguments("prompt")) <= {"history", "target", "user"}:
        return False
    settings, task = run.asked.rank, run.rows
    ratio = settings.normaliser == "ratio" and not settings.spellings
    return task.kind == "item" or (ratio and not task.values and run.asked.ranked.history is None)


def code(kind: str) -> str:
    """The functions of `rectune.bundle.plain` that a run of this kind needs, imports first."""
    head = inspect.getsource(exported).partition("\ndef ")[0].partition('"""\n')[2].strip()
    last = exported.recommend if kind == "item" else exported.chance_of_yes
    return "\n\n\n".join(
        [head, *(inspect.getsource(f).strip() for f in (exported.load, exported.read, exported.prompt_ids, last))]
    )


def example(listed: Run) -> dict[str, Any]:
    """The last items of the first test row: `history` (item ids, or pairs with what was liked) and `target`."""
    split, ids = listed.split, listed.log.items["item_id"].to_list()
    names = [ids[item] for item in split.history(split.test, 0)]
    target = ids[int(split.targets(split.test)[0])]
    if listed.rows.kind == "item":
        return {"history": names[-5:], "target": target}
    liked = [bool(entry["liked"]) for entry in listed.rows.variables(0)["history"]]
    return {"history": list(zip(names, liked, strict=True))[-5:], "target": target}


def measured(listed: Run) -> dict[str, dict[str, float | None]]:
    """The table of the run's report, name -> metric -> value, or {} where its evaluator reports in another form."""
    file = listed.folder.path / "report.json"
    results = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else {}
    table = results["protocols"].get(HIDDEN) if "protocols" in results else results.get("table")
    rows = {name: _means(entry) for name, entry in table.items()} if isinstance(table, dict) else {}
    same = {tuple(row) for row in rows.values()}
    return rows if len(same) == 1 and same != {()} else {}


def _means(entry: Any) -> dict[str, float | None]:
    """The metrics of a row that come with an interval, without it; None for one that is not defined."""
    values = entry.items() if isinstance(entry, dict) else ()
    means = {metric: value[0] for metric, value in values if isinstance(value, list) and len(value) == 3}
    return {metric: None if mean is None or math.isnan(mean) else float(mean) for metric, mean in means.items()}
