"""The figures of a report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = ("#8aa4c8", "#b9bec7", "#d1603d")  # best baseline, untuned, tuned
GROUPS = {
    "reward": "reward", "rollouts/hit": "groups with their target", "rollouts/hinted": "groups with a hint",
    "frac_reward_zero_std": "groups without signal",
}  # fmt: skip
POLICY = {"kl": "KL to the stage's first weights", "entropy": "entropy"}


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


def choice_figures(data: dict[str, Any]) -> dict[str, str]:
    """Learning curves, as SVG."""
    return _curves(data["training"])


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
    """Losses and ranking metrics of each stage by step, and of reinforcement what its groups were worth."""
    figures: dict[str, str] = {}
    for stage, log in enumerate(training):
        metrics = sorted({k for e in log for k in e if "@" in k or k in ("eval_auc", "eval_rmse")})
        drawn = {
            "Loss": _by_step(
                log, {"loss": "training", "eval_loss": "validation"}, "loss", colours=(COLOURS[0], COLOURS[2])
            ),
            "Ranking during training": _by_step(
                log, {key: key.removeprefix("eval_") for key in metrics}, "on validation rows", low=0
            ),
            "Groups": _by_step(log, GROUPS, "mean of a step"),
            "Policy": _by_step(log, POLICY, "a token", low=0),
        }
        suffix = f" (stage {stage})" if len(training) > 1 else ""
        figures |= {f"{name}{suffix}": figure for name, figure in drawn.items() if figure}
    return figures


def _by_step(
    log: list[dict[str, Any]],
    keys: dict[str, str],
    label: str,
    *,
    low: float | None = None,
    colours: Sequence[str] | None = None,
) -> str:
    """Lines of what a log holds of some keys, by step; nothing where it holds none of them."""
    columns = {key: [(e["step"], e[key]) for e in log if e.get(key) is not None] for key in keys}
    if not any(columns.values()):
        return ""
    figure, axes = new_figure()
    for (key, points), colour in zip(columns.items(), colours or [None] * len(columns), strict=True):
        if points:
            marker = "o" if key.startswith("eval_") and "@" in key else None
            axes.plot(*zip(*points, strict=True), label=keys[key], color=colour, marker=marker, markersize=3)
    axes.set(xlabel="step", ylabel=label)
    if low is not None:
        axes.set(ylim=(low, None))
    axes.legend(frameon=False)
    return svg(figure)


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
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "rectune", "svg.fonttype": "none"}):
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        # `savefig` would lay it out and draw it once more
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
