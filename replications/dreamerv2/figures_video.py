"""DreamerV2's Figures A.1 and B.1 from run files: frames of the humanoid and of Montezuma's Revenge, with predictions.

The paper shows frames alone; what the model imagines from five of them is ours. shared/figures/video.py draws strips
and the GIF.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.dreamerv2.figures_published import HUMANOID, MONTEZUMA, title
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
    in_color,
    notice,
    strip_sizes,
)

FRAMEWORKS = ("torch", "jax")
SEQUENCES = 2
COLUMNS = ["framework", "task", "seed", *ERROR_COLUMNS]
LEFT, SPACE = 1.3, 0.08  # inches: left of the images, between two strips
STRIP_WIDTH = WIDTH - LEFT - MARGIN


@dataclass(frozen=True)
class Film:
    """One figure of frames: its title, variant and task."""

    title: str
    variant: str
    task: str


FILMS = {
    "figure_a1": Film("Figure A.1: humanoid walk", "humanoid", HUMANOID),
    "figure_b1": Film("Figure B.1: Montezuma's Revenge", "montezuma", MONTEZUMA),
}


@dataclass(frozen=True)
class Clip:
    """The video of one run: truth and prediction, (N, T, H, W, 3), of which the model saw `context` frames."""

    source: Source
    truth: np.ndarray
    prediction: np.ndarray
    context: int

    @property
    def layout(self) -> tuple[int, int]:
        return self.truth.shape[1], self.context

    def errors(self) -> pd.DataFrame:
        """The error of every frame of every sequence."""
        frame = frame_errors(self.truth, self.prediction, self.context)
        key = {"framework": self.source.key[0], "task": self.source.task, "seed": self.source.seed}
        return frame.assign(**key).reindex(columns=COLUMNS)


def film_drawing(name: str) -> Callable[[Request], Drawn]:
    """The function that draws one figure of FILMS."""
    return functools.partial(film_figure, FILMS[name])


def film_figure(film: Film, request: Request) -> Drawn:
    """Truth and prediction of two held-out episodes for every framework that has a video.

    Numbers: the error of every frame of every sequence, columns COLUMNS.
    """
    clips = choose(film, request)
    tables = [clip.errors() for clip in clips]
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    strips = [(clip, index) for clip in clips for index in range(min(SEQUENCES, len(clip.truth)))]
    heads = [rank == 0 or strips[rank - 1][0].layout != clip.layout for rank, (clip, _) in enumerate(strips)]
    heights = [strip_sizes(*clip.layout, STRIP_WIDTH)[1] + SPACE for clip, _ in strips]
    below = sum(heights) + STRIP_HEAD * sum(heads) or 0.4
    notes = [*_notes(film, clips, numbers), *request.notes, origin_note(request.sources, request.scale)]
    with styled():
        page = Page(f"DreamerV2, {film.title}, frames and predictions", request.scale, below, notes)
        if not clips:
            page.text(MARGIN, 0.15, why_none(request), fontsize=8, color=QUIET)
        for (clip, index), head in zip(strips, heads, strict=True):
            if head:
                below = draw_strip_head(page, below, LEFT, STRIP_WIDTH, *clip.layout)
            words = f"Episode {index + 1}\nours, {clip.source.key[0]},\nseed {clip.source.seed}"
            page.text(MARGIN, below - 0.03, words, fontsize=6.5, fontweight="bold", color=INK, va="top")
            frames = clip.truth[index], clip.prediction[index], clip.context
            below = draw_strip(page, below, LEFT, STRIP_WIDTH, *frames) - SPACE
    return Drawn(page.figure, numbers, {".gif": _gif(film, clips, request)})


def choose(film: Film, request: Request) -> list[Clip]:
    """Per framework the video of the lowest seed, of the figure's task or else of another one."""
    have = [source for source in request.sources if source.run.video is not None]
    task = min((source.task for source in have), key=lambda name: (name != film.task, name), default=None)
    clips = []
    for framework in FRAMEWORKS:
        found = [source for source in have if (source.key[0], source.task) == (framework, task)]
        if found:
            source = min(found, key=lambda run: run.seed)
            video = source.run.video
            clips.append(Clip(source, in_color(video["truth"]), in_color(video["prediction"]), int(video["context"])))
    return clips


def why_none(request: Request) -> str:
    """What stands in place of the strips."""
    if any(not source.complete for source in request.sources):
        return "partial: the video comes with the finished run"
    return f"no video in {len(request.sources)} runs" if request.sources else "NOT RUN"


def _notes(film: Film, clips: list[Clip], numbers: pd.DataFrame) -> list[str]:
    """How to read the strips; each run's mean error beside the yardstick that repeats the last context frame."""
    if not clips:
        return ["The paper's figure shows frames of one episode; they are not reprinted here."]
    imagined = numbers[~numbers["context"].astype(bool)].groupby("framework")[["error", "copy_error"]].mean()
    means = [f"{row.Index} {row.error:.4f} against {row.copy_error:.4f}" for row in imagined.itertuples()]
    task = clips[0].source.task
    other = [] if task == film.task else [f"Not the figure's task, but the one run at this scale: {title(task)}."]
    return [
        *other,
        "The paper's figure shows frames of one episode; predictions are ours. Above the columns: frame, counted from "
        "1. Within the context the model's row is its reconstruction, then what it imagines from the actions alone. "
        "Below: error, the mean absolute difference over pixels and channels, images in [0, 1]. The episodes are held "
        "out: collected by the finished agent, never trained on.",
        f"Mean error of the imagined frames, against repeating the last context frame: {'; '.join(means)}. A mean "
        "error rewards blur: look at the images.",
    ]


def _gif(film: Film, clips: list[Clip], request: Request) -> bytes:
    """The first run's first sequence, moving; without a video a card that says so."""
    if not clips:
        return notice(f"DreamerV2: {title(film.task)}", why_none(request), request.scale)
    clip = clips[0]
    steps, commits = human(clip.source.env_steps), ", ".join(clip.source.commits)
    return animation(
        clip.truth[0],
        clip.prediction[0],
        clip.context,
        scale=request.scale,
        title=f"DreamerV2 ({clip.source.key[0]}), {title(clip.source.task)}",
        footer=f"scale {request.scale}, seed {clip.source.seed}, {steps} env steps, commit {commits}",
    )
