"""Slow, obvious versions of the formulas, written without looking at them: nested loops, scipy, torch.distributions.

Tests compare shared/formulas with these; nothing else may import them. All take and return NumPy float64.
"""

import numpy as np


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    """KL(p, q) per dimension, from torch.distributions."""
    import torch
    from torch.distributions import Normal, kl_divergence

    mean_p, std_p, mean_q, std_q = (torch.tensor(x, dtype=torch.float64) for x in (mean_p, std_p, mean_q, std_q))
    return kl_divergence(Normal(mean_p, std_p), Normal(mean_q, std_q)).numpy()


def gaussian_kl_by_quadrature(mean_p, std_p, mean_q, std_q):
    """KL(p, q) of one dimension: the integral of p log(p / q), by scipy."""
    from scipy import integrate, stats

    p, q = stats.norm(mean_p, std_p), stats.norm(mean_q, std_q)
    value, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean_p - 12 * std_p, mean_p + 12 * std_p, epsabs=1e-12
    )
    return value


def gaussian_log_prob(x, mean, std):
    """Log-density, from scipy."""
    from scipy import stats

    return stats.norm.logpdf(x, mean, std)


def finite_difference(function, *arguments, step=1e-6):
    """Central differences of sum(function(*arguments)) with respect to every argument."""
    arguments = [np.array(x, dtype=np.float64) for x in arguments]
    gradients = [np.zeros_like(x) for x in arguments]
    for argument, gradient in zip(arguments, gradients, strict=True):
        for index in np.ndindex(argument.shape):
            value = argument[index]
            argument[index] = value + step
            above = np.sum(function(*arguments))
            argument[index] = value - step
            below = np.sum(function(*arguments))
            argument[index] = value
            gradient[index] = (above - below) / (2 * step)
    return gradients


def overshooting_kl(post_mean, post_std, prior_mean, prior_std, lengths, nats):
    """Latent overshooting with one loop per sequence, start and distance. post: (B, T, S), prior: (B, T, D + 1, S)."""
    batch, steps, windows, size = prior_mean.shape
    result = np.zeros((batch, steps, windows))
    for b in range(batch):
        for t in range(steps):
            for d in range(windows):
                if t + d >= min(lengths[b], steps):
                    continue
                total = 0.0
                for s in range(size):
                    m1, s1 = post_mean[b, t + d, s], post_std[b, t + d, s]
                    m2, s2 = prior_mean[b, t, d, s], prior_std[b, t, d, s]
                    total += np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
                result[b, t, d] = max(0.0, total - nats)
    return result


def refit(actions, returns, elites, std):
    """CEM refit of one planner, actions (J, H, A), by sorting a Python list."""
    ranking = sorted(range(len(returns)), key=lambda j: (-returns[j], j))[:elites]
    chosen = [actions[j] for j in ranking]
    mean = sum(chosen) / elites
    if std == "paper":
        return mean, sum(np.abs(a - mean) for a in chosen) / (elites - 1)
    return mean, np.sqrt(sum((a - mean) ** 2 for a in chosen) / elites + 1e-6)


def previous_actions(action, is_first, before):
    """Row by row."""
    result = np.zeros_like(action)
    for b in range(action.shape[0]):
        for t in range(action.shape[1]):
            if is_first[b, t]:
                continue
            result[b, t] = before[b] if t == 0 else action[b, t - 1]
    return result


def quantise(image, bits):
    """By dropping bits of the integers."""
    return (np.asarray(image, dtype=np.uint8) >> (8 - bits)).astype(np.float64) / 2**bits - 0.5


def adam_by_torch(param, grads, lr, beta1, beta2, eps):
    """TensorFlow's Adam from torch.optim.Adam, whose epsilon of step t must be eps / sqrt(1 - beta2^t). All parameters
    after every step."""
    import torch

    parameter = torch.nn.Parameter(torch.tensor(param))
    optimiser = torch.optim.Adam([parameter], lr=lr, betas=(beta1, beta2))
    history = []
    for t, grad in enumerate(grads, start=1):
        optimiser.param_groups[0]["eps"] = eps / (1 - beta2**t) ** 0.5
        parameter.grad = torch.tensor(grad)
        optimiser.step()
        history.append(parameter.detach().numpy().copy())
    return np.stack(history)
