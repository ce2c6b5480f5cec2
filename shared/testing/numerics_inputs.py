"""The hard numbers on which the numerics report runs the formulas: families of arguments, by name.

A family is made for one floating-point type: what is tiny or huge depends on it. numerics_cases.py says who gets which.
"""

import math

import numpy as np

from shared.testing.numerics_floats import Kind

COUNT = 24                                     # numbers per family of an elementwise formula
LOGITS = (0, 1e4, -1e4, 9999, -9999, 36.7, -36.7, 17.3, -17.3, 88, -88, 104, -104, 745, -745)


def fill(*values: float, count: int = COUNT) -> np.ndarray:
    """The values, again and again."""
    return np.resize(np.array(values, dtype=np.float64), count)


def both_signs(values, count: int = COUNT) -> np.ndarray:
    return np.resize(np.stack([values, -np.asarray(values)], axis=1).ravel(), count)


def powers(low: float, high: float, count: int = COUNT // 2) -> np.ndarray:
    """Numbers of all sizes from low to high, both positive."""
    return 2.0 ** np.linspace(math.log2(low), math.log2(high), count)


def subnormals(kind: Kind, count: int = COUNT) -> np.ndarray:
    """Below the smallest normal number, both signs, both zeros."""
    tiny, least = kind.tiny, kind.smallest
    values = [tiny / 2, -tiny / 4, least, -least, 3 * least, tiny * (1 - kind.eps), 0.0, -0.0, tiny / 3, -tiny * 0.7]
    return fill(*values, count=count)


def near_zero(kind: Kind) -> np.ndarray:
    """From the smallest normal number to the rounding of 1, both signs."""
    return both_signs(powers(2 * kind.tiny, kind.eps))


def huge(kind: Kind) -> np.ndarray:
    return both_signs(powers(1e4, kind.largest / 4))


# ------------------------------------------------------------------------------------------------ one real number


def real(kind, rng):
    return {
        "ordinary": (3 * rng.normal(size=COUNT),),
        "near zero": (near_zero(kind),),
        "subnormal": (subnormals(kind),),
        "huge": (huge(kind),),
    }


def exponents(kind, rng):
    """Up to where the exponential overflows, and beyond."""
    top = math.log(kind.largest)
    return real(kind, rng) | {
        "huge": (both_signs(np.linspace(top / 2, top - 1, COUNT // 2)),),
        "overflow": (both_signs(np.linspace(top + 1, 3 * top, COUNT // 2)),),
    }


def log_odds(kind, rng):
    return real(kind, rng) | {"logits 1e4": (fill(*LOGITS),)}


def positive(kind, rng):
    return {
        "ordinary": (rng.uniform(0.1, 2, COUNT),),
        "tiny std": (powers(kind.tiny, 1e-3, COUNT),),
        "huge": (powers(1e3, kind.largest / 4, COUNT),),
        "ties": (fill(1.0, kind.below_one, 1 + kind.eps),),
    }


# ------------------------------------------------------------------------------------------------ Gaussians, policies


def gaussians(kind, rng):
    """x, mean, std. Squares must not overflow: no number is beyond the 0.45th power of the largest."""
    x, mean, std = rng.normal(size=COUNT), rng.normal(size=COUNT), rng.uniform(0.1, 2, COUNT)
    narrow, most = powers(kind.largest**-0.3, 1e-3, COUNT), kind.largest**0.45
    return {
        "ordinary": (x, mean, std),
        "ties": (mean, mean, std),
        "tiny std": (x * narrow, mean * narrow, narrow),
        "far": (both_signs(powers(10, 1e8)), mean, std),
        "huge": (both_signs(powers(1e4, most)), fill(0.0, 1e4), powers(1.0, most, COUNT)),
        "subnormal": (subnormals(kind), subnormals(kind)[::-1], std),
    }


def gaussian_pairs(kind, rng):
    """mean_p, std_p, mean_q, std_q."""
    families, other = gaussians(kind, rng), rng.uniform(0.1, 2, COUNT)
    pairs = {name: (x, std, mean, other) for name, (x, mean, std) in families.items()}
    close = 1 + kind.eps * np.resize([0, 1, 2, -1, 16, -30], COUNT)
    mean, std = pairs["ordinary"][0], pairs["ordinary"][1]
    tiny = families["tiny std"][2]
    return pairs | {
        "ties": (mean, std, mean, std),
        "near equal": (mean, std, mean * close, std * close[::-1]),
        "tiny std": (families["tiny std"][0], tiny, families["tiny std"][1], tiny * other),
        "collapsed": (mean, tiny, families["ordinary"][1], other),
    }


def head(kind, rng):
    """Two network outputs: raw mean and raw std."""
    families = log_odds(kind, rng)
    return {name: (x, np.roll(x, 5)) for name, (x,) in families.items()}


def squashed(kind, rng):
    """action, mean, std of a tanh-normal."""
    action, mean, std = np.tanh(rng.normal(size=COUNT)), rng.normal(size=COUNT), rng.uniform(0.3, 2, COUNT)
    near = both_signs(1 - 2.0 ** -np.linspace(2, min(kind.bits, 22), COUNT // 2).round())
    narrow = np.full(COUNT, 1e-4)
    return {
        "ordinary": (action, mean, std),
        "around 0.41": (both_signs(np.linspace(0.40, 0.425, COUNT // 2)), mean, std),
        "near the limit": (near, mean, std),
        "beyond the limit": (fill(1.0, -1.0, 1.5, -2.0), mean, std),
        "near zero": (near_zero(kind), mean, std),
        "tiny std": (np.tanh(mean), mean, narrow),
        "subnormal": (subnormals(kind), subnormals(kind), std),
    }


def truncated(kind, rng):
    """x, loc, scale of a normal cut to [-1, 1]."""
    x, loc, scale = rng.uniform(-1, 1, COUNT), rng.uniform(-1, 1, COUNT), rng.uniform(0.1, 2, COUNT)
    ends, narrow = fill(1.0, -1.0, kind.below_one, 0.0, -kind.below_one), powers(1e-3, 0.1, COUNT)
    return {
        "ordinary": (x, loc, scale),
        "ends": (ends, np.roll(ends, 2), scale),
        "tiny std": (np.clip(loc + narrow * rng.normal(size=COUNT), -1, 1), loc, narrow),
        "far": (x, -x, narrow),
        "wide": (x, loc, powers(10, 1e6, COUNT)),
        "outside": (both_signs(powers(1.01, 1e3)), loc, scale),
        "subnormal": (subnormals(kind), subnormals(kind)[::-1], scale),
    }


def truncated_parameters(kind, rng):
    families = truncated(kind, rng)
    return {name: families[name][1:] for name in ("ordinary", "ends", "tiny std", "wide", "subnormal")}


def truncated_draws(kind, rng):
    """loc, scale, uniform."""
    families = truncated_parameters(kind, rng)
    uniform = rng.uniform(0, 1, COUNT)
    edge = fill(0.0, kind.tiny, kind.eps, kind.below_one, 1 - 2 * kind.eps, 0.5)
    draws = {name: (loc, scale, uniform) for name, (loc, scale) in families.items()}
    loc, scale = families["ordinary"]
    return draws | {"draws at the ends": (loc, scale, edge)}


def noisy(kind, rng):
    """mean, std, noise."""
    x, mean, std = gaussians(kind, rng)["ordinary"]
    return {
        "ordinary": (mean, std, x),
        "cancelling": (-std * x, std, x),
        "huge": (huge(kind), std, x),
        "subnormal": (subnormals(kind), std, subnormals(kind)[::-1]),
    }


def events(kind, rng):
    """x (0, 1, or a probability) and log-odds."""
    x = fill(0.0, 1.0, 0.997, kind.eps, 0.5)
    return {name: (x, logits) for name, (logits,) in log_odds(kind, rng).items()}


# ------------------------------------------------------------------------------------------------ images, scales


def pixels(kind, rng):
    """Pixels as floating point, and noise in [0, 1)."""
    uniform = rng.integers(0, 2**7, COUNT) / 2**7
    return {
        "ordinary": (rng.integers(0, 256, COUNT) * 1.0, uniform),
        "ties": (fill(0.0, 8.0, 7.0, 127.0, 128.0, 247.0, 248.0, 255.0), uniform),
        "draws at the ends": (fill(0.0, 255.0, 128.0), fill(0.0, kind.below_one, kind.tiny)),
        "subnormal": (fill(0.0, 255.0, 128.0), subnormals(kind) ** 1.0),
    }


def levels(kind, rng):
    """Preprocessed images: half-way between levels, and on them."""
    steps = rng.integers(0, 32, COUNT)
    return {
        "ordinary": ((steps + 0.5) / 32 - 0.5,),
        "ties": (steps / 32 - 0.5,),
        "beyond": (fill(-0.625, 0.515625, 0.75, -1.0),),
    }


def two_numbers(kind, rng):
    """Two numbers that belong together: averages, percentiles."""
    x, y = 3 * rng.normal(size=COUNT), 3 * rng.normal(size=COUNT)
    return {
        "ordinary": (x, y),
        "ties": (x, x),
        "near equal": (x, x * (1 + 3 * kind.eps)),
        "huge": (huge(kind), np.roll(huge(kind), 3)),
        "subnormal": (subnormals(kind), np.roll(subnormals(kind), 3)),
    }


def averages(kind, rng):
    """An average that began at 0, and the weight of what it has seen, ()."""
    weights = {"ordinary": 0.5, "near zero": 0.0, "subnormal": 1.0, "huge": 1.0}
    return {name: (x, np.array(weights[name])) for name, (x,) in real(kind, rng).items()}


def magnitudes(kind, rng):
    """Rewards, and their running size, ()."""
    sizes = {"ordinary": 1.0, "near zero": 1e-4, "subnormal": 1.0, "huge": 1e4}
    return {name: (x, np.array(sizes[name])) for name, (x,) in real(kind, rng).items()}


def moments(kind, rng):
    """mean, mean of squares: spreads that are large, a hundredth of the mean, and nothing."""
    mean, std = rng.normal(size=COUNT), rng.uniform(2, 5, COUNT)
    large = 2.0 ** rng.integers(0, 10, COUNT)
    return {
        "ordinary": (mean, mean**2 + std**2),
        "cancelling": (100 * std, (100 * std) ** 2 * (1 + 2.0**-5)),
        "ties": (large, large**2),
        "huge": (mean, powers(1e4, kind.largest / 4, COUNT)),
        "subnormal": (subnormals(kind), std**2),
    }


def samples(kind, rng):
    """64 returns."""
    x = 10 * rng.normal(size=64)
    return {
        "ordinary": (x,),
        "ties": (np.resize([1.0, 1.0, 2.0], 64),),
        "huge": (both_signs(powers(1e4, kind.largest / 8, 32), 64),),
        "near zero": (both_signs(powers(2 * kind.tiny, kind.eps, 32), 64),),
        "subnormal": (subnormals(kind, 64),),
    }
