"""Where do two things part? One command for any two of a kind, with an exit status for scripts.

    python -m shared.diff A B [--json FILE] [--html FILE]          A and B: see shared/diff/things.py or README.md
    python -m shared.diff ledger [PAPER[/VARIANT] ...]             hyperparameters of the papers side by side
    python -m shared.diff published [SELECTOR]                     which published curves there are; --csv writes them
    python -m shared.diff rule [SELECTOR]                          false alarms and power of the verdict's rule

Exit status: 0 the same, 1 they differ, 2 not comparable (the reason is told), 3 an error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shared.checkpoint import write_whole
from shared.config import read_variants
from shared.diff import compare, configs, numbers, parameters, published, runfiles, things
from shared.diff.ledger import ledger
from shared.diff.outcome import ERROR, NOT_COMPARABLE, Outcome
from shared.diff.text import ROWS, summary
from shared.errors import UserError, cli

COMMANDS = ("ledger", "published", "rule")


class Parser(argparse.ArgumentParser):
    """argparse ends with 2, which means not comparable here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ERROR, f"error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The options."""
    told = Parser(
        prog="python -m shared.diff", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    told.add_argument("things", nargs="+", metavar="A B", help="two things of one kind, or a command and its words")
    told.add_argument("--json", type=Path, help="write everything that was found here")
    told.add_argument("--html", type=Path, help="write a page with tables and plots here")
    told.add_argument("--csv", type=Path, help="published: write the tidy table here")
    told.add_argument("--rows", type=int, default=ROWS, help="of a table in the terminal (default: %(default)s)")
    told.add_argument(
        "--results", type=Path, default=Path("results"), help="where groups of runs are (default: results)"
    )
    told.add_argument(
        "--scale", type=Path, help="a scale.yaml: of a variant's config; of implementations (default: smoke)"
    )
    told.add_argument("--variant", help="implementations: which variant is walked (default: paper.yaml as it is)")
    told.add_argument("--task", help="implementations: on which task (default: the variant's first)")
    told.add_argument("--updates", type=int, default=numbers.MARKS[-1], help="implementations: further updates")
    told.add_argument("--tolerance", type=float, help="implementations: 1e-10; parameter files: 0")
    return told


def answer(options: argparse.Namespace) -> Outcome:
    """The outcome of two things."""
    if len(options.things) != 2:
        raise UserError(f"{len(options.things)} things ({', '.join(options.things)}); expected two, A and B")
    scale = numbers.read_scale(options.scale) if options.scale else None
    a, b = (things.parse(words, results=options.results, scale=scale) for words in options.things)
    if {a.kind, b.kind} == {things.RUN, things.GROUP}:  # one run beside a group, or beside published seeds
        a, b = (things.as_group(thing) for thing in (a, b))
    if a.kind != b.kind:
        reason = f"they are of two kinds (A: {a.kind}, B: {b.kind}); only two of one kind can be compared"
        return Outcome("kind", a.name, b.name, NOT_COMPARABLE, reason)
    match a.kind:
        case things.CONFIG:
            return configs.compare(a.content, b.content)
        case things.PARAMETERS:
            return parameters.compare(a.content, b.content, options.tolerance or 0.0)
        case things.RUN:
            return runfiles.compare(a.content, b.content)
        case things.GROUP:
            return compare.compare(a.content, b.content, plots=options.html is not None)
    return walk(a.content, b.content, options)


def walk(a: numbers.Side, b: numbers.Side, options: argparse.Namespace) -> Outcome:
    """The number level."""
    if options.updates < 1:
        raise UserError(f"--updates {options.updates}: expected at least 1")
    known = read_variants(a.paper)
    own = next((name for name, changes in known.items() if not changes), next(iter(known)))  # paper.yaml as it is
    variant = options.variant or own
    scale = numbers.read_scale(options.scale or things.default_scale())
    tolerance = numbers.TOLERANCE if options.tolerance is None else options.tolerance
    return numbers.compare(
        a, b, variant=variant, scale=scale, task=options.task, updates=options.updates, tolerance=tolerance,
        plots=options.html is not None,
    )  # fmt: skip


def command(name: str, words: Sequence[str], options: argparse.Namespace) -> Outcome | None:
    """The outcome of a command, or None where it only told something."""
    if name == "ledger":
        return ledger(words or None)
    if name == "rule":
        from shared.diff.measured import measured  # in here: it reads every release

        return measured(words or ["*"])
    for release in (r for selector in (words or ["*"]) for r in published.named(selector)):
        print(f"{release.name}: {release.returns} returns, {release.protocol}. {release.note}".strip())
    if options.csv:
        table = published.tidy(words or ["*"])
        write_whole(options.csv, table.to_csv(index=False, lineterminator="\n").encode())
        print(f"{options.csv}: {len(table):,} rows")
    return None


def write(outcome: Outcome, options: argparse.Namespace) -> None:
    """The files that were asked for."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.json, outcome.to_json().encode())
    if options.html:
        from shared.diff.page import page  # in here: a terminal needs no jinja2

        options.html.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.html, page(outcome).encode())


def guarded(arguments: list[str]) -> int:
    """What the command line does, errors left to the caller. Returns the exit status."""
    options = parser().parse_args(arguments)
    first, *rest = options.things
    outcome = command(first, rest, options) if first in COMMANDS else answer(options)
    if outcome is None:
        return 0
    print(summary(outcome, options.rows), end="")
    write(outcome, options)
    asked = first in COMMANDS  # a ledger is a table, not a judgement
    return 0 if asked else outcome.status


def main(arguments: list[str] | None = None) -> int:
    """The command line; an error of any kind that a person can mend ends with ERROR, not with cli's 2."""
    reached: list[int] = []

    def run(given: list[str]) -> int:
        reached.append(guarded(given))
        return reached[-1]

    status = cli(run)(arguments)
    return status if reached or status == 130 else ERROR
