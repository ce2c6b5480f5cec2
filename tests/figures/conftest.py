"""Synthetic run files for the figures: written by RunWriter, with returns that a person can compute."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from shared.results import RunWriter

PREFILL = 5  # episodes
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROVENANCE = {
    "git_commit": COMMIT,
    "git_dirty": "",
    "git_diff": "",
    "code_digest": "c0de" * 16,
    "command": "test",
    "started": "2026-11-21T10:00:00+00:00",
    "device": "cpu",
    "packages": "numpy==2.0",
}
IDENTITY = {"paper": "planet", "framework": "torch", "variant": "rssm", "scale": "paper"}


def evaluation_return(seed: int, evaluation: int, episode: int) -> float:
    """Increases with training, differs by seed and test episode: 100 e + 10 s + k."""
    return 100.0 * evaluation + 10.0 * seed + episode


def write_run(
    path: Path,
    *,
    task: str,
    seed: int,
    identity: dict | None = None,
    provenance: dict | None = None,
    learning_rate: float = 1e-3,
    evaluations: int = 3,
    every: int = 10,
    evaluated_at: Sequence[int] | None = None,
    test_episodes: int = 4,
    episode: int = 1000,
    total: int | None = None,
    complete: bool = True,
    returns: Callable[[int, int, int], float] = evaluation_return,
    training: Callable[[int, int], float] | None = None,
    video: Sequence[np.ndarray] | None = None,
    context: int = 5,
    values: dict | None = None,
    segments: Sequence[tuple[int, float, float]] = (),
) -> Path:
    """One run file. Returns the path written.

    evaluations: the first after the prefill, then one every `every` episodes of `episode` env steps; or evaluated_at,
    the env steps of all. training: return of a training episode by seed and number (default: 10 per number in the
    prefill, then 500). total: planned env steps (default: as many as were made). video: truth and prediction. values:
    further groups of the config. segments: env steps of a checkpoint, seconds since the one before, of them in tests.
    """
    identity = {**IDENTITY, "task": task, "seed": seed, **(identity or {})}
    points = evaluated_at or [(PREFILL + every * number) * episode for number in range(evaluations)]
    episodes = max(points, default=PREFILL * episode) // episode
    own = {"schedule": {"prefill_env_steps": PREFILL * episode}, "optimiser": {"learning_rate": learning_rate}}
    writer = RunWriter(
        path,
        identity=identity,
        config_text=yaml.safe_dump({"paper": identity["paper"], "values": {**own, **(values or {})}}),
        overrides=[],
        provenance={**PROVENANCE, **(provenance or {})},
        total_env_steps=total or episodes * episode,
    )
    common = {"length": episode // 4, "updates": 0}
    for number in range(1, episodes + 1):
        steps, score = number * episode, 10.0 * number if number <= PREFILL else 500.0
        score = training(seed, number) if training else score
        row = {"env_steps": steps, "agent_steps": steps // 4, "episode": number, "return": score}
        writer.add("train/episode", **row, **common)
    for evaluation, steps in enumerate(points):
        for k in range(test_episodes):
            row = {"env_steps": steps, "episode": k, "return": returns(seed, evaluation, k)}
            writer.add("eval/episode", **row, **common)
    for steps, wall, tests in segments:
        writer.add("time/segment", env_steps=steps, updates=0, wall_seconds=wall, eval_seconds=tests)
    if not complete:
        writer.flush()
        return writer.partial
    clip = {"truth": video[0], "prediction": video[1], "context": context, "source": "synthetic"} if video else None
    writer.finish(video=clip)
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The results folder of one test."""
    return tmp_path / "results"


@pytest.fixture
def make_run(results: Path) -> Callable[..., Path]:
    """Writes a run where the workflow would; options of write_run, and the parts of its identity by name."""

    def make(task: str = "cheetah_run", seed: int = 0, **options) -> Path:
        identity = {**IDENTITY, **{name: options.pop(name) for name in IDENTITY if name in options}}
        folder = results.joinpath(*(identity[name] for name in ("scale", "paper", "framework", "variant")), task)
        return write_run(folder / f"seed_{seed}.h5", task=task, seed=seed, identity=identity, **options)

    return make


@pytest.fixture
def make_video() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction, (1, T, 64, 64, 3): frame t has brightness 2 t, and after the context the prediction is too
    bright by 51 = 0.2 * 255."""

    def make(length: int = 50, context: int = 5) -> tuple[np.ndarray, np.ndarray]:
        level = 2 * np.arange(length, dtype=np.uint8)[None, :, None, None, None]
        truth = np.broadcast_to(level, (1, length, 64, 64, 3)).copy()
        prediction = truth.copy()
        prediction[:, context:] += 51
        return truth, prediction

    return make
