"""The part of the numerics page on mixed precision: an update of DreamerV3, with bfloat16 products and without.

replications/dreamerv3/precision.py measures it; core.py draws the page.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shared.figures.page import INK, MARGIN, QUIET, Page
from shared.figures.tables import markdown, read_measured

COLUMNS = ("framework", "draws", "kind", "name", "float32", "mixed", "relative", "cosine", "device", "size", "windows")
COLUMNS += ("rows",)
TITLE = "One update of DreamerV3 in mixed precision, against float32"
DRAWS = {"held": "draws held", "free": "draws free"}
FRAMEWORKS = {"torch": "torch", "jax": "JAX"}
KINDS = {"loss": "losses", "gradient": "gradients", "classes": "classes"}
LINE, FONT, HEAD = 0.122, 5.4, 0.62  # inches per line, points, inches above the lines
NAME, FIRST, STEP, COSINE = 0.86, 3.2, 1.13, 0.5  # inches: names, right edges of columns, from the page's left
DIGITS = 5  # of a cosine


def read_precision(path: Path) -> pd.DataFrame:
    """The measured table; UserError where it is not one."""
    return read_measured("--precision", path, COLUMNS, "replications.dreamerv3.precision")


def height(frame: pd.DataFrame) -> float:
    """Inches that `draw` needs."""
    return HEAD + LINE * (len(lines(frame)) + 1)


def lines(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """(kind, name) of every line, in the order of the file."""
    return list(dict.fromkeys(zip(frame["kind"], frame["name"], strict=True)))


def words_of(frame: pd.DataFrame, line: tuple[str, str]) -> list[str]:
    """Relative difference and cosine for every draws and framework; an en dash where there is none."""
    of_line = frame[(frame["kind"] == line[0]) & (frame["name"] == line[1])].set_index(["draws", "framework"])
    found = []
    for draws in DRAWS:
        for framework in FRAMEWORKS:
            there = (draws, framework) in of_line.index
            relative = of_line.loc[(draws, framework), "relative"] if there else np.nan
            cosine = of_line.loc[(draws, framework), "cosine"] if there else np.nan
            found += [percent(relative), "–" if np.isnan(cosine) else f"{cosine:.{DIGITS}f}"]
    return found


def percent(value: float) -> str:
    """Two digits of a share: 0.31 %; 0 where it is exactly that."""
    return "–" if np.isnan(value) else "0" if value == 0 else f"{100 * value:.2g} %"


def label(line: tuple[str, str]) -> str:
    """What a line is called: a loss by its term, a gradient by its module."""
    kind, name = line
    if kind == "loss":
        return "world model" if name == "loss" else name.removesuffix("_loss").replace("_", " ")
    return "that differ" if kind == "classes" else name


def draw(page: Page, bottom: float, frame: pd.DataFrame) -> None:
    """The table, its lower edge so many inches above the body's."""
    rows, kind_before = lines(frame), None
    y = bottom + LINE * (len(rows) + 0.5)
    _head(page, y + LINE)
    for line in rows:
        if line[0] != kind_before:
            page.rule(MARGIN, page.width - MARGIN, y + LINE / 2, 0.35, "#BBBBBB")
            page.text(MARGIN, y, KINDS[line[0]], color=QUIET, fontsize=FONT, va="center_baseline")
        page.text(NAME, y, label(line), color=INK, fontsize=FONT, va="center_baseline")
        for index, words in enumerate(words_of(frame, line)):
            at = FIRST + STEP * (index // 2) + COSINE * (index % 2)
            page.text(at, y, words, color=INK, fontsize=FONT, ha="right", va="center_baseline")
        kind_before, y = line[0], y - LINE


def _head(page: Page, low: float) -> None:
    style = {"fontsize": FONT, "fontweight": "bold", "color": INK, "va": "bottom"}
    page.text(MARGIN, low + 0.33, TITLE, **{**style, "fontsize": FONT + 1.6})
    for index, draws in enumerate(DRAWS):
        for place, framework in enumerate(FRAMEWORKS):
            at = FIRST + STEP * (len(FRAMEWORKS) * index + place)
            page.text(at + COSINE, low + 0.09, f"{FRAMEWORKS[framework]}, {DRAWS[draws]}", ha="right", **style)
            page.text(at, low, "relative", ha="right", **style)
            page.text(at + COSINE, low, "cosine", ha="right", **style)


def notes(frame: pd.DataFrame) -> list[str]:
    """What the table is of, for the foot of the page."""
    fact = frame.iloc[0]
    where = "a CPU (torch by its autocast for CPUs), not on a GPU" if fact["device"] == "cpu" else fact["device"]
    return [
        f"Mixed precision: one update, size {fact['size']}, {fact['windows']} windows of {fact['rows']} rows of "
        f"vectors and images, first weights moved a little, measured on {where}. Relative: |difference| / |float32|, "
        "of a module's gradient in the Euclidean norm over its parameters; cosine: between both gradients. Draws free: "
        "noise as an update has it, so that rounding lets a latent fall into another class (last line: share of the "
        "posterior's); draws held: noise where it cannot.",
    ]


def as_markdown(frame: pd.DataFrame) -> str:
    """The same numbers as a table."""
    header = ["", "of"]
    for words in DRAWS.values():
        for framework in FRAMEWORKS.values():
            header += [f"{framework}, {words}: relative", "cosine"]
    rows: Sequence = [[KINDS[line[0]], label(line), *words_of(frame, line)] for line in lines(frame)]
    return f"## {TITLE}\n\n" + "".join(f"{note}\n\n" for note in notes(frame)) + markdown(header, rows, (0, 1))
