"""Learning curves of a few seeds: the numbers behind a curve, and how they are drawn.

A point of a curve is an evaluation: the returns of its episodes, pooled over seeds. aggregate.py has the statistics.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation

from shared.figures.aggregate import (
    Statistic,
    bin_to_grid,
    deviation_band,
    mean,
    median,
    percentile_band,
    seed_interval,
)
from shared.figures.page import human
from shared.figures.sources import Source

FEW_SEEDS = 5  # below the published number of seeds every seed is drawn for itself
FEW_POINTS = 12  # up to here points are marked, so that a short curve is not a stroke
BAR_STEP = 2.6  # points between the interval bars of neighbouring curves
POINT = ["seed", "episodes", "env_steps", "center", "low", "high", "interval_low", "interval_high"]
COUNTS = ["tasks", "seeds", "returns", "dashed"]
GAME = "atari_"  # begins the name of a task that is a game


@dataclass(frozen=True)
class Summary:
    """How the returns pooled in one point become a line and a band. name: of the line, and of its column of numbers."""

    name: str
    center: Statistic
    band: Callable[[np.ndarray], tuple[float, float]]

    def curve(self, sources: Sequence[Source]) -> pd.DataFrame:
        """The points of one method: learning_curve by this summary."""
        return learning_curve(sources, self)


MEDIAN = Summary("median", median, percentile_band)  # band: percentiles 5 to 95
MEAN = Summary("mean", mean, deviation_band)  # band: one standard deviation to either side


def evaluations(source: Source) -> pd.DataFrame:
    """Test episodes of one run: columns task, seed, episodes (collected so far), env_steps, updates, return."""
    table = source.run.tables["eval/episode"]
    if table.empty:
        return pd.DataFrame(columns=["task", "seed", "episodes", "env_steps", "updates", "return"])
    ends = np.sort(source.run.tables["train/episode"]["env_steps"].to_numpy())
    steps = table["env_steps"].to_numpy()
    return pd.DataFrame(
        {
            "task": source.task,
            "seed": source.seed,
            "episodes": np.searchsorted(ends, steps, side="right"),
            "env_steps": steps,
            "updates": table["updates"].to_numpy(),
            "return": table["return"].to_numpy(dtype=np.float64),
        }
    )


def collected(source: Source) -> pd.DataFrame:
    """Training episodes of one run, columns as evaluations has them: the scores of agents that always explore."""
    table = source.run.tables["train/episode"]
    return pd.DataFrame(
        {
            "task": source.task,
            "seed": source.seed,
            "episodes": np.arange(1, len(table) + 1),
            "env_steps": table["env_steps"].to_numpy(),
            "updates": table["updates"].to_numpy(),
            "return": table["return"].to_numpy(dtype=np.float64),
        }
    )


def trained_for(source: Source) -> pd.DataFrame:
    """`collected` with a column seconds: of training when an episode ended, tests not counted.

    A run records its time whenever it writes a checkpoint, and at its end; in between, time is taken to grow with env
    steps. NaN where none is recorded: after the last checkpoint of an unfinished run.
    """
    table, episodes = source.run.tables["time/segment"], collected(source)
    steps = np.concatenate([[0.0], table["env_steps"].to_numpy(dtype=np.float64)])
    spent = (table["wall_seconds"] - table.get("eval_seconds", 0.0)).to_numpy(dtype=np.float64)
    seconds = np.interp(episodes["env_steps"], steps, np.concatenate([[0.0], spent.cumsum()]), right=np.nan)
    return episodes.assign(seconds=seconds)


def random_returns(sources: Iterable[Source]) -> np.ndarray:
    """Returns of the episodes that the random prefills collected, (E,); none where an episode is not a whole game.

    Runs with one seed have the same prefill, whatever is trained: it counts once.
    """
    sources = (source for source in sources if not lives_are_episodes(source))
    prefills = {(source.task, source.seed, tuple(_prefill(source))) for source in sources}
    return np.array([score for *_, scores in sorted(prefills) for score in scores], dtype=np.float64)


def lives_are_episodes(source: Source) -> bool:
    """Whether a lost life ends the run's training episodes: their returns are then not those of tests."""
    environment = source.values.get("environment", {})
    return source.task.startswith(GAME) and bool(environment.get("atari", {}).get("life_loss_ends_training", False))


def _prefill(source: Source) -> np.ndarray:
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


def learning_curve(sources: Sequence[Source], summary: Summary = MEDIAN) -> pd.DataFrame:
    """The points of one method, for the pooled seeds and for each seed; several tasks are pooled like seeds.

    Evaluations of different runs belong to one point when they are nearest to the same evaluation of the run that
    was evaluated most often; where all are evaluated at equal env steps, as in tasks of fixed length, this pools
    equal steps. A row with seed "all" pools the returns of the runs that have got there. A row of one seed summarises
    its own evaluation episodes.

    Returns columns: seed, episodes, env_steps, center, low, high (by summary), interval_low, interval_high (of the
    center over seeds, for the last pooled point only; NaN elsewhere and where a task has one seed), tasks, seeds,
    returns (pooled), dashed (some run of the curve is missing at this point, or the seed's run is unfinished).
    """
    tables = [table for table in map(evaluations, sources) if len(table)]
    if not tables:
        return pd.DataFrame(columns=[*POINT, *COUNTS])
    grid = max((np.unique(table["env_steps"]) for table in tables), key=len)
    points = pd.concat(tables, ignore_index=True)
    points["point"] = bin_to_grid(points["env_steps"].to_numpy(), grid)
    unfinished = {source.seed for source in sources if not source.complete}
    nothing_finished = not any(source.complete for source in sources)
    rows = []
    for _, group in points.groupby("point", sort=True):
        present = len(group[["task", "seed"]].drop_duplicates())
        rows.append(_row("all", group, summary, dashed=present < len(sources) or nothing_finished))
    last = points[points["point"] == points["point"].max()]
    rows[-1]["interval_low"], rows[-1]["interval_high"] = _interval(last, summary, _shared_agents(sources))
    for (seed, _), group in points.groupby(["seed", "point"], sort=True):
        rows.append(_row(str(seed), group, summary, dashed=seed in unfinished))
    return pd.DataFrame(rows, columns=[*POINT, *COUNTS])


def _row(seed: str, group: pd.DataFrame, summary: Summary, *, dashed: bool) -> dict[str, object]:
    """One point: the statistics of the returns in group."""
    returns = group["return"].to_numpy()
    lower, upper = summary.band(returns)
    return {
        "seed": seed,
        "episodes": float(group["episodes"].median()),
        "env_steps": float(group["env_steps"].median()),
        "center": summary.center(returns),
        "low": lower,
        "high": upper,
        "interval_low": math.nan,
        "interval_high": math.nan,
        "tasks": group["task"].nunique(),
        "seeds": group["seed"].nunique(),
        "returns": len(returns),
        "dashed": dashed,
    }


def _interval(points: pd.DataFrame, summary: Summary, shared_agents: bool) -> tuple[float, float]:
    """Interval of the center: seeds are drawn, then episodes within a seed, for each task (or for all at once)."""
    if shared_agents:  # of agents that have got there on every task
        everywhere = points.groupby("seed")["task"].transform("nunique") == points["task"].nunique()
        points = points[everywhere]
    strata = [
        [episodes["return"].to_numpy() for _, episodes in of_task.groupby("seed", sort=True)]
        for _, of_task in points.groupby("task", sort=True)
    ]
    return seed_interval(strata, summary.center, shared_agents=shared_agents)


def _shared_agents(sources: Sequence[Source]) -> bool:
    """Whether one run stands for several tasks, so that its tasks must be drawn together."""
    return len({source.path for source in sources}) < len(sources)


def draw_curve(axes: Axes, points: pd.DataFrame, color: str, rank: int = 0, x: str = "episodes") -> None:
    """Band and center over all seeds; below FEW_SEEDS, or with unfinished runs, each seed as a thin line too.

    The interval of the last point is a bar, moved to the left by rank steps so that bars of several curves stand apart.
    x: the column drawn against, episodes or env_steps.
    """
    if points.empty:
        return
    pooled = points[points["seed"] == "all"]
    marker = "o" if len(pooled) <= FEW_POINTS else None
    axes.fill_between(pooled[x], pooled["low"], pooled["high"], color=color, alpha=0.18, linewidth=0)
    single = points[points["seed"] != "all"]
    seeds = single["seed"].nunique()
    if seeds > 1 and (seeds < FEW_SEEDS or single["dashed"].any()):
        for _, line in single.groupby("seed"):
            _stroke(axes, line, color, x, linewidth=0.5, alpha=0.7)
    _stroke(axes, pooled, color, x, marker=marker, markersize=2.6, zorder=3, clip_on=marker is None)
    end = pooled.iloc[-1]
    if not math.isnan(end["interval_low"]):
        shift = ScaledTranslation(-(rank + 1) * BAR_STEP / 72, 0, axes.figure.dpi_scale_trans)
        axes.plot(
            [end[x]] * 2,
            [end["interval_low"], end["interval_high"]],
            color=color,
            linewidth=1.1,
            marker="_",
            markersize=2.4,
            zorder=2.9,  # behind the lines, before the bands
            clip_on=False,
            transform=axes.transData + shift,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )


def _stroke(axes: Axes, line: pd.DataFrame, color: str, column: str, **style) -> None:
    """A line that is dashed on the stretches whose later point is dashed."""
    x, y = line[column].to_numpy(dtype=float), line["center"].to_numpy(dtype=float)
    dashed = line["dashed"].to_numpy(dtype=bool)
    starts = [0, *(i for i in range(1, len(x)) if dashed[i] != dashed[i - 1]), len(x)]
    for start, stop in zip(starts[:-1], starts[1:], strict=True):
        first = max(start - 1, 0)
        axes.plot(
            x[first:stop], y[first:stop], color=color, linestyle=(0, (2.4, 1.4)) if dashed[start] else "-", **style
        )


def status_words(
    sources: Sequence[Source], expected: int | None, pooled: bool = False, episodes: bool = True
) -> tuple[str, ...]:
    """What a reader must know about one curve: seeds, test episodes (if asked), and how far an unfinished run is.

    expected: seeds planned. pooled: the figure pools tasks, so that they are counted too, and what is finished is
    counted in runs: a seed of separate agents is one run per task, a seed of a joint agent one run.
    """
    tasks, seeds = {source.task for source in sources}, {source.seed for source in sources}
    counts = {len(group) for source in sources for _, group in evaluations(source).groupby("env_steps")}
    each = "–".join(str(count) for count in sorted({min(counts), max(counts)})) if counts else "0"
    parts = [_count(len(tasks), "task")] if pooled else []
    parts += [_count(len(seeds), "seed"), *([f"{each} test episode{'s' * (each != '1')}"] if episodes else [])]
    words = " × ".join(parts)
    runs = {source.path: source for source in sources}
    wanted = max(len(runs), (expected or 0) * round(len(runs) / len(seeds)))
    unfinished = [run for run in runs.values() if not run.complete]
    if len(runs) - len(unfinished) == wanted:
        return (words,)
    state = f"partial: {len(runs) - len(unfinished)} of {wanted} {'runs' if pooled else 'seeds'}"
    if unfinished:
        slowest = min(unfinished, key=lambda run: run.env_steps)
        state += f", {human(slowest.env_steps)} of {human(slowest.total_env_steps)} env steps"
    return words, state


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
