"""DreamerV3's formulas against numbers from the released code (data/golden/dreamerv3/README.md: what each file holds).
Losses over trajectories are in test_dreamerv3_losses.py.

We compute in float64 from the same float32 inputs, so what remains is the authors' float32, one rounding of which is
6e-8. Tolerances are five to ten times the largest deviation found, in brackets: other cases may be dropped in; the 2e-3
that the README suggests for sums over large bins is not needed. FORWARD (1.5e-6: two-hot codes) is absolute below 1,
relative above. GRADIENT (2.4e-6) is relative to the row's largest entry. UPDATE (2.0e-5, of an update's largest entry)
is that large because the authors' 1 - 0.999^t is a float32 difference, good to 5e-5 at t = 1. PARAMETER (4.7e-7) is for
what the updates leave.
"""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from shared.formulas._backend import namespace
from shared.formulas._math import sigmoid
from shared.formulas.distributions import (
    bounded_normal,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
)
from shared.formulas.divergences import categorical_kl, floor_nats
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob
from shared.formulas.normalization import debias, ema, moments_std, percentile, return_range
from shared.formulas.optimisers import adaptive_clip, laprop
from shared.formulas.sampling import straight_through, unimix
from shared.formulas.schedules import horizon_discount, linear, warmup
from shared.formulas.transforms import symexp, symexp_bins, symlog, twohot, twohot_mean
from tests.golden.assemblies import dense, rms_norm, silu
from tests.golden.checks import FLOAT32_ROUNDING, all_close, close, evaluate, gradient_close
from tests.golden.loading import options, take, weights

FORWARD = 1e-5
GRADIENT = 2e-5
UPDATE = 1e-4
PARAMETER = 2e-6

SMALLEST_NORM = 1e-3                                          # that a parameter counts as in gradient clipping
FINAL_SHARE = 0.1                                             # of the learning rate, where it is annealed


# Distributions


@pytest.mark.golden("bounded_normal")
def test_bounded_normal(library, case):
    """minent and maxent are the entropies at the ends of the std's range, for every dimension."""
    golden = case.double()
    setting = options(golden)
    ends = setting["minstd"], setting["maxstd"]

    def head(raw_mean, raw_std, action):
        mean, std = bounded_normal(raw_mean, raw_std, *ends)
        log_prob, entropy = gaussian_log_prob(action, mean, std).sum(-1), gaussian_entropy(std).sum(-1)
        found = {"mean": mean, "mode": mean, "stddev": std, "logp": log_prob, "entropy": entropy}
        found |= {name: gaussian_entropy(0 * std + end) for name, end in zip(("minent", "maxent"), ends, strict=True)}
        return found | {"last": log_prob[3:, ...]}

    inputs = take(golden, "raw_mean", "raw_std", "action")
    results, gradients = evaluate(library, head, inputs, "last", ("raw_mean", "raw_std"))
    del results["last"]
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        close(gradient, golden[f"dlogp_d{name}"], FORWARD, name)
    _, gradients = evaluate(library, head, inputs, "entropy", ("raw_std",))
    for gradient in gradients.values():
        gradient_close(gradient, golden["dent_draw_std"], GRADIENT)


@pytest.mark.golden("unimix_categorical")
def test_categorical_with_uniform_mixing(library, case):
    """One gradient of all quantities: each has its own copy of the logits."""
    golden = case.double()
    mix, classes = options(golden)["unimix"], golden["logits_p"].shape[-1]
    drawn = np.eye(classes)[golden["index"]]

    def quantities(drawn, weight, weight_st, to_logp, to_entropy, to_kl_dp, to_kl_dq, to_straight_through):
        mixed = unimix(to_straight_through, mix)
        probs = namespace(mixed).exp(mixed)
        found = {
            "logp": categorical_log_prob(drawn, unimix(to_logp, mix)),
            "entropy": categorical_entropy(unimix(to_entropy, mix)),
            "kl_pq": categorical_kl(unimix(to_kl_dp, mix), unimix(to_kl_dq, mix)),
        }
        sample = straight_through(drawn, probs)
        total = sum((weight * x).sum() for x in found.values()) + (weight_st * sample).sum()
        return found | {"probs": probs, "straight_through_value": sample, "mixed": mixed, "total": total}

    copies = dict.fromkeys(("to_logp", "to_entropy", "to_kl_dp", "to_straight_through"), golden["logits_p"])
    copies["to_kl_dq"] = golden["logits_q"]
    inputs = {"drawn": drawn} | take(golden, "weight", "weight_st") | copies
    results, gradients = evaluate(library, quantities, inputs, "total", tuple(copies))
    del results["total"]
    mixed = results.pop("mixed")
    # With mix 0 the authors keep the logits as they came; up to a constant they are ours.
    stored = golden["mixed_logits"] if mix else library(lambda x: unimix(x, 0.0), golden["mixed_logits"])
    close(mixed, stored, FORWARD)
    all_close(results, golden, FORWARD)
    assert_array_equal(mixed.argmax(-1), golden["mode"])
    for name, gradient in gradients.items():
        gradient_close(gradient, golden[name.replace("to_", "d_")], GRADIENT, name)


@pytest.mark.golden("rssm_kl")
@pytest.mark.parametrize(("version", "dyn_scale"), [("v2025", 1.0), ("v2023", 0.5)])
def test_dynamics_and_representation_loss(library, version, dyn_scale, case):
    """The maximum is taken per time step. dyn trains the prior only, rep the posterior only."""
    golden = case.double()
    setting = options(golden)

    def losses(post_logit, prior_logit, fixed_post, fixed_prior):
        def kl(post, prior):
            return categorical_kl(unimix(post, setting["unimix"]), unimix(prior, setting["unimix"])).sum(-1)

        dyn = floor_nats(kl(fixed_post, prior_logit), setting["free_nats"])
        rep = floor_nats(kl(post_logit, fixed_prior), setting["free_nats"])
        total = dyn_scale * dyn.mean() + 0.1 * rep.mean()
        return {"kl_raw": kl(post_logit, prior_logit), "dyn": dyn, "rep": rep, f"total_{version}": total}

    logits = take(golden, "post_logit", "prior_logit")
    inputs = logits | {"fixed_post": golden["post_logit"], "fixed_prior": golden["prior_logit"]}
    results, gradients = evaluate(library, losses, inputs, f"total_{version}", tuple(logits))
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        stored = golden[f"dtotal_d{name.removesuffix('_logit')}_{version}"]
        gradient_close(gradient, stored, GRADIENT, name)
        clipped = golden["kl_raw"] < setting["free_nats"]
        assert_array_equal(gradient[clipped], 0)


# Symlog and two-hot


@pytest.mark.golden("symlog_symexp")
def test_symlog_and_symexp(library, case):
    """The authors' product of sign and logarithm has derivative 0 at exactly 0; ours has 1 on purpose, the limit."""
    golden = case.double()

    def transforms(x, z):
        found = {"symlog": symlog(x), "symexp": symexp(z)}
        return found | {"roundtrip": symexp(symlog(x)), "total": found["symlog"].sum() + found["symexp"].sum()}

    results, gradients = evaluate(library, transforms, take(golden, "x", "z"), "total", ("x", "z"))
    del results["total"]
    all_close(results, golden, FORWARD)
    for (name, gradient), stored in zip(gradients.items(), ("symlog_grad", "symexp_grad"), strict=False):
        at_zero = golden[name] == 0
        assert_array_equal(golden[stored][at_zero], 0)
        assert_array_equal(gradient[at_zero], 1)
        close(gradient[~at_zero] / golden[stored][~at_zero], np.ones(np.sum(~at_zero)), FORWARD, name)


def decoded(logits, bins):
    """What a two-hot head predicts."""
    return twohot_mean(namespace(logits).exp(unimix(logits, 0.0)), bins)


def sum_rounding(logits, bins):
    """Absolute tolerance for an expectation over bins up to 5e8 in float32: ten roundings of its terms (2.2 found)."""
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    return 10 * FLOAT32_ROUNDING * (probs * np.abs(bins)).sum(-1)


@pytest.mark.golden("twohot")
def test_twohot(library, case):
    """Loss and prediction with the stored bins; the prediction's gradient is that of sum(pred / (1 + |sg(pred)|))."""
    golden = case.double()
    close(symexp_bins(len(golden["bins"]), -20.0, 20.0), golden["bins"], FORWARD)
    scale = 1 / (1 + np.abs(golden["pred"]))

    def head(target, logits, to_pred, bins, scale):
        code = twohot(target, bins)
        pred = decoded(to_pred, bins)
        loss = -categorical_log_prob(code, logits)
        return {"target_twohot": code, "loss": loss, "pred": pred, "total": loss.sum() + (scale * pred).sum()}

    inputs = take(golden, "target", "logits", "bins") | {"to_pred": golden["logits"], "scale": scale}
    results, gradients = evaluate(library, head, inputs, "total", ("logits", "to_pred"))
    close(results["target_twohot"], golden["target_twohot"], FORWARD)
    close(results["loss"], golden["loss"], FORWARD)
    error = np.abs(results["pred"] - golden["pred"])
    assert np.all(error <= sum_rounding(golden["logits"], golden["bins"]))
    if gradients:
        gradient_close(gradients["logits"], golden["dloss_dlogits"], GRADIENT)
        gradient_close(gradients["to_pred"], golden["dpredscaled_dlogits"], GRADIENT)


@pytest.mark.golden("twohot")
def test_uniform_logits_predict_exactly_zero(library, case):
    golden = case.double()
    uniform = np.zeros((2, len(golden["bins"])))
    assert_array_equal(library(decoded, uniform, golden["bins"]), 0)
    assert_array_equal(golden["pred_uniform_logits"], 0)


@pytest.mark.golden("v2023_extras", case="discdist")
def test_twohot_of_2023_in_symlog_space(library, case):
    golden = case.double()
    close(np.linspace(-20, 20, len(golden["bins"])), golden["bins"], FORWARD)

    def head(target, logits, bins):
        loss = -categorical_log_prob(twohot(symlog(target), bins), logits)
        return {"loss": loss, "mean": symexp(decoded(logits, bins))}

    results, gradients = evaluate(library, head, take(golden, "target", "logits", "bins"), "loss", ("logits",))
    all_close(results, golden, FORWARD)
    for gradient in gradients.values():
        gradient_close(gradient, golden["dloss_dlogits"], GRADIENT)


# Other losses


@pytest.mark.golden("losses_misc", case="symlog_mse")
def test_symlog_squared_error_has_no_half(library, case):
    golden = case.double()

    def head(mean, target):
        return {"loss": ((mean - symlog(target)) ** 2).sum(-1), "pred": mean}

    results, gradients = evaluate(library, head, take(golden, "mean", "target"), "loss", ("mean",))
    all_close(results, golden, FORWARD)
    for gradient in gradients.values():
        gradient_close(gradient, golden["dloss_dmean"], GRADIENT)


@pytest.mark.golden("losses_misc", case="image_mse")
def test_image_error_is_between_0_and_1(library, case):
    golden = case.double()

    def head(pre_sigmoid, image):
        return {"loss": ((sigmoid(pre_sigmoid) - image / 255) ** 2).sum((-3, -2, -1))}

    inputs = {"pre_sigmoid": golden["pre_sigmoid"], "image": golden["image"].astype(np.float64)}
    results, gradients = evaluate(library, head, inputs, "loss", ("pre_sigmoid",))
    all_close(results, golden, FORWARD)
    for gradient in gradients.values():
        gradient_close(gradient, golden["dloss_dpre"], GRADIENT)


@pytest.mark.golden("losses_misc", case="binary_con")
def test_continue_head_learns_a_discounted_label(library, case):
    golden = case.double()
    gamma = horizon_discount(options(golden)["horizon"])

    def head(logit, going_on):
        label = gamma * going_on
        return {"soft_target": label, "loss": -bernoulli_log_prob(label, logit), "prob1": sigmoid(logit)}

    inputs = {"logit": golden["logit"], "going_on": 1.0 - golden["is_terminal"]}
    results, gradients = evaluate(library, head, inputs, "loss", ("logit",))
    all_close(results, golden, FORWARD)
    assert_array_equal(golden["logit"] > 0, golden["pred"])
    for gradient in gradients.values():
        gradient_close(gradient, golden["dloss_dlogit"], GRADIENT)


# Heads


def hidden(w, x):
    """Dense, RMSNorm, SiLU."""
    for i in range(sum(f"mlp/linear{i}/kernel" in w for i in range(9))):
        x = silu(rms_norm(dense(w, f"mlp/linear{i}", x), w[f"mlp/norm{i}/scale"], 1e-4))
    return x


@pytest.mark.golden("heads")
def test_heads(library, case):
    golden = case.double()
    kind, w, stored = options(golden)["output"], weights(golden, "param:head/"), weights(golden, "res:")
    x = hidden(w, golden["x"])
    if kind == "bounded_normal":
        raw = dense(w, "head/mean", x), dense(w, "head/stddev", x)
        mean, std = library(lambda *raw: bounded_normal(*raw, 0.1, 1.0), *raw)
        all_close({"mean": mean, "stddev": std, "pred": mean}, stored, FORWARD)
    elif kind == "binary":
        logit = dense(w, "head/logit", x)[..., 0]
        all_close({"logit": logit, "pred": logit > 0}, stored, FORWARD)
    else:
        logits = dense(w, "head/logits", x)
        close(logits, stored["logits"], FORWARD)
    if kind == "categorical":
        assert_array_equal(logits.argmax(-1), stored["pred"])
    if kind == "symexp_twohot":
        bins = symexp_bins(logits.shape[-1], -20.0, 20.0)
        close(bins, stored["bins"], FORWARD)
        error = np.abs(library(decoded, stored["logits"], bins) - stored["pred"])
        assert np.all(error <= sum_rounding(stored["logits"], bins))


# Normalisers


def normaliser(setting):
    """One update as a function (x, state) -> (state, offset, scale), arrays and tuples only."""
    rate, limit = setting["rate"], setting["limit"]

    def update(x, first, second, weight):
        if setting["impl"] == "perc":
            new = percentile(x, setting["perclo"]), percentile(x, setting["perchi"])
        else:
            new = x.mean(), (x * x).mean()
        first, second = ema(first, new[0], rate), ema(second, new[1], rate)
        weight = ema(weight, 0 * weight + 1, rate)
        shown = (debias(m, weight, rate) for m in (first, second)) if setting["debias"] else (first, second)
        low, high = shown
        scale = return_range(low, high, limit) if setting["impl"] == "perc" else moments_std(low, high, limit)
        return first, second, weight, low, scale

    return update


NAMES = {"perc": ("lo", "hi"), "meanstd": ("mean", "sqrs")}


@pytest.mark.golden("normalizers")
def test_normalisers(library, case):
    golden = case.double()
    setting = options(golden)
    update, state = normaliser(setting), (np.zeros(()),) * 3
    names = [f"state:{name}" for name in (*NAMES[setting["impl"]], "corr")]
    for t, x in enumerate(golden["x"]):
        *state, offset, scale = library(update, x, *state)
        for name, value in zip([*names, "offset", "scale"], [*state, offset, scale], strict=True):
            if name in golden:                                # corr: only with debias
                close(value, golden[name][t], FORWARD, f"{name} after update {t + 1}")


@pytest.mark.golden("v2023_extras", case="moments_perc_ema")
def test_return_normaliser_of_2023(library, case):
    golden = case.double()
    setting = options(golden)
    setting |= {"impl": "perc", "rate": 1 - setting["decay"], "limit": 1 / setting["max"], "debias": False}
    update, state = normaliser(setting), (np.zeros(()),) * 3
    for t, x in enumerate(golden["x"]):
        *state, offset, scale = library(update, x, *state)
        close(offset, golden["offset"][t], FORWARD)
        close(scale, golden["invscale"][t], FORWARD)


@pytest.mark.golden("slow_critic")
def test_slow_critic(library, case):
    golden = case.double()
    setting, slow = options(golden), golden["slow_init"]
    assert np.array_equal(slow, golden["src_init"]) == golden["slow_initialised_equal_to_source"]
    for count, source, stored in zip(golden["count_before"], golden["src"], golden["slow"], strict=True):
        if count % setting["every"] == 0:
            slow = library(lambda old, new: ema(old, new, setting["rate"]), slow, source)
        close(slow, stored, FORWARD)


# Optimiser


def learning_rate(setting, k):
    """Of update k = 0, 1, ...: a rise from 0, then constant or a straight line to a tenth."""
    if k < setting["warmup"] or setting["schedule"] == "const":
        return setting["lr"] * warmup(k, setting["warmup"])
    duration = setting["anneal"] - setting["warmup"]
    return linear(k - setting["warmup"], setting["lr"], FINAL_SHARE * setting["lr"], duration)


@pytest.mark.golden("optimizer")
def test_adaptive_clipping_and_laprop(eager, case):
    """Each update relative to its largest entry. Decay is scaled by the learning rate, unlike DreamerV2's."""
    golden = case.double()
    setting = options(golden)
    names = list(weights(golden, "init:"))
    decay = {name: setting["wd"] if re.search(setting["wdregex"], f"/{name}") else 0.0 for name in names}
    chosen = {name: setting[name] for name in ("beta1", "beta2", "eps", "nesterov")}

    def steps(**x):
        found = {}
        for name in names:
            param, grads = x[f"init:{name}"], x[f"grads:{name}"]
            m, v = 0 * param, 0 * param
            for k in range(grads.shape[0]):
                grad, lr, before = grads[k, ...], learning_rate(setting, k), param
                grad = adaptive_clip(param, grad, setting["agc"], SMALLEST_NORM) if setting["agc"] else grad
                param, m, v = laprop(param, grad, m, v, k + 1, lr, **chosen)
                param = param - lr * decay[name] * before
                found |= {(f"updates:{name}", k): param - before, (f"params:{name}", k): param}
        return found

    inputs = {name: x for name, x in golden.items() if name.startswith(("init:", "grads:"))}
    results, _ = evaluate(eager, steps, inputs)
    for (name, k), got in results.items():
        compare, tolerance = (close, PARAMETER) if name.startswith("params") else (gradient_close, UPDATE)
        compare(got.ravel(), golden[name][k].ravel(), tolerance, f"{name} after update {k + 1}")
