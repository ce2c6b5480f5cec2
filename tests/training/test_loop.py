"""The loop: order of events, counters, what is stored, and going on from a checkpoint."""

from dataclasses import replace

import numpy as np
import pytest

from shared.training.agent import Learned
from shared.training.evaluate import evaluate
from shared.training.loop import CheckpointDue, EpisodeEnded, EvaluationDue, Progress, UpdateDone, interact
from shared.training.schedule import RatioPlan, Schedule
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


# ------------------------------------------------------------------------------------------------ learning by rows


class Remembering(Recorder):
    """An agent with memos, and the replay that takes them back."""

    def act(self, obs, carry, *, explore):
        acted = super().act(obs, carry, explore=explore)
        return acted._replace(memo={"deter": np.full((len(obs["is_first"]), 3), 7.0, np.float32)})

    def learn(self, batch):
        super().learn(batch)
        return Learned({"loss": 1.0}, {"deter": batch["window"] + 0.5})

    def sample(self, batch_size, length):
        return {"window": np.array([float(len(self.log))])}

    def update(self, window, memo):
        self.log.append((self.name, "update", window, memo["deter"]))


RATIO = RatioPlan(
    total_env_steps=48,
    evaluate_every_env_steps=24,
    checkpoint_every_env_steps=12,
    train_ratio=10,
    steps=20,  # an update every other row
    first_update=5,
    random_fill=False,
)


def run_by_rows(plan=RATIO, count=2, start=None, envs=None):
    log = []
    parts = [Remembering(name, log) for name in ("agent", "prefill", "replay")]
    agent, prefill, replay = parts
    envs = envs or CountingEnvs(count=count)
    events = list(interact(agent, prefill, envs, replay, plan, batch_size=5, batch_length=7, start=start))
    return events, log


def test_updates_fall_between_the_rows_of_one_turn():
    """Two environments: rows 1 2, 3 4, 5 6, ...; updates after rows 5, 7, 9, ..., so after the first row of a turn."""
    log = run_by_rows()[1]
    stored, after = 0, []
    for _, what, *rest in log:
        if what == "append":
            assert len(rest[0]["reward"]) == 1
            stored += 1
        if what == "learn":
            after.append(stored)
    assert after == list(range(5, 2 * 10, 2)) and stored == 20  # 48 env steps: two episodes of 5 rows each, twice


def test_rows_are_stored_in_the_order_of_the_environments():
    class Uneven(CountingEnvs):
        def rows(self):
            return {**super().rows(), "image": np.arange(self.count)[:, None].astype(np.uint8)}

    log = run_by_rows(envs=Uneven(count=3))[1]
    images = [rest[0]["image"].item() for _, what, *rest in log if what == "append"]
    assert images == [0, 1, 2] * (len(images) // 3)


def test_memos_are_stored_with_the_row_and_written_back_after_the_update_that_made_them():
    log = run_by_rows()[1]
    for index, (name, what, *rest) in enumerate(log):
        if what == "append":
            np.testing.assert_array_equal(rest[0]["deter"], [[7.0, 7.0, 7.0]])
        if what == "learn":
            assert log[index + 1][:2] == ("replay", "update") and name == "agent"
            window, deter = log[index + 1][2:]
            assert window == rest[0]["window"] and deter == window + 0.5


def test_rows_count_resets_and_decide_what_is_owed():
    events = run_by_rows()[0]
    last = events[-1].counters
    assert (last.env_steps, last.agent_steps, last.rows, last.updates) == (48, 16, 20, 8)
    assert [type(event).__name__ for event in events[:3]] == ["EvaluationDue", "CheckpointDue", "UpdateDone"]


def test_random_actions_fill_the_replay_where_asked():
    def actors(plan):
        return [name for name, what, *_ in run_by_rows(plan)[1] if what == "act"]

    assert set(actors(RATIO)) == {"agent"}
    # turns of 2, 4, 6 rows: the agent acts from the turn on in which the first update falls
    assert actors(replace(RATIO, random_fill=True)) == ["prefill"] * 2 + ["agent"] * 8


def test_continuing_by_rows_owes_neither_more_nor_less():
    events = run_by_rows()[0]
    assert sum(isinstance(event, CheckpointDue) for event in events) == 4
    for index, event in enumerate(events):
        if isinstance(event, CheckpointDue):
            turn = event.counters.rows // 2
            envs = Restored([(turn - 1) % 5] * 2, count=2)
            again = run_by_rows(start=Progress.from_tree(event.progress.tree()), envs=envs)[0]
            assert names(again) == names(events[index + 1 :])
            assert [e.counters for e in again] == [e.counters for e in events[index + 1 :]]
