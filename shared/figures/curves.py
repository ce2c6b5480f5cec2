"""Learning curves of a few seeds: the numbers behind a curve, and how they are drawn.

A point of a curve is an evaluation: the returns of its episodes, pooled over seeds. aggregate.py has the statistics.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from shared.figures.aggregate import bin_to_grid, median, percentile_band
from shared.figures.page import human
from shared.figures.sources import Source

FEW_SEEDS = 5  # below the published number of seeds every seed is drawn for itself
FEW_POINTS = 12  # up to here points are marked, so that a short curve is not a stroke


def evaluations(source: Source) -> pd.DataFrame:
    """Test episodes of one run: columns seed, episodes (collected so far), env_steps, updates, return."""
    table = source.run.tables["eval/episode"]
    if table.empty:
        return pd.DataFrame(columns=["seed", "episodes", "env_steps", "updates", "return"])
    ends = np.sort(source.run.tables["train/episode"]["env_steps"].to_numpy())
    steps = table["env_steps"].to_numpy()
    return pd.DataFrame(
        {
            "seed": source.seed,
            "episodes": np.searchsorted(ends, steps, side="right"),
            "env_steps": steps,
            "updates": table["updates"].to_numpy(),
            "return": table["return"].to_numpy(dtype=np.float64),
        }
    )


def random_returns(source: Source) -> np.ndarray:
    """Returns of the episodes that the random prefill collected, (E,)."""
    table = source.run.tables["train/episode"]
    if table.empty:
        return np.empty(0)
    prefill = source.values["schedule"]["prefill_env_steps"]
    return table.loc[table["env_steps"] <= prefill, "return"].to_numpy(dtype=np.float64)


def env_steps_per_episode(source: Source) -> float:
    """Simulator steps of one collected episode (median); NaN before the first one ends."""
    table = source.run.tables["train/episode"]
    steps = np.diff(np.sort(table["env_steps"].to_numpy()), prepend=0) if len(table) else np.empty(0)
    return median(steps) if len(steps) else float("nan")


def learning_curve(sources: Sequence[Source], low: float = 5, high: float = 95) -> pd.DataFrame:
    """The points of one method on one task, for the pooled seeds and for each seed.

    Evaluations of different seeds belong to one point when they are nearest to the same evaluation of the seed that
    was evaluated most often; where all seeds are evaluated at equal env steps, as in tasks of fixed length, this pools
    equal steps. A row with seed "all" pools the returns of the seeds that have got there: median and percentiles low,
    high. A row of one seed summarises its own evaluation episodes.

    Returns columns: seed, episodes, env_steps, median, low, high, seeds (pooled), returns (pooled), dashed (some seed
    of the curve is missing at this point, or the seed's run is unfinished).
    """
    tables = [table for table in map(evaluations, sources) if len(table)]
    columns = ["seed", "episodes", "env_steps", "median", "low", "high", "seeds", "returns", "dashed"]
    if not tables:
        return pd.DataFrame(columns=columns)
    grid = max((np.unique(table["env_steps"]) for table in tables), key=len)
    points = pd.concat(tables, ignore_index=True)
    points["point"] = bin_to_grid(points["env_steps"].to_numpy(), grid)
    unfinished = {source.seed for source in sources if not source.complete}
    nothing_finished = len(unfinished) == len(sources)
    rows = []
    for _, group in points.groupby("point", sort=True):
        present = group["seed"].nunique()
        rows.append(_row("all", group, low, high, dashed=present < len(sources) or nothing_finished))
    for (seed, _), group in points.groupby(["seed", "point"], sort=True):
        rows.append(_row(str(seed), group, low, high, dashed=seed in unfinished))
    return pd.DataFrame(rows, columns=columns)


def _row(seed: str, group: pd.DataFrame, low: float, high: float, *, dashed: bool) -> dict[str, object]:
    """One point: the statistics of the returns in group."""
    returns = group["return"].to_numpy()
    lower, upper = percentile_band(returns, low, high)
    return {
        "seed": seed,
        "episodes": float(group["episodes"].median()),
        "env_steps": float(group["env_steps"].median()),
        "median": median(returns),
        "low": lower,
        "high": upper,
        "seeds": group["seed"].nunique(),
        "returns": len(returns),
        "dashed": dashed,
    }


def draw_curve(axes: Axes, points: pd.DataFrame, color: str) -> None:
    """Band and median over all seeds; below FEW_SEEDS, or with unfinished runs, each seed as a thin line too."""
    if points.empty:
        return
    pooled = points[points["seed"] == "all"]
    marker = "o" if len(pooled) <= FEW_POINTS else None
    axes.fill_between(pooled["episodes"], pooled["low"], pooled["high"], color=color, alpha=0.18, linewidth=0)
    single = points[points["seed"] != "all"]
    seeds = single["seed"].nunique()
    if seeds > 1 and (seeds < FEW_SEEDS or single["dashed"].any()):
        for _, line in single.groupby("seed"):
            _stroke(axes, line, color, linewidth=0.5, alpha=0.7)
    _stroke(axes, pooled, color, marker=marker, markersize=2.6, zorder=3, clip_on=marker is None)


def _stroke(axes: Axes, line: pd.DataFrame, color: str, **style) -> None:
    """A line that is dashed on the stretches whose later point is dashed."""
    x, y = line["episodes"].to_numpy(dtype=float), line["median"].to_numpy(dtype=float)
    dashed = line["dashed"].to_numpy(dtype=bool)
    starts = [0, *(i for i in range(1, len(x)) if dashed[i] != dashed[i - 1]), len(x)]
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        first = max(start - 1, 0)
        axes.plot(
            x[first:stop], y[first:stop], color=color, linestyle=(0, (2.4, 1.4)) if dashed[start] else "-", **style
        )


def status_lines(name: str, sources: Sequence[Source], expected: int | None) -> list[str]:
    """What a reader must know about one curve: seeds, test episodes, and how far an unfinished run is."""
    counts = {len(group) for source in sources for _, group in evaluations(source).groupby("env_steps")}
    each = "–".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "0"
    wanted = max(expected or 0, len(sources))
    finished = [source for source in sources if source.complete]
    lines = [f"{name}: {len(sources)} seed{'s' * (len(sources) != 1)} × {each} test episode{'s' * (each != '1')}"]
    if len(finished) < len(sources):
        slowest = min((source for source in sources if not source.complete), key=lambda source: source.env_steps)
        lines.append(
            f"partial: {len(finished)} of {wanted} seeds, "
            f"{human(slowest.env_steps)} of {human(slowest.total_env_steps)} env steps"
        )
    elif len(finished) < wanted:
        lines.append(f"partial: {len(finished)} of {wanted} seeds")
    return lines
