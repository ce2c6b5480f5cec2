"""rliable and this repository's aggregates agree to rounding; skipped, with a message, without it.

rliable needs an older pandas than ours, so it lives in an environment of its own: RLIABLE_PYTHON names its Python, else
.venv-rliable/bin/python is looked for (`make rliable` makes it).
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from shared.config import ROOT
from shared.diff import published, statistics

PYTHON = Path(os.environ.get("RLIABLE_PYTHON") or ROOT / ".venv-rliable" / "bin" / "python")
THEIRS = """
import json, sys
import numpy as np
from rliable import metrics
given = json.load(sys.stdin)
a, b = (np.array(given[name]) for name in "ab")
print(json.dumps({
    "mean": metrics.aggregate_mean(a), "median": metrics.aggregate_median(a),
    "interquartile mean": metrics.aggregate_iqm(a), "optimality gap": metrics.aggregate_optimality_gap(a),
    "improvement": metrics.probability_of_improvement(a, b),
}, default=float))
"""


def theirs(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """rliable's numbers of (runs x tasks) scores."""
    given = json.dumps({"a": a.tolist(), "b": b.tolist()})
    done = subprocess.run([PYTHON, "-c", THEIRS], input=given, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def installed() -> bool:
    if not PYTHON.is_file():
        return False
    call = [PYTHON, "-c", "import rliable.metrics"]
    return subprocess.run(call, capture_output=True, timeout=300, check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def rliable():
    if not installed():
        pytest.skip(f"rliable is not installed: no {PYTHON} with it; `make rliable` makes one, or set RLIABLE_PYTHON")


def per_task(scores: np.ndarray) -> list[np.ndarray]:
    return list(scores.T)


def agree(a: np.ndarray, b: np.ndarray) -> None:
    expected = theirs(a, b)
    for name, statistic in statistics.AGGREGATES.items():
        assert float(statistic(per_task(a))) == pytest.approx(expected[name], rel=1e-12, abs=1e-12), name
    improvement = float(statistics.improvement(per_task(a), per_task(b)))
    assert improvement == pytest.approx(expected["improvement"], rel=1e-12)


def test_aggregates_agree_on_published_scores():
    """DreamerV3 of 2024 (first five seeds) against 2023, final scores over 1000, tasks without gaps."""
    tables = {}
    for year in ("2024", "2023"):
        finals = published.finals(published.releases()[f"dreamerv3/{year}/dmc_vision"])
        tables[year] = finals[finals["seed"] < 5].pivot(index="seed", columns="task", values="final") / 1000
    whole = [task for task in tables["2024"] if not any(table[task].isna().any() for table in tables.values())]
    assert len(whole) >= 17
    agree(*(table[whole].to_numpy() for table in tables.values()))


@pytest.mark.parametrize(("runs", "tasks"), [(3, 1), (5, 4), (7, 3)])
def test_aggregates_agree_on_any_number_of_runs(runs, tasks):
    """Ties included, and numbers of scores that four does not divide."""
    random = np.random.default_rng(runs)
    a, b = (np.round(random.normal(0.7, 0.4, (runs + extra, tasks)), 1) for extra in (0, 1))
    agree(a, b)
