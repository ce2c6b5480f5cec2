"""Number level: the same parameters, batch and noise through two implementations of one paper: where do they part?

Each side runs in a process of its own (side.py), in float64. A makes the question (inputs, first parameters), both
answer it. Compared are all tensors of one update in the order of the computation (walk.py), which rows of an input
reach which step, and how losses and parameters part over further updates on the same batch and noise.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from shared.checkpoint import load_tree, save_tree
from shared.config import ROOT, for_task, paper_folder, read_yaml, resolve
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Plot, Table
from shared.errors import UserError
from shared.testing.parity import Difference, difference

TOLERANCE = 1e-10  # of a tensor's largest difference, relative to its largest entry: what float64 leaves of rounding
MARKS = (1, 2, 5, 10, 20, 50, 100)
SECONDS = 900  # that one side may take
FRAMEWORKS = ("torch", "jax")
STAGES = "rows, encoder, RSSM steps, heads, imagination, loss terms, gradients, norms, optimiser step"


@dataclass(frozen=True)
class Side:
    """An implementation: a paper in a framework, the repository's own, a copy of its folder, or another checkout."""

    paper: str
    framework: str
    folder: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.framework}" + (f" in {self.folder}" if self.folder else "")

    @property
    def checkout(self) -> bool:
        """Whether the folder is a whole repository, whose shared/ is used as well."""
        return self.folder is not None and (self.folder / "replications" / self.paper / "paper.yaml").is_file()


def task_of(paper: str, variant: str) -> str:
    """The first task that an experiment runs a variant on.

    Raises:
      UserError: no experiment has it.
    """
    for experiment in read_yaml(paper_folder(paper) / "experiments.yaml").values():
        if variant in (experiment.get("variants") or {}):
            specials = (experiment.get("special") or {}).items()
            own = [special.get("tasks") for pattern, special in specials if fnmatchcase(variant, pattern)]
            return ([tasks for tasks in own if tasks] or [experiment["tasks"]])[-1][0]
    raise UserError(f"{paper}: no experiment runs variant {variant!r}; name a task with --task")


def question(paper: str, variant: str, task: str | None, scale: Mapping[str, Any], updates: int) -> dict[str, Any]:
    """What both sides are asked, without its inputs: values at a scale, task, and after which updates to look."""
    task = task or task_of(paper, variant)
    resolved = for_task(resolve(paper, variant, scale), task)
    marks = [mark for mark in MARKS if mark < updates] + [updates]
    return {"values": json.dumps(resolved["values"]), "task": task, "marks": marks, "variant": variant}


def run(side: Side, folder: Path, name: str, *, ask: bool) -> dict[str, Any]:
    """One side's answer. folder: of the question; name: of its answer there.

    Raises:
      UserError: the side failed; the message ends with what it said last.
    """
    asked, answer = folder / "question.h5", folder / f"{name}.h5"
    command = [sys.executable, "-m", "shared.diff.side", "--paper", side.paper, "--framework", side.framework]
    command += ["--question", str(asked), "--answer", str(answer), *(["--ask", str(asked)] if ask else [])]
    home = side.folder if side.checkout else ROOT
    if side.folder and not side.checkout:
        command += ["--folder", str(side.folder.resolve())]
    elif side.checkout and not (side.folder / "shared" / "diff" / "side.py").is_file():
        raise UserError(f"{side.folder}: a checkout without shared/diff; give its replications/{side.paper} instead")
    environment = {**os.environ, "PYTHONPATH": str(Path(home).resolve()), "JAX_ENABLE_X64": "1"}
    environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    environment |= {"REPRO_TRACEBACK": "1"}
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[-6:])
        raise UserError(f"{side.name}: its walk failed:\n{said}")
    return load_tree(answer)


def answers(a: Side, b: Side, asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides' answers to one question, whose inputs and parameters are A's."""
    with tempfile.TemporaryDirectory(prefix="diff-") as folder:
        save_tree(Path(folder) / "question.h5", asked)
        one = run(a, Path(folder), "a", ask=True)
        return one, run(b, Path(folder), "b", ask=False)


def compare(
    a: Side,
    b: Side,
    *,
    variant: str,
    scale: Mapping[str, Any],
    task: str | None = None,
    updates: int = MARKS[-1],
    tolerance: float = TOLERANCE,
    plots: bool = True,
) -> Outcome:
    """The outcome for two implementations of one paper."""
    if a.paper != b.paper:
        reason = f"{a.name} and {b.name} are different papers: they compute different things (see the ledger)"
        return Outcome("numbers", a.name, b.name, NOT_COMPARABLE, reason)
    asked = question(a.paper, variant, task, scale, updates)
    one, other = answers(a, b, asked)
    return judge(a, b, one, other, asked, tolerance, plots=plots)


def judge(
    a: Side,
    b: Side,
    one: dict[str, Any],
    other: dict[str, Any],
    asked: Mapping[str, Any],
    tolerance: float,
    *,
    plots: bool = True,
) -> Outcome:
    """The outcome from two answers."""
    first, second = one["places"], other["places"]
    missing = [name for name in (*first, *second) if (name in first) != (name in second)]
    names = [name for name in first if name in second]
    gaps = [difference(name, second[name], first[name]) for name in names]
    apart = [i for i, gap in enumerate(gaps) if not gap.relative <= tolerance]
    grown = growth(one["growth"], other["growth"])
    shifts = alignment(one["influence"], other["influence"])
    last = max(map(int, one["growth"]))
    largest = max(values[last] for values in grown.values())
    what = f"{asked['variant']}, {asked['task']}"
    tables = []
    if missing:
        rows = [(name, "A" if name in first else "B") for name in missing]
        tables.append(Table("Tensors that only one side has", ("tensor", "side"), rows))
    if apart:
        found, reason = DIFFERS, told(gaps, apart, names, first, second, shifts)
        tables += [statistics_table(gaps, apart, first, second)]
    elif missing:
        found, reason = DIFFERS, f"{len(missing)} tensors on one side only; the other {len(names)} agree"
    elif not largest <= tolerance * last:
        found, reason = DIFFERS, f"one update agrees, but after {last} they are {largest:.1e} apart"
    else:
        found = SAME
        reason = (
            f"all {len(names)} tensors of one update agree within {tolerance:.0e} (largest: {worst(gaps)}); after "
            f"{last} updates losses and parameters are {largest:.1e} apart"
        )
    tables += [stages_table(names, gaps, tolerance), growth_table(grown), alignment_table(one, other, shifts)]
    facts = {
        "variant": asked["variant"],
        "task": asked["task"],
        "first": names[apart[0]] if apart else None,
        "apart": len(apart),
        "tensors": len(names),
        "alignment": shifts,
        "growth": {kind: {str(k): v for k, v in values.items()} for kind, values in grown.items()},
        "tolerance": tolerance,
    }
    notes = [
        f"Walked: {what}, float64, parameters and inputs made by A; free nats lowered where they would hide the KL "
        f"(replications/{a.paper}/walk.py, prepare); stages in order: {STAGES}.",
        f"Seconds: A {one['seconds']:.1f}, B {other['seconds']:.1f}.",
    ]
    shown = pictures(names, gaps, tolerance, apart, grown) if plots else []
    return Outcome("numbers", a.name, b.name, found, reason, tables, shown, notes, facts)


def told(
    gaps: Sequence[Difference],
    apart: Sequence[int],
    names: Sequence[str],
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    shifts: Mapping[str, int],
) -> str:
    """Where the two part first, what was equal before, what is shifted, and how much follows."""
    place = apart[0]
    before = f"; the {place} tensors before it agree" if place else ""
    shifted = "".join(f". Shifted: {sentence}" for sentence in shift_sentences(shifts))
    return f"they part first at {gaps[place]}{before}; {len(apart)} of {len(gaps)} differ in all{shifted}"


def worst(gaps: Sequence[Difference]) -> str:
    """The largest difference in a word."""
    largest = max(gaps, key=lambda gap: gap.relative)
    return f"{largest.relative:.1e} at {largest.name}"


def alignment(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Which influences begin at another step in B, and by how many steps later (infinite delay: B never feels it)."""
    return {key: other[key] - one[key] for key in one if key in other and other[key] != one[key]}


def shift_sentences(shifts: Mapping[str, int]) -> list[str]:
    """One sentence per input that is shifted, from its effect on the earliest part."""
    said, sentences = set(), []
    for key, shift in shifts.items():
        name, _, _ = key.partition(" of row")
        if name not in said:
            said.add(name)
            when = "later" if shift > 0 else "earlier"
            sentences.append(f"the {name} acts {abs(shift)} step{'s' * (abs(shift) != 1)} {when} in B ({key})")
    return sentences


def shift_word(key: str, shifts: Mapping[str, int]) -> str:
    """What the table says of one influence."""
    return f"shifted by {shifts[key]:+d}" if key in shifts else "aligned"


def statistics_table(
    gaps: Sequence[Difference], apart: Sequence[int], first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> Table:
    """The first tensors that differ, with their statistics on both sides."""
    rows = []
    for place in apart[:8]:
        gap = gaps[place]
        name = gap.name.split(" (shapes")[0]
        one, other = first[name], second[name]
        share = float((one != other).mean()) if one.shape == other.shape else None
        rows.append(
            (name, str(one.shape), gap.relative, str(gap.where), *moments(one), *moments(other), share)
        )  # fmt: skip
    columns = ("tensor", "shape", "relative", "most at", "mean A", "std A", "min A", "max A")
    columns += ("mean B", "std B", "min B", "max B", "share of entries")
    return Table("The first tensors that differ", columns, rows, "Share of entries: that are not equal bit by bit.")


def moments(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, least and largest."""
    if not values.size:
        return (float("nan"),) * 4
    return float(values.mean()), float(values.std()), float(values.min()), float(values.max())


def stages_table(names: Sequence[str], gaps: Sequence[Difference], tolerance: float) -> Table:
    """A row per stage: how many tensors, how many differ, the largest difference."""
    stages: dict[str, list[Difference]] = {}
    for name, gap in zip(names, gaps, strict=True):
        stages.setdefault(name.partition(" / ")[0], []).append(gap)
    rows = []
    for stage, found in stages.items():
        largest = max(found, key=lambda gap: gap.relative)
        beyond = sum(not gap.relative <= tolerance for gap in found)
        rows.append((stage, len(found), beyond, largest.relative, largest.name.partition(" / ")[2]))
    columns = ("stage", "tensors", "beyond tolerance", "largest relative difference", "where")
    return Table("The walk, stage by stage", columns, rows, f"Tolerance {tolerance:.0e} of a tensor's largest entry.")


def growth(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """losses and parameters -> update -> largest relative difference of any of them."""
    found: dict[str, dict[int, float]] = {"losses": {}, "parameters": {}}
    for mark in one:
        for kind, values in found.items():
            left, right = one[mark][kind], other[mark][kind]
            gaps = [difference(name, right[name], left[name]).relative for name in left if name in right]
            values[int(mark)] = max(gaps, default=float("inf"))
    return found


def growth_table(grown: Mapping[str, Mapping[int, float]]) -> Table:
    """How far apart the two are after each update that was looked at."""
    rows = [(mark, *(values[mark] for values in grown.values())) for mark in grown["losses"]]
    note = "Largest difference relative to the tensor's largest entry; the same batch and noise at every update."
    return Table("How the difference grows", ("update", *grown), rows, note)


def alignment_table(one: Mapping[str, Any], other: Mapping[str, Any], shifts: Mapping[str, int]) -> Table:
    """Which step first feels one row of an input, on both sides."""
    left, right = one["influence"], other["influence"]
    rows = [(key, left[key], right.get(key), shift_word(key, shifts)) for key in left]
    columns = ("what is changed -> what feels it", "first step in A", "first step in B", "alignment")
    note = "Step from which the latent state depends on one row of an input; 0: no step does."
    return Table("Time alignment", columns, rows, note)


def pictures(
    names: Sequence[str], gaps: Sequence[Difference], tolerance: float, apart: Sequence[int], grown: Mapping
) -> list[Plot]:
    """The walk and the growth."""
    from shared.diff.plots import growth_plot, walk_plot  # in here: matplotlib is slow to import

    walk = walk_plot(names, [gap.relative for gap in gaps], tolerance, apart[0] if apart else None)
    return [walk, growth_plot(grown)]


def read_scale(path: Path) -> dict[str, Any]:
    """A scale.yaml, as shared/config.py's resolve takes it."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--scale {path}: {error.strerror}; give a scale.yaml of workflows/profiles") from None
