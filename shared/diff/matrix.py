"""The report's page: paper x framework x task with verdicts, every cell opening its diff, all in one file.

    python -m shared.diff.matrix --results results/smoke --html results/smoke/diff/matrix.html --json FILE

A cell compares the runs of one paper, framework, variant and task with the published seeds of that agent; a further
column compares the frameworks. The ledger and, where they were made (make diff-numbers), the number level's answers
stand on the same page.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from shared.checkpoint import write_whole
from shared.config import papers, shown
from shared.diff import published
from shared.diff.compare import compare
from shared.diff.groups import Group, of_paths, of_release
from shared.diff.ledger import ledger
from shared.diff.outcome import NOT_COMPARABLE, Outcome, Table, plain
from shared.diff.page import STYLE, environment, jinja2_safe
from shared.errors import UserError, cli
from shared.results import list_runs

FRAMEWORKS = ("torch", "jax")
AGAINST = "torch against JAX"
MATRIX = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Diff</title>
<style>{{ style }}</style></head><body>
{% import "outcome" as parts %}
<h1>Where do they part? {{ root }}</h1>
<p>Each cell: runs against the published seeds of the same agent, or the two frameworks against each other. A click
opens the diff. A dash: not run. Published numbers are of scale paper; runs of other scales are shown beside them,
and not judged.</p>
{% for paper, rows in matrix.items() %}
<h2>{{ paper }}</h2>
{% if rows %}<table class="matrix"><tr><th>variant</th><th>task</th>{% for column in columns %}<th>{{ column }}</th>
{% endfor %}</tr>
{% for (variant, task), cells in rows.items() %}<tr><td>{{ variant }}</td><td>{{ task }}</td>
{% for column in columns %}<td>{% if cells[column] %}<a href="#{{ cells[column].anchor }}">
{{ parts.verdict(cells[column].outcome) }}</a> <span class="note">{{ cells[column].word }}</span>
{% else %}–{% endif %}</td>
{% endfor %}</tr>{% endfor %}</table>{% else %}<p>No run.</p>{% endif %}
<p class="note">{{ unrun[paper] }}</p>
{% endfor %}
<h2>Implementations, number by number</h2>
{% if numbers %}<table><tr><th>paper</th><th>verdict</th><th>first difference and growth</th></tr>
{% for n in numbers %}<tr><td>{{ n.a }} and {{ n.b }}</td><td>{{ n.verdict }}</td><td>{{ n.reason }}</td></tr>
{% endfor %}
</table>{% else %}<p>Not walked here; <code>make diff-numbers</code> does.</p>{% endif %}
<h2>The diffs</h2>
{% for cell in cells %}<details id="{{ cell.anchor }}"><summary><b>{{ cell.title }}</b>
{{ parts.verdict(cell.outcome) }}</summary>{{ parts.body(cell.outcome) }}</details>{% endfor %}
{% if ledger %}<h2>Ledger</h2>
<details><summary>What changes from paper to paper</summary>{{ parts.body(ledger) }}</details>{% endif %}
<script>
function open_target() { const at = document.getElementById(location.hash.slice(1)); if (at) at.open = true; }
addEventListener("hashchange", open_target); open_target();
</script></body></html>
"""


@dataclass(frozen=True)
class Cell:
    """One comparison of the matrix."""

    paper: str
    variant: str
    task: str
    column: str
    outcome: Outcome

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.paper} {self.column} {self.variant} {self.task}".lower())

    @property
    def title(self) -> str:
        return f"{self.paper}, {self.column}, {self.variant}, {self.task}"

    @property
    def word(self) -> str:
        """What the verdict of the cell's one task is, or why there is none."""
        facts = self.outcome.facts
        if facts.get("obstacles"):
            return ", ".join(sorted({reason.partition(":")[0] for reason in facts["obstacles"]}))
        return facts.get("tasks", {}).get(self.task, self.outcome.reason)


def reference_for(paper: str, variant: str, task: str) -> Group | None:
    """The published seeds of this agent on this task; else, to say why not, another release of the paper with it."""
    fitting = published.matching(paper, variant, task)
    others = [r for r in published.releases().values() if r.paper == paper and task in published.tasks(r.name)]
    chosen = (fitting + others)[:1]
    return of_release(chosen[0], task) if chosen else None


def unpublished(group: Group, task: str) -> Outcome:
    """The outcome where nobody has published seeds."""
    reason = f"nothing is published seed by seed of {group.paper} on {task}: a mean alone makes no band"
    facts = {"obstacles": ["unpublished: seeds"]}
    return Outcome("results", group.name, "no seeds", NOT_COMPARABLE, reason, means(group, task), facts=facts)


def means(group: Group, task: str) -> list[Table]:
    """Our last evaluation beside the paper's own table of mean scores, for orientation."""
    points = next(iter(group.points.values()))
    last = points[points["env_steps"] == points.groupby("seed")["env_steps"].transform("max")]
    ours = [(f"seed {seed}", of["return"].mean(), int(of["env_steps"].max())) for seed, of in last.groupby("seed")]
    rows = [(f"ours, scale {group.scale}, {name}", score, steps) for name, score, steps in ours]
    path = published.DATA / f"{group.paper}_table_1.csv"
    if path.is_file():
        table = pd.read_csv(path)
        table = table[(table["task"] == task) & (table["input"] != "factor")]
        rows += [(f"{row.method} ({row.origin})", float(row.score), None) for row in table.itertuples()]
    return [Table("Last scores beside the printed means", ("method", "mean return", "env steps"), rows)]


def cells(root: Path) -> list[Cell]:
    """Every comparison that the runs below root allow, in order."""
    listed = list_runs(root)
    listed = listed[listed["status"] != "unreadable"]
    found: list[Cell] = []
    for (paper, variant, task), rows in listed.groupby(["paper", "variant", "task"], sort=True):
        groups = {
            framework: of_paths([Path(p) for p in of["path"]], f"{paper}/{framework}/{variant}/{task}")
            for framework, of in rows.groupby("framework", sort=True)
        }
        reference = reference_for(paper, variant, task)
        for framework, group in groups.items():
            if not group.points:
                continue
            outcome = unpublished(group, task) if reference is None else compare(group, reference, plots=("curves",))
            found.append(Cell(paper, variant, task, framework, outcome))
        if all(framework in groups and groups[framework].points for framework in FRAMEWORKS):
            outcome = compare(*(groups[framework] for framework in FRAMEWORKS), plots=("curves",))
            found.append(Cell(paper, variant, task, AGAINST, outcome))
    return found


def not_run(paper: str, found: Sequence[Cell]) -> str:
    """Which releases of a paper no run here answers."""
    done = {(cell.variant, cell.task) for cell in found if cell.paper == paper}
    words = []
    for release in published.releases().values():
        if release.paper == paper and release.variants:
            tasks = published.tasks(release.name)
            here = sum((variant, task) in done for task in tasks for variant in release.variants)
            words.append(f"{release.name} (variant {', '.join(release.variants)}): {here} of {len(tasks)} tasks run")
    return "Published: " + ("; ".join(words) or "no seeds") + "."


def number_answers(folder: Path) -> list[dict]:
    """What the number level said, where it was asked: numbers_*.json."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("numbers_*.json"))]


def render(root: Path, found: Sequence[Cell], numbers: Sequence[dict]) -> str:
    """The page."""
    columns = [*sorted({cell.column for cell in found} | set(FRAMEWORKS), key=column_order)]
    matrix: dict[str, dict] = {paper: {} for paper in papers()}
    for cell in found:
        row = matrix.setdefault(cell.paper, {}).setdefault((cell.variant, cell.task), dict.fromkeys(columns))
        row[cell.column] = cell
    return (
        environment(matrix=MATRIX)
        .get_template("matrix")
        .render(
            style=jinja2_safe(STYLE),
            root=shown(root),
            matrix=matrix,
            columns=columns,
            unrun={paper: not_run(paper, found) for paper in matrix},
            numbers=numbers,
            cells=found,
            ledger=ledger() if len(papers()) > 1 else None,
        )
    )


def column_order(column: str) -> tuple[int, str]:
    """torch, jax, other frameworks, then the frameworks against each other."""
    order = (*FRAMEWORKS, "numpy", AGAINST)
    return (order.index(column) if column in order else len(order), column)


def facts(found: Sequence[Cell]) -> str:
    """The matrix as JSON."""
    rows = [
        {"paper": c.paper, "variant": c.variant, "task": c.task, "column": c.column, "verdict": c.outcome.verdict,
         "word": c.word, "reason": c.outcome.reason}
        for c in found
    ]  # fmt: skip
    return json.dumps(plain(rows), indent=2, ensure_ascii=False) + "\n"


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m shared.diff.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="a folder of one scale, for example results/smoke")
    parser.add_argument("--html", type=Path, required=True, help="page to write")
    parser.add_argument("--json", type=Path, required=True, help="verdicts to write")
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        raise UserError(f"--results {options.results}: no such folder")
    found = cells(options.results)
    numbers = number_answers(options.html.parent)
    for path, text in ((options.html, render(options.results, found, numbers)), (options.json, facts(found))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    print(f"{shown(options.html)}: {len(found)} comparisons")


if __name__ == "__main__":
    sys.exit(main())
