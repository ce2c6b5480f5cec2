"""What a comparison found: a verdict, its reason, and the tables and plots behind it. text.py and page.py show it.

The verdict is one of three and is the exit status of the command line: same (0), differs (1), not comparable (2). What
went wrong before there was a verdict ends with 3.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SAME, DIFFERS, NOT_COMPARABLE = "same", "differs", "not comparable"
STATUS = {SAME: 0, DIFFERS: 1, NOT_COMPARABLE: 2}
ERROR = 3  # exit status of a mistake in the question or on the machine


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; note says how to read them."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    note: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Table {self.title!r}: a row of {len(row)} values under {len(self.columns)} columns")


@dataclass(frozen=True)
class Plot:
    """A picture, PNG, with a sentence that says what it shows."""

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Outcome:
    """One answer.

    level: config, parameters, numbers, run or results. a, b: what was compared, as a person names it.
    reason: one sentence: where the two part, or why they cannot be compared. facts: further numbers, for the JSON.
    """

    level: str
    a: str
    b: str
    verdict: str
    reason: str
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.verdict not in STATUS:
            raise ValueError(f"Outcome: verdict {self.verdict!r}, expected one of {list(STATUS)}")

    @property
    def status(self) -> int:
        """Exit status for scripts."""
        return STATUS[self.verdict]

    def to_json(self) -> str:
        """Everything but the pictures. A number that is not finite becomes text: JSON has none."""
        content = dataclasses.asdict(dataclasses.replace(self, plots=[]))
        del content["plots"]
        content["tables"] = [
            {"title": t.title, "note": t.note, "rows": [dict(zip(t.columns, row, strict=True)) for row in t.rows]}
            for t in self.tables
        ]
        return json.dumps(plain({"status": self.status, **content}), indent=2, ensure_ascii=False) + "\n"


def plain(tree: Any) -> Any:
    """A tree of JSON's own kinds: NumPy scalars and arrays become numbers and lists, inf and NaN their names."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    if isinstance(tree, np.ndarray):
        return plain(tree.tolist())
    if isinstance(tree, np.generic):
        return plain(tree.item())
    if isinstance(tree, float) and not math.isfinite(tree):
        return str(tree)
    if tree is None or isinstance(tree, str | int | float | bool):
        return tree
    return str(tree)


def words(value: Any) -> str:
    """A value of a table as a person reads it: numbers to four digits, nothing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float | np.floating):
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        if value == int(value) and abs(value) < 1e15:
            return f"{int(value):,}" if abs(value) >= 10_000 else f"{int(value)}"
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(words(item) for item in value) + "]"
    return str(value)
