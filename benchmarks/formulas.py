"""What writing each formula once costs: shared/formulas against hand-written torch and JAX, eager and compiled.

    python -m benchmarks.formulas --out results/benchmarks/formulas.json               (about three minutes)

float32 at sizes of training, one core. Ours and theirs take turns in short groups, and the ratio of each turn counts:
its median says what the abstraction costs, its quartiles how sure that is. Groups are timed in CPU seconds of this
process, so that a neighbour who takes the core does not count; shorter than the 0.3 s of timing.py, because a ratio
needs many turns. The opponents are by_hand_torch.py and by_hand_jax.py; the limit is 10 % when compiled.
"""

import argparse
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import timing
from shared.errors import UserError, cli
from shared.formulas import distributions, divergences, elbo, normalization, returns, sampling, transforms

GROUP_SECONDS = 0.003  # CPU time of a group, or one call; short, so that both sides meet the same disturbances
LEAST_TURNS, MOST_TURNS = 15, 100
COMPILED = ("torch compiled", "jax jit")
LIMIT = 1.10  # ours may take that much of theirs, compiled
AGREE = {"rtol": 1e-3, "atol": 1e-4}  # float32, sums in another order: the same function, not the same rounding
DISCOUNT, LAMBDA, ALPHA, MIX, PERCENT = 0.997, 0.95, 0.8, 0.01, 95
BINS = transforms.symexp_bins(255, -20, 20)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, GIB = -1, -3, 2**30  # of glibc's malloc.h
Arrays = tuple[np.ndarray, ...]
Draw = Callable[[np.random.Generator], Arrays]


@dataclass(frozen=True)
class Case:
    """One formula at one size. by_hand: its name in the files of opponents. differentiated: which arguments."""

    formula: Callable
    by_hand: str
    arrays: Draw
    numbers: tuple[float, ...] = ()  # further arguments
    differentiated: tuple[int, ...] = ()
    compiled: bool = False  # by torch too: seconds per case


def normal(*shapes: Sequence[int]) -> Draw:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def rollout(*shape: int) -> Draw:
    """Reward, discount and next value, time first."""
    return lambda rng: (rng.normal(size=shape), DISCOUNT * rng.uniform(size=shape), rng.normal(size=shape))


def gaussians(*shape: int) -> Draw:
    """Mean and standard deviation of two Gaussians."""
    return lambda rng: tuple(part for _ in "pq" for part in (rng.normal(size=shape), rng.uniform(0.2, 2, shape)))


def actions(*shape: int) -> Draw:
    """Action, location and scale."""
    return lambda rng: (rng.uniform(-0.99, 0.99, shape), rng.uniform(-0.9, 0.9, shape), rng.uniform(0.1, 1, shape))


def probabilities(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def balanced_categorical_kl(post, prior, alpha):
    return divergences.balanced(divergences.categorical_kl, post, prior, alpha)


LATENT, IMAGE, DREAM = (1024, 32, 32), (256, 64, 64, 3), (16, 1024)


CASES: Mapping[str, Case] = {
    "lambda_return 15x1024": Case(
        returns.lambda_return, "lambda_return", rollout(15, 1024), (LAMBDA,), (0, 1, 2), compiled=True
    ),
    "lambda_return 64x1024": Case(returns.lambda_return, "lambda_return", rollout(64, 1024), (LAMBDA,), (0, 1, 2)),
    "discount_weights 16x1024": Case(
        returns.discount_weights, "discount_weights", lambda rng: (rng.uniform(0.9, 1, DREAM),), compiled=True
    ),
    "categorical_kl 1024x32x32": Case(
        divergences.categorical_kl, "categorical_kl", normal(LATENT, LATENT), (), (0, 1), compiled=True
    ),
    "balanced 1024x32x32": Case(
        balanced_categorical_kl, "balanced_categorical_kl", normal(LATENT, LATENT), (ALPHA,), (0, 1), compiled=True
    ),
    "gaussian_kl 2500x30": Case(
        divergences.gaussian_kl, "gaussian_kl", gaussians(2500, 30), (), (0, 1, 2, 3), compiled=True
    ),
    "gaussian_log_prob 256x64x64x3": Case(
        elbo.gaussian_log_prob, "gaussian_log_prob", normal(IMAGE, IMAGE), (1.0,), (1,), compiled=True
    ),
    "bernoulli_log_prob 16x1024": Case(
        elbo.bernoulli_log_prob,
        "bernoulli_log_prob",
        lambda rng: (rng.uniform(size=DREAM), rng.normal(size=DREAM)),
        differentiated=(1,),
    ),
    "tanh_normal_log_prob 15x1024x6": Case(
        distributions.tanh_normal_log_prob, "tanh_normal_log_prob", actions(15, 1024, 6), (), (1, 2), compiled=True
    ),
    "truncated_normal_log_prob 15x1024x6": Case(
        distributions.truncated_normal_log_prob, "truncated_normal_log_prob", actions(15, 1024, 6), (-1.0, 1.0), (1, 2)
    ),
    "symlog 16x1024": Case(transforms.symlog, "symlog", normal(DREAM), (), (0,), compiled=True),
    "twohot 1024x255": Case(
        transforms.twohot, "twohot", lambda rng: (100 * rng.normal(size=1024), BINS), compiled=True
    ),
    "twohot_mean 1024x255": Case(
        transforms.twohot_mean,
        "twohot_mean",
        lambda rng: (probabilities(rng, 1024, 255), BINS / BINS[-1]),
        (),
        (0,),
        compiled=True,
    ),
    "unimix 1024x32x32": Case(sampling.unimix, "unimix", normal(LATENT), (MIX,), (0,), compiled=True),
    "categorical_sample 1024x32x32": Case(
        sampling.categorical_sample,
        "categorical_sample",
        lambda rng: (probabilities(rng, *LATENT), rng.uniform(size=LATENT[:-1])),
        compiled=True,
    ),
    "straight_through 1024x32x32": Case(
        sampling.straight_through, "straight_through", normal(LATENT, LATENT), (), (1,)
    ),
    "reparameterise 2500x30": Case(
        sampling.reparameterise, "reparameterise", normal((2500, 30), (2500, 30), (2500, 30)), (), (0, 1)
    ),
    "percentile 16x1024": Case(normalization.percentile, "percentile", normal(DREAM), (PERCENT,)),
}


# One side of a case as a function without arguments that ends when its work is done


def in_torch(case: Case, function: Callable, gradient: bool, compiled: bool) -> Callable[[], Sequence]:
    import torch

    arrays = [torch.tensor(x, dtype=torch.float32) for x in case.arrays(np.random.default_rng(0))]
    inputs = [arrays[index].requires_grad_() for index in case.differentiated if gradient]

    def value(*arrays):
        return function(*arrays, *case.numbers)

    if compiled:
        value = torch.compile(value, fullgraph=True)
    if not gradient:
        return lambda: [value(*arrays)]
    weights = torch.tensor(random_weights(value(*arrays).shape), dtype=torch.float32)
    return lambda: torch.autograd.grad(value(*arrays), inputs, weights)


def in_jax(case: Case, function: Callable, gradient: bool, compiled: bool) -> Callable[[], Sequence]:
    import jax

    arrays = [jax.numpy.asarray(x, dtype="float32") for x in case.arrays(np.random.default_rng(0))]

    def value(*arrays):
        return function(*arrays, *case.numbers)

    def gradients(weights, *arrays):
        every = jax.vjp(value, *arrays)[1](weights)
        return [every[index] for index in case.differentiated]

    wanted = gradients if gradient else value
    inputs = [jax.numpy.asarray(random_weights(value(*arrays).shape), dtype="float32"), *arrays] if gradient else arrays
    wanted = jax.jit(wanted) if compiled else wanted
    return lambda: jax.tree.leaves(jax.block_until_ready(wanted(*inputs)))


def random_weights(shape: Sequence[int]) -> np.ndarray:
    """Of the results in the sum that is differentiated: with equal ones, a compiler computes half of it in advance."""
    return np.random.default_rng(1).normal(size=tuple(shape))


# Measuring


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Everything on one core, and freed memory kept: page faults of fresh arrays are chance, larger than the overhead.

    JAX sizes its threads when it starts, so it must start inside.
    """
    import torch

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        libc.mallopt(threshold, GIB)
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # the work in the calling thread
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def take_turns(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> dict[str, float]:
    """Ratio ours / theirs over the turns, and CPU seconds per call: median and least of the groups."""
    once = _cpu_seconds(ours, 1) + _cpu_seconds(theirs, 1)
    calls = max(1, round(2 * GROUP_SECONDS / once))
    turns = int(np.clip(seconds / (calls * once), LEAST_TURNS, MOST_TURNS))
    times = np.array([[_cpu_seconds(side, calls) for side in (ours, theirs)] for _ in range(turns)]) / calls
    low, middle, high = map(float, np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75]))
    (ours_median, theirs_median), (ours_min, theirs_min) = np.median(times, 0).tolist(), times.min(0).tolist()
    return {
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
        "ours": ours_median,
        "theirs": theirs_median,
        "ours_min": ours_min,
        "theirs_min": theirs_min,
        "turns": turns,
    }


def _cpu_seconds(function: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        function()
    return time.process_time() - start


def _wall_seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(case: Case, seconds: float, compile_torch: bool) -> dict[str, dict[str, float]]:
    """Every way of running one case -> ratio and times."""
    results = {}
    for gradient in (False, True) if case.differentiated else (False,):
        ways = {"torch eager": (in_torch, False), "jax jit": (in_jax, True)}
        if case.compiled and compile_torch:
            ways["torch compiled"] = (in_torch, True)
        if not gradient:  # nobody differentiates in JAX without jit
            ways["jax eager"] = (in_jax, False)
        for way, (make, compiled) in ways.items():
            name = f"{way}, gradient" if gradient else way
            results[name] = measure_way(case, make, gradient, compiled, seconds)
    return results


def measure_way(case: Case, make: Callable, gradient: bool, compiled: bool, seconds: float) -> dict[str, float]:
    """take_turns, and wall seconds of the first call (compilation; torch keeps compiled code on disk)."""
    import torch

    from benchmarks import by_hand_jax, by_hand_torch

    torch.compiler.reset()  # both sides share the code of `value`, and torch compiles one code only so many times
    opponent = getattr(by_hand_torch if make is in_torch else by_hand_jax, case.by_hand)
    ours, theirs = (make(case, function, gradient, compiled) for function in (case.formula, opponent))
    first = {"ours_first": _wall_seconds(ours), "theirs_first": _wall_seconds(theirs)}
    for got, expected in zip(ours(), theirs(), strict=True):
        np.testing.assert_allclose(*(np.asarray(x.tolist()) for x in (got, expected)), **AGREE, err_msg=case.by_hand)
    return take_turns(ours, theirs, seconds) | first


def above_limit(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Compiled cases whose median ratio exceeds the limit, worst first."""
    found = [
        (times["ratio"], f"{case}, {way}: {times['ratio']:.2f} ({times['ratio_low']:.2f} to {times['ratio_high']:.2f})")
        for case, ways in results.items()
        for way, times in ways.items()
        if way.startswith(COMPILED) and times["ratio"] > LIMIT
    ]
    return [words for _, words in sorted(found, reverse=True)]


@cli
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[""], help="cases whose name begins with one of these")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile, which takes most of the time"
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time for each pair, seconds")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args(arguments)
    chosen = {name: case for name, case in CASES.items() if name.startswith(tuple(options.only))}
    if not chosen or options.seconds <= 0:
        raise UserError(f"benchmarks.formulas: nothing to measure; cases are {', '.join(CASES)}; --seconds above 0")
    with one_core():
        results = {name: measure(case, options.seconds, not options.no_compile) for name, case in chosen.items()}
    above = above_limit(results)
    timing.report("formulas", {"limit": LIMIT, "above_limit": above, "cases": results}, options.out)
    print(f"compiled and above {LIMIT:.2f}: {'; '.join(above) or 'none'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
