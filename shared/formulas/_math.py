"""Functions that every array library has under another name, or not at all, in forms that neither overflow nor cancel.

For the formulas only; models use their library's own. Read divergences.py next.
"""

import math

from shared.formulas._backend import is_torch, namespace, stop_gradient


def log(x):
    """Natural logarithm of an array or of a number."""
    return math.log(x) if isinstance(x, (int, float)) else namespace(x).log(x)


def softplus(x):
    """log(1 + exp(x)), elementwise, finite for every finite x."""
    xp = namespace(x)
    return xp.logaddexp(x, xp.zeros_like(x))


def sigmoid(x):
    """1 / (1 + exp(-x)), elementwise, with full relative precision in both tails."""
    return namespace(x).exp(-softplus(-x))


def logsumexp(x, axis):
    """log of the sum of exp(x) along one axis, which disappears."""
    xp = namespace(x)
    top = stop_gradient(xp.max(x, axis=axis, keepdims=True))  # any constant gives the same value and gradient
    return xp.squeeze(top, axis=axis) + xp.log(xp.sum(xp.exp(x - top), axis=axis))


def log_softmax(logits):
    """Log-probabilities of the classes on the last axis."""
    if is_torch(logits):                       # fused: a third less time than its parts, compiled backward included
        return logits.log_softmax(-1)
    xp = namespace(logits)
    shifted = logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def softmax(logits):
    """Probabilities of the classes on the last axis."""
    if is_torch(logits):
        return logits.softmax(-1)
    xp = namespace(logits)
    parts = xp.exp(logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True)))
    return parts / xp.sum(parts, axis=-1, keepdims=True)
