"""PlaNet's published figures from run files: which there are, of which variants, and the command line that draws them.

Each takes a Request and returns Drawn: the figure and the table of its plotted numbers. Learning curves are in
figures_curves.py, Table 1 in figures_table.py, video in figures_video.py, state diagnostics in figures_states.py, the
planner's settings in figures_planner.py, published numbers in figures_published.py; shared/figures has the parts.
"""

import sys

from replications.planet.figures_curves import CURVES, SEPARATE_OR_SINGLE, curve_drawing, figure_6
from replications.planet.figures_planner import GRID, figure_12
from replications.planet.figures_published import REFERENCE, TASKS
from replications.planet.figures_states import VARIANTS, figure_11
from replications.planet.figures_table import OURS, table_1
from replications.planet.figures_video import VIDEO_METHODS, figure_10
from shared.config import ALL_TASKS
from shared.errors import cli
from shared.figures.command import Item, figure_command

FIGURES = {  # name, as in experiments.yaml -> how it is drawn, and of which variants
    **{name: Item(curve_drawing(name), list(curves.methods)) for name, curves in CURVES.items()},
    "figure_6": Item(figure_6, list(SEPARATE_OR_SINGLE)),
    "figure_10": Item(figure_10, list(VIDEO_METHODS)),
    "figure_11": Item(figure_11, VARIANTS),
    "figure_12": Item(figure_12, [GRID]),
    "table_1": Item(table_1, list(OURS)),
}


@cli
def main(arguments: list[str]) -> None:
    figure_command(arguments, FIGURES, paper="planet", tasks=[*TASKS, ALL_TASKS], reference=REFERENCE)


if __name__ == "__main__":
    sys.exit(main())
