"""How exact the formulas are: each one in every library and precision, on hard inputs, against 50 digits of mpmath.

    python -m shared.testing.numerics --numbers F.csv --sources F.json [--compiled]

A row per formula, value or gradient, family of inputs, library and precision; shared/figures/core.py draws them. Inputs
are rounded to the precision first and the reference starts from the rounded ones: only the formula is judged.
"""

import argparse
import inspect
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from mpmath import mp, mpf

from shared.checkpoint import write_whole
from shared.errors import cli
from shared.provenance import ROOT, collect
from shared.testing.numerics_cases import CASES, WITHOUT_ROUNDING, Case, Part
from shared.testing.numerics_floats import BFLOAT16, FLOAT32, FLOAT64, Distance, Kind, Reference, distance

DIGITS = 50
CODE = (
    "shared/formulas",
    *(f"shared/testing/{path.name}" for path in sorted(Path(__file__).parent.glob("numerics*.py"))),
)
LIBRARIES = ("numpy", "torch", "jax", "mpmath", "scipy", "array-api-compat", "ml_dtypes")
FACTS = ("git_commit", "git_dirty", "code_digest", "command", "started", "python", "platform", "cpu", "libraries")


class Precision(NamedTuple):
    """The type that the inputs are rounded to, and the type that the formula computes in."""

    name: str
    inputs: Kind
    computed: Kind


# Training in bfloat16 computes networks in it and casts their outputs before a formula is called: the third line. The
# fourth, without the cast, is shown for elementwise formulas to say why; nothing is promised there.
PRECISIONS = (
    Precision("float64", FLOAT64, FLOAT64),
    Precision("float32", FLOAT32, FLOAT32),
    Precision("bfloat16 to float32", BFLOAT16, FLOAT32),
    Precision("bfloat16", BFLOAT16, BFLOAT16),
)
ALL = tuple(precision.name for precision in PRECISIONS)
FEW = 8  # at least as many of the smallest subnormals a formula may lose without flushing
LONG = "long horizon"  # a thousand steps, which torch.compile unrolls: minutes


# ------------------------------------------------------------------------------------------------ libraries


class Numpy:
    """The reference of all other tests."""

    name, precisions, quantities = "numpy", ("float64",), ("value",)

    def value(self, function: Callable, arguments: Sequence[np.ndarray], kind: Kind) -> list[np.ndarray]:
        """Results in order, as float64. Overflow is wanted where the exact result is beyond the type."""
        with np.errstate(all="ignore"):
            return [np.asarray(x, dtype=np.float64) for x in flatten(function(*arguments))]


class Torch:
    """torch on the CPU."""

    name, precisions, quantities = "torch", ALL, ("value", "gradient")

    def value(self, function, arguments, kind):
        return self.results(flatten(self.prepared(function)(*self.tensors(arguments, kind))))

    def gradient(self, function, arguments, kind):
        """Of the sum of all results, with respect to every floating-point argument."""
        import torch

        tensors = self.tensors(arguments, kind)
        wanted = [x.requires_grad_() for x in tensors if x.is_floating_point()]
        total = sum(x.sum() for x in flatten(self.prepared(function)(*tensors)))
        return self.results(torch.autograd.grad(total, wanted, materialize_grads=True))

    def prepared(self, function):
        return function

    @staticmethod
    def tensors(arguments, kind):
        import torch

        dtype = getattr(torch, kind.name)
        return [torch.tensor(x).to(dtype) if x.dtype == np.float64 else torch.tensor(x) for x in arguments]

    @staticmethod
    def results(tensors):
        return [x.detach().double().numpy() for x in tensors]


class CompiledTorch(Torch):
    """torch through inductor, as the agents run it. Seconds per formula."""

    name, precisions, quantities = "torch compiled", ("float32",), ("value", "gradient")

    def prepared(self, function):
        import torch

        return torch.compile(function, fullgraph=True, dynamic=False)


class Jax:
    """JAX on the CPU, compiled."""

    name, precisions, quantities = "jax", ALL, ("value", "gradient")

    def __init__(self):
        self.compiled = {}

    def value(self, function, arguments, kind):
        return self._call((function, "value"), lambda *args: flatten(function(*args)), arguments, kind)

    def gradient(self, function, arguments, kind):
        import jax

        wanted = tuple(i for i, x in enumerate(arguments) if x.dtype == np.float64)
        gradient = jax.grad(lambda *args: sum(x.sum() for x in flatten(function(*args))), argnums=wanted)
        return self._call((function, "gradient"), gradient, arguments, kind)

    def _call(self, key, function, arguments, kind):
        """jit compiles once per key, shapes and type."""
        import jax

        with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            inputs = [jax.numpy.asarray(x.astype(kind.dtype()) if x.dtype == np.float64 else x) for x in arguments]
            results = self.compiled.setdefault(key, jax.jit(function))(*inputs)
            return [np.asarray(x).astype(np.float64) for x in results]


def flatten(tree: object) -> list:
    """Results of a formula, which may be nested tuples and lists, in order."""
    return [x for branch in tree for x in flatten(branch)] if isinstance(tree, (tuple, list)) else [tree]


# ------------------------------------------------------------------------------------------------ measuring


def measure(cases: Iterable[Case], libraries: Sequence) -> pd.DataFrame:
    """Every case in every library: a row per case, quantity, family, library and precision."""
    return pd.DataFrame([row for case in cases for row in measure_case(case, libraries)])


def measure_case(case: Case, libraries: Sequence) -> Iterator[dict[str, object]]:
    for kind in dict.fromkeys(precision.inputs for precision in precisions_of(case)):
        precisions = [precision for precision in precisions_of(case) if precision.inputs is kind]
        for (family, arguments), quantity in itertools.product(draw(case, kind).items(), case.parts):
            part = case.parts[quantity]
            runs = [
                (library, precision)
                for library, precision in itertools.product(libraries, precisions)
                if family not in part.without and takes_part(library, precision, quantity, case, family)
            ]
            if runs:
                with mp.workdps(DIGITS):
                    reference = Reference.of(part.reference(*map(exactly, arguments)))
            for library, precision in runs:
                got = getattr(library, quantity)(case.function, arguments, precision.computed)
                name = (case, family, quantity, library.name, precision)
                yield judge(*name, part, arguments, got, reference)


def precisions_of(case: Case) -> list[Precision]:
    """bfloat16 where a network computes the arguments; throughout only where a formula is elementwise."""
    if case.numpy_only:
        return [precision for precision in PRECISIONS if precision.computed is FLOAT64]
    return [
        precision
        for precision in PRECISIONS
        if (precision.inputs is not BFLOAT16 or case.network)
        and (precision.computed is not BFLOAT16 or case.elementwise)
    ]


def takes_part(library, precision: Precision, quantity: str, case: Case, family: str) -> bool:
    if case.numpy_only and not isinstance(library, Numpy) or isinstance(library, CompiledTorch) and family == LONG:
        return False
    return precision.name in library.precisions and quantity in library.quantities


def draw(case: Case, kind: Kind) -> dict[str, tuple[np.ndarray, ...]]:
    """The families of a case: the same numbers every time."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return {name: tuple(map(kind.round, arguments)) for name, arguments in case.families(kind, rng).items()}


def exactly(array: np.ndarray) -> np.ndarray:
    """float64 as mpmath numbers; booleans stay."""
    if array.dtype != np.float64:
        return array
    result = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        result[index] = mpf(float(array[index]))
    return result


def judge(
    case: Case,
    family: str,
    quantity: str,
    library: str,
    precision: Precision,
    part: Part,
    arguments: Sequence[np.ndarray],
    got: Sequence[np.ndarray],
    reference: Reference,
) -> dict[str, object]:
    """One row: the worst numbers of all results, and where the worst in roundings stands.

    Relative error and ulp are those of results that flushing cannot reach; of all in the family "subnormal". That
    leaves out results of exactly 0, where both would be infinite: the roundings count there.
    """
    kind, tolerance = precision.computed, part.tolerance.of(library, precision.name, family)
    flat = np.concatenate([np.asarray(x, dtype=np.float64).ravel() for x in got])
    assert flat.shape == reference.value.shape, (case.name, quantity, family, flat.shape, reference.value.shape)
    off = distance(flat, reference, kind, part.tolerance.flushed)
    worst = int(np.argmax(off.roundings if off.roundings.any() else off.ulp))
    plain = family == "subnormal" or ~(np.abs(reference.value) < part.tolerance.flushed * kind.tiny / kind.eps)
    return {
        "formula": case.name,
        "quantity": quantity,
        "family": family,
        "library": library,
        "precision": precision.name,
        "numbers": len(flat),
        "worst_relative_error": np.max(off.relative, where=plain, initial=0.0),
        "worst_ulp": np.max(off.ulp, where=plain, initial=0.0),
        "worst_roundings": off.roundings.max(),
        "tolerance": tolerance,
        "within": None if tolerance is None else bool(off.roundings.max() <= tolerance),
        "flushed": tolerance is not None and flushes(off, reference, kind, tolerance, part.tolerance.flushed),
        "where": where(case, arguments, got, worst),
        "got": flat[worst],
        "exact": reference.value[worst],
        "scale": reference.scale[worst],
    }


def flushes(off: Distance, reference: Reference, kind: Kind, tolerance: float, flushed: float) -> bool:
    """Whether the tolerance holds only because subnormal numbers may count as 0."""
    normal = tolerance * kind.eps * reference.scale + max(flushed, FEW) * kind.smallest
    return bool((off.absolute > normal).any() and off.roundings.max() <= tolerance)


def where(case: Case, arguments: Sequence[np.ndarray], got: Sequence[np.ndarray], worst: int) -> str:
    """Output and place of a number in the flattened results; of an elementwise formula also the arguments there."""
    sizes = np.cumsum([np.size(x) for x in got])
    output = int(np.searchsorted(sizes, worst, side="right"))
    index = np.unravel_index(worst - (sizes[output - 1] if output else 0), np.shape(got[output]))
    place = f"result {output}{list(map(int, index))}"
    if not case.elementwise:
        return place
    names = list(inspect.signature(case.function).parameters)
    names = names if len(names) == len(arguments) else [f"argument {i}" for i in range(len(arguments))]
    return f"{place}: " + ", ".join(f"{name} = {x[index]:.9g}" for name, x in zip(names, arguments, strict=True))


# ------------------------------------------------------------------------------------------------ command line


def sources(cases: Sequence[Case], compiled: bool) -> dict[str, object]:
    """What the report rests on: tolerances with their reasons, formulas left out, code, libraries, machine."""
    facts = collect(
        command="python -m shared.testing.numerics" + (" --compiled" if compiled else ""),
        device="cpu",
        threads=1,
        seeds={},
        code_paths=[ROOT / path for path in CODE],
        libraries=LIBRARIES,
    )
    tolerances = {
        f"{case.name}, {quantity}": {
            **part.tolerance._asdict(),
            "specials": [special._asdict() for special in part.tolerance.specials],
        }
        for case in cases
        for quantity, part in case.parts.items()
    }
    return {
        **{name: facts[name] for name in FACTS},
        "digits": DIGITS,
        "compiled": compiled,
        "tolerances": tolerances,
        "without_rounding": WITHOUT_ROUNDING,
    }


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m shared.testing.numerics", description="Measure the rounding errors of every formula."
    )
    parser.add_argument("--numbers", type=Path, required=True, help="CSV to write")
    parser.add_argument("--sources", type=Path, required=True, help="JSON to write: tolerances, code, machine")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well: minutes")
    asked = parser.parse_args(arguments)
    libraries = [Numpy(), Torch(), Jax()] + ([CompiledTorch()] if asked.compiled else [])
    _one_thread()
    frame = measure(CASES, libraries)
    for path, data in (
        (asked.numbers, frame.to_csv(index=False, lineterminator="\n").encode()),
        (asked.sources, (json.dumps(sources(CASES, asked.compiled), indent=2, sort_keys=True) + "\n").encode()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    beyond = frame[frame["within"].eq(False)]
    for row in beyond.to_dict("records"):
        words = (row[name] for name in ("formula", "quantity", "library", "precision", "family"))
        print(f"BEYOND TOLERANCE: {', '.join(words)}: {row['worst_roundings']:.3g}, stated {row['tolerance']:g}")
    print(f"numerics: {len(frame)} rows, {len(beyond)} beyond tolerance; wrote {asked.numbers}, {asked.sources}")


def _one_thread() -> None:
    """The arrays are small, and the sums then have one order."""
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
