"""DreamerV2's published figures from run files: which there are, of which variants, and the command that draws them.

Each takes a Request and returns Drawn: the figure and the table of its plotted numbers. Learning curves are in
figures_curves.py, bars in figures_bars.py, tables of final scores in figures_scores.py, frames and predictions (Figures
A.1 and B.1) in figures_video.py, published numbers in figures_published.py.
"""

import sys

from replications.dreamerv2.figures_bars import figure_1, figure_e1
from replications.dreamerv2.figures_curves import CURVES, curve_drawing
from replications.dreamerv2.figures_published import BESIDE, CATCH, CONTROL_TASKS, HUMANOID, REFERENCE, games
from replications.dreamerv2.figures_scores import ABLATED, AGENTS, table_1, table_2, table_k1
from replications.dreamerv2.figures_video import FILMS, film_drawing
from shared.errors import cli
from shared.figures.command import Item, figure_command

FIGURES = {  # name, as in experiments.yaml -> how it is drawn, and of which variants
    **{name: Item(curve_drawing(name), list(curves.methods)) for name, curves in CURVES.items()},
    "figure_1": Item(figure_1, ["dreamerv2"]),
    "figure_e1": Item(figure_e1, ["dreamerv2"]),
    **{name: Item(film_drawing(name), [film.variant]) for name, film in FILMS.items()},
    "table_1": Item(table_1, list(AGENTS)),
    "table_2": Item(table_2, list(ABLATED)),
    "table_k1": Item(table_k1, ["dreamerv2"]),
}


def known_tasks() -> list[str]:
    """The tasks whose runs a figure may be given."""
    return [*games(REFERENCE)["task"], *CONTROL_TASKS, HUMANOID, CATCH]


@cli
def main(arguments: list[str]) -> None:
    figure_command(arguments, FIGURES, paper="dreamerv2", tasks=known_tasks(), reference=REFERENCE, beside=BESIDE)


if __name__ == "__main__":
    sys.exit(main())
