"""The loop: order of events, counters, what is stored, and going on from a checkpoint."""

import numpy as np
import pytest

from shared.training.evaluate import evaluate
from shared.training.loop import CheckpointDue, EpisodeEnded, EvaluationDue, Progress, UpdateDone, interact
from shared.training.schedule import Schedule
from tests.training.toys import CountingEnvs, Recorder

PLAN = {
    "total_env_steps": 48,
    "prefill_env_steps": 12,
    "learn_every_env_steps": 12,
    "updates_per_learn": 2,
    "pretrain_updates": 3,
    "evaluate_every_env_steps": 24,
    "checkpoint_every_env_steps": 12,
}


def run(plan=None, envs=None, start=None):
    log = []
    agent, prefill, replay = Recorder("agent", log), Recorder("prefill", log), Recorder("replay", log)
    envs = envs or CountingEnvs()
    events = list(
        interact(agent, prefill, envs, replay, plan or Schedule(**PLAN), batch_size=5, batch_length=7, start=start)
    )
    return events, log, envs


def names(events):
    return [type(event).__name__ for event in events]


def test_an_episode_of_planet_in_order():
    """Collect one episode at random, pretrain, evaluate; then collect, learn, evaluate where due."""
    assert names(run()[0]) == [
        "EpisodeEnded",
        "UpdateDone",
        "UpdateDone",
        "UpdateDone",
        "EvaluationDue",
        "CheckpointDue",  # env step 12
        "EpisodeEnded",
        "UpdateDone",
        "UpdateDone",
        "CheckpointDue",  # 24
        "EpisodeEnded",
        "UpdateDone",
        "UpdateDone",
        "EvaluationDue",
        "CheckpointDue",  # 36
        "EpisodeEnded",
        "UpdateDone",
        "UpdateDone",
        "EvaluationDue",  # 48: the end
    ]


def test_counters_count_env_steps_with_repeat_and_agent_steps_without():
    last = run()[0][-1].counters
    assert (last.env_steps, last.agent_steps, last.updates, last.episodes) == (48, 16, 9, 4)


def test_returns_add_the_rewards_and_start_again_with_each_episode():
    ended = [event for event in run()[0] if isinstance(event, EpisodeEnded)]
    assert [(event.episode_return, event.length) for event in ended] == [(1 + 2 + 3 + 4, 4)] * 4


def test_the_prefill_agent_acts_until_prefill_and_the_agent_after():
    actors = [name for name, what, *_ in run()[1] if what == "act"]
    # Rows 0 to 3 of the first episode stand before env step 12; its last row stands at 12.
    assert actors == ["prefill"] * 4 + ["agent"] * 16


def test_every_row_is_stored_once_with_the_action_chosen_at_it_and_none_at_the_last():
    _, log, envs = run()
    rows = [entry[2] for entry in log if entry[1] == "append"]
    assert len(rows) == 4 * 5
    assert "env_steps" not in rows[0]
    for row, executed in zip(rows, envs.actions, strict=False):
        np.testing.assert_array_equal(row["action"], executed)
    for row in rows:
        assert (row["action"] == (0.0 if row["is_last"].all() else 0.5)).all()


def test_learning_sees_the_last_row_of_the_episode_that_ended():
    log = run()[1]
    first_update = next(i for i, entry in enumerate(log) if entry[1] == "learn")
    stored = [entry for entry in log[:first_update] if entry[1] == "append"]
    assert stored[-1][2]["is_last"].all()
    assert log[first_update][2] == (5, 7)


def test_several_environments_count_together():
    events, _, _ = run(envs=CountingEnvs(count=2))
    last = events[-1].counters
    assert (last.env_steps, last.agent_steps, last.episodes) == (48, 16, 4)
    assert sum(isinstance(event, UpdateDone) for event in events) == 9


class Restored(CountingEnvs):
    """Environments put back where a checkpoint found them."""

    def __init__(self, time, **kwargs):
        super().__init__(**kwargs)
        self.time = np.array(time)


@pytest.mark.parametrize("every", [12, 5])
def test_continuing_from_any_checkpoint_gives_the_remaining_events(every):
    """Also from checkpoints inside an episode (every 5 env steps of episodes of 12)."""
    plan = Schedule(**{**PLAN, "checkpoint_every_env_steps": every})
    events, _, _ = run(plan)
    for index, event in enumerate(events):
        if isinstance(event, CheckpointDue):
            tree = event.progress.tree()
            time = [(event.counters.agent_steps - 1) % 4 + 1]
            again, _, _ = run(plan, Restored(time), start=Progress.from_tree(tree))
            assert names(again) == names(events[index + 1 :])
            assert [e.counters for e in again] == [e.counters for e in events[index + 1 :]]
            returns = [e.episode_return for e in again if isinstance(e, EpisodeEnded)]
            assert returns == [10.0] * len(returns)


def test_a_progress_tree_does_not_change_afterwards():
    event = next(e for e in run()[0] if isinstance(e, CheckpointDue))
    tree = event.progress.tree()
    tree["returns"][:] = 99
    assert (event.progress.returns != 99).all()


def test_evaluation_plays_whole_episodes_without_exploration_and_counts_only_what_was_asked():
    agent = Recorder()
    scores = evaluate(agent, CountingEnvs(count=2), 3)
    assert scores == [(10.0, 4)] * 3
    assert all(entry == ("agent", "act", False) for entry in agent.log)


def test_evaluation_of_environments_that_end_at_different_times():
    class Uneven(CountingEnvs):
        def step(self, action):
            rows = super().step(action)
            rows["is_last"] = rows["is_last"] | (np.arange(self.count) == 0) & (self.time == 2)
            return rows

    assert evaluate(Recorder(), Uneven(count=2), 2) == [(3.0, 2), (10.0, 4)]


def test_event_order_puts_evaluation_before_the_checkpoint():
    """A checkpoint must hold the evaluation's effect on the agent's noise."""
    kinds = names(run()[0])
    for index, kind in enumerate(kinds):
        if kind == EvaluationDue.__name__ and index + 1 < len(kinds):
            assert kinds[index + 1] == CheckpointDue.__name__
