"""Running the tests inside a forked process: which call what, and does one of them fail?

A pytest plugin for mutation.py. Stage "quick" has the tests that take less than SLOW_SECONDS, in NumPy where they take
one of the library fixtures of tests/conftest.py; stage "rest" has all others.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

LIBRARY_FIXTURES = ("run", "grad", "run_any", "grad_any", "library")
STAGES = ("quick", "rest")
SLOW_SECONDS = 1.0
QUIET = ("-q", "--no-header", "--maxfail=1", "-p", "no:cacheprovider", "-p", "no:xdist")


@dataclass(frozen=True)
class Calls:
    """What a run of the unchanged code showed. Tests are named without their parameters, file::function."""

    functions: Mapping[str, Sequence[str]]  # test -> "module function" of every formula that it called
    seconds: Mapping[str, float]  # test -> its time, the longest of its parameters

    def stage_of(self, item: pytest.Item) -> str:
        quick = self.seconds.get(name_of(item), 0.0) < SLOW_SECONDS and runs_in_numpy(item)
        return "quick" if quick else "rest"

    def tests_of(self, module: str, function: str) -> set[str]:
        """Tests that call a function; all tests for "", a line outside of functions."""
        if not function:
            return set(self.functions)
        return {test for test, called in self.functions.items() if f"{module} {function}" in called}


def library_of(item: pytest.Item) -> tuple[str, str] | None:
    """(fixture, library) of a test that runs in one of several libraries."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return next(((name, parameters[name]) for name in LIBRARY_FIXTURES if name in parameters), None)


def runs_in_numpy(item: pytest.Item) -> bool:
    library = library_of(item)
    return library is None or library[1] == "numpy"


def name_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


class Selection:
    """Keeps the wanted tests, quickest first, and lets hypothesis stop at its first counter-example."""

    def __init__(self, wanted, seconds: Mapping[str, float]):
        self.wanted = wanted
        self.seconds = seconds

    def pytest_configure(self):
        ci = hypothesis.settings.get_profile("ci")
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", parent=ci, phases=phases, database=None)
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(filter(self.wanted, items), key=lambda item: self.seconds.get(name_of(item), 0.0))


class Recorder:
    """Notes which functions of the given files each test calls, and how long it takes."""

    def __init__(self, modules: Mapping[str, str]):
        self.modules = modules  # file -> module
        self.functions: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.known: dict[object, str | None] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item):
        called = self.functions.setdefault(name_of(item), set())
        started = time.perf_counter()

        def note(frame, event, argument):
            code = frame.f_code
            if code not in self.known:
                module = self.modules.get(code.co_filename)
                self.known[code] = module and f"{module} {code.co_qualname.partition('.')[0]}"
            if self.known[code]:
                called.add(self.known[code])

        sys.setprofile(note)
        yield
        sys.setprofile(None)
        self.seconds[name_of(item)] = max(self.seconds.get(name_of(item), 0.0), time.perf_counter() - started)


def run_tests(calls: Calls, tests: Collection[str], stage: str) -> bool:
    """Whether these tests pass, here and now, in one stage. The file that has most of them goes first, alone."""
    counts = Counter(test.partition("::")[0] for test in tests)
    first, *others = [file for file, _ in counts.most_common()] or [None]
    selection = Selection(lambda item: name_of(item) in tests and calls.stage_of(item) == stage, calls.seconds)
    return all(
        pytest.main([*QUIET, *files], plugins=[selection]) in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        for files in ([first], others)
        if files and first
    )


def record_calls(paths: Sequence[str], modules: Mapping[str, str], target: Path) -> bool:
    """Run each test once, in NumPy or, where only gradients are tested, in torch; write what it called to target."""
    recorder = Recorder({os.path.abspath(file): module for file, module in modules.items()})

    def once(item):
        library = library_of(item)
        return runs_in_numpy(item) or (library[0].startswith("grad") and library[1] == "torch")

    passed = pytest.main([*QUIET, *paths], plugins=[recorder, Selection(once, {})]) == pytest.ExitCode.OK
    functions = {test: sorted(called) for test, called in recorder.functions.items()}
    target.write_text(json.dumps({"functions": functions, "seconds": recorder.seconds}), encoding="utf-8")
    return passed
