"""What holds for the core as a whole: docstrings, one library and one shape per call, dtypes, compilers, imports."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import shared.formulas
from shared.formulas import _backend, divergences, elbo, normalization, returns, sampling
from tests.conftest import BACKENDS
from tests.formulas.calls import CALLS

MODULES = [importlib.import_module(f"shared.formulas.{m.name}") for m in pkgutil.iter_modules(shared.formulas.__path__)]
PRIVATE = [module for module in MODULES if module.__name__.rpartition(".")[2].startswith("_")]
FORMULAS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and module not in PRIVATE
}
SIX_PARTS = re.compile(
    r"\A\S[^\n]*\.(\n\S[^\n]*)*\n\n"                # one sentence
    r"(    +\S[^\n]*\n)+"                           # the equation, indented
    r"(.*?\n)?"                                     # a remark on the equation
    r"Args:\n(  +[^\n]+\n)+"
    r"Returns:\n(  +[^\n]+\n)+"
    r"Raises:\n(  +[^\n]+\n)+"
    r"Source: [^\n]+(\n[^\n]+)*\Z",
    re.DOTALL,
)


def test_the_formulas_are_found():
    assert {"divergences.gaussian_kl", "elbo.overshooting_kl", "planning.refit", "schedules.fires"} <= FORMULAS.keys()
    assert "elbo.gaussian_kl" not in FORMULAS                 # imported, not defined there


@pytest.mark.parametrize("name", FORMULAS)
def test_docstring_has_the_six_parts_in_order(name):
    text = inspect.getdoc(FORMULAS[name])
    assert SIX_PARTS.match(text), text


@pytest.mark.parametrize("name", FORMULAS)
def test_docstring_explains_every_argument_and_the_gradient(name):
    text = inspect.getdoc(FORMULAS[name])
    arguments, returns = text.partition("Args:")[2].partition("Returns:")[::2]
    for argument in inspect.signature(FORMULAS[name]).parameters:
        assert re.search(rf"\b{argument}\b[^:\n]*:", arguments), f"{name}: Args do not list {argument}"
    assert re.search("gradient|differentiation", returns.partition("Raises:")[0], re.IGNORECASE), returns


@pytest.mark.parametrize("module", PRIVATE, ids=lambda module: module.__name__)
def test_helpers_have_a_docstring(module):
    """One sentence at least; functions whose name begins with _ may do without."""
    own = [f for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
    assert len(own) > 3
    assert [f.__name__ for f in own if not f.__name__.startswith("_") and not (f.__doc__ or "").strip()] == []


def test_the_readme_lists_every_formula():
    text = (Path(shared.formulas.__file__).parent / "README.md").read_text()
    assert [name for name in FORMULAS if f"`{name.rpartition('.')[2]}`" not in text] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_module_opens_with_two_to_five_lines(module):
    assert 2 <= sum(bool(line) for line in module.__doc__.splitlines()) <= 5


def test_importing_the_core_imports_no_framework():
    """A NumPy-only process (replay, figures) must not pay for torch or JAX."""
    names = ", ".join(module.__name__ for module in MODULES)
    check = f"import sys, {names}; print([m for m in ('torch', 'jax', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


# Every formula

EPS = np.finfo(np.float64).eps
PLAIN = {name for name in FORMULAS if name.startswith("schedules.")} | {"transforms.symexp_bins"}
SEVERAL = [name for name, call in CALLS.items() if len(call.arguments) > 1]


def formula(name):
    return name.partition(",")[0].rpartition(".")[2]


def flat(tree):
    return [leaf for branch in tree for leaf in flat(branch)] if isinstance(tree, (tuple, list)) else [tree]


def test_every_formula_has_a_call():
    assert {name.partition(",")[0] for name in CALLS} == FORMULAS.keys() - PLAIN


@pytest.mark.parametrize("name", SEVERAL)
def test_a_mixture_of_libraries_is_refused(name):
    import torch

    for place in range(len(CALLS[name].arguments)):
        arguments = [torch.tensor(x) if i == place else np.asarray(x) for i, x in enumerate(CALLS[name].arguments)]
        with pytest.raises(TypeError, match=r"expected arrays of one library, got \['numpy', 'torch'\]"):
            CALLS[name].function(*arguments)


@pytest.mark.parametrize("name", SEVERAL)
def test_an_axis_too_many_is_refused(name):
    """It would broadcast, and train on nonsense."""
    for place in CALLS[name].rigid:
        arguments = [np.asarray(x)[None] if i == place else np.asarray(x) for i, x in enumerate(CALLS[name].arguments)]
        with pytest.raises(ValueError, match=f"^({formula(name)}|gaussian_kl|categorical_kl): "):
            CALLS[name].function(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_float32_stays_float32_in_every_library(library, name):
    """No constant widens it. JAX refuses what would; uint8 pixels, masks and indices are what they are."""
    single = [x.astype(np.float32) if np.asarray(x).dtype == np.float64 else x for x in CALLS[name].arguments]
    for wide, narrow in zip(
        *(flat(library(CALLS[name].function, *arguments)) for arguments in (CALLS[name].arguments, single)), strict=True
    ):
        assert narrow.dtype == (np.float32 if wide.dtype == np.float64 else wide.dtype)
        assert narrow.shape == wide.shape


@pytest.mark.property("X4")
@pytest.mark.parametrize("name", CALLS)
def test_compiled_formulas_equal_the_eager_ones(name):
    """X4: XLA may fuse and reorder, so not bit by bit: within 4 roundings of the largest entry (measured: 1.5)."""
    call = CALLS[name]
    pairs = [(BACKENDS["jax"], BACKENDS["jax-jit"])]
    if "torch-compiled" in BACKENDS:
        pairs.append((BACKENDS["torch"], BACKENDS["torch-compiled"]))
    for eager, compiled in pairs:
        expected, got = (flat(library(call.function, *call.arguments)) for library in (eager, compiled))
        for one, other in zip(expected, got, strict=True):
            assert one.dtype == other.dtype
            scale = np.abs(one.astype(np.float64)).max(initial=0.0)
            np.testing.assert_allclose(other, one, rtol=0, atol=4 * EPS * scale)


def every_formula(arguments):
    """All calls in one graph."""
    return {name: CALLS[name].function(*arguments[name]) for name in CALLS}


@pytest.mark.property("X4")
def test_torch_compile_traces_every_formula_silently():
    """fullgraph: no graph break; no warning. Traced only (backend "eager"): inductor takes seconds per formula."""
    import torch

    arguments = {name: [torch.tensor(x) for x in call.arguments] for name, call in CALLS.items()}
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = torch.compile(every_formula, fullgraph=True, backend="eager")(arguments)
    for name, expected in every_formula(arguments).items():
        for got, wanted in zip(flat(compiled[name]), flat(expected), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.property("X4")
def test_numbers_may_change_between_calls_of_a_compiled_formula():
    """torch.compile makes a number that changes a symbol: nothing may ask it for a shape."""
    import torch

    x = torch.linspace(0.5, 2.0, 6).reshape(3, 2)
    calls = {
        "lambda_return": lambda x, v: returns.lambda_return(x, x, x + 2, v),
        "gaussian_log_prob": lambda x, v: elbo.gaussian_log_prob(x, 2 * x, v),
        "gaussian_kl": lambda x, v: divergences.gaussian_kl(x, x, 0.0, v),
        "reparameterise": lambda x, v: sampling.reparameterise(x, v, x),
        "floor_nats": divergences.floor_nats,
        "unimix": sampling.unimix,
        "return_range": lambda x, v: normalization.return_range(x, 2 * x, v),
    }
    for name, function in calls.items():
        torch.compiler.reset()
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        for value in (0.95, 0.5, 0.95, 0.25):
            torch.testing.assert_close(compiled(x, value), function(x, value), rtol=0, atol=0, msg=name)


# The backend


def test_one_library_per_call():
    import torch

    with pytest.raises(TypeError, match=r"arrays of one library, got \['numpy', 'torch'\]"):
        divergences.gaussian_kl(torch.zeros(2), torch.ones(2), np.zeros(2), np.ones(2))
    with pytest.raises(TypeError, match="got none"):
        _backend.namespace(1.0, None)
    with pytest.raises(TypeError, match="builtins is not supported"):
        _backend.namespace([1.0, 2.0])


def test_scalars_fit_every_shape_and_arrays_only_their_own():
    _backend.check_shapes("f", a=np.zeros((2, 3)), b=1.0, c=np.float64(1), d=np.zeros(()), e=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"f: .*a \(2, 3\), b \(3,\)"):
        _backend.check_shapes("f", a=np.zeros((2, 3)), b=np.zeros(3))


def test_stop_gradient_keeps_the_value_and_stops_the_gradient(run, grad):
    np.testing.assert_array_equal(run(_backend.stop_gradient, [1.0, 2.0]), [1.0, 2.0])
    (got,) = grad(lambda x: x * _backend.stop_gradient(x), [3.0, 5.0])
    np.testing.assert_array_equal(got, [3.0, 5.0])           # half of the derivative of x^2


def test_indices_have_the_type_of_their_model(run):
    got = run(lambda like: _backend.indices(3, like), np.array([7, 7], np.int32))
    assert got.tolist() == [0, 1, 2] and got.dtype == np.int32
