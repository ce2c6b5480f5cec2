"""Curves of two groups on one grid of env steps, and the numbers of a run: its curve, final score, area and speed.

A bin holds what lies in (left, right]; a run that has nothing in a bin keeps the value before it, as the authors'
tables do with runs that stopped early. The grid ends where the shorter side ends.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

BINS = 25  # at most
FINAL_SHARE = 0.1  # of the grid, at its end: what a final score is the mean of
THRESHOLD_SHARE = 0.8  # of what B gains from its first bin to its end: the return to be reached


@dataclass(frozen=True)
class Curves:
    """Runs of one task on a grid. edges: (G,) right borders, env steps. values: (S, G), NaN before a run's first."""

    task: str
    edges: np.ndarray
    values: np.ndarray
    short: int  # runs that ended before the grid's last bin

    @property
    def final(self) -> np.ndarray:
        """Per run, (S,): mean return over the last tenth of the grid."""
        return np.nanmean(self.values[:, -max(1, round(FINAL_SHARE * len(self.edges))) :], axis=1)

    @property
    def area(self) -> np.ndarray:
        """Per run, (S,): area under the curve over the length of the grid: the mean return on the way, in reward."""
        return np.nanmean(self.values, axis=1)

    @property
    def start(self) -> float:
        """Mean over runs of their first values."""
        first = [row[np.isfinite(row)][0] for row in self.values if np.isfinite(row).any()]
        return float(np.mean(first))

    def reach(self, threshold: float) -> np.ndarray:
        """Per run, (S,): env steps at which the curve is first at or above threshold; infinite if never."""
        above = np.nan_to_num(self.values, nan=-np.inf) >= threshold
        return np.where(above.any(axis=1), self.edges[above.argmax(axis=1)], np.inf)


def horizon(points: pd.DataFrame) -> float:
    """Env steps up to which a group's runs of one task go (median over seeds)."""
    return float(points.groupby("seed")["env_steps"].max().median())


def edges_for(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """Right borders of the common grid: at most BINS, no finer than the sparser side's points."""
    end = min(horizon(one), horizon(other))
    counts = [points[points["env_steps"] <= end].groupby("seed").size().median() for points in (one, other)]
    bins = int(np.clip(min(counts), 1, BINS))
    return np.linspace(end / bins, end, bins)


def on_grid(task: str, points: pd.DataFrame, edges: np.ndarray) -> Curves:
    """The runs of one task on a grid. points: seed, env_steps, return."""
    place = np.searchsorted(edges, points["env_steps"].to_numpy() * (1 - 1e-12), side="left")
    kept = points.assign(bin=place)[place < len(edges)]
    means = kept.groupby(["seed", "bin"])["return"].mean().unstack("bin")
    table = means.reindex(columns=range(len(edges)))
    ended = int(table.iloc[:, -1].isna().sum())
    return Curves(task, edges, table.ffill(axis=1).to_numpy(dtype=np.float64), ended)


def pair(task: str, a: pd.DataFrame, b: pd.DataFrame) -> tuple[Curves, Curves]:
    """Both sides of one task on their common grid."""
    a, b = (points[points["task"] == task] for points in (a, b))
    edges = edges_for(a, b)
    return on_grid(task, a, edges), on_grid(task, b, edges)


def threshold(reference: Curves) -> float:
    """The return that counts as learned: THRESHOLD_SHARE of the way from the reference's start to its end."""
    return reference.start + THRESHOLD_SHARE * (float(np.mean(reference.final)) - reference.start)
