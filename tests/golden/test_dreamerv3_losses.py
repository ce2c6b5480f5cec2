"""DreamerV3's losses over trajectories against numbers from the released code, assembled from formulas.

data/golden/dreamerv3/README.md says what each file holds. All arrays are (B, T, ...) there; formulas have time first.

Tolerances: as in test_dreamerv3_core.py. Largest deviations found: 7.8e-7 for values, 3.2e-6 of a row's largest entry
for gradients.
"""

import numpy as np
import pytest

from shared.formulas._backend import namespace, stop_gradient
from shared.formulas.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
)
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.normalization import ema, percentile, return_range
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import unimix
from shared.formulas.schedules import horizon_discount
from shared.formulas.transforms import twohot, twohot_mean
from tests.golden.checks import all_close, close, evaluate, gradient_close
from tests.golden.loading import options, take

FORWARD = 1e-5
GRADIENT = 2e-5

RATE, LOW, HIGH, LIMIT = 0.01, 5.0, 95.0, 1.0                 # of the return normaliser
UNIMIX = 0.01                                                 # of one-hot actions
MIN_STD, MAX_STD = 0.1, 1.0
ADVANTAGE_LIMIT = 1e-8                                        # smallest std that advantages are divided by


def v3_return(rew, live, cont, boot):
    """(B, T) -> (B, T - 1). Reward, continuation and value of the NEXT step belong to the transition into it.

    live: share of the future that counts, 0 after a terminal step; cont: lambda, 0 after the last step of an episode.
    """
    return lambda_return(rew[:, 1:].T, live[:, 1:].T, boot[:, 1:].T, cont[:, 1:].T).T


@pytest.mark.golden("lambda_return")
def test_lambda_return(library, case):
    golden = case.double()
    setting = options(golden)
    live, cont = setting["disc"] * (1.0 - golden["term"]), setting["lam"] * (1.0 - golden["last"])
    close(library(v3_return, golden["rew"], live, cont, golden["boot"]), golden["ret"], FORWARD)


def decoded(logits, bins):
    return twohot_mean(namespace(logits).exp(unimix(logits, 0.0)), bins)


def value_loss(logits, target, slow_logits, bins, slowreg):
    """Cross-entropy to the return, and to what the slow critic predicts."""

    def cross_entropy(to):
        return -categorical_log_prob(twohot(stop_gradient(to), bins), logits)

    return cross_entropy(target) + slowreg * cross_entropy(decoded(slow_logits, bins))


@pytest.mark.golden("repl_loss")
def test_replay_value_loss(library, case):
    """The critic's own predictions enter no target; the last column has no loss."""
    golden = case.double()
    setting = options(golden)
    gamma = horizon_discount(setting["horizon"])

    def loss(rew, going_on, same_episode, boot, value_logits, slowvalue_logits, bins):
        ret = v3_return(rew, gamma * going_on, setting["lam"] * same_episode, boot)
        value = value_loss(value_logits[:, :-1, :], ret, slowvalue_logits[:, :-1, :], bins, setting["slowreg"])
        value = same_episode[:, :-1] * value
        return {"ret": ret, "loss_repval": value, "mean_loss": value.mean()}

    inputs = take(golden, "rew", "boot", "value_logits", "slowvalue_logits", "bins")
    inputs |= {"going_on": 1.0 - golden["is_terminal"], "same_episode": 1.0 - golden["is_last"]}
    results, gradients = evaluate(library, loss, inputs, "mean_loss", ("value_logits", "boot", "slowvalue_logits"))
    all_close(results, golden, FORWARD)
    if gradients:
        gradient_close(gradients["value_logits"], golden["dmean_dvalue_logits"], GRADIENT)
        assert not gradients["boot"].any() and not gradients["slowvalue_logits"].any()


def policy_terms(x):
    """(log-probability of the action, entropy), (B, T), summed over actions: whichever policy the file describes."""
    if "policy_raw_mean" in x:
        mean, std = bounded_normal(x["policy_raw_mean"], x["policy_raw_std"], MIN_STD, MAX_STD)
        return gaussian_log_prob(x["action"], mean, std).sum(-1), gaussian_entropy(std).sum(-1)
    terms = []
    for name in sorted(x):
        if name.startswith("policy_logits"):
            key = name.removeprefix("policy_logits")          # "" for a plain categorical, "_a" for one-hot action a
            logits = unimix(x[name], UNIMIX if key else 0.0)
            pair = categorical_log_prob(x[f"action{key}"], logits), categorical_entropy(logits)
            terms.append([term if term.ndim == 2 else term.sum(-1) for term in pair])
    return tuple(sum(parts) for parts in zip(*terms, strict=True))


def imagination_losses(x, setting, advantage_normaliser):
    """DreamerV3, actor and critic learning."""
    gamma = horizon_discount(setting["horizon"])
    disc = 1.0 if setting["contdisc"] else gamma              # the continue head contains the discount, or not
    live = disc * x["con"]
    value, slow = decoded(x["value_logits"], x["bins"]), decoded(x["slowvalue_logits"], x["bins"])
    baseline = slow if setting["slowtar"] else value
    weight = (discount_weights(live.T) * live.T).T / disc     # the start's own continuation counts
    ret = v3_return(x["rew"], live, 0 * live + setting["lam"], baseline)

    low = ema(x["retnorm_lo_before"], percentile(ret, LOW), RATE)
    high = ema(x["retnorm_hi_before"], percentile(ret, HIGH), RATE)
    plain = (ret - baseline[:, :-1]) / return_range(low, high, LIMIT)
    advantage = advantage_normaliser(plain)
    log_prob, entropy = (term[:, :-1] for term in policy_terms(x))
    sum_of_terms = log_prob * stop_gradient(advantage) + setting["actent"] * entropy
    policy = -stop_gradient(weight[:, :-1]) * sum_of_terms
    logits, slow_logits = x["value_logits"][:, :-1, :], x["slowvalue_logits"][:, :-1, :]
    critic = stop_gradient(weight[:, :-1]) * value_loss(logits, ret, slow_logits, x["bins"], setting["slowreg"])
    return {
        "ret": ret,
        "loss_policy": policy,
        "loss_value": critic,
        "total": policy.mean() + critic.mean(),
        "retnorm_lo_after": low,
        "retnorm_hi_after": high,
        "metric_adv_mean": plain.mean(),
        "metric_weight_mean": weight.mean(),
    }


def standardised(advantage):
    """Mean and spread of the batch: what bias-corrected running moments are after their first update."""
    centred = advantage - advantage.mean()
    std = ((centred * centred).mean()) ** 0.5
    return centred / namespace(std).clip(std, ADVANTAGE_LIMIT, np.inf)


@pytest.mark.golden("imag_loss")
def test_imagination_losses(library, case):
    golden = case.double()
    setting = options(golden)
    to = tuple(name.removeprefix("dtotal_d") for name in golden if name.startswith("dtotal_d"))
    named = ("rew", "con", "value_logits", "slowvalue_logits", "bins", "retnorm_lo_before", "retnorm_hi_before")
    inputs = take(golden, *named, *(name for name in golden if name.startswith(("policy_", "action"))))
    if golden.get("action", np.zeros(())).dtype.kind == "i":
        inputs["action"] = np.eye(golden["policy_logits"].shape[-1])[golden["action"]]
    normaliser = standardised if "advnorm" in case.name else lambda advantage: advantage

    results, gradients = evaluate(library, lambda **x: imagination_losses(x, setting, normaliser), inputs, "total", to)
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        gradient_close(gradient, golden[f"dtotal_d{name}"], GRADIENT, name)
