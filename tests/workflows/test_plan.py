"""Which runs a figure needs: special variants, one agent for all tasks, grids, and a scale that cuts them down."""

import pytest
import yaml

from shared.config import read_yaml, resolve
from shared.errors import UserError
from workflows.scripts.plan import all_runs, planned_runs, read_scale

PAPER = {
    "environment": {
        "action_repeat": {"cheetah_run": 4, "walker_walk": 2},
        "joint_tasks": ["cheetah_run", "walker_walk"],
    },
    "planner": {"horizon": 12, "candidates": 1000, "elites": 100},
}
COMMON = {"source": "a figure", "caption": "it", "expect": "something", "tasks": ["cheetah_run", "walker_walk"]}
EXPERIMENTS = {
    "figure_6": {
        **COMMON,
        "seeds": 2,
        "variants": {"rssm": {}, "joint": {}, "simulator": {}},
        "special": {"joint": {"tasks": ["all_tasks"]}, "sim*": {"frameworks": ["numpy"]}},
    },
    "figure_12": {
        **COMMON,
        "tasks": ["cheetah_run"],
        "seeds": 1,
        "grid": {
            "name": "simulator-h{:02}-j{:04}-k{:04}",
            "axes": {"planner.horizon": [6, 12], "planner.candidates, planner.elites": [[100, 5], [1000, 100]]},
        },
        "special": {"simulator-*": {"frameworks": ["numpy"]}},
    },
}
SCALE = {
    "name": "small",
    "purpose": "a test",
    "frameworks": ["torch", "jax"],
    "tasks": None,
    "max_seeds": None,
    "overrides": {},
}


@pytest.fixture
def root(tmp_path):
    """A repository with one paper; root(figure_6={...}, paper={...}) changes keys of an experiment or the paper."""
    folder = tmp_path / "replications" / "planet"
    folder.mkdir(parents=True)

    def write(*, paper=None, **experiments):
        changed = {name: {**content, **experiments.get(name, {})} for name, content in EXPERIMENTS.items()}
        (folder / "experiments.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
        environment = {**PAPER["environment"], **(paper or {})}
        (folder / "paper.yaml").write_text(yaml.safe_dump({**PAPER, "environment": environment}))
        return tmp_path

    return write


def planned(figure, root, **scale):
    return [tuple(run[2:]) for run in planned_runs("planet", figure, {**SCALE, **scale}, root=root)]


def test_a_special_variant_has_its_own_tasks_and_frameworks(root):
    got = planned("figure_6", root(), max_seeds=1)
    usual = [("rssm", "cheetah_run", 0), ("rssm", "walker_walk", 0), ("joint", "all_tasks", 0)]
    simulated = [("simulator", "cheetah_run", 0), ("simulator", "walker_walk", 0)]
    assert got == [
        *(("torch", *run) for run in usual),
        *(("jax", *run) for run in usual),
        *(("numpy", *run) for run in simulated),
    ]


def test_a_scale_chooses_tasks_seeds_and_frameworks_of_all_but_the_special(root):
    got = planned("figure_6", root(), tasks={"planet": ["walker_walk"]}, frameworks=["jax"])
    assert got == [
        *(("jax", "rssm", "walker_walk", seed) for seed in (0, 1)),
        *(("jax", "joint", "all_tasks", seed) for seed in (0, 1)),
        *(("numpy", "simulator", "walker_walk", seed) for seed in (0, 1)),
    ]


def test_a_scale_may_choose_the_tasks_of_one_experiment(root):
    tasks = {"planet": ["walker_walk"], "planet/figure_12": ["cheetah_run"]}
    assert {run[2] for run in planned("figure_12", root(), tasks=tasks)} == {"cheetah_run"}
    assert {run[2] for run in planned("figure_6", root(), tasks=tasks)} == {"walker_walk", "all_tasks"}
    with pytest.raises(UserError, match="'planet/figure_13' is no experiment of planet, did you mean 'figure_12'"):
        planned("figure_6", root(), tasks={"planet/figure_13": ["cheetah_run"]})


def test_a_scale_may_leave_variants_out_of_every_figure(root):
    left_out = {"planet": ["rssm", "simulator-h06*"]}
    assert {run[1] for run in planned("figure_6", root(), left_out=left_out)} == {"joint", "simulator"}
    assert {run[1][:13] for run in planned("figure_12", root(), left_out=left_out)} == {"simulator-h12"}
    with pytest.raises(UserError, match="'rsm' fits no variant of planet, did you mean 'rssm'"):
        planned("figure_6", root(), left_out={"planet": ["rsm"]})


def test_with_one_action_repeat_for_all_the_tasks_known_are_those_of_the_experiments(root):
    place = root(paper={"action_repeat": 2})
    assert {run[2] for run in planned("figure_12", place, tasks={"planet": ["walker_walk"]})} == {"walker_walk"}
    with pytest.raises(UserError, match="'walker_wolk', did you mean 'walker_walk'.*experiments.yaml has cheetah_run"):
        planned("figure_12", place, tasks={"planet": ["walker_wolk"]})


def test_a_grid_is_planned_in_full_or_as_the_scale_cuts_it(root):
    names = [f"simulator-h{h:02}-j{j:04}-k{k:04}" for h in (6, 12) for j, k in ((100, 5), (1000, 100))]
    assert planned("figure_12", root()) == [("numpy", name, "cheetah_run", 0) for name in names]
    cut = {"planet": {"figure_12": {"planner.horizon": [2]}}}
    assert [run[1] for run in planned("figure_12", root(), grids=cut)] == [
        "simulator-h02-j0100-k0005",
        "simulator-h02-j1000-k0100",
    ]


def test_every_planned_run_can_be_resolved_and_is_planned_once(root):
    runs = all_runs(SCALE, root=root())
    assert len(runs) == len(set(runs)) == 2 * (2 * 2 + 2) + 2 * 2 + 4
    for run in runs:
        assert resolve("planet", run.variant, SCALE, root=root())["variant"] == run.variant


@pytest.mark.parametrize(
    ("changes", "figure", "words"),
    [
        ({"figure_6": {"special": {"joined": {"tasks": ["all_tasks"]}}}}, "figure_6", "'joined' fits no variant"),
        ({"figure_6": {"special": {"rssm": {"frameworks": ["nunpy"]}}}}, "figure_6", "nunpy"),
        ({"figure_6": {"variants": {}}}, "figure_6", "no variants and no grid"),
        ({"figure_6": {"tasks": ["cheetah_rum"]}}, "figure_6", "'cheetah_rum', did you mean 'cheetah_run'"),
        ({"paper": {"joint_tasks": ["walker_wolk"]}}, "figure_6", "'walker_wolk', did you mean 'walker_walk'"),
        ({"paper": {"joint_tasks": None}}, "figure_6", "'joint'.* needs environment.joint_tasks"),
        ({"figure_12": {"grid": {"name": "x"}}}, "figure_12", "'grid.axes' is missing"),
    ],
)
def test_an_experiment_that_cannot_be_planned_is_told(root, changes, figure, words):
    with pytest.raises(UserError, match=words):
        planned(figure, root(**changes))


def test_tasks_of_one_agent_for_all_come_from_its_variant(root):
    variants = {"joint": {"environment": {"joint_tasks": ["walker_wolk"]}}}
    special = {"joint": {"tasks": ["all_tasks"]}}
    with pytest.raises(UserError, match="walker_wolk"):
        planned("figure_6", root(figure_6={"variants": variants, "special": special}))


def test_a_scale_file_may_cut_grids_and_name_variants(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    content = {**SCALE, "overrides": {"planet/simulator*": {"planner": {"horizon": 2}}}}
    content["grids"] = {"planet": {"figure_12": {"planner.horizon": [2]}}}
    (folder / "scale.yaml").write_text(yaml.safe_dump(content))
    assert read_scale(folder / "scale.yaml") == content == read_yaml(folder / "scale.yaml")
    (folder / "scale.yaml").write_text(yaml.safe_dump({**content, "grids": {"planet": {"figure_12": 4}}}))
    with pytest.raises(UserError, match="grids.planet.figure_12"):
        read_scale(folder / "scale.yaml")
