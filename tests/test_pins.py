"""Every number of a paper has one place and a source there; deviations are declared; scale paper changes nothing."""

import importlib
import re
from pathlib import Path

import pytest

from shared.config import ALL_TASKS, ROOT, build, for_task, leaves, papers, read_variants, read_yaml, resolve
from shared.errors import UserError
from workflows.scripts.plan import all_runs, planned_runs, read_experiments, read_scale, variants_left_out

LEAF = re.compile(r"^(?P<indent> *)(?P<key>[a-z0-9_]+): +\S.*? +# (?P<kind>paper|code|ours): (?P<text>\S.*)$")
GROUP = re.compile(r"^(?P<indent> *)(?P<key>[a-z0-9_]+): *(#.*)?$")
SCALES = sorted((ROOT / "workflows" / "profiles").glob("*/scale.yaml"))
INDENT = 2


def sources(text: str) -> dict[str, tuple[str, str]]:
    """dotted key -> (paper|code|ours, where) of a paper.yaml; a line of any other form is an AssertionError."""
    found, groups = {}, []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LEAF.match(line) or GROUP.match(line)
        assert match, f"line {number} has no source (name: value  # paper|code|ours: where): {line}"
        depth = len(match["indent"]) // INDENT
        groups[depth:] = [match["key"]]
        if match.re is LEAF:
            found[".".join(groups)] = (match["kind"], match["text"])
    return found


def paper_text(paper: str) -> str:
    return (ROOT / "replications" / paper / "paper.yaml").read_text(encoding="utf-8")


def config_class(paper: str):
    return importlib.import_module(f"replications.{paper}.config").Config


@pytest.fixture(params=papers())
def paper(request):
    return request.param


def test_every_value_has_a_source(paper):
    values = dict(leaves(read_yaml(ROOT / "replications" / paper / "paper.yaml"), where=paper))
    assert sources(paper_text(paper)).keys() == values.keys()


def test_a_value_without_a_source_is_found():
    with pytest.raises(AssertionError, match="line 2 has no source"):
        sources("model:\n  deter_size: 200\n")
    with pytest.raises(AssertionError, match="line 1 has no source"):
        sources("deter_size: 200  # guess: why not\n")


def test_a_source_names_the_version_it_speaks_of(paper):
    head = paper_text(paper).partition("\n\n")[0]
    assert re.search(r"arXiv \d{4}\.\d{5} v\d", head), "the head of paper.yaml names the paper's version"
    assert re.search(r"@ ?[0-9a-f]{7}", head), "the head of paper.yaml names the code's commit"


def test_every_deviation_has_a_row_in_the_readme(paper):
    """`ours` in paper.yaml <-> a row `| `dotted.key` | ... |` under the heading Deviations."""
    readme = (ROOT / "replications" / paper / "README.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ .*Deviations.*$", readme, flags=re.MULTILINE | re.IGNORECASE)
    assert len(section) > 1, "README.md has no heading Deviations"
    rows = "\n".join(line for line in section[1].splitlines() if line.startswith("|"))
    ours = [key for key, (kind, _) in sources(paper_text(paper)).items() if kind == "ours"]
    assert [key for key in ours if f"`{key}`" not in rows] == []


def test_values_fit_the_types(paper):
    where = f"replications/{paper}/paper.yaml"
    build(config_class(paper), read_yaml(ROOT / where), where=where)


def one_per_grid(variants):
    """Variants without most of a grid's hundreds, which differ in three numbers: every fiftieth stays."""
    grid = [name for name in variants if re.search(r"-h\d\d-i\d\d-j", name)]
    return {name: variants[name] for name in variants if name not in grid or grid.index(name) % 50 == 0}


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_every_variant_fits_the_types_at_every_scale(paper, path):
    scale = read_scale(path)
    runs = {run.variant: run for run in all_runs(scale) if run.paper == paper}
    variants = set(read_variants(paper, scale))
    assert runs.keys() == variants - variants_left_out(paper, variants, scale)
    for variant in one_per_grid(runs):
        resolved = for_task(resolve(paper, variant, scale), runs[variant].task)
        build(config_class(paper), resolved["values"], where=f"{path.parent.name}, {variant}")


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.parent.name)
def test_every_planned_task_has_an_action_repeat(path):
    scale = read_scale(path)
    for run in one_per_grid({run.variant: run for run in all_runs(scale)}).values():
        world = resolve(run.paper, run.variant, scale)["values"]["environment"]
        repeat = world["action_repeat"]
        if isinstance(repeat, int):  # one for every task
            assert repeat >= 1 and run.task != ALL_TASKS
        else:
            assert set(world["joint_tasks"] if run.task == ALL_TASKS else [run.task]) <= repeat.keys()


def test_scale_paper_overrides_nothing(paper):
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    assert (scale["overrides"], scale["tasks"], scale["max_seeds"]) == ({}, None, None)
    for variant in one_per_grid(read_variants(paper)):
        assert [o for o in resolve(paper, variant, scale)["overrides"] if o["layer"] != "variant"] == []


def test_scale_paper_never_uses_the_small_shadow_map(paper):
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    for variant in one_per_grid(read_variants(paper)):
        assert resolve(paper, variant, scale)["values"]["environment"]["shadow_size"] is None


def test_scale_paper_is_the_published_experiment():
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    six = {"cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "cup_catch", "walker_walk"}
    variants = {
        "figure_4": {"rssm", "ssm", "deterministic", "deterministic-fair"},
        "table_1": {"rssm", "simulator"},
        "figure_5": {"rssm", "random-collection", "random-shooting", "gradient-planner"},
        "figure_6": {"rssm", "joint"},
        "figure_7": {"rssm", "joint"},
        "figure_8": {"rssm", "overshooting", "drnn", "drnn-overshooting"},
        "figure_9": {"rssm", "elu", "ssm", "ssm-elu"},
        "code_states": {"rssm", "camera-ready", "first-release"},
    }
    for figure, names in variants.items():
        runs = planned_runs("planet", figure, scale)
        assert {run.variant for run in runs} == names
        assert {run.seed for run in runs} == set(range(4 if figure == "figure_7" else 5))
        for variant in names:
            mine = [run for run in runs if run.variant == variant]
            assert {run.task for run in mine} == ({"all_tasks"} if variant == "joint" else six), figure
            assert {run.framework for run in mine} == ({"numpy"} if variant == "simulator" else {"torch", "jax"})
    assert planned_runs("planet", "figure_4", scale)[0].file == (
        "results/paper/planet/torch/rssm/cartpole_swingup/seed_0.h5"
    )
    grid = planned_runs("planet", "figure_12", scale)
    assert len(grid) == 5 * 4 * 4 * 4 and {run.task for run in grid} == {"cheetah_run"}
    for figure in ("figure_10", "figure_11"):
        assert {run.task for run in planned_runs("planet", figure, scale)} == {"cheetah_run"}


def test_planet_variants_by_hand():
    """Section 0 and 5 of the fact sheet, typed anew: what a variant changes, and nothing else."""
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    ahead = {"loss.overshooting_scale": 1.0, "loss.overshooting_distance": 49}
    deterministic = {"model.mean_only": True}
    older = {
        "environment.action_repeat.cup_catch": 6,
        "model.reward_layers": 2,
        "model.reward_units": 100,
        "loss.alignment": "leaving",
        "loss.keep_free_nats": True,
        "optimiser.ramp_updates": 200,
        "planner.discount": 0.99,
        "replay.recent": 6,
        "replay.pool": 11,
        "replay.chunks_per_refresh": 11,
        "replay.shuffle_chunks": 5000,
        "replay.prefetch_chunks": 1000,
    }
    expected = {
        "rssm": {},
        "simulator": {},
        "ssm": {"model.latent": "ssm"},
        "deterministic": {**deterministic, "loss.divergence_scale": 0.0},
        "deterministic-fair": deterministic,
        "random-collection": {"exploration.collect": "noise", "exploration.action_noise": 1.0},
        "random-shooting": {"planner.iterations": 1, "planner.elites": 1},
        "gradient-planner": {"planner.method": "gradient", "planner.candidates": 100, "planner.elites": 1},
        "joint": {
            "schedule.total_env_steps": 6_000_000,
            "schedule.prefill_env_steps": 30_000,
            "schedule.evaluate_every_env_steps": 60_000,
        },
        "overshooting": ahead,
        "drnn": {"model.latent": "drnn"},
        "drnn-overshooting": {"model.latent": "drnn", **ahead},
        "elu": {"model.activation": "elu"},
        "ssm-elu": {"model.latent": "ssm", "model.activation": "elu"},
        "camera-ready": older,
        "first-release": {
            **older,
            **ahead,
            "model.future_rnn": False,
            "loss.likelihood": "squared_error",
            "loss.free_nats": 2.0,
            "loss.global_prior_scale": 0.1,
            "loss.overshooting_reward_scale": 100.0,
            "loss.overshooting_mean": "valid",
        },
        "simulator-h08-i03-j0300-k0150": {
            "planner.horizon": 8,
            "planner.iterations": 3,
            "planner.candidates": 300,
            "planner.elites": 150,
        },
    }
    names = {name for name in read_variants("planet") if not name.startswith("simulator-h")}
    assert names == expected.keys() - {"simulator-h08-i03-j0300-k0150"}
    for variant, changes in expected.items():
        overrides = {o["key"]: o["value"] for o in resolve("planet", variant, scale)["overrides"]}
        assert overrides == changes, variant


def pinned(paper):
    """Every number of paper.yaml by its dotted name."""
    return dict(leaves(read_yaml(ROOT / "replications" / paper / "paper.yaml"), where=paper))


def test_planet_pins_by_hand():
    """A second reading of the paper and the authors' code, typed anew: a slip in paper.yaml shows here."""
    values = pinned("planet")
    expected = {
        "environment.size": 64,
        "environment.camera": 0,
        "environment.time_limit_env_steps": 1000,
        "environment.action_repeat.cartpole_swingup": 8,
        "environment.action_repeat.reacher_easy": 4,
        "environment.action_repeat.cheetah_run": 4,
        "environment.action_repeat.finger_spin": 2,
        "environment.action_repeat.cup_catch": 4,
        "environment.action_repeat.walker_walk": 2,
        "environment.joint_tasks": [
            "cartpole_swingup", "reacher_easy", "cheetah_run", "finger_spin", "cup_catch", "walker_walk",
        ],
        "loss.alignment": "arriving",
        "loss.likelihood": "unit_gaussian",
        "loss.keep_free_nats": False,
        "loss.global_prior_scale": 0.0,
        "loss.overshooting_reward_scale": 0.0,
        "optimiser.ramp_updates": 0,
        "planner.method": "cem",
        "planner.discount": 1.0,
        "exploration.collect": "planner",
        "replay.pool": None,
        "replay.shuffle_chunks": 0,
        "model.stoch_size": 30,
        "model.deter_size": 200,
        "model.hidden_size": 200,
        "model.min_std": 0.1,
        "model.encoder_depth": 32,
        "model.image_bits": 5,
        "model.reward_layers": 3,
        "model.reward_units": 300,
        "loss.free_nats": 3.0,
        "loss.reward_scale": 10.0,
        "loss.overshooting_scale": 0.0,
        "optimiser.learning_rate": 1e-3,
        "optimiser.epsilon": 1e-4,
        "optimiser.clip_norm": 1000.0,
        "planner.horizon": 12,
        "planner.iterations": 10,
        "planner.candidates": 1000,
        "planner.elites": 100,
        "exploration.action_noise": 0.3,
        "batch.size": 50,
        "batch.length": 50,
        "replay.older": 500,
        "replay.recent": 500,
        "replay.chunks_per_refresh": 1000,
        "schedule.total_env_steps": 1_000_000,
        "schedule.prefill_env_steps": 5000,
        "schedule.updates_per_learn": 100,
        "evaluation.episodes": 10,
    }  # fmt: skip
    assert {key: values[key] for key in expected} == expected


def test_dreamer_pins_by_hand():
    """Sections 1 to 5 of Dreamer's fact sheet, column TF1, typed anew: the lineage that made the paper's curves."""
    values = pinned("dreamer")
    expected = {
        "environment.size": 64,
        "environment.camera": 0,
        "environment.cameras.quadruped_run": 2,
        "environment.cameras.quadruped_walk": 2,
        "environment.time_limit_env_steps": 1000,
        "environment.action_repeat": 2,
        "environment.least_decisions": 50,
        "environment.atari.grayscale": False,
        "environment.atari.noop_max": 29,
        "environment.atari.life_loss_ends_training": True,
        "environment.atari.resize": "bilinear",
        "environment.atari.max_pool": True,
        "model.stoch_size": 30,
        "model.deter_size": 200,
        "model.hidden_size": 200,
        "model.activation": "elu",
        "model.min_std": 0.1,
        "model.gru": "block",
        "model.joint_heads": False,
        "model.encoder_depth": 32,
        "model.image_bits": 8,
        "model.dequantise": True,
        "model.dense_units": 400,
        "model.reward_layers": 2,
        "model.value_layers": 3,
        "model.actor_layers": 4,
        "model.continuation": False,
        "model.continuation_layers": 3,
        "model.contrastive": False,
        "model.contrastive_layers": 3,
        "model.contrastive_init_std": 1.0,
        "model.contrastive_min_std": 0.01,
        "loss.gradient_heads": ["image", "reward"],
        "loss.image_scale": 1.0,
        "loss.reward_scale": 1.0,
        "loss.contrastive_scale": 1.0,
        "loss.divergence_scale": 1.0,
        "loss.free_nats": 3.0,
        "loss.free_nats_of": "step",
        "loss.continuation_scale": 1.0,
        "loss.continuation_target_scale": 0.99,
        "loss.reward_transform": "none",
        "loss.contrastive_negatives": "window",
        "loss.contrastive_batch_shifts": 10,
        "loss.contrastive_time_shifts": 30,
        "behaviour.learner": "actor",
        "behaviour.value": True,
        "behaviour.horizon": 15,
        "behaviour.discount": 0.99,
        "behaviour.no_value_discount": 0.99,
        "behaviour.lambda": 0.95,
        "behaviour.bootstrap": "early",
        "behaviour.weights": True,
        "behaviour.shared_latent_noise": False,
        "behaviour.action_gradient": "score",
        "behaviour.mean_scale": 5.0,
        "behaviour.init_std": 5.0,
        "behaviour.min_std": 1e-4,
        "behaviour.mode_samples": 100,
        "optimisers.model.learning_rate": 6e-4,
        "optimisers.model.clip_norm": 100.0,
        "optimisers.actor.learning_rate": 8e-5,
        "optimisers.actor.clip_norm": 100.0,
        "optimisers.value.learning_rate": 8e-5,
        "optimisers.value.clip_norm": 100.0,
        "optimisers.decoder.learning_rate": 1e-3,
        "optimisers.decoder.clip_norm": 1000.0,
        "optimisers.epsilon": 1e-4,
        "planner.horizon": 12,
        "planner.iterations": 10,
        "planner.candidates": 1000,
        "planner.elites": 100,
        "planner.discount": 1.0,
        "exploration.policy": "sample",
        "exploration.action_noise": 0.3,
        "exploration.epsilon.start": 0.4,
        "exploration.epsilon.end": 0.1,
        "exploration.epsilon.decay_updates": 150_000,
        "exploration.epsilon.evaluation": 0.001,
        "batch.size": 50,
        "batch.length": 50,
        "replay.older": 1000,
        "replay.recent": 0,
        "replay.pool": None,
        "replay.chunks_per_refresh": 1000,
        "replay.replacement": False,
        "replay.ends": "included",
        "replay.shuffle_chunks": 0,
        "schedule.total_env_steps": 5_000_000,
        "schedule.prefill_env_steps": 5000,
        "schedule.learn_every_env_steps": 1000,
        "schedule.updates_per_learn": 100,
        "schedule.pretrain_updates": 100,
        "schedule.evaluate_every_env_steps": 10_000,
        "evaluation.episodes": 1,
        "video.sequences": 2,
        "video.context": 5,
        "video.length": 50,
    }
    assert {key: values[key] for key in expected} == expected
    assert values.keys() - expected.keys() == {  # defaults of libraries, and what is ours: the sheet has no number
        "environment.shadow_size", "environment.atari.sticky", "optimisers.beta1", "optimisers.beta2", "planner.std",
        "replay.prefetch_chunks", "replay.capacity_rows", "replay.memory_rows", "schedule.checkpoint_every_env_steps",
    }  # fmt: skip


def test_dreamer_variants_by_hand():
    """Sections 1 to 7 of the fact sheet, typed anew: what a variant changes, and nothing else. tf2: column TF2."""
    scale = read_scale(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml")
    no_value, planet = {"behaviour.value": False}, {"behaviour.learner": "planner", "behaviour.value": False}
    games = {
        "environment.action_repeat": 4,
        "environment.time_limit_env_steps": 4 * 27_000,
        "model.continuation": True,
        "loss.divergence_scale": 0.1,
        "loss.reward_transform": "tanh",
        "behaviour.horizon": 10,
        "exploration.action_noise": 0.0,
        "schedule.total_env_steps": 10_000_000,
        "schedule.prefill_env_steps": 40_000,
        "schedule.learn_every_env_steps": 4 * 500,
        "schedule.evaluate_every_env_steps": 10 * 4 * 500,
        "schedule.checkpoint_every_env_steps": 20_000,
    }
    repeats = {  # 100 updates per 500 decisions, after 2500, and a test per 1000 updates
        repeat: {
            "environment.action_repeat": repeat,
            "schedule.prefill_env_steps": 2500 * repeat,
            "schedule.learn_every_env_steps": 500 * repeat,
            "schedule.evaluate_every_env_steps": 5000 * repeat,
        }
        for repeat in (4, 8)
    }
    expected = {
        "dreamer": {},
        "no-value": no_value,
        "no-value-undiscounted": {**no_value, "behaviour.no_value_discount": 1.0},
        "planet": planet,
        "contrastive": {"model.contrastive": True, "loss.gradient_heads": ["contrastive", "reward"]},
        "reward-only": {"loss.gradient_heads": ["reward"]},
        "atari": games,
        "atari-straight": {**games, "behaviour.action_gradient": "straight"},
        "repeat-1": {"environment.action_repeat": 1},  # 1000 decisions are one episode
        "repeat-4": repeats[4],
        "repeat-8": repeats[8],
        "planet-repeat-8": {**planet, **repeats[8]},
        "tf2": {
            "environment.least_decisions": 0,
            "environment.atari.noop_max": 30,
            "model.gru": "keras",
            "model.joint_heads": True,
            "model.dequantise": False,
            "loss.free_nats_of": "mean",
            "loss.continuation_scale": 10.0,
            "behaviour.bootstrap": "last",
            "behaviour.shared_latent_noise": True,
            "behaviour.action_gradient": "straight",
            "optimisers.epsilon": 1e-7,
            "replay.older": 1_000_000,  # all
            "replay.replacement": True,
            "replay.chunks_per_refresh": 100,
            "replay.ends": "excluded",
            "replay.prefetch_chunks": 10 * 50,
            "schedule.pretrain_updates": 1 + 100,
        },
        "paper-text": {
            "model.dense_units": 300,
            "model.reward_layers": 3,
            "model.actor_layers": 3,
            "behaviour.bootstrap": "last",
            "behaviour.weights": False,
            "exploration.policy": "mode",
        },
    }
    for horizon in (10, 20, 30, 40):
        expected[f"dreamer-h{horizon}"] = {"behaviour.horizon": horizon}
        expected[f"no-value-h{horizon}"] = {**no_value, "behaviour.horizon": horizon}
        expected[f"planet-h{horizon}"] = {**planet, "planner.horizon": horizon}
    assert read_variants("dreamer").keys() == expected.keys()
    for variant, changes in expected.items():
        overrides = {o["key"]: o["value"] for o in resolve("dreamer", variant, scale)["overrides"]}
        assert overrides == changes, variant


# ------------------------------------------------------------------------------------------------ experiments, scales


def test_experiments_are_whole(paper):
    experiments = read_experiments(paper)
    assert experiments
    read_variants(paper)  # one name, one meaning


def test_a_scale_says_its_folder(tmp_path):
    path = tmp_path / "smoke" / "scale.yaml"
    path.parent.mkdir()
    path.write_text((ROOT / "workflows" / "profiles" / "paper" / "scale.yaml").read_text())
    with pytest.raises(UserError, match="name is 'paper', its folder 'smoke'"):
        read_scale(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("max_seeds: null", "max_seeds: 0"), "max_seeds = 0"),
        (("frameworks: [torch, jax]", "frameworks: [tensorflow]"), "'torch' or 'jax'"),
        (("purpose:", "purpoes:"), "did you mean 'purpose'?"),
        (("overrides: {}", ""), "'overrides' is missing"),
    ],
)
def test_a_scale_that_is_wrong_is_told(tmp_path, change, words):
    path = tmp_path / "paper" / "scale.yaml"
    path.parent.mkdir()
    path.write_text((ROOT / "workflows" / "profiles" / "paper" / "scale.yaml").read_text().replace(*change))
    with pytest.raises(UserError) as caught:
        read_scale(path)
    assert words in str(caught.value)


def test_an_unknown_figure_is_told():
    scale = read_scale(Path(ROOT / "workflows" / "profiles" / "paper" / "scale.yaml"))
    with pytest.raises(UserError, match="did you mean 'figure_4'"):
        planned_runs("planet", "figure4", scale)
