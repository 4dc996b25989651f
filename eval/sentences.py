"""Figures as text, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rectune.eval.undefined import SAMPLES, defined, need

from rectune.run.judged import HIDDEN

ROUNDING = 1e-12  # what sums of gains that cancel out may leave of 0; far below one user's part of any mean


def number(value: float | None) -> str:
    """Four digits, '.1234'; '–' for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = f"{value:.4f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def signed(value: float | None) -> str:
    """Like `number`, always with a sign."""
    text = number(value)
    return text if text.startswith(("-", "–")) else f"+{text}"


def interval(triple: Sequence[float | None], *, sign: bool = False) -> str:
    """'.1234 [.1200, .1260]' of (value, low, high)."""
    show = signed if sign else number
    return f"{show(triple[0])} [{show(triple[1])}, {show(triple[2])}]"


def compared(against: dict[str, Any], beside: str | None = None) -> str | None:
    """'better', 'worse' or 'not shown to differ', beside a row (the best baseline unless given); None where difference or interval is not defined."""
    other = beside or against["best_baseline"]
    if other is None:
        return None
    return word_of(against["differences"][other], lower_is_better=against.get("lower_is_better", False))


def word_of(difference: Sequence[float | None], *, lower_is_better: bool = False) -> str | None:
    """'better', 'worse' or 'not shown to differ' of (difference, low, high); None where one of them is not defined."""
    if not defined(difference):
        return None
    _, low, high = difference
    assert low is not None
    assert high is not None
    if low <= ROUNDING and high >= -ROUNDING:
        return "not shown to differ"
    return "better" if (low > ROUNDING) != lower_is_better else "worse"


def verdict(against: dict[str, Any], *, row: str = "tuned model") -> str:
    """One sentence: is the row better than the best baseline? Or why that cannot be said."""
    best, metric, word = against["best_baseline"], against["metric"], compared(against)
    none = f"No verdict on the {row} by {metric}:"
    if best is None or not defined(against["differences"][best][0]):
        return f"{none} the figure is not defined, as it needs {need(metric)}."
    value, low, high = against["differences"][best]
    if word is None:
        return f"{none} {signed(value)} beside the best baseline ({best}), but the interval is not defined, as it needs {SAMPLES}."
    return said(row, word, f"the best baseline ({best})", (value, low, high), metric)


def said(row: str, word: str, other: str, difference: Sequence[float], metric: str) -> str:
    """One sentence of a row beside another; `difference`: with its interval."""
    than = f"{word} {'from' if word == 'not shown to differ' else 'than'}"
    value, low, high = map(signed, difference)
    return f"The {row} is {than} {other}: {value} {metric}, 95 % interval {low} to {high}."


def ranking_words(results: dict[str, Any]) -> list[str]:
    """What a ranking run showed, in sentences: beside the best baseline, the prior and the untuned model."""
    tuned, mixed = results["tuned_against"][HIDDEN], (results["mixed_against"] or {}).get(HIDDEN)
    told = [verdict(tuned), *(mixed_verdict(results) if mixed else [])]
    for against, row in ((mixed, "tuned model with the prior"), (tuned, "tuned model")):
        for other in ("prior alone", "untuned model"):
            word = compared(against, other) if against and other in against["differences"] else None
            if word is not None and against is not None and against["best_baseline"] != other:
                told.append(said(row, word, f"the {other}", against["differences"][other], against["metric"]))
    if share := oracle_line(results):
        told.append(share)
    told += earlier_lines(results)
    if (shuffled := results["shuffled_history"]) is not None:
        told.append(
            f"Shuffling the history costs {interval(shuffled['cost'])} {shuffled['metric']} on {shuffled['rows']} rows."
        )
    return told


def choice_words(results: dict[str, Any]) -> list[str]:
    """What a run that chooses among candidates showed, in sentences."""
    tuned, mixed = results["tuned_against"], results["mixed_against"]
    told = [verdict(tuned)]
    if mixed is not None:
        told.append(verdict(mixed, row="tuned model with the prior"))
        told.append(
            f"Prior's weight {results['prior_weight']['weight']:g}, chosen by NDCG@10 on validation rows or as given."
        )
    for against, row in ((mixed, "tuned model with the prior"), (tuned, "tuned model")):
        for other in ("prior alone", "untuned model"):
            word = compared(against, other) if against and other in against["differences"] else None
            if word is not None and against["best_baseline"] != other:
                told.append(said(row, word, f"the {other}", against["differences"][other], against["metric"]))
    least, most = results["candidates"]
    each = f"{least} candidates" if least == most else f"{least} to {most} candidates"
    told.append(f"By chance the hit ratio is {number(results['by_chance'])} ({each} a row).")
    met = results["table"].get("candidates met in training", {}).get("hit ratio@1")
    popular = results["table"].get("popularity", {}).get("hit ratio@1", [0.0])
    if met is not None and met[1] > max(results["by_chance"], popular[0]):
        told.append(
            f"A rule that reads no history hits {interval(met)}: lists of candidates tell their target, because rows with one target share them. A "
            "model can learn the same."
        )
    return told


def earlier_lines(results: dict[str, Any]) -> list[str]:
    """What a run that goes on from another is to be read by: who the untuned model is, which names are new, and what was forgotten."""
    earlier = results.get("earlier")
    if earlier is None:
        return []
    grown = earlier["grown"]
    names = f"{grown['kept']:,} items keep their names and {grown['new']:,} got new ones"
    names += f"; {grown['gone']:,} are no items any more" if grown["gone"] else ""
    told = [f"The run goes on from {earlier['name']}: the untuned model is that one's. {names}."]
    if "rows" not in earlier:
        return told  # it lists no items
    if earlier["leaked"]:
        told.append(
            f"{earlier['leaked']:,} of the {results['rows']:,} test targets are events that the earlier model was tuned on: both models are flattered."
        )
    left = [
        *([f"{earlier['trained']:,} were trained since"] if earlier["trained"] else []),
        *([f"the targets of {earlier['gone']:,} are no items any more"] if earlier["gone"] else []),
    ]
    without = f" ({', '.join(left)})" if left else ""
    if not earlier["rows"]:
        return [*told, f"What it forgot is not known: no test row of the earlier run is left{without}."]
    metric = earlier["metric"]
    found = earlier[metric]
    value, low, high = found["difference"]
    word = "It forgot" if high < 0 else "It is better there by" if low > 0 else "That it forgot is not shown:"
    return [
        *told,
        f"On {earlier['rows']:,} test rows of the earlier run{without} {metric} was {number(found['earlier'][0])} and is "
        f"{number(found['now'][0])}. {word} {signed(value)}, 95 % interval {signed(low)} to {signed(high)}.",
    ]


def oracle_line(results: dict[str, Any]) -> str:
    """How far the tuned model goes from popularity to the oracle, or why that is not defined; '' without an oracle."""
    if "oracle" not in results["protocols"][HIDDEN]:
        return ""
    if results["oracle_share"] is None:
        return "How far the tuned model goes from popularity to the oracle is not defined, as it needs an oracle that is better than popularity."
    return f"The tuned model goes {results['oracle_share']:.0%} of the way from popularity to the oracle."


def mixed_verdict(results: dict[str, Any]) -> list[str]:
    """What the prior beside the model is worth: against the best baseline by NDCG and recall, and how its weight was chosen."""
    against, chosen = results["mixed_against"][HIDDEN], results["prior_weight"]
    best = against["best_baseline"]
    recall = against["recall_differences"][best]
    tried = ", ".join(
        f"{e['weight']:g}: {number(next(value for name, value in e.items() if name.startswith('ndcg@')))}"
        for e in chosen["validation"]
    )
    told = [
        verdict(against, row="tuned model with the prior"),
        f"By recall the difference is {interval(recall, sign=True)}.",
        f"Prior's weight {chosen['weight']:g}" + (f", by NDCG@10 on validation ({tried})." if tried else ", as given."),
    ]
    if tried and chosen["weight"] == max(entry["weight"] for entry in chosen["validation"]):
        told.append("It is the largest weight tried; a larger one may be better (`rank.prior.weight`).")
    return told


def log_lines(results: dict[str, Any]) -> list[str]:
    """What a reader must know of a run that goes on from another, and of the log: what was warned of when it was read, and targets that share their time with another event; and
    which rows were not made by the run."""
    told = [*earlier_lines(results), *(f"The log: {warning}" for warning in results["log"].get("warnings", []))]
    for name, longest in results.get("made_elsewhere", {}).items():
        told.append(f"`{name}` was read from a file; its lists hold up to {longest:,} items, seen ones included.")
    if tied := results["split"].get("test_targets_tied_in_time", 0):
        told.append(
            f"{tied:,} of {results['rows']:,} test targets share their time with the event before: the order of the file decides which is the target."
        )
    return told


def wording_line(wordings: dict[str, Any]) -> str:
    """What the wording of the prompt changes."""
    spread = ", ".join(
        f"{metric} {number(v['mean'])} (lowest {number(v['min'])}, highest {number(v['max'])})"
        for metric, v in wordings.items()
        if metric != "each"
    )
    lacking = "".join(
        f" Not defined (–): {metric}, which needs {need(metric).replace('test row', 'row')} in the sample."
        for metric, v in wordings.items()
        if metric != "each" and not defined(v["mean"])
    )
    return f"Over {len(wordings['each'])} wordings of the prompt, on the same sample: {spread}.{lacking}"


def training_lines(data: dict[str, Any]) -> list[str]:
    """What the stages of a report did on validation rows, where a reader must know of it."""
    stages = data["settings"].get("stages", [])
    return [*unimproved(data["training"], stages), *traded(data["training"], stages)]


def unimproved(training: list[list[dict[str, Any]]], stages: list[dict[str, Any]]) -> list[str]:
    """Where a stage was measured before its first step, and the weights that it kept are no better: a sentence for each. `stages`: their settings.

    By the figure that chooses among its checkpoints, or where nothing does by ndcg@10.
    """
    told = []
    for stage, (log, settings) in enumerate(zip(training, stages, strict=False)):
        evaluations = _evaluations(log)
        if len(evaluations) < 2 or evaluations[0].get("step") != 0:
            continue
        before, kept = evaluations[0], _kept(evaluations, settings)
        name, better = _chosen_by(settings)
        if not settings.get("metric_for_best_model") and "eval_ndcg@10" in before:
            name, better = "eval_ndcg@10", max
        if name in before and name in kept and better(before[name], kept[name]) == before[name]:
            told.append(
                f"Stage {stage} made nothing better: on validation rows {name.removeprefix('eval_')} was {number(before[name])} before its first step and is {number(kept[name])} "
                "with the weights that it kept."
            )
    return told


def traded(training: list[list[dict[str, Any]]], stages: list[dict[str, Any]]) -> list[str]:
    """Where a stage gave up the end of its lists, or much of the catalogue, for their top: a sentence for each stage. `stages`: their
    settings. Its first evaluation beside that of the weights that were kept.

    A recall has fallen where it did so by more than two deviations of a share of `ranked_rows` rows, coverage by more than a tenth.
    """
    told = []
    for stage, (log, settings) in enumerate(zip(training, stages, strict=False)):
        evaluations = [entry for entry in _evaluations(log) if "eval_ndcg@10" in entry]
        if len(evaluations) < 2:
            continue
        first, kept = evaluations[0], _kept(evaluations, settings)
        rows = int(settings.get("ranked_rows", 512))
        fell = [
            k for k in first
            if k.startswith("eval_recall@") and int(k.partition("@")[2]) > 10
            and first[k] - kept[k] > 2 * math.sqrt(first[k] * (1 - first[k]) / rows)
        ]  # fmt: skip
        if "eval_coverage@10" in first and kept["eval_coverage@10"] < 0.9 * first["eval_coverage@10"]:
            fell.append("eval_coverage@10")
        if kept["eval_ndcg@10"] > first["eval_ndcg@10"] and fell:
            lost = " and ".join(
                f"{k.removeprefix('eval_')} fell from {number(first[k])} to {number(kept[k])}" for k in fell
            )
            told.append(
                f"Stage {stage} bought the top of its lists: on validation rows ndcg@10 rose from {number(first['eval_ndcg@10'])} to "
                f"{number(kept['eval_ndcg@10'])} while {lost}."
            )
    return told


def _evaluations(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations of a stage, one a step: its loss and its rankings are written apart."""
    found: dict[Any, dict[str, Any]] = {}
    for entry in log:
        if any(name.startswith("eval_") for name in entry):
            found.setdefault(entry.get("step"), {}).update(entry)
    return list(found.values())


def _kept(evaluations: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """The evaluation of the weights that a stage left: its last ones, or with `load_best_model_at_end` the best of those after a step."""
    name, better = _chosen_by(settings)
    after = [entry for entry in evaluations if entry.get("step") != 0 and name in entry]
    if not settings.get("load_best_model_at_end") or not after:
        return evaluations[-1]
    kept: dict[str, Any] = better(after, key=lambda entry: entry[name])
    return kept


def _chosen_by(settings: dict[str, Any]) -> tuple[str, Callable[..., Any]]:
    """By which figure of its evaluations a stage chooses among its checkpoints, and which of two is better."""
    name = f"eval_{str(settings.get('metric_for_best_model') or 'loss').removeprefix('eval_')}"
    greater = settings.get("greater_is_better")
    return name, max if (not name.endswith("loss") if greater is None else greater) else min


def measured_line(measured: dict[str, Any]) -> str:
    """How long each part of a run took."""
    steps = [
        f"{name} {entry['seconds']:.0f} s"
        for name, entry in measured.items()
        if isinstance(entry, dict)
        and "seconds" in entry
        and (entry["seconds"] >= 0.5 or not name.startswith("baseline"))
    ]
    return "Took: " + "; ".join(steps) + "."


def training_took(entry: dict[str, Any]) -> str:
    """Memory and speed of a training, 'planned 1.20 GB, measured 1.11 GB; …', or '' for another step."""
    if "peak_gb" not in entry:
        return ""
    planned = f"planned {entry['planned_gb']:.2f} GB, " if "planned_gb" in entry else ""
    speed = (
        f"; {entry['tokens_per_second']:,.0f} tokens/s, {entry['steps_per_second']:.2f} steps/s over {entry['steps_measured']:,} steps"
        if "tokens_per_second" in entry
        else ""
    )
    again = f" in {entry['attempts']} attempts" if entry["attempts"] > 1 else ""
    return f"{planned}measured {entry['peak_gb']:.2f} GB at its peak{speed}{again}"
