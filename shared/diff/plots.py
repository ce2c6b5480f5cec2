"""The pictures of an outcome: curves of a result, differences per task, power; first difference and growth of numbers.

Each function returns a Plot (PNG). Style of shared/figures; nothing here decides anything.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from shared.diff import statistics
from shared.diff.outcome import Plot
from shared.diff.rule import LEAST_SEEDS, WEAKNESSES, band, power
from shared.figures.page import human, styled

OURS, REFERENCE, QUIET = "#1B6CA8", "#B5541C", "#777777"
COLUMNS = 4  # panels beside each other
DPI = 130
TINY = 1e-17  # a difference of nothing, on a logarithmic axis


def finished(figure: Figure, title: str, caption: str) -> Plot:
    """The figure as a Plot."""
    target = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(target, format="png", dpi=DPI, metadata={"Software": None})
    return Plot(title, target.getvalue(), caption)


def curves_plot(pairs: Sequence[Any], ours: str, reference: str) -> Plot:
    """A panel per task: every seed thin, the mean thick, the band for the mean of our seeds at the end."""
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    with styled():
        figure = Figure(figsize=(max(2.1 * columns, 4.2), 1.65 * rows + 0.6))
        for place, p in enumerate(pairs):
            axes = figure.add_subplot(rows, columns, place + 1)
            for curves, color in ((p.reference, REFERENCE), (p.ours, OURS)):
                axes.plot(curves.edges, curves.values.T, color=color, linewidth=0.5, alpha=0.4)
                seen = ~np.isnan(curves.values).all(axis=0)  # a bin without any test has no mean
                axes.plot(curves.edges[seen], np.nanmean(curves.values[:, seen], axis=0), color=color, linewidth=1.6)
            if len(p.reference.final) >= LEAST_SEEDS:
                low, high = band(p.reference.final, len(p.ours.final), p.reference.start)
                axes.plot([p.ours.edges[-1]] * 2, [low, high], color=REFERENCE, linewidth=4, alpha=0.35)
            axes.set_title(p.task, fontsize=7)
            axes.xaxis.set_major_formatter(lambda x, _: human(x))
            axes.tick_params(labelsize=5.5)
        figure.tight_layout()
        caption = (
            f"Blue: {ours}. Orange: {reference}. Return over env steps on the common grid: every seed thin, the mean "
            "thick. The bar at the end is the band in which the mean of as many further reference seeds would fall."
        )
        return finished(figure, "Learning curves", caption)


def forest_plot(pairs: Sequence[Any], ours: str, reference: str) -> Plot:
    """Difference of final scores per task with its interval, in the reference's spread, and P(better)."""
    with styled():
        figure = Figure(figsize=(7.0, 0.22 * len(pairs) + 0.9))
        left, right = figure.subplots(1, 2, sharey=True)
        for place, p in enumerate(reversed(list(pairs))):
            for axes, statistic in (
                (left, statistics.difference(statistics.mean)),
                (right, statistics.improvement),
            ):
                value, low, high = statistics.estimate([p.ours.final], [p.reference.final], statistic)
                if not math.isnan(low):
                    axes.plot([low, high], [place, place], color=OURS, linewidth=1.2)
                axes.plot([value], [place], "o", color=OURS, markersize=3)
        left.axvline(0, color=QUIET, linewidth=0.6)
        right.axvline(0.5, color=QUIET, linewidth=0.6)
        left.set_yticks(range(len(pairs)), [p.task for p in reversed(list(pairs))], fontsize=5.5)
        left.set_xlabel("final return, ours minus reference", fontsize=6)
        right.set_xlabel("probability that a run of ours scores higher", fontsize=6)
        right.set_xlim(-0.03, 1.03)
        figure.tight_layout()
        return finished(
            figure, "Differences", f"{ours} against {reference}: 95% intervals, seeds drawn anew (bootstrap)."
        )


def power_plot(pairs: Sequence[Any], ours: str, reference: str) -> Plot | None:
    """How likely the rule notices a weaker learner, per number of seeds (median over tasks); None without seeds."""
    judged = [p for p in pairs if len(p.reference.final) >= LEAST_SEEDS]
    if not judged:
        return None
    with styled():
        figure = Figure(figsize=(4.2, 2.4))
        axes = figure.subplots()
        seeds = (1, 2, 3, 5, 10)
        for weakness in WEAKNESSES:
            chances = [
                np.median([power(p.reference.final, k, p.reference.start, weakness) for p in judged])
                for k in seeds
            ]
            axes.plot(seeds, chances, marker="o", markersize=2.5, label=f"{weakness:.0%} less gain")
        axes.axhline(0.8, color=QUIET, linewidth=0.6, linestyle=":")
        axes.set_xlabel("our seeds", fontsize=6)
        axes.set_ylabel("chance of 'below'", fontsize=6)
        axes.set_ylim(-0.03, 1.03)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=5.5, frameon=False)
        figure.tight_layout()
        return finished(figure, "Power", f"What the rule would notice of {ours} on one task, by seeds.")


def walk_plot(names: Sequence[str], relative: Sequence[float], tolerance: float, first: int | None) -> Plot:
    """Relative difference at every place of the walk, in order; the first beyond tolerance marked."""
    with styled():
        figure = Figure(figsize=(7.0, 2.6))
        axes = figure.subplots()
        values = np.clip(np.nan_to_num(np.asarray(relative, float), posinf=1e3), TINY, 1e3)
        axes.semilogy(range(len(values)), values, ".", markersize=3, color=OURS)
        axes.axhline(tolerance, color=QUIET, linewidth=0.6, linestyle=":")
        if first is not None:
            axes.plot([first], [values[first]], "o", markersize=7, markerfacecolor="none", color=REFERENCE)
            axes.annotate(names[first], (first, values[first]), fontsize=6, color=REFERENCE, xytext=(4, 6),
                          textcoords="offset points")  # fmt: skip
        groups = [name.split(" / ")[0] for name in names]
        starts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
        starts = [i for n, i in enumerate(starts) if n == 0 or i - starts[n - 1] > len(names) / 40]  # labels need room
        axes.set_xticks(starts, [groups[i] for i in starts], fontsize=5, rotation=35, ha="right")
        axes.set_ylabel("largest difference / largest entry", fontsize=6)
        axes.tick_params(axis="y", labelsize=6)
        figure.tight_layout()
        return finished(figure, "The walk", "Every tensor in the order of the computation; dotted: the tolerance.")


def growth_plot(growth: Mapping[str, Mapping[int, float]]) -> Plot:
    """How losses, gradients and parameters part over updates."""
    with styled():
        figure = Figure(figsize=(4.2, 2.4))
        axes = figure.subplots()
        for kind, values in growth.items():
            axes.loglog(list(values), [max(v, TINY) if math.isfinite(v) else 1e3 for v in values.values()],
                        marker="o", markersize=2.5, label=kind)  # fmt: skip
        axes.set_xlabel("update", fontsize=6)
        axes.set_ylabel("largest relative difference", fontsize=6)
        axes.tick_params(labelsize=6)
        axes.legend(fontsize=5.5, frameon=False)
        figure.tight_layout()
        return finished(
            figure, "Growth", "The same batch and noise at every update, so all growth is the difference's own."
        )
