"""The report as a table for the console and as one HTML page that opens offline."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from rectune.eval.undefined import SAMPLES, defined, need, undefined

from rectune.run.judged import HIDDEN, SAMPLED

ROUNDING = 1e-12  # what sums of gains that cancel out may leave of 0; far below one user's part of any mean
COLOURS = ("#8aa4c8", "#b9bec7", "#d1603d")  # best baseline, untuned, tuned


def page(data: dict[str, Any], figures: dict[str, str], *, kind: str) -> str:
    """Render the page; `figures` are SVG texts by title."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=number, interval=interval, signed=signed, took=training_took, compared=compared, verdict=verdict
    )
    environment.globals.update(undefined=undefined)
    source = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        data=data,
        figures=figures,
        kind=kind,
        recipe_text=_yaml(data["settings"]),
        mixed=mixed_verdict(data["results"]) if data["results"].get("mixed_against") else [],
        share=oracle_line(data["results"]) if kind == "ranking" else "",
        traded=traded(data["training"], data["settings"].get("stages", [])) if kind == "ranking" else [],
        about_log=log_lines(data["results"]),
        worded=wording_line(data["results"]["wordings"]) if data["results"].get("wordings") else "",
    )


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


def _yaml(settings: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=110))


# ------------------------------------------------------------------------------------------------------------ console


def ranking_text(data: dict[str, Any]) -> str:
    """The tables of both protocols, the verdict, and what it took."""
    results = data["results"]
    parts = [
        f"{data['recipe']}: {results['log']['users']:,} users, {results['log']['items']:,} items, {results['log']['events']:,} events; "
        f"{results['rows']:,} test rows, full ranking, {results['beams']} beams, scores: {results['scores']}"
    ]
    for protocol, table in results["protocols"].items():
        against = results["tuned_against"][protocol]
        parts += [_ranking_table(protocol, table, against), *undefined(table, results)]
    if (sampled := results.get(SAMPLED)) is not None:
        parts.append(_ranking_table(sampled["heading"], sampled["table"], sampled["tuned_against"]))
    parts.append(verdict(results["tuned_against"][HIDDEN]))
    if results["mixed_against"] is not None:
        parts += mixed_verdict(results)
    if share := oracle_line(results):
        parts.append(share)
    if results["shuffled_history"] is not None:
        shuffled = results["shuffled_history"]
        parts.append(
            f"Shuffling the history costs {interval(shuffled['cost'])} {shuffled['metric']} on {shuffled['rows']} rows."
        )
    if results["wordings"] is not None:
        parts.append(wording_line(results["wordings"]))
    proven = results["proven_exact"][HIDDEN]["tuned model"]
    parts.append(f"{proven:.1%} of the tuned model's lists are proven to be its exact top {results['beams']}.")
    parts += [*traded(data["training"], data["settings"].get("stages", [])), *log_lines(results)]
    parts.append(_took(data["measured"]))
    return "\n".join(parts)


def _ranking_table(protocol: str, table: dict[str, Any], against: dict[str, Any]) -> str:
    columns = list(next(iter(table.values())))
    rows = []
    for name, entry in table.items():
        cells = [number(v[0] if isinstance(v, list | tuple) else v) for v in entry.values()]
        difference = against["differences"].get(name)
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    return text_table(protocol, ["", *columns, f"tuned minus it, {against['metric']}"], rows)


def answer_text(data: dict[str, Any]) -> str:
    """The table of a Yes/No run, the verdict, and what it took."""
    results = data["results"]
    rows = []
    for name, entry in results["table"].items():
        difference = results["tuned_against"]["differences"].get(name)
        cells = [interval(entry["auc"]), interval(entry["user_auc"])]
        cells += [number(entry[m]) for m in ("log_loss", "calibration_error")]
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    title = f"{data['recipe']}: {results['rows']:,} test rows of {results['users']:,} users, {results['share_liked']:.1%} liked"
    table = text_table(title, ["", "auc", "user auc", "log loss", "calibration", "tuned minus it, auc"], rows)
    parts = [
        table,
        *undefined(results["table"], results),
        verdict(results["tuned_against"]),
        f"Within users: {verdict(results['tuned_against_within_users'])}",
    ]
    if results["wordings"] is not None:
        parts.append(wording_line(results["wordings"]))
    return "\n".join([*parts, *log_lines(results), _took(data["measured"])])


def rating_text(data: dict[str, Any]) -> str:
    """The table of a rating run, the verdict, and what it took."""
    results = data["results"]
    rows = []
    for name, entry in results["table"].items():
        difference = results["tuned_against"]["differences"].get(name)
        cells = [interval(entry["rmse"]), interval(entry["mae"]), number(entry["accuracy"]), number(entry["auc"])]
        rows.append([name, *cells, interval(difference, sign=True) if difference else ""])
    title = f"{data['recipe']}: {results['rows']:,} test rows of {results['users']:,} users, mean rating {results['mean_given']:.2f}"
    liked = f"auc, above {results['like_above']:g}"
    table = text_table(title, ["", "rmse", "mae", "accuracy", liked, "tuned minus it, rmse"], rows)
    lacking = undefined(results["table"], results)
    return "\n".join([table, *lacking, verdict(results["tuned_against"]), *log_lines(results), _took(data["measured"])])


def text_table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A plain table: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        title,
        "  ".join(h.ljust(w) if i == 0 else h.rjust(w) for i, (h, w) in enumerate(zip(head, widths, strict=True))),
    ]
    lines.append("  ".join("-" * w for w in widths))
    lines += [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n" + "\n".join(line.rstrip() for line in lines)


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
    if (shuffled := results["shuffled_history"]) is not None:
        told.append(
            f"Shuffling the history costs {interval(shuffled['cost'])} {shuffled['metric']} on {shuffled['rows']} rows."
        )
    return told


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
    """What a reader must know of the log: what was warned of when it was read, and targets that share their time with another event; and
    which rows were not made by the run."""
    told = [f"The log: {warning}" for warning in results["log"].get("warnings", [])]
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


def traded(training: list[list[dict[str, Any]]], stages: list[dict[str, Any]]) -> list[str]:
    """Where a stage gave up the end of its lists, or much of the catalogue, for their top: a sentence for each stage. `stages`: their
    settings. Its first evaluation beside that of the weights that were kept.

    A recall has fallen where it did so by more than two deviations of a share of `ranked_rows` rows, coverage by more than a tenth.
    """
    told = []
    for stage, (log, settings) in enumerate(zip(training, stages, strict=False)):
        evaluations = [entry for entry in log if "eval_ndcg@10" in entry]
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


def _kept(evaluations: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """The evaluation of the weights that a stage left: its last ones, or with `load_best_model_at_end` the best."""
    name = f"eval_{str(settings.get('metric_for_best_model') or 'loss').removeprefix('eval_')}"
    if not settings.get("load_best_model_at_end") or any(name not in entry for entry in evaluations):
        return evaluations[-1]
    greater = settings.get("greater_is_better", not name.endswith("loss"))
    return (max if greater else min)(evaluations, key=lambda entry: entry[name])


def _took(measured: dict[str, Any]) -> str:
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


# ------------------------------------------------------------------------------------------------------------ figures


def ranking_figures(data: dict[str, Any]) -> dict[str, str]:
    """Learning curves and recall by history length and by target popularity, as SVG."""
    figures = _curves(data["training"])
    if fit := data["results"]["index_health"].get("training"):
        figures["The index while it was fitted"] = _fit_curves(fit)
    for title, key, label in (
        ("Recall by history length", "recall_by_history_length", "events before the target"),
        ("Recall by target popularity", "recall_by_target_popularity", "training events of the target"),
    ):
        figures[title] = _bars(data["results"][key], label)
    return figures


def answer_figures(
    data: dict[str, Any], chances: dict[str, NDArray[np.float64]], liked: NDArray[np.int64]
) -> dict[str, str]:
    """Learning curves and the calibration of the tuned model, as SVG."""
    figures = _curves(data["training"])
    p = chances["tuned model"]
    which = np.minimum((p * 10).astype(int), 9)
    count = np.bincount(which, minlength=10)
    stated = np.bincount(which, weights=p, minlength=10)[count > 0] / count[count > 0]
    came = np.bincount(which, weights=liked, minlength=10)[count > 0] / count[count > 0]
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color="#b9bec7", linewidth=1)
    axes.plot(stated, came, marker="o", color=COLOURS[2])
    axes.set(xlabel="stated chance of a like", ylabel="share liked", xlim=(0, 1), ylim=(0, 1))
    for x, y, rows in zip(stated, came, count[count > 0], strict=True):
        axes.annotate(f"{rows:,}", (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7)
    figures["Calibration of the tuned model (rows at each point)"] = svg(figure)
    return figures


def rating_figures(
    data: dict[str, Any], predicted: dict[str, NDArray[np.float64]], given: NDArray[np.float64]
) -> dict[str, str]:
    """Learning curves, and what was predicted where each rating was given, as SVG."""
    figures = _curves(data["training"])
    best = data["results"]["tuned_against"]["best_baseline"]
    values = np.unique(given)
    figure, axes = new_figure()
    axes.plot(values, values, color="#b9bec7", linewidth=1)
    for name, colour in ((best, COLOURS[0]), ("tuned model", COLOURS[2])):
        axes.plot(values, [predicted[name][given == v].mean() for v in values], marker="o", color=colour, label=name)
    axes.set(xlabel="rating given", ylabel="mean prediction")
    axes.legend(frameon=False, fontsize=8)
    figures["Predictions by the rating given"] = svg(figure)
    return figures


def _curves(training: list[list[dict[str, Any]]]) -> dict[str, str]:
    figures: dict[str, str] = {}
    for stage, log in enumerate(training):
        suffix = f" (stage {stage})" if len(training) > 1 else ""
        figure, axes = new_figure()
        for key, label, colour in (("loss", "training", COLOURS[0]), ("eval_loss", "validation", COLOURS[2])):
            points = [(e["step"], e[key]) for e in log if key in e]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, color=colour)
        axes.set(xlabel="step", ylabel="loss")
        if axes.lines:
            axes.legend(frameon=False)
        figures[f"Loss{suffix}"] = svg(figure)
        metrics = sorted({k for e in log for k in e if "@" in k or k in ("eval_auc", "eval_rmse")})
        if metrics:
            figure, axes = new_figure()
            for key in metrics:
                points = [(e["step"], e[key]) for e in log if key in e]
                axes.plot(*zip(*points, strict=True), label=key.removeprefix("eval_"), marker="o", markersize=3)
            axes.set(xlabel="step", ylabel="on validation rows", ylim=(0, None))
            axes.legend(frameon=False)
            figures[f"Ranking during training{suffix}"] = svg(figure)
    return figures


def _fit_curves(fit: dict[str, list[float]]) -> str:
    """Losses of an RQ-VAE by epoch, and how many items shared a name."""
    figure, axes = new_figure()
    for name, colour in (("reconstruction", COLOURS[0]), ("quantisation", COLOURS[2])):
        axes.plot(fit["epoch"], fit[name], label=name, color=colour)
    axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    other = axes.twinx()
    other.plot(fit["epoch"], fit["colliding_items"], label="items that share a name", color=COLOURS[1])
    other.set(ylim=(0, None))
    axes.legend(handles=[*axes.lines, *other.lines], frameon=False, fontsize=8)
    return svg(figure)


def _bars(groups: list[dict[str, Any]], label: str) -> str:
    figure, axes = new_figure()
    names = [key for key in groups[0] if key not in ("from", "to", "rows")] if groups else []
    place = np.arange(len(groups))
    for i, name in enumerate(names):
        axes.bar(place + (i - 1) * 0.27, [g[name] for g in groups], width=0.25, label=name, color=COLOURS[i % 3])
    axes.set_xticks(place, [f"{g['from']:.0f}–{g['to']:.0f}\n({g['rows']:,} rows)" for g in groups])
    axes.set(xlabel=label, ylabel="recall, seen items hidden")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8)
    return svg(figure)


def new_figure() -> tuple[Any, Any]:
    """An empty figure of the report's size, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Any) -> str:
    """A figure as SVG text, the same for the same figure."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "rectune", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
