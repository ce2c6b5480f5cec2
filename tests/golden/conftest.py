"""Turns @pytest.mark.golden(prefix) into one test per golden file."""

from pathlib import Path

import pytest

from tests.golden.loading import Case, find


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("golden")
    if mark is None:
        return
    (prefix,) = mark.args
    folder = metafunc.config.getoption("--golden-dir")
    if not Path(folder).is_dir():
        raise pytest.UsageError(f"--golden-dir {folder}: no such folder; give the folder that holds the .npz files")
    cases = [pytest.param(Case(path), id=path.stem) for path in find(folder, prefix)]
    if not cases:
        reason = f"no {prefix}*.npz in {folder}"
        cases = [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("case", cases)
