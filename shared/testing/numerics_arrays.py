"""More hard numbers for the numerics report: rows of logits, two-hot codes, sequences in time, updates, plans.

As in numerics_inputs.py a family is made for one floating-point type.
"""

import numpy as np

from shared.testing.numerics_floats import Kind
from shared.testing.numerics_inputs import COUNT, LOGITS, both_signs, fill, near_zero, powers, subnormals

# ------------------------------------------------------------------------------------------------ categoricals

ROWS, CLASSES = 4, 32


def logits_rows(kind: Kind, rng: np.random.Generator, rows: int, classes: int) -> dict[str, np.ndarray]:
    """Rows of logits of every difficult sort, each (rows, classes)."""
    shape = (rows, classes)
    extreme = rng.choice(LOGITS, size=shape)
    extreme[0] = -1e4
    extreme[0, classes // 2] = 1e4
    extreme[1] = 1e4
    ties = np.zeros(shape)
    ties[1] = 7.25
    ties[2, ::2] = -3.0
    ties[3, 0] = ties[3, -1] = 12.5
    return {
        "ordinary": 2 * rng.normal(size=shape),
        "logits 1e4": extreme,
        "ties": ties,
        "subnormal": subnormals(kind, rows * classes).reshape(shape),
        "huge": rng.choice([1.0, -1.0, 0.5, 0.0], size=shape) * kind.largest / 8,
        "nearly certain": np.where(np.arange(classes) == 1, 0.0, -np.linspace(10, 40, rows)[:, None]),
    }


def logits(kind, rng):
    return {name: (rows,) for name, rows in logits_rows(kind, rng, ROWS, CLASSES).items()}


def logits_pairs(kind, rng):
    first = logits_rows(kind, rng, ROWS, CLASSES)
    pairs = {name: (rows, np.roll(rows, 1, axis=-1)) for name, rows in first.items()}
    other = 2 * rng.normal(size=(ROWS, CLASSES))
    close = first["ordinary"] + 1e-3 * other
    return pairs | {"ordinary": (first["ordinary"], other), "near equal": (first["ordinary"], close)}


def targets(kind, rng):
    """One-hot and two-hot targets, and logits."""
    hot = np.zeros((ROWS, CLASSES))
    hot[np.arange(ROWS), rng.integers(0, CLASSES - 1, ROWS)] = 0.75
    hot += np.where(np.arange(ROWS)[:, None] % 2 == 0, hot / 3, np.roll(hot, 1, axis=-1) / 3)
    return {name: (hot, rows) for name, (rows,) in logits(kind, rng).items()}


def candidates(kind, rng):
    """The true pair (6,) and all candidates (8, 6), the true pair among them."""
    families = logits_rows(kind, rng, 8, 6)
    return {name: (rows[3], rows) for name, rows in families.items()}


def sampling(kind, rng):
    """Probabilities (6, 8) and draws (6,)."""
    shape, weights = (6, 8), rng.random((6, 8)) + 0.1
    dyadic = np.resize([0.25, 0.25, 0.0, 0.125, 0.125, 0.0, 0.125, 0.125], shape)
    hot = np.eye(8)[[0, 7, 3, 3, 1, 5]]
    return {
        "ordinary": (weights / weights.sum(-1, keepdims=True), rng.random(6)),
        "ties": (dyadic, np.array([0.0, 0.25, 0.5, 0.625, 0.75, 0.875])),
        "certain": (hot, np.array([0.0, 0.0, 0.5, kind.below_one, kind.below_one, kind.tiny])),
        "draws at the ends": (dyadic, np.array([kind.tiny, kind.below_one, kind.eps, 1 - kind.eps, 0.0, 0.5])),
    }


def one_hot(kind, rng):
    """One-hot samples (6, 8) and probabilities."""
    return {name: (np.eye(8)[[0, 7, 3, 3, 1, 5]], probs) for name, (probs, _) in sampling(kind, rng).items()}


def scored(kind, rng):
    """One-hot samples (6, 8) and their log-probabilities (6,)."""
    hot = np.eye(8)[[0, 7, 3, 3, 1, 5]]
    return {"ordinary": (hot, rng.normal(size=6)), "logits 1e4": (hot, fill(*LOGITS, count=6))}


# ------------------------------------------------------------------------------------------------ two-hot code


def bins(kind):
    """DreamerV3's 255 bins. Here in plain NumPy: the formula that makes them is judged elsewhere."""
    grid = np.linspace(-20, 20, 255)
    return kind.round(np.sign(grid) * np.expm1(np.abs(grid)))


def encoded(kind, rng):
    b, count = bins(kind), 10
    return {
        "ordinary": (np.sinh(rng.uniform(-18, 18, count)), b),
        "ties": (b[np.linspace(0, 254, count).astype(int)], b),
        "beyond": (both_signs(powers(4.8e8, kind.largest / 4), count), b),
        "near zero": (near_zero(kind)[-count:], b),
        "subnormal": (subnormals(kind, count), b),
    }


def predicted(kind, rng):
    """Probabilities over the bins (6, 255)."""
    b, weights = bins(kind), np.exp(2 * rng.normal(size=(6, 255)))
    hot = np.eye(255)[[0, 254, 127, 128, 60, 200]]
    return {
        "ordinary": (weights / weights.sum(-1, keepdims=True), b),
        "uniform": (np.full((6, 255), 1 / 255), b),
        "one-hot": (hot, b),
        "two-hot": (0.5 * (hot + np.roll(hot, 1, axis=-1)), b),
        "subnormal": (subnormals(kind, 6 * 255).reshape(6, 255), b),
    }


# ------------------------------------------------------------------------------------------------ sequences in time

STEPS, LONG = 64, 1024


def transitions(kind, rng):
    """reward, discount, next_value: (T, 2), the long one (T, 1)."""

    def draw(*shape, least=0.9):
        return rng.normal(size=shape), rng.uniform(least, 1, shape), 10 * rng.normal(size=shape)

    reward, discount, value = draw(STEPS, 2)
    alternating = np.where(np.arange(STEPS)[:, None] % 2 == 0, 1.0, -1.0) * np.ones((STEPS, 2))
    ends = np.where(rng.random((STEPS, 2)) < 0.1, 0.0, 0.997)
    return {
        "ordinary": (reward, discount, value),
        "long horizon": draw(LONG, 1, least=0.99),
        "ties": (np.full((STEPS, 2), 0.5), np.full((STEPS, 2), 0.75), np.full((STEPS, 2), 2.0)),
        "no discount": (reward, np.ones((STEPS, 2)), value),
        "cancelling": (1e4 * alternating, np.ones((STEPS, 2)), np.zeros((STEPS, 2))),
        "ends of episodes": (reward, ends, value),
        "huge": (reward * (kind.largest / 2**14), discount, value * (kind.largest / 2**14)),
        "subnormal": tuple(x.reshape(STEPS, 2) for x in (subnormals(kind, 128), discount, subnormals(kind, 128))),
    }


def discounts(kind, rng):
    families = transitions(kind, rng)
    discount = {name: (families[name][1],) for name in ("ordinary", "long horizon", "no discount", "ends of episodes")}
    return discount | {"underflow": (np.full((STEPS, 2), 2.0 ** (kind.least_exponent / 40)),)}


def overshooting(kind, rng):
    """Posterior (1, 5, 3), prior (1, 5, 3, 3) and mask: two steps ahead, four valid steps; masked numbers are NaN."""
    post, prior = (1, 5, 3), (1, 5, 3, 3)
    mask = (np.arange(5)[:, None] + np.arange(3) < 4)[None]
    mean, std = rng.normal(size=post), rng.uniform(0.5, 2, post)
    other, spread = rng.normal(size=prior), rng.uniform(0.5, 2, prior)
    masked = [np.where(mask[..., None], x, np.nan) for x in (other, spread)]
    ones = np.ones(prior)
    return {
        "ordinary": (mean, std, other, spread, mask),
        "masked": (mean, std, *masked, mask),
        "ties": (0 * mean, ones[0, :, :1].reshape(1, 5, 3), 0 * other, ones, mask),
        "tiny std": (1e-4 * mean, 1e-4 * std, 1e-4 * other, 1e-4 * spread, mask),
        "far": (1e4 * mean, std, 1e4 * other, spread, mask),
        "subnormal": (subnormals(kind, 15).reshape(post), std, 0 * other, spread, mask),
    }


# ------------------------------------------------------------------------------------------------ optimisers, planner


def weights(kind, rng):
    """param, grad."""
    param, grad = rng.normal(size=COUNT), 1e-3 * rng.normal(size=COUNT)
    return {
        "ordinary": (param, grad),
        "large": (param, 1e6 * grad),
        "tiny gradients": (param, both_signs(powers(kind.largest**-0.2, 1e-6))),
        "zero": (param, 0 * grad),
        "zero parameters": (0 * param, grad),
        "huge": (param, both_signs(powers(1e3, kind.largest**0.4))),
    }


def first_update(kind, rng):
    """param, grad, m, v before the first step."""
    return {name: (*pair, np.zeros(COUNT), np.zeros(COUNT)) for name, pair in weights(kind, rng).items()}


def later_update(kind, rng):
    """param, grad, m, v in the middle of training; the running moments fit the gradient, or are stale and large."""
    families = weights(kind, rng)
    fitting = {name: (p, g, 0.5 * np.roll(g, 1), 0.3 * g * g) for name, (p, g) in families.items()}
    param, grad = families["ordinary"]
    return fitting | {"stale": (param, grad, 10 * grad, 1e6 * grad * grad)}


def normalised_update(kind, rng):
    """Like later_update, where m averages gradients that are normalised already."""
    return {name: (p, g, 0.5 * np.sign(g), v) for name, (p, g, _, v) in later_update(kind, rng).items()}


def plans(kind, rng):
    """actions (9, 2, 2) and returns (9,)."""
    actions, returns = rng.uniform(-1, 1, (9, 2, 2)), rng.normal(size=9)
    close = 0.7 + kind.eps * rng.integers(-4, 4, (9, 2, 2))
    return {
        "ordinary": (actions, returns),
        "ties": (actions, np.resize([1.0, 1.0, 0.0], 9)),
        "equal actions": (np.full((9, 2, 2), 0.3), returns),
        "near equal": (close, returns),
        "huge": (actions, np.resize([kind.largest, -kind.largest, 0.0], 9)),
        "subnormal": (subnormals(kind, 36).reshape(9, 2, 2), returns),
    }
