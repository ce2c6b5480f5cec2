"""One number for many games: scores measured by a human's, then the median or mean over games.

    normalised = (score - random) / (reference - random)

0 is random play, 1 the reference: a human gamer, or the best human on record. Pure NumPy; games are the last axis of
every array. aggregate.py has the statistics of seeds; the figures_scores.py of DreamerV2 and DreamerV3 use both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Anchors:
    """What scores are measured by, (K,) per field, in the unit of the game's score: a number per game, in one order."""

    random: np.ndarray
    gamer: np.ndarray
    record: np.ndarray | None = None  # None: the record's averages are not asked for

    def __post_init__(self):
        for name in ("gamer", "record") if self.record is not None else ("gamer",):
            span = np.asarray(getattr(self, name), dtype=float) - np.asarray(self.random, dtype=float)
            if not np.all(np.isfinite(span)) or np.any(span <= 0):
                wrong = np.flatnonzero(~(span > 0)).tolist()
                raise ValueError(f"Anchors: {name} must be finite and above random in every game; not so at {wrong}")


def normalised(scores: np.ndarray, random: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scores on the scale from random play (0) to a reference (1).

    Args:
        scores: (..., K), undiscounted returns of K games.
        random, reference: (K,).
    Returns: (..., K), without unit.
    Raises: ValueError where the number of games differs or a score is not finite: a NaN would hide in the average.
    Source: Mnih et al. 2015, Figure 3; DreamerV2 (arXiv 2010.02193), Section 3.1.
    """
    scores, random, reference = (np.asarray(array, dtype=np.float64) for array in (scores, random, reference))
    if scores.shape[-1:] != random.shape or random.shape != reference.shape:
        raise ValueError(
            f"normalised: scores {scores.shape}, random {random.shape}, reference {reference.shape}; expected "
            "(..., K), (K,), (K,)"
        )
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"normalised: {np.sum(~np.isfinite(scores))} scores are not finite; a game has no score")
    return (scores - random) / (reference - random)


def gamer_median(scores: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Median over games of the gamer-normalised scores. scores: (..., K). Returns (...)."""
    return np.median(normalised(scores, anchors.random, anchors.gamer), axis=-1)


def gamer_mean(scores: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Mean over games of the gamer-normalised scores. scores: (..., K). Returns (...)."""
    return np.mean(normalised(scores, anchors.random, anchors.gamer), axis=-1)


def record_mean(scores: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Mean over games of the record-normalised scores. scores: (..., K). Returns (...)."""
    return np.mean(normalised(scores, anchors.random, anchors.record), axis=-1)


def clipped_record_mean(scores: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Mean over games of min(record-normalised score, 1): no game counts for more than its record.

    scores: (..., K). Returns (...).
    Source: DreamerV2, Section 3.1.
    """
    return np.mean(np.minimum(normalised(scores, anchors.random, anchors.record), 1.0), axis=-1)


AGGREGATES: dict[str, Callable[[np.ndarray, Anchors], np.ndarray]] = {
    "gamer_median": gamer_median,
    "gamer_mean": gamer_mean,
    "record_mean": record_mean,
    "clipped_record_mean": clipped_record_mean,
}


def seeds_first(scores: np.ndarray, anchors: Anchors) -> dict[str, float]:
    """The four aggregates of the mean scores: seeds are averaged per game, then games. scores: (S, K)."""
    return {name: float(of(np.mean(scores, axis=0), anchors)) for name, of in AGGREGATES.items()}


def games_first(scores: np.ndarray, anchors: Anchors) -> dict[str, np.ndarray]:
    """The four aggregates of every seed, (S,) each: games first, seeds are left to the caller. scores: (S, K)."""
    return {name: of(scores, anchors) for name, of in AGGREGATES.items()}


def value_at(steps: np.ndarray, values: np.ndarray, at: float) -> float:
    """The value recorded at a step, or the last one before it where the curve ends early.

    steps: (P,) increasing. values: (P,), NaN where nothing was recorded. Raises ValueError where nothing was by then.
    """
    steps, values = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    known = np.flatnonzero((steps <= at) & np.isfinite(values))
    if not len(known):
        raise ValueError(f"value_at: no value up to step {at:g}; the first of {len(steps)} steps is {steps[:1]}")
    return float(values[known[-1]])


def on_grid(points: pd.DataFrame, grid: np.ndarray, tasks: Sequence[str]) -> np.ndarray:
    """Curves of runs as one array: where a run has no value, its last one before holds.

    Args:
        points: a row per value: task, seed, env_steps, value; env_steps of a value is the end of its bin.
        grid: (T,) increasing env steps, ends of bins. Several values of one bin are averaged.
        tasks: (K), in the order wanted; every seed must have every one.
    Returns: (S, T, K); NaN before a run's first value.
    Raises: ValueError where a seed lacks a task.
    """
    points = points.assign(bin=np.searchsorted(grid, points["env_steps"].to_numpy(), side="left"))
    points = points[points["bin"] < len(grid)]
    means = points.groupby(["seed", "task", "bin"])["value"].mean()
    seeds = sorted(points["seed"].unique())
    found = np.full((len(seeds), len(grid), len(tasks)), np.nan)
    for s, seed in enumerate(seeds):
        for k, task in enumerate(tasks):
            if (seed, task) not in means.index:
                raise ValueError(f"on_grid: seed {seed} has no value of {task}; leave the seed out or run the task")
            curve = means.loc[seed, task].reindex(range(len(grid))).ffill()
            found[s, :, k] = curve.to_numpy()
    return found


def aggregate_curves(points: pd.DataFrame, grid: np.ndarray, tasks: Sequence[str], anchors: Anchors) -> pd.DataFrame:
    """The four aggregates over training: per seed over games, then mean and one standard deviation over seeds.

    Arguments as on_grid's. Returns a row per statistic and grid point at which all games have a value: statistic,
    env_steps, mean, std (divided by the number of seeds; 0 for one), seeds.
    Source: danijar/dreamerv2 @ 07d906e, common/plot.py:282-333.
    """
    scores = on_grid(points, grid, tasks)
    whole = np.all(np.isfinite(scores), axis=(0, 2))
    tables = []
    for name, of in AGGREGATES.items():
        per_seed = of(scores[:, whole], anchors)  # (S, T)
        tables.append(
            pd.DataFrame(
                {
                    "statistic": name,
                    "env_steps": np.asarray(grid, dtype=np.float64)[whole],
                    "mean": per_seed.mean(axis=0),
                    "std": per_seed.std(axis=0),
                    "seeds": len(per_seed),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def seeds_first_curve(
    points: pd.DataFrame, grid: np.ndarray, tasks: Sequence[str], of: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """One statistic over training, made of the mean curves of the tasks: seeds are averaged first, within every bin.

    Args:
        points, grid, tasks: as on_grid's.
        of: (T, K) mean scores -> (T,), a statistic over tasks.
    Returns a row per grid point at which all tasks have a value: env_steps, mean (the statistic), std (NaN: no seed has
        one of its own), seeds (fewest of a task).
    Source: danijar/dreamerv3 @ e3f0224, plot.py:88-147.
    """
    scores = on_grid(points, grid, tasks)  # (S, T, K)
    whole = np.all(np.isfinite(scores), axis=(0, 2))
    return pd.DataFrame(
        {
            "env_steps": np.asarray(grid, dtype=np.float64)[whole],
            "mean": of(scores[:, whole].mean(axis=0)),
            "std": np.nan,
            "seeds": len(scores),
        }
    )
