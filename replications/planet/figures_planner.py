"""PlaNet's Figure 12 from run files: how CEM's settings matter where the model is perfect, because it is the simulator.

The runs are the grid of experiments.yaml; replications/planet/simulator.py plays them.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from replications.planet.figures_published import TASKS
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, WIDTH, Page, styled
from shared.figures.sources import Source, origin_note

GRID = "simulator-h*"  # the variants of the figure
TASK = "cheetah_run"  # published
PUBLISHED = {  # axis -> values, as published
    "horizon": (6, 8, 10, 12, 14),
    "fraction": (0.05, 0.1, 0.3, 0.5),
    "iterations": (3, 5, 10, 15),
    "candidates": (100, 300, 500, 1000),
}
NUMBERS = [
    *("framework", "task", "horizon", "iterations", "candidates", "elites", "fraction", "mean", "low", "high"),
    *("seeds", "episodes", "unfinished"),
]
COLORS = "viridis"
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.78, 0.62, 0.2, 0.36, 0.07  # inches around the panels and between them
BRIGHT = 0.5  # share of the colour scale above which a number in a cell is dark

Values = Mapping[str, Sequence[float]]


def figure_12(request: Request) -> Drawn:
    """Mean return of CEM on the true simulator: a column of panels per horizon, a row per kept fraction of the
    proposals, and in every panel iterations by proposals. One colour scale; a cell without a run is crossed out.

    Numbers: a row per cell with a run: its mean, least and largest return, seeds and episodes behind it.
    """
    task = next((task for task in (TASK, *TASKS) if task in {source.task for source in request.sources}), TASK)
    cells = cell_table([source for source in request.sources if source.task == task])
    values = axis_values(cells)
    across, down = len(values["horizon"]), len(values["fraction"])
    title = f"PlaNet, Figure 12: planner settings, {TASKS[task]}"
    title += "" if task == TASK else f" (published: {TASKS[TASK]})"
    with styled():
        width, height = _panel_sizes(values)
        body = TOP + down * (height + GAP) + BOTTOM
        page = Page(title, request.scale, body, _notes(request, cells, values))
        colors = _color_scale(cells)
        for row, fraction in enumerate(values["fraction"]):
            for column, horizon in enumerate(values["horizon"]):
                left = LEFT + column * (width + GAP)
                axes = page.axes(left, BOTTOM + (down - 1 - row) * (height + GAP) + GAP, width, height)
                panel = cells[(cells["horizon"] == horizon) & (cells["fraction"] == fraction)]
                image = draw_panel(axes, panel, values, colors)
                axes.tick_params(labelbottom=row == down - 1, labelleft=column == 0)
                if row == 0:
                    axes.set_title(f"horizon {horizon:g}", fontsize=7.5, pad=3)
                if column == 0:
                    axes.set_ylabel(f"keep {fraction:.3g}\n\niterations", labelpad=2)
        page.text(LEFT + across * (width + GAP) / 2, 0.1, "proposals", ha="center", color=INK, fontsize=7)
        _color_bar(page, image, body)
    return Drawn(page.figure, cells[NUMBERS], {})


def cell_table(sources: Sequence[Source]) -> pd.DataFrame:
    """One row per framework and planner setting, columns NUMBERS; settings are read from the runs' configurations."""
    rows = []
    for source in sources:
        planner, table = source.values["planner"], source.run.tables["eval/episode"]
        settings = {name: planner[name] for name in ("horizon", "iterations", "candidates", "elites")}
        fraction = round(planner["elites"] / planner["candidates"], 3)
        identity = {"framework": source.key[0], "task": source.task, "seed": source.seed}
        rows += [
            {**identity, **settings, "fraction": fraction, "return": score, "unfinished": not source.complete}
            for score in table["return"]
        ]
    if not rows:
        return pd.DataFrame(columns=NUMBERS)
    keys = [*("framework", "task", "horizon", "iterations", "candidates", "elites", "fraction")]
    grouped = pd.DataFrame(rows).groupby(keys, as_index=False)
    found = grouped.agg(
        mean=("return", "mean"),
        low=("return", "min"),
        high=("return", "max"),
        seeds=("seed", "nunique"),
        episodes=("return", "size"),
        unfinished=("unfinished", "any"),
    )
    return found[NUMBERS]


def axis_values(cells: pd.DataFrame) -> Values:
    """The published values of every axis if the runs have no others, else the runs' own."""
    found = {axis: sorted(set(cells[axis])) for axis in PUBLISHED}
    if all(set(found[axis]) <= set(values) for axis, values in PUBLISHED.items()):
        return PUBLISHED
    return found


def draw_panel(axes: Axes, panel: pd.DataFrame, values: Values, colors: Normalize) -> AxesImage:
    """The heat map of one horizon and one kept fraction: iterations upwards, proposals to the right."""
    iterations, candidates = list(values["iterations"]), list(values["candidates"])
    means = np.full((len(iterations), len(candidates)), math.nan)
    axes.grid(False)
    axes.set_facecolor("#F2F2F2")
    for cell in panel.itertuples():
        x, y = candidates.index(cell.candidates), iterations.index(cell.iterations)
        means[y, x] = cell.mean
        words = f"{cell.mean:.{0 if abs(cell.mean) >= 10 else 1}f}{'*' if cell.unfinished else ''}"
        color = INK if colors(cell.mean) > BRIGHT else "white"
        axes.text(x, y, words, ha="center", va="center", fontsize=5.6, color=color)
    for y, x in np.argwhere(np.isnan(means)):
        axes.plot([x - 0.5, x + 0.5], [y - 0.5, y + 0.5], color="#C8C8C8", linewidth=0.6)
    image = axes.imshow(means, cmap=COLORS, norm=colors, origin="lower", aspect="auto")
    axes.set_xticks(range(len(candidates)), [f"{value:g}" for value in candidates])
    axes.set_yticks(range(len(iterations)), [f"{value:g}" for value in iterations])
    axes.tick_params(length=0, pad=2)
    return image


def _panel_sizes(values: Values) -> tuple[float, float]:
    """Width and height of a panel, inches: the page's width is shared; a line per number of iterations."""
    width = (WIDTH - LEFT - RIGHT) / len(values["horizon"]) - GAP
    return width, max(0.24 * len(values["iterations"]), 0.65)


def _color_scale(cells: pd.DataFrame) -> Normalize:
    """From the least to the largest mean of all panels."""
    if cells.empty:
        return Normalize(0, 1)
    least, most = cells["mean"].min(), cells["mean"].max()
    return Normalize(least, most if most > least else least + 1)


def _color_bar(page: Page, image: AxesImage, body: float) -> None:
    axes = page.axes(page.width - RIGHT + 0.1, BOTTOM + GAP, 0.1, body - BOTTOM - TOP - GAP)
    bar = page.figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label("mean return", fontsize=6.5, labelpad=1)


def _notes(request: Request, cells: pd.DataFrame, values: Values) -> list[str]:
    """How to read the page, what was published, and how much of the grid stands behind it."""
    planned = math.prod(len(axis) for axis in values.values())
    counts = sorted(set(cells["episodes"])), sorted(set(cells["seeds"]))
    episodes, seeds = ("–".join(str(n) for n in dict.fromkeys((some[0], some[-1]))) if some else "0" for some in counts)
    notes = [
        f"Mean return over seeds × episodes of CEM on the true simulator (of a cell: seeds {seeds}, episodes "
        f"{episodes}); nothing is learned. Keep: share of the proposals that the belief is refitted to. "
        f"{len(cells)} of {planned} cells have a run; crossed out: no run (scales below the "
        "paper's plan fewer). *: unfinished.",
        "Published: 132 to 837 on Cheetah Run; the best horizon is about 8, and 6 is too short. How many seeds and "
        "episodes stand behind a published cell is not known to us.",
    ]
    if values is not PUBLISHED:
        grid = "; ".join(f"{axis} {', '.join(f'{v:g}' for v in known)}" for axis, known in PUBLISHED.items())
        notes.append(f"This scale has a smaller grid than the published one ({grid}): panels cannot be compared.")
    return [*notes, *request.notes, _origin(request.sources, request.scale)]


def _origin(sources: Sequence[Source], scale: str) -> str:
    """The footer; of many runs the configs are not listed one by one, for they differ by design."""
    note = origin_note(sources, scale)
    configs = {source.config for source in sources}
    if len(configs) <= 4:
        return note
    parts = [f"{len(configs)} configs" if part.startswith("config ") else part for part in note.split("; ")]
    return "; ".join(parts)
