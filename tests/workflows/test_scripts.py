"""Cost, status and preview: what they count and what they say."""

import json
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from shared.config import ROOT, resolve
from shared.errors import UserError
from workflows.scripts import cost, preview, status
from workflows.scripts.plan import Run, all_runs, planned_runs, read_scale

SCALES = ROOT / "workflows" / "profiles"


def scale(name):
    return read_scale(SCALES / name / "scale.yaml")


# ------------------------------------------------------------------------------------------------ cost

VALUES = {
    "schedule": {
        "total_env_steps": 25_000,
        "prefill_env_steps": 5000,
        "learn_every_env_steps": 1000,
        "updates_per_learn": 100,
        "pretrain_updates": 100,
        "evaluate_every_env_steps": 10_000,
        "checkpoint_every_env_steps": 5000,
    },
    "environment": {"action_repeat": {"cartpole_swingup": 8}, "time_limit_env_steps": 1000},
    "evaluation": {"episodes": 10},
}


def test_work_of_a_run_by_hand():
    # 20 000 env steps after prefill: 100 + 20 * 100 updates; tests at 5000, 15 000, 25 000: 3 * 10 * 1000 env steps
    work = cost.work_of(VALUES, "cartpole_swingup", "torch")
    assert work == cost.Work(env_steps=25_000 + 30_000, updates=2100, planned_actions=(20_000 + 30_000) // 8)


def test_work_of_one_agent_for_two_tasks_by_hand():
    # half of the env steps at repeat 8, half at 4: 3/16 decisions per env step; 10 test episodes of each task
    world = {"action_repeat": {"a": 8, "b": 4}, "joint_tasks": ["a", "b"], "time_limit_env_steps": 1000}
    work = cost.work_of(VALUES | {"environment": world}, "all_tasks", "jax")
    assert work == cost.Work(env_steps=25_000 + 60_000, updates=2100, planned_actions=(20_000 + 60_000) * 3 // 16)


def test_work_of_a_paper_with_one_action_repeat_by_hand():
    world = {"action_repeat": 2, "time_limit_env_steps": 1000}
    assert cost.work_of(VALUES | {"environment": world}, "walker_walk", "torch").planned_actions == 50_000 // 2


def test_work_of_a_paper_that_learns_by_rows_by_hand():
    # 500 000 env steps at repeat 2 are 250 000 decisions in 500 episodes, 250 500 rows; 2048 of them fill the replay,
    # then every other row brings an update, the first at once; tests at 0, 10 000, ..., 500 000
    values = {
        "environment": {"action_repeat": 2, "time_limit_env_steps": 1000, "parallel": 16},
        "batch": {"size": 16, "length": 64, "context": 1},
        "schedule": {
            "total_env_steps": 500_000,
            "train_ratio": 512,
            "fill_windows": 1024,
            "evaluate_every_env_steps": 10_000,
            "checkpoint_every_env_steps": 10_000,
        },
        "evaluation": {"episodes": 1},
    }
    work = cost.work_of(values, "walker_walk", "torch")
    assert work == cost.Work(551_000, updates=1 + (250_500 - 2048) // 2, planned_actions=551_000 // 2)
    assert cost.work_of(values | {"behaviour": {"horizon": 15}}, "walker_walk", "torch").policy_actions == 551_000 // 2


def test_actions_of_a_planner_and_of_a_policy_are_counted_apart():
    found = {}
    for learner in ("actor", "planner"):
        work = cost.work_of(VALUES | {"behaviour": {"learner": learner}}, "cartpole_swingup", "torch")
        found[learner] = (work.planned_actions, work.policy_actions)
    assert found == {"actor": (0, 50_000 // 8), "planner": (50_000 // 8, 0)}


def test_collecting_by_noise_plans_test_episodes_only():
    work = cost.work_of(VALUES | {"exploration": {"collect": "noise"}}, "cartpole_swingup", "torch")
    assert work.planned_actions == 30_000 // 8


def test_work_in_the_true_simulator_is_every_candidates_env_steps():
    planner = {"horizon": 12, "iterations": 10, "candidates": 1000}
    work = cost.work_of(VALUES | {"planner": planner}, "cartpole_swingup", "numpy")
    assert work == cost.Work(env_steps=10 * 1000 * 120_001, updates=0)
    unknown = dict.fromkeys(cost.SPEEDS_IN_MS, math.nan)
    assert work.hours(unknown | {"env_steps_per_s": 1e6}) > 0.33


def test_hours_by_hand():
    # 3600 updates of 1 s, 7200 planned actions of 0.5 s, 3600 of a policy of 0.25 s, 3600 env steps of 1 s
    work = cost.Work(env_steps=3600, updates=3600, planned_actions=7200, policy_actions=3600)
    speed = {"ms_per_update": 1000, "ms_per_planned_action": 500, "ms_per_policy_action": 250, "env_steps_per_s": 1}
    assert work.hours(speed) == pytest.approx(3.25)
    assert math.isnan(work.hours(speed | {"ms_per_policy_action": math.nan})), "nothing is made up"


def figure_4(framework="torch"):
    """The published experiment's main variant: 30 runs."""
    paper = scale("paper")
    runs = [run for run in planned_runs("planet", "figure_4", paper) if run.variant == "rssm"]
    return [run for run in runs if run.framework == framework], paper


def test_the_paper_is_thirty_million_env_steps_and_three_million_updates():
    runs, paper = figure_4()
    (row,) = cost.cost_table(runs, paper, cost.read_speeds(Path("none"))).to_dict("records")
    assert row["runs"] == 30
    # per run: 1M env steps, 101 tests of 10 episodes (every 10 000 after 5 and at the end)
    assert row["env_steps"] == 30 * (1_000_000 + 101 * 10 * 1000)
    assert row["updates"] == 30 * (100 + 995 * 100)
    assert row["hours"] == cost.NOT_MEASURED
    assert "not measured" in cost.render(pd.DataFrame([row]), paper)


def test_all_of_the_paper_can_be_costed():
    paper = scale("paper")
    table = cost.cost_table(all_runs(paper), paper, cost.read_speeds(Path("none"))).set_index(["paper", "framework"])
    assert table.loc["planet", "runs"].to_dict() == {"torch": 425, "jax": 425, "numpy": 350}
    # 20 tasks x 5 seeds of 8 variants; 4 x 5 of 12 horizons; 5 games x 5 seeds of 2; 6 tasks x 2 seeds of 3 repeats; at
    # repeat 8 on one task 5 seeds of a planner and 3 more of the actor
    assert table.loc["dreamer", "runs"].to_dict() == dict.fromkeys(("torch", "jax"), 800 + 240 + 50 + 36 + 8)
    # 18 control tasks x 5 seeds from vectors of 3 agents, 20 from pixels of 3, 57 games of 2, 26 of 2; 5 tasks x 5
    # seeds of 19 variants beside the full agent, whose tasks are among the 18 (walker_walk from pixels: among the 20);
    # Crafter: 5 seeds of the suite, of 5 more sizes and of 3 more replay ratios
    assert table.loc["dreamerv3", "runs"].to_dict() == dict.fromkeys(
        ("torch", "jax"), 5 * (18 * 3 + 20 * 3 + 57 * 2 + 26 * 2) + 25 * 19 + 5 * (1 + 5 + 3)
    )


def speeds(tmp_path, *rows):
    path = tmp_path / "speeds.csv"
    path.write_text("\n".join([",".join(cost.SPEED_COLUMNS), *rows, ""]))
    return path


def test_measured_speeds_become_hours(tmp_path):
    path = speeds(tmp_path, "planet,torch,one GPU,paper,36,3.6,,1000,a note", "planet,torch,old,paper,,,,,no numbers")
    runs, paper = figure_4()
    (row,) = cost.cost_table(runs, paper, cost.read_speeds(path)).to_dict("records")
    learned = 2_988_000 * 0.036
    acted = row["planned_actions"] * 0.0036
    stepped = row["env_steps"] / 1000
    assert float(row["hours"]) == pytest.approx((learned + acted + stepped) / 3600, rel=0.05)
    assert "one GPU" in cost.render(pd.DataFrame([row]), paper)


@pytest.mark.parametrize("bad", ["planet,torch,gpu,paper,fast,1,1,1,x", "planet,torch,gpu,paper,0,1,1,1,x"])
def test_a_speed_that_is_no_speed_is_told(tmp_path, bad):
    with pytest.raises(UserError, match="line 2: ms_per_update"):
        cost.read_speeds(speeds(tmp_path, bad))


def test_speeds_of_another_form_are_told(tmp_path):
    path = tmp_path / "speeds.csv"
    path.write_text("paper,fast\n")
    with pytest.raises(UserError, match="expected"):
        cost.read_speeds(path)


def test_the_committed_speeds_can_be_read():
    assert list(cost.read_speeds().columns) == cost.SPEED_COLUMNS


# ------------------------------------------------------------------------------------------------ status


def evidence(folder, *, runs, curve=True):
    """A figure's sources and numbers as the figures write them."""
    folder.mkdir(parents=True)
    sources = {"figure": "figure_4", "paper": "planet", "scale": "laptop", "runs": runs}
    (folder / "figure_4.json").write_text(json.dumps(sources))
    rows = [
        {"kind": "published", "task": "cartpole_swingup", "method": "PlaNet", "median": 821},
        {"kind": "random", "task": "cartpole_swingup", "method": "random actions", "median": 61},
    ]
    if curve:
        for steps, median in ((5000, 70.0), (100_000, 512.4)):
            rows.append(
                {"kind": "curve", "task": "cartpole_swingup", "method": "PlaNet (RSSM)", "framework": "torch",
                 "env_steps": steps, "median": median, "seeds": 2}
            )  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "figure_4.csv", index=False)
    return folder


def run(seed, *, complete=True, env_steps=100_000):
    return {
        "framework": "torch", "scale": "laptop", "variant": "rssm", "task": "cartpole_swingup", "seed": seed,
        "status": "complete" if complete else "running", "env_steps": env_steps, "total_env_steps": 100_000,
        "git_commit": "abc",
    }  # fmt: skip


PLANNED = {("planet", "torch", "smoke"): 1, ("planet", "torch", "laptop"): 2, ("planet", "torch", "paper"): 30}


def test_status_counts_complete_runs_and_shows_the_curve(tmp_path):
    evidence(tmp_path / "laptop" / "planet", runs=[run(0), run(1)])
    text = status.render(tmp_path, PLANNED)
    assert "2 of 2 runs complete, 100,000 env steps each" in text
    assert "| PlaNet (RSSM) | torch | laptop | cartpole_swingup | 2 | 100,000 | 61 | 70 | 512 | 821 |" in text
    assert "no run of 30" in text
    assert "not written" in status.render(tmp_path, PLANNED, root=tmp_path), "no agent stands there"


def test_status_shows_curves_of_means_too(tmp_path):
    folder = evidence(tmp_path / "laptop" / "dreamer", runs=[run(0)])
    table = pd.read_csv(folder / "figure_4.csv").rename(columns={"median": "mean"})
    table.to_csv(folder / "figure_4.csv", index=False)
    assert "| cartpole_swingup | 2 | 100,000 | 61 | 70 | 512 | 821 |" in status.render(tmp_path, PLANNED)


def test_status_says_how_far_an_unfinished_run_got(tmp_path):
    evidence(tmp_path / "laptop", runs=[run(0), run(1, complete=False, env_steps=40_000)])
    text = status.render(tmp_path, PLANNED)
    assert "1 of 2 runs complete" in text
    assert "cartpole_swingup seed 1 unfinished at 40,000 of 100,000 env steps" in text


def test_a_run_behind_two_figures_counts_once_at_its_furthest(tmp_path):
    evidence(tmp_path / "a", runs=[run(0, complete=False, env_steps=10_000)])
    evidence(tmp_path / "b", runs=[run(0)])
    assert "1 of 2 runs complete" in status.render(tmp_path, PLANNED)


def test_status_without_evidence_claims_nothing(tmp_path):
    text = status.render(tmp_path, PLANNED)
    assert "no run of 2" in text and "complete" not in text


def test_the_readme_shows_the_generated_status():
    """The block between the markers is what `make status` writes: nobody typed in it and it is not out of date."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    fresh = status.replace_block(text, status.render(ROOT / "results" / "evidence", status.planned_counts()))
    assert text == fresh, "run `make status`"


def test_a_readme_without_markers_is_told():
    with pytest.raises(UserError, match="restore"):
        status.replace_block("no markers", "x")


# ------------------------------------------------------------------------------------------------ preview, plan


def test_preview_draws_from_what_is_there():
    command = preview.command("planet", "figure_4", scale("laptop"), Path("results"))
    assert command[1:4] == ["-m", "replications.planet.figures", "figure_4"]
    assert "--allow-mixed-code" in command
    assert command[command.index("--results-root") + 1] == "results/laptop"
    assert command[command.index("--seeds") + 1] == str(scale("laptop")["max_seeds"])


def test_preview_without_runs_is_told(tmp_path, capsys):
    assert preview.main(["--scale", str(SCALES / "laptop" / "scale.yaml"), "--results", str(tmp_path)]) == 2
    assert "no runs in" in capsys.readouterr().err


def test_a_run_knows_its_file():
    file = Run("smoke", "planet", "torch", "rssm", "cartpole_swingup", 3).file
    assert file == "results/smoke/planet/torch/rssm/cartpole_swingup/seed_3.h5"


@pytest.mark.parametrize("name", ["smoke", "laptop"])
def test_small_scales_use_the_small_shadow_map_and_say_so(name):
    small = scale(name)
    for one in all_runs(small):
        resolved = resolve(one.paper, one.variant, small)
        assert resolved["values"]["environment"]["shadow_size"] == 512
        assert {"key": "environment.shadow_size", "value": 512, "layer": "scale"} in resolved["overrides"]


def test_a_misspelled_task_of_a_scale_is_named_before_anything_is_planned():
    scale = {**read_scale(ROOT / "workflows/profiles/smoke/scale.yaml"), "tasks": {"planet": ["cartpole_swngup"]}}
    with pytest.raises(UserError, match="unknown task 'cartpole_swngup', did you mean 'cartpole_swingup'"):
        all_runs(scale)


@pytest.mark.parametrize("length", [12, 5000])
def test_resolve_config_writes_possible_values_and_refuses_others(tmp_path, monkeypatch, length):
    """A batch longer than an episode is told here, not by thirty failed jobs on a cluster."""
    monkeypatch.chdir(ROOT)
    scale = {"name": "smoke", "overrides": {"planet": {"batch": {"length": length}}}}
    job = SimpleNamespace(
        output=[str(tmp_path / "config.yaml")],
        log=[str(tmp_path / "config.log")],
        params=SimpleNamespace(resolved=resolve("planet", "rssm", scale)),
        wildcards=SimpleNamespace(paper="planet"),
    )
    script = str(ROOT / "workflows/scripts/resolve_config.py")
    if length == 12:
        runpy.run_path(script, init_globals={"snakemake": job})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.log", "config.yaml"]
        return
    with pytest.raises(SystemExit, match=r"batch\.length \(needs 5000 rows\)"):
        runpy.run_path(script, init_globals={"snakemake": job})
    assert [path.name for path in tmp_path.iterdir()] == ["config.log"]
