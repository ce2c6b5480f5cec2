"""What several golden tests assemble from formulas, in any array library: small nets, and the returns of two papers.

The nets are there so that losses can be checked from the weights on; the agents have their own.
"""

from shared.formulas._backend import namespace, on_last_axis
from shared.formulas.returns import lambda_return


def dreamer_return(reward, value, pcont, bootstrap, lambda_):
    """Dreamer and DreamerV2: row t has reward and value of the SAME state; the bootstrap follows the last value."""
    next_value = namespace(value).concat([value[1:, ...], bootstrap[None, ...]], axis=0)
    return lambda_return(reward, pcont, next_value, lambda_)


def dense(w, name, x):
    """Weights w[name/kernel], (in, out), and w[name/bias]."""
    return x @ w[f"{name}/kernel"] + on_last_axis(w[f"{name}/bias"], x)


def elu(x):
    xp = namespace(x)
    return xp.where(x > 0, x, xp.expm1(xp.minimum(x, xp.zeros_like(x))))


def silu(x):
    return x / (1 + namespace(x).exp(-x))


def layer_norm(x, scale, shift, eps):
    centred = x - x.mean(-1)[..., None]
    variance = (centred * centred).mean(-1)[..., None]
    return centred / (variance + eps) ** 0.5 * on_last_axis(scale, x) + on_last_axis(shift, x)


def rms_norm(x, scale, eps):
    return x / ((x * x).mean(-1)[..., None] + eps) ** 0.5 * on_last_axis(scale, x)
