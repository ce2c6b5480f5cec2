"""Sampling as a function of parameters and noise; the noise is drawn by the caller (design: decision 10).

Used by PlaNet's latent states (model_torch.py) and by its planner's candidates. Read planning.py next.
"""

from shared.formulas._backend import check_shapes, namespace


def reparameterise(mean, std, noise):
    """A Gaussian sample as a differentiable function of its parameters.

        sample = mean + std * noise,    noise ~ N(0, 1)

    Args:
      mean: mean, (..., S).
      std: standard deviation, > 0, (..., S) or a number.
      noise: standard normal draws of the caller, (..., S).
    Returns:
      (..., S), unit of the mean. Gradient 1 to mean and `noise` to std.
    Raises:
      ValueError: the arrays differ in shape.
    Source: Kingma and Welling 2014, section 2.4; PlaNet section 3.
    """
    check_shapes("reparameterise", mean=mean, std=std, noise=noise)
    namespace(mean, std, noise)                               # refuses a mixture of libraries
    return mean + std * noise
