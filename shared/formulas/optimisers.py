"""Update rules: Adam as TensorFlow computes it with clipping by the global norm (PlaNet, Dreamer, DreamerV2), and
LaProp with adaptive clipping (DreamerV3).

The agents may use their library's fused optimiser; tests hold it against these functions. Read images.py next.
"""

from functools import reduce

from shared.formulas._backend import check_shapes, namespace


def clip_by_global_norm(grads, limit):
    """Scale a list of gradients so that their joint norm is at most `limit`.

        norm = sqrt(sum_i |g_i|^2),    g_i <- g_i * limit / max(norm, limit)

    Args:
      grads: gradients of all parameters, a list of arrays of any shapes.
      limit: largest norm allowed, > 0, unit of the norm.
    Returns:
      (grads, norm): the scaled list, and the norm before clipping, (). Gradients flow, though nobody needs them.
    Raises:
      ValueError: limit is not positive, or the list is empty.
    Source: PlaNet appendix A (limit 1000), Dreamer and DreamerV2 (100); Pascanu et al. 2013.
    """
    if not limit > 0:
        raise ValueError(f"clip_by_global_norm: limit must be positive, got {limit}")
    if not grads:
        raise ValueError("clip_by_global_norm: the list of gradients is empty; pass the gradients of all parameters")
    xp = namespace(*grads)
    norm = xp.sqrt(reduce(lambda total, part: total + part, [xp.sum(grad * grad) for grad in grads]))
    scale = limit / xp.maximum(norm, xp.full_like(norm, limit))
    return [grad * scale for grad in grads], norm


def adam_tf(param, grad, m, v, step, lr, beta1, beta2, eps):
    """One step of Adam with TensorFlow's epsilon, which is added WITHOUT bias correction.

        m <- beta1 m + (1 - beta1) g,    v <- beta2 v + (1 - beta2) g^2
        param <- param - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)

    In terms of torch.optim.Adam (or optax.adam) the epsilon of step t is eps / sqrt(1 - beta2^t): 32 times larger at
    t = 1, so with PlaNet's 1e-4 the two are different optimisers at the start.

    Args:
      param, grad: parameter and its (clipped) gradient, one shape.
      m, v: running first and second moment, same shape, 0 before the first step.
      step: t, number of this update, 1 for the first.
      lr, beta1, beta2, eps: learning rate, decay rates in [0, 1), and epsilon > 0 (PlaNet: 1e-3, 0.9, 0.999, 1e-4).
    Returns:
      (param, m, v) after the step, same shape. Meant to be called outside of differentiation.
    Raises:
      ValueError: the shapes differ, or step < 1.
    Source: Kingma and Ba 2015, end of section 2 (epsilon hat); PlaNet appendix A; authors' code scripts/configs.py.
    """
    check_shapes("adam_tf", param=param, grad=grad, m=m, v=v)
    if step < 1:
        raise ValueError(f"adam_tf: step counts from 1 (the first update), got {step}")
    xp = namespace(param, grad, m, v)
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * (grad * grad)
    rate = lr * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    return param - rate * m / (xp.sqrt(v) + eps), m, v


def adaptive_clip(param, grad, clip, least):
    """Adaptive gradient clipping: a tensor's gradient may be at most a share of the tensor itself.

        g <- g / max(1, |g| / (clip * max(least, |param|)))

    Args:
      param, grad: one parameter tensor and its gradient, one shape; norms are over the whole tensor.
      clip: largest ratio of the norms, > 0 (DreamerV3: 0.3).
      least: norm that a smaller parameter counts as, > 0, so that zero-initialised ones can move (DreamerV3: 1e-3).
    Returns:
      The clipped gradient, same shape, same direction. Meant to be called outside of differentiation.
    Raises:
      ValueError: the shapes differ, or clip or least is not positive.
    Source: Brock et al. 2021 (there per unit); DreamerV3, optimiser; authors' code embodied/jax/opt.py.
    """
    check_shapes("adaptive_clip", param=param, grad=grad)
    if not (clip > 0 and least > 0):
        raise ValueError(f"adaptive_clip: clip is {clip} and least is {least}, expected positive numbers")
    xp = namespace(param, grad)
    size, norm = (xp.sqrt(xp.sum(x * x)) for x in (param, grad))
    allowed = clip * xp.maximum(size, xp.full_like(size, least))
    return grad / xp.maximum(norm / allowed, xp.ones_like(norm))


def laprop(param, grad, m, v, step, lr, beta1, beta2, eps, *, nesterov=False):
    """One step of LaProp: normalise the gradient first, then average it (Adam averages first).

        v <- beta2 v + (1 - beta2) g^2,    u = g / (sqrt(v / (1 - beta2^t)) + eps)
        m <- beta1 m + (1 - beta1) u,      param <- param - lr * m / (1 - beta1^t)

    Args:
      param, grad: parameter and its (clipped) gradient, one shape.
      m, v: running averages of u and of g^2, same shape, 0 before the first step.
      step: t, number of this update, 1 for the first.
      lr, beta1, beta2, eps: learning rate, decay rates in [0, 1), and epsilon > 0 (DreamerV3: 4e-5, 0.9, 0.999, 1e-20;
        the paper prints beta2 = 0.99).
      nesterov: use beta1 m + (1 - beta1) u in place of m in the last equation (an option of the authors', off).
    Returns:
      (param, m, v) after the step, same shape. Where v has vanished, u is 0. Meant to be called outside of
      differentiation.
    Raises:
      ValueError: the shapes differ, or step < 1.
    Source: Ziyin et al. 2020; DreamerV3, optimiser; authors' code embodied/jax/opt.py.
    """
    check_shapes("laprop", param=param, grad=grad, m=m, v=v)
    if step < 1:
        raise ValueError(f"laprop: step counts from 1 (the first update), got {step}")
    xp = namespace(param, grad, m, v)
    v = beta2 * v + (1 - beta2) * (grad * grad)
    # ours: where g^2 vanishes (below 1e-38 JAX makes it 0), g would be divided by an eps of 1e-20 alone, and explode.
    scaled = xp.where(v > 0, grad / (xp.sqrt(v / (1 - beta2**step)) + eps), xp.zeros_like(grad))
    m = beta1 * m + (1 - beta1) * scaled
    momentum = beta1 * m + (1 - beta1) * scaled if nesterov else m
    return param - lr / (1 - beta1**step) * momentum, m, v
