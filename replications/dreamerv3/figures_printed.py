"""What DreamerV3's paper prints of benchmarks that are out of scope here: Table 5, and one page for all of them.

Published numbers only, as far as our source has them (data/reference/dreamerv3_tables.csv); nothing is replicated.
"""

import pandas as pd

from replications.dreamerv3.figures_published import printed_elsewhere
from replications.dreamerv3.figures_scores import ELSEWHERE, GREYS, OTHER_NAMES, STYLES, draw_bars
from replications.dreamerv3.figures_settings import OUT_OF_SCOPE, table_page
from shared.figures.command import Drawn, Request
from shared.figures.page import human
from shared.figures.tables import number

STAMP = "not replicated"
ALONE = "Published numbers only, not replicated: no run of ours stands behind this page, and none is compared with it."
HEADER = ["benchmark", "printed in", "score", "method", "value"]
STANDS_IN = {  # in the paper; the curves and the scores of single tasks are not in our source
    "minecraft": "Figure 8, Table 5",
    "procgen": "Figure 11, Table 7",
    "dmlab": "Figure 12, Table 8",
}
SEEDS = {"minecraft": "10", "procgen": "1", "dmlab": "5"}  # of Dreamer; other methods' are not in our source
BARS = 1.75  # inches


def table_5(request: Request) -> Drawn:
    """Minecraft's final returns as printed. Numbers: a row per method."""
    frame = _printed(request, ["minecraft"])
    notes = [ALONE, f"{_reason('Minecraft')} 100M env steps, mean of 10 seeds; their deviation is not in our source."]
    lines = [[*row[:-1], number(row[-1], 1)] for row in frame[HEADER].itertuples(index=False)]
    return table_page(
        "Table 5: final returns in Minecraft, published numbers only", request, frame.drop(columns="color"), HEADER,
        lines, notes, (), (0, 1, 2, 3), stamp=STAMP,
    )  # fmt: skip


def elsewhere(request: Request) -> Drawn:
    """ProcGen, DMLab and Minecraft: bars of what is printed, and its settings. Numbers: a row per benchmark, method."""
    frame = _printed(request, list(ELSEWHERE)).merge(_settings(list(ELSEWHERE)))
    columns = [*HEADER, "tasks", "env steps", "seeds"]
    lines = [
        [*row[:4], number(row[4], 1), str(row[5]), human(row[6]), row[7] if row[3].startswith("Dreamer") else "–"]
        for row in frame[columns].itertuples(index=False)
    ]
    notes = [
        ALONE,
        "Of Figures 8, 11 and 12, which are curves, and Tables 5, 7 and 8, with every task, our source has these. "
        "It has no number of Figures 1b, 5, 7, 9 (Minecraft's items, films), nor of Figure 16 and Table 13 (BSuite).",
        " ".join(_reason(name) for name in OUT_OF_SCOPE),
        "Brown: Dreamer, the 2024 agent. Grey: other methods.",
    ]
    starts = [index for index in range(1, len(frame)) if frame["benchmark"][index] != frame["benchmark"][index - 1]]

    def bars(page, top: float) -> None:
        for place, suite in enumerate(ELSEWHERE):
            axes = page.axes(0.4 + 2.35 * place, top - BARS + 0.4, 1.9, 1.0)
            draw_bars(axes, suite, frame[frame["suite"] == suite])

    return table_page(
        "benchmarks out of scope: published numbers only", request, frame.drop(columns="color"),
        columns, lines, notes, starts, (0, 1, 2, 3), stamp=STAMP, above=(BARS, bars),
    )  # fmt: skip


def _printed(request: Request, suites: list[str]) -> pd.DataFrame:
    """Rows of the printed numbers: the columns of HEADER, and suite, method's colour, origin."""
    found = printed_elsewhere(request.reference)
    found = found[found["suite"].isin(suites)].reset_index(drop=True)
    dreamer = found["method"].str.startswith("dreamerv3")
    return pd.DataFrame(
        {
            "suite": found["suite"],
            "benchmark": found["suite"].map({suite: words for suite, (words, _) in ELSEWHERE.items()}),
            "printed in": found["suite"].map(STANDS_IN),
            "score": found["suite"].map({suite: words for suite, (_, words) in ELSEWHERE.items()}),
            "method": found["method"].map(OTHER_NAMES),
            "value": found["value"],
            "kind": "printed",
            "origin": found["origin"],
            "color": [STYLES["dreamerv3-2024"][0] if one else GREYS[0] for one in dreamer],
        }
    )


def _settings(suites: list[str]) -> pd.DataFrame:
    rows = [(suite, *OUT_OF_SCOPE[ELSEWHERE[suite][0]][0][:2], SEEDS[suite]) for suite in suites]
    return pd.DataFrame(rows, columns=["suite", "tasks", "env steps", "seeds"])


def _reason(name: str) -> str:
    return f"{name}: {OUT_OF_SCOPE[name][1]}."
