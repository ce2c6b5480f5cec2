"""What replications/dreamerv3/README.md says in numbers and keys, held against the configuration and the workflow."""

import re

import pytest

from replications.dreamerv3.figures import FIGURES, WITHOUT_RUNS
from replications.dreamerv3.figures_published import REFERENCE, recomputed
from shared.config import ROOT, leaves, read_variants, resolve
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

README = (ROOT / "replications" / "dreamerv3" / "README.md").read_text(encoding="utf-8")
TEXT = " ".join(README.split())
RULES = (ROOT / "workflows" / "dreamerv3.smk").read_text(encoding="utf-8")
PAPER = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
NEEDS = re.compile(r"(?:(\d+) variants × )?(?:(\d+) (?:tasks|games|task)(?: of ours)?|(Crafter)) × (\d+) seeds?")
STATES = ("2023", "2024", "last commit")  # columns of the table
SUITES = ("vision", "atari", "atari100k")  # which a row may be of, by its last words; else control from vectors
# What an older agent changes and the table of states leaves out: sizes, and where a number only follows another one.
UNTOLD = {"model.size", "replay.memory_rows"}


def cells(heading: str, table: int = 0) -> list[list[str]]:
    """The rows of one of the tables below a heading, without head and rule."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in tables[table].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def named(targets: str) -> list[str]:
    """Figures of a cell; `…_x` is short for `dreamerv3_x`."""
    return [name for _, name in re.findall(r"`(dreamerv3|…)_(\w+)`", targets)]


def flat(variant: str) -> dict[str, object]:
    return dict(leaves(resolve("dreamerv3", variant, {"name": "paper"})["values"], where=variant))


# ------------------------------------------------------------------------------------------------ the figures


def test_every_figure_is_told_once_and_is_a_target():
    told = [name for targets, *_ in cells("Figures") for name in named(targets)]
    assert sorted(told) == sorted(FIGURES)
    assert set(re.findall(r"^rule dreamerv3_(\w+):", RULES, re.MULTILINE)) == set(told)


@pytest.mark.parametrize("row", cells("Figures"), ids=lambda row: row[0])
def test_the_runs_that_a_figure_needs_are_counted_as_planned(row):
    figures, needs = named(row[0]), row[3]
    planned = [name for name in figures if name in read_experiments("dreamerv3")]
    runs = {run for name in planned for run in planned_runs("dreamerv3", name, PAPER)}
    if set(figures) <= set(WITHOUT_RUNS):
        assert needs == "none"
    elif figures == ["figure_1"]:
        assert needs == "the runs of the four tables"
    elif figures == ["figure_4"]:
        assert needs == f"{len({run.variant for run in runs})} runs; task ours"
    elif "their suites'" in needs:
        assert NEEDS.search(needs) is None and {run.seed for run in runs} == set(range(5))
    else:
        counted = {"Crafter" if crafter else "": (int(variants or 1), int(tasks or 1), int(seeds))
                   for variants, tasks, crafter, seeds in NEEDS.findall(needs)}  # fmt: skip
        found = {}
        for run in runs:
            apart = "Crafter" if run.task == "crafter_reward" and len(figures) > 1 else ""
            found.setdefault(apart, []).append((run.variant, run.task, run.seed))
        assert counted == {
            key: tuple(len(set(column)) for column in zip(*rows, strict=True)) for key, rows in found.items()
        }


def test_the_agent_of_a_figure_is_that_of_its_runs():
    for targets, _, agents, _ in cells("Figures"):
        variants = {variant for name in named(targets) for variant in FIGURES[name].variants}
        years = {variant[-4:] for variant in variants if variant.endswith(("-2023", "-2024"))}
        told = set(re.findall(r"20\d\d", agents)) | ({"2023", "2024"} if agents == "all three" else set())
        assert not variants or years == told, targets


def test_the_averages_of_the_text_are_the_recomputed_ones():
    found = recomputed(REFERENCE)
    found = found[found["method"].isin(["dreamerv3-2024", "dreamerv3-2023"])].set_index(["suite", "method"])
    row = {suite: found.loc[suite, f"dreamerv3-{year}"] for suite, year in
           {"atari": 2024, "atari100k": 2024, "proprio": 2023, "vision": 2024}.items()}  # fmt: skip
    mean, median = ({suite: round(one[name]) for suite, one in row.items()} for name in ("mean", "median"))
    assert f"{mean['atari']} % of a gamer's score on Atari (mean; median {median['atari']} %)" in TEXT
    assert f"{mean['atari100k']} % ({median['atari100k']} %) after 400 thousand" in TEXT
    pairs = [f"{mean[suite]} ({median[suite]})" for suite in ("vision", "proprio")]
    assert f"returns of {pairs[0]} and {pairs[1]} on control tasks from pixels and from vectors" in TEXT
    games = [f"{mean[suite]} % and {median[suite]} %" for suite in ("atari", "atari100k")]
    control = [f"{mean[suite]} and {median[suite]}" for suite in ("proprio", "vision")]
    assert f"recomputes from the released runs: {', '.join(games + control)}." in TEXT


# ------------------------------------------------------------------------------------------------ the variants


def test_every_variant_is_told_and_exists():
    """`size1m` … `size400m` are all sizes between, `ratio-32` … `ratio-1024` all ratios."""
    exist = {"dreamerv3", *read_variants("dreamerv3")}
    told = set(re.findall(r"`([\w-]+)`", README.split("\n## Variants\n")[1].split("\n| variant")[0])) & exist
    for words, *_ in cells("Variants"):
        for first, last in re.findall(r"`([\w-]+)`(?: … `([\w-]+)`)?", words):
            assert {first, last or first} <= exist
            told |= between(first, last, exist) if last else {first}
    assert told == exist


def between(first: str, last: str, names: set[str]) -> set[str]:
    """Of names like ratio-32 those from first to last."""
    numbered = {name: re.fullmatch(r"(\D+)(\d+)m?", name) for name in names}
    (stem, low), (_, high) = numbered[first].groups(), numbered[last].groups()
    return {name for name, m in numbered.items() if m and m[1] == stem and int(low) <= int(m[2]) <= int(high)}


# ------------------------------------------------------------------------------------------------ three states

ROWS = cells("Three states of the code")


def keys_of(row: list[str]) -> list[str]:
    return re.findall(r"`(\w+\.[\w.]+)`", row[4])


def test_every_key_of_the_older_agents_stands_in_the_table_of_states():
    changed = set()
    for suite, variants in {
        "dreamerv3": ("proprio-2024", "proprio-2023"), "vision": ("vision-2024", "vision-2023"),
        "atari": ("atari-2024",), "atari100k": ("atari100k-2024",),
    }.items():  # fmt: skip
        now = flat(suite)
        changed |= {key for variant in variants for key, value in flat(variant).items() if value != now[key]}
    assert {key for row in ROWS for key in keys_of(row)} == changed - UNTOLD


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_states_differ_where_the_table_says_so(row):
    """Cells that differ have keys that differ; where a cell is a number, it is the key's."""
    suite = row[0].rpartition(", ")[2].lower().replace("control from pixels", "vision")
    suite = suite if suite in SUITES else "proprio"
    older = {year: f"{suite}-{year}" for year in ("2023", "2024") if f"{suite}-{year}" in read_variants("dreamerv3")}
    variants = {**older, "last commit": "dreamerv3" if suite == "proprio" else suite}
    told = dict(zip(STATES, row[1:4], strict=True))
    told = {state: told.get(words.removeprefix("as "), words) for state, words in told.items()}
    values = {state: [flat(variant)[key] for key in keys_of(row)] for state, variant in variants.items()}
    known = [state for state in STATES if told[state]]
    assert set(known) == set(variants)
    for one in known:
        for other in known:
            assert told[one] == told[other] or values[one] != values[other], (one, other)
            assert told[one] != told[other] or len(keys_of(row)) > 1 or values[one] == values[other], (one, other)
    for state in known:
        if match := re.fullmatch(r"([\d.,]+)( %)?", told[state]):
            number = float(match[1].replace(",", "")) / (100 if match[2] else 1)
            assert number in values[state], state
