"""Dreamer's formulas against numbers from the released code (data/golden/dreamer/README.md: what each file holds).
The policies are in test_dreamer_policies.py.

We compute in float64 from the same float32 inputs, so what remains is the authors' float32, one rounding of which is
6e-8. Tolerances are about five times the largest deviation found, in brackets: other cases may be dropped in. FORWARD
(1.9e-6: log-densities of the contrastive objective, sums of terms of the size of 30) is absolute below 1, relative
above. GRADIENT (6.1e-6: the same) is relative to the row's largest entry. UPDATE (1.5e-7) is for parameters of the size
of 1 after a few steps of 1e-3. EXACT is for the lambda-returns, which alone are float64 in the file (4e-16).

Not here: the networks (test_dreamer_model.py), and the trigger of the training loop, which is no formula: the loop's
schedule reproduces it below.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from shared.formulas._backend import namespace, stop_gradient
from shared.formulas.distributions import gaussian_entropy
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import gaussian_log_prob, info_nce
from shared.formulas.images import centre, quantise
from shared.formulas.optimisers import adam_tf, clip_by_global_norm
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import reparameterise
from shared.formulas.schedules import exponential
from shared.training.schedule import Schedule
from tests.golden.assemblies import dreamer_return
from tests.golden.checks import all_close, close, evaluate, gradient_close
from tests.golden.loading import options, take, weights

FORWARD = 1e-5
GRADIENT = 3e-5
UPDATE = 1e-6
EXACT = 1e-14

STATISTICS = ("post_mean", "post_std", "prior_mean", "prior_std")


def gradients_close(got, golden, prefix):
    """The file names them after the input, with a prefix."""
    for name, gradient in got.items():
        gradient_close(gradient, golden[prefix + name], GRADIENT, prefix + name)


# Returns


@pytest.mark.golden("lambda_return")
def test_lambda_return(library, case):
    """The only float64 numbers of the authors: equal to a few roundings."""
    golden = case.double()
    axis, lambda_ = int(golden["axis"]), float(golden["lambda"])
    rows = [np.moveaxis(golden[name], axis, 0) for name in ("reward", "value", "pcont")]
    bootstrap = golden["bootstrap"] if golden["has_bootstrap"] else np.zeros_like(golden["bootstrap"])
    got = library(lambda *x: dreamer_return(*x, lambda_), *rows, bootstrap)
    close(got, np.moveaxis(golden["returns"], axis, 0), EXACT)


@pytest.mark.golden("train_step")
def test_returns_weights_and_losses_of_a_training_step(library, case):
    """What follows the networks. The gradients, through the networks, are in test_dreamer_model.py."""
    golden = case.double()
    lambda_ = options(golden)["disclam"]

    def behaviour(lr_reward, lr_value, lr_pcont, lr_bootstrap, **statistics):
        returns = dreamer_return(lr_reward, lr_value, lr_pcont, lr_bootstrap, lambda_)
        weight = discount_weights(lr_pcont)
        return {
            "returns": returns,
            "discount": weight,
            "actor_loss": -(weight * returns).mean(),
            "value_loss": -(weight * gaussian_log_prob(returns, lr_value, 1.0)).mean(),
            "kl": gaussian_kl(*(statistics[name] for name in STATISTICS)).sum(-1),
        }

    names = ("lr_reward", "lr_value", "lr_pcont", "lr_bootstrap")
    results, _ = evaluate(library, behaviour, take(golden, *names, *STATISTICS))
    all_close(results, golden, FORWARD)


# TF1: the returns of the paper's experiments

TF1_DISCOUNT = 0.99                                           # of the labels default and novalue; pcont has none
TF1_PCONT = {
    "default": lambda logit: namespace(logit).full_like(logit, TF1_DISCOUNT),
    "pcont": lambda logit: 1 / (1 + namespace(logit).exp(-logit)),
}
TF1_INPUTS = ("reward", "value", "pcont_logit")


def tf1_behaviour(reward, value, pcont, lambda_):
    """What the actor maximises, and the value loss, at the first H - 1 of H states: each (H - 1, N).

    Everything is cut to H - 1 entries BEFORE the bootstrap is taken, which is therefore v_{H-2}: off by one.
    """
    reward, value, pcont = reward[:-1, ...], value[:-1, ...], pcont[:-1, ...]
    returns = dreamer_return(reward, value, pcont, value[-1, ...], lambda_)
    weight = stop_gradient(discount_weights(pcont))
    return weight * returns, -weight * gaussian_log_prob(stop_gradient(returns), value, 1.0)


@pytest.mark.golden("tf1_behaviour")
@pytest.mark.parametrize("label", TF1_PCONT)
@pytest.mark.parametrize("kind", ["action", "value"])
def test_tf1_objectives_and_what_is_constant_in_them(library, label, kind, case):
    """Constant: the weights always, for the value loss the returns too. An input without a stored gradient has none."""
    golden = case.double()
    lambda_ = options(golden)["lambda"]

    def objectives(reward, value, pcont_logit):
        action_values, value_loss = tf1_behaviour(reward.T, value.T, TF1_PCONT[label](pcont_logit).T, lambda_)
        found = {"action_values": action_values.T, "value_loss": value_loss.T}
        return found | {"action_objective": action_values.mean(), "value_objective": value_loss.mean()}

    inputs = take(golden, *TF1_INPUTS)
    results, gradients = evaluate(library, objectives, inputs, f"{kind}_objective", TF1_INPUTS)
    all_close(results, weights(golden, f"{label}/"), FORWARD)
    none = {f"{label}/{kind}_grad_{name}": np.zeros_like(x) for name, x in inputs.items()}
    gradients_close(gradients, none | golden, f"{label}/{kind}_grad_")


@pytest.mark.golden("tf1_behaviour")
def test_tf1_without_a_value_head(library, case):
    """The discounted sum of all H rewards, no weights."""
    golden = case.double()

    def objective(reward):
        discount = namespace(reward).full_like(reward, TF1_DISCOUNT)
        values = lambda_return(reward.T, discount.T, 0 * reward.T, 1.0).T
        return {"action_values": values, "action_objective": values.mean()}

    results, gradients = evaluate(library, objective, take(golden, "reward"), "action_objective", ("reward",))
    all_close(results, weights(golden, "novalue/"), FORWARD)
    gradients_close(gradients, golden, "novalue/action_grad_")


# Divergence


@pytest.mark.golden("kl_free_nats")
def test_kl_and_free_nats(library, case):
    """TF2: the mean is taken before the maximum. Below the floor all gradients are exactly zero."""
    golden = case.double()
    nats = float(golden["free_nats"])

    def divergence(post_mean, post_std, prior_mean, prior_std):
        kl = gaussian_kl(post_mean, post_std, prior_mean, prior_std).sum(-1)
        entropy = gaussian_entropy(post_std).sum(-1)
        return {"kl": kl, "kl_mean": kl.mean(), "div": floor_nats(kl.mean(), nats), "post_entropy": entropy}

    results, gradients = evaluate(library, divergence, take(golden, *STATISTICS), "div", STATISTICS)
    all_close(results, golden, FORWARD)
    gradients_close(gradients, golden, "grad_")


# Contrastive objective


def rolls(kind, shape, batch_amount, time_amount):
    """The shifts (batch, time) that make the candidates; (0, 0), the positive, is among them."""
    if kind == "batch":
        return [(i, 0) for i in range(shape[0])]
    if kind == "time":
        return [(0, i) for i in range(shape[1])]
    return [(i - batch_amount // 2, j - time_amount // 2) for i in range(batch_amount) for j in range(time_amount)]


@pytest.mark.golden("tf1_cpc")
@pytest.mark.parametrize("kind", ["batch", "time", "window"])
def test_contrastive_objective(library, kind, case):
    golden = case.double()
    amounts = int(golden["cpc_batch_amount"]), int(golden["cpc_time_amount"])
    shifts = rolls(kind, golden["features"].shape, *amounts)

    def bound(pred_mean, pred_std, features):
        xp = namespace(features)
        candidates = xp.stack([xp.roll(features, shift, axis=(0, 1)) for shift in shifts], axis=0)
        mean, std = (xp.stack([x] * len(shifts), axis=0) for x in (pred_mean, pred_std))
        log_probs = gaussian_log_prob(candidates, mean, std).sum(-1)
        objective = info_nce(log_probs[shifts.index((0, 0)), ...], log_probs)
        return {"objective": objective, "mean": objective.mean()}

    inputs = take(golden, "pred_mean", "pred_std", "features")
    results, gradients = evaluate(library, bound, inputs, "mean", ("pred_mean", "features"))
    close(results["objective"], golden[f"{kind}/objective"], FORWARD)
    gradients_close(gradients, golden, f"{kind}/grad_")


# Images, rewards, exploration


@pytest.mark.golden("misc")
def test_preprocessing(library, case):
    golden = case.double()

    def preprocess(image, reward):
        return {"image_out": centre(image), "reward_out_tanh": namespace(reward).tanh(reward)}

    inputs = {"image": golden["image"].astype(np.float64), "reward": golden["reward"]}
    results, _ = evaluate(library, preprocess, inputs)
    all_close(results, golden, FORWARD)
    assert_array_equal(golden["reward"], golden["reward_out_none"])


@pytest.mark.golden("tf1_preprocess")
def test_tf1_preprocessing(library, case):
    golden = case.double()
    bits = options(golden)["bits"]
    got = library(lambda *x: quantise(x[0], bits, x[1]), golden["image"].astype(np.float64), golden["noise01"])
    close(got, golden["out"], FORWARD)


@pytest.mark.golden("misc")
def test_exploration(library, case):
    golden = case.double()
    for i, (amount, half_life, least) in enumerate(golden["expl_configs"].tolist()):
        now = [exponential(s, amount, 0.0, half_life) if half_life else amount for s in golden["expl_steps"].tolist()]
        now = np.maximum(now, least)
        close(now, golden["expl_amount"][i], FORWARD)
        action = np.broadcast_to(golden["action"], golden["noise_eps"][i].shape)
        std = np.broadcast_to(now[:, None, None], action.shape)
        noisy = library(reparameterise, action, std, golden["noise_eps"][i])
        close(noisy.clip(-1, 1), golden["noisy_action"][i], FORWARD)


@pytest.mark.golden("misc")
def test_training_is_due_when_the_authors_trigger_fires(case):
    """No formula: the loop's schedule. The first step after prefill, then every 1000 env steps."""
    golden = case.load()
    steps = golden["every_steps"].tolist()
    ends = dict.fromkeys(("total_env_steps", "evaluate_every_env_steps", "checkpoint_every_env_steps"), steps[-1])
    schedule = Schedule(
        prefill_env_steps=steps[0], learn_every_env_steps=1000, updates_per_learn=1, pretrain_updates=1, **ends
    )
    due = [schedule.updates_due(before, after) for before, after in zip([-1, *steps], steps, strict=False)]
    assert due == golden["every_fires"].astype(int).tolist()


# Optimiser


@pytest.mark.golden("adam_clip")
def test_clipping_and_adam(library, case):
    golden = case.double()
    keys = {"lr": "lr", "beta1": "beta1", "beta2": "beta2", "eps": "epsilon"}
    setting = {name: float(golden[key]) for name, key in keys.items()}

    def steps(a0, b0, grad_a, grad_b):
        states, found = [(a0, 0 * a0, 0 * a0), (b0, 0 * b0, 0 * b0)], {}
        for t in range(grad_a.shape[0]):
            grads, norm = clip_by_global_norm([grad_a[t, ...], grad_b[t, ...]], float(golden["clip"]))
            states = [adam_tf(x, grad, m, v, t + 1, **setting) for (x, m, v), grad in zip(states, grads, strict=True)]
            found |= {("a", t): states[0][0], ("b", t): states[1][0], ("grad_norm", t): norm}
        return found

    results, _ = evaluate(library, steps, take(golden, "a0", "b0", "grad_a", "grad_b"))
    for (name, t), got in results.items():
        close(got, golden[name][t], UPDATE, f"{name} after step {t + 1}")


GROUPS = {"model": ("encoder", "rssm", "decoder", "reward", "pcont"), "actor": ("actor",), "value": ("value",)}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-7}            # Keras's


def as_vector(arrays, modules):
    """The parameters of some modules end to end: neither Adam nor the joint norm sees the difference."""
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays) if name.partition("/")[0] in modules])


@pytest.mark.golden("train_step")
def test_first_update_of_a_training_step(library, case):
    golden = case.double()
    setting = options(golden)

    def step(**x):
        found = {}
        for group in GROUPS:
            (grad,), norm = clip_by_global_norm([x[f"{group} g/"]], setting["grad_clip"])
            param, _, _ = adam_tf(x[f"{group} w/"], grad, 0 * grad, 0 * grad, 1, setting[f"{group}_lr"], **ADAM)
            found |= {f"{group} w_after/": param, f"{group}_grad_norm": norm}
        return found

    def vectors(*prefixes):
        return {f"{group} {p}": as_vector(weights(golden, p), GROUPS[group]) for group in GROUPS for p in prefixes}

    results, _ = evaluate(library, step, vectors("w/", "g/"))
    all_close(results, golden | vectors("w_after/"), UPDATE)
