"""Mutation testing of shared/formulas: do the tests notice when a formula is wrong?

    python -m workflows.scripts.mutation --out results/evidence/core/mutation.json         (make mutants)

Every mutant (mutants.py) is tried in a process of its own, forked from one that has all libraries loaded; the changed
source replaces the module in memory, so no file is ever touched. First come the quick tests in NumPy; those that
survive meet the slow ones, and all of them in the other libraries. A mutant of a function meets the tests that call it
(as a recorded run of the unchanged code says), a mutant of a constant all of them; the first failure ends the run.
Settings, and why the survivors that nothing can kill are equivalent, are in workflows/mutation.toml.
"""

import argparse
import gc
import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.checkpoint import write_whole
from shared.config import ROOT
from shared.errors import UserError, cli
from shared.provenance import code_digest, collect
from workflows.scripts.mutants import OPERATORS, Mutant, mutants
from workflows.scripts.mutation_tests import STAGES, Calls, record_calls, run_tests

SETTINGS = ROOT / "workflows" / "mutation.toml"
POLL_SECONDS = 0.01
UNCHANGED_SECONDS = 3600.0
LEAST_LIMIT_SECONDS = 5.0  # a mutant may take this and LIMIT_FACTOR times as long as all tests of the unchanged code
LIMIT_FACTOR = 3.0
SURVIVED, KILLED, TIMEOUT = "survived", "killed", "timeout"
UNCHANGED = Mutant("", "", 0, "", "", "", "")


@dataclass(frozen=True)
class Settings:
    """A settings file.

    tests: patterns of files; without: files that they must not find. preload: libraries loaded before forking.
    equivalent: key of a mutant -> why no test can kill it.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...]
    preload: tuple[str, ...]
    required_score: float
    equivalent: Mapping[tuple[str, str, str], str]

    def test_files(self) -> list[str]:
        found = {str(path) for pattern in self.tests for path in Path().glob(pattern)}
        return sorted(found - set(self.without))


def read_settings(path: Path) -> Settings:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    equivalent: dict[tuple[str, str, str], str] = {}
    for entry in content.pop("equivalent", []):
        for change in entry["changes"]:
            key = (entry["module"], entry["function"], change)
            if key in equivalent:
                raise UserError(f"{path}: {' '.join(key)} is explained twice; keep one")
            equivalent[key] = " ".join(entry["why"].split())
    lists = {name: tuple(content.pop(name)) for name in ("modules", "tests", "without", "preload")}
    return Settings(**lists, **content, equivalent=equivalent)


class InMemory(importlib.abc.InspectLoader):
    """Finds and loads one module from a text."""

    def __init__(self, name: str, source: str):
        self.name, self.source = name, source

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_source(self, name):
        return self.source

    def is_package(self, name):
        return False


@dataclass(frozen=True)
class Child:
    """A forked process that runs tests."""

    pid: int
    deadline: float

    @classmethod
    def start(cls, task: Callable[[], bool], seconds: float, silent: bool) -> "Child":
        """Fork; the child runs task and ends with status 0 if that is true."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return cls(pid, time.monotonic() + seconds)
        status = 2
        try:
            os.setsid()  # so that what it starts can be ended with it
            if silent:
                nowhere = os.open(os.devnull, os.O_RDWR)
                for stream in range(3):
                    os.dup2(nowhere, stream)
            status = 0 if task() else 1
        finally:
            sys.stdout.flush()
            os._exit(status)  # past the parent's exit handlers

    def outcome(self) -> str | None:
        """None while it runs. Whatever ends otherwise than with status 0 (a crash, too) counts as killed."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            return SURVIVED if status == 0 else KILLED
        if time.monotonic() < self.deadline:
            return None
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return TIMEOUT


def outcomes(
    tasks: Sequence[Callable[[], bool]], seconds: float, workers: int, silent: bool = True
) -> Iterator[tuple[int, str]]:
    """(index, outcome) of every task as it ends, `workers` at a time."""
    waiting, running = list(enumerate(tasks))[::-1], {}
    while waiting or running:
        while waiting and len(running) < workers:
            index, task = waiting.pop()
            running[index] = Child.start(task, seconds, silent)
        for index, child in list(running.items()):
            if outcome := child.outcome():
                del running[index]
                yield index, outcome
        time.sleep(POLL_SECONDS)


def trial(mutant: Mutant, calls: Calls, stage: str) -> Callable[[], bool]:
    """The task of one mutant: put it in place of its module, run the tests that can see it."""

    def task() -> bool:
        assert mutant.module not in sys.modules, f"{mutant.module} is loaded already"
        sys.meta_path.insert(0, InMemory(mutant.module, mutant.source))
        return run_tests(calls, calls.tests_of(mutant.module, mutant.function), stage)

    return task


def recorded(settings: Settings) -> tuple[Calls, dict[str, float]]:
    """The calls of every test, and the seconds of each stage, from a run of the unchanged code that must pass."""
    files = {importlib.util.find_spec(module).origin: module for module in settings.modules}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "calls.json"
        _must_pass("recording", lambda: record_calls(settings.test_files(), files, target))
        calls = Calls(**json.loads(target.read_text(encoding="utf-8")))
    return calls, {stage: _must_pass(stage, trial(UNCHANGED, calls, stage)) for stage in STAGES}


def _must_pass(name: str, task: Callable[[], bool]) -> float:
    """Seconds of a run of the unchanged code; UserError if a test fails."""
    started = time.monotonic()
    ((_, outcome),) = outcomes([task], UNCHANGED_SECONDS, 1, silent=False)
    if outcome != SURVIVED:
        raise UserError(f"the tests do not pass on the unchanged code ({name}: {outcome}), see above; mend that first")
    return time.monotonic() - started


def campaign(settings: Settings, workers: int, modules: Sequence[str]) -> dict[Mutant, str]:
    """Every mutant and what became of it."""
    for library in settings.preload:
        importlib.import_module(library)
    gc.freeze()  # keeps the forks' memory shared
    calls, seconds = recorded(settings)
    found = []
    for module in modules:
        origin = importlib.util.find_spec(module).origin
        found += mutants(module, Path(origin).read_text(encoding="utf-8"))
    print(f"{len(found)} mutants of {len(modules)} modules, {len(calls.functions)} tests", flush=True)
    results: dict[Mutant, str] = {}
    for stage in STAGES:  # those known to be equivalent are survivors without being run
        left = [m for m in found if results.get(m, SURVIVED) == SURVIVED and m.key not in settings.equivalent]
        tasks = [trial(mutant, calls, stage) for mutant in left]
        limit = LEAST_LIMIT_SECONDS + LIMIT_FACTOR * seconds[stage]
        for done, (index, outcome) in enumerate(outcomes(tasks, limit, workers), start=1):
            results[left[index]] = outcome
            if outcome != KILLED or done % 100 == 0:
                shown = f"{left[index].module}:{left[index].line} {left[index].change}" if outcome != KILLED else ""
                print(f"{stage} {done}/{len(left)} {outcome} {shown}", flush=True)
    return {mutant: results.get(mutant, SURVIVED) for mutant in found}


def counted(results: Mapping[Mutant, str], equivalent: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Numbers of a set of mutants. A mutant that runs into its time limit is killed; an equivalent one is not."""
    count = Counter(results.values())
    explained = sum(outcome == SURVIVED and mutant.key in equivalent for mutant, outcome in results.items())
    killed = count[KILLED] + count[TIMEOUT]
    return {
        "mutants": len(results),
        "killed": count[KILLED],
        "timeout": count[TIMEOUT],
        "survived": count[SURVIVED],
        "equivalent": explained,
        "score": round(killed / len(results), 4) if results else None,
    }


def report(
    results: Mapping[Mutant, str], settings: Settings, command: str, seconds: float, workers: int
) -> dict[str, Any]:
    """The content of the result file."""
    facts = collect(
        command=command,
        device="cpu",
        threads=workers,
        seeds={},
        code_paths=[ROOT / "shared" / "formulas"],
        libraries=("cosmic-ray", "pytest", "hypothesis", "numpy", "torch", "jax"),
    )
    wanted = ("git_commit", "git_dirty", "code_digest", "command", "started", "python", "cpu", "threads", "libraries")
    modules = dict.fromkeys(mutant.module for mutant in results)
    return {
        "tool": f"cosmic-ray {importlib.metadata.version('cosmic-ray')}; own operators and runner: workflows/scripts",
        **{name: facts[name] for name in wanted},
        "wall_seconds": round(seconds),
        "operators": list(OPERATORS),
        "total": counted(results, settings.equivalent),
        "modules": {
            module: {
                **counted({m: r for m, r in results.items() if m.module == module}, settings.equivalent),
                "code_digest": module_digest(module),
                "git_commit": facts["git_commit"],
            }
            for module in modules
        },
        "survivors": [
            {
                "module": mutant.module,
                "function": mutant.function,
                "line": mutant.line,
                "operator": mutant.operator,
                "before": mutant.before,
                "after": mutant.after,
                "why": settings.equivalent.get(mutant.key, ""),
            }
            for mutant, outcome in results.items()
            if outcome == SURVIVED
        ],
    }


def module_digest(module: str) -> str:
    """Digest of one module's code; comments and docstrings do not count."""
    return code_digest([importlib.util.find_spec(module).origin])


def joined(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A kept result in which the modules of a new one are replaced; the facts of the session are the new one's."""
    modules = {**kept["modules"], **new["modules"]}
    survivors = [mutant for mutant in kept["survivors"] if mutant["module"] not in new["modules"]]
    counts = ("mutants", "killed", "timeout", "survived", "equivalent")
    total = {name: sum(module[name] for module in modules.values()) for name in counts}
    total["score"] = round((total["killed"] + total["timeout"]) / total["mutants"], 4)
    return {**new, "total": total, "modules": modules, "survivors": survivors + new["survivors"]}


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflows.scripts.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    parser.add_argument("--modules", nargs="*", help="mutate these only, and replace them in --out")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes at a time (default: all cores)")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help=f"default: {SETTINGS.relative_to(ROOT)}")
    asked = parser.parse_args(arguments)
    settings = read_settings(asked.settings)
    started = time.monotonic()
    results = campaign(settings, asked.workers, asked.modules or settings.modules)
    command = f"python -m workflows.scripts.mutation --out {asked.out}"
    if asked.modules:
        command += f" --modules {' '.join(asked.modules)}"
    content = report(results, settings, command, time.monotonic() - started, asked.workers)
    if asked.modules and asked.out.exists():
        content = joined(json.loads(asked.out.read_text(encoding="utf-8")), content)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(asked.out, (json.dumps(content, indent=2) + "\n").encode())
    total = content["total"]
    print(f"{asked.out}: {total['killed'] + total['timeout']} of {total['mutants']} killed ({total['score']:.1%})")
    if total["score"] < settings.required_score:
        raise UserError(f"below the required {settings.required_score:.0%}; the survivors are in {asked.out}")


if __name__ == "__main__":
    sys.exit(main())
