"""Densities, entropies, divergences and samplers from their definitions: 50 decimal digits of mpmath, scipy, torch.

Slow and obvious, written without looking at shared/formulas. All take and return NumPy float64; the last axis holds the
classes where there are classes.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np

DIGITS = 50                                    # exp(-2e4) beside 1 is no trouble: mpmath has no smallest number


def by_mpmath(function, *arrays):
    """One value of mpmath per element, as float64 (0 where float64 has nothing smaller)."""
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in arrays))
    with mpmath.workdps(DIGITS):
        values = [float(function(*(mpmath.mpf(float(v)) for v in row))) for row in zip(*(x.flat for x in arrays),
                                                                                      strict=True)]
    return np.array(values).reshape(arrays[0].shape)


def by_mpmath_over_classes(function, *arrays):
    """The same with one list of mpmath numbers per row of classes; a row or a number comes back."""
    arrays = [np.asarray(x, dtype=np.float64) for x in arrays]
    leading = arrays[0].shape[:-1]
    with mpmath.workdps(DIGITS):
        rows = [function(*([mpmath.mpf(float(v)) for v in x[index]] for x in arrays)) for index in np.ndindex(leading)]
        rows = [[float(v) for v in row] if isinstance(row, list) else float(row) for row in rows]
    return np.array(rows).reshape(leading + np.shape(rows[0]))


# ---------------------------------------------------------------------------------------------------------------------
# Elementary functions


def softplus(x):
    return by_mpmath(lambda v: mpmath.log1p(mpmath.exp(v)), x)


def sigmoid(x):
    return by_mpmath(lambda v: 1 / (1 + mpmath.exp(-v)), x)


def logsumexp(x):
    return by_mpmath_over_classes(lambda row: mpmath.log(mpmath.fsum(mpmath.exp(v) for v in row)), x)


def _probabilities(row):
    """Softmax of one row of mpmath numbers."""
    weights = [mpmath.exp(v) for v in row]
    total = mpmath.fsum(weights)
    return [weight / total for weight in weights]


def log_softmax(logits):
    return by_mpmath_over_classes(lambda row: [mpmath.log(p) for p in _probabilities(row)], logits)


def softmax(logits):
    return by_mpmath_over_classes(_probabilities, logits)


def softmax_jacobian(logits):
    """d softmax_i / d logits_j = p_i (1[i = j] - p_j), (..., K, K)."""
    p = softmax(logits)
    return p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])


# ---------------------------------------------------------------------------------------------------------------------
# Categorical and binary


def categorical_kl(logits_p, logits_q):
    def kl(row_p, row_q):
        p, q = _probabilities(row_p), _probabilities(row_q)
        return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True))

    return by_mpmath_over_classes(kl, logits_p, logits_q)


def categorical_kl_by_torch(logits_p, logits_q):
    import torch
    from torch.distributions import Categorical, kl_divergence

    return kl_divergence(*(Categorical(logits=torch.tensor(x)) for x in (logits_p, logits_q))).numpy()


def categorical_log_prob(x, logits):
    def log_prob(weights, row):
        return mpmath.fsum(w * mpmath.log(p) for w, p in zip(weights, _probabilities(row), strict=True))

    return by_mpmath_over_classes(log_prob, x, logits)


def categorical_entropy(logits):
    return by_mpmath_over_classes(lambda row: -mpmath.fsum(p * mpmath.log(p) for p in _probabilities(row)), logits)


def unimix(logits, mix):
    def mixed(row):
        return [mpmath.log((1 - mpmath.mpf(mix)) * p + mpmath.mpf(mix) / len(row)) for p in _probabilities(row)]

    return by_mpmath_over_classes(mixed, logits)


def bernoulli_log_prob(x, logits):
    def log_prob(share, v):
        p = 1 / (1 + mpmath.exp(-v))
        return share * mpmath.log(p) + (1 - share) * mpmath.log(1 / (1 + mpmath.exp(v)))

    return by_mpmath(log_prob, x, logits)


def bernoulli_entropy(logits):
    def entropy(v):
        p, other = 1 / (1 + mpmath.exp(-v)), 1 / (1 + mpmath.exp(v))
        return -p * mpmath.log(p) - other * mpmath.log(other)

    return by_mpmath(entropy, logits)


def categorical_draw(probs, uniform):
    """Inverse of the cumulative distribution in exact arithmetic: one one-hot row."""
    probs = [Fraction(float(p)) for p in probs]
    target, passed = Fraction(float(uniform)) * sum(probs), Fraction(0)
    for k, p in enumerate(probs):
        passed += p
        if passed > target:
            return np.eye(len(probs))[k]
    raise AssertionError(f"uniform {uniform} is not below 1")


# ---------------------------------------------------------------------------------------------------------------------
# Continuous policies


def tanh_normal_log_prob(action, mean, std):
    """Density of a transformed variable: p(atanh a) times the slope of atanh, 1 / (1 - a^2)."""
    def log_prob(a, m, s):
        z = mpmath.atanh(a)
        return -((z - m) ** 2) / (2 * s**2) - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi)) - mpmath.log(1 - a**2)

    return by_mpmath(log_prob, action, mean, std)


def _mass(loc, scale, low, high):
    return mpmath.ncdf((high - loc) / scale) - mpmath.ncdf((low - loc) / scale)


def truncated_normal_log_prob(x, loc, scale, low, high):
    """Gaussian density over the interval's probability; -infinity outside."""
    def log_prob(v, m, s):
        if not low <= v <= high:
            return -mpmath.inf
        return mpmath.log(mpmath.npdf(v, m, s)) - mpmath.log(_mass(m, s, low, high))

    return by_mpmath(log_prob, x, loc, scale)


def truncated_normal_entropy(loc, scale, low, high):
    """The defining integral of -p log p, by scipy, one element after the other."""
    from scipy import integrate

    def entropy(m, s):
        def unnormalised(x):
            return math.exp(-0.5 * ((x - m) / s) ** 2)

        points = [min(max(m + k * s, low), high) for k in (-6, -1, 1, 6)]        # where a narrow density lies
        settings = {"points": points, "epsabs": 1e-12, "limit": 200}
        total, _ = integrate.quad(unnormalised, low, high, **settings)
        value, _ = integrate.quad(lambda x: unnormalised(x) * 0.5 * ((x - m) / s) ** 2, low, high, **settings)
        return value / total + math.log(total)                # -E[log p], p = unnormalised / total

    return np.array([entropy(m, s) for m, s in zip(np.ravel(loc), np.ravel(scale), strict=True)])


def truncated_normal_quantile(loc, scale, low, high, uniform):
    """From scipy."""
    from scipy import stats

    loc, scale = np.asarray(loc), np.asarray(scale)
    return stats.truncnorm.ppf(uniform, (low - loc) / scale, (high - loc) / scale, loc, scale)


def truncated_normal_quantile_slopes(loc, scale, low, high, uniform):
    """d sample / d loc and d sample / d scale by implicit differentiation: G(x; loc, scale) = u with
    G = (F(x) - F(low)) / (F(high) - F(low)), hence dx = -(dG / d parameter) / (dG / dx). mpmath differentiates G."""
    def slope(m, s, u, which):
        def share(x, m, s):
            return (mpmath.ncdf((x - m) / s) - mpmath.ncdf((low - m) / s)) / _mass(m, s, low, high)

        x = mpmath.mpf(float(truncated_normal_quantile(float(m), float(s), low, high, float(u))))
        return -mpmath.diff(share, (x, m, s), which) / mpmath.diff(share, (x, m, s), (1, 0, 0))

    return [by_mpmath(lambda m, s, u, which=which: slope(m, s, u, which), loc, scale, uniform)
            for which in ((0, 1, 0), (0, 0, 1))]


# ---------------------------------------------------------------------------------------------------------------------
# Estimators of a gradient through a categorical sample, by enumeration of the classes


def expected_reward_gradient(logits, reward):
    """d / d logits of sum_k p_k reward_k, one row: the Jacobian of the softmax applied to the rewards."""
    return softmax_jacobian(logits) @ np.asarray(reward)


def straight_through_expectation(logits, reward_slope):
    """What straight-through gives on average, one row: sum_k p_k J^T slope(e_k), slope the reward's gradient there."""
    jacobian, p = softmax_jacobian(logits), softmax(logits)
    return sum(p[k] * jacobian.T @ reward_slope(np.eye(len(p))[k]) for k in range(len(p)))
