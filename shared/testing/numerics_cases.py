"""What the numerics report runs: every formula with its hard inputs, its reference, and the error that it may make.

numerics.py runs this table. A new formula gets a line here, or one in WITHOUT_ROUNDING; a test asks for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mpmath import mpf

from shared.formulas import (
    _math,
    distributions,
    divergences,
    elbo,
    images,
    normalization,
    optimisers,
    planning,
    returns,
    sampling,
    transforms,
)
from shared.testing import numerics_arrays as arrays
from shared.testing import numerics_gradients as gradients
from shared.testing import numerics_inputs as inputs
from shared.testing import numerics_references as exact
from shared.testing.numerics_exact import as_array, elementwise, over_time, rowwise
from shared.testing.numerics_floats import Kind

WITHOUT_ROUNDING = {
    "divergences.floor_nats": "returns one of two numbers as it is",
    "elbo.overshooting_starts": "moves entries",
    "elbo.overshooting_windows": "moves entries",
    "elbo.overshooting_mask": "compares integers",
    "sequences.previous_actions": "moves entries",
    "sequences.reset_where_first": "keeps entries or sets 0",
    "schedules.fires": "plain Python numbers",
    "schedules.linear_ramp": "plain Python numbers",
    "schedules.warmup": "plain Python numbers",
    "schedules.linear": "plain Python numbers",
    "schedules.exponential": "plain Python numbers",
    "schedules.horizon_discount": "plain Python numbers",
}

NOT_PROMISED = "bfloat16"  # throughout, where the README asks for a cast to float32 first


class Special(NamedTuple):
    """Another number of roundings for one library in one precision, or None: nothing is promised.

    families: those that it is about; empty means all.
    """

    library: str
    precision: str
    families: tuple[str, ...]
    roundings: float | None
    why: str


class Tolerance(NamedTuple):
    """|error| <= roundings * eps * scale + flushed * (smallest normal number), in every precision.

    scale: the error if every intermediate result were wrong by its own size (numerics_exact.Exact). flushed: what it
    may cost that JAX on a CPU takes subnormal arguments and results for 0.
    """

    roundings: float
    why: str
    flushed: float = 4
    why_flushed: str = "a few arguments or results"
    specials: tuple[Special, ...] = ()

    def of(self, library: str, precision: str, family: str) -> float | None:
        """The roundings that hold there; None where nothing is promised."""
        for special in self.specials:
            fits = (special.library, special.precision) == (library, precision)
            if fits and (not special.families or family in special.families):
                return special.roundings
        return None if precision == NOT_PROMISED else self.roundings


JAX_LOG1P = Special("jax", "float64", (), 150, "XLA's log1p errs by up to 120 eps around -0.41, and atanh with it")
COMPILED = ("torch compiled", "float32")
COMPILED_ATANH = Special(*COMPILED, ("tiny std",), None, "inductor's atanh errs by eps absolutely")
COMPILED_EXPM1 = Special(*COMPILED, ("near zero", "subnormal"), None, "inductor computes expm1(x) as exp(x) - 1")
COMPILED_ERF = Special(*COMPILED, ("wide",), None, "inductor's erf errs by 2 eps absolutely: too much of a small mass")
COMPILED_STEEP_ERF = Special(*COMPILED, (), 40, "inductor's erf errs by 17 eps between 0.1 and 1")

STEPS = Tolerance(4, "library functions within 2 ulp, up to four roundings of a half")
SUM = Tolerance(20, "32 additions in a row of a half each, and a few steps")
NONE = Tolerance(0, "selects or counts; nothing is rounded")
FIVEFOLD = STEPS._replace(flushed=5, why_flushed="5 tanh(x / 5)")
STEEP = STEPS._replace(flushed=400, why_flushed="a few, divided by std^2, which is 0.01 or more")
BACKWARDS = STEPS._replace(flushed=64, why_flushed="a few in each of the steps that an argument counts in")
ENTROPY = STEPS._replace(flushed=1000, why_flushed="a probability times its logarithm, at most 708")
ENTROPY_SUM = ENTROPY._replace(roundings=SUM.roundings, why=SUM.why)
WITH_ERF = STEPS._replace(specials=(COMPILED_ERF,))
WITH_EXPM1 = STEPS._replace(specials=(COMPILED_EXPM1,))
BINS = Tolerance(68, "128 additions in a row of a half each, and a few steps", 2e9, "times bins, 4.85e8 at the ends")


class Part(NamedTuple):
    """The value or the gradient of a formula. reference: as numerics_exact.elementwise makes it, of all arguments.

    without: families that do not apply.
    """

    reference: Callable
    tolerance: Tolerance
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A line of the report.

    name: module.function, with a remark after a comma where a function has several lines. function: the formula as a
    function of arrays alone. families: (kind, generator) -> arguments by name of the family. parts: by "value",
    "gradient". network: the arguments come from networks, which may compute in bfloat16.
    """

    name: str
    function: Callable
    families: Callable[[Kind, np.random.Generator], Mapping[str, tuple[np.ndarray, ...]]]
    parts: Mapping[str, Part]
    elementwise: bool
    network: bool
    numpy_only: bool

    @property
    def formula(self) -> str:
        """module.function."""
        return self.name.partition(",")[0]


def case(name, function, families, value, tolerance=STEPS, gradient=None, *, per=None, **options) -> Case:
    """value, gradient: references; a gradient may be (reference, tolerance, without).

    per: elementwise, rowwise or over_time where the references are functions of single numbers, rows or columns.
    """
    parts = {"value": Part(value, tolerance)}
    if gradient is not None:
        parts["gradient"] = gradient if isinstance(gradient, Part) else Part(gradient, tolerance)
    if per is not None:
        parts = {quantity: part._replace(reference=per(part.reference)) for quantity, part in parts.items()}
    flags = {"network": True, "numpy_only": False} | options
    return Case(name, function, families, parts, elementwise=per is elementwise, **flags)


def each(first: Callable) -> Callable:
    """A reference of arrays whose first argument is taken one number at a time, the others whole."""
    return lambda x, *whole: elementwise(lambda number: first(number, *whole))(x)


def first_argument(families: Callable) -> Callable:
    return lambda kind, rng: {name: arguments[:1] for name, arguments in families(kind, rng).items()}


def balanced_gaussian_kl(mean_p, std_p, mean_q, std_q):
    return divergences.balanced(lambda p, q: divergences.gaussian_kl(*p, *q), (mean_p, std_p), (mean_q, std_q), 0.8)


def twohot_rows(x, bins):
    return [np.stack([as_array(exact.twohot(number, bins)[0], (-1,)) for number in x])]


ONE, MINUS_ONE, FIVE = mpf(1), mpf(-1), mpf(5)
ADAM, LAPROP = (1e-3, 0.9, 0.999, 1e-4), (4e-5, 0.9, 0.999, 1e-20)

CASES = [
    case("_math.softplus", _math.softplus, inputs.log_odds, exact.softplus, per=elementwise),
    case("_math.sigmoid", _math.sigmoid, inputs.log_odds, exact.sigmoid, per=elementwise),
    case("_math.logsumexp", lambda x: _math.logsumexp(x, -1), arrays.logits, exact.logsumexp, SUM, per=rowwise),
    case("_math.log_softmax", _math.log_softmax, arrays.logits, exact.log_softmax, SUM, per=rowwise),
    case("_math.log", _math.log, inputs.positive, exact.log, per=elementwise),
    case("_math.softmax", _math.softmax, arrays.logits, exact.softmax, SUM, per=rowwise),
    case(
        "distributions.categorical_log_prob", distributions.categorical_log_prob, arrays.targets,
        exact.categorical_log_prob, SUM, gradients.categorical_log_prob, per=rowwise,
    ),
    case(
        "distributions.categorical_entropy", distributions.categorical_entropy, arrays.logits,
        exact.categorical_entropy, ENTROPY_SUM, gradients.categorical_entropy, per=rowwise,
    ),
    case(
        "distributions.gaussian_entropy", distributions.gaussian_entropy, inputs.positive, exact.gaussian_entropy,
        per=elementwise,
    ),
    case(
        "distributions.bernoulli_entropy", distributions.bernoulli_entropy, inputs.log_odds, exact.bernoulli_entropy,
        ENTROPY, gradients.bernoulli_entropy, per=elementwise,
    ),
    case(
        "distributions.tanh_normal", lambda m, s: distributions.tanh_normal(m, s, 5.0, 5.0, 1e-4), inputs.head,
        lambda m, s: exact.tanh_normal(m, s, FIVE, FIVE, mpf(1e-4)),
        FIVEFOLD, lambda m, s: gradients.tanh_normal(m, s, FIVE, FIVE), per=elementwise,
    ),
    case(
        "distributions.tanh_normal_log_prob", distributions.tanh_normal_log_prob, inputs.squashed,
        exact.tanh_normal_log_prob, STEPS._replace(specials=(JAX_LOG1P,)),
        Part(gradients.tanh_normal_log_prob, STEEP._replace(specials=(JAX_LOG1P, COMPILED_ATANH))), per=elementwise,
    ),
    case(
        "distributions.truncated_normal", lambda m, s: distributions.truncated_normal(m, s, 0.0, 0.1), inputs.head,
        lambda m, s: exact.truncated_normal(m, s, mpf(0), mpf(0.1)), STEPS,
        lambda m, s: gradients.truncated_normal(m, s, mpf(0)), per=elementwise,
    ),
    case(
        "distributions.truncated_normal_log_prob",
        lambda x, m, s: distributions.truncated_normal_log_prob(x, m, s, -1.0, 1.0), inputs.truncated,
        lambda x, m, s: exact.truncated_normal_log_prob(x, m, s, MINUS_ONE, ONE), WITH_ERF,
        Part(
            lambda x, m, s: gradients.truncated_normal_log_prob(x, m, s, MINUS_ONE, ONE),
            STEEP._replace(specials=(COMPILED_ERF,)), ("outside",),
        ),
        per=elementwise,
    ),
    case(
        "distributions.truncated_normal_entropy",
        lambda m, s: distributions.truncated_normal_entropy(m, s, -1.0, 1.0), inputs.truncated_parameters,
        lambda m, s: exact.truncated_normal_entropy(m, s, MINUS_ONE, ONE), WITH_ERF,
        lambda m, s: gradients.truncated_normal_entropy(m, s, MINUS_ONE, ONE), per=elementwise,
    ),
    case(
        "distributions.bounded_normal", lambda m, s: distributions.bounded_normal(m, s, 0.1, 1.0), inputs.head,
        lambda m, s: exact.bounded_normal(m, s, 0.1, 1.0), STEPS,
        lambda m, s: gradients.bounded_normal(m, s, 0.1, 1.0), per=elementwise,
    ),
    case(
        "divergences.categorical_kl", divergences.categorical_kl, arrays.logits_pairs, exact.categorical_kl, SUM,
        gradients.categorical_kl, per=rowwise,
    ),
    case(
        "divergences.gaussian_kl", divergences.gaussian_kl, inputs.gaussian_pairs, exact.gaussian_kl, STEPS,
        Part(gradients.gaussian_kl, STEEP), per=elementwise,
    ),
    case(
        "divergences.balanced", balanced_gaussian_kl, inputs.gaussian_pairs, exact.gaussian_kl, STEPS,
        Part(gradients.balanced_gaussian_kl(0.8), STEEP), per=elementwise,
    ),
    case(
        "elbo.gaussian_log_prob", elbo.gaussian_log_prob, inputs.gaussians, exact.gaussian_log_prob, STEPS,
        Part(gradients.gaussian_log_prob, STEEP), per=elementwise,
    ),
    case(
        "elbo.gaussian_log_prob, std 1", lambda x, m: elbo.gaussian_log_prob(x, m, 1.0), inputs.two_numbers,
        lambda x, m: exact.gaussian_log_prob(x, m, ONE), per=elementwise,
    ),
    case(
        "elbo.bernoulli_log_prob", elbo.bernoulli_log_prob, inputs.events, exact.bernoulli_log_prob, STEPS,
        gradients.bernoulli_log_prob, per=elementwise,
    ),
    case(
        "elbo.info_nce", elbo.info_nce, arrays.candidates,
        lambda x, candidates: rowwise(exact.info_nce)(x, candidates.T), SUM,
    ),
    case(
        "elbo.overshooting_kl", lambda *args: elbo.overshooting_kl(*args, 1.0), arrays.overshooting,
        exact.overshooting_kl(1.0),
    ),
    case(
        "images.centre", images.centre, first_argument(inputs.pixels), exact.centre, per=elementwise, network=False,
    ),
    case(
        "images.quantise", lambda x, noise: images.quantise(x, 5, noise), inputs.pixels,
        lambda x, noise: exact.quantise(x, noise, 5), per=elementwise, network=False,
    ),
    case(
        "images.dequantise", lambda x: images.dequantise(x, 5), inputs.levels, lambda x: exact.dequantise(x, 5), NONE,
        per=elementwise, network=False,
    ),
    case(
        "images.dequantise_uint8", lambda x: images.dequantise_uint8(x, 5), inputs.levels,
        lambda x: exact.dequantise_uint8(x, 5), NONE, per=elementwise, network=False,
    ),
    case(
        "normalization.percentile", lambda x: (normalization.percentile(x, 5.0), normalization.percentile(x, 95.0)),
        inputs.samples, lambda x: exact.percentile(5)(x) + exact.percentile(95)(x), network=False,
    ),
    case(
        "normalization.ema", lambda old, new: normalization.ema(old, new, 0.02), inputs.two_numbers,
        lambda old, new: exact.ema(old, new, 0.02), per=elementwise, network=False,
    ),
    case(
        "normalization.debias", lambda a, w: normalization.debias(a, w, 0.01), inputs.averages,
        each(lambda a, w: exact.debias(a, w.item(), 0.01)), network=False,
    ),
    case(
        "normalization.return_range", lambda low, high: normalization.return_range(low, high, 1.0),
        inputs.two_numbers, lambda low, high: exact.return_range(low, high, 1.0), per=elementwise, network=False,
    ),
    case(
        "normalization.moments_std", lambda mean, square: normalization.moments_std(mean, square, 1.0), inputs.moments,
        lambda mean, square: exact.moments_std(mean, square, 1.0), per=elementwise, network=False,
    ),
    case(
        "normalization.magnitude_scaled", lambda x, m: normalization.magnitude_scaled(x, m, 1e-8), inputs.magnitudes,
        each(lambda x, m: exact.magnitude_scaled(x, m.item(), 1e-8)), network=False,
    ),
    case(
        "optimisers.clip_by_global_norm", lambda a, b: optimisers.clip_by_global_norm([a, b], 1.0), arrays.weights,
        exact.clip_by_global_norm(ONE), SUM, network=False,
    ),
    case(
        "optimisers.adam_tf, first step", lambda *args: optimisers.adam_tf(*args, 1, *ADAM), arrays.first_update,
        lambda *args: exact.adam_tf(*args, 1, *ADAM), per=elementwise, network=False,
    ),
    case(
        "optimisers.adam_tf, step 1000", lambda *args: optimisers.adam_tf(*args, 1000, *ADAM), arrays.later_update,
        lambda *args: exact.adam_tf(*args, 1000, *ADAM), per=elementwise, network=False,
    ),
    case(
        "optimisers.adaptive_clip", lambda param, grad: optimisers.adaptive_clip(param, grad, 0.3, 1e-3),
        arrays.weights, exact.adaptive_clip(0.3, 1e-3), SUM, network=False,
    ),
    case(
        "optimisers.laprop, first step", lambda *args: optimisers.laprop(*args, 1, *LAPROP), arrays.first_update,
        lambda *args: exact.laprop(*args, 1, *LAPROP), per=elementwise, network=False,
    ),
    case(
        "optimisers.laprop, step 1000", lambda *args: optimisers.laprop(*args, 1000, *LAPROP),
        arrays.normalised_update, lambda *args: exact.laprop(*args, 1000, *LAPROP), per=elementwise, network=False,
    ),
    case(
        "planning.refit, paper", lambda actions, values: planning.refit(actions, values, 4, std="paper"), arrays.plans,
        exact.refit(4, "paper"), network=False,
    ),
    case(
        "planning.refit, code", lambda actions, values: planning.refit(actions, values, 4, std="code"), arrays.plans,
        exact.refit(4, "code"), network=False,
    ),
    case(
        "returns.lambda_return", lambda *args: returns.lambda_return(*args, 0.95), arrays.transitions,
        exact.lambda_return(0.95), STEPS, Part(gradients.lambda_return(0.95), BACKWARDS), per=over_time,
    ),
    case(
        "returns.discount_weights", returns.discount_weights, arrays.discounts, exact.discount_weights, per=over_time,
    ),
    case(
        "sampling.reparameterise", sampling.reparameterise, inputs.noisy, exact.reparameterise, per=elementwise,
    ),
    case(
        "sampling.truncated_normal_sample", lambda m, s, u: sampling.truncated_normal_sample(m, s, -1.0, 1.0, u),
        inputs.truncated_draws, lambda m, s, u: exact.truncated_normal_sample(m, s, MINUS_ONE, ONE, u), WITH_ERF,
        Part(  # where the sample is an end of the interval, the libraries pass all, half or nothing of the gradient
            lambda m, s, u: gradients.truncated_normal_sample(m, s, MINUS_ONE, ONE, u),
            STEPS._replace(specials=(COMPILED_ERF, COMPILED_STEEP_ERF)), ("draws at the ends",),
        ),
        per=elementwise,
    ),
    case(
        "sampling.unimix", lambda x: sampling.unimix(x, 0.01), arrays.logits, exact.unimix(0.01), SUM,
        gradients.unimix(0.01), per=rowwise,
    ),
    case(
        "sampling.categorical_sample", sampling.categorical_sample, arrays.sampling, exact.categorical_sample, NONE,
        per=rowwise, network=False,
    ),
    case(
        "sampling.straight_through", sampling.straight_through, arrays.one_hot, exact.straight_through, NONE,
        per=elementwise, network=False,
    ),
    case(
        "sampling.score_through", sampling.score_through, arrays.scored, exact.score_through, NONE, per=rowwise,
        network=False,
    ),
    case("transforms.symlog", transforms.symlog, inputs.real, exact.symlog, STEPS, gradients.symlog, per=elementwise),
    case(
        "transforms.symexp", transforms.symexp, inputs.exponents, exact.symexp, WITH_EXPM1, gradients.symexp,
        per=elementwise,
    ),
    case(
        "transforms.symexp_bins", lambda: (transforms.symexp_bins(255, -20, 20), transforms.symexp_bins(8, -20, 20)),
        lambda kind, rng: {"ordinary": ()}, lambda: [exact.symexp_bins(255, -20, 20), exact.symexp_bins(8, -20, 20)],
        numpy_only=True,
    ),
    case("transforms.twohot", transforms.twohot, arrays.encoded, twohot_rows),
    case(
        "transforms.twohot_mean", transforms.twohot_mean, arrays.predicted,
        lambda probs, bins: rowwise(lambda row: exact.twohot_mean(row, bins))(probs), BINS,
    ),
]  # fmt: skip
