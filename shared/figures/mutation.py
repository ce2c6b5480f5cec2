"""How many wrong formulas the tests notice: the table of workflows/scripts/mutation.py, and why the rest survived.

python -m shared.figures.mutation --scores mutation.json --table F.md --numbers F.csv --picture F.png
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from shared.checkpoint import write_whole
from shared.errors import UserError, cli
from shared.figures.page import Page, image_bytes, styled
from shared.figures.sources import SHORT, table_csv
from shared.figures.tables import ROW, draw_table, markdown

TITLE = "Mutation testing of the formulas"
COLUMNS = ("mutants", "killed", "timeout", "survived", "equivalent")
HEADER = ["module", "mutants", "killed", "timed out", "survived", "of these equivalent", "score"]
NO_REASON = "NOT EXPLAINED"


def read_scores(path: Path) -> dict[str, Any]:
    """The result file; UserError where it is not one."""
    if not path.is_file():
        raise UserError(f"--scores {path}: no such file; write it with make mutants")
    content = json.loads(path.read_text(encoding="utf-8"))
    missing = {"total", "modules", "survivors", "tool", "git_commit", "started", "wall_seconds"} - content.keys()
    if missing:
        raise UserError(f"--scores {path}: no entry {', '.join(sorted(missing))}; write it with make mutants")
    return content


def numbers(content: Mapping[str, Any]) -> pd.DataFrame:
    """One row per module, the worst score first, and the total."""
    rows = [{"module": name.rpartition(".")[2], **counts} for name, counts in content["modules"].items()]
    rows.sort(key=lambda row: (row["score"], row["module"]))
    return pd.DataFrame([*rows, {"module": "total", **content["total"]}], columns=["module", *COLUMNS, "score"])


def cells(frame: pd.DataFrame) -> list[list[str]]:
    return [
        [row["module"], *(str(row[name]) for name in COLUMNS), f"{row['score']:.1%}"]
        for row in frame.to_dict("records")
    ]


def reasons(content: Mapping[str, Any]) -> list[str]:
    """One line per reason: how many survivors it explains, where, and one of them."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for mutant in content["survivors"]:
        key = (mutant["module"].rpartition(".")[2], mutant["function"], mutant["why"] or NO_REASON)
        groups.setdefault(key, []).append(mutant)
    return [
        f"{module}.{function or 'module'}, {len(group)} survived: {why}"
        for (module, function, why), group in groups.items()
    ]


def origin(content: Mapping[str, Any]) -> str:
    dirty = f" ({content['git_dirty']})" if content.get("git_dirty") else ""
    return (
        f"{content['tool']}; commit {content['git_commit'][:SHORT]}{dirty}; {content['started'][:10]}; "
        f"{content['wall_seconds'] / 60:.0f} minutes. Score: killed or timed out, of all mutants; those that no test "
        "can tell from the original (equivalent) count as survivors."
    )


def survivor_table(content: Mapping[str, Any]) -> str:
    """Every survivor, as Markdown."""
    rows = [
        [
            f"{mutant['module'].rpartition('.')[2]}:{mutant['line']}",
            f"`{mutant['before']}`",
            f"`{mutant['after']}`",
            mutant["why"] or NO_REASON,
        ]
        for mutant in content["survivors"]
    ]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return markdown(["where", "before", "after", "why it survived"], escaped, left_columns=range(4))


def draw(content: Mapping[str, Any]) -> Figure:
    rows = cells(numbers(content))
    with styled():
        height = ROW * (len(rows) + 2) + 0.1
        page = Page(TITLE, "", height, [*reasons(content), origin(content)])
        draw_table(page, height, HEADER, rows, rules_before=[len(rows) - 1], strong_rows=[len(rows) - 1])
        return page.figure


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m shared.figures.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, required=True, help="JSON of workflows.scripts.mutation to read")
    parser.add_argument("--table", type=Path, required=True, help="Markdown to write: scores and survivors")
    parser.add_argument("--numbers", type=Path, required=True, help="CSV of the scores to write")
    parser.add_argument("--picture", type=Path, required=True, help="PNG of the table to write")
    asked = parser.parse_args(arguments)
    content = read_scores(asked.scores)
    frame = numbers(content)
    text = f"{markdown(HEADER, cells(frame))}\n{origin(content)}\n\n{survivor_table(content)}"
    files: Sequence[tuple[Path, bytes]] = [
        (asked.picture, image_bytes(draw(content), ".png", title=TITLE, origin=origin(content))),
        (asked.numbers, table_csv(frame)),
        (asked.table, text.encode()),
    ]
    for path, data in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    print(f"mutation: wrote {', '.join(str(path) for path, _ in files)}")


if __name__ == "__main__":
    sys.exit(main())
