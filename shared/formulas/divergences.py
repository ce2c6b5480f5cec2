"""Divergences between latent distributions, and the free-nats floor.

PlaNet Eq. 3 needs KL(posterior, prior) per time step. The ORDER of sum, floor and mean differs between the four papers
and is therefore a visible line of each agent; only the atoms are here. Read elbo.py next.
"""

from shared.formulas._backend import check_shapes, namespace


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
    Source: PlaNet Eq. 3; authors' code training/utility.py.
    """
    check_shapes("gaussian_kl", mean_p=mean_p, std_p=std_p, mean_q=mean_q, std_q=std_q)
    xp = namespace(mean_p, std_p, mean_q, std_q)
    ratio = std_p / std_q                      # divide before squaring: no overflow, and exactly 0 for equal arguments
    distance = (mean_p - mean_q) / std_q
    return 0.5 * (ratio * ratio + distance * distance - 1) - xp.log(ratio)


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
    Source: PlaNet appendix A (3 free nats); Kingma et al. 2016, Eq. 15.
    """
    xp = namespace(value)
    return xp.where(value <= nats, nats, value)
