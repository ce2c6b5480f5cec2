"""Divergences between latent distributions, their balancing, and the free-nats floor.

All four papers need KL(posterior, prior) per time step. The ORDER of sum, floor and mean differs between them and is
therefore a visible line of each agent (README.md, "Who clips how"); only the atoms are here. Read elbo.py next.
"""

from shared.formulas._backend import check_shapes, namespace, stop_gradient_tree
from shared.formulas._math import log, log_softmax


def categorical_kl(logits_p, logits_q):
    """Kullback-Leibler divergence of categorical distributions, KL(p, q).

        KL = sum_k p_k (log p_k - log q_k),    p = softmax(logits_p),    q = softmax(logits_q)

    Args:
      logits_p: unnormalised log-probabilities of p (the posterior), (..., K), finite.
      logits_q: the same of q (the prior), (..., K), finite.
    Returns:
      KL in nats, (...), >= 0 up to rounding. The caller sums over the S latents. Gradients flow through both arguments.
    Raises:
      ValueError: the shapes differ.
    Source: world-model losses of DreamerV2 (authors' code common/nets.py) and DreamerV3 (dreamerv3/rssm.py).
    """
    check_shapes("categorical_kl", logits_p=logits_p, logits_q=logits_q)
    xp = namespace(logits_p, logits_q)
    log_p, log_q = log_softmax(logits_p), log_softmax(logits_q)
    return xp.sum(xp.exp(log_p) * (log_p - log_q), axis=-1)


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    """Kullback-Leibler divergence of diagonal Gaussians, KL(p, q), one value per dimension.

        KL = log(std_q / std_p) + (std_p^2 + (mean_p - mean_q)^2) / (2 std_q^2) - 1/2

    Args:
      mean_p, std_p: mean and standard deviation of p (the posterior), (..., S), std > 0.
      mean_q, std_q: the same of q (the prior), (..., S). Any argument may be a number, e.g. q = N(0, 1).
    Returns:
      KL in nats, (..., S), >= 0 up to rounding, exactly 0 for equal arguments. The caller sums over S. Gradients flow
      through all four arguments.
    Raises:
      ValueError: the arrays differ in shape.
    Source: divergence loss of PlaNet and Dreamer; authors' code training/utility.py (both), dreamer.py (TF2).
    """
    check_shapes("gaussian_kl", mean_p=mean_p, std_p=std_p, mean_q=mean_q, std_q=std_q)
    namespace(mean_p, std_p, mean_q, std_q)                   # refuses a mixture of libraries
    scale = 1 / std_q                                         # before squaring: no overflow
    change, distance = (std_p - std_q) * scale, (mean_p - mean_q) * scale       # both exactly 0 for equal arguments
    return 0.5 * (change * (change + 2) + distance * distance) - log(std_p / std_q)


def balanced(kl, post, prior, alpha):
    """KL balancing: the prior learns towards the posterior at one speed, the posterior towards the prior at another.

        L = alpha * kl(sg(post), prior) + (1 - alpha) * kl(post, sg(prior))

    Args:
      kl: function (post, prior) -> nats; it may sum, average and floor, since the papers differ there.
      post, prior: statistics of the two distributions as kl takes them: an array, or a tuple (also named), list or dict
        of arrays.
      alpha: share of the side on which the prior learns, in [0, 1] (DreamerV2: 0.8).
    Returns:
      What kl returns, in nats. The value is that of kl(post, prior) for every alpha; the gradient to the prior is alpha
      times, to the posterior (1 - alpha) times that of kl.
    Raises:
      ValueError: alpha is outside [0, 1].
    Source: DreamerV2, KL balancing; authors' code common/nets.py (kl_loss). DreamerV3 weights the two terms apart.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"balanced: alpha is {alpha}, expected 0 to 1 (the share of the prior's side)")
    return alpha * kl(stop_gradient_tree(post), prior) + (1 - alpha) * kl(post, stop_gradient_tree(prior))


def floor_nats(value, nats):
    """The larger of a value and its free nats: what costs less than `nats` is not optimised further.

        floor = max(value, nats)

    Args:
      value: nats, (...).
      nats: free nats, a number. PlaNet's clipped divergence max(0, KL - nats) is floor_nats(KL, nats) - nats.
    Returns:
      (...), nats. The gradient is that of `value` above the floor, and exactly 0 at and below it (a plain maximum
      would pass half of it at equality). NaN stays NaN.
    Raises:
      TypeError: value is no array.
    Source: PlaNet and Dreamer (3 free nats; authors' code training/utility.py, TF2 dreamer.py), DreamerV2
      (common/nets.py), DreamerV3 (1; dreamerv3/rssm.py).
    """
    xp = namespace(value)
    # a sum, because torch 2.13's compiler takes the number of an earlier call for a plain `nats` or full_like
    return xp.where(value <= nats, xp.zeros_like(value) + nats, value)
