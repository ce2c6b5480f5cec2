"""The numerics report: complete, its references right, its distances by hand, and every formula within its tolerance.

The workflow measures all libraries and precisions; here JAX takes part in float32 alone, for time.
"""

import importlib
import inspect
import json
import math
import os
import pkgutil

import numpy as np
import pandas as pd
import pytest
from mpmath import mp, mpf
from numpy.testing import assert_array_equal

import shared.formulas
from shared.testing import numerics
from shared.testing.numerics_cases import CASES, STEPS, WITHOUT_ROUNDING, case
from shared.testing.numerics_exact import Exact, elementwise, exact, terms
from shared.testing.numerics_floats import BFLOAT16, FLOAT32, FLOAT64, Distance, Reference, distance, places

MODULES = [importlib.import_module(f"shared.formulas.{m.name}") for m in pkgutil.iter_modules(shared.formulas.__path__)]
FORMULAS = {
    f"{module.__name__.rpartition('.')[2]}.{name}"
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and not module.__name__.endswith("_backend")
}
KINDS = [FLOAT64, FLOAT32, BFLOAT16]


class SingleTorch(numerics.Torch):
    precisions = ("float64", "float32")


class SingleJax(numerics.Jax):
    precisions = ("float32",)


LIBRARIES = [numerics.Numpy(), SingleTorch(), SingleJax()]

# The table


def test_every_formula_is_measured_or_left_out_for_a_reason():
    measured = {case.formula for case in CASES}
    assert measured | WITHOUT_ROUNDING.keys() == FORMULAS
    assert not measured & WITHOUT_ROUNDING.keys()
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_formula_is_within_its_stated_tolerance_on_hard_inputs(case):
    frame = pd.DataFrame(list(numerics.measure_case(case, LIBRARIES)))
    beyond = frame[frame["within"].eq(False)]
    assert beyond.empty, beyond[["family", "library", "precision", "worst_roundings", "tolerance", "where"]].to_string()
    families = {name for name in case.families(FLOAT64, np.random.default_rng(0))}
    assert set(frame["family"]) == families


def test_the_hard_inputs_of_the_issue_are_among_the_families():
    families = {name for case in CASES for name in case.families(FLOAT32, np.random.default_rng(0))}
    assert {"subnormal", "logits 1e4", "long horizon", "ties", "huge", "tiny std"} <= families


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inputs_are_numbers_of_the_type_and_the_same_every_time(kind):
    for entry in CASES:
        if entry.numpy_only:
            continue
        first, second = numerics.draw(entry, kind), numerics.draw(entry, kind)
        for name, arguments in first.items():
            for x, again in zip(arguments, second[name], strict=True):
                assert_array_equal(x, again)
                assert_array_equal(kind.round(x), x)


# The references

# balanced: its gradient is weighted, which its value does not know (tests/formulas/test_balancing.py)
WITH_GRADIENT = [entry for entry in CASES if "gradient" in entry.parts and entry.name != "divergences.balanced"]


def total(entry, arguments) -> mpf:
    return mp.fsum(x.value for array in entry.parts["value"].reference(*arguments) for x in array.ravel())


def small(arguments):
    """The first rows or columns of a family: a difference quotient of each entry costs two references."""
    if arguments[0].ndim == 1:
        return [x[:3] for x in arguments]
    return [x[:1] for x in arguments] if arguments[0].shape[0] < 10 else [x[:12] for x in arguments]


@pytest.mark.parametrize("entry", WITH_GRADIENT, ids=lambda entry: entry.name)
def test_gradients_in_mpmath_are_difference_quotients_of_the_values(entry):
    """Step 1e-15 at 50 digits: the quotient is exact to 1e-30 times the third derivative."""
    with mp.workdps(numerics.DIGITS):
        arguments = [numerics.exactly(x) for x in small(numerics.draw(entry, FLOAT64)["ordinary"])]
        for argument, gradient in zip(arguments, entry.parts["gradient"].reference(*arguments), strict=True):
            for index in list(np.ndindex(argument.shape))[::5]:
                value, step = argument[index], mpf("1e-15")
                argument[index] = value + step
                above = total(entry, arguments)
                argument[index] = value - step
                quotient = (above - total(entry, arguments)) / (2 * step)
                argument[index] = value
                found = gradient.reshape(argument.shape)[index]
                assert abs(found.value - quotient) <= mpf("1e-20") * (1 + abs(quotient)), (index, found, quotient)


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.name)
def test_the_scale_of_an_error_is_never_below_the_value_divided_by_its_roundings(entry):
    """A scale too small would judge too hard, one of 0 divides by it; only exact zeros may have it."""
    with mp.workdps(numerics.DIGITS):
        arguments = numerics.draw(entry, FLOAT64)["ordinary"]
        for part in entry.parts.values():
            for array in part.reference(*map(numerics.exactly, arguments)):
                for x in array.ravel():
                    assert x.scale >= abs(x.value) * mpf("0.99") or mp.isinf(x.value), x


# Distances, by hand


def far(got, value, kind, scale=1.0, flushed=0.0) -> Distance:
    reference = Reference(np.array([float(value)]), np.array([float(mpf(value) - float(value))]), np.array([scale]))
    return distance(np.array([got]), reference, kind, flushed)


@pytest.mark.parametrize("kind", [FLOAT64, FLOAT32], ids=lambda kind: kind.name)
def test_types_have_the_numbers_of_numpy(kind):
    info = np.finfo(kind.name)
    assert (kind.eps, kind.tiny, kind.smallest, kind.largest) == (
        info.eps, info.smallest_normal, info.smallest_subnormal, info.max,
    )  # fmt: skip
    assert kind.below_one == np.nextafter(info.dtype.type(1), info.dtype.type(0))


def test_bfloat16_has_seven_bits_and_the_exponents_of_float32():
    import ml_dtypes

    info = ml_dtypes.finfo("bfloat16")
    assert (BFLOAT16.eps, BFLOAT16.tiny, BFLOAT16.largest) == tuple(
        map(float, (info.eps, info.smallest_normal, info.max))
    )
    assert BFLOAT16.smallest == float(info.smallest_subnormal)


def test_places_of_neighbours_differ_by_one():
    x = np.array([0, 1, 2.0**-1074, 2.0**-1022, 1.5, 2 - 2.0**-52, 1e300, -3.0])
    up = np.nextafter(x, np.inf)
    assert_array_equal([int(b) - int(a) for a, b in zip(x.view(np.int64)[:-1], up.view(np.int64)[:-1], strict=True)], 1)
    small = x[[0, 2, 3]]                                     # places of larger ones exceed the 53 bits of a float
    assert_array_equal(places(np.nextafter(small, 1), FLOAT64) - places(small, FLOAT64), 1)
    single = np.array([1, 1.5, 2 - 2.0**-23, -3, 2.0**-126, 1e30], np.float32)
    above = np.nextafter(single, np.float32(np.inf)).astype(np.float64)
    assert_array_equal(places(above, FLOAT32) - places(single.astype(np.float64), FLOAT32), 1)
    end = np.array([FLOAT32.largest, np.inf])
    assert np.diff(places(end, FLOAT32)) == [1.0]


def test_errors_by_hand():
    # 1 + 2^-22 instead of 1 in float32: two steps of 2^-23; relative 2^-22; scale 4: half a rounding
    off = far(1 + 2.0**-22, 1, FLOAT32, scale=4.0)
    assert (off.absolute[0], off.relative[0], off.ulp[0], off.roundings[0]) == (2.0**-22, 2.0**-22, 2.0, 0.5)
    # a third of a step away: the exact number lies between two of the type
    third = mpf(1) + mpf(2) ** -23 / 3
    assert far(1.0, third, FLOAT32).ulp[0] == pytest.approx(1 / 3)
    # from the smallest number to minus the smallest: through zero
    assert far(FLOAT32.smallest, -FLOAT32.smallest, FLOAT32).ulp[0] == 2


def test_an_exact_zero_has_infinite_relative_error_and_finite_roundings():
    off = far(2.0**-23, 0, FLOAT32)
    assert (off.relative[0], off.roundings[0]) == (np.inf, 1.0)
    assert far(0.0, 0, FLOAT32).relative[0] == 0


def test_infinity_is_right_only_where_the_exact_number_overflows():
    assert far(np.inf, mpf(FLOAT32.largest) * 2, FLOAT32).roundings[0] == 0
    assert far(-np.inf, mpf(FLOAT32.largest) * 2, FLOAT32).roundings[0] == np.inf
    assert far(np.inf, 1, FLOAT32).ulp[0] == np.inf
    assert far(np.nan, 1, FLOAT32).relative[0] == np.inf
    assert far(-np.inf, mp.ninf, FLOAT64).roundings[0] == 0


def test_flushing_is_forgiven_up_to_its_allowance():
    half = FLOAT32.tiny / 2
    assert far(0.0, half, FLOAT32, scale=half).roundings[0] == 1 / FLOAT32.eps
    assert far(0.0, half, FLOAT32, scale=half, flushed=0.5).roundings[0] == 0
    assert far(0.0, half, FLOAT32, scale=half, flushed=0.25).roundings[0] == 0.5 / FLOAT32.eps


def test_the_scale_of_a_sum_is_that_of_its_terms():
    assert terms(mpf(1), mpf(-1), mpf(3)) == Exact(mpf(3), mpf(5))


# The measurement

HARD = {"ordinary": (np.array([-30.0, -1.0, 0.5]),)}


def naive(function, reference, families=HARD):
    return case("math.naive", function, lambda kind, rng: families, reference, per=elementwise)


def test_a_weak_formula_is_found_and_its_place_named():
    import torch

    # log(1 + exp(-30)): 1e-13 beside 1 keeps four of float64's digits, and nothing in float32
    weak = naive(
        lambda x: (np if isinstance(x, np.ndarray) else torch).log(1 + 2.718281828459045**x),
        lambda x: exact(mp.log1p(mpf(2.718281828459045) ** x)),
    )
    frame = numerics.measure([weak], LIBRARIES[:2])
    assert frame["within"].eq(False).all()
    single = frame[frame["precision"] == "float32"].iloc[0]
    assert single["worst_relative_error"] == 1 and single["where"] == "result 0[0]: x = -30"
    assert single["worst_roundings"] == pytest.approx(1 / FLOAT32.eps)


def test_flushing_is_named():
    flush = naive(lambda x: x * (abs(x) > 1e-300), exact, {"subnormal": (np.array([1e-310, 2.0]),)})
    row = numerics.measure([flush], LIBRARIES[:1]).iloc[0]
    assert row["within"] and row["flushed"] and row["worst_relative_error"] == 1
    keep = naive(lambda x: 1 * x, exact, {"subnormal": (np.array([1e-310, 2.0]),)})
    assert not numerics.measure([keep], LIBRARIES[:1]).iloc[0]["flushed"]


def test_bfloat16_throughout_promises_nothing_and_the_cast_does():
    double = naive(lambda x: 2 * x / 3, lambda x: exact(2 * x / 3))
    frame = numerics.measure([double], [numerics.Torch()]).set_index("precision")
    assert frame["within"].to_dict() == {
        "float64": True, "float32": True, "bfloat16 to float32": True, "bfloat16": None,
    }  # fmt: skip
    assert math.isnan(frame.loc["bfloat16", "tolerance"])
    assert frame.loc["bfloat16", "worst_relative_error"] > 1e-4 > 1e-6 > frame["worst_relative_error"].iloc[2]


def test_a_special_tolerance_holds_for_its_library_precision_and_families():
    entry = next(entry for entry in CASES if entry.name == "transforms.symexp")
    tolerance = entry.parts["value"].tolerance
    assert tolerance.of("torch compiled", "float32", "near zero") is None
    assert tolerance.of("torch compiled", "float32", "ordinary") == STEPS.roundings
    assert tolerance.of("torch", "float32", "near zero") == STEPS.roundings


def test_command_writes_numbers_and_sources_and_tells_what_is_beyond(tmp_path, capsys, monkeypatch):
    wrong = naive(lambda x: x * (1 + 1e-3), exact)
    monkeypatch.setattr(numerics, "CASES", [CASES[0], wrong])
    arguments = [f"--numbers={tmp_path / 'a' / 'n.csv'}", f"--sources={tmp_path / 'a' / 'n.json'}"]
    assert numerics.main(arguments) == 0
    said = capsys.readouterr().out
    assert "BEYOND TOLERANCE: math.naive, value, numpy, float64, ordinary: 4.5e+12, stated 4" in said
    frame = pd.read_csv(tmp_path / "a" / "n.csv")
    assert set(frame["formula"]) == {"_math.softplus", "math.naive"}
    assert set(frame[frame["formula"] == "_math.softplus"]["library"]) == {"numpy", "torch", "jax"}
    facts = json.loads((tmp_path / "a" / "n.json").read_text())
    assert facts["tolerances"]["math.naive, value"]["roundings"] == STEPS.roundings
    assert facts["without_rounding"] == WITHOUT_ROUNDING and not facts["compiled"]
    assert len(facts["code_digest"]) == 64 and "jax" in facts["libraries"]


@pytest.mark.skipif(os.environ.get("REPRO_TEST_COMPILED") != "1", reason="takes seconds; REPRO_TEST_COMPILED=1 asks")
def test_compiled_torch_is_measured_in_float32():
    frame = numerics.measure([CASES[0]], [numerics.CompiledTorch()])
    assert frame["within"].all() and set(frame["precision"]) == {"float32"}
