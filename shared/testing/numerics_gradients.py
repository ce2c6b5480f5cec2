"""Derivatives of the formulas in mpmath, for the numerics report: of the sum of all results, to every float argument.

As in numerics_references.py each is an Exact. The scale counts the intermediate results that automatic differentiation
makes, where they exceed those of the closed form. Tests hold the values against difference quotients of the references.
"""

from mpmath import mp, mpf

from shared.testing import numerics_references as references
from shared.testing.numerics_exact import Exact, Softmax, exact, noisier, scaled, terms
from shared.testing.numerics_references import ACTION_LIMIT, TAIL, normal_density, normal_mass, sigmoid, softplus


def slope_of_softplus(x):
    """sigmoid(x). JAX differentiates logaddexp by exp(x - softplus(x)): an error of softplus counts by its size."""
    return noisier(sigmoid(x), sigmoid(x).value * softplus(x).value)


def symlog(x):
    return exact(1 / (1 + abs(x)))


def symexp(x):
    return exact(mp.exp(abs(x)))


def unimix(mix):
    def over(logits):
        softmax, count, mixture = Softmax(logits), len(logits), mpf(mix)
        shares = []
        for p, noise in zip(softmax.p, softmax.noise, strict=True):
            value = (1 - mixture) * p / ((1 - mixture) * p + mixture / count)
            shares.append(Exact(value, value * (1 + noise)))
        total = scaled(mpf(1), *shares)
        rows = []
        for p, noise, share in zip(softmax.p, softmax.noise, shares, strict=True):
            rows.append(noisier(scaled(mpf(1), share, scaled(-p, total)), p * total.value * noise))
        return [rows]

    return over


# ------------------------------------------------------------------------------------------------ categorical, binary


def categorical_log_prob(x, logits):
    softmax, total = Softmax(logits), mp.fsum(x)
    to_x = [Exact(log_p, noise) for log_p, noise in zip(softmax.log_p, softmax.noise, strict=True)]
    rows = zip(x, softmax.p, softmax.noise, strict=True)
    return [to_x, [noisier(terms(w, -p * total), p * total * noise) for w, p, noise in rows]]


def categorical_entropy(logits):
    softmax = Softmax(logits)
    rows = list(zip(softmax.p, softmax.log_p, softmax.noise, strict=True))
    entropy = -mp.fsum(p * log_p for p, log_p, _ in rows)
    noise = mp.fsum(p * (1 + abs(log_p)) * (1 + n) for p, log_p, n in rows)
    return [[Exact(-p * (log_p + entropy), p * (1 + abs(log_p)) * (1 + n) + p * noise) for p, log_p, n in rows]]


def categorical_kl(logits_p, logits_q):
    a, b, kl = Softmax(logits_p), Softmax(logits_q), references.categorical_kl(logits_p, logits_q)
    to_p, to_q = [], []
    for p, q, log_p, log_q, n, m in zip(a.p, b.p, a.log_p, b.log_p, a.noise, b.noise, strict=True):
        difference = log_p - log_q
        to_p.append(Exact(p * (difference - kl.value), p * (abs(difference) * (1 + n) + n + m + kl.scale)))
        to_q.append(noisier(terms(q, -p), q * m, p * n))
    return [to_p, to_q]


def bernoulli_log_prob(x, logits):
    p, q = slope_of_softplus(logits), slope_of_softplus(-logits)
    to_x = terms(softplus(logits).value, -softplus(-logits).value)
    return to_x, scaled(mpf(1), scaled(x, q), scaled(-(1 - x), p))


def bernoulli_entropy(logits):
    """-logits p q, which automatic differentiation sums from four products."""
    p, q = sigmoid(logits), sigmoid(-logits)
    parts = p.scale * q.scale * (2 + softplus(logits).value + softplus(-logits).value)
    return noisier(exact(-logits * p.value * q.value), parts)


# ------------------------------------------------------------------------------------------------ Gaussians


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    distance, ratio = (mean_p - mean_q) / std_q, std_p / std_q
    return (
        exact(distance / std_q),
        terms(ratio / std_q, -1 / std_p),
        exact(-distance / std_q),
        terms(1 / std_q, -(ratio**2) / std_q, -(distance**2) / std_q),
    )


def balanced_gaussian_kl(alpha):
    """The posterior's side (p) counts 1 - alpha, the prior's alpha."""

    def of(*parameters):
        mean_p, std_p, mean_q, std_q = gaussian_kl(*parameters)
        post, prior = 1 - mpf(alpha), mpf(alpha)
        return scaled(post, mean_p), scaled(post, std_p), scaled(prior, mean_q), scaled(prior, std_q)

    return of


def gaussian_log_prob(x, mean, std):
    z = (x - mean) / std
    return exact(-z / std), exact(z / std), terms(z**2 / std, -1 / std)


def tanh_normal(raw_mean, raw_std, mean_scale, init_std):
    y = mp.tanh(raw_mean / mean_scale)
    shift = mp.log(mp.expm1(init_std))
    p = slope_of_softplus(raw_std + shift)
    return terms(mpf(1), -(y**2)), noisier(p, p.value * (1 - p.value) * (abs(raw_std) + abs(shift)))


def tanh_normal_log_prob(action, mean, std):
    """The action's derivative is steep at the limit, and 1 - action^2 is a difference."""
    clipped = min(max(action, -ACTION_LIMIT), ACTION_LIMIT)
    z = mp.atanh(clipped)
    y, steep = (z - mean) / std, 1 / (1 - clipped**2)
    size = abs(y / std) + abs(z / std**2) + 2 + 4 * slope_of_softplus(-2 * z).scale
    to_action = Exact((2 * clipped - y / std) * steep, size * steep * (1 + steep))
    inside = to_action if abs(action) < ACTION_LIMIT else exact(mpf(0))
    to_std = noisier(terms(y**2 / std, -1 / std), 2 * y * z / std**2)
    return inside, noisier(exact(y / std), z / std**2), to_std


def truncated_normal(raw_mean, raw_std, init_std):
    x = (raw_std + init_std) / 2
    p, q = sigmoid(x), sigmoid(-x)
    return terms(mpf(1), -(mp.tanh(raw_mean) ** 2)), noisier(Exact(p.value * q.value, p.scale * q.scale), p.value * x)


def bounded_normal(raw_mean, raw_std, min_std, max_std):
    x = raw_std + 2
    p, q = sigmoid(x), sigmoid(-x)
    spread = noisier(Exact(p.value * q.value, p.scale * q.scale), p.value * (abs(raw_std) + 2))
    return terms(mpf(1), -(mp.tanh(raw_mean) ** 2)), scaled(mpf(max_std) - mpf(min_std), spread)


# ------------------------------------------------------------------------------------------------ truncated normal


def _ends(loc, scale, low, high):
    """a, b, their densities, and the probability of the interval."""
    a, b = (low - loc) / scale, (high - loc) / scale
    return a, b, normal_density(a), normal_density(b), normal_mass(loc, scale, low, high)


def truncated_normal_log_prob(x, loc, scale, low, high):
    z = (x - loc) / scale
    a, b, at_a, at_b, mass = _ends(loc, scale, low, high)
    to_loc = terms(z / scale, at_b / (scale * mass), -at_a / (scale * mass))
    to_scale = terms(z**2 / scale, -1 / scale, b * at_b / (scale * mass), -a * at_a / (scale * mass))
    curved = (a**2 * at_a + b**2 * at_b) / (scale * mass)
    return exact(-z / scale), noisier(to_loc, curved), noisier(to_scale, curved * (1 + max(abs(a), abs(b))))


def truncated_normal_entropy(loc, scale, low, high):
    a, b, at_a, at_b, mass = _ends(loc, scale, low, high)
    total = a * at_a - b * at_b
    curve_a, curve_b = at_a * (1 - a**2), at_b * (1 - b**2)
    by_loc = [at_a / mass, -at_b / mass, -curve_a / (2 * mass), curve_b / (2 * mass)]
    by_loc += [-total * at_a / (2 * mass**2), total * at_b / (2 * mass**2)]
    by_scale = [1, total / mass, -a * curve_a / (2 * mass), b * curve_b / (2 * mass), -(total**2) / (2 * mass**2)]
    curved = (a**2 * at_a + b**2 * at_b) * (1 + a**2 * (at_a > 0) + b**2 * (at_b > 0)) / mass
    return tuple(noisier(scaled(1 / scale, terms(*parts)), curved / scale) for parts in (by_loc, by_scale))


def truncated_normal_sample(loc, scale, low, high, uniform):
    """Implicitly, from F(sample) = F(low) + u (F(high) - F(low)); where the tail is held, of loc + scale * constant.

    Differentiation takes the share of F(low), 1 - u, as a difference, so the error is that of 1 + u.
    """
    a, b, at_a, at_b, mass = _ends(loc, scale, low, high)
    width = scale * mp.sqrt(2)
    first, last = mp.erf((low - loc) / width), mp.erf((high - loc) / width)
    share = first + uniform * (last - first)
    z = mp.sqrt(2) * mp.erfinv(min(max(share, -TAIL), TAIL))
    if abs(share) > TAIL:
        inside = low < loc + scale * z < high
        return (exact(mpf(1)), exact(z), exact(mpf(0))) if inside else (exact(mpf(0)),) * 3
    density = normal_density(z)
    noise = 1 + (1 + abs(z)) * (abs(first) + uniform * abs(last - first) + abs(share)) / density
    from_a, from_b = at_a / density, uniform * at_b / density
    to_loc = noisier(terms(mpf(1), -(1 - uniform) * from_a, -from_b), 2 * from_a)
    to_scale = noisier(terms(z, -(1 - uniform) * a * from_a, -b * from_b), 2 * a * from_a)
    to_uniform = exact(scale * mass / density)
    return tuple(Exact(part.value, part.scale * noise) for part in (to_loc, to_scale, to_uniform))


# ------------------------------------------------------------------------------------------------ returns


def lambda_return(lambda_):
    """Of the sum of all returns: `reached` is how much a return counts in it, through all earlier ones."""

    def over(reward, discount, next_value):
        share = mpf(lambda_)
        (returns,) = references.lambda_return(lambda_)(reward, discount, next_value)
        to_reward, to_discount, to_value, reached = [], [], [], exact(mpf(0))
        for t, later in enumerate([*returns[1:], exact(next_value[-1])]):
            carried = discount[t - 1] * share if t else mpf(0)
            reached = Exact(1 + carried * reached.value, 1 + carried * (reached.scale + 2 * reached.value))
            mixed = scaled(mpf(1), exact((1 - share) * next_value[t]), scaled(share, later))
            to_reward.append(reached)
            to_discount.append(Exact(reached.value * mixed.value, reached.scale * mixed.scale))
            to_value.append(scaled(discount[t] * (1 - share), reached))
        to_value[-1] = scaled(discount[-1], reached)             # the last value also ends the recursion
        return [to_reward, to_discount, to_value]

    return over
