"""The ledger: the hyperparameters of several papers side by side, what changed from each to the next, and the sources.

    python -m shared.diff ledger                                            PlaNet, V1, V2, V3 of 2023, V3 of 2024, V3
    python -m shared.diff ledger dreamer/atari dreamerv2 dreamerv3/atari    or any columns, as PAPER or PAPER/VARIANT

Which keys mean the same thing stands in ledger.yaml, not here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared.config import ROOT, papers, read_yaml
from shared.diff.configs import Settings, null, of_paper
from shared.diff.outcome import DIFFERS, SAME, Outcome, Table
from shared.errors import UserError

ROWS = Path(__file__).with_name("ledger.yaml")
PLACE = re.compile(r"\{([a-z0-9_.]+)\}")


class Entry(NamedTuple):
    """What one paper says of one thing: the value, the key it has there (empty: none), and the source."""

    value: Any
    key: str
    source: str


NOTHING = Entry(None, "", "")


def entry(settings: Settings, row: dict[str, Any]) -> Entry:
    """The first of a row's keys that the settings have and that is in force; else what holds without one."""
    if any(settings.values.get(key, value) != value for key, value in (row.get("if") or {}).items()):
        return NOTHING
    for template in row["keys"]:
        key = PLACE.sub(lambda match: str(settings.values.get(match[1], "")), template)
        if key in settings.values:
            return Entry(null(settings.values[key]), key, settings.sources.get(key, ""))
    told = (row.get("without") or {}).get(settings.paper)
    if told is None:
        return NOTHING
    value, _, place = told.removesuffix(")").partition(" (")
    return Entry(value, "", f"replications/{settings.paper}/{place}" if place else f"replications/{settings.paper}")


def columns_of(names: Sequence[str] | None, *, root: Path = ROOT) -> tuple[list[Settings], list[str]]:
    """The settings of each column, and a note for each default column whose paper is not in this checkout.

    Raises:
      UserError: a column that was asked for has no such paper or variant.
    """
    standing, notes, found = papers(root=root), [], []
    for name in names or read_yaml(ROWS)["columns"]:
        paper, _, variant = name.partition("/")
        if names is None and paper not in standing:
            notes.append(f"{name}: not in this checkout")
            continue
        found.append(of_paper(paper, variant or None, root=root))
    return found, notes


def ledger(names: Sequence[str] | None = None, *, root: Path = ROOT) -> Outcome:
    """The table of all papers, or of the columns named; what changes from each to the next; and what is left."""
    columns, notes = columns_of(names, root=root)
    if len(columns) < 2:
        raise UserError(
            f"ledger: {len(columns)} of the columns are here, expected two or more; name PAPER or PAPER/VARIANT"
        )
    rows, sources, claimed = [], [], [set() for _ in columns]
    for group, things in read_yaml(ROWS)["rows"].items():
        for thing, row in things.items():
            entries = [entry(settings, row) for settings in columns]
            for keys, one in zip(claimed, entries, strict=True):
                keys.add(one.key)
            if any(one.value is not None for one in entries):
                changed = len({repr(one.value) for one in entries}) > 1
                rows.append((group, thing, *(one.value for one in entries), "changes" if changed else "same"))
                sources += [
                    (thing, settings.name, one.value, one.key, one.source)
                    for settings, one in zip(columns, entries, strict=True)
                    if one.value is not None
                ]
    names_ = [settings.name for settings in columns]
    in_force = "A dash: the paper has no such thing, or it is not in force."
    origin = ("what", "paper", "value", "key", "source")
    tables = [
        Table("Ledger", ("group", "what", *names_, "over the papers"), rows, in_force),
        *steps(names_, rows),
        Table("Where each value of the ledger comes from", origin, sources),
        leftover(columns, claimed),
    ]
    changing = sum(row[-1] == "changes" for row in rows)
    reason = f"{changing} of {len(rows)} things change over {len(columns)} columns"
    facts = {"columns": names_, "things": len(rows), "changing": changing}
    return Outcome(
        "config", names_[0], ", ".join(names_[1:]), DIFFERS if changing else SAME, reason, tables, [], notes, facts
    )


def steps(names: Sequence[str], rows: Sequence[tuple]) -> list[Table]:
    """For each column and the one before it: what changes, in the order of the ledger."""
    tables = []
    for place in range(1, len(names)):
        pairs = [(row[0], row[1], row[1 + place], row[2 + place]) for row in rows]
        changed = [pair for pair in pairs if repr(pair[2]) != repr(pair[3])]
        title = f"From {names[place - 1]} to {names[place]}"
        tables.append(Table(title, ("group", "what", "before", "after"), changed, f"{len(changed)} things"))
    return tables


def leftover(columns: Sequence[Settings], claimed: Sequence[set[str]]) -> Table:
    """Every value of every column that no row of the ledger shows."""
    keys = sorted(
        {key for settings, seen in zip(columns, claimed, strict=True) for key in settings.values.keys() - seen}
    )
    rows = [
        (key, *(null(settings.values[key]) if key in settings.values else None for settings in columns)) for key in keys
    ]
    return Table("All other values, by key", ("key", *(settings.name for settings in columns)), rows)
