"""How the papers assemble returns and weights, and what others compute: properties L15, L16 and C1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.returns import discount_weights, lambda_return
from shared.testing import oracles_returns as definitions
from tests.conftest import DEFAULT_GOLDEN
from tests.formulas.strategies import exact_arrays
from tests.formulas.transitions import SHAPES, TRANSITIONS, UNDERFLOW, assert_rounded, random_transitions, rounding

DISCOUNT, LAMBDA = 1 - 1 / 333, 0.95            # DreamerV3
GOLDEN_RTOL = 1e-5                              # the authors computed in float32: 16 rows of a few 6e-8


def dreamerv3_return(last, term, reward, boot):
    """DreamerV3's slicing. Row s of every argument is about the state s, so a transition t takes row t + 1 of each.

    Source: papers/dreamerv3.md, section 4; authors' code dreamerv3/agent.py (`lambda_return`).
    """
    discount = (1 - term[1:, ...]) * DISCOUNT
    return lambda_return(reward[1:, ...], discount, boot[1:, ...], (1 - last[1:, ...]) * LAMBDA)


def as_transitions(last, term, reward, boot):
    """The arguments that `dreamerv3_return` passes on: for bounds of rounding."""
    return reward[1:], (1 - term[1:]) * DISCOUNT, boot[1:], (1 - last[1:]) * LAMBDA


FLAGS = hnp.arrays(np.float64, (6, 2), elements=st.sampled_from([0.0, 1.0]))
REPLAY = st.tuples(FLAGS, FLAGS, exact_arrays((6, 2), -1e6, 1e6), exact_arrays((6, 2), -1e6, 1e6))
ROW = st.integers(1, 4)                         # a state in the middle


@pytest.mark.property("L15")
def test_ends_of_replayed_episodes_by_hand(run):
    # States 0 to 3, rewards 1, 2, 4, 8 on entering them, values 10, 20, 30, 40; d = 332/333, lambda = 0.95.
    reward, boot, none = [1.0, 2.0, 4.0, 8.0], [10.0, 20.0, 30.0, 40.0], [0.0] * 4
    d, end = DISCOUNT, 8 + DISCOUNT * 40
    # State 2 is the last of its episode by time limit: R_1 = 4 + 30 d, no matter what state 3 holds.
    cut = 4 + d * 30
    got = run(dreamerv3_return, [0.0, 0.0, 1.0, 0.0], none, reward, boot)
    assert_allclose(got, [2 + d * (0.05 * 20 + 0.95 * cut), cut, end], rtol=1e-14)
    # The agent dies in state 2: R_1 = 4, with `last` or without.
    for last in (none, [0.0, 0.0, 1.0, 0.0]):
        got = run(dreamerv3_return, last, [0.0, 0.0, 1.0, 0.0], reward, boot)
        assert_allclose(got, [2 + d * (0.05 * 20 + 0.95 * 4), 4, end], rtol=1e-14)


@pytest.mark.property("L15")
@given(REPLAY)
def test_replayed_returns_equal_a_walk_over_the_episode(run_any, replay):
    got, expected = run_any(dreamerv3_return, *replay), definitions.dreamerv3(*replay, DISCOUNT, LAMBDA)
    assert_rounded(got, expected, as_transitions(*replay), run_any.eps)


@pytest.mark.property("L15")
@given(REPLAY, REPLAY, ROW)
def test_a_last_state_gives_its_value_and_hides_what_follows(run_any, replay, other, row):
    """To the bit: R_{row-1} = r_row + d v_row, and rows beyond `row` are another episode."""
    last, term, reward, boot = replay
    last[row], term[row] = 1, 0
    got = run_any(dreamerv3_return, *replay)
    expected = reward[row] + DISCOUNT * boot[row]
    assert np.all(np.abs(got[row - 1] - expected) <= rounding(as_transitions(*replay), run_any.eps)[row - 1])
    changed = [np.concatenate([x[: row + 1], y[row + 1 :]]) for x, y in zip(replay, other, strict=True)]
    assert_array_equal(run_any(dreamerv3_return, *changed)[:row], got[:row])


@pytest.mark.property("L15")
@given(REPLAY, REPLAY, ROW)
def test_a_terminal_state_gives_its_reward_alone(run_any, replay, other, row):
    """To the bit: R_{row-1} = r_row; neither the value of that state nor anything later matters."""
    replay[1][row] = 1
    got = run_any(dreamerv3_return, *replay)
    assert np.all(np.abs(got[row - 1] - replay[2][row]) <= UNDERFLOW)
    changed = [np.concatenate([x[: row + 1], y[row + 1 :]]) for x, y in zip(replay, other, strict=True)]
    changed[3][row] = other[3][row]
    assert_array_equal(run_any(dreamerv3_return, *changed)[:row], got[:row])


def test_the_first_state_enters_only_by_its_successors(run):
    """Reward, value and flags of state 0 belong to the transition before the data."""
    replay = [np.zeros((4, 2)), np.zeros((4, 2)), np.ones((4, 2)), np.ones((4, 2))]
    changed = [x.copy() for x in replay]
    for x in changed:
        x[0] = 1 - x[0]
    assert_array_equal(run(dreamerv3_return, *changed), run(dreamerv3_return, *replay))


# Other people's numbers


@pytest.mark.property("L16")
@given(TRANSITIONS)
def test_return_is_the_value_plus_decaying_td_errors(run_any, transitions):
    """How torchrl (td_lambda_return_estimate and its advantages) gets the same quantity. torchrl is not installed:
    its derivation is held, in fractions. Its `done` and `terminated` are DreamerV3's `last` and `term` (L15)."""
    expected = definitions.from_td_errors(*transitions)
    assert_rounded(run_any(lambda_return, *transitions), expected, transitions, run_any.eps)


# rlax (google-deepmind/rlax, rlax/_src/multistep_test.py, commit 21edfcf) is not installed either; these are the inputs
# and the results that its tests publish. Batch first.
RLAX_REWARD = [[1.0, 0.0, -1.0, 0.0, 1.0], [0.5, 0.8, -0.7, 0.0, 2.1]]
RLAX_DISCOUNT = [[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]
RLAX_VALUE = [[3.0, 1.0, 5.0, -5.0, 3.0], [-1.7, 1.2, 2.3, 2.2, 2.7]]
RLAX_RETURNS = {
    0.75: [[1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4], [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99]],
    1.0: [[1.315, 0.63000005, 0.70000005, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.9899998]],
}
AT = {lambda_: (lambda r, d, v, lambda_=lambda_: lambda_return(r, d, v, lambda_)) for lambda_ in RLAX_RETURNS}


@pytest.mark.property("L16")
@pytest.mark.parametrize("lambda_", RLAX_RETURNS)
def test_return_equals_what_rlax_publishes(run, lambda_):
    """rlax's lambda_returns (0.75) and discounted_returns (1): float32 sums of terms of up to 5, so some 1e-7."""
    arguments = (np.transpose(x) for x in (RLAX_REWARD, RLAX_DISCOUNT, RLAX_VALUE))
    assert_allclose(run(AT[lambda_], *arguments).T, RLAX_RETURNS[lambda_], rtol=0, atol=5e-7)


def golden(paper):
    """Cases of data/golden/<paper>/lambda_return.npz, made by the authors' code: {case: {name: array}}."""
    with np.load(DEFAULT_GOLDEN / paper / "lambda_return.npz", allow_pickle=False) as file:
        cases = {}
        for key in file.files:
            case, _, name = key.partition("/")
            if name:
                cases.setdefault(case, {})[name.removeprefix("hp_")] = np.asarray(file[key], np.float64)
    return cases


def time_first(case, name):
    return np.moveaxis(case[name], int(case["axis"]), 0) if case[name].ndim else case[name]


def dreamer_rows(case, lambda_):
    """Dreamer's and DreamerV2's slicing: row t is about the state t, its next value that of the state t + 1."""
    reward, value, pcont = (time_first(case, name) for name in ("reward", "value", "pcont"))
    bootstrap = case["bootstrap"] if case.get("has_bootstrap", "bootstrap" in case) else np.zeros(value.shape[1:])
    next_value = np.concatenate([value[1:], bootstrap[None]])
    return reward, np.broadcast_to(pcont, reward.shape), next_value, np.full(reward.shape, lambda_)


@pytest.mark.property("L16")
@pytest.mark.parametrize("paper, returns", [("dreamer", 10), ("dreamerv2", 7)])
def test_return_equals_the_authors_of_dreamer_and_dreamerv2(library, paper, returns):
    compared = 0
    for case in golden(paper).values():
        for name in [name for name in case if name.startswith("returns")]:          # returns, or returns_lam0.5
            rows = dreamer_rows(case, float(name.partition("lam")[2] or case["lambda"]))
            error = np.abs(library(lambda_return, *rows) - time_first(case, name))
            assert np.all(error <= GOLDEN_RTOL * definitions.magnitude(*rows)), (paper, name)
            compared += 1
    assert compared == returns


@pytest.mark.property("L15", "L16")
def test_return_and_walk_equal_the_authors_of_dreamerv3(library):
    """Imagined (soft `term`, no `last`) and replayed (hard flags) cases, batch first. The walk is L15's oracle."""
    cases = golden("dreamerv3")
    assert {"imag", "replay"} <= cases.keys()
    for name, case in cases.items():
        replay = [case[key].T for key in ("last", "term", "rew", "boot")]
        last, term, reward, boot = replay
        rows = (reward[1:], (1 - term[1:]) * case["disc"], boot[1:], (1 - last[1:]) * case["lam"])
        for returns in (library(lambda_return, *rows), definitions.dreamerv3(*replay, case["disc"], case["lam"])):
            assert np.all(np.abs(returns - case["ret"].T) <= GOLDEN_RTOL * definitions.magnitude(*rows)), name


# Discount weights


@pytest.mark.property("C1")
def test_weights_by_hand(run):
    # The last discount weighs nothing: no row follows it.
    got = run(discount_weights, [[0.5, 1.0], [0.5, 0.0], [0.25, 1.0], [7.0, 1.0]])
    assert_array_equal(got, [[1.0, 1.0], [0.5, 1.0], [0.25, 0.0], [0.0625, 0.0]])


@pytest.mark.property("C1")
def test_first_weight_of_each_paper(run):
    # Dreamer, constant discount: 1, 0.5, 0.25.
    assert_array_equal(run(discount_weights, [0.5, 0.5, 0.5]), [1.0, 0.5, 0.25])
    # DreamerV2 puts gamma (1 - is_terminal) into row 0: a terminal start weighs 1 itself, and 0 afterwards.
    assert_array_equal(run(discount_weights, [0.0, 0.5, 0.5]), [1.0, 0.0, 0.0])
    # DreamerV3 counts the predicted continuation of the start too: cumprod(con).
    con = [0.5, 0.75, 0.5]
    assert_array_equal(run(lambda c: discount_weights(c) * c, con), [0.5, 0.375, 0.1875])
    # Its variant with a constant discount outside of con: cumprod(disc con) / disc.
    got = run(lambda c: discount_weights(0.5 * c) * c, con)
    assert_allclose(got, np.cumprod(0.5 * np.array(con)) / 0.5, rtol=1e-15)


@pytest.mark.property("C1")
def test_weights_equal_the_authors_of_dreamerv2(library):
    with np.load(DEFAULT_GOLDEN / "dreamerv2" / "actor_critic_loss.npz", allow_pickle=False) as file:
        cases = [name.removesuffix("/weight") for name in file.files if name.endswith("/weight")]
        assert cases
        for case in cases:
            expected, discount = file[f"{case}/weight"], np.asarray(file[f"{case}/discount"], np.float64)
            assert_allclose(library(discount_weights, discount), expected, rtol=GOLDEN_RTOL)


@pytest.mark.property("C1")
@given(st.sampled_from(SHAPES).flatmap(lambda shape: exact_arrays(shape, 0, 1)))
def test_weights_are_products_of_all_earlier_discounts(run_any, discount):
    """Each of T - 1 products rounds by eps / 2; JAX may multiply in another order."""
    got, expected = run_any(discount_weights, discount), definitions.discount_weights(discount)
    assert_array_equal(got[0], np.ones(discount.shape[1:]))
    assert_allclose(got, expected, rtol=len(discount) * run_any.eps, atol=UNDERFLOW)


@pytest.mark.property("C1")
@given(TRANSITIONS)
def test_weighted_rewards_add_up_to_the_undivided_return(run_any, transitions):
    """What ties the two formulas: with lambda 1, G_0 = sum_t w_t r_t + w_{T-1} d_{T-1} v_T."""
    reward, discount, next_value, _ = transitions
    weights = run_any(discount_weights, discount).astype(np.float64)
    summed = np.sum(weights * reward, axis=0) + weights[-1] * discount[-1] * next_value[-1]
    rows = (reward, discount, next_value, np.ones(reward.shape))
    bound = 2 * rounding(rows, run_any.eps)[0]                                # both sides round
    assert np.all(np.abs(run_any(lambda_return, *rows)[0] - summed) <= bound)


@pytest.mark.property("C1")
def test_gradients_of_weights_survive_a_zero_discount(grad):
    # w = 1, a, ab, abc with a = 0.5, b = 0, c = 4: to a 1 + b + bc = 1, to b a + ac = 2.5, to c ab = 0
    (got,) = grad(discount_weights, [0.5, 0.0, 4.0, 3.0])
    assert_array_equal(got, [1.0, 2.5, 0.0, 0.0])


def test_weights_of_one_row_are_one(run):
    assert_array_equal(run(discount_weights, [[0.3, 0.0]]), [[1.0, 1.0]])


def test_weights_keep_float32_and_every_axis(run):
    got = run(discount_weights, random_transitions(3, 2, 4)[1].astype(np.float32))
    assert got.dtype == np.float32 and got.shape == (3, 2, 4)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
def test_weights_need_a_time_axis(run, shape):
    with pytest.raises(ValueError, match=r"^discount_weights: expected \(T, \*batch\) with T >= 1, .*got shape \("):
        run(discount_weights, np.zeros(shape))
