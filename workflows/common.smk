# Everything that is not a rule: the scale, the checks, which files a figure needs.
import os
import re
import sys
from pathlib import Path

from snakemake.utils import validate

from shared.config import for_task, papers, resolve
from shared.provenance import code_digest
from workflows.scripts.plan import all_runs, planned_runs, read_scale

validate(config, schema="schemas/config.schema.yaml")
SCALE = read_scale(config["scale"])

if SCALE["name"] == "smoke":
    # A smoke run lasts seconds, and XLA would think for half a minute before it. Read by JAX in every job.
    quick = "--xla_cpu_use_fusion_emitters=false"
    os.environ.update(
        JAX_DISABLE_MOST_OPTIMIZATIONS="1", XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    )

# `python` in a rule is the Python that runs Snakemake (a conda environment, if asked for, still comes first).
os.environ.update(PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()]))


wildcard_constraints:
    scale=re.escape(SCALE["name"]),
    paper="|".join(papers()),
    framework="torch|jax|numpy",
    variant=r"[a-z0-9-]+",
    task=r"[a-z0-9_]+",
    seed=r"\d+",


def run_files(paper, figure):
    """Every run file that one figure needs at the current scale."""
    return [run.file for run in planned_runs(paper, figure, SCALE)]


def planned_seeds(paper, figure):
    """How many seeds one curve of a figure has at the current scale."""
    return len({run.seed for run in planned_runs(paper, figure, SCALE)})


def run_values(wildcards):
    """The resolved config of one run: paper, variant and scale, narrowed to its task."""
    return for_task(resolve(wildcards.paper, wildcards.variant, SCALE), wildcards.task)


def at_scale(pattern):
    """Paths of the current scale for a pattern with {scale}."""
    return expand(pattern, scale=SCALE["name"])


def drawing_code(paper):
    """Digest of the code that draws: figures are redrawn when it changes (training is not repeated for code)."""
    own = sorted(str(path) for path in Path(f"replications/{paper}").glob("figures*.py"))
    return code_digest(["shared/figures", "shared/results.py", *own])[:12]
