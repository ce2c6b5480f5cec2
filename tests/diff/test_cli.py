"""The command as a new user would type it: exit statuses, JSON and page, run files and parameters, the matrix."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.config import ROOT, resolve, to_text, write_resolved
from shared.diff import matrix, parameters, runfiles, things
from shared.diff.cli import main
from shared.diff.outcome import DIFFERS, NOT_COMPARABLE, SAME, Outcome, Table, words
from shared.diff.page import page
from shared.diff.text import summary
from tests.figures.conftest import write_run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs of Dreamer's tf2 at scale paper: walker_walk in both frameworks, 5 seeds; torch as published, JAX weak."""
    root = tmp_path_factory.mktemp("results")
    config = to_text(resolve("dreamer", "tf2", {"name": "paper"}))
    for framework, top in (("torch", 950.0), ("jax", 400.0)):
        for seed in range(5):
            path = root / "paper" / "dreamer" / framework / "tf2" / "walker_walk" / f"seed_{seed}.h5"
            write_run(
                path, task="walker_walk", seed=seed, evaluated_at=[100_000 * i for i in range(1, 50)], episode=100_000,
                identity={"paper": "dreamer", "framework": framework, "variant": "tf2"},
                provenance={"code_digest": framework}, test_episodes=1,
                returns=lambda s, e, _, top=top: min(top, 40.0 * e) + 3 * s, values={"config": config[:10]},
            )  # fmt: skip
    return root


def run(*arguments, capsys):
    status = main([str(a) for a in arguments])
    return status, capsys.readouterr()


# ------------------------------------------------------------------------------------------------ statuses


def test_status_0_the_same(capsys):
    status, said = run("planet", "planet/rssm", capsys=capsys)
    assert status == 0 and "config level: SAME" in said.out


def test_status_1_they_differ_with_json_and_page(tmp_path, capsys):
    files = ("--json", tmp_path / "out" / "diff.json", "--html", tmp_path / "out" / "diff.html")
    status, said = run("planet", "planet/first-release", *files, capsys=capsys)
    assert status == 1 and "config level: DIFFERS" in said.out
    content = json.loads((tmp_path / "out" / "diff.json").read_text())
    assert content["status"] == 1 and content["verdict"] == DIFFERS and content["facts"]["keys"][0] == "loss.alignment"
    assert content["tables"][0]["rows"][0]["key"] == "loss.alignment"
    html = (tmp_path / "out" / "diff.html").read_text()
    assert "loss.alignment" in html and not re.search(r'(src|href)="https?:', html)


def test_status_2_not_comparable(capsys):
    status, said = run("planet", "planet/torch", capsys=capsys)
    assert status == 2 and "A: config, B: implementation" in said.out
    status, said = run("planet/torch", "dreamer/torch", capsys=capsys)
    assert status == 2 and "different papers" in said.out


@pytest.mark.parametrize(
    ("arguments", "words_"),
    [
        (["planet"], "expected two"),
        (["planet", "nowhere"], "no file, folder, paper"),
        (["planet", "planet/rsm"], "no variant 'rsm'"),
        (["published:dreamerv9", "planet"], "no such release"),
        (["published:dreamerv3/2024", "planet"], "several releases"),
        (["a.safetensors", "b.safetensors"], "no such file"),
        (["planet/torch=/nowhere", "planet/torch"], "no folder /nowhere"),
        (["runs:planet/torch/rssm", "planet/torch/ssm", "--results", "/nowhere"], "no such folder"),
        (["planet/torch", "planet/jax", "--updates", "0"], "--updates 0"),
        (["ledger", "planet"], "two or more"),
    ],
)
def test_status_3_an_error_with_the_way_out(arguments, words_, capsys):
    status, said = run(*arguments, capsys=capsys)
    assert status == 3 and words_ in said.err and said.err.startswith("error: ")


def test_a_wrong_option_ends_with_3_too(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["planet", "planet", "--colour"])
    assert caught.value.code == 3


def test_the_ledger_and_the_list_are_no_judgement(tmp_path, capsys):
    assert run("ledger", "dreamer", "dreamerv2", capsys=capsys)[0] == 0
    target = tmp_path / "tidy.csv"
    status, said = run("published", "dreamerv2/montezuma", "--csv", target, capsys=capsys)
    assert status == 0 and "evaluation returns" in said.out
    assert target.read_text().splitlines()[0] == "paper,version,suite,task,seed,env_steps,return,protocol"


# ------------------------------------------------------------------------------------------------ groups and the matrix


def test_runs_against_published_seeds(results, capsys, tmp_path):
    reference = "published:dreamer/tf2/dmc_vision/walker_walk"
    given = (reference, "--results", results, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    status, said = run("dreamer/torch/tf2/walker_walk", *given, capsys=capsys)
    assert status == 0 and "inside the band" in said.out
    assert (tmp_path / "a.html").read_text().count("data:image/png;base64,iVBOR") == 3
    status, said = run("dreamer/jax/tf2", *given[:3], capsys=capsys)
    assert status == 1 and "walker_walk: below" in said.out


def test_one_run_beside_published_seeds_is_too_few(results, capsys):
    path = results / "paper" / "dreamer" / "torch" / "tf2" / "walker_walk" / "seed_0.h5"
    status, said = run(path, "published:dreamer/tf2/dmc_vision/walker_walk", capsys=capsys)
    assert status == 2 and "too few seeds to say" in said.out


def test_runs_that_count_in_another_unit_are_not_comparable(results, tmp_path, capsys):
    """Planted: a run file whose env steps are said to be decisions."""
    path = shutil.copy(results / "paper" / "dreamer" / "torch" / "tf2" / "walker_walk" / "seed_0.h5", tmp_path)
    with h5py.File(path, "a") as file:
        file["eval/episode/env_steps"].attrs["unit"] = "decisions"
    status, said = run(path, "published:dreamer/tf2/dmc_vision/walker_walk", capsys=capsys)
    assert status == 2 and "units: " in said.out and "counts decisions" in said.out


def test_the_two_frameworks_against_each_other(results, capsys):
    status, said = run("dreamer/torch/tf2", "dreamer/jax/tf2", "--results", results, capsys=capsys)
    assert status == 1 and "walker_walk: above" in said.out


def test_a_group_may_be_a_folder(results, capsys):
    folder = results / "paper" / "dreamer" / "torch" / "tf2" / "walker_walk"
    assert run(folder, folder, capsys=capsys)[0] == 0


def test_the_matrix_has_every_cell_and_opens_each_diff(results, tmp_path):
    (tmp_path / "numbers_planet.json").write_text(Outcome("numbers", "p/torch", "p/jax", SAME, "agree").to_json())
    arguments = ["--results", str(results), "--html", str(tmp_path / "m.html"), "--json", str(tmp_path / "m.json")]
    assert matrix.main(arguments) == 0
    cells = {row["column"]: row for row in json.loads((tmp_path / "m.json").read_text())}
    assert set(cells) == {"torch", "jax", matrix.AGAINST}
    assert [cells[c]["verdict"] for c in ("torch", "jax", matrix.AGAINST)] == [SAME, DIFFERS, DIFFERS]
    assert cells["jax"]["word"] == "below"
    html = (tmp_path / "m.html").read_text()
    anchors = re.findall(r'<a href="#([^"]+)"', html)
    assert len(anchors) == 3 and all(f'<details id="{anchor}">' in html for anchor in anchors)
    assert "1 of 20 tasks run" in html and "agree" in html and "Ledger" in html
    assert not re.search(r'(src|href)="https?:', html)


def test_a_paper_without_published_seeds_says_so():
    found = matrix.cells(ROOT / "results" / "evidence" / "planet" / "laptop" / "torch" / "rssm")
    (cell,) = found
    assert cell.outcome.verdict == NOT_COMPARABLE and cell.word == "unpublished"
    assert any(row[0].startswith("PlaNet") and row[1] == 821 for row in cell.outcome.tables[0].rows)


# ------------------------------------------------------------------------------------------------ run files


def run_file(folder, name, **options):
    config = resolve("planet", "rssm", {"name": "paper"})
    config["values"]["loss"]["free_nats"] = options.pop("free_nats", 3.0)
    path = write_run(folder / name / "seed_0.h5", task="cheetah_run", seed=0, **options)
    return path, config


def test_equal_runs_are_the_same(tmp_path, monkeypatch):
    paths = [run_file(tmp_path, name)[0] for name in "ab"]
    monkeypatch.setattr(runfiles.configs, "of_resolved", of_values)
    outcome = runfiles.compare(*paths)
    assert (outcome.verdict, outcome.status) == (SAME, 0) and "number by number" in outcome.reason


def of_values(resolved, name):
    values = dict(runfiles.configs.leaves(resolved["values"], where=name))
    return runfiles.configs.Settings(name, "planet", values, {})


def test_the_first_row_that_differs_is_told(tmp_path, monkeypatch):
    """Planted: another return in the second evaluation, another learning rate, another machine."""
    monkeypatch.setattr(runfiles.configs, "of_resolved", of_values)
    one, _ = run_file(tmp_path, "a")
    other, _ = run_file(
        tmp_path, "b", returns=lambda s, e, k: 10.0 * e + k + 100.0 * s + (e == 1 and k == 2), learning_rate=2e-3,
        provenance={"cpu": "another"},
    )  # fmt: skip
    outcome = runfiles.compare(one, other)
    own = write_run(tmp_path / "c" / "seed_0.h5", task="cheetah_run", seed=0, returns=lambda s, e, k: 10.0 * e + k)
    assert outcome.verdict == DIFFERS and outcome.facts["table"] == "eval/episode"
    assert {"cpu", "optimiser.learning_rate"} <= set(outcome.facts["causes"])
    one = write_run(tmp_path / "d" / "seed_0.h5", task="cheetah_run", seed=0,
                    returns=lambda s, e, k: 10.0 * e + k + (e == 1 and k == 2))  # fmt: skip
    outcome = runfiles.compare(own, one)
    assert (outcome.facts["row"], outcome.facts["column"]) == (
        6,
        "return",
    ) and "nothing that is recorded" in outcome.reason


def test_runs_of_two_tasks_are_not_comparable(tmp_path, monkeypatch):
    monkeypatch.setattr(runfiles.configs, "of_resolved", of_values)
    one, _ = run_file(tmp_path, "a")
    other = write_run(tmp_path / "b" / "seed_0.h5", task="walker_walk", seed=0)
    outcome = runfiles.compare(one, other)
    assert outcome.verdict == NOT_COMPARABLE and "not the same task" in outcome.reason


def test_two_seeds_of_the_evidence(capsys):
    folder = ROOT / "results/evidence/planet/laptop/torch/rssm/cartpole_swingup"
    status, said = run(folder / "seed_0.h5", folder / "seed_1.h5", capsys=capsys)
    assert status == 1 and "they part first in train/episode, row 0" in said.out and "seed" in said.out


# ------------------------------------------------------------------------------------------------ parameters


def test_parameter_files(tmp_path, capsys):
    one = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.ones(2, np.float32)}
    other = {**one, "b.bias": np.array([1, 1.5], np.float32)}
    for name, tensors in (("one", one), ("same", dict(one)), ("other", other), ("less", {"b.bias": one["b.bias"]})):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    path = {name: tmp_path / f"{name}.safetensors" for name in ("one", "same", "other", "less")}
    assert run(path["one"], path["same"], capsys=capsys)[0] == 0
    status, said = run(path["one"], path["other"], capsys=capsys)
    assert status == 1 and "first: b.bias differs by 3.33e-01" in said.out
    assert run(path["one"], path["other"], "--tolerance", "0.5", capsys=capsys)[0] == 0
    status, said = run(path["one"], path["less"], capsys=capsys)
    assert status == 2 and "1 names on one side only" in said.out
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    assert run(path["one"], tmp_path / "bad.safetensors", capsys=capsys)[0] == 3
    assert parameters.compare(path["one"], path["other"]).facts["first"] == "b.bias"


# ------------------------------------------------------------------------------------------------ words, page


def test_things_are_what_they_look_like(tmp_path, results):
    def kind(text):
        return things.parse(text, results=results, scale=None).kind

    write_resolved(tmp_path / "config.yaml", resolve("planet", "rssm", {"name": "paper"}))
    assert (
        kind("planet") == kind("config:planet/rssm/cheetah_run") == kind(str(tmp_path / "config.yaml")) == things.CONFIG
    )
    assert kind("dreamer/jax") == kind("code:dreamer/jax") == kind(f"dreamer/torch={tmp_path}") == things.CODE
    assert kind("dreamer/jax/tf2") == kind("runs:dreamer/torch/*") == things.GROUP
    assert kind("published:dreamerv2/montezuma/atari") == things.GROUP


def test_numbers_read_as_people_write_them():
    assert [words(x) for x in (3.0, 1e-4, 200_000_000, True, None, [1, 2], float("inf"))] == [
        "3", "0.0001", "200,000,000", "true", "–", "[1, 2]", "∞",
    ]  # fmt: skip


def test_what_is_shown_is_escaped_and_json_has_no_nan():
    table = Table("T <b>", ("a", "b"), [("<script>", float("nan")), ("x", np.float64(2.5))], "note")
    outcome = Outcome("config", "A<", "B", SAME, "reason", [table], facts={"x": np.int64(3), "y": float("inf")})
    html = page(outcome)
    assert "&lt;script&gt;" in html and "<script>" not in html
    content = json.loads(outcome.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert content["facts"] == {"x": 3, "y": "inf"} and content["tables"][0]["rows"][1] == {"a": "x", "b": 2.5}
    assert "config level: SAME" in summary(outcome)
    with pytest.raises(ValueError, match="2 columns"):
        Table("T", ("a", "b"), [(1,)])
