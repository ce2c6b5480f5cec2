"""Keeping evidence: complete runs are copied whole, figures are drawn from the copies, unfinished runs are left out."""

import pandas as pd

from shared.config import ROOT
from tests.figures.conftest import write_run
from workflows.scripts import evidence

SCALE = ROOT / "workflows" / "profiles" / "laptop" / "scale.yaml"


def keep(results):
    return evidence.main(["--scale", str(SCALE), "--paper", "planet", "--results", str(results)])


def make_run(results, seed, **options):
    folder = results / "laptop" / "planet" / "torch" / "rssm" / "cartpole_swingup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("paper: planet\n")
    identity = {"paper": "planet", "framework": "torch", "variant": "rssm", "scale": "laptop"}
    return write_run(folder / f"seed_{seed}.h5", task="cartpole_swingup", seed=seed, identity=identity, **options)


def test_complete_runs_are_kept_with_their_figures(tmp_path):
    run = make_run(tmp_path, 0)
    make_run(tmp_path, 1, complete=False)
    assert keep(tmp_path) == 0
    kept = tmp_path / "evidence" / "planet" / "laptop"
    copy = kept / "torch" / "rssm" / "cartpole_swingup" / "seed_0.h5"
    assert copy.read_bytes() == run.read_bytes() and copy.with_name("config.yaml").exists()
    assert not list(kept.rglob("seed_1*"))
    assert {p.name for p in kept.glob("figure_4.*")} == {"figure_4.png", "figure_4.csv", "figure_4.json"}
    table = pd.read_csv(kept / "runs.csv")
    assert table[["task", "seed", "env_steps"]].values.tolist() == [["cartpole_swingup", 0, 25_000]]


def test_without_a_complete_run_nothing_is_kept(tmp_path, capsys):
    make_run(tmp_path, 0, complete=False)
    assert keep(tmp_path) == 2
    assert "no complete run of planet" in capsys.readouterr().err
    assert not (tmp_path / "evidence").exists()


def test_committed_evidence_is_small():
    total = sum(path.stat().st_size for path in (ROOT / "results" / "evidence").rglob("*") if path.is_file())
    assert total < 16 * 2**20, f"results/evidence holds {total / 2**20:.1f} MiB; the whole tree must stay under 64"
