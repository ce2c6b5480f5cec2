"""Functions that every array library has under another name, or not at all, in forms that neither overflow nor cancel.

For the formulas only; models use their library's own. Read divergences.py next.
"""

from shared.formulas._backend import namespace, stop_gradient


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
    xp = namespace(logits)
    shifted = logits - stop_gradient(xp.max(logits, axis=-1, keepdims=True))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
