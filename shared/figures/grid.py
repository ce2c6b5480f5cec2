"""Many panels on one page: where each goes, in inches. panels.py draws what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass

ABOVE = 0.24  # inches of a panel's title
STATUS_LINE = 0.1  # inches of a status line under the title
BETWEEN = 0.16  # inches below the panels of one row that another follows


@dataclass(frozen=True)
class Grid:
    """Panels of one size in rows from the upper left. Every row has room for the tallest head in it.

    heads: status lines above each panel. left: of the first panel. across: from one panel's left edge to the next's.
    labels: inches below a panel that carries the labels of the x axis. foot: inches below the last row's labels.
    """

    heads: Sequence[int]
    columns: int
    width: float
    height: float
    left: float
    across: float
    labels: float
    foot: float

    @property
    def rows(self) -> int:
        return -(-len(self.heads) // self.columns)

    @property
    def body(self) -> float:
        """Inches of all rows, labels and foot."""
        return self._bottom(0) + self._panel(0)

    def place(self, index: int) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a panel, in inches from the body's lower left corner."""
        row, column = divmod(index, self.columns)
        return self.left + column * self.across, self._bottom(row), self.width, self.height

    def lowest(self, index: int) -> bool:
        """Whether no panel stands below this one."""
        return index + self.columns >= len(self.heads)

    def _bottom(self, row: int) -> float:
        gaps = (self._gap(above) + self._panel(above + 1) for above in range(row, self.rows - 1))
        return self.foot + self.labels + sum(gaps)

    def _panel(self, row: int) -> float:
        """Inches of the panels of one row with their heads."""
        heads = self.heads[row * self.columns : (row + 1) * self.columns]
        return self.height + ABOVE + STATUS_LINE * max(heads)

    def _gap(self, row: int) -> float:
        """Inches below a row that another follows: room for labels where that one is the last and not full."""
        return self.labels if row == self.rows - 2 and len(self.heads) % self.columns else BETWEEN
