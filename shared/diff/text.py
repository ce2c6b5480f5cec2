"""An outcome for the terminal: the verdict first, then the tables, cut to what a screen holds."""

import shutil
import textwrap

from shared.diff.outcome import Outcome, Table, words

ROWS = 25  # of a table; the JSON and the page have them all
WIDEST = 56  # characters of a column
GAP = "  "


def summary(outcome: Outcome, rows: int = ROWS) -> str:
    """The whole answer as text. rows: of each table at most."""
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 80), 160)
    head = f"{outcome.level} level: {outcome.verdict.upper()}"
    lines = [head, f"  A: {outcome.a}", f"  B: {outcome.b}"]
    lines += textwrap.wrap(outcome.reason, width, initial_indent="  ", subsequent_indent="  ")
    for table in outcome.tables:
        lines += ["", *draw(table, rows, width)]
    for note in outcome.notes:
        lines += ["", *textwrap.wrap(note, width)]
    return "\n".join(lines) + "\n"


def draw(table: Table, rows: int, width: int) -> list[str]:
    """Title, columns and at most so many rows; numbers to the right."""
    cells = [[cut(words(value)) for value in row] for row in table.rows[:rows]]
    right = [
        all(isinstance(row[i], int | float) or row[i] is None for row in table.rows) for i in range(len(table.columns))
    ]
    sizes = [max(len(row[i]) for row in [list(table.columns), *cells]) for i in range(len(table.columns))]

    def line(row: list[str]) -> str:
        padded = (c.rjust(n) if r else c.ljust(n) for c, n, r in zip(row, sizes, right, strict=True))
        return GAP.join(padded).rstrip()

    lines = [table.title, line(list(table.columns)), GAP.join("-" * size for size in sizes)]
    lines += [line(row) for row in cells]
    if len(table.rows) > rows:
        lines.append(f"... and {len(table.rows) - rows} more: --rows 1000, --json FILE or --html FILE show all")
    if table.note:
        lines += textwrap.wrap(table.note, width)
    return lines


def cut(text: str) -> str:
    """A cell that fits its column."""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
