"""Slow, obvious update rules, one number at a time, from the definitions as weighted sums over all past gradients.

Tests compare shared/formulas/optimisers.py with these; nothing else may import them.
"""

import math

import numpy as np


def laprop(param, grads, lr, beta1, beta2, eps, nesterov=False):
    """All parameters after every step of LaProp. param: (n,), grads: (steps, n).

    Neither running average is kept: each step weighs all past gradients anew, with weights that sum to 1.
    """
    param = [float(x) for x in param]
    history = []
    for t in range(1, len(grads) + 1):
        for i in range(len(param)):
            past = [float(grad[i]) for grad in grads[:t]]
            scaled = [past[s] / (math.sqrt(_average([g * g for g in past[: s + 1]], beta2)) + eps) for s in range(t)]
            momentum = _average(scaled, beta1)
            if nesterov:  # one more step of the average, with the newest entry again
                momentum = beta1 * momentum + (1 - beta1) * scaled[-1] / (1 - beta1**t)
            param[i] -= lr * momentum
        history.append(list(param))
    return np.array(history)


def _average(values, beta):
    """Mean of values, the newest last, with weights that fall by beta per step into the past."""
    weights = [beta**age for age in range(len(values))][::-1]
    return math.fsum(w * x for w, x in zip(weights, values, strict=True)) / math.fsum(weights)


def adaptive_clip(param, grad, clip, least):
    """The gradient, shortened if it is longer than allowed; lengths by hypot, which neither over- nor underflows."""
    allowed = clip * max(least, math.hypot(*np.ravel(param)))
    length = math.hypot(*np.ravel(grad))
    return np.array(grad) * (allowed / length) if length > allowed else np.array(grad)
