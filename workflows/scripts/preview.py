"""Draw whatever exists at a scale, unfinished runs included, without training anything.

    python -m workflows.scripts.preview --scale workflows/profiles/laptop/scale.yaml      (make preview SCALE=laptop)

Files go to results/<scale>/<paper>/preview/. They say on their face what is partial, missing or of mixed code.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.config import ROOT, papers
from shared.errors import UserError, cli
from workflows.scripts.plan import planned_runs, read_experiments, read_scale


def command(paper: str, figure: str, scale: Mapping[str, Any], results: Path) -> list[str]:
    """The call that draws one figure from what lies below results/<scale>."""
    folder = results / scale["name"]
    target = folder / paper / "preview" / figure
    seeds = len({run.seed for run in planned_runs(paper, figure, scale)})
    return [
        *(sys.executable, "-m", f"replications.{paper}.figures", figure),
        *("--results-root", str(folder), "--scale", scale["name"], "--seeds", str(seeds), "--allow-mixed-code"),
        *("--figure", f"{target}.pdf", "--numbers", f"{target}.csv", "--sources", f"{target}.json"),
    ]


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflows.scripts.preview", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=Path, required=True, help="a scale.yaml")
    parser.add_argument("--results", type=Path, default=Path("results"), help="where the runs are (default: results)")
    options = parser.parse_args(arguments)
    scale = read_scale(options.scale)
    folder = options.results / scale["name"]
    if not folder.is_dir():
        raise UserError(f"no runs in {folder}; start some with make figures SCALE={scale['name']}")
    failed = [
        f"{paper} {figure}"
        for paper in papers()
        for figure in read_experiments(paper)
        if subprocess.run(command(paper, figure, scale, options.results), cwd=ROOT, check=False).returncode != 0
    ]
    if failed:
        raise UserError(f"could not draw {', '.join(failed)}; the messages above say why")


if __name__ == "__main__":
    sys.exit(main())
