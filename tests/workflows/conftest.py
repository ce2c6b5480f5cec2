"""A copy of the repository in which a run takes a moment: same rules and configs, a stand-in for training."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MUTATION = "results/evidence/core/mutation.json"
MEASURED = [MUTATION] if (ROOT / MUTATION).exists() else []  # an hour of work
COPIED = ("Snakefile", "workflows", "shared", "replications", "data/reference", "environment.yml", *MEASURED)

# Writes the config as its result and notes the call. It fails where a file fail_<task>_<seed> lies in the root, and
# waits while a file `hold` lies there.
STAND_IN_TRAIN = '''"""Stand-in."""
import argparse, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ("config", "task", "framework", "seed", "out", "threads", "workers"):
    parser.add_argument(f"--{name}", required=True)
asked = parser.parse_args()
with open("calls.log", "a") as log:
    log.write(f"{asked.out}\\n")
print("training", asked.task, flush=True)
while pathlib.Path("hold").exists():
    time.sleep(0.05)
if pathlib.Path(f"fail_{asked.task}_{asked.seed}").exists():
    sys.exit("this run fails")
pathlib.Path(asked.out).write_text(pathlib.Path(asked.config).read_text())
'''
STAND_IN_FIGURES = '''"""Stand-in."""
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("--runs", nargs="*")
for name in ("figure", "numbers", "sources", "scale", "seeds", "reference"):
    parser.add_argument(f"--{name}")
asked = parser.parse_args()
for suffix in (".pdf", ".png", ".csv", ".json", ".md", ".gif"):
    pathlib.Path(asked.figure).with_suffix(suffix).write_text(" ".join(asked.runs))
'''
# In place of the core's measurements and figures: writes every file that is named and not there yet.
STAND_IN_CORE = '''"""Stand-in."""
import pathlib, sys
for option, value in zip(sys.argv[1::2], sys.argv[2::2]):
    path = pathlib.Path(value)
    for suffix in (".pdf", ".png", ".md") if option == "--figure" else (path.suffix,):
        if not path.with_suffix(suffix).exists():
            path.with_suffix(suffix).write_text("core")
'''
CORE = ("testing/numerics", "testing/estimators", "figures/core", "figures/estimators", "figures/mutation",
        "diff/matrix")  # fmt: skip
EXPERIMENTS = """
figure_4: &all
  source: Figure 4
  caption: two tasks, two variants
  expect: nothing
  tasks: [cartpole_swingup, walker_walk]
  seeds: 2
  variants:
    rssm: {}
    small: {model: {deter_size: 8}}
table_1:
  <<: *all
  tasks: [cartpole_swingup]
  variants:
    rssm: {}
figure_10:
  <<: *all
  tasks: [cartpole_swingup]
  seeds: 1
  variants:
    rssm: {}
"""
JOB = re.compile(r"^(?:local)?rule (\w+):\n(?:    input: .*\n)?    output: ([^,\n]+)", re.MULTILINE)
SCALE = {
    "name": "smoke",
    "purpose": "a test",
    "frameworks": ["torch"],
    "tasks": None,
    "max_seeds": None,
    "overrides": {"planet": {"batch": {"size": 8}}},
}


class Sandbox:
    """The copy at `root`, and Snakemake in it."""

    def __init__(self, root: Path):
        self.root = root
        for name in COPIED:
            source, target = ROOT / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "XDG_CACHE_HOME": str(root / "cache"),
        }

    def path(self, name: str) -> Path:
        return self.root / name

    def keep(self, *papers: str) -> None:
        """Take all other papers out of the copy: their folders, and their lines in the Snakefile."""
        snakefile = self.path("Snakefile")
        for folder in [path.parent for path in self.path("replications").glob("*/paper.yaml")]:
            if folder.name not in papers:
                shutil.rmtree(folder)
                lines = snakefile.read_text().splitlines(keepends=True)
                own = (f'include: "workflows/{folder.name}.smk"', f"rules.{folder.name}.input,")
                snakefile.write_text("".join(line for line in lines if line.strip() not in own))

    def run(self, *arguments: str, check: bool = True) -> str:
        """snakemake at scale smoke; its whole output."""
        command = ["snakemake", "--profile", "workflows/profiles/smoke", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, check=False, timeout=600,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def planned(self) -> dict[str, set[str]]:
        """rule -> outputs that the next call would make (first output of each job)."""
        jobs: dict[str, set[str]] = {}
        for rule, output in JOB.findall(self.run("-n")):
            jobs.setdefault(rule, set()).add(output)
        return jobs

    def retrained(self) -> set[str]:
        """variant/task/seed of the runs that the next call would train."""
        prefix = "results/smoke/planet/torch/"
        return {out.removeprefix(prefix).removesuffix(".h5") for out in self.planned().get("train", set())}

    def calls(self) -> list[str]:
        log = self.path("calls.log")
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """Makes sandboxes: copy() is the repository as it is, copy(stand_in=True) PlaNet alone with a stand-in for work."""

    def make(*, stand_in: bool = False) -> Sandbox:
        sandbox = Sandbox(tmp_path_factory.mktemp("sandbox"))
        if stand_in:
            sandbox.keep("planet")
            planet = sandbox.path("replications/planet")
            (planet / "train.py").write_text(STAND_IN_TRAIN)
            (planet / "figures.py").write_text(STAND_IN_FIGURES)
            for name in CORE:
                sandbox.path(f"shared/{name}.py").write_text(STAND_IN_CORE)
            (planet / "experiments.yaml").write_text(yaml.safe_dump(yaml.safe_load(EXPERIMENTS), sort_keys=False))
            sandbox.path("workflows/profiles/smoke/scale.yaml").write_text(yaml.safe_dump(SCALE, sort_keys=False))
        return sandbox

    return make
