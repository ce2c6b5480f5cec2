"""Learning curves of runs that play one test episode at a time: bins of env steps, a mean per run, statistics of runs.

First every run is averaged within each bin, then the runs: their mean is the line, one standard deviation the band. So
Dreamer's authors drew their curves. curves.py draws the points; it has the statistics of pooled episodes instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from shared.figures.aggregate import deviation_band, mean, seed_interval
from shared.figures.curves import COUNTS, POINT, evaluations
from shared.figures.sources import Source

BINS = 50  # of a planned run: 100,000 env steps each at five million


@dataclass(frozen=True)
class SeedMeans:
    """How a run's returns become points: one per `width` env steps, the first evaluation for itself."""

    width: int
    last: float = math.inf  # env steps; later evaluations are left out
    name: str = "mean"
    episodes: Callable[[Source], pd.DataFrame] = evaluations  # whose returns: tests, or curves.collected

    @staticmethod
    def center(returns: np.ndarray) -> float:
        return mean(returns)

    def curve(self, sources: Sequence[Source]) -> pd.DataFrame:
        """The points of one method, as shared.figures.curves.learning_curve returns them."""
        tables = [self.episodes(source) for source in sources]
        tables = [table[table["env_steps"] <= self.last] for table in tables if len(table)]
        if not any(map(len, tables)):
            return pd.DataFrame(columns=[*POINT, *COUNTS])
        unfinished = {source.seed for source in sources if not source.complete}
        return seed_means(pd.concat(tables, ignore_index=True), self.width, len(sources), unfinished)


def bin_width(sources: Sequence[Source], otherwise: int = 1) -> int:
    """Env steps of a bin of these runs: their longest planned length over BINS; `otherwise` without runs."""
    return max((source.total_env_steps // BINS for source in sources), default=otherwise) or 1


def last_bin(sources: Sequence[Source]) -> int:
    """Env steps from the left edge of the last bin of these runs' curve to their last test, at least 1.

    Tests less than so many env steps before the last one are those of the bin, which make a final score.
    """
    tables = [table for source in sources if len(table := evaluations(source))]
    if not tables:
        return 1
    steps, width = pd.concat(tables)["env_steps"], bin_width(sources)
    passed = int(steps.max() - steps.min())
    return passed - (math.ceil(passed / width) - 1) * width


def seed_means(returns: pd.DataFrame, width: int, runs: int, unfinished: set[int] = frozenset()) -> pd.DataFrame:
    """Mean per run and bin, then over runs.

    Bin 0 is the first evaluation of all; bin k holds env steps x with first + (k - 1) width < x <= first + k width and
    is drawn at its right edge, or at the last evaluation of all where that comes first; a bin whose evaluations all
    are of one moment, as in short runs, is drawn there.

    Args:
        returns: a row per test episode: task, seed, episodes, env_steps, return.
        runs: how many there should be at every point.
        unfinished: seeds whose runs go on.
    Returns: columns seed ("all", or one), episodes, env_steps, center, low, high (one standard deviation over runs,
        divided by their number; NaN for one run), interval_low, interval_high (of the last point's center, drawing
        runs), tasks, seeds, returns, dashed.
    Source: danijar/dreamer @ 56d4d44, plotting.py:173-219.
    """
    first, last = returns["env_steps"].min(), returns["env_steps"].max()
    number = np.ceil((returns["env_steps"] - first) / width).astype(int)
    per_run = (
        returns.assign(bin=number)
        .groupby(["task", "seed", "bin"], sort=True)
        .agg(
            center=("return", "mean"),
            returns=("return", "size"),
            episodes=("episodes", "max"),
            earliest=("env_steps", "min"),
            latest=("env_steps", "max"),
        )
        .reset_index()
    )

    def place(index: int, group: pd.DataFrame) -> int:
        at = group["latest"].max()
        return at if group["earliest"].min() == at else min(first + index * width, last)

    rows = []
    for index, group in per_run.groupby("bin", sort=True):
        at = place(index, group)
        rows.append({**_point("all", group, at), "dashed": len(group) < runs or len(unfinished) >= runs})
    final = per_run.loc[per_run["bin"] == per_run["bin"].max(), "center"].to_numpy()
    rows[-1]["interval_low"], rows[-1]["interval_high"] = seed_interval([final[:, None]], mean)
    for (seed, index), group in per_run.groupby(["seed", "bin"], sort=True):
        at = place(index, group)
        rows.append({**_point(str(seed), group, at), "dashed": seed in unfinished})
    return pd.DataFrame(rows, columns=[*POINT, *COUNTS])


def _point(seed: str, group: pd.DataFrame, env_steps: int) -> dict[str, object]:
    """One point from the means of its runs."""
    means = group["center"].to_numpy()
    low, high = deviation_band(means) if len(means) > 1 else (math.nan, math.nan)
    return {
        "seed": seed,
        "episodes": float(group["episodes"].median()),
        "env_steps": float(env_steps),
        "center": mean(means),
        "low": low,
        "high": high,
        "interval_low": math.nan,
        "interval_high": math.nan,
        "tasks": group["task"].nunique(),
        "seeds": group["seed"].nunique(),
        "returns": int(group["returns"].sum()),
    }
