"""Synthetic run files for the figures: written by RunWriter, with returns that a person can compute."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from shared.results import RunWriter

EPISODE = 1000  # env steps
PREFILL = 5  # episodes
SECOND = "2026-11-21T10:00:00+00:00"


def evaluation_return(seed: int, evaluation: int, episode: int) -> float:
    """Increases with training, differs by seed and test episode: 100 e + 10 s + k."""
    return 100.0 * evaluation + 10.0 * seed + episode


def write_run(
    path: Path,
    *,
    task: str = "cheetah_run",
    seed: int = 0,
    scale: str = "paper",
    framework: str = "torch",
    variant: str = "rssm",
    paper: str = "planet",
    evaluations: int = 3,
    every: int = 10,
    test_episodes: int = 4,
    total: int | None = None,
    complete: bool = True,
    code: str = "c0de" * 16,
    dirty: str = "clean",
    learning_rate: float = 1e-3,
    returns: Callable[[int, int, int], float] = evaluation_return,
    video: Sequence[np.ndarray] | None = None,
    context: int = 5,
    episode: int = EPISODE,
) -> Path:
    """One run file; `evaluations` after the prefill and then every `every` episodes. Returns the path written."""
    planned = total or (PREFILL + every * (evaluations - 1)) * episode
    values = {"schedule": {"prefill_env_steps": PREFILL * episode}, "optimiser": {"learning_rate": learning_rate}}
    config = yaml.safe_dump({"paper": paper, "variant": variant, "scale": scale, "overrides": [], "values": values})
    provenance = {
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": dirty,
        "git_diff_sha256": "0" * 64,
        "git_diff": "",
        "code_digest": code,
        "command": "test",
        "started": SECOND,
        "device": "cpu",
        "packages": "numpy==2.0",
    }
    writer = RunWriter(
        path,
        identity={
            "paper": paper,
            "framework": framework,
            "variant": variant,
            "task": task,
            "seed": seed,
            "scale": scale,
        },
        config_text=config,
        overrides=[],
        provenance=provenance,
        total_env_steps=planned,
    )
    for number in range(1, PREFILL + every * (evaluations - 1) + 1):
        score = 10.0 * number if number <= PREFILL else 500.0
        writer.add(
            "train/episode",
            env_steps=number * episode,
            agent_steps=number * episode // 4,
            updates=0,
            episode=number,
            length=episode // 4,
            **{"return": score},
        )
    for evaluation in range(evaluations):
        steps = (PREFILL + every * evaluation) * episode
        for k in range(test_episodes):
            writer.add(
                "eval/episode",
                env_steps=steps,
                updates=100 * evaluation,
                episode=k,
                length=episode // 4,
                **{"return": returns(seed, evaluation, k)},
            )
    if not complete:
        writer.flush()
        return writer.partial
    clip = None
    if video is not None:
        clip = {"truth": video[0], "prediction": video[1], "context": context, "source": "synthetic"}
    writer.finish(video=clip)
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run at the workflow's path below tmp_path/results."""

    def make(task: str = "cheetah_run", seed: int = 0, **options) -> Path:
        parts = [
            options.get("scale", "paper"),
            "planet",
            options.get("framework", "torch"),
            options.get("variant", "rssm"),
            task,
        ]
        return write_run(tmp_path.joinpath("results", *parts, f"seed_{seed}.h5"), task=task, seed=seed, **options)

    return make
