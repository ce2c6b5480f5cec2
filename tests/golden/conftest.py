"""Turns @pytest.mark.golden(prefix) into one test per case of every golden file of that kind.

The paper is the one in the module's name, test_<paper>_*.py, unless the mark names another, whose network this paper
takes over: golden("gru_block", paper="planet"). loading.py says which files are a paper's files.
"""

import re
from pathlib import Path

import pytest

from tests.conftest import BACKENDS
from tests.golden.loading import PAPERS, find


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is None:
        return
    (prefix,), case = mark.args, mark.kwargs.get("case", "")
    folder = checked(metafunc.config.getoption("--golden-dir"))
    paper = mark.kwargs.get("paper", paper_of(metafunc.module.__name__))
    found = [pytest.param(case, id=case.id) for case in find(folder, paper, prefix, case)]
    if not found:
        reason = f"no {prefix}*.npz of {paper} in {folder}"
        found = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("case", found)


def checked(folder):
    """--golden-dir, if there is anything in it."""
    if not Path(folder).is_dir():
        raise pytest.UsageError(f"--golden-dir {folder}: no such folder; give the folder that holds the .npz files")
    if not any(Path(folder).rglob("*.npz")):
        raise pytest.UsageError(f"--golden-dir {folder}: no .npz file in it; give the folder that holds them")
    return folder


def paper_of(module):
    """The paper that a test module is about."""
    name = module.rpartition(".")[2]
    match = re.match(r"test_([a-z0-9]+)_", name)
    if match is None or match[1] not in PAPERS:
        raise pytest.UsageError(f"{name}: tests with golden numbers live in test_<paper>_*.py, <paper> one of {PAPERS}")
    return match[1]


@pytest.fixture(params=["numpy", "torch", "jax"])
def eager(request):
    """Like `library`, JAX without jit: for updates whose number changes at every step, which jit would unroll."""
    return BACKENDS[request.param]
