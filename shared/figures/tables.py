"""Tables of final scores: the numbers of one cell, the verdict beside a published number, and how a table is drawn.

A verdict never says more than the runs allow: its rule is RULE, printed under every table.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shared.errors import UserError
from shared.figures.aggregate import LEVEL, interquartile_mean, mean, median, seed_interval
from shared.figures.curves import evaluations
from shared.figures.page import INK, MARGIN, QUIET, Page, human
from shared.figures.sources import Source

MIN_SEEDS = 5  # as published; below, an interval over seeds says little
ROW = 0.165  # inches
FONT = 6.8  # points; smaller where a table needs it
LEAST_GAP = 0.13  # inches between columns
RULE = (
    "Verdict, first that applies: NOT RUN (no run file); partial (no finished run); not comparable (scale is not "
    "paper, fewer env steps than published, or mixed code); too few seeds to say (fewer than "
    f"{MIN_SEEDS} finished); below or above (the whole {LEVEL:.0%} interval lies on that side of the published score); "
    "consistent (the published score lies inside). The published score's own spread is not known and is not counted."
)


def read_measured(option: str, path: Path, columns: Iterable[str], program: str) -> pd.DataFrame:
    """A table that a program of ours has measured.

    Raises:
      UserError: there is no such file, or it lacks columns; tells the option and how to write it.
    """
    words = f"write it with python -m {program}"
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file; {words}")
    frame = pd.read_csv(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise UserError(f"{option} {path}: no column {', '.join(missing)}; {words}")
    return frame


@dataclass(frozen=True)
class Cell:
    """Our final score of one method on one task. NaN where there is nothing to say."""

    sources: Sequence[Source]
    expected_seeds: int
    mixed: bool
    last_env_steps: int = 1  # test episodes within so many env steps of a run's last evaluation make its score
    episodes: Callable[[Source], pd.DataFrame] = evaluations  # whose returns: tests, or curves.collected
    runs_first: bool = False  # a run counts once, by its mean, however many episodes it has; else every episode does

    @property
    def finished(self) -> list[Source]:
        return [source for source in self.sources if source.complete]

    @property
    def seeds(self) -> list[np.ndarray]:
        """Per finished seed, the returns of its last evaluation, or of its last ones."""
        tables = [table for table in map(self.episodes, self.finished) if len(table)]
        first = [table["env_steps"].max() - self.last_env_steps for table in tables]
        return [
            table.loc[table["env_steps"] > start, "return"].to_numpy()
            for table, start in zip(tables, first, strict=True)
        ]

    @property
    def env_steps(self) -> int:
        """Env steps behind the score: of the shortest finished run, or as far as the unfinished ones are."""
        return min((source.env_steps for source in self.finished or self.sources), default=0)

    def numbers(self) -> dict[str, float]:
        """score (mean over seeds x episodes, or of runs' means), median, interquartile mean, the mean's interval."""
        seeds = self.seeds
        if not seeds:
            return dict.fromkeys(("score", "median", "iqm", "low", "high"), math.nan)
        if self.runs_first:
            seeds = [np.array([returns.mean()]) for returns in seeds]
        every = np.concatenate(seeds)
        low, high = seed_interval([seeds], mean)
        return {
            "score": mean(every),
            "median": median(every),
            "iqm": interquartile_mean(every),
            "low": low,
            "high": high,
        }

    def verdict(self, published: float, published_env_steps: int, scale: str) -> str:
        """In words, by RULE."""
        if not self.sources:
            return "NOT RUN"
        if not self.seeds:
            slowest = min(self.sources, key=lambda source: source.env_steps)
            return f"partial: {human(slowest.env_steps)} of {human(slowest.total_env_steps)} env steps"
        if scale != "paper":
            return f"not comparable: scale {scale}"
        if self.env_steps < published_env_steps:
            return f"not comparable: {human(self.env_steps)} of {human(published_env_steps)} env steps"
        if self.mixed:
            return "not comparable: mixed code"
        if len(self.seeds) < MIN_SEEDS:
            return "too few seeds to say"
        numbers = self.numbers()
        if numbers["high"] < published:
            return f"below: {numbers['score']:.0f} vs {published:.0f}"
        if numbers["low"] > published:
            return f"above: {numbers['score']:.0f} vs {published:.0f}"
        return "consistent"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left_columns: Sequence[int] = (0,)) -> str:
    """A Markdown table; left_columns to the left, the others to the right."""
    sides = [":---" if column in left_columns else "---:" for column in range(len(header))]
    return "".join("| " + " | ".join(line).replace("\n", " ") + " |\n" for line in (header, sides, *rows))


def number(value: float, digits: int = 0, sign: bool = False) -> str:
    """A number for a table; an en dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def draw_table(
    page: Page,
    top: float,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left_columns: Sequence[int] = (0,),
    rules_before: Sequence[int] = (),
    strong_rows: Sequence[int] = (),
) -> float:
    """Draw a table over the page's width, with horizontal rules only; returns the height below it.

    top: inches above the body's lower edge. left_columns: set to the left, the others to the right. rules_before: rows
    above which a thin rule goes. Columns are as wide as their widest cell; what is left over goes between them.
    """
    size, at, sides = _columns(page, [header, *rows], left_columns)
    height = top - ROW
    page.rule(MARGIN, page.width - MARGIN, top, 0.9)
    _cells(page, height, header, at, sides, fontsize=size, fontweight="bold", color=INK)
    page.rule(MARGIN, page.width - MARGIN, height - 0.05, 0.5)
    height -= 0.03
    for index, row in enumerate(rows):
        height -= ROW
        if index in rules_before:
            page.rule(MARGIN, page.width - MARGIN, height + ROW - 0.05, 0.35)
            height -= 0.03
        color, weight = QUIET if "NOT RUN" in row else INK, "bold" if index in strong_rows else "normal"
        _cells(page, height, row, at, sides, fontsize=size, fontweight=weight, color=color)
    page.rule(MARGIN, page.width - MARGIN, height - 0.06, 0.9)
    return height - 0.06


def detail_table(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of our scores beside the published ones, from a frame with the columns of the numbers file."""
    header = [
        "method",
        "task",
        "framework",
        "published",
        "ours",
        f"{LEVEL:.0%} interval",
        "difference",
        "seeds",
        "episodes",
        "env steps",
        "verdict",
    ]
    rows = []
    for entry in frame.to_dict("records"):
        interval = "–" if math.isnan(entry["low"]) else f"{number(entry['low'])} to {number(entry['high'])}"
        rows.append(
            [
                entry["method"],
                entry["task"],
                entry["framework"],
                number(entry["published"]),
                number(entry["score"]),
                interval,
                number(entry["difference"], sign=True),
                f"{entry['seeds']:.0f} of {entry['expected_seeds']:.0f}" if entry["expected_seeds"] else "–",
                number(entry["test_episodes"] or math.nan),
                "–" if math.isnan(entry["env_steps"]) else human(entry["env_steps"]),
                entry["verdict"],
            ]
        )
    return header, rows


def _columns(
    page: Page, lines: Sequence[Sequence[str]], left_columns: Sequence[int]
) -> tuple[float, list[float], list[str]]:
    """Font size, where each column's cells are anchored (inches) and to which side, from the measured widest cells."""
    probes = [page.text(0, 0, cell, fontsize=FONT, fontweight="bold") for line in lines for cell in line]
    extents = [probe.get_window_extent().width / page.figure.dpi for probe in probes]
    for probe in probes:
        probe.remove()
    widths = np.reshape(extents, (len(lines), -1)).max(axis=0)
    gaps = len(widths) - 1
    inside = page.width - 2 * MARGIN
    size = min(FONT, FONT * (inside - LEAST_GAP * gaps) / widths.sum())
    widths *= size / FONT
    starts = MARGIN + np.concatenate([[0], np.cumsum(widths + (inside - widths.sum()) / gaps)[:-1]])
    sides = ["left" if column in left_columns else "right" for column in range(len(widths))]
    at = [start + (side == "right") * width for start, side, width in zip(starts, sides, widths, strict=True)]
    return size, at, sides


def _cells(page: Page, height: float, cells: Sequence[str], at: Sequence[float], sides: Sequence[str], **style) -> None:
    """One line of a table: cells at inches `at`, aligned to their sides."""
    for cell, x, side in zip(cells, at, sides, strict=True):
        page.text(x, height, cell, ha=side, va="baseline", **style)
