"""How good are gradients through a categorical sample? Every estimator against the exact gradient by enumeration.

    python -m shared.testing.estimators --numbers results/estimators.csv --samples 20000 --seed 0

The quantity is d E[f(z)] / d logits for one categorical z of K classes; f is a random tanh network with one hidden
layer, as a model puts on its latent, or linear as a check (there straight-through is exact). `share` says how much of
the hidden layer's input variance comes from z, the rest being constant: 1/2 is a hard case, 1/32 one latent among
DreamerV2's 32. Estimators that depend on z alone are enumerated, so their bias and variance carry no noise; those of
Gumbel noise are sampled. shared/figures/estimators.py draws what this file writes.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from shared.checkpoint import write_whole
from shared.errors import UserError, cli
from shared.figures.sources import table_csv
from shared.formulas.distributions import categorical_log_prob
from shared.formulas.sampling import score_through, straight_through
from shared.provenance import ROOT, code_digest

CLASSES = (2, 4, 8, 16, 32, 64)
TEMPERATURES = (0.1, 0.3, 1.0, 3.0)
SETTINGS = (("network", 1 / 2), ("network", 1 / 32), ("linear", 1 / 2))  # (reward, share)
HIDDEN = 32
CHUNKS = 20  # equal parts of the samples; their scatter gives the Monte-Carlo errors
CODE = ("shared/testing/estimators.py", "shared/formulas")  # what decides the numbers


@dataclass(frozen=True)
class Problem:
    """A categorical and what it is rewarded for. Tensors of torch, float64; logits (K,), weight (K, HIDDEN)."""

    logits: object
    weight: object
    shift: object
    readout: object
    linear: bool

    def reward(self, z):
        """f(z), (...), of one-hot or relaxed samples, (..., K)."""
        hidden = z @ self.weight + self.shift
        return (hidden if self.linear else hidden.tanh()) @ self.readout

    def classes(self):
        """All K one-hot samples, (K, K)."""
        import torch

        return torch.eye(len(self.logits), dtype=torch.float64)


def random_problem(rng: np.random.Generator, classes: int, share: float, reward: str) -> Problem:
    """Unit normal logits and weights; every hidden unit gets input of mean square 1, `share` of it from the sample."""
    import torch

    logits, weight = rng.normal(size=classes), rng.normal(size=(classes, HIDDEN))
    shift, readout = rng.normal(size=(2, HIDDEN))
    parts = (logits, weight * share**0.5, shift * (1 - share) ** 0.5, readout / HIDDEN**0.5)
    return Problem(*map(torch.tensor, parts), linear=reward == "linear")


# The estimators: functions of the logits (N, K) whose derivative is the estimate, one per row.


def by_straight_through(problem: Problem, logits, sample):
    return problem.reward(straight_through(sample, logits.softmax(-1)))


def by_score(problem: Problem, logits, sample):
    """Score function (REINFORCE)."""
    return problem.reward(sample) * categorical_log_prob(sample, logits)


def by_score_with_baseline(problem: Problem, logits, sample):
    """Score function less the expected reward: what a perfect critic would subtract."""
    return (problem.reward(sample) - expected_reward(problem, problem.logits)) * categorical_log_prob(sample, logits)


def by_score_through(problem: Problem, logits, sample):
    """Dreamer's discrete actions (TF1): the score function carried by the sample, through a differentiable reward."""
    return problem.reward(score_through(sample, categorical_log_prob(sample, logits)))


def by_gumbel_softmax(problem: Problem, logits, gumbel, temperature: float):
    return problem.reward(((logits + gumbel) / temperature).softmax(-1))


def by_straight_through_gumbel(problem: Problem, logits, gumbel, temperature: float):
    noisy = logits + gumbel
    sample = problem.classes()[noisy.argmax(-1)]
    return problem.reward(straight_through(sample, (noisy / temperature).softmax(-1)))


ENUMERATED: Mapping[str, Callable] = {
    "straight-through": by_straight_through,
    "score function": by_score,
    "score function, baseline": by_score_with_baseline,
    "score through": by_score_through,
}
SAMPLED: Mapping[str, Callable] = {
    "Gumbel-softmax": by_gumbel_softmax,
    "straight-through Gumbel": by_straight_through_gumbel,
}


def expected_reward(problem: Problem, logits):
    """E[f(z)] by enumeration."""
    return logits.softmax(-1) @ problem.reward(problem.classes())


def exact_gradient(problem: Problem) -> np.ndarray:
    """d E[f(z)] / d logits, (K,)."""
    return gradients(lambda logits: expected_reward(problem, logits), problem, 1)[0]


def gradients(surrogate: Callable, problem: Problem, rows: int) -> np.ndarray:
    """The derivative of surrogate(logits), (rows,), with respect to each row of logits, (rows, K)."""
    import torch

    logits = problem.logits.repeat(rows, 1).requires_grad_()
    return torch.autograd.grad(surrogate(logits).sum(), logits)[0].numpy()


# Their quality


def enumerated_quality(estimator: Callable, problem: Problem) -> dict[str, float]:
    """Exact bias, variance and cosine, from the estimate at every class."""
    each = gradients(lambda logits: estimator(problem, logits, problem.classes()), problem, len(problem.logits))
    probs = problem.logits.softmax(-1).numpy()
    mean, exact = probs @ each, exact_gradient(problem)
    variance = probs @ np.square(each - mean).sum(-1)
    return _relative(exact, np.square(mean - exact).sum(), variance, np.square(mean).sum(), mean @ exact)


def sampled_quality(estimator: Callable, problem: Problem, gumbel: np.ndarray, temperature: float) -> dict[str, float]:
    """The same from samples, each with its standard error; gumbel: (N, K), N a multiple of CHUNKS."""
    import torch

    noise = torch.tensor(gumbel)
    each = gradients(lambda logits: estimator(problem, logits, noise, temperature), problem, len(noise))
    each = each.reshape(CHUNKS, -1, each.shape[-1])
    means, squares = each.mean(1), np.square(each).sum(-1).mean(1)
    exact = exact_gradient(problem)
    every = np.arange(CHUNKS)
    parts = pd.DataFrame([_from_chunks(means[every != k], squares[every != k], exact) for k in every])
    errors = ((CHUNKS - 1) * parts.var(ddof=0)) ** 0.5  # jackknife
    return _from_chunks(means, squares, exact) | {f"{name}_error": error for name, error in errors.items()}


def _from_chunks(means: np.ndarray, squares: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Without the bias that noise in a mean gives to its square: products of different chunks only."""
    mean = means.mean(0)
    mean_square = _square_of_mean(means)
    return _relative(exact, _square_of_mean(means - exact), squares.mean() - mean_square, mean_square, mean @ exact)


def _square_of_mean(rows: np.ndarray) -> float:
    """Unbiased estimate of |E row|^2 from independent rows."""
    count = len(rows)
    return (np.square(rows.sum(0)).sum() - np.square(rows).sum()) / (count * (count - 1))


def _relative(exact: np.ndarray, bias: float, variance: float, mean_square: float, product: float) -> dict[str, float]:
    """Squared bias and variance in units of the squared length of the exact gradient; its cosine with the mean."""
    size = np.square(exact).sum()
    cosine = product / (size * mean_square) ** 0.5 if mean_square > 0 else np.nan
    return {"bias": bias / size, "variance": variance / size, "cosine": cosine}


# The study


def study(samples: int, seed: int, problems: int) -> pd.DataFrame:
    """A row per setting, number of classes, problem, estimator and temperature.

    Columns: reward, share, classes, problem, estimator, temperature (NaN: none), bias (squared) and variance in units
    of the squared exact gradient, cosine of mean estimate and exact gradient, their Monte-Carlo errors (0: enumerated).
    Problem i of K classes has the same parameters and noise in every setting.
    """
    rows = []
    for classes in CLASSES:
        for problem in range(problems):
            for reward, share in SETTINGS:
                of = {"reward": reward, "share": share, "classes": classes, "problem": problem}
                rng = np.random.default_rng([seed, classes, problem])
                drawn = random_problem(rng, classes, share, reward)
                rows += [of | row for row in _qualities(drawn, rng, samples)]
    return pd.DataFrame(rows)


def _qualities(problem: Problem, rng: np.random.Generator, samples: int) -> list[dict[str, object]]:
    none = {"temperature": np.nan, "bias_error": 0.0, "variance_error": 0.0, "cosine_error": 0.0}
    rows = [{"estimator": n, **none, **enumerated_quality(e, problem)} for n, e in ENUMERATED.items()]
    if problem.linear:  # a check of straight-through; the relaxations are biased all the same
        return rows
    gumbel = rng.gumbel(size=(samples, len(problem.logits)))
    for name, estimator in SAMPLED.items():
        for temperature in TEMPERATURES:
            quality = sampled_quality(estimator, problem, gumbel, temperature)
            rows.append({"estimator": name, "temperature": temperature, **quality})
    return rows


@cli
def main(arguments: list[str]) -> None:
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m shared.testing.estimators", description="Bias and variance of gradients through a sample."
    )
    parser.add_argument("--numbers", type=Path, required=True, help="CSV to write")
    parser.add_argument("--samples", type=int, default=20_000, help="Gumbel draws per problem (default: 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=16, help="random problems per number of classes (default: 16)")
    asked = parser.parse_args(arguments)
    if asked.samples < 2 * CHUNKS or asked.problems < 1 or asked.seed < 0:
        raise UserError(f"estimators: needs --samples >= {2 * CHUNKS}, --problems >= 1 and --seed >= 0")
    torch.set_num_threads(1)  # the arrays are small, and the sums then have one order
    samples = asked.samples // CHUNKS * CHUNKS
    code = code_digest([ROOT / path for path in CODE])
    frame = study(samples, asked.seed, asked.problems).assign(samples=samples, seed=asked.seed, code=code)
    asked.numbers.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked.numbers, table_csv(frame))
    print(f"estimators: {len(frame)} rows; wrote {asked.numbers}")


if __name__ == "__main__":
    sys.exit(main())
