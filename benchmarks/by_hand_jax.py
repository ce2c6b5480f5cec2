"""The formulas as an expert of JAX would write them, with its own functions: the opponents in benchmarks/formulas.py.

Arguments and results as in shared/formulas at the sizes measured, no checks. by_hand_torch.py has the same names.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy import stats
from jax.scipy.special import ndtr

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def lambda_return(reward, discount, next_value, lambda_):
    def step(value, row):
        reward, discount, next_value = row
        value = reward + discount * ((1 - lambda_) * next_value + lambda_ * value)
        return value, value

    return jax.lax.scan(step, next_value[-1], (reward, discount, next_value), reverse=True)[1]


def discount_weights(discount):
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(discount[:1]), discount[:-1]]), axis=0)


def categorical_kl(logits_p, logits_q):
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def gaussian_kl(mean_p, std_p, mean_q, std_q):
    return jnp.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5


def balanced_categorical_kl(post, prior, alpha):
    log_p, log_q = jax.nn.log_softmax(post), jax.nn.log_softmax(prior)  # once for both sides
    sg = jax.lax.stop_gradient

    def kl(log_p, log_q):
        return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)

    return alpha * kl(sg(log_p), log_q) + (1 - alpha) * kl(log_p, sg(log_q))


def gaussian_log_prob(x, mean, std):
    return stats.norm.logpdf(x, mean, std)


def bernoulli_log_prob(x, logits):
    return x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)


def tanh_normal_log_prob(action, mean, std):
    z = jnp.arctanh(jnp.clip(action, -1 + 2**-24, 1 - 2**-24))
    return stats.norm.logpdf(z, mean, std) - 2 * (math.log(2) - z - jax.nn.softplus(-2 * z))


def truncated_normal_log_prob(x, loc, scale, low, high):
    mass = ndtr((high - loc) / scale) - ndtr((low - loc) / scale)
    return jnp.where((x < low) | (x > high), -jnp.inf, stats.norm.logpdf(x, loc, scale) - jnp.log(mass))


def symlog(x):
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def twohot(x, bins):
    x = jnp.clip(x, bins[0], bins[-1]).ravel()
    above = jnp.clip(jnp.searchsorted(bins, x, side="right"), 1, len(bins) - 1)
    share = (x - bins[above - 1]) / (bins[above] - bins[above - 1])
    rows = jnp.arange(len(x))
    return jnp.zeros((len(x), len(bins))).at[rows, above - 1].set(1 - share).at[rows, above].set(share)


def twohot_mean(probs, bins):
    half = len(bins) // 2  # differences first: p * b - q * b is not 0 for p = q where products and sums are fused
    return ((probs[..., -half:] - probs[..., :half][..., ::-1]) * bins[-half:]).sum(-1) + probs[..., half] * bins[half]


def unimix(logits, mix):
    return jnp.log((1 - mix) * jax.nn.softmax(logits) + mix / logits.shape[-1])


def categorical_sample(probs, uniform):
    cumulative = jnp.cumsum(probs, -1)
    index = (cumulative <= uniform[..., None] * cumulative[..., -1:]).sum(-1)
    return jax.nn.one_hot(jnp.minimum(index, probs.shape[-1] - 1), probs.shape[-1])


def straight_through(sample, probs):
    return sample + probs - jax.lax.stop_gradient(probs)


def reparameterise(mean, std, noise):
    return mean + std * noise


def percentile(x, q):
    return jnp.percentile(x, q)
