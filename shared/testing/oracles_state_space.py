"""Two models of sequences whose evidence and posterior are known exactly: a linear-Gaussian one (Kalman filter and
smoother) and a hidden Markov model (forward algorithm). Each has a second, slower solution to check the first by.

Slow and obvious, NumPy float64. Observations that are NaN (Gaussian) or -1 (Markov) are missing.
"""

import itertools
from typing import NamedTuple

import numpy as np

RARE = 1e-13                                   # log -30

# ---------------------------------------------------------------------------------------------------------------------
# Linear-Gaussian


class LinearGaussian(NamedTuple):
    """z_1 ~ N(start_mean, start_std),  z_t ~ N(slope z_{t-1}, step_std),  x_t ~ N(gain z_t, noise_std); all scalars."""

    start_mean: float
    start_std: float
    slope: float
    step_std: float
    gain: float
    noise_std: float


class Chain(NamedTuple):
    """q(z_t | z_{t-1}) = N(slope_t z_{t-1} + offset_t, std_t), each (T,); slope_1 = 0."""

    offset: np.ndarray
    slope: np.ndarray
    std: np.ndarray


def prior_chain(model, steps):
    later = np.arange(steps) > 0
    return Chain(np.where(later, 0, model.start_mean), later * model.slope,
                 np.where(later, model.step_std, model.start_std))  # fmt: skip


def kalman_filter(model, x):
    """Means and variances of p(z_t | x_1..t-1) and of p(z_t | x_1..t), each (T,), and log p(x_1..T)."""
    predicted, filtered, evidence = [], [], 0.0
    mean, variance = model.start_mean, model.start_std**2
    for t, value in enumerate(x):
        if t > 0:
            mean, variance = model.slope * mean, model.slope**2 * variance + model.step_std**2
        predicted.append((mean, variance))
        if not np.isnan(value):
            innovation = value - model.gain * mean
            spread = model.gain**2 * variance + model.noise_std**2
            evidence -= 0.5 * (np.log(2 * np.pi * spread) + innovation**2 / spread)
            weight = variance * model.gain / spread
            mean, variance = mean + weight * innovation, (1 - weight * model.gain) * variance
        filtered.append((mean, variance))
    return np.array(predicted).T, np.array(filtered).T, evidence


def rts_smoother(model, x):
    """Means and variances of p(z_t | x_1..T), (2, T), and covariances of z_t and z_{t+1}, (T - 1,)."""
    predicted, filtered, _ = kalman_filter(model, x)
    smoothed, covariance = [filtered[:, -1]], []
    for t in reversed(range(len(x) - 1)):
        weight = filtered[1, t] * model.slope / predicted[1, t + 1]
        mean = filtered[0, t] + weight * (smoothed[0][0] - predicted[0, t + 1])
        variance = filtered[1, t] + weight**2 * (smoothed[0][1] - predicted[1, t + 1])
        covariance.insert(0, weight * smoothed[0][1])
        smoothed.insert(0, (mean, variance))
    return np.array(smoothed).T, np.array(covariance)


def smoothing_chain(model, x):
    """The exact posterior p(z_t | z_{t-1}, x_1..T), by conditioning neighbours of the smoother on each other."""
    (mean, variance), covariance = rts_smoother(model, x)
    slope = np.append(0.0, covariance / variance[:-1])
    before = np.append(0.0, mean[:-1])
    return Chain(mean - slope * before, slope, np.sqrt(variance - slope**2 * np.append(0.0, variance[:-1])))


def filtering_chain(model, x):
    """p(z_t | z_{t-1}, x_t), which knows no later observation: the best that an RSSM's posterior could be."""
    prior = prior_chain(model, len(x))
    precision = 1 / prior.std**2 + model.gain**2 / model.noise_std**2
    share = 1 / (prior.std**2 * precision)
    return Chain(share * prior.offset + model.gain * x / model.noise_std**2 / precision, share * prior.slope,
                 precision**-0.5)  # fmt: skip


def chain_moments(chain):
    """Mean (T,) and covariance (T, T) of z_1..T."""
    steps = len(chain.offset)
    mix = np.zeros((steps, steps))             # z = mean + mix @ unit noise
    mean = np.zeros(steps)
    for t in range(steps):
        mean[t] = chain.offset[t] + (chain.slope[t] * mean[t - 1] if t else 0)
        mix[t] = chain.slope[t] * mix[t - 1] if t else 0
        mix[t, t] = chain.std[t]
    return mean, mix @ mix.T


def evidence_by_joint_density(model, x):
    """log p(x_1..T) as one Gaussian density of all observations, by scipy."""
    from scipy import stats

    mean, covariance = chain_moments(prior_chain(model, len(x)))
    seen = ~np.isnan(x)
    covariance = model.gain**2 * covariance + model.noise_std**2 * np.eye(len(x))
    if not seen.any():
        return 0.0
    return stats.multivariate_normal.logpdf(x[seen], model.gain * mean[seen], covariance[np.ix_(seen, seen)])


def posterior_by_joint_density(model, x):
    """Mean and covariance of p(z_1..T | x_1..T): the prior's precision plus that of the observations."""
    mean, covariance = chain_moments(prior_chain(model, len(x)))
    seen = ~np.isnan(x)
    precision = np.linalg.inv(covariance)
    information = precision @ mean + model.gain * np.where(seen, x, 0) / model.noise_std**2
    posterior = np.linalg.inv(precision + np.diag(seen * model.gain**2 / model.noise_std**2))
    return posterior @ information, posterior


def gap_by_joint_density(model, x, chain):
    """KL(q(z_1..T), p(z_1..T | x_1..T)), which is what the bound lacks: of two multivariate Gaussians."""
    (mean_q, cov_q), (mean_p, cov_p) = chain_moments(chain), posterior_by_joint_density(model, x)
    precision, difference = np.linalg.inv(cov_p), mean_p - mean_q
    log_dets = np.linalg.slogdet(cov_p)[1] - np.linalg.slogdet(cov_q)[1]
    return 0.5 * (np.trace(precision @ cov_q) + difference @ precision @ difference - len(x) + log_dets)


# ---------------------------------------------------------------------------------------------------------------------
# Hidden Markov


class HiddenMarkov(NamedTuple):
    """Log-probabilities: of the first state, (K,), of the next, (K, K), of the symbol emitted, (K, M)."""

    start: np.ndarray
    move: np.ndarray
    emit: np.ndarray


def log_sum(x, axis=None):
    """log of the sum of exp(x), from NumPy's pairwise function."""
    return np.logaddexp.reduce(x, axis=axis)


def log_normalised(weights):
    return weights - log_sum(weights, axis=-1)[..., None]


def emissions(hmm, x):
    """log p(x_t | z_t), (T, K)."""
    return np.stack([hmm.emit[:, symbol] if symbol >= 0 else np.zeros(len(hmm.start)) for symbol in x])


def forward(hmm, x):
    """log p(x_1..T) by the forward algorithm, in log space."""
    seen = emissions(hmm, x)
    alpha = hmm.start + seen[0]
    for t in range(1, len(x)):
        alpha = log_sum(alpha[:, None] + hmm.move, axis=0) + seen[t]
    return log_sum(alpha)


def posterior_chain(hmm, x):
    """The exact posterior as a Markov chain: log q(z_1), (K,), and log q(z_t | z_{t-1}), (T - 1, K, K)."""
    seen = emissions(hmm, x)
    later, moves = np.zeros(len(hmm.start)), []                # log p(x_t+1..T | z_t)
    for t in reversed(range(1, len(x))):
        weights = hmm.move + seen[t] + later
        moves.insert(0, log_normalised(weights))
        later = log_sum(weights, axis=-1)
    return log_normalised(hmm.start + seen[0] + later), np.array(moves)


def path_log_probs(hmm, x):
    """log p(z_1..T, x_1..T) of every path: {path: nats}."""
    seen = emissions(hmm, x)
    return {
        path: hmm.start[path[0]] + sum(hmm.move[a, b] for a, b in itertools.pairwise(path))
        + sum(seen[t, k] for t, k in enumerate(path))
        for path in itertools.product(range(len(hmm.start)), repeat=len(x))
    }  # fmt: skip


def chain_log_prob(start, moves, path):
    """log q(z_1..T) of one path."""
    return start[path[0]] + sum(moves[t][a, b] for t, (a, b) in enumerate(itertools.pairwise(path)))


def gap_by_enumeration(hmm, x, start, moves):
    """KL(q(z_1..T), p(z_1..T | x_1..T)): a sum over all paths."""
    joint = path_log_probs(hmm, x)
    evidence = log_sum(list(joint.values()))
    log_q = {path: chain_log_prob(start, moves, path) for path in joint}
    return sum(np.exp(log_q[path]) * (log_q[path] - joint[path] + evidence) for path in joint)


def maximisation(hmm, x):
    """The model that maximises the bound at the exact posterior: expected counts over all paths, normalised. What was
    never seen keeps a count of RARE, so that its logarithm is finite."""
    joint = path_log_probs(hmm, x)
    evidence = log_sum(list(joint.values()))
    start, move, emit = (np.zeros(part.shape) for part in hmm)
    for path, log_prob in joint.items():
        weight = np.exp(log_prob - evidence)
        start[path[0]] += weight
        for a, b in itertools.pairwise(path):
            move[a, b] += weight
        for k, symbol in zip(path, x, strict=True):
            emit[k, symbol] += weight
    return HiddenMarkov(*(log_normalised(np.log(np.maximum(counts, RARE))) for counts in (start, move, emit)))
