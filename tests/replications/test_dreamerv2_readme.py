"""What replications/dreamerv2/README.md says in numbers and keys, held against experiments.yaml and the recipes."""

import re

import pytest

from replications.dreamerv2.figures_published import REFERENCE, recipes
from shared.config import ROOT, leaves, read_variants
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

README = (ROOT / "replications" / "dreamerv2" / "README.md").read_text(encoding="utf-8")
PAPER = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
NEEDS = re.compile(r"(?:(\d+) (?:variants|ablations) × )?(\d+) (?:tasks|games) × (\d+) seeds")


def cells(heading: str) -> list[list[str]]:
    """The rows of the tables below a heading, without head and rule."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def named(targets: str) -> list[str]:
    return [target.removeprefix("dreamerv2_") for target in re.findall(r"`(\w+)`", targets)]


COUNTED = {targets: needs for targets, _, needs in cells("Figures") if NEEDS.search(needs)}


def test_every_figure_is_told():
    assert sorted(name for targets, *_ in cells("Figures") for name in named(targets)) == sorted(
        read_experiments("dreamerv2")
    )


@pytest.mark.parametrize("targets", COUNTED)
def test_the_runs_that_a_figure_needs_are_counted_as_planned(targets):
    """Of an ablation the whole agent beside it is not counted; nor is variant schedules, which the text names."""
    runs = {run for figure in named(targets) for run in planned_runs("dreamerv2", figure, PAPER)}
    told = NEEDS.search(COUNTED[targets])
    variants = {run.variant for run in runs} - {"schedules"}
    beside = {"dreamerv2"} if "ablations" in COUNTED[targets] else set()
    if told[1] and "variants" in COUNTED[targets]:
        variants |= {run.variant for run in runs}
    assert len(variants - beside) == int(told[1] or 1)
    assert (len({run.task for run in runs}), len({run.seed for run in runs})) == (int(told[2]), int(told[3]))


def test_figures_with_many_runs_are_counted():
    assert len(COUNTED) == 4


def test_every_variant_is_told_and_exists():
    told = [name for row in cells("Variants") for name in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(told) == sorted({"dreamerv2", *read_variants("dreamerv2")})


def test_every_key_of_the_last_commit_stands_in_the_table_of_states():
    keys = {key for row in cells("Three states of the code") for key in re.findall(r"`(\w+\.[\w.]+)`", row[4])}
    cadence = {"schedule.pretrain_updates", "schedule.evaluate_every_env_steps", "schedule.checkpoint_every_env_steps"}
    changed = {key for key, _ in leaves(read_variants("dreamerv2")["last-commit"], where="last-commit")}
    assert changed - keys - cadence == {"behaviour.stop_action"}, "stop_action matters to continuous actions alone"


def test_the_averages_of_the_text_are_the_recomputed_ones():
    text = " ".join(README.split())
    found = recipes(REFERENCE).set_index(["agent", "recipe"])
    of = {recipe: found.loc["DreamerV2", recipe] for agent, recipe in found.index if agent == "DreamerV2"}
    table_1, caption, slipped = (
        next(row for recipe, row in of.items() if recipe.startswith(start))
        for start in ("Table 1's", "caption", "James Bond")
    )
    assert f"Table 1's gamer median, {table_1['gamer_median']:.2f}, is" in text
    assert f"then the mean, which is {caption['gamer_median']:.2f}" in text
    means = (slipped["gamer_mean"], table_1["gamer_mean"])
    assert "the gamer mean would be {:.2f} instead of {:.2f}".format(*means) in text
