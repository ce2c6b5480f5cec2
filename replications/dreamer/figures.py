"""Dreamer's published figures from run files: which there are, of which variants, and the command line that draws them.

Each takes a Request and returns Drawn: the figure and the table of its plotted numbers. Learning curves (Figures 7 to
12 and the lineages) are in figures_curves.py, Figure 4 in figures_horizon.py, Figure 5 in figures_video.py, Figure 6
and the table of Appendix G in figures_scores.py, training by the clock in figures_time.py, published numbers in
figures_published.py.
"""

import sys

from replications.dreamer.figures_curves import CURVES, METHODS, curve_drawing
from replications.dreamer.figures_horizon import HORIZONS, figure_4
from replications.dreamer.figures_published import LINES, NAMES, REFERENCE, RELEASED
from replications.dreamer.figures_scores import OURS, figure_6, table_1
from replications.dreamer.figures_time import METHODS as TIMED
from replications.dreamer.figures_time import side_by_side_time
from replications.dreamer.figures_video import figure_5
from shared.errors import cli
from shared.figures.command import Item, figure_command

FIGURES = {  # name, as in experiments.yaml -> how it is drawn, and of which variants
    "figure_4": Item(figure_4, [*METHODS, *HORIZONS]),
    "figure_5": Item(figure_5, ["dreamer"]),
    "figure_6": Item(figure_6, list(OURS)),
    **{name: Item(curve_drawing(name), list(curves.methods)) for name, curves in CURVES.items()},
    "table_1": Item(table_1, list(OURS)),
    "side_by_side_time": Item(side_by_side_time, list(TIMED)),
}


@cli
def main(arguments: list[str]) -> None:
    figure_command(
        arguments, FIGURES, paper="dreamer", tasks=list(NAMES), reference=REFERENCE, beside=(RELEASED, LINES)
    )


if __name__ == "__main__":
    sys.exit(main())
