"""PlaNet's Figure 11 from diagnostics files: what small networks read from an imagined latent state, beside the truth.

replications/planet/diagnostics.py makes the files, seed_N.diagnostics.h5 beside the run seed_N.h5.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from replications.planet.diagnostics import Diagnostics, read_diagnostics
from replications.planet.figures_published import TASKS
from shared.errors import UserError
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, MARGIN, QUIET, WIDTH, Page, styled
from shared.figures.panels import legend
from shared.figures.sources import Source, origin_note

VARIANTS = ("rssm",)
COLORS = {"torch": "#0072B2", "jax": "#56B4E9"}  # of the prediction
SHADE = "#ECECEC"  # behind the context
SHOWN = "agent"  # of the held-out episodes, the one that the agent played
NUMBERS = [
    *("framework", "task", "seed", "episode", "component", "index", "frame", "context"),
    *("truth", "prediction", "filtered"),
]
COLUMNS = 3  # panels side by side
LEFT, ACROSS, DOWN = 0.42, 0.5, 0.3  # inches: left of the panels, between them
HEIGHT, HEAD, FOOT, LEGEND = 0.52, 0.36, 0.34, 0.3  # inches: panel, above and below a block of them, legend

Found = Sequence[tuple[Source, Diagnostics]]


def figure_11(request: Request) -> Drawn:
    """True states and reward of one held-out episode, and what is predicted open loop after the context; one block of
    panels per framework, a panel per number.

    Numbers: a row per run, held-out episode, component and frame, with the value that is read when every image is
    seen (filtered) besides. Runs without a diagnostics file are named in the notes.
    """
    found = [(source, diagnostics_of(source)) for source in request.sources if beside(source).is_file()]
    shown = choose(found)
    tables = [series_table(diagnostics) for _, diagnostics in found]
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=NUMBERS)
    heights = [_block_height(diagnostics) for _, diagnostics in shown] or [0.1]
    below = sum(heights) + LEGEND
    title = "PlaNet, Figure 11: open-loop state diagnostics"
    title += f", {TASKS[shown[0][0].task]}" if shown else ""
    with styled():
        page = Page(title, request.scale, below, _notes(request, found, shown))
        for (source, diagnostics), height in zip(shown, heights, strict=False):
            draw_block(page, below, source, diagnostics)
            below -= height
        if shown:
            lines = {"true": INK, **{f"predicted ({name})": COLORS[name] for name in (s.key[0] for s, _ in shown)}}
            for place, (name, color) in enumerate(lines.items()):
                legend(page, LEFT + 1.6 * place, LEGEND, [(name, Line2D([], [], color=color))])
        else:
            page.text(MARGIN, 0.2, "NOT RUN", fontsize=8, fontweight="bold", color=QUIET)
    return Drawn(page.figure, numbers, {})


def beside(source: Source) -> Path:
    """Where the diagnostics of a run lie."""
    return source.path.with_suffix(".diagnostics.h5")


def diagnostics_of(source: Source) -> Diagnostics:
    """The diagnostics beside a run; UserError where they were made from another state of it."""
    found = read_diagnostics(beside(source))
    if found.attrs["run_sha256"] != source.sha256:
        raise UserError(f"{found.path}: made from another run than {source.path} is now; delete it and make it again")
    return found


def choose(found: Found) -> Found:
    """What is drawn: of the first task in the published order, the lowest seed of each framework."""
    task = next((task for task in TASKS if any(source.task == task for source, _ in found)), None)
    runs = [[one for one in found if one[0].key[::2] == (name, task)] for name in COLORS]
    return [min(same, key=lambda one: one[0].seed) for same in runs if same]


def series_table(diagnostics: Diagnostics) -> pd.DataFrame:
    """The series of one file as a table, columns NUMBERS; index counts from 1 within a component, frame from 1."""
    attrs, rows = diagnostics.attrs, []
    for component, truth in diagnostics.truth.items():
        for episode, index in np.ndindex(truth.shape[0], truth.shape[2]):
            frames = np.arange(1, truth.shape[1] + 1)
            rows.append(
                pd.DataFrame(
                    {
                        "episode": json.loads(attrs["kinds"])[episode],
                        "component": component,
                        "index": index + 1,
                        "frame": frames,
                        "context": frames <= attrs["context"],
                        "truth": truth[episode, :, index],
                        "prediction": diagnostics.prediction[component][episode, :, index],
                        "filtered": diagnostics.filtered[component][episode, :, index],
                    }
                )
            )
    identity = {name: attrs[name] for name in ("framework", "task", "seed")}
    return pd.concat(rows, ignore_index=True).assign(**identity).reindex(columns=NUMBERS)


def unexplained(diagnostics: Diagnostics, which: str) -> float:
    """Mean squared error of prediction or filtered over all frames after the context and all components, each in units
    of its variance in the training episodes: 0 is perfect, 1 is what a constant mean would reach there."""
    parts = []
    for component, truth in diagnostics.truth.items():
        spread = diagnostics.spread[component]
        moving = spread > 0  # a number that never changes has no scale
        error = (getattr(diagnostics, which)[component] - truth)[:, diagnostics.attrs["context"] :, moving]
        parts.append((error / spread[moving]) ** 2)
    return float(np.concatenate(parts, -1).mean())


def draw_block(page: Page, top: float, source: Source, diagnostics: Diagnostics) -> None:
    """One run's panels below `top`, in inches from the body's lower edge."""
    episode = json.loads(diagnostics.attrs["kinds"]).index(SHOWN)
    width = (WIDTH - LEFT - MARGIN - (COLUMNS - 1) * ACROSS) / COLUMNS
    head = f"{source.key[0]}, seed {source.seed}: held-out episode, played by the agent without exploration"
    page.text(MARGIN, top - 0.12, head, fontsize=7, fontweight="bold", color=INK)
    panels = _panels(diagnostics)
    for place, (component, index) in enumerate(panels):
        row, column = divmod(place, COLUMNS)
        bottom = top - HEAD - HEIGHT - row * (HEIGHT + DOWN)
        axes = page.axes(LEFT + column * (width + ACROSS), bottom, width, HEIGHT)
        draw_series(
            axes,
            diagnostics.truth[component][episode, :, index],
            diagnostics.prediction[component][episode, :, index],
            diagnostics.attrs["context"],
            COLORS[source.key[0]],
        )
        count = diagnostics.truth[component].shape[-1]
        axes.set_title(component.replace("_", " ") + (f" {index + 1}" if count > 1 else ""), fontsize=6.5, pad=2)
        last = place + COLUMNS >= len(panels)
        axes.tick_params(labelbottom=last, labelsize=5.5)
        if last:
            axes.set_xlabel("frame", fontsize=6, labelpad=1)


def draw_series(axes: Axes, truth: np.ndarray, prediction: np.ndarray, context: int, color: str) -> None:
    """One number over the frames, counted from 1; the context is shaded."""
    frames = np.arange(1, len(truth) + 1)
    axes.axvspan(0.5, context + 0.5, color=SHADE, zorder=0, linewidth=0)
    axes.plot(frames, truth, color=INK, linewidth=1.0)
    axes.plot(frames, prediction, color=color, linewidth=1.0)
    axes.set_xlim(0.5, len(truth) + 0.5)


def _panels(diagnostics: Diagnostics) -> list[tuple[str, int]]:
    """Component and index of every panel: the states in the suite's order, the reward last."""
    names = sorted(diagnostics.truth, key=lambda name: name == "reward")
    return [(name, index) for name in names for index in range(diagnostics.truth[name].shape[-1])]


def _block_height(diagnostics: Diagnostics) -> float:
    rows = -(-len(_panels(diagnostics)) // COLUMNS)
    return HEAD + rows * (HEIGHT + DOWN) - DOWN + FOOT


def _notes(request: Request, found: Found, shown: Found) -> list[str]:
    """How the predictions were made, and how good they are in numbers."""
    notes, missing = [], [source for source in request.sources if not beside(source).is_file()]
    if shown:
        attrs = shown[0][1].attrs
        settings, context = json.loads(attrs["settings"]), attrs["context"]
        units = " and ".join(map(str, settings["units"]))
        notes.append(
            f"The model is frozen. One small network per component (hidden layers of {units} units, ours; "
            f"{settings['passes']} passes) learned to read the simulator's states from filtered latent features of "
            f"{attrs['training_episodes']} training episodes, half of them the agent's, half of random actions. "
            f"Shaded: {context} frames of context; after them the model imagines from the actions alone."
        )
        errors = [
            f"{source.key[0]} {source.task} seed {source.seed} {unexplained(one, 'prediction'):.2f} imagined against "
            f"{unexplained(one, 'filtered'):.2f} filtered"
            for source, one in found
        ]
        notes.append(
            "Squared error after the context, mean over components and both held-out episodes (agent, random), in "
            f"units of the variance in the training episodes: {'; '.join(errors)}. Filtered: every image is seen."
        )
    if missing:
        notes.append(f"No diagnostics file beside {_listed(missing)}.")
    return [*notes, *request.notes, origin_note([source for source, _ in shown] or request.sources, request.scale)]


def _listed(sources: Sequence[Source]) -> str:
    names = ["/".join(source.key) + f" seed {source.seed}" for source in sources]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
