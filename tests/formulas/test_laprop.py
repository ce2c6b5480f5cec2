"""DreamerV3's optimiser: LaProp and adaptive gradient clipping. Properties A1 and A2."""

import numpy as np
import pytest
from hypothesis import given, target
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.optimisers import adaptive_clip, laprop
from shared.testing import oracles_optimisers as oracles
from tests.formulas.strategies import exact_arrays

DREAMERV3 = {"lr": 4e-5, "beta1": 0.9, "beta2": 0.999, "eps": 1e-20}
HALVES = {"lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1.0}
STEP = {t: (lambda *state, t=t: laprop(*state, t, **DREAMERV3)) for t in range(1, 7)}
LOOKAHEAD = {t: (lambda *state, t=t: laprop(*state, t, **DREAMERV3, nesterov=True)) for t in range(1, 7)}
LIKE_PARAMETER = [(1,), (3,), (2, 3)]          # few shapes: JAX compiles once per shape

# LaProp


@pytest.mark.property("A2")
def test_first_step_is_the_learning_rate_whatever_the_gradient(run):
    # t = 1: v / (1 - beta2) = g^2, so u = g / |g| = sign(g); m / (1 - beta1) = u; the step is lr * sign(g).
    grad = [3e-7, -3e-7, 1e5, -1e5]
    param, m, v = run(STEP[1], [1.0, 1.0, 1.0, 1.0], grad, [0.0] * 4, [0.0] * 4)
    assert_allclose(1 - param, [4e-5, -4e-5, 4e-5, -4e-5], rtol=1e-10)       # 1 - 4e-5 is known to 1e-16
    assert_allclose(m, [0.1, -0.1, 0.1, -0.1], rtol=1e-12)
    assert_allclose(v, 1e-3 * np.square(grad), rtol=1e-12)


@pytest.mark.property("A2")
def test_second_step_by_hand(run):
    # lr 1, beta1 = beta2 = 1/2, eps 1; m = 4, v = 16, g = 8:  v = 40,  v / (1 - 1/4) = 160/3,
    # u = 8 / (sqrt(160/3) + 1) = 0.963511,  m = 2 + u/2 = 2.481755,  step = m / (1 - 1/4) = 3.309007
    param, m, v = run(lambda *x: laprop(*x, 2, **HALVES), [0.0], [8.0], [4.0], [16.0])
    assert_allclose(v, [40.0], rtol=1e-15)
    assert_allclose(m, [2.481755], rtol=1e-6)
    assert_allclose(param, [-3.309007], rtol=1e-6)
    # Nesterov looks one step ahead: m/2 + u/2 = 1.722633, step 2.296844; the moments stay as they were.
    ahead, m_ahead, v_ahead = run(lambda *x: laprop(*x, 2, **HALVES, nesterov=True), [0.0], [8.0], [4.0], [16.0])
    assert_allclose(ahead, [-2.296844], rtol=1e-6)
    assert_array_equal(m_ahead, m)
    assert_array_equal(v_ahead, v)


@pytest.mark.property("A2")
@pytest.mark.parametrize("steps", [STEP, LOOKAHEAD], ids=["plain", "nesterov"])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e10])
def test_many_steps_equal_the_weighted_sums_of_the_definition(run, steps, scale):
    rng = np.random.default_rng(0)
    param, grads = rng.normal(size=3), scale * rng.normal(size=(6, 3))
    expected = oracles.laprop(param, grads, **DREAMERV3, nesterov=steps is LOOKAHEAD)
    m = v = np.zeros(3)
    for t, grad in enumerate(grads, start=1):
        param, m, v = run(steps[t], param, grad, m, v)
        assert_allclose(param, expected[t - 1], rtol=1e-12)


@pytest.mark.property("A2")
@given(st.integers(0, 2**32 - 1), st.integers(-20, 20))
def test_steps_do_not_depend_on_the_unit_of_the_gradients(run_any, seed, power):
    """For powers of two up to epsilon, which is at most 1e-10 of a root of 1e-10 and more; float32 does not see it."""
    rng = np.random.default_rng(seed)
    grads = rng.normal(size=(3, 4)).astype(np.float32).astype(np.float64)
    moved = []
    for unit in (1.0, 2.0**power):
        param = m = v = np.zeros(4)
        for t, grad in enumerate(grads, start=1):
            param, m, v = run_any(STEP[t], param, unit * grad, m, v)
        moved.append(param)
    assert_allclose(*moved, rtol=0, atol=3 * 4e-5 * 1e-10)                   # of three steps of the learning rate


@pytest.mark.property("A2")
def test_epsilon_of_1e_20_is_safe_in_both_dtypes(run_any):
    """No 0/0 where the gradient is zero, no overflow where its square is subnormal or vanishes (1e-18 and below)."""
    grad = np.array([0.0, 1e-30, 1e-20, 1e-18, 1e-15, 1.0])
    zeros = np.zeros(6)
    param, m, v = run_any(STEP[1], zeros, grad, zeros, zeros)
    assert (param[0], m[0], v[0]) == (0.0, 0.0, 0.0)
    assert np.isfinite(param).all() and np.isfinite(m).all() and np.isfinite(v).all()
    # From 1e-15 on, squares times 1e-3 are normal numbers of float32, and the step is lr * g / (g + 1e-20).
    assert_allclose(param[4:], [-4e-5 / (1 + 1e-5), -4e-5], rtol=16 * run_any.eps)
    assert param.dtype == run_any.dtype


def test_a_gradient_whose_square_vanishes_counts_as_zero(run):
    """1e-200 squares to 0 in float64. Divided by epsilon alone it could have any size; as zero it moves nothing."""
    param, m, v = run(STEP[1], [1.0], [1e-200], [0.0], [0.0])
    assert (param.item(), m.item(), v.item()) == (1.0, 0.0, 0.0)


def test_a_first_step_of_learning_rate_zero_fills_the_moments_only(run):
    """What DreamerV3's warm-up does in its first update."""
    param, m, v = run(lambda *x: laprop(*x, 1, 0.0, 0.9, 0.999, 1e-20), [2.0], [3.0], [0.0], [0.0])
    assert param.item() == 2.0
    assert_allclose([m.item(), v.item()], [0.1, 9e-3], rtol=1e-12)


def test_laprop_averages_after_normalising(run):
    """Not Adam: after a gradient of 1 and one of 100, the first still counts as one full step.

    LaProp: u_1 = 1, u_2 = 100 / sqrt(((1 + 1e4) / 2)) = 1.414 (beta2 -> 1), mean 1.2; Adam: mean of 1 and 100 over the
    same root, 0.72. Here beta1 = beta2 = 0.99, so the averages are nearly plain means.
    """
    settings = {"lr": 1.0, "beta1": 0.99, "beta2": 0.99, "eps": 1e-20}
    state = run(lambda *x: laprop(*x, 1, **settings), [0.0], [1.0], [0.0], [0.0])
    before = state[0].item()
    after, _, _ = run(lambda *x: laprop(*x, 2, **settings), state[0], [100.0], *state[1:])
    assert_allclose(before - after.item(), 1.2, atol=0.01)


# Adaptive clipping


def clip_as_dreamerv3(param, grad):
    return adaptive_clip(param, grad, 0.3, 1e-3)


def test_clipping_by_hand(run):
    # |param| = 5, so 1.5 is allowed; |grad| = 3 is halved, |grad| = 1.5 passes.
    assert_allclose(run(clip_as_dreamerv3, [3.0, 4.0], [0.0, 3.0]), [0.0, 1.5], rtol=1e-15)
    assert_array_equal(run(clip_as_dreamerv3, [3.0, 4.0], [1.5, 0.0]), [1.5, 0.0])
    # A zero parameter counts as 1e-3: 3e-4 of |grad| = 5 is left.
    assert_allclose(run(clip_as_dreamerv3, [0.0, 0.0], [3.0, 4.0]), [1.8e-4, 2.4e-4], rtol=1e-14)


def test_zero_gradients_stay_zero(run):
    assert_array_equal(run(clip_as_dreamerv3, [[0.0, 1.0]], [[0.0, 0.0]]), [[0.0, 0.0]])


def test_the_norm_is_of_the_whole_tensor(run):
    """Not per unit, as in the paper that proposed it: one long row shortens the others too."""
    param, grad = np.ones((3, 4)), np.array([[8.0] * 4, [0.1] * 4, [0.0] * 4])
    got = run(clip_as_dreamerv3, param, grad)
    assert_allclose(got / grad.max(), grad / grad.max() * (got[0, 0] / 8), rtol=1e-14)
    assert got[1, 0] < 0.01
    assert_array_equal(run(clip_as_dreamerv3, param.ravel(), grad.ravel()), got.ravel())


def clipping_problems(most=2.0**40):
    """Norms of up to 1e12: their squares still fit float32."""
    return st.sampled_from(LIKE_PARAMETER).flatmap(
        lambda shape: st.tuples(exact_arrays(shape, -most, most), exact_arrays(shape, -most, most))
    )


@pytest.mark.property("A1")
@given(clipping_problems())
def test_clipping_never_lengthens_and_obeys_the_limit(run_any, problem):
    """Six roundings: two squares and sums of up to six terms, root, product, quotient, quotient."""
    param, grad = problem
    got = run_any(clip_as_dreamerv3, param, grad).astype(np.float64)
    assert (np.abs(got) <= np.abs(grad)).all()
    allowed = 0.3 * max(1e-3, np.linalg.norm(param))
    assert np.linalg.norm(got) <= allowed * (1 + 6 * run_any.eps)


@pytest.mark.property("A1")
@given(clipping_problems())
def test_clipping_equals_lengths_by_hypot(run_any, problem):
    """Direction kept, identity below the threshold. Squares of entries below 1e-19 vanish in float32, beside a limit of
    at least 3e-4 that a shortened gradient exceeds."""
    got, expected = run_any(clip_as_dreamerv3, *problem), oracles.adaptive_clip(*problem, 0.3, 1e-3)
    target(float(np.max(np.abs(got - expected) / (np.abs(expected) + 1e-30))), label="relative error of the clipping")
    assert_allclose(got, expected, rtol=8 * run_any.eps, atol=1e-37)         # subnormal results may be flushed to zero


@pytest.mark.property("A1")
@given(clipping_problems(most=1.0))
def test_below_the_threshold_nothing_changes(run_any, problem):
    """Exactly: the division is by 1. Shrunk to a quarter of the parameter's norm, the gradient is below 0.3 of it."""
    param, grad = problem
    grad = grad * 2.0 ** np.floor(np.log2(max(np.linalg.norm(param), 1e-3) / max(np.linalg.norm(grad), 1e-3) / 4))
    grad = grad.astype(np.float32).astype(np.float64)
    assert_allclose(run_any(clip_as_dreamerv3, param, grad), grad, rtol=0, atol=1e-37)


@pytest.mark.property("A1")
@given(clipping_problems(most=2.0**20), st.integers(-10, 10))
def test_clipping_follows_the_unit_of_the_parameters(run_any, problem, power):
    """Scaling parameter, gradient and the least norm together scales the result: exactly, for powers of two."""
    unit = 2.0**power
    plain = run_any(clip_as_dreamerv3, *problem)
    moved = run_any(lambda param, grad: adaptive_clip(param, grad, 0.3, 1e-3 * unit), *(unit * x for x in problem))
    assert_allclose(moved, unit * plain, rtol=8 * run_any.eps, atol=1e-35)


def test_float32_stays_float32(run):
    x = np.ones((2, 2), np.float32)
    assert run(clip_as_dreamerv3, x, x).dtype == np.float32
    assert [y.dtype for y in run(STEP[1], x, x, x, x)] == [np.float32] * 3


# Errors


@pytest.mark.parametrize(("clip", "least"), [(0.0, 1.0), (-0.5, 1.0), (1.0, 0.0), (1.0, -0.5), (float("nan"), 1.0)])
def test_limits_must_be_positive(clip, least):
    with pytest.raises(ValueError, match=f"adaptive_clip: clip is {clip} and least is {least}, expected positive"):
        adaptive_clip(np.ones(2), np.ones(2), clip, least)


def test_shapes_and_steps_must_fit():
    x = np.zeros(2)
    with pytest.raises(ValueError, match=r"adaptive_clip: .*param \(2,\), grad \(3,\)"):
        adaptive_clip(x, np.zeros(3), 0.3, 1e-3)
    with pytest.raises(ValueError, match="laprop: step counts from 1 .the first update., got 0"):
        laprop(x, x, x, x, 0, **DREAMERV3)
    for place in range(4):
        with pytest.raises(ValueError, match="laprop: arguments of one shape expected"):
            laprop(*(np.zeros(3) if i == place else x for i in range(4)), 1, **DREAMERV3)
