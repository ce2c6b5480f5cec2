"""DreamerV3's published figures from run files: which there are, of which variants, and the command that draws them.

Each takes a Request and returns Drawn: the figure and the table of its plotted numbers. Learning curves are in
figures_curves.py, final scores in figures_scores.py, settings (Tables 2 to 4 and 10) in figures_settings.py, frames and
predictions (Figure 4) in figures_video.py, published numbers in figures_published.py, those of benchmarks that are out
of scope in figures_printed.py.
"""

import sys

from replications.dreamerv3.figures_curves import CRAFTER_TASK, CURVES, curve_drawing
from replications.dreamerv3.figures_printed import elsewhere, table_5
from replications.dreamerv3.figures_published import BESIDE, REFERENCE, SUITES, tasks_of
from replications.dreamerv3.figures_scores import TABLES, figure_1, score_table
from replications.dreamerv3.figures_settings import table_2, table_3, table_4, table_10
from replications.dreamerv3.figures_video import VARIANTS, figure_4
from shared.errors import cli
from shared.figures.command import Item, figure_command

SETTINGS = {"table_2": table_2, "table_3": table_3, "table_4": table_4, "table_10": table_10}  # need no run
PRINTED = {"table_5": table_5, "elsewhere": elsewhere}  # published numbers only
WITHOUT_RUNS = {name: Item(draw, []) for name, draw in {**SETTINGS, **PRINTED}.items()}
# Figure 1 shows whatever the tables below need; it asks for no runs of its own.
SUMMARY = {"figure_1": Item(figure_1, [suite.variant for suite in SUITES.values()])}
FIGURES = {  # name, as in experiments.yaml -> how it is drawn, and of which variants
    **SUMMARY,
    "figure_4": Item(figure_4, list(VARIANTS)),
    **{name: Item(curve_drawing(name), list(curves.methods)) for name, curves in CURVES.items()},
    **WITHOUT_RUNS,
    **{name: Item(score_table(name), [SUITES[suite].variant]) for name, suite in TABLES.items()},
}


@cli
def main(arguments: list[str]) -> None:
    published = (task for suite in SUITES for task in tasks_of(REFERENCE, suite))
    tasks = [*dict.fromkeys(published), CRAFTER_TASK]
    figure_command(arguments, FIGURES, paper="dreamerv3", tasks=tasks, reference=REFERENCE, beside=BESIDE)


if __name__ == "__main__":
    sys.exit(main())
