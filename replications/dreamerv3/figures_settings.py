"""DreamerV3's Tables 2, 3, 4 and 10: benchmarks, model sizes, hyperparameters and protocols, as ours are configured.

No run is needed: ours is read from paper.yaml and experiments.yaml. What the paper says stands beside it.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from replications.dreamerv3.figures_published import CRAFTER, SUITES, Suite, recomputed, tasks_of
from replications.dreamerv3.figures_scores import RECIPES, TABLES
from shared.config import leaves, paper_folder, read_yaml, resolve
from shared.figures.command import Drawn, Request
from shared.figures.page import Page, human, styled
from shared.figures.tables import ROW, draw_table, markdown

PAPER_TABLE_2 = {  # suite -> tasks, env steps, action repeat, environments, replay ratio, size, as the paper prints it
    "atari": (57, 200_000_000, 4, 16, 32, "200M"),
    "atari100k": (26, 400_000, 4, 1, 128, "200M"),
    "proprio": (18, 500_000, 2, 16, 512, "12M"),
    "vision": (20, 1_000_000, 2, 16, 512, "12M"),
    "crafter": (1, 1_000_000, "–", 1, 512, "200M"),  # its action repeat is not in our source
}
OUT_OF_SCOPE = {  # the same of what is not here, as far as our source has it, and why
    "ProcGen": ((16, 50_000_000, 1, "–", 64, "200M"), "its authors' package has no wheel for Python 3.11"),
    "DMLab": ((30, 100_000_000, 4, "–", 32, "200M"), "is built from source"),
    "Minecraft": ((1, 100_000_000, 1, 64, 32, "200M"), "needs Java and the game"),
    "BSuite": ((23, "–", "–", 1, 1024, "–"), "not attempted: our source has no score of it"),
}
PARAMETERS = {  # counted in the authors' code: 64 x 64 x 3 and 6 actions; 96 x 96 x 1 and 18 actions
    "1m": (686_456, None),
    "12m": (10_492_616, 11_808_850),
    "25m": (23_487_016, 26_444_402),
    "50m": (41_646_984, 46_900_882),
    "100m": (93_463_624, 105_276_626),
    "200m": (165_942_536, 186_936_082),
    "400m": (372_887_176, 420_106_130),
}
AGENTS = {"last commit": "dreamerv3", "2024": "proprio-2024", "2023": "proprio-2023"}
OF_SUITES = ("environment.", "sizes.", "model.size", "schedule.total_env_steps", "schedule.train_ratio")
LOOKING = ("video.", "evaluation.", "schedule.evaluate", "schedule.checkpoint")  # ours, and nothing is learned from it
LINE = re.compile(r"^(?P<indent> *)(?P<key>[a-z_0-9]+):(?P<value>[^#]*)(?:#\s*(?P<comment>.*))?$")


def table_2(request: Request) -> Drawn:
    """Benchmarks: what the paper prints, and the two agents' settings here. Numbers: a row per benchmark and source."""
    header = ["benchmark", "settings of", "tasks", "env steps", "action repeat", "environments", "replay ratio", "size"]
    rows = []
    rules = []
    for suite in (*SUITES.values(), CRAFTER):
        rules.append(len(rows))
        rows.append((suite.title.partition(",")[0], "paper, Table 2", *PAPER_TABLE_2[suite.name]))
        for variant in dict.fromkeys((suite.last_commit, suite.variant)):
            words = "here, last commit" if variant == suite.last_commit else f"here, {variant}"
            rows.append((suite.title.partition(",")[0], words, *_suite_settings(request, suite, variant)))
    rules.append(len(rows))
    rows += [(name, f"paper; out of scope: {why}", *values) for name, (values, why) in OUT_OF_SCOPE.items()]
    lines = [[str(cell) if not isinstance(cell, int) else _count(cell, column) for column, cell in enumerate(row)]
             for row in rows]  # fmt: skip
    notes = [
        "Which agent: settings here are those of the last commit's agent and of the one that made the published curve. "
        "Everything else is the same in all suites (Table 4). Atari100k of 2024's code had replay ratio 256. The size "
        "of a suite whose agent is of 2023 is that code's S. The released runs of control from pixels had 8 "
        "environments. Crafter has no published curve in our source.",
        "Out of scope for now: their simulators are no dependency of this repository.",
    ]
    frame = pd.DataFrame(rows, columns=header)
    return table_page("Table 2: benchmarks", request, frame, header, lines, notes, rules[1:], (0, 1))


def table_3(request: Request) -> Drawn:
    """Model sizes. Numbers: a row per size."""
    sizes = _values("dreamerv3")["sizes"]
    header = ["size", "recurrent units", "hidden units", "classes per latent", "convolution depth",
              "parameters, 64×64×3, 6 actions", "parameters, 96×96×1, 18 actions"]  # fmt: skip
    columns = ("deter_size", "units", "classes", "image_depth")
    rows = [
        (name, *(sizes[name][column] for column in columns), *PARAMETERS[name])
        for name in sorted(PARAMETERS, key=lambda name: int(name[:-1]))
    ]
    rows += [(name, *(sizes[name][column] for column in columns), None, None) for name in sizes.keys() - PARAMETERS]
    lines = [[row[0].upper(), *("–" if cell is None else f"{cell:,}" for cell in row[1:])] for row in rows]
    notes = [
        "From paper.yaml. Parameters: of the last commit's agent, counted in the authors' code; a test counts ours and "
        "finds the same (tests/replications/test_dreamerv3.py). The paper's Table 3 has no 1M, and prints 1024 "
        "recurrent units for 12M, where the code has 2048. S2023 is the 2023 agent's S (18M); its others are not here.",
    ]
    return table_page("Table 3: model sizes", request, pd.DataFrame(rows, columns=header), header, lines, notes,
                      (len(PARAMETERS),), (0,))  # fmt: skip


def table_4(request: Request) -> Drawn:
    """Hyperparameters of the three agents, with the source of each. Numbers: a row per key of paper.yaml."""
    found = {words: dict(leaves(_values(variant), where=variant)) for words, variant in AGENTS.items()}
    sources = _sources()
    keys = [key for key in sources if not key.startswith((*OF_SUITES, *LOOKING))]
    rows = [(key, *(found[words][key] for words in AGENTS), sources[key]) for key in keys]
    header = ["key", *AGENTS, "source (and what else it is, where that differs)"]
    lines = [[row[0], *(_plain(cell) for cell in row[1:-1]), _shorten(row[-1])] for row in rows]
    groups = [index for index in range(1, len(keys)) if keys[index].split(".")[0] != keys[index - 1].split(".")[0]]
    strong = [index for index, row in enumerate(rows) if len({str(cell) for cell in row[1:-1]}) > 1]
    notes = [
        "Every value that is the same in all suites, from paper.yaml and the variants dreamerv3, proprio-2024 and "
        "proprio-2023. Bold: the agents differ. What the 2023 agent alone reads, or does not, is named in config.py.",
    ]
    frame = pd.DataFrame(rows, columns=header)
    return table_page("Table 4: hyperparameters", request, frame, header, lines, notes, groups, (0, 4), strong)


def table_10(request: Request) -> Drawn:
    """Evaluation protocols: which episodes make a score, of the released runs and of ours. Numbers: a row per suite."""
    header = ["benchmark", "env steps", "last env steps that count", "seeds, released", "seeds, ours", "over tasks",
              "tested besides"]  # fmt: skip
    seeds = recomputed(request.reference).set_index(["suite", "method"])["seeds"]
    entries = read_yaml(paper_folder("dreamerv3") / "experiments.yaml")
    rows = []
    for table, name in TABLES.items():
        suite, values = SUITES[name], _values(SUITES[name].variant)
        often, episodes = values["schedule"]["evaluate_every_env_steps"], values["evaluation"]["episodes"]
        rows.append(
            (
                *(suite.title.partition(",")[0], suite.env_steps, suite.window),
                *(seeds[name, suite.published], str(entries[table]["seeds"])),
                "mean, median" + (" of gamer's %" if suite.games else ""),
                f"{episodes} episode each {human(often)}",
            )
        )
    lines = [[human(cell) if isinstance(cell, int) else cell for cell in row] for row in rows]
    notes = [
        "A score is the return of training episodes, with drawn actions, of the agent that made the published numbers "
        "(2024's; 2023's for control from vectors). The words of the paper's own Table 10 are not known to us: this is "
        "how the released runs give its numbers, and how ours are scored. Tested besides: ours alone; no score has it.",
        *(f"{SUITES[name].title.partition(',')[0]}: {words}" for name, words in RECIPES.items()),
        "Runs are averaged first, then seeds, then tasks. Ours: a fiftieth of runs that are shorter than published.",
    ]
    frame = pd.DataFrame(rows, columns=header).assign(recipe=[RECIPES[name] for name in TABLES.values()])
    return table_page("Table 10: evaluation protocols", request, frame, header, lines, notes, (), (0, 5, 6))


@functools.cache
def _values(variant: str) -> dict[str, Any]:
    return resolve("dreamerv3", variant, {"name": "paper"})["values"]


def _suite_settings(request: Request, suite: Suite, variant: str) -> tuple:
    values = _values(variant)
    environment, schedule = values["environment"], values["schedule"]
    size = values["model"]["size"]
    return (
        1 if suite is CRAFTER else len(tasks_of(request.reference, suite.name)),
        schedule["total_env_steps"],
        environment["action_repeat"],
        environment["parallel"],
        schedule["train_ratio"],
        size.upper().replace("S2023", "S (2023)"),
    )


def _sources() -> dict[str, str]:
    """Dotted key -> the comment of its line in paper.yaml, which says where the number is from."""
    found, above = {}, []
    for line in (paper_folder("dreamerv3") / "paper.yaml").read_text(encoding="utf-8").splitlines():
        match = LINE.match(line)
        if not match:
            continue
        above = [*above[: len(match["indent"]) // 2], match["key"]]
        if match["value"].strip():
            found[".".join(above)] = (match["comment"] or "").strip()
    return found


def _count(cell: int, column: int) -> str:
    return human(cell) if column == 3 else str(cell)


def _plain(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)


def _shorten(words: str, characters: int = 82) -> str:
    return words if len(words) <= characters else f"{words[: characters - 1].rstrip()}…"


def table_page(
    what: str,
    request: Request,
    frame: pd.DataFrame,
    header,
    lines,
    notes: list[str],
    rules,
    left,
    strong: Sequence[int] = (),
    stamp: str = "",
    above: tuple[float, Callable[[Page, float], None]] = (0.0, lambda page, top: None),
) -> Drawn:
    """A page with one table, and the same as Markdown.

    stamp: over the whole page, instead of that of a scale, which has no part in what is only published. above: inches
    over the table, and what draws there, given their upper end.
    """
    height, draw = above
    table = ROW * (len(lines) + 1) + 0.03 * (len(rules) + 1) + 0.2
    source = "" if stamp else " Values are those of scale paper."
    notes = [*notes, *request.notes, f"Scale {request.scale}. No run is needed.{source}"]
    with styled():
        page = Page(f"DreamerV3, {what}", "paper" if stamp else request.scale, table + height, notes)
        if stamp:
            page.stamp(stamp)
        draw(page, table + height)
        draw_table(page, table, header, lines, left_columns=left, rules_before=rules, strong_rows=strong)
    text = "\n".join([f"# DreamerV3, {what}\n", markdown(header, lines, left), *(f"{note}\n" for note in notes)])
    return Drawn(page.figure, frame, {".md": text.encode()})
