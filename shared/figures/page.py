"""A page of a figure: axes placed in inches, notes that are never clipped, stamps on what is no result, and saving.

Every published figure is drawn on one Page, so that scale, commit and caveats stand on all of them in the same place.
"""

import contextlib
import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

STYLE = Path(__file__).with_name("style.mplstyle")
WIDTH = 7.2  # inches, a printed page between its margins
MARGIN = 0.12  # inches
TITLE_HEIGHT = 0.25  # inches
SCALE_HEIGHT = 0.15  # inches, the line below the title
NOTE_SIZE = 5.6  # points
NOTE_LINE = 0.105  # inches per line of notes
NOTE_CHARACTERS = 168  # per line, DejaVu Sans at NOTE_SIZE over the page's width
INK = "#222222"
QUIET = "#777777"
WARNING = "#B00020"
ALARMS = ("MIXED", "UNREADABLE", "UNEQUAL")  # notes that begin with these words are set in the colour of a warning
STAMPS = {"smoke": "smoke: not a result"}
SCALE_LINES = {
    "smoke": "smoke: shrunk until it runs in minutes; shows that every step works, not what the method can do",
    "laptop": "laptop: reduced sizes, not the paper's setting",
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """The repository's style and nothing of the user's own matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.style.use(STYLE)
        yield


class Page:
    """A figure of fixed width whose height is the sum of its parts.

    title, scale line
    body          axes placed by `axes`, in inches from the body's lower left corner
    notes         wrapped lines: sources, rules, caveats
    """

    def __init__(self, title: str, scale: str, body_height: float, notes: Sequence[str], width: float = WIDTH):
        characters = int(NOTE_CHARACTERS * (width - 2 * MARGIN) / (WIDTH - 2 * MARGIN))
        lines = [
            (line, WARNING if note.startswith(ALARMS) else QUIET)
            for note in notes
            for line in textwrap.wrap(note, characters)
        ]
        self.notes_height = len(lines) * NOTE_LINE + 2 * MARGIN
        head = MARGIN + TITLE_HEIGHT + (SCALE_HEIGHT if scale in SCALE_LINES else 0)
        self.width, self.height = width, head + body_height + self.notes_height
        self.figure = Figure(figsize=(self.width, self.height))
        FigureCanvasAgg(self.figure)
        self._title(title, scale)
        self._notes(lines)
        if scale in STAMPS:
            self.stamp(STAMPS[scale])

    def axes(self, left: float, bottom: float, width: float, height: float, **options) -> Axes:
        """New axes. All four in inches; left and bottom from the body's lower left corner."""
        at = (left / self.width, (bottom + self.notes_height) / self.height)
        return self.figure.add_axes((*at, width / self.width, height / self.height), **options)

    def text(self, left: float, bottom: float, words: str, **options):
        """Text at inches from the body's lower left corner."""
        return self.figure.text(left / self.width, (bottom + self.notes_height) / self.height, words, **options)

    def rule(self, left: float, right: float, height: float, width: float, color: str = INK) -> None:
        """A horizontal line. left, right in inches from the page's left edge; width in points."""
        y = (height + self.notes_height) / self.height
        self.figure.add_artist(
            Line2D(
                [left / self.width, right / self.width],
                [y, y],
                color=color,
                linewidth=width,
                transform=self.figure.transFigure,
            )
        )

    def stamp(self, words: str) -> None:
        """A large light watermark over everything, flatter and smaller where the page is low."""
        self.figure.text(
            0.5,
            0.5,
            words,
            fontsize=min(40.0, 11 * self.height),
            fontweight="bold",
            color=WARNING,
            alpha=0.13,
            ha="center",
            va="center",
            rotation=math.degrees(math.atan2(0.45 * self.height, self.width)),
            zorder=100,
        )

    def _title(self, title: str, scale: str) -> None:
        left, top = MARGIN / self.width, 1 - MARGIN / self.height
        self.figure.text(left, top, title, fontsize=9.5, fontweight="bold", color=INK, ha="left", va="top")
        if scale in SCALE_LINES:
            below = 1 - (MARGIN + 0.185) / self.height
            self.figure.text(left, below, SCALE_LINES[scale], fontsize=7, color=WARNING, ha="left", va="top")

    def _notes(self, lines: Sequence[tuple[str, str]]) -> None:
        left, top = MARGIN / self.width, (self.notes_height - MARGIN) / self.height
        self.rule(MARGIN, self.width - MARGIN, 0.045 - MARGIN, 0.5, "#CCCCCC")
        for rank, (line, color) in enumerate(lines):
            self.figure.text(
                left, top - rank * NOTE_LINE / self.height, line, fontsize=NOTE_SIZE, color=color, va="top"
            )


def texts(figure: Figure) -> list[str]:
    """Every non-empty text on the figure, as drawn: what a reader can read."""
    return [item.get_text() for item in figure.findobj(matplotlib.text.Text) if item.get_text().strip()]


def image_bytes(figure: Figure, suffix: str, *, title: str, origin: str) -> bytes:
    """The figure as a .pdf or .png file, the same bytes every time: the metadata hold no clock.

    title, origin: stored in the file's metadata; origin names commits and configs.
    """
    metadata = {
        ".pdf": {"Title": title, "Subject": origin, "CreationDate": None},
        ".png": {"Title": title, "Description": origin, "Software": None},
    }
    target = io.BytesIO()
    with styled():
        figure.savefig(target, format=suffix.removeprefix("."), metadata=metadata[suffix])
    return target.getvalue()


def human(count: float) -> str:
    """A count as people write it, to three digits: 950, 1.5k, 40k, 1M."""
    count = float(f"{count:.3g}")
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"
