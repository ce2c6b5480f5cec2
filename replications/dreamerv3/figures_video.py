"""DreamerV3's Figure 4 from run files: frames of held-out episodes, and what the model imagines from five of them.

The paper shows several domains; here a control task from pixels, with the 2024 agent, as in the paper, and with the
last commit's. shared/figures/video.py draws strips and the GIF.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from replications.dreamerv3.figures_curves import agent
from replications.dreamerv3.figures_published import title
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

VARIANTS = ("vision-2024", "vision")
FRAMEWORKS = ("torch", "jax")
COLUMNS = ["framework", "agent", "variant", "task", "seed", *ERROR_COLUMNS]
LEFT, SPACE = 1.3, 0.08  # inches: left of the images, between two strips
STRIP_WIDTH = WIDTH - LEFT - MARGIN


@dataclass(frozen=True)
class Clip:
    """The first sequence of one run: truth and prediction, (T, H, W, 3), of which the model saw `context` frames."""

    source: Source
    truth: np.ndarray
    prediction: np.ndarray
    context: int

    @property
    def layout(self) -> tuple[int, int]:
        return len(self.truth), self.context

    def errors(self) -> pd.DataFrame:
        """The error of every frame."""
        frame = frame_errors(self.truth[None], self.prediction[None], self.context)
        framework, variant, task = self.source.key
        key = {"framework": framework, "agent": agent(variant), "variant": variant, "task": task}
        return frame.assign(**key, seed=self.source.seed).reindex(columns=COLUMNS)


def figure_4(request: Request) -> Drawn:
    """Truth and prediction of one held-out episode for every variant, task and framework that has a video.

    Numbers: the error of every frame, columns COLUMNS.
    """
    clips = choose(request)
    tables = [clip.errors() for clip in clips]
    numbers = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    heads = [rank == 0 or clips[rank - 1].layout != clip.layout for rank, clip in enumerate(clips)]
    heights = [strip_sizes(*clip.layout, STRIP_WIDTH)[1] + SPACE for clip in clips]
    below = sum(heights) + STRIP_HEAD * sum(heads) or 0.4
    notes = [*_notes(clips, numbers), *request.notes, origin_note(request.sources, request.scale)]
    with styled():
        page = Page("DreamerV3, Figure 4: frames and predictions", request.scale, below, notes)
        if not clips:
            page.text(MARGIN, 0.15, why_none(request), fontsize=8, color=QUIET)
        for clip, head in zip(clips, heads, strict=True):
            if head:
                below = draw_strip_head(page, below, LEFT, STRIP_WIDTH, *clip.layout)
            framework, variant, task = clip.source.key
            words = f"{title(task)}\n{agent(variant)}\nours, {framework},\nseed {clip.source.seed}"
            page.text(MARGIN, below - 0.03, words, fontsize=6.5, fontweight="bold", color=INK, va="top")
            below = draw_strip(page, below, LEFT, STRIP_WIDTH, clip.truth, clip.prediction, clip.context) - SPACE
    return Drawn(page.figure, numbers, {".gif": _gif(clips, request)})


def choose(request: Request) -> list[Clip]:
    """The first sequence of the lowest seed of every variant, task and framework, the agent of 2024 first."""
    found: dict[tuple[str, str, str], Source] = {}
    for source in sorted(request.sources, key=lambda one: one.seed):
        if source.run.video is not None:
            found.setdefault(source.key, source)
    order = sorted(found, key=lambda key: (VARIANTS.index(key[1]), key[2], FRAMEWORKS.index(key[0])))
    clips = []
    for key in order:
        video = found[key].run.video
        images = (in_color(video[name][0]) for name in ("truth", "prediction"))
        clips.append(Clip(found[key], *images, int(video["context"])))
    return clips


def why_none(request: Request) -> str:
    """What stands in place of the strips."""
    if any(not source.complete for source in request.sources):
        return "partial: the video comes with the finished run"
    return f"no video in {len(request.sources)} runs" if request.sources else "NOT RUN"


def _notes(clips: list[Clip], numbers: pd.DataFrame) -> list[str]:
    """How to read the strips; each run's mean error beside the yardstick that repeats the last context frame."""
    if not clips:
        return ["Predictions of control from pixels, by the 2024 agent and the last commit's."]
    open_loop = numbers[~numbers["context"].astype(bool)]
    imagined = open_loop.groupby(["framework", "agent", "task"], sort=False)[["error", "copy_error"]].mean()
    means = [
        f"{title(task)}, {words} ({framework}) {row['error']:.4f} against {row['copy_error']:.4f}"
        for (framework, words, task), row in imagined.iterrows()
    ]
    return [
        "Above the columns: frame, counted from 1. Within the context the model's row is its reconstruction, then what "
        "it imagines from the actions alone. Below: error, the mean absolute difference over pixels and channels, "
        "images in [0, 1]. The episodes are held out: collected by the finished agent, never trained on. The paper's "
        "tasks of this figure are others.",
        f"Mean error of the imagined frames, against repeating the last context frame: {'; '.join(means)}. A mean "
        "error rewards blur: look at the images.",
    ]


def _gif(clips: list[Clip], request: Request) -> bytes:
    """The first strip, moving; without a video a card that says so."""
    if not clips:
        return notice("DreamerV3: predictions", why_none(request), request.scale)
    clip = clips[0]
    framework, variant, task = clip.source.key
    steps, commits = human(clip.source.env_steps), ", ".join(clip.source.commits)
    return animation(
        clip.truth,
        clip.prediction,
        clip.context,
        scale=request.scale,
        title=f"DreamerV3, {agent(variant)} ({framework}), {title(task)}",
        footer=f"scale {request.scale}, seed {clip.source.seed}, {steps} env steps, commit {commits}",
    )
