"""Terms of the evidence lower bound: log-likelihoods, latent overshooting (PlaNet Eq. 7), and the contrastive bound
that replaces the image's likelihood in one variant of Dreamer.

The agent sums over dimensions and averages over batch and time. Read divergences.py first, distributions.py next.
"""

import math

from shared.formulas._backend import check_shapes, indices, is_torch, namespace
from shared.formulas._math import logsumexp, softplus
from shared.formulas.divergences import floor_nats, gaussian_kl

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)                 # log-normaliser of a unit Gaussian


def gaussian_log_prob(x, mean, std):
    """Log-density of a Gaussian, elementwise.

        log p = -(x - mean)^2 / (2 std^2) - log(std) - log(2 pi) / 2

    Args:
      x: observed value, (...).
      mean: mean, (...).
      std: standard deviation, > 0, (...) or a number (PlaNet: 1.0 for images and rewards).
    Returns:
      Log-density in nats, (...). The caller sums over pixels and averages over (B, T). Gradients flow through x, mean
      and std.
    Raises:
      ValueError: the arrays differ in shape.
    Source: image and reward heads of PlaNet (authors' code networks/conv_ha.py, basic.py) and Dreamer, unit variance.
    """
    check_shapes("gaussian_log_prob", x=x, mean=mean, std=std)
    xp = namespace(x, mean, std)
    if isinstance(std, (int, float)):          # images: fewer passes over the pixels than the general form
        factor, constant = 0.5 / std**2, math.log(std) + HALF_LOG_TWO_PI
        alike = is_torch(x) and is_torch(mean) and (x.shape, x.dtype) == (mean.shape, mean.dtype)
        if alike:                              # fused: three fifths of the time, gradient included
            return xp.rsub(xp.nn.functional.mse_loss(mean, x, reduction="none"), -constant, alpha=factor)
        error = x - mean
        return error * error * -factor - constant
    error = (x - mean) / std
    return -0.5 * (error * error) - xp.log(std) - HALF_LOG_TWO_PI


def bernoulli_log_prob(x, logits):
    """Log-probability of a binary event, elementwise; of a soft label, the negative cross-entropy.

        log p = x * log(sigmoid(logits)) + (1 - x) * log(1 - sigmoid(logits))

    Args:
      x: event, 0 or 1, or the probability of 1, in [0, 1], floating point, (...). Continuation heads are trained on
        gamma * (1 - is_terminal).
      logits: log-odds of 1, (...).
    Returns:
      Nats, (...), <= 0. Gradient to logits x - sigmoid(logits); to x the logits.
    Raises:
      ValueError: the shapes differ.
    Source: continuation heads of Dreamer (early termination), DreamerV2 (discount) and DreamerV3 (contdisc).
    """
    check_shapes("bernoulli_log_prob", x=x, logits=logits)
    namespace(x, logits)                       # refuses a mixture of libraries
    return -(x * softplus(-logits) + (1 - x) * softplus(logits))        # not x * logits - softplus: that cancels


def info_nce(positive, candidates):
    """Contrastive bound on mutual information: how much likelier the true pair is than the candidates together.

        I = log f(true pair) - log sum_j f(candidate_j)

    Args:
      positive: log f of the true pair, (...), nats.
      candidates: log f of all candidates, the true pair among them, (N, ...), nats.
    Returns:
      (...), nats, <= 0 where the true pair is among the candidates; adding log N gives the bound. Gradients flow
      through both.
    Raises:
      ValueError: candidates is not (N, ...) over the shape of positive.
    Source: Dreamer, contrastive variant; authors' code training/utility.py (TF1), which does not divide the sum by N;
      van den Oord et al. 2018 (InfoNCE).
    """
    if tuple(candidates.shape[1:]) != tuple(positive.shape) or candidates.ndim < 1:
        raise ValueError(
            f"info_nce: positive {tuple(positive.shape)} and candidates {tuple(candidates.shape)} do not fit; "
            "expected (...) and (N, ...)"
        )
    namespace(positive, candidates)
    return positive - logsumexp(candidates, axis=0)


# Latent overshooting, for T = 4 and distance 2. Start t rolls the prior out from the posterior at t-1 (zeros for
# t = 0); its prediction d applies the actions into t, ..., t+d and is compared with the posterior at t+d (- = masked).
# Row d = 0 is the ordinary one-step prior: the plain bound (the paper counts it as distance 1, the code as 0).
#
#     start t      0      1      2      3
#     d = 0      s_0    s_1    s_2    s_3
#     d = 1      s_1    s_2    s_3     -
#     d = 2      s_2    s_3     -      -


def overshooting_starts(state):
    """The states that rollouts start from: the posterior one step earlier.

        start_0 = 0,    start_t = state_{t-1}

    Args:
      state: posterior sample or belief, (B, T, ...).
    Returns:
      (B, T, ...). Gradients flow to `state` (in PlaNet they are not stopped here).
    Raises:
      ValueError: state has no time axis.
    Source: PlaNet Eq. 7; authors' code tools/overshooting.py.
    """
    _check_time_axis("overshooting_starts", state)
    xp = namespace(state)
    return xp.concat([xp.zeros_like(state[:, :1, ...]), state[:, :-1, ...]], axis=1)


def overshooting_windows(x, distance):
    """For every start, the values at the `distance` + 1 time steps from it on.

        window_{t,d} = x_{t+d}    (0 where t + d >= T)

    Args:
      x: targets (posterior statistics) or the actions into each step, (B, T, ...).
      distance: largest d, >= 0, agent steps; may exceed T.
    Returns:
      (B, T, distance + 1, ...). Gradients flow to x.
    Raises:
      ValueError: distance is negative, or x has no time axis.
    Source: PlaNet Eq. 7; authors' code tools/overshooting.py.
    """
    _check_time_axis("overshooting_windows", x)
    _check_distance("overshooting_windows", distance)
    xp = namespace(x)
    steps = x.shape[1]
    padded = xp.concat([x] + [xp.zeros_like(x[:, :1, ...])] * distance, axis=1)             # (B, T + D, ...)
    return xp.stack([padded[:, d : d + steps, ...] for d in range(distance + 1)], axis=2)   # (B, T, D + 1, ...)


def overshooting_mask(steps, distance, lengths):
    """Which predictions have a posterior to be compared with.

        mask_{t,d} = t + d < min(length, T)

    Args:
      steps: T, time steps of the batch.
      distance: largest d, >= 0, agent steps.
      lengths: valid time steps of each sequence, (B,), integer; T for a full chunk. Says library and device.
    Returns:
      (B, T, distance + 1), bool, True = valid. No gradient.
    Raises:
      ValueError: distance is negative, or lengths is not (B,).
    Source: PlaNet Eq. 7; authors' code tools/overshooting.py.
    """
    _check_distance("overshooting_mask", distance)
    if lengths.ndim != 1:
        raise ValueError(f"overshooting_mask: lengths must be (B,), got shape {tuple(lengths.shape)}")
    target = indices(steps, lengths)[:, None] + indices(distance + 1, lengths)[None, :]     # (T, D + 1): t + d
    return (target[None, :, :] < lengths[:, None, None]) & (target < steps)[None, :, :]


def overshooting_kl(post_mean, post_std, prior_mean, prior_std, mask, nats):
    """Divergences of latent overshooting: the posterior at t+d from the open-loop prior of start t, less free nats.

        kl_{t,d} = max(0, sum_S KL(post_{t+d}, prior_{t,d}) - nats)    where mask_{t,d},    else 0

    Args:
      post_mean, post_std: posterior statistics, (B, T, S). PlaNet stops their gradient for d >= 1: pass constants.
      prior_mean, prior_std: open-loop prior statistics, (B, T, D + 1, S).
      mask: valid entries, (B, T, D + 1), bool, from `overshooting_mask`.
      nats: free nats removed from every entry, >= 0; 0 gives the KL itself.
    Returns:
      (B, T, D + 1), nats. Slice d = 0 is the divergence of the plain bound; the authors average kl[:, :, 1:-1] over
      all its entries. Gradients flow to posterior and prior of valid entries above the floor; contents of masked
      entries, NaN included, influence neither value nor gradient.
    Raises:
      ValueError: the shapes do not fit together.
    Source: PlaNet Eq. 7; authors' code training/utility.py and tools/overshooting.py (there the mask got lost).
    """
    check_shapes("overshooting_kl", post_mean=post_mean, post_std=post_std)
    check_shapes("overshooting_kl", prior_mean=prior_mean, prior_std=prior_std)
    if (
        prior_mean.ndim != 4
        or (*prior_mean.shape[:2], prior_mean.shape[3]) != tuple(post_mean.shape)
        or tuple(mask.shape) != tuple(prior_mean.shape[:3])
    ):
        raise ValueError(
            f"overshooting_kl: post {tuple(post_mean.shape)}, prior {tuple(prior_mean.shape)} and mask "
            f"{tuple(mask.shape)} do not fit; expected (B, T, S), (B, T, D + 1, S) and (B, T, D + 1)"
        )
    xp = namespace(post_mean, post_std, prior_mean, prior_std, mask)
    distance = prior_mean.shape[2] - 1
    valid = mask[..., None]
    post_mean = xp.where(valid, overshooting_windows(post_mean, distance), 0.0)
    post_std = xp.where(valid, overshooting_windows(post_std, distance), 1.0)
    prior_mean = xp.where(valid, prior_mean, 0.0)
    prior_std = xp.where(valid, prior_std, 1.0)               # masked before the KL: 0 * NaN would be NaN
    kl = xp.sum(gaussian_kl(post_mean, post_std, prior_mean, prior_std), axis=-1)
    return floor_nats(kl - nats, 0.0)


def _check_time_axis(function, x):
    if x.ndim < 2:
        raise ValueError(f"{function}: expected (B, T, ...), got shape {tuple(x.shape)}")


def _check_distance(function, distance):
    if distance < 0:
        raise ValueError(f"{function}: distance must be >= 0 (0 is the ordinary one-step prior), got {distance}")
