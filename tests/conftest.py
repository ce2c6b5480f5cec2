"""What all tests share: the option --golden-dir, hypothesis profiles (HYPOTHESIS_PROFILE=ci or nightly), and `run` and
`grad`, which run one formula in every array library; tests/formulas/test_divergences.py shows how. `run_any` and
`grad_any` run it in float32 too and carry the dtype's rounding, `eps`, for tolerances: properties use these.

Compiled torch (inductor, seconds per formula) takes part when REPRO_TEST_COMPILED=1 is set; that every formula can be
traced by torch.compile is always tested (tests/formulas/test_core.py).
"""

import contextlib
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

DEFAULT_GOLDEN = Path(__file__).parent.parent / "data" / "golden"

# The fixtures below hold no state that an example could change, so one instance may serve all examples.
_SETTINGS = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.function_scoped_fixture]}
hypothesis.settings.register_profile("ci", max_examples=25, derandomize=True, **_SETTINGS)
hypothesis.settings.register_profile("nightly", max_examples=500, **_SETTINGS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# Files that take a minute and more of a core, begun first: a worker that begins one last would keep the others waiting.
LONG = (
    "workflows/test_report.py",
    "test_resume.py",
    "workflows/test_reruns.py",
    "diff/test_numbers.py",
    "replications/test_dreamer_parity.py",
    "replications/test_dreamerv3_train.py",
    "replications/test_dreamerv2_parity.py",
    "replications/test_planet_parity.py",
    "replications/test_dreamerv3_parity.py",
    "replications/test_dreamerv3_jax.py",
    "replications/test_dreamerv2_train.py",
    "replications/test_dreamer_train.py",
)


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        metavar="DIR",
        default=str(DEFAULT_GOLDEN),
        help="folder of golden .npz files, with subfolders per paper or without (default: data/golden)",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "golden(prefix): run for every golden file whose name begins so, as `case`")
    config.addinivalue_line("markers", "property(*names): which of the 74 properties of the core this test holds")


# ---------------------------------------------------------------------------------------------------------------------
# One formula in every library. Lists become float64 (or bool, or integer) arrays; arrays keep their dtype, except that
# the float32 backends turn float64 into float32; tuples are trees of arguments. Results come back as NumPy.


def tree_map(function, tree):
    if isinstance(tree, tuple):
        return tuple(tree_map(function, branch) for branch in tree)
    return function(tree)


def _as_tree(result):
    """Lists of arrays, as formulas may return them, become tuples."""
    return tuple(_as_tree(branch) for branch in result) if isinstance(result, (tuple, list)) else result


class Numpy:
    """The reference: float64."""

    def __init__(self, dtype=np.float64):
        self.dtype = dtype
        self.eps = float(np.finfo(dtype).eps)

    def array(self, x):
        x = np.asarray(x)
        return x.astype(self.dtype) if x.dtype == np.float64 else x

    def convert(self, tree):
        return tree_map(self.array, tree)

    def __call__(self, function, *args):
        return tree_map(np.asarray, _as_tree(function(*self.convert(args))))


class ReadOnlyNumpy(Numpy):
    """NumPy arrays that cannot be written: a formula must not change its arguments."""

    def convert(self, tree):
        def lock(x):
            x = np.array(self.array(x))
            x.flags.writeable = False
            return x

        return tree_map(lock, tree)


class Strict(Numpy):
    """array-api-strict: fails on every call outside the standard."""

    def convert(self, tree):
        import array_api_strict

        return tree_map(lambda x: array_api_strict.asarray(np.array(self.array(x))), tree)


class Torch(Numpy):
    """torch, eager or compiled."""

    def __init__(self, compiled=False, dtype=np.float64):
        super().__init__(dtype)
        self.compiled = compiled

    def convert(self, tree):
        import torch

        return tree_map(lambda x: torch.tensor(self.array(x)), tree)

    def _compiled(self, function):
        """The function, compiled if that is wished; errors of its own come out as they would without compiling."""
        if not self.compiled:
            return function
        import torch

        torch._dynamo.config.recompile_limit = 256            # hypothesis calls one function with many shapes
        fast = torch.compile(function, fullgraph=True)

        def call(*args):
            try:
                return fast(*args)
            except torch._dynamo.exc.Unsupported:
                function(*args)
                raise

        return call

    def __call__(self, function, *args):
        function = self._compiled(function)
        return tree_map(lambda x: x.detach().numpy(), _as_tree(function(*self.convert(args))))

    def gradients(self, function, *args):
        import torch

        args = self.convert(args)
        inputs = [x.requires_grad_() for x in args if x.is_floating_point()]
        grads = torch.autograd.grad(self._compiled(function)(*args).sum(), inputs, allow_unused=True)
        return [np.zeros(x.shape) if g is None else g.numpy() for x, g in zip(inputs, grads, strict=True)]


class Jax(Numpy):
    """JAX with strict promotion: mixing dtypes or ranks is an error. Compiled functions are remembered."""

    def __init__(self, jit=False, dtype=np.float64):
        super().__init__(dtype)
        self.jit = jit
        self.jitted = {}

    @contextlib.contextmanager
    def settings(self):
        import jax

        with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            yield jax

    def convert(self, tree):
        import jax.numpy as jnp

        return tree_map(lambda x: jnp.asarray(self.array(x)), tree)

    def _compiled(self, jax, function):
        if not self.jit:
            return function
        return self.jitted.setdefault(function, jax.jit(function))

    def __call__(self, function, *args):
        with self.settings() as jax:
            return tree_map(np.asarray, _as_tree(self._compiled(jax, function)(*self.convert(args))))

    def gradients(self, function, *args):
        with self.settings() as jax:
            args = self.convert(args)
            wanted = tuple(i for i, x in enumerate(args) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating))
            grads = jax.grad(lambda *inputs: self._compiled(jax, function)(*inputs).sum(), argnums=wanted)(*args)
            return [np.asarray(g) for g in grads]


BACKENDS = {
    "numpy": Numpy(),
    "readonly": ReadOnlyNumpy(),
    "strict": Strict(),
    "torch": Torch(),
    "jax": Jax(),
    "jax-jit": Jax(jit=True),
}
if os.environ.get("REPRO_TEST_COMPILED") == "1":
    BACKENDS["torch-compiled"] = Torch(compiled=True)
AUTODIFF = [name for name, backend in BACKENDS.items() if hasattr(backend, "gradients")]
SINGLE = {"torch-float32": Torch(dtype=np.float32), "jax-jit-float32": Jax(jit=True, dtype=np.float32)}
if os.environ.get("REPRO_TEST_COMPILED") == "1":
    SINGLE["torch-compiled-float32"] = Torch(compiled=True, dtype=np.float32)
ANY = {name: backend for name, backend in BACKENDS.items() if name not in ("readonly", "jax")} | SINGLE


class Gradients:
    """A backend's gradients as a function, with its rounding."""

    def __init__(self, backend):
        self.eps = backend.eps
        self.dtype = backend.dtype
        self.backend = backend

    def __call__(self, function, *args):
        return self.backend.gradients(function, *args)


@pytest.fixture(params=BACKENDS)
def run(request):
    """run(function, *args): the function's result as NumPy, computed in one of the libraries."""
    return BACKENDS[request.param]


@pytest.fixture(params=AUTODIFF)
def grad(request):
    """grad(function, *args): gradients of the summed result with respect to the floating-point arguments, as NumPy."""
    return BACKENDS[request.param].gradients


@pytest.fixture(params=ANY)
def run_any(request):
    """Like `run`, in float64 and float32; run_any.eps is the dtype's rounding."""
    return ANY[request.param]


@pytest.fixture(params=[name for name in ANY if hasattr(ANY[name], "gradients")])
def grad_any(request):
    """Like `grad`, in float64 and float32; grad_any.eps is the dtype's rounding."""
    return Gradients(ANY[request.param])


@pytest.fixture(params=["numpy", "torch", "jax-jit"])
def library(request):
    """Like `run`, in the three libraries that replications use: for golden numbers."""
    return BACKENDS[request.param]
