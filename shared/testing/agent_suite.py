"""The behaviour every agent must show, whatever its paper and framework: one list of checks, run by each agent's tests.

A check takes a `make` function that builds a fresh agent from a seed, and a batch maker; it raises AssertionError with
what was seen. tests/replications/test_<paper>.py runs CHECKS for both frameworks.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.training.loop import to_numpy

Make = Callable[[int], Any]  # seed -> agent
MakeBatch = Callable[[int], dict]  # seed -> (B, T) rows as replay samples them


def rows_of(batch: dict, time: int, *, is_first: bool) -> dict:
    """The (N, ...) rows of a batch at one time step, all or none of them the first of their episode."""
    rows = {key: value[:, time] for key, value in batch.items() if key != "action_before"}
    count = len(rows["reward"])
    return rows | {"is_first": np.full(count, is_first), "is_last": np.zeros(count, bool)}


def act_sequence(agent: Any, batch: dict, steps: int, *, explore: bool) -> list[np.ndarray]:
    """Actions at the first `steps` rows of a batch, one episode per row of it."""
    carry, actions = agent.initial_carry(len(batch["reward"])), []
    for time in range(steps):
        acted = agent.act(rows_of(batch, time, is_first=time == 0), carry, explore=explore)
        carry = acted.carry
        actions.append(acted.action)
    return actions


def actions_stay_in_the_box(make: Make, make_batch: MakeBatch) -> None:
    batch = make_batch(0)
    for action in act_sequence(make(0), batch, 3, explore=True):
        assert action.shape == batch["action"].shape[:1] + batch["action"].shape[2:], action.shape
        assert action.dtype == np.float32, action.dtype
        assert np.isfinite(action).all() and np.abs(action).max() <= 1, action


def exploration_changes_actions(make: Make, make_batch: MakeBatch) -> None:
    batch = make_batch(0)
    calm, wild = (act_sequence(make(0), batch, 1, explore=explore)[0] for explore in (False, True))
    assert not np.array_equal(calm, wild), "the same actions with and without exploration"


def is_first_restarts_the_carry(make: Make, make_batch: MakeBatch) -> None:
    """After is_first nothing of the episode before remains: different pasts, equal actions."""
    batch, other = make_batch(0), make_batch(1)
    results = []
    for past in (batch, other):
        agent = make(0)
        carry = agent.initial_carry(len(batch["reward"]))
        carry = agent.act(rows_of(past, 0, is_first=True), carry, explore=True).carry
        carry = agent.act(rows_of(past, 1, is_first=False), carry, explore=True).carry
        results.append(agent.act(rows_of(batch, 2, is_first=True), carry, explore=False))
    np.testing.assert_array_equal(results[0].action, results[1].action)
    for name, value in results[0].carry.items():
        np.testing.assert_array_equal(to_numpy(value), to_numpy(results[1].carry[name]), err_msg=name)


def the_carry_matters_without_is_first(make: Make, make_batch: MakeBatch) -> None:
    batch, other, carries = make_batch(0), make_batch(1), []
    for past in (batch, other):
        agent = make(0)
        carry = agent.act(
            rows_of(past, 0, is_first=True), agent.initial_carry(len(batch["reward"])), explore=False
        ).carry
        carries.append(agent.act(rows_of(batch, 1, is_first=False), carry, explore=False).carry)
    first, second = ({name: to_numpy(value) for name, value in carry.items()} for carry in carries)
    assert any(not np.array_equal(first[name], second[name]) for name in first), "the agent forgot the step before"


def a_carry_survives_as_numpy(make: Make, make_batch: MakeBatch) -> None:
    """A checkpoint writes the carry as NumPy arrays; acting on from them gives the same action."""
    batch, actions = make_batch(0), []
    for convert in (lambda carry: carry, lambda carry: {name: to_numpy(value) for name, value in carry.items()}):
        agent = make(0)
        carry = agent.act(
            rows_of(batch, 0, is_first=True), agent.initial_carry(len(batch["reward"])), explore=True
        ).carry
        actions.append(agent.act(rows_of(batch, 1, is_first=False), convert(carry), explore=True).action)
    np.testing.assert_array_equal(*actions)


def learning_lowers_the_loss(make: Make, make_batch: MakeBatch, steps: int = 30) -> None:
    agent, batch = make(0), make_batch(0)
    losses = [float(agent.learn(batch).metrics["loss"]) for _ in range(steps)]
    assert np.isfinite(losses).all(), losses
    assert np.mean(losses[-3:]) < np.mean(losses[:3]), losses


def learning_leaves_its_batch_alone(make: Make, make_batch: MakeBatch) -> None:
    batch, before = make_batch(0), make_batch(0)
    make(0).learn(batch)
    for name, value in batch.items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def same_seed_same_numbers(make: Make, make_batch: MakeBatch) -> None:
    first, second = (trace(make(7), make_batch) for _ in range(2))
    assert_equal_traces(first, second)


def another_seed_other_numbers(make: Make, make_batch: MakeBatch) -> None:
    first, second = trace(make(7), make_batch), trace(make(8), make_batch)
    assert first["losses"] != second["losses"], "two seeds gave the same losses"


def save_load_continue_equals_continue(make: Make, make_batch: MakeBatch) -> None:
    straight = make(0)
    trace(straight, make_batch)
    state = straight.save()
    expected = trace(straight, make_batch)
    resumed = make(99)
    resumed.load(state)
    assert_equal_traces(trace(resumed, make_batch), expected)


def memo_fits_the_rows(make: Make, make_batch: MakeBatch) -> None:
    """What is stored beside a row, and after an update in the rows learned from: all but the context row, if any."""
    agent, batch = make(0), make_batch(0)
    spec, (size, length) = getattr(agent, "memo_spec", {}), batch["reward"].shape
    acted = agent.act(rows_of(batch, 0, is_first=True), agent.initial_carry(size), explore=True)
    for memo, lead in ((acted.memo, (size,)), (agent.learn(batch).memo, (size, length - 1))):
        assert memo.keys() == spec.keys(), (sorted(memo), sorted(spec))
        for name, one in spec.items():
            shape, dtype = memo[name].shape, str(memo[name].dtype)
            assert (shape, dtype) == ((*lead, *one.shape), one.dtype), (name, shape, dtype)


def trace(agent: Any, make_batch: MakeBatch) -> dict:
    """Losses of three updates, then two actions: everything that the agent's state decides."""
    losses = [float(agent.learn(make_batch(seed)).metrics["loss"]) for seed in range(3)]
    return {"losses": losses, "actions": act_sequence(agent, make_batch(0), 2, explore=True)}


def assert_equal_traces(first: dict, second: dict) -> None:
    assert first["losses"] == second["losses"], (first["losses"], second["losses"])
    for one, other in zip(first["actions"], second["actions"], strict=True):
        np.testing.assert_array_equal(one, other)


CHECKS = [
    actions_stay_in_the_box,
    exploration_changes_actions,
    is_first_restarts_the_carry,
    the_carry_matters_without_is_first,
    a_carry_survives_as_numpy,
    learning_lowers_the_loss,
    learning_leaves_its_batch_alone,
    same_seed_same_numbers,
    another_seed_other_numbers,
    save_load_continue_equals_continue,
    memo_fits_the_rows,
]
