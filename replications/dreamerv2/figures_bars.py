"""DreamerV2's bars from run files: Figure 1, the gamer median of agents, and Figure E.1, differences game by game.

figures_scores.py has our final scores and the tables.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from replications.dreamerv2.figures_curves import BLUE, OTHER_STYLES, RELEASED_COLOR
from replications.dreamerv2.figures_published import GAMES, OTHERS, anchors, games, recipes, released, title
from replications.dreamerv2.figures_scores import FRAMEWORKS, OURS_NOTE, REPAIR, our_scores, ours
from shared.figures.command import Drawn, Request
from shared.figures.page import INK, MARGIN, QUIET, Page, styled
from shared.figures.panels import NOT_RUN_COLOR, Handles, legend, panel_head
from shared.figures.scores import gamer_median, normalised
from shared.figures.sources import origin_note

SIMPLE_COLOR, WORSE_COLOR = "#B5A642", "#B0B0B0"


# ------------------------------------------------------------------------------------------------ Figure 1


def figure_1(request: Request) -> Drawn:
    """Bars of the gamer median at 200M frames: published agents, then ours.

    Numbers: a row per bar; kind is published or ours; games that it is over.
    """
    table = games(request.reference)
    again = recipes(request.reference).drop_duplicates("agent").set_index("agent")
    rows = [("DreamerV2", again.at["DreamerV2", "gamer_median"], GAMES, RELEASED_COLOR)]
    rows += [
        (name, again.at[name, "gamer_median"], GAMES, OTHER_STYLES[column][0])
        for column, name in OTHERS.items()
        if name != "C51"
    ]
    simple = table.dropna(subset="simple")
    median = float(gamer_median(simple["simple"].to_numpy(), anchors(simple)))
    rows.append(("SimPLe, 400k frames", median, len(simple), SIMPLE_COLOR))
    rows.sort(key=lambda row: -row[1])
    own = ours(request, {"dreamerv2": "DreamerV2"})
    frame = pd.concat(
        [
            pd.DataFrame(
                [
                    {"kind": "published", "agent": name, "gamer_median": value, "games": count}
                    for name, value, count, _ in rows
                ]
            ),
            own.assign(kind="ours")[["kind", "agent", "framework", "gamer_median", "games", "seeds"]],
        ],
        ignore_index=True,
    )
    notes = [
        "Bar: median over games of the gamer-normalised final scores, seeds first. DreamerV2, Rainbow, IQN and DQN: "
        "55 games, sticky actions, 200M frames, recomputed as in table_1. SimPLe: without sticky actions, after 400k "
        f"frames; the authors' file has {len(simple)} of the 36 games that the paper names. Dreamer's first version, "
        "another bar of the paper, is in none of the authors' files.",
        REPAIR,
        OURS_NOTE,
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    with styled():
        page = Page("DreamerV2, Figure 1: gamer median over Atari games", request.scale, 2.7, notes)
        axes = page.axes(0.6, 0.55, 5.6, 2.0)
        names = []
        for place, (name, value, count, color) in enumerate(rows):
            axes.bar(place, value, 0.72, color=color, alpha=0.85)
            axes.text(place, value + 0.03, f"{value:.2f}", ha="center", fontsize=6.5, color=INK)
            names.append(f"{name}\n{count} games\npublished")
        for row in own.to_dict("records"):
            place, whole = len(names), row["games"] == GAMES
            if whole:
                axes.bar(place, row["gamer_median"], 0.72, color=BLUE[row["framework"]])
                axes.text(place, row["gamer_median"] + 0.03, f"{row['gamer_median']:.2f}", ha="center", fontsize=6.5)
            words = f"{row['games']}{'' if whole else f' of {GAMES}'} games" if row["framework"] != "–" else "NOT RUN"
            names.append(f"DreamerV2\n{words}\nours{'' if row['framework'] == '–' else ', ' + row['framework']}")
        axes.set_xticks(range(len(names)), names, fontsize=6.2)
        axes.axhline(1, color=QUIET, linestyle=(0, (1, 1.2)), linewidth=0.9)
        axes.annotate("human gamer", (1, 1), xycoords=("axes fraction", "data"), xytext=(3, 0), fontsize=6,
                      textcoords="offset points", va="center", color=QUIET)  # fmt: skip
        lowest, highest = own["gamer_median"].min(), own["gamer_median"].max()  # NaN without a whole one
        limits = (np.fmin(0, lowest - 0.1), np.fmax(2.5, highest + 0.25))
        axes.set(xlim=(-0.6, len(names) - 0.4), ylim=limits)
        axes.set_ylabel("gamer median")
        axes.grid(axis="x", visible=False)
    return Drawn(page.figure, frame, {})


# ------------------------------------------------------------------------------------------------ Figure E.1


def figure_e1(request: Request) -> Drawn:
    """Bars of the difference of gamer-normalised final scores, game by game, against four agents.

    Numbers: a row per bar and dot: kind (published or ours), framework, method (the other agent), task, difference.
    """
    table = games(request.reference)
    frameworks = [f for f in FRAMEWORKS if any(source.key[:2] == (f, "dreamerv2") for source in request.sources)]
    own = {framework: our_scores(request, "dreamerv2", framework) for framework in frameworks}
    found = [
        differences(table, released(request.reference, ["dreamerv2"]).mean(axis=0), own, column, name)
        for column, name in OTHERS.items()
    ]
    notes = [
        "Bar: difference of the gamer-normalised final scores, DreamerV2's released runs (mean of 8 seeds at 199M "
        "frames or at a run's end) less the other agent's; games in falling order, panel by panel. The y axis is "
        "linear between −1 and 1 and logarithmic beyond. Above 0 DreamerV2 is better: "
        + "; ".join(f"against {rows['method'].iloc[0]} on {_better(rows)} of {GAMES} games" for rows in found)
        + ".",
        REPAIR,
        "Dots: ours instead of the released runs, for games with a finished run. " + OURS_NOTE,
        *request.notes,
        origin_note(request.sources, request.scale),
    ]
    height, across, entries = 1.15, 2.2, _entries(frameworks)
    with styled():
        page = Page("DreamerV2, Figure E.1: difference to other agents, game by game", request.scale,
                    across * len(found) + 0.35, notes)  # fmt: skip
        for rank, rows in enumerate(found):
            axes = page.axes(0.48, 0.3 + across * (len(found) - 1 - rank) + 0.78, page.width - 0.48 - MARGIN, height)
            _sorted_bars(axes, rows)
            panel_head(axes, f"DreamerV2 less {rows['method'].iloc[0]}", [])
        legend(page, 0.48, 0.3, entries)
    return Drawn(page.figure, pd.concat(found, ignore_index=True), {})


def differences(
    table: pd.DataFrame, agent: np.ndarray, own: Mapping[str, pd.Series], column: str, name: str
) -> pd.DataFrame:
    """Gamer-normalised differences to one other agent, sorted: rows of kind published, then ours with a score.

    agent: (55,) scores of the released runs. own: framework -> our scores by game.
    """
    random, gamer = table["random"].to_numpy(), table["gamer"].to_numpy()
    other = normalised(table[column].to_numpy(), random, gamer)
    bars = pd.DataFrame(
        {"kind": "published", "task": table["task"], "difference": normalised(agent, random, gamer) - other}
    ).sort_values("difference", ascending=False)
    dots = []
    for framework, scores in own.items():
        known = scores[table["task"]].notna().to_numpy()
        ours_there = normalised(scores[table["task"]].to_numpy()[known], random[known], gamer[known]) - other[known]
        dots.append(
            pd.DataFrame(
                {"kind": "ours", "framework": framework, "task": table["task"][known], "difference": ours_there}
            )
        )
    found = pd.concat([bars, *dots], ignore_index=True).assign(method=name)
    return found.reindex(columns=["kind", "framework", "method", "task", "difference"])


def _better(rows: pd.DataFrame) -> int:
    return int((rows.loc[rows["kind"] == "published", "difference"] > 0).sum())


def _sorted_bars(axes: Axes, rows: pd.DataFrame) -> None:
    bars = rows[rows["kind"] == "published"].reset_index(drop=True)
    place = {task: index for index, task in enumerate(bars["task"])}
    colors = np.where(bars["difference"] > 0, RELEASED_COLOR, WORSE_COLOR)
    axes.bar(bars.index, bars["difference"], 0.78, color=colors, alpha=0.85, linewidth=0)
    dots = rows[rows["kind"] == "ours"]
    for framework, own in dots.groupby("framework"):
        x = [place[task] for task in own["task"]]
        axes.plot(x, own["difference"], "o", color=BLUE[framework], markersize=3, markeredgecolor="white",
                  markeredgewidth=0.4, zorder=4)  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_yscale("symlog", linthresh=1, linscale=1)
    axes.set(xlim=(-0.8, len(bars) - 0.2), ylim=(-400, 400))
    axes.set_yticks([-100, -10, -1, 0, 1, 10, 100], ["−100", "−10", "−1", "0", "1", "10", "100"])
    axes.minorticks_off()
    names = [title(task) for task in bars["task"]]
    axes.set_xticks(bars.index, names, rotation=90, fontsize=4.9)
    axes.tick_params(axis="x", length=0, pad=1)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("difference", labelpad=1)


def _entries(frameworks: Sequence[str]) -> list[tuple[str, Handles]]:
    bars = (Patch(color=RELEASED_COLOR, alpha=0.85), Patch(color=WORSE_COLOR, alpha=0.85))
    dots = [Line2D([], [], color=BLUE[framework], marker="o", linestyle="", markersize=3) for framework in frameworks]
    words = f"ours: {', '.join(frameworks)}" if frameworks else "ours: NOT RUN"
    nothing = (Line2D([], [], color=NOT_RUN_COLOR, marker="o", linestyle="", markersize=3),)
    return [("released runs, better or worse", bars), (words, tuple(dots) or nothing)]
