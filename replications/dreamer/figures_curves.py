"""Dreamer's learning curves from run files: Figures 7 to 12 and the code lineages, all by one function.

What differs between them is data: CURVES. The parts of a panel are in shared/figures/panels.py, the statistics of a
curve in shared/figures/binned.py.
"""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from replications.dreamer.figures_published import (
    A3C,
    CURVE_BIN,
    D4PG,
    DREAMER,
    GAMES,
    GUIDE_STYLE,
    LEVEL_STYLE,
    LINE_COLOR,
    LINES,
    NAMES,
    PLANET,
    RELEASED,
    TASKS,
    guide_lines,
    length_note,
    levels,
    panel_tasks,
    read_table,
    released_average,
    released_curve,
)
from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL, REPETITIONS
from shared.figures.binned import SeedMeans, bin_width
from shared.figures.command import Drawn, Request
from shared.figures.curves import lives_are_episodes, random_returns
from shared.figures.grid import Grid
from shared.figures.page import INK, WIDTH, Page, human, styled
from shared.figures.panels import (
    CONTROL,
    RANDOM_COLOR,
    RANDOM_STYLE,
    Handles,
    Level,
    Method,
    Published,
    Span,
    draw_panel,
    env_step_axis,
    fitted_span,
    legend,
    method_handles,
    panel_head,
    panel_status,
    single_seeds,
)
from shared.figures.sources import Source, by_curve, origin_note

# Hue = method, lightness = framework; apart for colour-blind readers too. Dreamer itself is blue everywhere.
BLUE = {"torch": "#0072B2", "jax": "#56B4E9"}
ORANGE = {"torch": "#D55E00", "jax": "#E69F00"}
PURPLE = {"torch": "#8A4F7D", "jax": "#CC79A7"}
GREEN = {"torch": "#00704F", "jax": "#4FC3A1"}
RELEASED_COLOR = "#7A3600"  # of the TF2 code's own curves: the hue of variant tf2, darker
METHODS = {  # of several figures
    "dreamer": Method("Dreamer", "Dreamer", BLUE),
    "no-value": Method("No value, discounted (code)", "no value", ORANGE),
    "planet": Method("PlaNet (online planning)", "PlaNet", PURPLE),
}
TABLE_COLORS = {D4PG: LINE_COLOR, A3C: LINE_COLOR}
HEIGHT = 1.05  # inches of a panel; twice that where it is alone
# columns -> inches left of the first panel, from one panel to the next, and of these beside the panel
LAYOUT = {1: (1.2, 4.9, 0.75), 2: (0.6, 3.3, 0.75), 3: (0.6, 2.2, 0.75), 4: (0.46, 1.7, 0.36)}
LABELS, AXIS_LABEL, LEGEND_LINE = 0.2, 0.22, 0.135  # inches
STATUS_CHARACTERS = 38  # of a line above a panel
TICKS = (0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000)
REPRESENTATIONS = {
    "dreamer": Method("Reconstruction", "reconstruction", BLUE),
    "contrastive": Method("Contrastive", "contrastive", GREEN),
    "reward-only": Method("Reward only", "reward only", ORANGE),
}
UNKNOWN_TASKS = "Which tasks the paper's figure shows is not known to us: they are our choice."

Runs = Mapping[tuple[str, str], Sequence[Source]]  # (framework, variant) -> the seeds of one curve


@dataclass(frozen=True)
class Curves:
    """One figure of learning curves: its title, variants and tasks, and what is drawn and said besides."""

    title: str
    methods: Mapping[str, Method]
    tasks: Sequence[str]
    lines: Mapping[str, str]  # column of Appendix G -> colour of its line
    notes: tuple[str, ...] = ()
    ticks: Sequence[int] = TICKS  # of the x axis at scale paper
    released: bool = False  # draw the curves of the TF2 code
    seeds: int = 5  # published
    spans: Mapping[str, Span] = field(default_factory=dict)  # of tasks that are not drawn from 0 to 1000
    out_of_scope: str = ""  # title of panels that cannot be run


LOW = Span(0, 600, (0, 200, 400, 600))
CURVES = {
    "figure_7": Curves(
        "Figure 7: tasks that need foresight",
        METHODS,
        ("acrobot_swingup", "hopper_hop", "hopper_stand", "walker_walk"),
        {DREAMER: BLUE["torch"], PLANET: PURPLE["torch"]},
        (
            "Lines: scores after 5M env steps, more than this axis shows. The paper names acrobot and hopper as tasks "
            "that need foresight and walker as one that does not; which hopper and which walker task is our choice.",
        ),
        ticks=(0, 500_000, 1_000_000, 1_500_000, 2_000_000),
        spans={"acrobot_swingup": LOW, "hopper_hop": LOW},
    ),
    "figure_8": Curves(
        "Figure 8: objectives of representation learning",
        REPRESENTATIONS,
        ("cartpole_swingup", "cheetah_run", "cup_catch", "walker_walk"),
        {DREAMER: BLUE["torch"]},
        (UNKNOWN_TASKS,),
    ),
    "figure_9": Curves(
        "Figure 9: discrete actions and early termination",
        {
            "atari": Method("Dreamer, score function (code)", "score", BLUE),
            "atari-straight": Method("Dreamer, straight-through (text)", "straight", ORANGE),
        },
        tuple(GAMES),
        {},
        (
            "DeepMind Lab, the paper's other panels: OUT OF SCOPE. Its authors release no package, only a source tree "
            "to build with Bazel, so it cannot be pinned as the other environments are; the preset (discrete actions "
            "without a continuation head) is not run elsewhere.",
            UNKNOWN_TASKS,
            "IMPALA's guide line is in none of the authors' files that we have, and is left out. DQN and Rainbow after "
            "200M frames, SimPLe after 400k frames without sticky actions, from danijar/dreamerv2 @ 07d906e, "
            "scores/baselines.json: other budgets than on the axis.",
        ),
        ticks=(0, 2_500_000, 5_000_000, 7_500_000, 10_000_000),
        out_of_scope="DeepMind Lab",
    ),
    "figure_10": Curves(
        "Figure 10: action selection on 20 tasks",
        {
            "dreamer": METHODS["dreamer"],
            "no-value": METHODS["no-value"],
            "no-value-undiscounted": Method("No value, undiscounted (text)", "undiscounted", GREEN),
            "planet": METHODS["planet"],
        },
        tuple(TASKS),
        {DREAMER: BLUE["torch"], PLANET: PURPLE["torch"], **TABLE_COLORS},
        (
            "No value: the paper's formula has no discount, the code that made its curves discounts by 0.99; both are "
            "drawn.",
        ),
    ),
    "figure_11": Curves(
        "Figure 11: objectives of representation learning on 20 tasks",
        REPRESENTATIONS,
        tuple(TASKS),
        {DREAMER: BLUE["torch"], **TABLE_COLORS},
    ),
    "figure_12": Curves(
        "Figure 12: action repeats",
        {
            "repeat-1": Method("Repeat 1", "R=1", GREEN),
            "dreamer": Method("Repeat 2 (Dreamer)", "R=2", BLUE),
            "repeat-4": Method("Repeat 4", "R=4", ORANGE),
            "repeat-8": Method("Repeat 8", "R=8", PURPLE),
        },
        ("acrobot_swingup", "cartpole_swingup", "cheetah_run", "cup_catch", "hopper_hop", "walker_walk"),
        {DREAMER: BLUE["torch"]},
        ("Which repeats and tasks the paper's figure shows is not known to us: both are our choice.",),
        seeds=2,
    ),
    "side_by_side": Curves(
        "side by side: a learned behaviour and online planning, action repeat 8",
        {
            "repeat-8": Method("Dreamer", "Dreamer", BLUE),
            "planet-repeat-8": Method("PlaNet (online planning)", "PlaNet", PURPLE),
        },
        ("cartpole_swingup",),
        {},
        ("Ours: the paper has no such figure. Both methods learn the same world model; every action is held 8 times.",),
    ),
    "lineages": Curves(
        "code lineages: the paper's code, the released code, the paper's text",
        {
            "dreamer": Method("Dreamer as TF1 code has it", "TF1", BLUE),
            "tf2": Method("Dreamer as TF2 code has it", "TF2", ORANGE),
            "paper-text": Method("Dreamer as the text has it", "text", GREEN),
        },
        tuple(TASKS),
        {DREAMER: BLUE["torch"]},
        ("Ours: the paper has no such figure.",),
        released=True,
    ),
}


def curve_drawing(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one figure of CURVES."""
    return functools.partial(curve_figure, CURVES[name])


def curve_figure(curves: Curves, request: Request) -> Drawn:
    """Test return over env steps, a panel per task.

    Numbers: a row per plotted point, columns of shared.figures.panels; kind is curve (mean over seeds), seed, random,
    published (a line) or, for the curves released with the TF2 code, published curve and published seed.
    """
    table = read_table(request.reference)
    tasks = panel_tasks(curves.tasks, request.sources)
    sources = [source for source in request.sources if source.task in tasks]
    of_task = {task: {key[:2]: found for key, found in by_curve(sources).items() if key[2] == task} for task in tasks}
    axis = env_step_axis(sources, request.scale, curves.ticks)
    summary = SeedMeans(bin_width(sources, CURVE_BIN), axis.last if request.scale == "paper" else math.inf)
    methods, lines = _legend_entries(curves, sources, request)
    marks = {task: _marks(curves, request, table, task) for task in tasks}
    spans = {task: _span(curves, task, of_task[task], marks[task], summary) for task in tasks}
    status = {
        task: panel_status(runs, curves.methods, request.seeds, characters=STATUS_CHARACTERS, episodes=False)
        for task, runs in of_task.items()
    }
    heads = [*map(len, status.values()), *([0] if curves.out_of_scope else [])]
    legend_height = LEGEND_LINE * max(len(methods), len(lines)) + 0.1
    grid = panel_grid(heads, 1 if len(heads) == 1 else _columns(spans.values()), legend_height)
    tables = []
    with styled():
        page = Page(f"Dreamer, {curves.title}", request.scale, grid.body, _notes(curves, request, of_task, summary))
        for index, task in enumerate(tasks):
            axes = page.axes(*grid.place(index))
            shown = (marks[task], summary, _released(curves, request, task), spans[task])
            tables.append(draw_panel(axes, axis, task, of_task[task], curves.methods, *shown))
            panel_head(axes, NAMES[task], status[task])
            first = index % grid.columns == 0
            axes.tick_params(labelbottom=grid.lowest(index), labelleft=first or grid.columns < 4)
            axes.set_ylabel("test return" if first else "", labelpad=2)
        if curves.out_of_scope:
            out_of_scope(page.axes(*grid.place(len(tasks))), curves.out_of_scope)
        page.text(page.width / 2, legend_height + 0.04, axis.label, ha="center", color=INK, fontsize=7)
        legend(page, grid.left, legend_height, methods)
        legend(page, grid.left + 0.47 * WIDTH, legend_height, lines)
    return Drawn(page.figure, pd.concat(tables, ignore_index=True), {})


def panel_grid(heads: Sequence[int], columns: int, legend_height: float) -> Grid:
    """Where the panels go. heads: status lines above each."""
    left, across, beside = LAYOUT[columns]
    return Grid(
        heads=heads,
        columns=columns,
        width=across - beside,
        height=HEIGHT if columns > 1 else 2 * HEIGHT,
        left=left,
        across=across,
        labels=LABELS,
        foot=legend_height + AXIS_LABEL,
    )


def _released(curves: Curves, request: Request, task: str) -> list[Published]:
    """The curve released with the TF2 code, in the figure that compares with it."""
    if not curves.released:
        return []
    return [released_curve(request.reference.with_name(RELEASED), task, RELEASED_COLOR)]


def _marks(curves: Curves, request: Request, table: pd.DataFrame, task: str) -> list[Level]:
    """The horizontal lines of one panel."""
    if task in GAMES:
        return guide_lines(request.reference.with_name(LINES), task)
    return levels(table, task, curves.lines)


def _span(curves: Curves, task: str, runs: Runs, marks: Sequence[Level], summary: SeedMeans) -> Span:
    """0 to 1000 on control tasks, or as the figure says unless a curve is higher; around the data on games."""
    if task in TASKS and task not in curves.spans:
        return CONTROL
    values = [mark.score for mark in marks]
    for sources in runs.values():
        points = summary.curve(sources)
        values += [value for name in ("center", "low", "high") for value in points[name]]
        values += list(random_returns(sources))
    if task in TASKS:
        return curves.spans[task] if max(values) <= curves.spans[task].high else CONTROL
    return fitted_span(values)


def _columns(spans: Collection[Span]) -> int:
    """Panels in a row: fewer where every panel has its own y axis, whose labels need room."""
    if all(span is CONTROL for span in spans):
        return 4
    return 2 if len(spans) <= 4 else 3


def _legend_entries(
    curves: Curves, sources: Sequence[Source], request: Request
) -> tuple[list[tuple[str, Handles]], list[tuple[str, Handles]]]:
    """Legend entries: methods; published lines and curves, and the random return."""
    entries = []
    for method, color in curves.lines.items():
        words = f"{method}, paper's table: {'5M' if method in (DREAMER, PLANET) else '100M'} env steps"
        entries.append((words, _stroke(color, LEVEL_STYLE[method], 0.9)))
    if set(curves.tasks) <= set(GAMES):
        entries += [(f"{method}, published", _stroke(LINE_COLOR, style, 0.9)) for method, style in GUIDE_STYLE.items()]
    if curves.released:
        entries.append(("TF2 code, released: 5 seeds, mean and deviation", _stroke(RELEASED_COLOR, (0, (1, 1)), 0.9)))
    if len(random_returns(sources)):
        entries.append(("random actions", _stroke(RANDOM_COLOR, RANDOM_STYLE, 1.1)))
    return method_handles(curves.methods, {source.key[:2] for source in sources}), entries


def _stroke(color: str, style: object, width: float) -> Handles:
    return (Line2D([], [], color=color, linestyle=style, linewidth=width),)


def out_of_scope(axes: Axes, title: str) -> None:
    """An empty panel that says so; the reason is in the notes."""
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(), yticks=())
    axes.text(0.5, 0.5, "OUT OF SCOPE", ha="center", va="center", fontsize=10, fontweight="bold", color="#B5B5B5")
    panel_head(axes, title, [])


def _notes(curves: Curves, request: Request, of_task: Mapping[str, Runs], summary: SeedMeans) -> list[str]:
    """What a reader must know to read the panels."""
    sources = [source for runs in of_task.values() for found in runs.values() for source in found]
    single = single_seeds(of_task.values(), curves.methods)
    further = [NAMES[task] for task in of_task if task not in curves.tasks]
    published = f" (released: {human(CURVE_BIN)}, ten episodes)" if curves.released else ""
    random = " Random: mean return of the runs' own random prefill." if len(random_returns(sources)) else ""
    notes = [
        "Line: mean over seeds; band: one standard deviation over seeds to either side. Before that the test episodes "
        f"of a seed are averaged within bins of {human(summary.width)} env steps{published}. Thin lines: "
        f"single seeds. Bar at the end of a curve: {LEVEL:.0%} bootstrap interval of its last mean (seeds "
        f"drawn with replacement; {REPETITIONS} draws from NumPy's default generator with seed "
        f"{BOOTSTRAP_SEED}). Dashed: an unfinished run, or a point that not all seeds have reached.{random}",
    ]
    if any(map(lives_are_episodes, sources)):
        notes.append(
            "No line of random actions on games: training episodes, the random ones too, end with a lost life, and the "
            "curves are of whole games."
        )
    if curves.lines:
        others = (
            " D4PG and A3C are others' agents: 100M env steps, A3C from states instead of pixels, neither on quadruped "
            "tasks."
        )
        notes.append(
            "Horizontal lines: final scores of the table in Appendix G (arXiv 1912.01603 v3), means of 5 seeds; "
            "Dreamer's were made by the TF1 code as variant dreamer is set. The paper's own curves are not published "
            "as numbers." + others * (D4PG in curves.lines)
        )
    if curves.released:
        average = released_average(request.reference.with_name(RELEASED))
        at = [f"{average.loc[steps]:.0f} at {steps / 1e6:.1f}M" for steps in (1_005_000, 2_005_000, 4_905_000)]
        notes.append(
            "Dotted: test returns released with the TF2 code (danijar/dreamer @ 56d4d44, scores/dreamer.json), which "
            "is how variant tf2 is set and no other: not the paper's runs. Their mean over 20 tasks: "
            f"{', '.join(at)} env steps (where runs stop early, of those that go on)."
        )
    if further:
        notes.append(f"Not a task of this figure, but the only one run at this scale: {', '.join(further)}.")
    notes += [f"{single} Such a curve has neither band nor interval."] if single else []
    closing = [*length_note(sources), *request.notes, origin_note(sources, request.scale)]
    return [*notes, *curves.notes, *(["The paper has 2 seeds in this figure."] if curves.seeds == 2 else []), *closing]
