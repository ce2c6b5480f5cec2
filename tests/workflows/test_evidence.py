"""Keeping evidence: complete runs are copied with every value, figures drawn from copies, unfinished runs left out."""

import h5py
import numpy as np
import pandas as pd

from shared.config import ROOT
from tests.figures.conftest import write_run
from workflows.scripts import evidence

SCALE = ROOT / "workflows" / "profiles" / "laptop" / "scale.yaml"


def keep(results):
    call = ["--scale", str(SCALE), "--paper", "planet", "--results", str(results), "--figures", "figure_4", "figure_12"]
    return evidence.main(call)


def make_run(results, seed, **options):
    folder = results / "laptop" / "planet" / "torch" / "rssm" / "cartpole_swingup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("paper: planet\n")
    identity = {"paper": "planet", "framework": "torch", "variant": "rssm", "scale": "laptop"}
    return write_run(folder / f"seed_{seed}.h5", task="cartpole_swingup", seed=seed, identity=identity, **options)


def contents(path):
    """Every group and dataset by its name, with type, shape, bytes and attributes."""
    nodes = {}

    def see(name, node):
        attrs = {key: np.asarray(value).tolist() for key, value in node.attrs.items()}
        if isinstance(node, h5py.Dataset):
            value = np.asarray(node[()])
            data = (str(node.dtype), node.shape, value.tobytes() if node.dtype.kind in "biuf" else value.tolist())
            nodes[name] = (data, attrs)
        else:
            nodes[name] = (None, attrs)

    with h5py.File(path) as file:
        file.visititems(see)
        return nodes | {"": (None, {key: np.asarray(value).tolist() for key, value in file.attrs.items()})}


def test_packing_a_run_keeps_every_value_and_halves_its_series(tmp_path):
    rows = 20_000
    series = np.random.default_rng(0).normal(size=rows).astype(np.float32).astype(np.float64)
    series[5], series[6] = np.nan, -0.0
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.attrs["paper"] = "planet"
        file.create_dataset("config", data="paper: planet\n").attrs["sha256"] = "0"
        column = file.create_dataset("learn/update/loss", data=series)
        column.attrs["unit"] = "nats"
        file.create_dataset("learn/update/updates", data=np.arange(rows))
        file.create_dataset("eval/episode/return", data=np.zeros(0))
    evidence.pack(tmp_path / "run.h5", tmp_path / "packed.h5")
    assert contents(tmp_path / "packed.h5") == contents(tmp_path / "run.h5")
    assert (tmp_path / "packed.h5").stat().st_size < (tmp_path / "run.h5").stat().st_size / 2


def test_complete_runs_are_kept_with_their_figures(tmp_path):
    run = make_run(tmp_path, 0)
    make_run(tmp_path, 1, complete=False)
    assert keep(tmp_path) == 0
    kept = tmp_path / "evidence" / "planet" / "laptop"
    copy = kept / "torch" / "rssm" / "cartpole_swingup" / "seed_0.h5"
    assert contents(copy) == contents(run) and copy.with_name("config.yaml").exists()
    assert not list(kept.rglob("seed_1*"))
    assert {p.name for p in kept.glob("figure_4.*")} == {"figure_4.png", "figure_4.csv", "figure_4.json"}
    table = pd.read_csv(kept / "runs.csv")
    assert table[["task", "seed", "env_steps"]].values.tolist() == [["cartpole_swingup", 0, 25_000]]


def test_only_the_lowest_seed_of_a_curve_keeps_its_video(tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 64, 64, 3), np.uint8)
    runs = [make_run(tmp_path, seed, video=tuple(film)) for seed in (2, 10)]
    assert keep(tmp_path) == 0
    kept = tmp_path / "evidence" / "planet" / "laptop" / "torch" / "rssm" / "cartpole_swingup"
    whole, first, second = contents(runs[1]), contents(kept / "seed_2.h5"), contents(kept / "seed_10.h5")
    assert first == contents(runs[0]) and "video/truth" in first
    assert second == {name: node for name, node in whole.items() if name.partition("/")[0] != "video"} != whole


def test_without_a_complete_run_nothing_is_kept(tmp_path, capsys):
    make_run(tmp_path, 0, complete=False)
    assert keep(tmp_path) == 2
    assert "no complete run of planet" in capsys.readouterr().err
    assert not (tmp_path / "evidence").exists()


def test_committed_evidence_is_small():
    total = sum(path.stat().st_size for path in (ROOT / "results" / "evidence").rglob("*") if path.is_file())
    assert total < 16 * 2**20, f"results/evidence holds {total / 2**20:.1f} MiB; the whole tree must stay under 64"
