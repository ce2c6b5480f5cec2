"""Dreamer's policies, continuous and discrete, against numbers from the released code (data/golden/dreamer/README.md).

Tolerances: as in test_dreamer_core.py. Largest deviations found: 1.3e-6 for values (a mean behind four layers), 4.9e-6
of a row's largest entry for gradients. The README's 2e-2 for densities near +-1 is not needed: 7.1e-7 found.
"""

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas.distributions import (
    ACTION_LIMIT,
    categorical_entropy,
    categorical_log_prob,
    tanh_normal,
    tanh_normal_log_prob,
)
from shared.formulas.elbo import HALF_LOG_TWO_PI
from shared.formulas.sampling import reparameterise, score_through, straight_through, unimix
from tests.golden.assemblies import dense, elu
from tests.golden.checks import all_close, close, evaluate, gradient_close
from tests.golden.loading import options, take, weights

FORWARD = 1e-5
GRADIENT = 3e-5


def hidden_layers(w, count, x):
    for i in range(count):
        x = elu(dense(w, f"h{i}", x))
    return x


def policy(raw, setting):
    """(mean, std) from the two halves of one layer."""
    size = raw.shape[-1] // 2
    return tanh_normal(raw[..., :size], raw[..., size:], setting["mean_scale"], setting["init_std"], setting["min_std"])


@pytest.mark.golden("action_head")
def test_policy(library, case):
    golden = case.double()
    setting, w = options(golden), weights(golden, "w/actor/")
    close(dense(w, "hout", hidden_layers(w, setting["layers"], golden["features"])), golden["raw"], FORWARD)

    def head(raw, eps, action):
        mean, std = policy(raw, setting)
        sample = namespace(raw).tanh(reparameterise(mean, std, eps))
        log_prob = tanh_normal_log_prob(action, mean, std).sum(-1)
        return {"mean": mean, "std": std, "sample": sample, "log_prob": log_prob}

    results, gradients = evaluate(library, head, take(golden, "raw", "eps", "action"), "sample", ("raw",))
    all_close(results, golden, FORWARD)
    for gradient in gradients.values():
        # Absolutely: where the tanh saturates, the authors' 1 - a^2 is a difference of two float32 numbers near 1.
        close(gradient, golden["grad_raw_of_sum_sample"], FORWARD)


@pytest.mark.golden("action_head")
def test_log_slope_of_the_tanh(library, case):
    """It stands inside our density: log p(tanh z; z, 1) = -log(2 pi) / 2 - log slope at z, up to the limit of atanh."""
    golden = case.double()
    z, slope = golden["bij_x"], golden["bij_fldj"]
    inside = np.abs(z) < math.atanh(ACTION_LIMIT)
    z, slope = z[inside], slope[inside]
    got = library(tanh_normal_log_prob, np.tanh(z), z, np.ones_like(z))
    close(-HALF_LOG_TWO_PI - got, slope, FORWARD)


@pytest.mark.golden("action_head")
def test_inverse_of_the_tanh_and_its_limits(library, case):
    """log p(a; 0, 1) = log N(z; 0, 1) - log slope at z, with z = atanh(a) from the file and slope = 1 / cosh^2.

    Beyond [-1, 1] the authors have nan (their log-density clips before, ours inside).
    """
    golden = case.double()
    action, z = golden["bij_y"], golden["bij_inverse"]
    known = np.isfinite(z)
    assert_array_equal(known, np.abs(action) <= 1)
    got = library(tanh_normal_log_prob, action, 0 * action, 0 * action + 1)
    close(got[known], (-HALF_LOG_TWO_PI - z**2 / 2 + 2 * np.log(np.cosh(z)))[known], FORWARD)


@pytest.mark.golden("tf1_action_head")
def test_tf1_policy(library, case):
    """Mean and std come from two layers."""
    golden = case.double()
    setting, w = options(golden), weights(golden)
    hidden = hidden_layers(w, setting["layers"], golden["features"])

    def head(raw_mean, raw_std, action):
        mean, std = tanh_normal(raw_mean, raw_std, setting["mean_scale"], setting["init_std"], setting["min_std"])
        return {"mean": mean, "std": std, "log_prob": tanh_normal_log_prob(action, mean, std).sum(-1)}

    raw = {"raw_mean": dense(w, "mean", hidden), "raw_std": dense(w, "std", hidden)}
    results, _ = evaluate(library, head, raw | take(golden, "action"))
    all_close(results, golden, FORWARD)


def one_hot(index, count):
    return np.eye(count)[index]


@pytest.mark.golden("onehot_head")
def test_discrete_policy(library, case):
    golden = case.double()

    def head(logits, event):
        probs = namespace(logits).exp(unimix(logits, 0.0))
        log_prob = categorical_log_prob(event, logits)
        return {"probs": probs, "log_prob": log_prob, "entropy": categorical_entropy(logits)}

    results, _ = evaluate(library, head, take(golden, "logits", "event"))
    all_close(results, golden, FORWARD)
    assert_array_equal(one_hot(results["probs"].argmax(-1), results["probs"].shape[-1]), golden["mode"])


ESTIMATORS = {
    "straight": lambda logits, drawn: straight_through(drawn, namespace(logits).exp(unimix(logits, 0.0))),
    "score": lambda logits, drawn: score_through(drawn, categorical_log_prob(drawn, logits)),
}


def check_sample(library, estimator, golden, prefix):
    """Its value, and the gradient of sum(sample * coef)."""

    def sampled(logits, drawn, coef):
        sample = ESTIMATORS[estimator](logits, drawn)
        return {"sample": sample, "sum": sample * coef}

    inputs = take(golden, "logits", "coef")
    inputs["drawn"] = one_hot(golden["sample_index"], golden["logits"].shape[-1])
    results, gradients = evaluate(library, sampled, inputs, "sum", ("logits",))
    assert_array_equal(results["sample"], golden[f"{prefix}sample"])
    for gradient in gradients.values():
        gradient_close(gradient, golden[f"{prefix}grad_logits"], GRADIENT)


@pytest.mark.golden("onehot_head")
def test_straight_through_sample(library, case):
    check_sample(library, "straight", case.double(), "")


@pytest.mark.golden("tf1_onehot")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_tf1_samples(library, estimator, case):
    check_sample(library, estimator, case.double(), f"{estimator}/")
