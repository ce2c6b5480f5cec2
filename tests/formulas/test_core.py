"""What holds for the core as a whole: docstrings, one library per call, torch.compile, no framework imported."""

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
from shared.formulas import _backend, divergences, elbo, images, optimisers, planning, sampling, sequences

MODULES = [importlib.import_module(f"shared.formulas.{m.name}") for m in pkgutil.iter_modules(shared.formulas.__path__)]
FORMULAS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_") and module is not _backend
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


def every_formula(actions, returns, is_first, lengths, image):
    """All formulas of the core that take arrays, in one graph."""
    mean, std = planning.refit(actions, returns, 5, std="code")
    mean_paper, std_paper = planning.refit(actions, returns, 5, std="paper")
    state, spread = actions[:, :, 0], actions[:, :, 1] * actions[:, :, 1] + 0.1
    mask = elbo.overshooting_mask(state.shape[1], 2, lengths)
    prior_mean = elbo.overshooting_windows(elbo.overshooting_starts(state), 2)
    prior_std = elbo.overshooting_windows(spread, 2)
    overshooting = elbo.overshooting_kl(_backend.stop_gradient(state), spread, prior_mean, prior_std, mask, 0.5)
    quantised = images.quantise(image, 5, image / 256)
    grads, norm = optimisers.clip_by_global_norm([image, state], 5.0)
    step = optimisers.adam_tf(image, grads[0], image * 0, image * 0, 1, 1e-3, 0.9, 0.999, 1e-4)
    return (
        mean, std, mean_paper, std_paper, overshooting, divergences.floor_nats(state, 0.2),
        sequences.previous_actions(state, is_first), sequences.previous_actions(state, is_first, state[:, 0]),
        quantised, images.dequantise(quantised, 5), images.dequantise_uint8(quantised, 5), norm, *step,
        elbo.gaussian_log_prob(state, spread, 2.0), elbo.gaussian_log_prob(state, state, spread),
        sampling.reparameterise(state, spread, state),
    )  # fmt: skip


def test_torch_compile_traces_every_formula_silently():
    """fullgraph: no graph break; no warning. Traced only (backend "eager"): inductor takes 20 s."""
    import torch

    rng = np.random.default_rng(0)
    arguments = [
        torch.tensor(x)
        for x in (
            rng.normal(size=(2, 9, 3, 2)), rng.normal(size=(2, 9)), rng.random((2, 9)) < 0.5, np.array([9, 4]),
            rng.uniform(0, 255, (3, 4)),
        )
    ]  # fmt: skip
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compiled = torch.compile(every_formula, fullgraph=True, backend="eager")(*arguments)
    for got, expected in zip(compiled, every_formula(*arguments), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
