"""DreamerV2's formulas against numbers from the released code (data/golden/dreamerv2/README.md: what each file holds).
The actor and critic losses are in test_dreamerv2_actor_critic.py.

We compute in float64 from the same float32 inputs, so what remains is the authors' float32, one rounding of which is
6e-8. Tolerances are five to ten times the largest deviation found, in brackets: other cases may be dropped in. FORWARD
(1.1e-6: the entropy of saturated logits) is absolute below 1, relative above. GRADIENT (1.8e-6) is relative to the
row's largest entry. UPDATE (4.6e-7) is for parameters of the size of 1 after eight steps.

Not here: LayerNorm, a layer of the models (test_dreamerv2_model.py).
"""

import math
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas.distributions import (
    bernoulli_entropy,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    tanh_normal,
    tanh_normal_log_prob,
    truncated_normal,
    truncated_normal_entropy,
    truncated_normal_log_prob,
)
from shared.formulas.divergences import balanced, categorical_kl, floor_nats, gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob
from shared.formulas.normalization import ema, magnitude_scaled
from shared.formulas.optimisers import adam_tf, clip_by_global_norm
from shared.formulas.sampling import straight_through, unimix
from tests.golden.assemblies import dreamer_return
from tests.golden.checks import all_close, close, evaluate, gradient_close
from tests.golden.dreamerv2_schedules import schedule
from tests.golden.loading import options, take, weights

FORWARD = 1e-5
GRADIENT = 2e-5
UPDATE = 2e-6

# Divergence


def kl_loss(post, prior, kl, setting):
    """The scalar loss of two tuples of statistics.

    Half-half is a special case of the authors: nothing is stopped, so the gradients are those of the plain KL (twice
    those of balancing at 1/2), and the maximum is never taken after the mean.
    """
    plain = setting["balance"] == 0.5

    def divergence(post, prior):
        value = kl(*prior, *post) if setting["forward"] else kl(*post, *prior)
        if setting["free_avg"] and not plain:
            return floor_nats(value.mean(), setting["free"])
        return floor_nats(value, setting["free"]).mean()

    return divergence(post, prior) if plain else balanced(divergence, post, prior, setting["balance"])


@pytest.mark.golden("kl_loss")
def test_kl_balancing(library, case):
    golden = case.double()
    setting = options(golden)
    discrete = "post_logit" in golden
    kl, entropy = (categorical_kl, categorical_entropy) if discrete else (gaussian_kl, gaussian_entropy)
    names = ("logit",) if discrete else ("mean", "std")
    inputs = take(golden, *(f"{side}_{name}" for side in ("post", "prior") for name in names))

    def divergences(**x):
        post, prior = (tuple(x[f"{side}_{name}"] for name in names) for side in ("post", "prior"))
        first, second = (prior, post) if setting["forward"] else (post, prior)
        return {
            "value": kl(*first, *second).sum(-1),
            "loss": kl_loss(post, prior, lambda *x: kl(*x).sum(-1), setting),
            "post_entropy": entropy(post[-1]).sum(-1),
            "prior_entropy": entropy(prior[-1]).sum(-1),
        }

    results, gradients = evaluate(library, divergences, inputs, "loss", tuple(inputs))
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        gradient_close(gradient, golden[f"dloss_d{name}"], GRADIENT, name)


# Returns


@pytest.mark.golden("lambda_return")
def test_lambda_return(library, case):
    golden = case.double()
    setting = options(golden)
    shape, axis = golden["reward"].shape, setting["axis"]
    inputs = {name: np.moveaxis(np.broadcast_to(golden[name], shape), axis, 0) for name in ("reward", "value", "pcont")}
    inputs["bootstrap"] = golden.get("bootstrap", np.zeros_like(inputs["value"][0]))
    inputs["weight"] = golden.get("weight", np.ones_like(inputs["reward"]))
    stored = {name: float(name.removeprefix("returns_lam")) for name in golden if name.startswith("returns_lam")}
    if "returns" in golden:
        stored["returns"] = setting["lambda"]

    def returns(weight, **x):
        found = {name: dreamer_return(**x, lambda_=lambda_) for name, lambda_ in stored.items()}
        return found | {"weighted": sum(weight * row for row in found.values())}

    to = tuple(name for name in inputs if f"d_{name}" in golden)
    results, gradients = evaluate(library, returns, inputs, "weighted", to)
    for name in stored:
        close(results[name], np.moveaxis(golden[name], axis, 0), FORWARD, name)
    for name, gradient in gradients.items():
        close(gradient, golden[f"d_{name}"], FORWARD, name)


# Output distributions


def trunc_normal(raw_out, raw_std, event, init_std, min_std):
    loc, scale = truncated_normal(raw_out, raw_std, init_std, min_std)
    log_prob = truncated_normal_log_prob(event, loc, scale, -1.0, 1.0)
    entropy = truncated_normal_entropy(loc, scale, -1.0, 1.0)
    return {"loc": loc, "scale": scale, "mode": loc, "log_prob": log_prob.sum(-1), "entropy": entropy.sum(-1)}


def onehot(raw_out, raw_std, event, init_std, min_std):
    probs = namespace(raw_out).exp(unimix(raw_out, 0.0))
    return {"mean": probs, "log_prob": categorical_log_prob(event, raw_out), "entropy": categorical_entropy(raw_out)}


def binary(raw_out, raw_std, event, init_std, min_std):
    return {"log_prob": bernoulli_log_prob(event, raw_out).sum(-1), "entropy": bernoulli_entropy(raw_out).sum(-1)}


def mse(raw_out, raw_std, event, init_std, min_std):
    entropy = gaussian_entropy(0 * raw_out + 1)
    return {"mean": raw_out, "log_prob": gaussian_log_prob(event, raw_out, 1.0).sum(-1), "entropy": entropy.sum(-1)}


def tanh_normal_5(raw_out, raw_std, event, init_std, min_std):
    """Here init_std is added before the softplus; our tanh_normal wants the std that comes out at 0, its softplus."""
    mean, std = tanh_normal(raw_out, raw_std, 5.0, math.log1p(math.exp(init_std)), min_std)
    return {"log_prob": tanh_normal_log_prob(event, mean, std).sum(-1)}


DISTRIBUTIONS = {
    "trunc_normal": trunc_normal, "onehot": onehot, "binary": binary, "mse": mse, "tanh_normal": tanh_normal_5,
}  # fmt: skip


@pytest.mark.golden("dists")
def test_output_distributions(library, case):
    """Gradients of log-probability and entropy are compared in one sum, and absolutely: small ones are differences of
    terms of the size of 1. The truncated normal's mean in the file is not ours: no agent needs it."""
    golden = case.double()
    setting = options(golden)

    def head(**x):
        found = DISTRIBUTIONS[setting["dist"]](**x, init_std=setting["init_std"], min_std=setting["min_std"])
        return found | {"both": found["log_prob"] + found.get("entropy", 0.0)}

    inputs = take(golden, "raw_out", "raw_std", "event")
    results, gradients = evaluate(library, head, inputs, "both", ("raw_out", "raw_std"))
    del results["both"]
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        close(gradient, golden[f"dlogp_d{name}"] + golden.get(f"dent_d{name}", 0.0), FORWARD, name)


@pytest.mark.golden("onehot_straight_through")
def test_straight_through_sample(library, case):
    """Its gradient, that of its log-probability (from row 2 on) and half that of the entropy, in one sum."""
    golden = case.double()

    def latent(logits, sample_onehot, weight):
        sample = straight_through(sample_onehot, namespace(logits).exp(unimix(logits, 0.0)))
        log_prob = categorical_log_prob(sample_onehot, logits).sum(-1)
        entropy = categorical_entropy(logits).sum(-1)
        loss = (sample * weight).sum() + log_prob[2:, ...].sum() + 0.5 * entropy.sum()
        return {"sample_onehot": sample, "log_prob": log_prob, "entropy": entropy, "loss": loss}

    inputs = take(golden, "logits", "sample_onehot", "weight")
    results, gradients = evaluate(library, latent, inputs, "loss", ("logits",))
    del results["loss"]
    all_close(results, golden, FORWARD)
    assert_array_equal(results["sample_onehot"], golden["sample_onehot"])
    for gradient in gradients.values():
        expected = golden["d_sample_weighted_sum"] + golden["d_logprob2_plus_half_entropy"]
        gradient_close(gradient, expected, GRADIENT)
    assert_array_equal(np.eye(golden["logits"].shape[-1])[golden["logits"].argmax(-1)], golden["mode"])


# Schedules, normalisers, target network, optimiser


@pytest.mark.golden("misc", case="schedule")
def test_schedules(case):
    golden = case.double()
    for text, values in zip(golden["schedule"].tolist(), golden["value"], strict=True):
        close([schedule(text, step) for step in golden["step"].tolist()], values, FORWARD, text)


@pytest.mark.golden("misc", case="streamnorm")
def test_reward_normaliser(library, case):
    """The magnitude is updated before it divides; momentum 1 switches it off."""
    golden = case.double()
    setting = options(golden)

    def update(x, magnitude):
        magnitude = ema(magnitude, abs(x).mean(), 1 - setting["momentum"])
        return setting["scale"] * magnitude_scaled(x, magnitude, setting["eps"]), magnitude

    magnitude = np.ones(())
    for t, x in enumerate(golden["x"]):
        y, magnitude = library(update, x, magnitude)
        close(y, golden["y"][t], FORWARD)
        close(magnitude, golden["mag"][t], FORWARD)


@pytest.mark.golden("slow_target")
def test_target_critic(library, case):
    """The first call copies whatever the fraction."""
    golden = case.double()
    setting, target = options(golden), golden["target_init"]
    for t, source in enumerate(golden["source"]):
        if t % setting["every"] == 0:
            rate = setting["fraction"] if t else 1.0
            target = library(lambda old, new, rate=rate: ema(old, new, rate), target, source)
        close(target, golden["target"][t], UPDATE)


NO_CLIP = 1e30                                                # a limit that no gradient reaches


@pytest.mark.golden("optimizer")
def test_clipping_decay_and_adam(eager, case):
    """Decay is a share of the weight, whatever the learning rate; a clip of 0 means none."""
    golden = case.double()
    setting = options(golden)
    names = list(weights(golden, "init:"))
    decay = {name: setting["wd"] if re.search(setting["wd_pattern"], name) else 0.0 for name in names}
    adam = {name: setting[name] for name in ("lr", "beta1", "beta2", "eps")}

    def steps(**x):
        params, found = [x[f"init:{name}"] for name in names], {}
        moments = [(0 * param, 0 * param) for param in params]
        for t in range(x[f"grads:{names[0]}"].shape[0]):
            grads = [x[f"grads:{name}"][t, ...] for name in names]
            grads, found["grad_norm", t] = clip_by_global_norm(grads, setting["clip"] or NO_CLIP)
            for i, name in enumerate(names):
                params[i], *moments[i] = adam_tf((1 - decay[name]) * params[i], grads[i], *moments[i], t + 1, **adam)
                found[f"params:{name}", t] = params[i]
        return found

    inputs = {name: x for name, x in golden.items() if name.startswith(("init:", "grads:"))}
    results, _ = evaluate(eager, steps, inputs)
    for (name, t), got in results.items():
        close(got, golden[name][t], UPDATE, f"{name} after step {t + 1}")
