"""The formulas once more, in mpmath, straight from their definitions: what the numerics report calls exact.

Each function takes mpmath numbers (rows and longer axes as sequences) and returns Exact: the value, and the scale of
its unavoidable error. numerics_gradients.py has the derivatives; numerics_cases.py says which belongs to whom.
"""

from bisect import bisect_right

import numpy as np
from mpmath import mp, mpf

from shared.testing.numerics_exact import (
    Exact,
    Softmax,
    as_array,
    elementwise,
    exact,
    noisier,
    scaled,
    terms,
)

ACTION_LIMIT = 1 - mpf(2) ** -24
TAIL = 1 - mpf(2) ** -24                       # where inverse distribution functions are held


# ------------------------------------------------------------------------------------------------ elementary


def log(x):
    return exact(mp.log(x))


def softplus(x):
    return exact(mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x)))


def sigmoid(x):
    """The formulas take the exponential of -softplus(-x), so an error of that is amplified by its size."""
    p = 1 / (1 + mp.exp(-x))
    return Exact(p, p * (1 + softplus(-x).value))


def symlog(x):
    return exact(mp.sign(x) * mp.log1p(abs(x)))


def symexp(x):
    return exact(mp.sign(x) * mp.expm1(abs(x)))


def symexp_bins(count, low, high):
    """Odd: symexp of an even grid. Even: the negative half reaches zero, and is mirrored."""
    half = [mpf(low) * (1 - mpf(k) / ((count + 1) // 2 - 1)) for k in range((count + 1) // 2)]
    grid = half + [-x for x in reversed(half[: count // 2])]
    return as_array([noisier(symexp(x), high * mp.exp(abs(x))) for x in grid], (-1,))


def logsumexp(row):
    softmax = Softmax(row)
    return Exact(softmax.log_sum, softmax.log_sum_noise)


def log_softmax(row):
    softmax = Softmax(row)
    return [[Exact(x, noise) for x, noise in zip(softmax.log_p, softmax.noise, strict=True)]]


def softmax(row):
    """An error of the logarithm counts by the size of the probability."""
    softmax = Softmax(row)
    return [[Exact(p, p * (1 + n)) for p, n in zip(map(mp.exp, softmax.log_p), softmax.noise, strict=True)]]


# ------------------------------------------------------------------------------------------------ densities


def gaussian_log_prob(x, mean, std):
    return terms(-(((x - mean) / std) ** 2) / 2, -mp.log(std), -mp.log(2 * mp.pi) / 2)


def gaussian_entropy(std):
    return terms(mp.log(std), (mp.log(2 * mp.pi) + 1) / 2)


def bernoulli_log_prob(x, logits):
    return terms(-x * softplus(-logits).value, -(1 - x) * softplus(logits).value)


def bernoulli_entropy(logits):
    p, q = sigmoid(logits), sigmoid(-logits)
    less, more = softplus(-logits).value, softplus(logits).value
    return Exact(p.value * less + q.value * more, p.scale * less + q.scale * more)


def categorical_log_prob(x, logits):
    softmax = Softmax(logits)
    value = mp.fsum(w * log_p for w, log_p in zip(x, softmax.log_p, strict=True))
    return Exact(value, mp.fsum(w * noise for w, noise in zip(x, softmax.noise, strict=True)))


def categorical_entropy(logits):
    softmax = Softmax(logits)
    rows = list(zip(softmax.p, softmax.log_p, softmax.noise, strict=True))
    value = -mp.fsum(p * log_p for p, log_p, _ in rows)
    return Exact(value, mp.fsum(p * (1 - log_p) * (1 + noise) for p, log_p, noise in rows))


def categorical_kl(logits_p, logits_q):
    a, b = Softmax(logits_p), Softmax(logits_q)
    rows = list(zip(a.p, a.log_p, b.log_p, a.noise, b.noise, strict=True))
    value = mp.fsum(p * (log_p - log_q) for p, log_p, log_q, _, _ in rows)
    scale = mp.fsum(p * (abs(log_p - log_q) * (1 + n) + n + m) for p, log_p, log_q, n, m in rows)
    return Exact(value, scale)


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    ratio, distance = std_p / std_q, (mean_p - mean_q) / std_q
    return terms(-mp.log(ratio), ratio**2 / 2, distance**2 / 2, mpf(-1) / 2)


def info_nce(positive, candidates):
    softmax = Softmax(candidates)
    return Exact(positive - softmax.log_sum, abs(positive) + softmax.log_sum_noise)


def overshooting_kl(nats):
    """Arrays (B, T, S), (B, T, S), (B, T, D + 1, S), (B, T, D + 1, S) and the mask (B, T, D + 1)."""

    def over(post_mean, post_std, prior_mean, prior_std, mask):
        results = []
        for b, t, d in np.ndindex(mask.shape):
            if not mask[b, t, d]:
                results.append(exact(mpf(0)))
                continue
            priors = zip(prior_mean[b, t, d], prior_std[b, t, d], strict=True)
            posts = zip(post_mean[b, t + d], post_std[b, t + d], strict=True)
            parts = [gaussian_kl(*post, *prior) for post, prior in zip(posts, priors, strict=True)]
            kl = scaled(mpf(1), *parts, exact(mpf(-nats)))
            results.append(Exact(max(kl.value, mpf(0)), kl.scale))
        return [as_array(results, mask.shape)]

    return over


# ------------------------------------------------------------------------------------------------ policies


def tanh_normal(raw_mean, raw_std, mean_scale, init_std, min_std):
    shift = mp.log(mp.expm1(init_std))
    x, spread = raw_std + shift, softplus(raw_std + shift)
    std = noisier(terms(spread.value, min_std), sigmoid(x).value * (abs(raw_std) + abs(shift)))
    return exact(mean_scale * mp.tanh(raw_mean / mean_scale)), std


def tanh_normal_log_prob(action, mean, std):
    """Written with log(1 - action^2), which the formula avoids."""
    action = min(max(action, -ACTION_LIMIT), ACTION_LIMIT)
    z = mp.atanh(action)
    density = gaussian_log_prob(z, mean, std)
    value = density.value - mp.log1p(-(action**2))
    steep = abs((z - mean) / std**2 * z)
    return Exact(value, density.scale + steep + 2 * (mp.log(2) + abs(z) + softplus(-2 * z).value))


def truncated_normal(raw_mean, raw_std, init_std, min_std):
    x = (raw_std + init_std) / 2
    p = sigmoid(x)
    spread = noisier(p, p.value * sigmoid(-x).value * (abs(raw_std) + abs(init_std)))
    return exact(mp.tanh(raw_mean)), scaled(mpf(2), spread, exact(mpf(min_std) / 2))


def bounded_normal(raw_mean, raw_std, min_std, max_std):
    p = sigmoid(raw_std + 2)
    spread = noisier(p, p.value * sigmoid(-raw_std - 2).value * (abs(raw_std) + 2))
    factor = mpf(max_std) - mpf(min_std)
    return exact(mp.tanh(raw_mean)), scaled(factor, spread, exact(mpf(min_std) / factor))


def normal_mass(loc, scale, low, high):
    """Probability of [low, high] under N(loc, scale)."""
    width = scale * mp.sqrt(2)
    return (mp.erf((high - loc) / width) - mp.erf((low - loc) / width)) / 2


def truncated_normal_log_prob(x, loc, scale, low, high):
    if not low <= x <= high:
        return Exact(mp.ninf, mpf(1))
    density, mass = gaussian_log_prob(x, loc, scale), normal_mass(loc, scale, low, high)
    return noisier(Exact(density.value - mp.log(mass), density.scale), mp.log(mass), mpf(1))


def normal_density(x):
    return mp.exp(-(x**2) / 2) / mp.sqrt(2 * mp.pi)


def truncated_normal_entropy(loc, scale, low, high):
    a, b = (low - loc) / scale, (high - loc) / scale
    mass = normal_mass(loc, scale, low, high)
    ends = [a * normal_density(a) / (2 * mass), -b * normal_density(b) / (2 * mass)]
    result = terms(mp.log(scale * mass), (mp.log(2 * mp.pi) + 1) / 2, *ends)
    return noisier(result, mpf(1), a**2 * ends[0], b**2 * ends[1])


def truncated_normal_sample(loc, scale, low, high, uniform):
    """The inverse distribution function is steep in the tails: an error of the share counts 1 / density times."""
    width = scale * mp.sqrt(2)
    first, last = mp.erf((low - loc) / width), mp.erf((high - loc) / width)
    share = min(max(first + uniform * (last - first), -TAIL), TAIL)
    z = mp.erfinv(share)
    x = loc + width * z
    steep = width * mp.sqrt(mp.pi) / 2 * mp.exp(z**2) * (abs(first) + uniform * abs(last - first) + abs(share))
    return noisier(exact(min(max(x, mpf(low)), mpf(high))), loc, width * z, steep)


# ------------------------------------------------------------------------------------------------ samples


def reparameterise(mean, std, noise):
    return terms(mean, std * noise)


def unimix(mix):
    """Rows of logits -> log-probabilities; a and b are the logarithms of the two parts of the mixture."""

    def over(logits):
        softmax, count, mixture = Softmax(logits), len(logits), mpf(mix)
        results = []
        for p, log_p, noise in zip(softmax.p, softmax.log_p, softmax.noise, strict=True):
            total = (1 - mixture) * p + mixture / count
            share = (1 - mixture) * p / total
            a, b = log_p + mp.log1p(-mixture), mp.log(mixture / count)
            value = exact(mp.log(total))
            gap = min(share, 1 - share) * abs(a - b)
            results.append(noisier(value, share * (noise + abs(a)), (1 - share) * b, gap))
        return [results]

    return over


def categorical_sample(probs, uniform):
    target, passed, result = uniform * mp.fsum(probs), mpf(0), []
    for p in probs:
        chosen = passed <= target < passed + p
        passed += p
        result.append(exact(mpf(chosen)))
    return [result]


def straight_through(sample, probs):
    return exact(sample)


def score_through(sample, log_prob):
    return [[exact(x) for x in sample]]


# ------------------------------------------------------------------------------------------------ returns, scales


def lambda_return(lambda_):
    """Columns reward, discount, next_value -> returns. The scale is that of all roundings on the way, summed."""

    def over(reward, discount, next_value):
        share = mpf(lambda_)
        result, noise, rows = next_value[-1], abs(next_value[-1]), []
        for r, d, v in reversed(list(zip(reward, discount, next_value, strict=True))):
            noise = abs(r) + abs(d * (1 - share) * v) + d * share * (noise + abs(result))
            result = r + d * ((1 - share) * v + share * result)
            noise += abs(result)
            rows.append(Exact(result, noise))
        return [rows[::-1]]

    return over


def discount_weights(discount):
    rows, weight = [], mpf(1)
    for t, d in enumerate(discount):
        rows.append(Exact(weight, weight * max(t, 1)))
        weight *= d
    return [rows]


def percentile(q):
    def over(x):
        ordered = sorted(x)
        position = mpf(q) / 100 * (len(ordered) - 1)
        below = int(mp.floor(position))
        low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
        return [as_array([noisier(terms(low, (position - below) * (high - low)), position * (high - low))], ())]

    return over


def ema(old, new, rate):
    return terms((1 - mpf(rate)) * old, mpf(rate) * new)


def debias(average, weight, rate):
    return exact(average / max(weight, mpf(rate)))


def return_range(low, high, limit):
    return exact(max(mpf(limit), high - low))


def moments_std(mean, mean_square, limit):
    """The root of a difference: its error grows as the spread shrinks against the mean."""
    variance = mean_square - mean**2
    if variance <= mpf(limit) ** 2:
        return exact(mpf(limit))
    std = mp.sqrt(variance)
    return noisier(exact(std), (mean_square + mean**2) / (2 * std))


def magnitude_scaled(x, magnitude, eps):
    return exact(x / (magnitude + mpf(eps)))


def twohot(x, bins):
    """One number -> a row of weights. The weights sum to 1, so 1 is the scale of both."""
    x = min(max(x, bins[0]), bins[-1])
    k = min(bisect_right(bins, x), len(bins) - 1) - 1
    share = (x - bins[k]) / (bins[k + 1] - bins[k])
    return [[Exact({k: 1 - share, k + 1: share}.get(j, mpf(0)), mpf(1)) for j in range(len(bins))]]


def twohot_mean(probs, bins):
    return terms(*(p * b for p, b in zip(probs, bins, strict=True)))


# ------------------------------------------------------------------------------------------------ images


def centre(image):
    return terms(image / 255, mpf(-1) / 2)


def quantise(image, noise, bits):
    return terms(mp.floor(image / 2 ** (8 - bits)) / 2**bits, mpf(-1) / 2, noise / 2**bits)


def dequantise(image, bits):
    return exact(mp.floor(2**bits * (image + mpf(1) / 2)) / 2**bits)


def dequantise_uint8(image, bits):
    return exact(min(max(256 * dequantise(image, bits).value, mpf(0)), mpf(255)))


# ------------------------------------------------------------------------------------------------ optimisers, planner


def _norm(*arrays):
    return mp.sqrt(mp.fsum(x**2 for array in arrays for x in array.ravel()))


def _map(function, *arrays):
    return elementwise(function)(*arrays)[0]


def clip_by_global_norm(limit):
    def over(*grads):
        norm = _norm(*grads)
        factor = limit / max(norm, mpf(limit))
        return [*(_map(lambda g: exact(g * factor), grad) for grad in grads), as_array([exact(norm)], ())]

    return over


def adaptive_clip(clip, least):
    def over(param, grad):
        ratio = max(mpf(1), _norm(grad) / (mpf(clip) * max(mpf(least), _norm(param))))
        return [_map(lambda g: exact(g / ratio), grad)]

    return over


def adam_tf(param, grad, m, v, step, lr, beta1, beta2, eps):
    lr, beta1, beta2, eps = mpf(lr), mpf(beta1), mpf(beta2), mpf(eps)
    first = terms(beta1 * m, (1 - beta1) * grad)
    second = terms(beta2 * v, (1 - beta2) * grad**2)
    rate = lr * mp.sqrt(1 - beta2**step) / (1 - beta1**step)
    factor = -rate / (mp.sqrt(second.value) + eps)
    return scaled(mpf(1), exact(param), scaled(factor, first)), first, second


def laprop(param, grad, m, v, step, lr, beta1, beta2, eps):
    lr, beta1, beta2, eps = mpf(lr), mpf(beta1), mpf(beta2), mpf(eps)
    second = terms(beta2 * v, (1 - beta2) * grad**2)
    unit = grad / (mp.sqrt(second.value / (1 - beta2**step)) + eps)
    first = terms(beta1 * m, (1 - beta1) * unit)
    return scaled(mpf(1), exact(param), scaled(-lr / (1 - beta1**step), first)), first, second


def refit(elites, std):
    """Arrays actions (J, H, A) and returns (J,): mean and spread of the best."""

    def over(actions, returns):
        best = sorted(range(len(returns)), key=lambda j: (-returns[j], j))[:elites]
        means, spreads = [], []
        for h, a in np.ndindex(actions.shape[1:]):
            chosen = [actions[j, h, a] for j in best]
            mean = scaled(mpf(1) / elites, *map(exact, chosen))
            deviations = [x - mean.value for x in chosen]
            means.append(mean)
            spreads.append(_spread(deviations, mean.scale, std))
        return [as_array(column, actions.shape[1:]) for column in (means, spreads)]

    return over


def _spread(deviations, size, std):
    """size: of the actions; the mean is wrong by a rounding of it, and so is every deviation from the mean."""
    count = len(deviations)
    if std == "paper":
        return noisier(exact(mp.fsum(map(abs, deviations)) / (count - 1)), count * size / (count - 1))
    root = mp.sqrt(mp.fsum(x**2 for x in deviations) / count + mpf("1e-6"))
    return noisier(exact(root), size * mp.fsum(map(abs, deviations)) / count / root)
