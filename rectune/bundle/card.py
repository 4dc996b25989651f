"""The card of a bundle: what it is, three lines that use it, what the run measured, and the metadata of the Hub."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from rectune.bundle import plain as exported
from rectune.run.run import Run

ABOUT, REPORT = "rectune.json", "report.json"
SHOWN, OFFERED = 3, 3  # items of a made-up history, and of made-up candidates
PARTS = {
    "index/": "the item index, with what names new items",
    "trie.safetensors": "the names of all items as a tree",
    "vectors/": "what the source of item vectors learned",
    "prior/": "the prior beside the model",
    "report.json": "everything that the run measured; `report.html` is a page of it",
    "probe.safetensors": "logits after a few words, by which a copy is checked",
}
TAGS = ["rectune", "recommendation", "recommender-system"]


def card(
    folder: Path, *, repo: str | None = None, licence: str | None = None, listed: Sequence[dict[str, Any]] | None = None
) -> str:
    """The model card of a bundle's folder as Markdown, front matter included. `repo`: where it is going to lie on the Hub; `listed`: what it recommends
    after the made-up history, with titles, where these may be shown."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    report = json.loads((folder / REPORT).read_text(encoding="utf-8")) if (folder / REPORT).exists() else {}
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template.filters.update(figure=figure, interval=interval)
    source = Path(__file__).with_name("export-card.md.jinja").read_text(encoding="utf-8")
    text = template.from_string(source).render(
        about=about, lists=about["kind"] == "item", rates=bool(about.get("rates")), chooses=bool(about.get("chooses")), code=code(about["kind"]), example=example(folder, about),
        repo=repo, licence=licence, listed=listed, tables=tables(report), results=report.get("results", {}), said=report.get("said", []),
        environment=report.get("environment", {}), settings=report.get("settings", {}), trainings=trainings(report),
        parts={name: what for name, what in PARTS.items() if (folder / name).exists()},
    )  # fmt: skip
    return f"---\n{metadata(about, report, repo=repo, licence=licence)}---\n\n{text.strip()}\n"


def metadata(about: dict[str, Any], report: dict[str, Any], *, repo: str | None, licence: str | None) -> str:
    """The front matter as YAML, in the Hub's own words. No task of the Hub is recommending, so `pipeline_tag` says what the weights are."""
    from huggingface_hub import EvalResult, ModelCardData

    base, own = about["base"].get("on_hub"), about.get("method_files", False)
    kind = {"item": "generative-recommendation", "answer": "rating" if about.get("rates") else "yes-no"}[about["kind"]]
    first = next(iter(tables(report).items()), None)
    tuned = {} if first is None else first[1].get("tuned model", {})
    name = about["run"]["recipe"]
    results = [
        EvalResult(
            task_type="recommendation", task_name="Recommendation", dataset_type="recommendation-log", dataset_name=f"{name}, {first[0]}" if first else name,
            metric_type=metric, metric_value=round(_mean(value), 6),
        )
        for metric, value in tuned.items()
        if _mean(value) is not None
    ]  # fmt: skip
    data = ModelCardData(
        license=licence, language=None, library_name=None if own else "transformers", base_model=base,
        pipeline_tag=None if own else "text2text-generation" if about.get("encoder_decoder") else "text-generation",
        tags=[*TAGS, kind, *(["semantic-id"] if about.get("codes") else []), *(["sequential-recommendation"] if kind.startswith("gen") else [])],
        metrics=sorted(tuned) or None, model_name=(repo or name) if results else None, eval_results=results or None,
    )  # fmt: skip
    if base:
        data["base_model_relation"] = "adapter" if about["adapter_only"] else "finetune"
    return data.to_yaml() + "\n"


def tables(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """The tables of a report by protocol: row -> metric -> [mean, low, high], or a number; {} where its evaluator reports in another form."""
    results = report.get("results", {})
    found = results.get("protocols") or ({"": results["table"]} if isinstance(results.get("table"), dict) else {})
    return {
        name: table for name, table in found.items()
        if isinstance(table, dict) and table and all(isinstance(row, dict) and row.keys() == next(iter(table.values())).keys() for row in table.values())
    }  # fmt: skip


def trainings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What each training took."""
    measured = report.get("measured", {})
    return [entry for name, entry in measured.items() if name.startswith("training") and isinstance(entry, dict)]


def figure(value: Any) -> str:
    """Four digits, or – for what is not defined."""
    return "–" if value is None or (isinstance(value, float) and math.isnan(value)) else f"{value:.4f}"


def interval(value: Any) -> str:
    """'.1234 [.1200, .1260]' of [mean, low, high], or a number."""
    if isinstance(value, list) and len(value) == 3:
        mean, low, high = map(figure, value)
        return mean if mean == "–" else f"{mean} [{low}, {high}]"
    return figure(value)


def _mean(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def plain_code(run: Run) -> bool:
    """Whether the card's code asks and scores as the run does: prompts of nothing but history and target, and for a run that
    answers, Yes or No by the ratio of their chances."""
    if not set(run.asked.template.arguments("prompt")) <= {"history", "target", "user"}:
        return False
    settings, task = run.asked.rank, run.rows
    if task.judged == "choice":
        return False
    ratio = settings.normaliser == "ratio" and not settings.spellings
    return task.kind == "item" or (ratio and not task.values and run.asked.ranked.history is None)


def code(kind: str) -> str:
    """The functions of `rectune.bundle.plain` that a run of this kind needs, imports first."""
    head = inspect.getsource(exported).partition("\ndef ")[0].partition('"""\n')[2].strip()
    last = exported.recommend if kind == "item" else exported.chance_of_yes
    return "\n\n\n".join(
        [head, *(inspect.getsource(f).strip() for f in (exported.load, exported.read, exported.prompt_ids, last))]
    )


def example(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """A made-up history, the first items of the catalogue (pairs with what is liked for a model that answers), and a `target`: nobody's."""
    ids: list[str] = []
    with (folder / "items.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            ids.append(json.loads(line)["item_id"])
            if len(ids) > SHOWN + OFFERED:
                break
    history: list[Any] = ids[:SHOWN] if len(ids) > SHOWN else ids[:-1]
    offered, ids = ids[-OFFERED:], ids[: SHOWN + 1]
    if about["kind"] != "item":
        history = [(name, n % 2 == 0) for n, name in enumerate(history)]
    return {"history": history, "target": ids[-1], "candidates": offered}
