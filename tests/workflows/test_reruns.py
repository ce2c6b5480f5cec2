"""What Snakemake does again and what it leaves alone: comments, values, code, crashes, kills (training: a stand-in)."""

import os
import signal
import subprocess
import time

import pytest

ALL = {f"{v}/{t}/seed_{s}" for v in ("rssm", "small") for t in ("cartpole_swingup", "walker_walk") for s in (0, 1)}


def of(*words: str) -> set[str]:
    """Runs whose path has all the words."""
    return {run for run in ALL if all(word in run.split("/") for word in words)}


@pytest.fixture(scope="module")
def crashed(copy):
    """A sandbox in which one of the eight runs failed, and what Snakemake said."""
    sandbox = copy(stand_in=True)
    sandbox.path("fail_walker_walk_1").touch()
    said = sandbox.run(check=False)
    sandbox.failed_calls = sandbox.calls()
    sandbox.after_crash = {str(p.relative_to(sandbox.root)) for p in sandbox.path("results").rglob("*") if p.is_file()}
    sandbox.said = said
    sandbox.path("fail_walker_walk_1").unlink()
    sandbox.plan_after_crash = sandbox.planned()
    sandbox.run()
    return sandbox


def file(run: str) -> str:
    return f"results/smoke/planet/torch/{run}.h5"


def test_a_crash_leaves_the_other_runs_untouched(crashed):
    failing = of("walker_walk", "seed_1")
    assert {run for run in ALL if file(run) in crashed.after_crash} == ALL - failing
    assert "results/smoke/planet/figure_10.png" in crashed.after_crash, "a figure that does not need the run is drawn"
    assert "results/smoke/planet/figure_4.png" not in crashed.after_crash
    assert "this run fails" in crashed.said, "the log of the failed run is shown"


def test_a_failed_run_is_tried_twice(crashed):
    for run in ALL:
        assert crashed.failed_calls.count(file(run)) == (2 if run in of("walker_walk", "seed_1") else 1)


def test_the_next_call_trains_only_what_is_missing(crashed):
    assert crashed.plan_after_crash["train"] == {file(run) for run in of("walker_walk", "seed_1")}
    assert crashed.plan_after_crash.keys() == {"train", "draw_planet", "draw_diff"}


def test_a_run_is_logged(crashed):
    log = crashed.path(file("rssm/walker_walk/seed_0")).with_suffix(".log")
    assert log.read_text() == "training walker_walk\n"


def test_when_all_is_there_nothing_is_done(crashed):
    assert crashed.planned() == {}


@pytest.fixture
def edited(crashed):
    """edit(file, old, new): a change that is taken back after the test."""
    before = {}

    def edit(name, old, new):
        path = crashed.path(name)
        text = path.read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {name}"
        before.setdefault(path, text)
        path.write_text(text.replace(old, new, 1))
        return crashed

    yield edit
    for path, text in before.items():
        path.write_text(text)


PAPER = "replications/planet/paper.yaml"


def test_comments_and_touched_files_redo_nothing(edited):
    edited(PAPER, "# ", "# a remark\n# ")
    edited("replications/planet/experiments.yaml", "figure_4:", "# a remark\nfigure_4:")
    sandbox = edited("workflows/profiles/smoke/scale.yaml", "name:", "# a remark\nname:")
    assert sandbox.planned() == {}


def test_the_order_of_lines_redoes_nothing(edited):
    first, second = "  deter_size: 200 ", "  stoch_size: 30 "
    edited(PAPER, first, "  MARK ")
    edited(PAPER, second, first)
    assert edited(PAPER, "  MARK ", second).planned() == {}


def test_an_override_equal_to_the_paper_redoes_nothing(edited):
    assert edited("workflows/profiles/smoke/scale.yaml", "size: 8", "size: 8\n      length: 50").planned() == {}


def test_a_value_of_one_variant_retrains_that_variant(edited):
    sandbox = edited("replications/planet/experiments.yaml", "deter_size: 8", "deter_size: 9")
    assert sandbox.retrained() == of("small")
    expected = {"resolve_config", "train", "draw_planet", "draw_diff"}
    assert set(sandbox.planned()) == expected, "other figures need none of them"


def test_a_value_of_the_paper_retrains_all(edited):
    assert edited(PAPER, "free_nats: 3.0", "free_nats: 2.0").retrained() == ALL


def test_a_value_that_a_variant_replaces_leaves_that_variant(edited):
    assert edited(PAPER, "deter_size: 200", "deter_size: 100").retrained() == of("rssm")


def test_a_value_of_one_task_retrains_that_task(edited):
    assert edited(PAPER, "walker_walk: 2", "walker_walk: 4").retrained() == of("walker_walk")


def test_a_value_of_the_scale_retrains_all(edited):
    assert edited("workflows/profiles/smoke/scale.yaml", "size: 8", "size: 9").retrained() == ALL


def test_one_more_seed_trains_only_that(edited):
    sandbox = edited("replications/planet/experiments.yaml", "seeds: 2", "seeds: 3")
    assert sandbox.retrained() == {f"{run[:-1]}2" for run in of("seed_0")}


def test_code_of_training_redoes_nothing(edited):
    edited("replications/planet/agent_torch.py", '"""', '"""More words. ')
    assert edited("replications/planet/train.py", "import argparse", "import argparse, os").planned() == {}


def test_code_of_a_figure_redraws_and_a_docstring_does_not(edited):
    assert edited("replications/planet/figures.py", "Stand-in", "Stand-in for figures").planned() == {}
    planned = edited("replications/planet/figures.py", "import argparse", "import argparse, os").planned()
    assert set(planned) == {"draw_planet", "draw_planet_table", "draw_planet_film"}


def test_code_of_a_formula_measures_the_core_again_and_trains_nothing(edited):
    planned = edited("shared/formulas/transforms.py", "count < 2:", "count < 3:").planned()
    assert set(planned) == {"measure_numerics", "draw_numerics", "measure_estimators", "draw_estimators"}


def test_the_numerics_report_is_a_target_of_its_own(crashed):
    crashed.run("core_numerics", "--forceall", "--quiet", "all")
    assert crashed.path("results/smoke/core/numerics.md").is_file()


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        (PAPER, "free_nats: 3.0", "free_nats: 3.0\n  free_nats: 2.0", "'free_nats' is written twice"),
        ("workflows/profiles/smoke/scale.yaml", "size: 8", "size: 8e0", "write 8"),
        ("workflows/profiles/smoke/scale.yaml", "size: 8", "sise: 8", "did you mean 'batch.size'?"),
        ("replications/planet/experiments.yaml", "deter_size: 8", "deter_sise: 8", "did you mean 'model.deter_size'?"),
    ],
)
def test_a_mistake_in_a_config_stops_before_anything_runs(edited, name, old, new, words):
    said = edited(name, old, new).run("-n", check=False)
    assert words in said
    assert "Job stats" not in said


def test_an_unknown_scale_file_is_told(crashed):
    said = crashed.run("-n", "--config", "scale=workflows/profiles/huge/scale.yaml", check=False)
    assert "no file" in said and "huge/scale.yaml" in said
    said = crashed.run("-n", "--config", "scael=x.yaml", check=False)
    assert "scael" in said


def test_a_killed_snakemake_leaves_no_lock_in_the_way(copy):
    """SIGKILL in the middle of training, the whole process group; `make figures` (run.sh) goes on."""
    sandbox = copy(stand_in=True)
    sandbox.path("hold").touch()
    command = ["bash", "workflows/scripts/run.sh", "smoke", "results/smoke/planet/figure_10.png"]
    options = {"cwd": sandbox.root, "env": sandbox.environment, "text": True, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True, **options)
    deadline = time.monotonic() + 60
    while not sandbox.calls() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert sandbox.calls(), "training had begun"
    assert list(sandbox.path(".snakemake/locks").iterdir()), "the killed snakemake left its lock"
    sandbox.path("hold").unlink()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=120, **options)
    assert "removing the lock of a snakemake that was killed" in done.stdout
    assert sandbox.path("results/smoke/planet/figure_10.png").is_file(), done.stdout


def test_two_at_once_are_told(copy):
    """run.sh holds one lock per checkout."""
    sandbox = copy(stand_in=True)
    script = sandbox.path("workflows/scripts/run.sh")
    holder = subprocess.Popen(["flock", str(script), "sleep", "30"])
    try:
        time.sleep(0.3)
        done = subprocess.run(
            ["bash", str(script), "smoke"], cwd=sandbox.root, env=sandbox.environment, text=True, check=False,
            capture_output=True, timeout=60,
        )  # fmt: skip
    finally:
        holder.terminate()
        holder.wait()
    assert done.returncode == 2 and "another 'make figures' is at work" in done.stderr
