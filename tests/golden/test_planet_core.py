"""PlaNet's formulas against numbers from the released code (data/golden/planet/README.md says what each file holds).

Tolerances. The stored numbers were computed in float32, so even our float64 differs from them by the authors' rounding.
One float32 rounding is 6e-8 relative; a KL sums up to 30 terms that cancel from the size of 1, a planner chains a few
dozen operations. FORWARD allows some hundred roundings (measured: at most 1.5e-6 absolute, 5e-6 relative). It is
absolute near zero (a KL of 1e-6 out of terms of 1 is known to 1e-6), relative for large entries (there is a KL of 1e6).
Gradients are compared relative to their largest entry, because small ones are differences of large ones.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import overshooting_kl, overshooting_mask, overshooting_starts, overshooting_windows
from shared.formulas.images import dequantise, dequantise_uint8, quantise
from shared.formulas.optimisers import adam_tf, clip_by_global_norm
from shared.formulas.planning import refit
from shared.formulas.sampling import reparameterise
from shared.formulas.schedules import fires, linear_ramp
from tests.conftest import BACKENDS
from tests.golden.loading import options, weights

FORWARD = {"rtol": 5e-5, "atol": 1e-5}
DTYPES = ["float32", "float64"]
STATISTICS = ("post_mean", "post_stddev", "prior_mean", "prior_stddev")


def assert_gradient_close(got, expected):
    assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def take(arrays, dtype, *names):
    return [arrays[name].astype(dtype) for name in names]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


# Divergence and free nats


def divergence(post_mean, post_std, prior_mean, prior_std, nats):
    """PlaNet's clipped divergence per entry."""
    return floor_nats(gaussian_kl(post_mean, post_std, prior_mean, prior_std).sum(-1) - nats, 0.0)


@pytest.mark.golden("kl_free_nats")
def test_kl_and_free_nats(library, dtype, case):
    golden = case.load()
    nats = float(golden["free_nats"])
    kl = library(gaussian_kl, *take(golden, dtype, *STATISTICS)).sum(-1)
    assert_allclose(kl, golden["kl"], **FORWARD)
    assert_allclose(library(lambda *x: floor_nats(x[0] - nats, 0.0), kl), golden["kl_clipped"], **FORWARD)
    assert_allclose(library(lambda *x: floor_nats(x[0], nats) - nats, kl), golden["kl_clipped"], **FORWARD)
    clipped = library(lambda *x: divergence(*x, nats), *take(golden, dtype, *STATISTICS))
    assert_allclose(clipped.mean(), golden["loss"], **FORWARD)


@pytest.mark.golden("kl_free_nats")
def test_kl_with_mask_is_overshooting_without_distance(library, dtype, case):
    """The mask of the released code, here that of the overshooting sums at distance 0."""
    golden = case.load()
    post_mean, post_std, prior_mean, prior_std = take(golden, dtype, *STATISTICS)
    arguments = (post_mean, post_std, prior_mean[:, :, None], prior_std[:, :, None], golden["mask"][:, :, None])
    got = library(lambda *x: overshooting_kl(*x, 0.0), *arguments)
    assert_allclose(got[:, :, 0], golden["kl_masked"], **FORWARD)


@pytest.mark.golden("kl_free_nats")
@pytest.mark.parametrize("name", ["torch", "jax", "jax-jit"])
def test_gradients_of_the_clipped_divergence(name, dtype, case):
    golden = case.load()
    nats, entries = float(golden["free_nats"]), golden["kl"].size
    gradients = BACKENDS[name].gradients(lambda *x: divergence(*x, nats), *take(golden, dtype, *STATISTICS))
    for statistic, gradient in zip(STATISTICS, gradients, strict=True):
        assert_gradient_close(gradient / entries, golden[f"grad_{statistic}"])
        free = golden["kl"] <= nats
        assert_array_equal(gradient[free], 0)


# Latent overshooting


@pytest.mark.golden("overshooting_toy")
def test_overshooting_bookkeeping_with_a_mock_cell(library, dtype, case):
    """transition: state + action; posterior: the observation. Entries beyond a length are 0 in the file."""
    golden = case.load()
    observation, action = take(golden, dtype, "obs", "prev_action")
    steps, distance = observation.shape[1], int(golden["amount"])

    def bookkeeping(observation, action, length):
        mask = overshooting_mask(steps, distance, length)
        return overshooting_starts(observation), overshooting_windows(action, distance), mask

    start, actions, mask = library(bookkeeping, observation, action, golden["length"])
    target = library(lambda x: overshooting_windows(x, distance), observation)
    assert_array_equal(mask, golden["mask"])
    assert_array_equal(np.where(mask, target, 0), golden["target"])
    assert_array_equal(np.where(mask, target, 0), golden["posterior"])
    prior = start[:, :, None] + np.cumsum(actions, axis=-1)
    assert_allclose(np.where(mask, prior, 0), golden["prior"], rtol=1e-6, atol=1e-6)   # one sum per step


@pytest.mark.golden("overshooting_rssm")
def test_overshooting_sums(library, dtype, case):
    golden = case.load()
    setting = options(golden)
    batch, steps = golden["post_mean"].shape[:2]
    statistics = take(golden, dtype, "post_mean", "post_stddev", "os_prior_mean", "os_prior_stddev")

    def sums(*statistics_and_lengths, nats):
        *statistics, lengths = statistics_and_lengths
        mask = overshooting_mask(steps, setting["distance"], lengths)
        return mask, overshooting_kl(*statistics, mask, nats)

    lengths = np.full(batch, steps)
    mask, kl = library(lambda *x: sums(*x, nats=0.0), *statistics, lengths)
    assert_array_equal(mask, golden["os_mask"])
    assert_allclose(kl, golden["os_kl"], **FORWARD)
    _, clipped = library(lambda *x: sums(*x, nats=setting["free_nats"]), *statistics, lengths)
    overshooting = clipped[:, :, 1:-1].mean()                 # code: distances 2 .. D, over all entries
    assert_allclose(overshooting, golden["loss_overshooting"], **FORWARD)
    plain = library(lambda *x: divergence(*x, setting["free_nats"]), *take(golden, dtype, *STATISTICS)).mean()
    assert_allclose(plain, golden["loss_divergence"], **FORWARD)
    total = setting["divergence_scale"] * plain + setting["overshooting_scale"] * overshooting
    assert_allclose(total, golden["loss_total"], **FORWARD)


def dense(w, name, x):
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def prior_step(w, activation, sample, belief, action):
    """PlaNet's RSSM prior in NumPy: (mean, std, belief)."""
    def act(x):
        return np.maximum(x, 0) + (np.expm1(np.minimum(x, 0)) if activation == "elu" else 0)

    x = act(dense(w, "trans_in", np.concatenate([sample, action], -1)))
    gates = 1 / (1 + np.exp(-(np.concatenate([x, belief], -1) @ w["gru/w_ru"] + w["gru/b_ru"])))
    reset, update = np.split(gates, 2, axis=-1)
    candidate = np.tanh(np.concatenate([x, reset * belief], -1) @ w["gru/w_c"] + w["gru/b_c"])
    belief = update * belief + (1 - update) * candidate
    y = act(dense(w, "trans_out", belief))
    return dense(w, "trans_mean", y), np.logaddexp(0, dense(w, "trans_std", y)) + 0.1, belief


@pytest.mark.golden("overshooting_rssm")
def test_overshooting_rollouts_of_a_real_model(library, case):
    """Starts and action windows lead the RSSM's prior to the stored predictions: all starts in one batch."""
    golden = case.load()
    setting, w = options(golden), weights(golden)
    if setting["kind"] != "rssm" or "trans_in/kernel" not in w:
        pytest.skip("the prior of another model; tests/golden/test_planet_model.py has it")
    batch, steps, size = golden["post_mean"].shape
    distance, mask = setting["distance"], golden["os_mask"]
    previous, beliefs = np.zeros((batch, size)), [np.zeros((batch, w["gru/b_c"].size))]
    for t in range(steps):
        beliefs.append(prior_step(w, setting["activation"], previous, beliefs[-1], golden["action"][:, t])[2])
        previous = golden["post_sample"][:, t]
    sample = library(overshooting_starts, golden["post_sample"])
    belief = library(overshooting_starts, np.stack(beliefs[1:], axis=1))
    actions = library(lambda a: overshooting_windows(a, distance), golden["action"])
    for d in range(distance + 1):
        mean, std, belief = prior_step(w, setting["activation"], sample, belief, actions[:, :, d])
        sample = mean
        if not setting["mean_only"]:
            sample = library(reparameterise, mean, std, golden["os_prior_eps"][:, :, d])
        for got, name in ((mean, "os_prior_mean"), (std, "os_prior_stddev"), (sample, "os_prior_sample")):
            valid = mask[:, :, d]
            assert_allclose(got[valid], golden[name][:, :, d][valid], **FORWARD)


# Planner


@pytest.mark.golden("cem")
def test_planner_on_a_known_model(library, dtype, case):
    golden = case.load()
    model_a, model_b, offset, goal, x0, noise = take(golden, dtype, "A", "B", "c", "goal", "x0", "noise")
    mean, std = np.zeros(golden["plan"].shape, dtype), np.ones(golden["plan"].shape, dtype)
    for i in range(int(golden["iterations"])):
        belief = (np.broadcast_to(x, noise[i].shape) for x in (mean, std))
        actions = library(reparameterise, *belief, noise[i]).clip(golden["min_action"], golden["max_action"])
        assert_allclose(actions, golden["candidates"][i], **FORWARD)
        returns, state = np.zeros(len(actions), dtype), np.tile(x0, (len(actions), 1))
        for t in range(int(golden["horizon"])):
            state = state @ model_a.T + actions[:, t] @ model_b.T + offset
            returns = returns - ((state - goal) ** 2).sum(-1)
        assert_allclose(returns, golden["returns"][i], **FORWARD)
        stored = golden["returns"][i].astype(dtype)           # a rounding must not swap two candidates of equal return
        mean, std = library(lambda a, r: refit(a, r, int(golden["topk"]), std="code"), actions, stored)
        assert_allclose(mean, golden["mean_per_iter"][i], **FORWARD)
        assert_allclose(std, golden["stddev_per_iter"][i], **FORWARD)
    assert_allclose(mean, golden["plan"], **FORWARD)
    assert_allclose(mean[0], golden["first_action"], **FORWARD)


@pytest.mark.golden("cem")
def test_refit_of_the_stored_candidates(library, dtype, case):
    """All iterations at once, as a batch of planners: no error is carried along."""
    golden = case.load()
    candidates, returns = take(golden, dtype, "candidates", "returns")
    mean, std = library(lambda a, r: refit(a, r, int(golden["topk"]), std="code"), candidates, returns)
    assert_allclose(mean, golden["mean_per_iter"], rtol=1e-5, atol=1e-6)
    assert_allclose(std, golden["stddev_per_iter"], rtol=1e-5, atol=1e-6)


# Images


@pytest.mark.golden("preprocess")
def test_preprocessing(library, dtype, case):
    golden = case.load()
    image, noise = take(golden, dtype, "image", "noise01")
    stored = [int(name.removeprefix("clean_bits")) for name in golden if name.startswith("clean_bits")]
    assert stored
    for bits in stored:
        clean = library(lambda x, bits=bits: quantise(x, bits), image)
        assert_array_equal(clean, golden[f"clean_bits{bits}"])               # sums of powers of two: exact in float32
        got = library(lambda x, n, bits=bits: quantise(x, bits, n), image, noise)
        assert_allclose(got, golden[f"noisy_bits{bits}"], rtol=0, atol=1e-7)  # values below 0.5: one float32 rounding


@pytest.mark.golden("preprocess")
def test_postprocessing(library, case):
    """In float32 only, as the authors' floor saw it: float64 could put a value on the other side of a level."""
    golden = case.load()
    stored = [name.removeprefix("noisy_bits") for name in golden if name.startswith("noisy_bits")]
    assert stored
    for bits in stored:
        noisy = golden[f"noisy_bits{bits}"]
        level = library(lambda x, bits=bits: dequantise(x, int(bits)), noisy)
        assert_array_equal(level, golden[f"post_float_bits{bits}"])
        pixel = library(lambda x, bits=bits: dequantise_uint8(x, int(bits)), noisy)
        assert_array_equal(pixel, golden[f"post_uint8_bits{bits}"])


# Optimiser


@pytest.mark.golden("adam_clip")
def test_clipping_and_adam(library, dtype, case):
    golden = case.load()
    a, b, grads_a, grads_b = take(golden, dtype, "a0", "b0", "grad_a", "grad_b")
    setting = {"lr": float(golden["lr"]), "beta1": float(golden["beta1"]), "beta2": float(golden["beta2"])}
    setting["eps"] = float(golden["epsilon"])
    moments = [(np.zeros_like(a), np.zeros_like(a)), (np.zeros_like(b), np.zeros_like(b))]
    parameters = [a, b]
    for t in range(len(grads_a)):
        grads, norm = library(lambda *g: clip_by_global_norm(list(g), float(golden["clip"])), grads_a[t], grads_b[t])
        assert_allclose(norm, golden["grad_norm"][t], **FORWARD)
        for i, grad in enumerate(grads):
            step = library(lambda *x, t=t: adam_tf(*x, t + 1, **setting), parameters[i], grad, *moments[i])
            parameters[i], moments[i] = step[0], step[1:]
        # Parameters of the size of 1 move by 1e-3: agreement must be far finer than a step, here to 2e-3 of one.
        assert_allclose(parameters[0], golden["a"][t], rtol=1e-6, atol=1e-6)
        assert_allclose(parameters[1], golden["b"][t], rtol=1e-6, atol=1e-6)


# Schedules


@pytest.mark.golden("schedule")
def test_schedules(case):
    golden = case.load()
    steps = golden["steps"].tolist()
    after, every, until, batch = (int(golden[name]) for name in ("after", "every", "until", "batch_size"))
    assert [fires(step, after, every, until, batch) for step in steps] == golden["binary"].tolist()
    ramps = [name for name in golden if name.startswith("linear_ramp")]
    assert ramps
    for name in ramps:
        ramp, floor = name.removeprefix("linear_ramp").split("_min")
        got = [linear_ramp(step, int(ramp), float(floor)) for step in steps]
        assert_allclose(got, golden[name], rtol=1e-6, atol=1e-6)
