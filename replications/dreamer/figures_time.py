"""Dreamer and planning over the time that training takes: one panel, a line per seed."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from replications.dreamer.figures_curves import (
    BLUE,
    LAYOUT,
    LEGEND_LINE,
    PURPLE,
    STATUS_CHARACTERS,
    panel_grid,
)
from replications.dreamer.figures_published import NAMES
from shared.figures.command import Drawn, Request
from shared.figures.curves import random_returns, trained_for
from shared.figures.page import INK, Page, human, styled
from shared.figures.panels import (
    CONTROL,
    NOT_RUN_COLOR,
    RANDOM_COLOR,
    RANDOM_STYLE,
    Method,
    fitted_span,
    in_order,
    legend,
    method_handles,
    panel_head,
    panel_status,
)
from shared.figures.sources import Source, by_curve, origin_note

TASK = "cartpole_swingup"
METHODS = {
    "repeat-8": Method("Dreamer", "Dreamer", BLUE),
    "planet-repeat-8": Method("PlaNet (online planning)", "PlaNet", PURPLE),
}
WINDOW = 5  # episodes in a moving mean
COLUMNS = ["method", "variant", "framework", "task", "seed", "episode", "env_steps", "minutes", "return", "mean"]


def side_by_side_time(request: Request) -> Drawn:
    """Return of training episodes over minutes of training, tests not counted, beside planning.

    Numbers: a row per training episode, columns COLUMNS; minutes of training when it ended (NaN where no
    time is recorded: after an unfinished run's last checkpoint), mean: of the episode and the four before it.
    """
    sources = [source for source in request.sources if source.task == TASK]
    runs = {key[:2]: found for key, found in by_curve(sources).items()}
    tables = [_episodes(source) for key in in_order(runs, METHODS) for source in runs[key]]
    episodes = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    random = random_returns(sources)
    entries = method_handles(METHODS, runs)
    if len(random):
        entries.append(("random actions", (Line2D([], [], color=RANDOM_COLOR, linestyle=RANDOM_STYLE),)))
    legend_height = LEGEND_LINE * len(entries) + 0.1
    status = panel_status(runs, METHODS, request.seeds, characters=STATUS_CHARACTERS, episodes=False)
    grid = panel_grid([len(status)], 1, legend_height)
    with styled():
        title = "Dreamer, side by side in time: a learned behaviour and online planning, action repeat 8"
        page = Page(title, request.scale, grid.body, _notes(request, runs))
        axes = page.axes(*grid.place(0))
        _panel(axes, episodes)
        if len(random):
            axes.axhline(random.mean(), color=RANDOM_COLOR, linestyle=RANDOM_STYLE, linewidth=1.1)
        panel_head(axes, NAMES[TASK], status)
        axes.set_ylabel("training return", labelpad=2)
        page.text(page.width / 2, legend_height + 0.04, "minutes of training", ha="center", color=INK, fontsize=7)
        legend(page, LAYOUT[1][0], legend_height, entries)
    return Drawn(page.figure, episodes, {})


def _episodes(source: Source) -> pd.DataFrame:
    """One row per training episode of a run, columns COLUMNS."""
    framework, variant, _ = source.key
    table = trained_for(source)
    return table.assign(
        method=METHODS[variant].name,
        variant=variant,
        framework=framework,
        episode=table["episodes"],
        minutes=table["seconds"] / 60,
        mean=table["return"].rolling(WINDOW).mean(),
    )[COLUMNS]


def _panel(axes: Axes, episodes: pd.DataFrame) -> None:
    """Dots: episodes; lines: moving means, with the env steps at their ends."""
    timed = episodes.dropna(subset=["minutes"])
    last = timed["minutes"].max() if len(timed) else 1.0
    span = fitted_span(episodes["return"]) if len(episodes) else CONTROL
    axes.set(ylim=(span.low, span.high), yticks=span.ticks, xlim=(0, 1.08 * last))
    if timed.empty:
        words = "NOT RUN" if episodes.empty else "no time recorded yet"
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=NOT_RUN_COLOR, fontsize=12)
    for (variant, framework, _), rows in timed.groupby(["variant", "framework", "seed"], sort=False):
        color = METHODS[variant].colors[framework]
        axes.plot(rows["minutes"], rows["return"], ".", color=color, markersize=2.2, alpha=0.45)
        axes.plot(rows["minutes"], rows["mean"], color=color, linewidth=1.1)
        end = rows.iloc[-1]
        axes.annotate(
            human(end["env_steps"]), (end["minutes"], end["mean"]), xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=5.5, color=color,
        )  # fmt: skip


def _notes(request: Request, runs: Mapping[tuple[str, str], Sequence[Source]]) -> list[str]:
    planners = {variant: found[0].values["planner"] for (_, variant), found in runs.items() if "planet" in variant}
    sizes = [
        f"{METHODS[variant].name}: {planner['candidates']:,} sequences, {planner['iterations']} times per decision"
        for variant, planner in sorted(planners.items())
    ]
    return [
        f"Dot: a training episode, the random prefill included; line: mean of {WINDOW} episodes of one seed; at its "
        "end the env steps it has reached. Minutes: what the run itself recorded between its checkpoints, tests not "
        "counted, on its machine and beside whatever else that did.",
        *([f"{'; '.join(sizes)}."] if sizes else []),
        "Ours: the paper has no such figure; its Section 6 gives 3 hours per million env steps to Dreamer and 11 to "
        "planning, on one GPU. Both learn the same world model; every action is held 8 times.",
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
