"""DreamerV3's learning curves from run files: Figures 6, 10, 13 to 15, 17 and 18, Crafter, and the three agents.

What differs between them is data: CURVES. Returns are those of training episodes, as the authors score. A published
curve is drawn only where ours is of the same agent; hue tells the agent. shared/figures/suite.py draws the pages.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D

from replications.dreamerv3.figures_published import (
    CRAFTER,
    INDEPENDENT,
    NAMES,
    STATISTICS,
    SUITES,
    Suite,
    average_curve,
    curve,
    origin,
    statistic,
    tasks_of,
    title,
)
from shared.figures.aggregate import BOOTSTRAP_SEED, LEVEL, REPETITIONS
from shared.figures.binned import SeedMeans, bin_width
from shared.figures.command import Drawn, Request
from shared.figures.curves import collected
from shared.figures.page import human
from shared.figures.panels import CONTROL, Axis, Handles, Method, Published, Span, method_handles, single_seeds
from shared.figures.scores import seeds_first_curve
from shared.figures.sources import Source, by_curve, origin_note
from shared.figures.suite import Average, Panel, Words, draw_suite

# Hue = agent or variant, lightness = framework; apart for colour-blind readers too.
BLUE = {"torch": "#0072B2", "jax": "#56B4E9"}
ORANGE = {"torch": "#D55E00", "jax": "#E69F00"}
PURPLE = {"torch": "#8A4F7D", "jax": "#CC79A7"}
GREEN = {"torch": "#00704F", "jax": "#4FC3A1"}
OCHRE = {"torch": "#8C6D1F", "jax": "#C9B458"}
RED = {"torch": "#8F3B56", "jax": "#D98BA3"}
GREY = {"torch": "#5A5A5A", "jax": "#A8A8A8"}
STYLES = {  # of published curves; an agent has the hue of ours, darker
    "dreamerv3-2024": ("#6B2F00", "-"),
    "dreamerv3-2023": ("#46263F", "-"),
    "dreamerv3-tdmpc2": ("#46263F", (0, (1, 1))),
    "muzero": ("#00704F", (0, (4, 1.2))),
    "ppo": ("#8A8A8A", (0, (1, 1))),
    "ddpg": ("#8C6D1F", (0, (1, 1))),
    "dmpo": ("#00704F", (0, (4, 1.2, 1, 1.2))),
    "d4pg": ("#0072B2", (0, (4, 1.2))),
    "mpo": ("#8F3B56", (0, (2, 1))),
    "sac": ("#8C6D1F", (0, (4, 1.2, 1, 1.2))),
    "curl": ("#0072B2", (0, (2, 1))),
    "drqv2": ("#00704F", (0, (4, 1.2))),
}
AGENT_NAMES = {"": "last commit", "2024": "2024 agent", "2023": "2023 agent"}
ABLATION_TASKS = ("cartpole_swingup", "cheetah_run", "finger_turn_hard", "hopper_hop", "walker_walk")
CRAFTER_TASK = "crafter_reward"
CRAFTER_RETURNS = Span(-1, 22, (0, 5, 10, 15, 20))  # 22 achievements; all health lost costs 0.9


def agent(variant: str) -> str:
    """Which of the three agents a variant is, in words. Ablations, sizes and replay ratios change the last commit's."""
    return AGENT_NAMES.get(variant.rpartition("-")[2] if "-20" in variant else "", "last commit")


def of_agent(variant: str) -> Method:
    """A suite's agent as a method: named and coloured by the state of the code."""
    words = agent(variant)
    colors = {"last commit": BLUE, "2024 agent": ORANGE, "2023 agent": PURPLE}[words]
    return Method(f"DreamerV3, {words}", words.removesuffix(" agent"), colors)


HEAD = Method("DreamerV3, last commit, 12M, ratio 512", "full", BLUE)
ROBUSTNESS = {
    "dreamerv3": HEAD,
    "no-symlog-inputs": Method("no symlog of inputs", "no symlog", ORANGE),
    "advantage-normalisation": Method("advantages normalised, not returns", "advantage norm", PURPLE),
    "huber-heads": Method("Huber loss, no two-hot heads", "Huber", GREEN),
    "no-free-bits": Method("plain KL: no free bits, no balance", "plain KL", OCHRE),
    "no-unimix": Method("no unimix", "no unimix", RED),
}
SIGNALS = {
    "dreamerv3": HEAD,
    "no-reward-value-gradients": Method("no reward and value gradients", "no reward, value", ORANGE),
    "no-reconstruction-gradients": Method("no reconstruction gradients", "no reconstr.", PURPLE),
}
SIZES = {
    "size1m": Method("1M parameters", "1M", GREY),
    "dreamerv3": HEAD,
    "size25m": Method("25M", "25M", GREEN),
    "size50m": Method("50M", "50M", OCHRE),
    "size100m": Method("100M", "100M", ORANGE),
    "size200m": Method("200M", "200M", RED),
    "size400m": Method("400M", "400M", PURPLE),
}
RATIOS = {
    "ratio-32": Method("replay ratio 32", "32", GREY),
    "ratio-128": Method("replay ratio 128", "128", GREEN),
    "dreamerv3": HEAD,
    "ratio-1024": Method("replay ratio 1024", "1024", ORANGE),
}
ON_CRAFTER = Method("Crafter, last commit, 200M, ratio 512", "full", BLUE)
CRAFTER_SIZES = {
    "crafter-size12m": Method("Crafter, 12M", "12M", GREY),
    "crafter-size25m": Method("Crafter, 25M", "25M", GREEN),
    "crafter-size50m": Method("Crafter, 50M", "50M", OCHRE),
    "crafter-size100m": Method("Crafter, 100M", "100M", ORANGE),
    "crafter": ON_CRAFTER,
    "crafter-size400m": Method("Crafter, 400M", "400M", PURPLE),
}
CRAFTER_RATIOS = {
    "crafter-ratio-32": Method("Crafter, replay ratio 32", "32", GREY),
    "crafter-ratio-128": Method("Crafter, replay ratio 128", "128", GREEN),
    "crafter": ON_CRAFTER,
    "crafter-ratio-1024": Method("Crafter, replay ratio 1024", "1024", ORANGE),
}
ENTROPIES = {
    "dreamerv3": HEAD,
    "entropy-1e-4": Method("entropy scale 1e-4", "1e-4", GREEN),
    "entropy-1e-3": Method("entropy scale 1e-3", "1e-3", ORANGE),
    "entropy-target": Method("entropy target, half of its range", "target", PURPLE),
}
PARTS = (  # panels of Figure 6
    ("a  Robustness techniques", ROBUSTNESS),
    ("b  Learning signals", SIGNALS),
    ("c  Model sizes", SIZES),
    ("d  Replay ratios", RATIOS),
    ("c  Sizes, Crafter", CRAFTER_SIZES),
    ("d  Ratios, Crafter", CRAFTER_RATIOS),
)
OURS = "Ours: the paper has no such figure, and no published curve is drawn in it."
UNPUBLISHED = (
    "The paper's curves of ablations are not published, nor its list of 14 tasks; these five tasks are ours, of "
    "control from vectors. All runs are of the last commit's agent."
)
CRAFTER_NUMBERS = (
    "Return on Crafter: achievements unlocked, of 22, less a tenth of the health lost. Our source has no published "
    "curve and no number of it, so none is drawn."
)


@dataclass(frozen=True)
class Curves:
    """One figure of learning curves.

    tasks: a panel each; empty for all of the suite. averages: panels of the mean and median over the suite's tasks.
    released: methods whose published curves are drawn. pooled: (title, methods), a panel each that pools all tasks.
    only_run: below scale paper, tasks without a run of ours have no panel.
    """

    title: str
    suite: Suite
    methods: Mapping[str, Method]
    tasks: Sequence[str] = ()
    averages: bool = False
    released: Sequence[str] = ()
    pooled: Sequence[tuple[str, Mapping[str, Method]]] = ()
    only_run: bool = False
    notes: tuple[str, ...] = ()


def published_figure(name: str, suite: Suite, *notes: str, more: Sequence[str] = ()) -> Curves:
    """A figure of the paper that has published curves: ours is of the agent that made them."""
    words = agent(suite.variant)
    return Curves(
        f"{name}: {suite.words}, {words}",
        suite,
        {suite.variant: of_agent(suite.variant)},
        averages=True,
        released=(suite.published, *more, *suite.others),
        notes=(
            f"Which agent: the published DreamerV3 runs were made by the {words}, and ours here are of the same "
            f"(variant {suite.variant}). The last commit's agent, this repository's default, made no published curve; "
            f"its runs are in dreamerv3_{AGENT_FIGURES[suite.name]}.",
            *notes,
        ),
    )


def figure_of_agents(suite: Suite, *variants: str) -> Curves:
    """All three agents, or those that there are, on one suite."""
    return Curves(
        f"the agents: {suite.words}",
        suite,
        {variant: of_agent(variant) for variant in variants},
        averages=True,
        only_run=True,
        notes=(f"{OURS} Which agent ran is told by hue and name.",),
    )


AGENT_FIGURES = {"proprio": "agents", "vision": "agents_vision", "atari": "agents_atari",
                 "atari100k": "agents_atari100k"}  # fmt: skip
CURVES = {
    "figure_6": Curves(
        "Figure 6: what matters, on control and on Crafter, last commit's agent",
        SUITES["proprio"],
        {**ROBUSTNESS, **SIGNALS, **SIZES, **RATIOS, **CRAFTER_SIZES, **CRAFTER_RATIOS},
        ABLATION_TASKS,
        pooled=PARTS,
        notes=(
            UNPUBLISHED,
            "Every panel: mean over its tasks and seeds, band one standard deviation over both. Published on 14 tasks "
            "(a, b) and on Crafter and a DMLab task (c, d). The paper's ratios are not known; ours are our choice.",
            CRAFTER_NUMBERS,
        ),
    ),
    "figure_10": published_figure("Figure 10", SUITES["atari"]),
    "figure_13": published_figure(
        "Figure 13",
        SUITES["atari100k"],
        "The 2024 code's configuration selects the sticky, grey environment by mistake; whether the published runs had "
        "it is not known. Ours is the intended one. Curves of SimPLe, SPR, TWM and IRIS are not in the authors' files.",
    ),
    "figure_14": published_figure(
        "Figure 14",
        SUITES["proprio"],
        f"Another group: an independent run of an early DreamerV3, three seeds, test returns ({INDEPENDENT}).",
        more=("dreamerv3-tdmpc2",),
    ),
    "figure_15": published_figure("Figure 15", SUITES["vision"]),
    "figure_17": Curves(
        "Figure 17: robustness techniques, task by task, last commit's agent",
        SUITES["proprio"],
        ROBUSTNESS,
        ABLATION_TASKS,
        notes=(UNPUBLISHED,),
    ),
    "figure_18": Curves(
        "Figure 18: learning signals, task by task, last commit's agent",
        SUITES["proprio"],
        SIGNALS,
        ABLATION_TASKS,
        notes=(UNPUBLISHED,),
    ),
    "crafter": Curves(
        "Crafter, last commit's agent",
        CRAFTER,
        {"crafter": of_agent("crafter")},
        (CRAFTER_TASK,),
        notes=(CRAFTER_NUMBERS,),
    ),
    "entropies": Curves(
        "scales of the entropy, task by task, last commit's agent",
        SUITES["proprio"],
        ENTROPIES,
        ABLATION_TASKS,
        notes=(f"{OURS} The full agent has 3e-4. Entropy target: a scale that follows the policy's entropy.",),
    ),
    "agents": figure_of_agents(SUITES["proprio"], "dreamerv3", "proprio-2024", "proprio-2023"),
    "agents_vision": figure_of_agents(SUITES["vision"], "vision", "vision-2024", "vision-2023"),
    "agents_atari": figure_of_agents(SUITES["atari"], "atari", "atari-2024"),
    "agents_atari100k": figure_of_agents(SUITES["atari100k"], "atari100k", "atari100k-2024"),
}


def curve_drawing(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one figure of CURVES."""
    return functools.partial(curve_figure, CURVES[name])


def curve_figure(curves: Curves, request: Request) -> Drawn:
    """Return of training episodes over env steps, a panel per task, then averages over the suite.

    Numbers: a row per plotted point, columns of shared.figures.panels; kind is curve (mean over seeds), seed or
    published curve. In a panel of an average, task is its name.
    """
    panels = [*_task_panels(curves, request), *_average_panels(curves, request)]
    if curves.pooled:
        panels = _pooled_panels(curves, request)
    summary = _summary(curves, request)
    label = "frames (env steps)" if curves.suite.games else "env steps (action repeat included)"
    entries = method_handles(curves.methods, {source.key[:2] for source in request.sources})
    half = -(-len(entries) // 2) if curves.pooled else len(entries)
    words = Words(
        f"DreamerV3, {curves.title}",
        _notes(curves, request, panels, summary),
        label,
        [entries[:half], entries[half:] or _released_entries(panels)],
        value="training return",
        left=(0.48, 3.7) if len(panels) != 1 else (1.5, 3.7),
    )
    axis = _axis(_suite_of(curves, curves.methods), request, ())
    return draw_suite(request, panels, summary, axis, words)


def _summary(curves: Curves, request: Request) -> SeedMeans:
    """Bins of training episodes: as the published ones are kept at scale paper; elsewhere a fiftieth of the runs."""
    if request.scale == "paper":
        budgets = [_suite_of(curves, methods).env_steps for _, methods in curves.pooled or [("", curves.methods)]]
        return SeedMeans(curves.suite.bin, max(budgets), episodes=collected)
    return SeedMeans(bin_width(request.sources, curves.suite.bin), episodes=collected)


def _suite_of(curves: Curves, methods: Mapping[str, Method]) -> Suite:
    """The suite of a panel: the figure's, or Crafter where its methods are of that."""
    return CRAFTER if CRAFTER.variant in methods else curves.suite


def _span(suite: Suite) -> Span | None:
    """The y axis of a suite's tasks; None: around what is drawn."""
    if suite is CRAFTER:
        return CRAFTER_RETURNS
    return None if suite.games else CONTROL


def _axis(suite: Suite, request: Request, sources: Sequence[Source]) -> Axis:
    """As published at scale paper and where nothing was run; elsewhere to the longest planned run of the panel."""
    last = float(suite.env_steps)
    if sources and request.scale != "paper":
        last = max(source.total_env_steps for source in sources)
    ticks = [0, last / 2, last]
    return Axis(0, last, ticks, [human(tick) for tick in ticks], "", "env_steps")


def _tasks(curves: Curves, request: Request) -> list[str]:
    tasks = list(curves.tasks) or tasks_of(request.reference, curves.suite.name)
    if curves.only_run and request.scale != "paper":
        return sorted({source.task for source in request.sources})
    return [*tasks, *sorted({source.task for source in request.sources} - set(tasks))]


def _task_panels(curves: Curves, request: Request) -> list[Panel]:
    found, panels = by_curve(request.sources), []
    for task in _tasks(curves, request):
        runs = {key[:2]: sources for key, sources in found.items() if key[2] == task}
        shown = [
            curve(request.reference, curves.suite.name, method, task, *STYLES[method]) for method in _behind(curves)
        ]
        axis = _axis(curves.suite, request, [source for sources in runs.values() for source in sources])
        shown = [line for line in shown if line]
        panels.append(Panel(task, title(task), axis, runs, curves.methods, shown, span=_span(curves.suite)))
    return panels


def _average_panels(curves: Curves, request: Request) -> list[Panel]:
    """Mean and median over the suite's tasks, seeds averaged first."""
    if not curves.averages or (curves.only_run and request.scale != "paper"):
        return []
    suite, panels = curves.suite, []
    every = tasks_of(request.reference, suite.name)
    runs: dict[tuple[str, str], list[Source]] = {}
    for key, sources in by_curve(request.sources).items():
        runs.setdefault(key[:2], []).extend(source for source in sources if source.task in every)
    for name in STATISTICS:
        of = statistic(request.reference, suite.name, name)
        shown = [average_curve(request.reference, suite.name, method, name, *STYLES[method])
                 for method in _behind(curves)]  # fmt: skip
        words = f"Gamer {name}, %" if suite.games else f"Task {name}"
        average = Average(every, functools.partial(seeds_first_curve, tasks=every, of=of))
        panels.append(
            Panel(
                *(f"{'gamer' if suite.games else 'task'}_{name}", words, _axis(suite, request, ()), runs),
                *(curves.methods, [line for line in shown if line]),
                average=average,
                span=_span(suite),
            )
        )
    return panels


def _pooled_panels(curves: Curves, request: Request) -> list[Panel]:
    """Figure 6: all tasks of a variant together, a panel per part."""
    panels = []
    for words, methods in curves.pooled:
        runs: dict[tuple[str, str], list[Source]] = {}
        for source in request.sources:
            if source.key[1] in methods:
                runs.setdefault(source.key[:2], []).append(source)
        suite = _suite_of(curves, methods)
        axis = _axis(suite, request, [source for sources in runs.values() for source in sources])
        panels.append(Panel(words.partition("  ")[2].lower(), words, axis, runs, methods, span=_span(suite)))
    return panels


def _behind(curves: Curves) -> list[str]:
    """Published methods in the order of drawing: the agent's own curve last, so that it lies above."""
    return list(reversed(curves.released))


def _released_entries(panels: Sequence[Panel]) -> list[tuple[str, Handles]]:
    """Legend entries of published curves, the agent's own first."""
    shown: dict[str, Published] = {}
    for panel in panels:
        shown |= {line.method: line for line in panel.published}
    order = {f"{NAMES[method]}, released": rank for rank, method in enumerate(STYLES)}
    entries = []
    for line in sorted(shown.values(), key=lambda line: order[line.method]):
        each = [int(p.points["seeds"].max()) for panel in panels for p in panel.published if p.method == line.method]
        seeds = f"{min(each)}–{max(each)}" if min(each) < max(each) else f"{max(each)}"
        stroke = Line2D([], [], color=line.color, linestyle=line.style, linewidth=0.9)
        name = line.method.removesuffix(", released")
        entries.append((f"{name}, published: {seeds} seed{'s' * (seeds != '1')}", (stroke,)))
    return entries


def _notes(curves: Curves, request: Request, panels: Sequence[Panel], summary: SeedMeans) -> list[str]:
    """What a reader must know to read the panels."""
    suite = curves.suite
    notes = [
        "Returns of training episodes, which are all that the authors score. Line: mean over seeds; band: one standard "
        f"deviation over seeds to either side; before that a seed's episodes are averaged within bins of "
        f"{human(summary.width)} env steps. Bar at the end: {LEVEL:.0%} bootstrap interval over seeds of the last mean "
        f"({REPETITIONS} draws, seed {BOOTSTRAP_SEED}). Dashed: unfinished, or not all seeds have got there.",
        *curves.notes,
    ]
    if curves.released:
        own = curves.released[0]
        notes.append(
            f"Published: {origin(suite.name, own)}, bins of {human(suite.bin)} env steps, mean and one standard "
            "deviation over the seeds that have the bin; baselines from the same files, evaluated as their authors do."
        )
    if any(panel.average for panel in panels):
        what = "of gamer-normalised scores, " if suite.games else ""
        notes.append(
            f"Averages {what}seeds first: the mean curves of all tasks make one number per bin, so there is no band. "
            "Ours are drawn once every task has a run."
        )
    if any(panel.runs and panel.published and panel.axis.last < suite.env_steps for panel in panels):
        notes.append("Panels with runs of ours end where those do; beside runs of this scale the published is a guide.")
    single = single_seeds([panel.runs for panel in panels if not panel.average], curves.methods)
    notes += [f"{single} Such a curve has neither band nor interval."] if single else []
    return [*notes, *request.notes, origin_note(request.sources, request.scale)]
