"""DreamerV2's learning curves from run files: Figures 4, 5, A.2, B.2, F.1 to J.1, control, versions, first frames.

What differs between them is data: CURVES. A panel shows a task, or an average over all 55 games; released curves are
drawn in every one that has them, ours where they exist. The statistics are in shared/figures/binned.py and scores.py.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replications.dreamerv2.figures_published import (
    BIN,
    CATCH,
    CONTROL_BIN,
    CONTROL_TASKS,
    HUMANOID,
    HUMANOID_BIN,
    LAST_FRAMES,
    MONTEZUMA,
    OTHERS,
    START_FRAMES,
    TITLES,
    anchors,
    average_curve,
    curve,
    games,
    printed,
    start_seeds,
    title,
)
from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL, REPETITIONS
from shared.figures.binned import BINS, SeedMeans, bin_width
from shared.figures.command import Drawn, Request
from shared.figures.page import human
from shared.figures.panels import CONTROL, Axis, Handles, Level, Method, Span, method_handles, single_seeds
from shared.figures.scores import AGGREGATES, aggregate_curves
from shared.figures.sources import Source, by_curve, origin_note
from shared.figures.suite import Average, Panel, Words, draw_suite, whole_seeds

# Hue = method, lightness = framework; apart for colour-blind readers too. DreamerV2 itself is blue everywhere.
BLUE = {"torch": "#0072B2", "jax": "#56B4E9"}
ORANGE = {"torch": "#D55E00", "jax": "#E69F00"}
PURPLE = {"torch": "#8A4F7D", "jax": "#CC79A7"}
GREEN = {"torch": "#00704F", "jax": "#4FC3A1"}
RELEASED_COLOR = "#002B45"  # of the authors' own runs: DreamerV2's hue, darker
OTHER_STYLES = {  # released by others; darkness and dashes tell them apart
    "iqn": ("#8C6D1F", (0, (4, 1.2))),
    "rainbow": ("#8F3B56", (0, (4, 1.2, 1, 1.2))),
    "c51": ("#5E7F3B", (0, (2, 1))),
    "dqn": ("#8A8A8A", (0, (1, 1))),
}
BASE = Method("DreamerV2", "V2", BLUE)
EARLIER = (
    "The paper's ablations are of a slightly earlier agent with 2 seeds, and their curves are not published. Dark "
    "line: the released runs of the final agent, 8 seeds."
)

CATCH_RETURNS = Span(-5, 25, (-5, 0, 5, 10, 15, 20, 25))


@dataclass(frozen=True)
class Curves:
    """One figure of learning curves: its title, variants and panels, and what is said besides.

    tasks, averages: a panel each. released: method of the authors' runs; others: of Dopamine's. bin: env steps that
    one released point stands for. pairs: (title, variant, row of Table 2), a panel of averages[0] each.
    """

    title: str
    methods: Mapping[str, Method]
    tasks: Sequence[str] = ()
    averages: Sequence[str] = ()
    released: str = "dreamerv2"
    others: Sequence[str] = ()
    bin: int = BIN
    last: int = LAST_FRAMES
    seeds: int = 8
    pairs: Sequence[tuple[str, str, str]] = ()
    notes: tuple[str, ...] = ()


def grid_of_games(name: str, methods: Mapping[str, Method], *notes: str, seeds: int = 2, **more) -> Curves:
    """Appendices F to J: 55 games, then the four averages. The games' names come from the published table."""
    return Curves(name, methods, ("*",), tuple(AGGREGATES), seeds=seeds, notes=notes, **more)


PAIRS = (
    ("Latents", "gaussian-latents", "No Discrete Latents"),
    ("KL balancing", "no-kl-balancing", "No KL Balancing"),
    ("Image gradients", "no-image-gradients", "No Image Gradients"),
    ("Reward gradients", "no-reward-gradients", "No Reward Gradients"),
)
ABLATIONS = {
    "gaussian-latents": Method("Gaussian latents", "Gaussian", ORANGE),
    "no-kl-balancing": Method("No KL balancing", "no balancing", PURPLE),
    "no-image-gradients": Method("No image gradients", "no image", PURPLE),
    "no-reward-gradients": Method("No reward gradients", "no reward", ORANGE),
}
CURVES = {
    "figure_4": Curves(
        "Figure 4: averages over 55 Atari games",
        {"dreamerv2": BASE},
        averages=tuple(AGGREGATES),
        others=tuple(OTHERS),
    ),
    "figure_5": Curves(
        "Figure 5: what the world model learns from, clipped record mean of 55 games",
        {"dreamerv2": BASE, **ABLATIONS},
        averages=("clipped_record_mean",),
        seeds=2,
        pairs=PAIRS,
        notes=(
            EARLIER,
            "Horizontal lines: final values of Table 2, of the earlier agent (blue) and of its ablation, printed with "
            "two decimals.",
        ),
    ),
    "figure_a2": Curves(
        "Figure A.2: humanoid walk from pixels",
        {"humanoid": BASE},
        (HUMANOID,),
        released="humanoid",
        bin=HUMANOID_BIN,
        last=44_000_000,
        seeds=10,
        notes=(
            "The authors' settings for this task are not published; what the paper does not say is set as on other "
            "control tasks (experiments.yaml).",
        ),
    ),
    "figure_b2": Curves(
        "Figure B.2: Montezuma's Revenge with a discount of 0.99",
        {"montezuma": BASE},
        (MONTEZUMA,),
        released="montezuma",
        others=tuple(OTHERS),
        seeds=6,
        notes=(
            "Rainbow with a curiosity bonus, another line of the paper's figure, is in none of the authors' files.",
        ),
    ),
    "figure_f1": grid_of_games("Figure F.1: 55 Atari games", {"dreamerv2": BASE}, seeds=8, others=("iqn", "rainbow")),
    "figure_g1": grid_of_games(
        "Figure G.1: latents and KL balancing on 55 Atari games",
        {"dreamerv2": BASE, **{name: ABLATIONS[name] for name in ("gaussian-latents", "no-kl-balancing")}},
        EARLIER,
        "Counted by the paper, ties within 5 %: categorical latents are better than Gaussian ones on 42 games, worse "
        "on 8; KL balancing better than none on 44, worse on 6.",
    ),
    "figure_h1": grid_of_games(
        "Figure H.1: gradients of images and rewards on 55 Atari games",
        {"dreamerv2": BASE, **{name: ABLATIONS[name] for name in ("no-reward-gradients", "no-image-gradients")}},
        EARLIER,
        "Counted by the paper, ties within 5 %: stopping the gradients of images is better on 3 games, worse on 51; "
        "those of rewards better on 15, worse on 22.",
    ),
    "figure_i1": grid_of_games(
        "Figure I.1: gradients of the policy on 55 Atari games",
        {
            "schedules": Method("Both gradients (schedules)", "both", BLUE),
            "no-straight-through": Method("Reinforce alone", "Reinforce", ORANGE),
            "no-reinforce": Method("Straight-through alone", "straight-through", PURPLE),
        },
        EARLIER,
        "Both: the first release, whose mixed gradient these two take apart (ours: which agent the paper took is not "
        "published). Counted by the paper, ties within 5 %: Reinforce alone is better on 18 games, worse on 24; "
        "straight-through alone better on 5, worse on 44.",
    ),
    "figure_j1": grid_of_games(
        "Figure J.1: layer norm and random data on 55 Atari games",
        {
            "dreamerv2": BASE,
            "no-layer-norm": Method("No layer norm", "no layer norm", ORANGE),
            "random-data": Method("Random data", "random data", PURPLE),
        },
        EARLIER,
    ),
    "control": Curves(
        "20 control tasks from pixels",
        {
            "control": Method("DreamerV2, last commit", "last commit", BLUE),
            "control-release": Method("First release, Gaussian latents", "release", ORANGE),
        },
        CONTROL_TASKS,
        released="control",
        bin=CONTROL_BIN,
        last=2_000_000,
        seeds=5,
        notes=("Ours: the paper has no such figure. Dark line: scores released with the last commit (2022), 5 seeds.",),
    ),
    "versions": grid_of_games(
        "versions of the code on 55 Atari games",
        {
            "dreamerv2": Method("DreamerV2 as its published curves (2021)", "published", BLUE),
            "schedules": Method("First release, with schedules (2020)", "schedules", ORANGE),
            "last-commit": Method("Last commit (2022)", "last commit", PURPLE),
            "paper-text": Method("As the paper's table D.1 says", "text", GREEN),
        },
        "Ours: the paper has no such figure. Dark line: released runs of the published agent, 8 seeds. Those with "
        "schedules stand in Table 1.",
        seeds=4,
    ),
    "catch": Curves(
        "Catch from pixels",
        {"catch": BASE},
        (CATCH,),
        last=200_000,
        bin=5000,
        seeds=5,
        notes=(
            "Ours: the paper has no such figure, and nobody published a curve. From -5 (no ball caught) to 25 (none "
            "missed in 200 env steps); played at random -4.3.",
        ),
    ),
    "start": Curves(
        "the first frames of the games that were run",
        {"dreamerv2": BASE},
        ("*",),
        notes=(
            "Ours: the paper has no such figure. Games without a run of ours have no panel. Dark: every released seed, "
            "and their mean, up to the frames that our runs have reached (20M at most).",
        ),
    ),
}


def curve_drawing(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one figure of CURVES."""
    return functools.partial(curve_figure, name, CURVES[name])


def curve_figure(name: str, curves: Curves, request: Request) -> Drawn:
    """Test return over env steps, a panel per task, then averages over the 55 games.

    Numbers: a row per plotted point, columns of shared.figures.panels; kind is curve (mean over seeds), seed, published
    curve, published seed or published (a level). In a panel of an average, task is its name.
    """
    start = name == "start"
    curves = _named(curves, request, only_run=start)
    summary = _summary(curves, request, start)
    panels = _panels(curves, request, start)
    axis = _axis(curves, request, (), start)
    words = Words(
        f"DreamerV2, {curves.title}",
        _notes(curves, request, panels, summary),
        axis.label,
        _legend_entries(curves, request, panels),
    )
    return draw_suite(request, panels, summary, axis, words)


def _named(curves: Curves, request: Request, *, only_run: bool) -> Curves:
    """The figure with its games by name, and with further tasks where only those were run."""
    every = list(games(request.reference)["task"])
    run = [source.task for source in request.sources]
    if only_run:
        return replace(curves, tasks=sorted(set(run)))
    if curves.tasks == ("*",):
        return replace(curves, tasks=every)
    further = [] if set(run) & set(curves.tasks) or not curves.tasks else sorted(set(run))
    names = ", ".join(map(title, further))
    notes = (f"Not a task of this figure, but the one run at this scale: {names}.",) if further else ()
    return replace(curves, tasks=[*curves.tasks, *further], notes=(*notes, *curves.notes))


def _summary(curves: Curves, request: Request, start: bool) -> SeedMeans:
    """Bins as released at scale paper; elsewhere, and for the first frames, a fiftieth of the runs."""
    if start:
        reached = max((source.env_steps for source in request.sources), default=curves.bin)
        return SeedMeans(min(reached, START_FRAMES) // BINS or 1, START_FRAMES)
    if request.scale == "paper":
        return SeedMeans(curves.bin, curves.last)
    return SeedMeans(bin_width(request.sources, curves.bin))


def _axis(curves: Curves, request: Request, sources: Sequence[Source], start: bool) -> Axis:
    """As published at scale paper and where nothing was run; elsewhere to the longest planned run of the panel.

    start: as far as the runs have got.
    """
    last = float(curves.last)
    if start:
        last = min(max((source.env_steps for source in sources), default=BIN), START_FRAMES)
    elif sources and request.scale != "paper":
        last = max(source.total_env_steps for source in sources)
    games_only = any(task.startswith("atari_") for task in curves.tasks) or not curves.tasks
    unit = "frames (env steps)" if games_only else "env steps (action repeat included)"
    ticks = [0, last / 2, last]
    return Axis(0, last, ticks, [human(tick) for tick in ticks], unit, "env_steps")


def _panels(curves: Curves, request: Request, start: bool) -> list[Panel]:
    """The panels in order: tasks, then averages."""
    found, reference = by_curve(request.sources), request.reference
    panels = []
    for task in curves.tasks:
        runs = {key[:2]: sources for key, sources in found.items() if key[2] == task}
        axis = _axis(curves, request, [source for sources in runs.values() for source in sources], start)
        if start:
            shown = [start_seeds(reference, task, "DreamerV2, released", RELEASED_COLOR, "-", axis.last)]
        else:
            shown = [curve(reference, of, task, *style) for of, *style in _styles(curves)]
        span = CATCH_RETURNS if task == CATCH else None if task.startswith("atari_") else CONTROL
        panels.append(Panel(task, title(task), axis, runs, curves.methods, [line for line in shown if line], span=span))
    for statistic in curves.averages:
        runs: dict[tuple[str, str], list[Source]] = {}
        for key, sources in found.items():
            runs.setdefault(key[:2], []).extend(sources)
        shown = [average_curve(reference, of, statistic, *style) for of, *style in _styles(curves)]
        every = list(games(reference)["task"])
        whole = [source for sources in runs.values() if whole_seeds(sources, every) for source in sources]
        axis = _axis(curves, request, whole, start)
        average = Average(every, functools.partial(_average, request.reference, statistic, every))
        panel = Panel(statistic, TITLES[statistic], axis, runs, curves.methods, shown, average=average)
        panels += [_pair(panel, *pair, request) for pair in curves.pairs] or [panel]
    return panels


def _average(
    reference: Path, statistic: str, tasks: Sequence[str], returns: pd.DataFrame, grid: np.ndarray
) -> pd.DataFrame:
    """One of the four averages of our runs over training, as shared.figures.suite.Average asks for it."""
    found = aggregate_curves(returns, grid, tasks, anchors(games(reference)))
    return found[found["statistic"] == statistic]


def _pair(panel: Panel, words: str, variant: str, row: str, request: Request) -> Panel:
    """One panel of Figure 5: the agent and one ablation, with their final values of Table 2."""
    methods = {name: method for name, method in panel.methods.items() if name in ("dreamerv2", variant)}
    table = printed(request.reference, "table_2").set_index("method")
    rows = {"dreamerv2": table.index[0], variant: row}
    levels = [
        Level(of, float(table.at[of, panel.name]), methods[name].colors["torch"], "--", table.at[of, "origin"])
        for name, of in rows.items()
    ]
    runs = {key: sources for key, sources in panel.runs.items() if key[1] in methods}
    return replace(panel, title=words, methods=methods, runs=runs, levels=levels)


def _styles(curves: Curves) -> list[tuple[str, str, str, object]]:
    """(method, name, colour, dashes) of the released curves, those of others first, so that DreamerV2 lies above."""
    others = [(name, OTHERS[name], *OTHER_STYLES[name]) for name in curves.others]
    return [*others, (curves.released, "DreamerV2, released", RELEASED_COLOR, "-")]


def _legend_entries(
    curves: Curves, request: Request, panels: Sequence[Panel]
) -> tuple[list[tuple[str, Handles]], list[tuple[str, Handles]]]:
    """Legend entries: our methods; released curves."""
    drawn = {source.key[:2] for source in request.sources}
    shown = {line.method: line for panel in panels for line in panel.published}
    lines = []
    for line in reversed([shown[name] for _, name, *_ in _styles(curves) if name in shown]):
        where = "Dopamine" if line.method in OTHERS.values() else "its authors"
        words = f"{line.method.removesuffix(', released')}, released by {where}: {line.points['seeds'].max():.0f} seeds"
        lines.append((words, (_stroke(line.color, line.style),)))
    if curves.pairs:
        strokes = (_stroke(BLUE["torch"], "--"), _stroke(ORANGE["torch"], "--"))
        lines.append(("Table 2, final: earlier agent, and the ablation", strokes))
    return method_handles(curves.methods, drawn), lines


def _stroke(color: str, style: object) -> Line2D:
    return Line2D([], [], color=color, linestyle=style, linewidth=0.9)


def _notes(curves: Curves, request: Request, panels: Sequence[Panel], summary: SeedMeans) -> list[str]:
    """What a reader must know to read the panels."""
    of_tasks = [panel.runs for panel in panels if not panel.average]
    notes = [
        "Line: mean over seeds; band: one standard deviation over seeds to either side. Ours: before that the test "
        f"episodes of a seed are averaged within bins of {human(summary.width)} env steps (published: "
        f"{human(curves.bin)}). Bar at the end: {LEVEL:.0%} bootstrap interval over seeds of the last mean "
        f"({REPETITIONS} draws, seed {BOOTSTRAP_SEED}). Dashed: unfinished, or not all seeds have got there.",
    ]
    if any(task.startswith("atari_") for task in curves.tasks):
        notes.append(
            "Released runs here: bins of 1M frames up to 10M, of 5M beyond, each seed averaged within them (the files "
            "have 1M throughout), mean over the seeds that have the bin; 20 of 440 runs end before 195M."
        )
    if curves.averages:
        notes.append(
            "Averages: per seed over the 55 games, where a run ended early with its last value; then mean and "
            "deviation over seeds. So the paper draws them, while its Table 1 averages seeds first, which moves the "
            "gamer median from 1.79 to 2.15 (see table_1). James Bond's gamer score is repaired (302.8, not 29.0). "
            "Ours are drawn once every game has a run."
        )
    if curves.others:
        notes.append(
            "Dopamine's agents play with sticky actions too; their points are drawn at the end of an iteration."
        )
    if any(panel.runs and panel.published and panel.axis.last < curves.bin for panel in panels):
        notes.append("Where an axis is shorter than a released bin, the released curve begins beyond its end.")
    single = single_seeds(of_tasks, curves.methods)
    notes += [f"{single} Such a curve has neither band nor interval."] if single else []
    return [*notes, *curves.notes, *request.notes, origin_note(request.sources, request.scale)]
