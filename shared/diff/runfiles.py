"""Two run files: are they the same run? Identity, config, code and machine; then every curve, row by row.

Two runs of one seed on one machine give the same numbers; the first row in which they do not is told, with the column,
and what differs between them that may be the cause. How well they learned, groups tell: runs:PAPER/FRAMEWORK/VARIANT.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from shared.diff import configs
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Table
from shared.results import DECISIVE_FACTS, IDENTITY, TABLES, Run, read_run

SKIPPED = "time/segment"  # wall times: never equal
CLOCK = "_seconds"


def first_row(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, str, float, float] | None:
    """(row, column, A, B) of the first row in which two tables differ, over the rows and columns both have."""
    columns = [name for name in a.columns if name in b.columns and not name.endswith(CLOCK)]
    rows = min(len(a), len(b))
    one, other = (table.loc[: rows - 1, columns].to_numpy(dtype=np.float64) for table in (a, b))
    apart = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not apart.any():
        return None
    row = int(apart.any(axis=1).argmax())
    column = int(apart[row].argmax())
    return row, columns[column], float(one[row, column]), float(other[row, column])


def tables_rows(a: Run, b: Run) -> list[tuple]:
    """A row per table of the run files: rows on either side, and where they part first."""
    rows = []
    for name in TABLES:
        if name == SKIPPED:
            continue
        one, other = a.tables[name], b.tables[name]
        found = first_row(one, other)
        if found is None:
            where = "equal" if len(one) == len(other) else "equal as far as the shorter goes"
            rows.append((name, len(one), len(other), None, where, None, None, None))
            continue
        row, column, left, right = found
        at = int(one["env_steps"].iloc[row])
        rows.append((name, len(one), len(other), row, column, left, right, at))
    return rows


def compare(a: Path, b: Path) -> Outcome:
    """The outcome for two run files."""
    one, other = read_run(a), read_run(b)
    identity = [(name, one.attrs[name], other.attrs[name]) for name in (*IDENTITY, "status", "env_steps")]
    facts = [(name, one.provenance.get(name), other.provenance.get(name)) for name in ("git_commit", *DECISIVE_FACTS)]
    told = [(name, left, right) for name, left, right in identity + facts if left != right]
    settings = [configs.of_resolved(yaml.safe_load(run.config_text), str(path)) for run, path in ((one, a), (other, b))]
    changed = configs.differences(*settings)
    tables = [Table("What the two runs are", ("what", "A", "B"), told, "Only what differs.")]
    if changed:
        tables.append(Table("Values that differ, most consequential first", configs.COLUMNS, changed))
    different = [name for name, left, right in identity if left != right and name in ("paper", "task")]
    if different:
        reason = f"not the same {' and '.join(different)}: their curves are about different things"
        return Outcome("run", str(a), str(b), NOT_COMPARABLE, reason, tables)
    rows = tables_rows(one, other)
    columns = ("table", "rows A", "rows B", "first row that differs", "column", "A", "B", "env steps")
    tables.insert(0, Table("Curves, row by row", columns, rows))
    apart = [row for row in rows if row[3] is not None]
    causes = [name for name, _, _ in told if name not in ("status", "env_steps")] + [row[0] for row in changed]
    if not apart:
        extent = (
            ""
            if len({len(t) for run in (one, other) for t in (run.tables["learn/update"],)}) == 1
            else ", as far as both go"
        )
        reason = f"every curve is equal, number by number{extent}"
        if changed:
            reason += f"; yet {len(changed)} values of their configs differ"
        return Outcome("run", str(a), str(b), DIFFERS if changed else SAME, reason, tables)
    first = min(apart, key=lambda row: row[7])
    reason = (
        f"they part first in {first[0]}, row {first[3]} (env step {first[7]:,}): {first[4]} is {first[5]:.6g} in A and "
        f"{first[6]:.6g} in B; what differs between them: {', '.join(causes[:6]) or 'nothing that is recorded'}"
    )
    found = {"table": first[0], "row": first[3], "column": first[4], "env_steps": first[7], "causes": causes}
    return Outcome("run", str(a), str(b), DIFFERS, reason, tables, facts=found)
