"""PlaNet's Figure 10 from run files: what four models imagine after five frames, beside what happened.

shared/figures/video.py draws strips and the GIF.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from replications.planet.figures_published import TASKS
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

VIDEO_METHODS = {  # in the published order
    "rssm": "PlaNet",
    "overshooting": "PlaNet + overshooting",
    "deterministic": "Deterministic (GRU)",
    "ssm": "Stochastic (SSM)",
}
VIDEO_TASK = "cheetah_run"
FRAMEWORKS = ("torch", "jax")  # the strip shows the first that a method has
COLUMNS = ["method", "framework", "task", "seed", *ERROR_COLUMNS]
LEFT, SPACE = 1.3, 0.08  # inches: left of the images, between two methods
STRIP_WIDTH = WIDTH - LEFT - MARGIN

Chosen = Mapping[tuple[str, str], Source]  # (variant, framework) -> the run whose video stands for it


def figure_10(request: Request) -> Drawn:
    """Open-loop video prediction of four models: truth and prediction after five context frames.

    Of each method and framework one run is taken; the strip shows its first sequence. Numbers: the error of every
    frame of every sequence, columns of shared.figures.video.frame_errors behind method, framework, task and seed; of
    both frameworks where there are both, although the strip shows one.
    """
    task = video_task(request.sources)
    chosen = choose(request.sources, task)
    shown = {name: next((chosen[name, f] for f in FRAMEWORKS if (name, f) in chosen), None) for name in VIDEO_METHODS}
    errors = [_errors(variant, source) for (variant, _), source in chosen.items()]
    numbers = pd.concat(errors, ignore_index=True) if errors else pd.DataFrame(columns=COLUMNS)
    title = "PlaNet, Figure 10: open-loop video prediction"
    if task is not None:
        title += f", {TASKS[task]}" + ("" if task == VIDEO_TASK else f" (published: {TASKS[VIDEO_TASK]})")
    used = list(chosen.values())
    notes = [*_notes(chosen, numbers), *request.notes, origin_note(used or request.sources, request.scale)]
    idle = 0.27  # inches of a method without a video
    heads = _heads(shown)
    heights = [
        idle if source is None else strip_sizes(*_layout(source), STRIP_WIDTH)[1] + SPACE for source in shown.values()
    ]
    below = sum(heights) + STRIP_HEAD * len(heads)
    with styled():
        page = Page(title, request.scale, below, notes)
        for (variant, source), height in zip(shown.items(), heights, strict=True):
            if source is None:
                page.rule(MARGIN, page.width - MARGIN, below, 0.4, "#DDDDDD")
                below -= height
                page.text(MARGIN, below + 0.09, VIDEO_METHODS[variant], fontsize=7, fontweight="bold", color=QUIET)
                page.text(1.8, below + 0.09, _why_no_video(variant, request.sources), fontsize=7, color=QUIET)
                continue
            if variant in heads:
                below = draw_strip_head(page, below, LEFT, STRIP_WIDTH, *_layout(source))
            video, name = source.run.video, VIDEO_METHODS[variant].replace(" + ", " +\n").replace(" (", "\n(")
            words = f"{name}\nours, {source.key[0]},\nseed {source.seed}"
            page.text(MARGIN, below - 0.03, words, fontsize=6.5, fontweight="bold", color=INK, va="top")
            below = draw_strip(
                page, below, LEFT, STRIP_WIDTH, video["truth"][0], video["prediction"][0], video["context"]
            )
            below -= SPACE
    return Drawn(page.figure, numbers, {".gif": _gif(shown, request)})


def video_task(sources: Sequence[Source]) -> str | None:
    """The published task if a run of it has a video, else the first in order that has one; None without videos."""
    have = {source.task for source in sources if source.run.video is not None}
    return next((task for task in (VIDEO_TASK, *TASKS) if task in have), None)


def choose(sources: Sequence[Source], task: str | None) -> Chosen:
    """Per method and framework the run of the lowest seed that has a video of the task, in the published order."""
    found = {}
    for variant in VIDEO_METHODS:
        for framework in FRAMEWORKS:
            runs = [run for run in sources if run.key == (framework, variant, task) and run.run.video is not None]
            if runs:
                found[variant, framework] = min(runs, key=lambda run: run.seed)
    return found


def _errors(variant: str, source: Source) -> pd.DataFrame:
    """The error of every frame of one run's video, columns COLUMNS."""
    video, (framework, _, task) = source.run.video, source.key
    frame = frame_errors(video["truth"], video["prediction"], video["context"])
    named = frame.assign(method=VIDEO_METHODS[variant], framework=framework, task=task, seed=source.seed)
    return named.reindex(columns=COLUMNS)


def _layout(source: Source) -> tuple[int, int]:
    """Frames of the video, and of its context."""
    return source.run.video["truth"].shape[1], int(source.run.video["context"])


def _heads(shown: Mapping[str, Source | None]) -> set[str]:
    """Methods above whose strip the frames are named: the first, and where they change."""
    drawn = [(variant, _layout(source)) for variant, source in shown.items() if source is not None]
    return {variant for index, (variant, layout) in enumerate(drawn) if not index or drawn[index - 1][1] != layout}


def _why_no_video(variant: str, sources: Sequence[Source]) -> str:
    """What stands in place of a strip."""
    runs = [source for source in sources if source.key[1] == variant]
    if any(not source.complete for source in runs):
        return "partial: the video comes with the finished run"
    return f"no video of this task in its {len(runs)} runs" if runs else "NOT RUN"


def _notes(chosen: Chosen, numbers: pd.DataFrame) -> list[str]:
    """How to read the strip; each run's mean error beside the yardstick that repeats the last context frame."""
    if not chosen:
        return []
    means = []
    for (variant, framework), source in chosen.items():
        run = numbers[(numbers["method"] == VIDEO_METHODS[variant]) & (numbers["framework"] == framework)]
        imagined = run[~run["context"].astype(bool)]
        means.append(
            f"{VIDEO_METHODS[variant]} ({framework}, seed {source.seed}) {imagined['error'].mean():.4f} against "
            f"{imagined['copy_error'].mean():.4f}"
        )
    both = len({framework for _, framework in chosen}) > 1
    return [
        "Above the columns: frame, counted from 1. Within the context the model's row is its reconstruction. Below "
        "them: error, the mean absolute difference over pixels and colour channels, images in [0, 1]. Each run plays "
        f"its own held-out episodes ({', '.join(sorted({str(run.run.video['source']) for run in chosen.values()}))}), "
        "so the truths differ; shown is its first sequence.",
        "Mean error of the imagined frames over all sequences of a run, against repeating the last context frame: "
        f"{'; '.join(means)}. A mean error rewards blur and does not show whether a body stays whole: look at the "
        "images.",
        *([f"Shown is {FRAMEWORKS[0]} where a method has runs of both frameworks."] if both else []),
    ]


def _gif(shown: Mapping[str, Source | None], request: Request) -> bytes:
    """The first method's sequence, moving; without a video a card that says so."""
    variant = next((variant for variant, source in shown.items() if source is not None), None)
    if variant is None:
        words = _why_no_video(next(iter(VIDEO_METHODS)), request.sources)
        return notice("PlaNet: open-loop video prediction", words, request.scale)
    source = shown[variant]
    video, steps, commits = source.run.video, human(source.env_steps), ", ".join(source.commits)
    return animation(
        video["truth"][0],
        video["prediction"][0],
        video["context"],
        scale=request.scale,
        title=f"{VIDEO_METHODS[variant]} ({source.key[0]}), {TASKS[source.task]}",
        footer=f"scale {request.scale}, seed {source.seed}, {steps} env steps, commit {commits}",
    )
