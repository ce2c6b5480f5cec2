"""What replications/dreamer/README.md says in numbers and keys, held against experiments.yaml."""

import re
from fnmatch import fnmatch

import pytest

from shared.config import ROOT, leaves, read_variants
from workflows.scripts.plan import planned_runs, read_scale

README = (ROOT / "replications" / "dreamer" / "README.md").read_text(encoding="utf-8")
PAPER = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
NEEDS = re.compile(r"(\d+) variants? × (\d+) (?:tasks|games|task) × (\d+) seeds")


def cells(heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, without head and rule."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


COUNTED = {targets: needs for targets, _, needs in cells("Figures") if NEEDS.search(needs)}


@pytest.mark.parametrize("targets", COUNTED)
def test_the_runs_that_a_figure_needs_are_counted_as_planned(targets):
    figures = [target.removeprefix("dreamer_") for target in re.findall(r"`(\w+)`", targets)]
    runs = {run for figure in figures for run in planned_runs("dreamer", figure, PAPER)}
    counts = tuple(len({getattr(run, part) for run in runs}) for part in ("variant", "task", "seed"))
    assert counts == tuple(map(int, NEEDS.search(COUNTED[targets]).groups()))


def test_every_figure_with_many_runs_is_counted():
    assert len(COUNTED) == 10 and len(cells("Figures")) == 12


def test_every_key_of_the_second_lineage_is_set_by_variant_tf2():
    changed = {key for key, _ in leaves(read_variants("dreamer")["tf2"], where="tf2")}
    told = [key for row in cells("Two lineages of code") for key in re.findall(r"`([\w.*]+)`", row[3])]
    assert [key for key in told if not any(fnmatch(one, key) for one in changed)] == [], "told and not set"
    assert [one for one in changed if not any(fnmatch(one, key) for key in told)] == [], "set and not told"
