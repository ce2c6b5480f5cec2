"""The runner's own duties: what the video shows, and that old replay files go only when no checkpoint needs them."""

from types import SimpleNamespace

import numpy as np
import pytest

from shared.errors import UserError
from shared.runner import Runner, record_video
from shared.training.agent import Acted
from shared.training.loop import CheckpointDue, Counters, Progress, UpdateDone
from tests.training.toys import CountingEnvs


class Filmed:
    """An agent that counts its own steps in the carry and remembers how it was asked."""

    def __init__(self):
        self.explored, self.batch = [], None

    def initial_carry(self, num_envs):
        return {"steps": 0}

    def act(self, obs, carry, *, explore):
        self.explored.append(explore)
        action = np.full((len(obs["is_first"]), 2), carry["steps"], np.float32)
        return Acted(action, {"steps": carry["steps"] + 1}, {})

    def predict(self, batch, *, context):
        self.batch, self.context = batch, context
        return {"truth": batch["image"], "prediction": batch["image"]}


def test_the_video_plays_without_exploration_from_a_reset_and_carries_the_belief_on():
    agent = Filmed()
    video = record_video(agent, CountingEnvs(count=2, length=9), context=2, length=5)
    assert agent.explored == [False] * 5 and agent.context == video["context"] == 2
    assert video["truth"].shape[:2] == (2, 5)
    np.testing.assert_array_equal(agent.batch["action"][0, :, 0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(agent.batch["is_first"][0], [True] + [False] * 4)
    np.testing.assert_array_equal(agent.batch["action_before"], np.zeros((2, 2)))


class Part:
    """Saves a number that grows, and remembers what it was told to forget."""

    def __init__(self):
        self.saved, self.forgotten = 0, []

    def save(self):
        self.saved += 1
        return {"number": self.saved}

    def forget(self, state):
        self.forgotten.append(state["number"])

    def load(self, state):
        self.saved = state["number"]

    def act(self, *_):
        raise AssertionError("not needed to save")

    learn = step = sample = add = flush = act


@pytest.fixture
def runner(tmp_path):
    parts = SimpleNamespace(
        plan=SimpleNamespace(total_env_steps=100),
        **{name: Part() for name in ("agent", "prefill", "envs", "evaluation_envs", "replay")},
    )
    writer = Part()
    writer.add = lambda table, **columns: None
    writer.flush = lambda: None
    return Runner(parts, writer, tmp_path / "seed_0.h5", SimpleNamespace(say=print))


def test_replay_forgets_only_what_the_older_kept_checkpoint_does_not_need(runner):
    zeros = np.zeros(1)
    for env_steps in (10, 20, 30):
        runner.save(Progress(Counters(env_steps=env_steps), zeros, {}, zeros, zeros))
    # Checkpoints 20 and 30 are kept; the first save had none before it.
    assert runner.parts.replay.forgotten == [1, 2]
    assert runner.checkpoints.steps() == [30, 20]


def test_a_checkpoint_holds_every_part(runner):
    zeros = np.zeros(1)
    runner.save(Progress(Counters(env_steps=10), zeros, {}, zeros, zeros))
    _, tree = runner.checkpoints.latest()
    assert tree.keys() >= {"schema", "progress", "agent", "prefill", "envs", "evaluation_envs", "replay", "writer"}


@pytest.mark.parametrize(("done", "ends"), [((), [10]), ((12,), [10, 12]), ((12, 20), [10, 20])])
def test_the_time_of_a_run_is_recorded_to_its_end(runner, done, ends):
    """At every checkpoint, and at the end where something was done since."""
    zeros, segments = np.zeros(1), []
    runner.writer.add = lambda table, **columns: segments.append(columns) if table == "time/segment" else None
    runner.writer.finish = lambda video: None
    runner.display.update = lambda *_: None
    runner.parts.agent.parameters, runner.parts.video_envs = lambda: {"weights": zeros}, None
    runner.handle(CheckpointDue(Counters(env_steps=10), Progress(Counters(env_steps=10), zeros, {}, zeros, zeros)))
    for env_steps in done:
        runner.handle(UpdateDone(Counters(env_steps=env_steps, updates=3), {}))
    runner.finish()
    assert [segment["env_steps"] for segment in segments] == ends
    assert all(segment["wall_seconds"] >= 0 and "eval_seconds" in segment for segment in segments)


def test_a_checkpoint_that_the_agent_refuses_stays_and_ends_the_run(runner, monkeypatch):
    """A run of another device is whole: it must be neither set aside nor begun again."""
    zeros = np.zeros(1)
    runner.save(Progress(Counters(env_steps=10), zeros, {}, zeros, zeros))

    def refuse(state):
        raise UserError("it was made on cuda")

    monkeypatch.setattr(runner.parts.agent, "load", refuse)
    with pytest.raises(UserError, match="made on cuda"):
        runner.restore()
    assert runner.checkpoints.steps() == [10]
