"""The formulas as an expert of torch would write them, with its own functions: the opponents in benchmarks/formulas.py.

Arguments and results as in shared/formulas at the sizes measured, no checks. by_hand_jax.py has the same names.
"""

import math

import torch
from torch.nn import functional as F

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def lambda_return(reward, discount, next_value, lambda_):
    inputs = reward + discount * (1 - lambda_) * next_value
    value, rows = next_value[-1], []
    for offset, slope in zip(reversed(inputs.unbind()), reversed((discount * lambda_).unbind()), strict=True):
        value = torch.addcmul(offset, slope, value)
        rows.append(value)
    return torch.stack(rows[::-1])


def discount_weights(discount):
    return torch.cat([torch.ones_like(discount[:1]), discount[:-1]]).cumprod(0)


def categorical_kl(logits_p, logits_q):
    log_p, log_q = F.log_softmax(logits_p, -1), F.log_softmax(logits_q, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    return torch.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5


def balanced_categorical_kl(post, prior, alpha):
    log_p, log_q = F.log_softmax(post, -1), F.log_softmax(prior, -1)  # once for both sides

    def kl(log_p, log_q):
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    return alpha * kl(log_p.detach(), log_q) + (1 - alpha) * kl(log_p, log_q.detach())


def gaussian_log_prob(x, mean, std):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - HALF_LOG_TWO_PI


def bernoulli_log_prob(x, logits):
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none")


def tanh_normal_log_prob(action, mean, std):
    z = action.clamp(-1 + 2**-24, 1 - 2**-24).atanh()
    normal = -0.5 * ((z - mean) / std) ** 2 - std.log() - HALF_LOG_TWO_PI
    return normal - 2 * (math.log(2) - z - F.softplus(-2 * z))


def truncated_normal_log_prob(x, loc, scale, low, high):
    mass = torch.special.ndtr((high - loc) / scale) - torch.special.ndtr((low - loc) / scale)
    log_prob = -0.5 * ((x - loc) / scale) ** 2 - (scale * mass).log() - HALF_LOG_TWO_PI
    return torch.where((x < low) | (x > high), -math.inf, log_prob)


def symlog(x):
    return x.sign() * x.abs().log1p()


def twohot(x, bins):
    x = x.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x, right=True).clamp(1, len(bins) - 1)
    left, right = bins[above - 1], bins[above]
    share = (x - left) / (right - left)
    index, weight = torch.stack([above - 1, above], -1), torch.stack([1 - share, share], -1)
    return x.new_zeros(*x.shape, len(bins)).scatter(-1, index, weight)


def twohot_mean(probs, bins):
    half = len(bins) // 2  # differences first: p * b - q * b is not 0 for p = q where products and sums are fused
    return ((probs[..., -half:] - probs[..., :half].flip(-1)) * bins[-half:]).sum(-1) + probs[..., half] * bins[half]


def unimix(logits, mix):
    return ((1 - mix) * logits.softmax(-1) + mix / logits.shape[-1]).log()


def categorical_sample(probs, uniform):
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniform[..., None] * cumulative[..., -1:], right=True)
    return torch.zeros_like(probs).scatter_(-1, index.clamp_(max=probs.shape[-1] - 1), 1.0)


def straight_through(sample, probs):
    return sample + probs - probs.detach()


def reparameterise(mean, std, noise):
    return torch.addcmul(mean, std, noise)


def percentile(x, q):
    return torch.quantile(x, q / 100)
