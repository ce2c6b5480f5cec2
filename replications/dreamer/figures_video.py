"""Dreamer's Figure 5 from run files: what the model imagines after five frames of two held-out episodes.

shared/figures/video.py draws strips and the GIF.
"""

import pandas as pd

from replications.dreamer.figures_published import NAMES
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, MARGIN, QUIET, WIDTH, Page, human, styled
from shared.figures.sources import Source, origin_note
from shared.figures.video import (
    ERROR_COLUMNS,
    STRIP_HEAD,
    animation,
    draw_strip,
    draw_strip_head,
    frame_errors,
    notice,
    strip_sizes,
)

TASK = "walker_walk"
FRAMEWORKS = ("torch", "jax")
SEQUENCES = 2  # published
COLUMNS = ["framework", "task", "seed", *ERROR_COLUMNS]
LEFT, SPACE = 1.3, 0.08  # inches: left of the images, between two strips
STRIP_WIDTH = WIDTH - LEFT - MARGIN


def figure_5(request: Request) -> Drawn:
    """Open-loop video prediction: truth and prediction of two sequences for every framework that has a video.

    Numbers: the error of every frame of every sequence, columns COLUMNS.
    """
    chosen = choose(request.sources)
    tables = [_errors(source) for source in chosen]
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    strips = [(source, index) for source in chosen for index in range(min(SEQUENCES, len(_video(source)["truth"])))]
    heights = [strip_sizes(*_layout(source), STRIP_WIDTH)[1] + SPACE for source, _ in strips]
    heads = [rank == 0 or _layout(strips[rank - 1][0]) != _layout(source) for rank, (source, _) in enumerate(strips)]
    below = sum(heights) + STRIP_HEAD * sum(heads) or 0.4
    title = "Dreamer, Figure 5: open-loop video prediction"
    if chosen:
        title += f", {NAMES[chosen[0].task]}" + ("" if chosen[0].task == TASK else f" (planned: {NAMES[TASK]})")
    notes = [*_notes(chosen, numbers), *request.notes, origin_note(chosen or request.sources, request.scale)]
    with styled():
        page = Page(title, request.scale, below, notes)
        if not chosen:
            page.text(MARGIN, 0.15, _why_none(request), fontsize=8, color=QUIET)
        for (source, index), head in zip(strips, heads, strict=True):
            if head:
                below = draw_strip_head(page, below, LEFT, STRIP_WIDTH, *_layout(source))
            words = f"Episode {index + 1}\nours, {source.key[0]},\nseed {source.seed}"
            page.text(MARGIN, below - 0.03, words, fontsize=6.5, fontweight="bold", color=INK, va="top")
            video = _video(source)
            frames = video["truth"][index], video["prediction"][index], video["context"]
            below = draw_strip(page, below, LEFT, STRIP_WIDTH, *frames) - SPACE
    return Drawn(page.figure, numbers, {".gif": _gif(chosen, request)})


def choose(sources: list[Source]) -> list[Source]:
    """Per framework the run of the lowest seed that has a video of the task (or of the first other task with one)."""
    have = [source for source in sources if source.run.video is not None]
    task = next((task for task in (TASK, *NAMES) if task in {source.task for source in have}), None)
    runs = [[source for source in have if (source.key[0], source.task) == (f, task)] for f in FRAMEWORKS]
    return [min(found, key=lambda source: source.seed) for found in runs if found]


def _video(source: Source) -> dict:
    return source.run.video


def _layout(source: Source) -> tuple[int, int]:
    """Frames of the video, and of its context."""
    return _video(source)["truth"].shape[1], int(_video(source)["context"])


def _errors(source: Source) -> pd.DataFrame:
    video = _video(source)
    frame = frame_errors(video["truth"], video["prediction"], video["context"])
    return frame.assign(framework=source.key[0], task=source.task, seed=source.seed).reindex(columns=COLUMNS)


def _why_none(request: Request) -> str:
    """What stands in place of the strips."""
    if any(not source.complete for source in request.sources):
        return "partial: the video comes with the finished run"
    return f"no video in {len(request.sources)} runs" if request.sources else "NOT RUN"


def _notes(chosen: list[Source], numbers: pd.DataFrame) -> list[str]:
    """How to read the strips; each run's mean error beside the yardstick that repeats the last context frame."""
    if not chosen:
        return []
    imagined = numbers[~numbers["context"].astype(bool)].groupby("framework")[["error", "copy_error"]].mean()
    means = [f"{row.Index} {row.error:.4f} against {row.copy_error:.4f}" for row in imagined.itertuples()]
    return [
        "Above the columns: frame, counted from 1. Within the context the model's row is its reconstruction, then what "
        "it imagines from the actions alone. Below: error, the mean absolute difference over pixels and colour "
        "channels, images in [0, 1]. The episodes are held out: collected by the finished agent, never trained on. "
        "Which task the paper shows is not known to us.",
        f"Mean error of the imagined frames, against repeating the last context frame: {'; '.join(means)}. A mean "
        "error rewards blur: look at the images.",
    ]


def _gif(chosen: list[Source], request: Request) -> bytes:
    """The first run's first sequence, moving; without a video a card that says so."""
    if not chosen:
        return notice("Dreamer: open-loop video prediction", _why_none(request), request.scale)
    source, video = chosen[0], _video(chosen[0])
    steps, commits = human(source.env_steps), ", ".join(source.commits)
    return animation(
        video["truth"][0],
        video["prediction"][0],
        video["context"],
        scale=request.scale,
        title=f"Dreamer ({source.key[0]}), {NAMES[source.task]}",
        footer=f"scale {request.scale}, seed {source.seed}, {steps} env steps, commit {commits}",
    )
