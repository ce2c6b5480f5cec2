"""PlaNet's options beyond the default, by hand and in both frameworks: the older code states' losses, alignment and
ramp, planning by gradient, random collection. Parity between the frameworks is in test_planet_parity.py.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from replications.planet import train
from replications.planet.config import Config
from shared.config import build, write_resolved
from shared.envs.spec import ActSpec
from shared.errors import UserError
from shared.results import read_run
from tests import tiny
from tests.golden.planet_sides import SIDES

ACTIONS = 2


@pytest.fixture(params=SIDES)
def side(request):
    """One of the two frameworks, in float64."""
    side = SIDES[request.param]()
    with side.precision():
        yield side


def make_config(**changes) -> Config:
    return build(Config, tiny.values(**changes), where="a test")


def make_agent(framework, seed=0, **changes):
    return SIDES[framework]().agent.PlanetAgent(
        make_config(**changes), {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(seed)
    )


# ------------------------------------------------------------------------------------------------------ what is learned


ROWS = {
    "image": np.arange(8.0).reshape(2, 4, 1, 1, 1),
    "action": np.array([[[1], [2], [3], [4]], [[5], [6], [7], [8]]], float),
    "action_before": np.array([[9], [0]], float),
    "is_first": np.array([[0, 0, 0, 0], [1, 0, 0, 0]], bool),
    "reward": np.array([[10, 11, 12, 13], [0, 15, 16, 17]], float),
}


def test_the_reward_of_arriving_lies_in_its_own_row(side):
    rows = {name: side.double(x) if x.dtype != bool else x for name, x in ROWS.items()}
    rows["is_first"] = side.double(ROWS["is_first"]) > 0
    got = {name: side.numpy(x) for name, x in side.agent.entries(rows, "arriving").items()}
    assert_array_equal(got["reward"], ROWS["reward"])
    assert_array_equal(got["action"][..., 0], [[9, 1, 2, 3], [0, 5, 6, 7]])
    assert_array_equal(got["image"], ROWS["image"])


def test_the_reward_of_leaving_lies_one_row_further_and_a_chunk_begins_without_an_action(side):
    rows = {name: side.double(x) for name, x in ROWS.items()} | {"is_first": side.double(ROWS["is_first"]) > 0}
    got = {name: side.numpy(x) for name, x in side.agent.entries(rows, "leaving").items()}
    assert_array_equal(got["reward"], [[11, 12, 13], [15, 16, 17]])
    assert_array_equal(got["action"][..., 0], [[0, 1, 2], [0, 5, 6]])  # also in mid-episode: the stored 9 is not used
    assert_array_equal(got["image"], ROWS["image"][:, :3])


def test_a_leaving_run_draws_one_row_more(tmp_path):
    from argparse import Namespace

    from replications.planet.train import make_parts

    for alignment, rows in (("arriving", 6), ("leaving", 7)):
        options = Namespace(task="toy_reach", seed=0, framework="torch", device="cpu", workers=0, out=tmp_path / "x.h5")
        parts = make_parts(make_config(loss__alignment=alignment), options)
        assert parts.batch == (3, rows)


def test_costs_by_hand(side):
    target, mean = side.double([1.0, 0.0]), side.double([3.0, 0.0])
    gaussian = side.numpy(side.agent.COSTS["unit_gaussian"](target, mean))
    assert_allclose(gaussian, [2 + 0.5 * math.log(2 * math.pi), 0.5 * math.log(2 * math.pi)], rtol=1e-14)
    assert_array_equal(side.numpy(side.agent.COSTS["squared_error"](target, mean)), [4.0, 0.0])


def objective(side, seed=0, **changes):
    """Total, metrics and gradients of the tiny model on a fixed batch."""
    config = make_config(**changes)
    world = side.world_model(config.model, ACTIONS)
    start = SIDES["torch"]().world_model(config.model, ACTIONS)
    world = side.load(world, {name: value.detach().numpy() for name, value in start.state_dict().items()})
    random = np.random.default_rng(seed)
    stoch, shape = config.model.stoch_size, (2, 4)
    inputs = {
        "image": random.uniform(-0.5, 0.5, (*shape, 64, 64, 3)),
        "action": random.uniform(-1, 1, (*shape, ACTIONS)),
        "reward": random.uniform(0, 4, shape),
        "noise": random.normal(size=(*shape, stoch)),
    }
    if config.loss.overshoots:
        inputs["overshooting_noise"] = random.normal(size=(*shape, config.loss.overshooting_distance + 1, stoch))
    inputs = {name: side.double(x) for name, x in inputs.items()}
    total, metrics, gradients = side.value_and_gradients(
        lambda model: side.agent.objective(model, config.loss, **inputs), world
    )
    return side.numpy(total).item(), {name: float(x) for name, x in metrics.items()}, gradients


def test_free_nats_that_are_kept_add_themselves_and_no_gradient(side):
    removed, left_out, gradients = objective(side, loss__free_nats=2.0)
    kept, _, same = objective(side, loss__free_nats=2.0, loss__keep_free_nats=True)
    assert kept == pytest.approx(removed + 2.0, rel=1e-12)
    assert left_out["divergence_loss"] < left_out["kl"]
    for name, gradient in gradients.items():
        assert_array_equal(same[name], gradient, err_msg=name)


def test_a_squared_error_has_twice_the_gradient_of_a_unit_gaussian(side):
    one = {"loss__divergence_scale": 0.0}
    gaussian, _, gradients = objective(side, **one)
    squared, metrics, doubled = objective(side, loss__likelihood="squared_error", **one)
    constant = (64 * 64 * 3 + 10) * 0.5 * math.log(2 * math.pi)
    assert squared == pytest.approx(2 * (gaussian - constant), rel=1e-12)
    assert squared == pytest.approx(metrics["image_loss"] + 10 * metrics["reward_loss"], rel=1e-12)
    for name, gradient in gradients.items():
        assert_allclose(doubled[name], 2 * gradient, rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_global_prior_pulls_towards_the_unit_gaussian(side):
    plain, _, _ = objective(side)
    pulled, metrics, _ = objective(side, loss__global_prior_scale=0.1)
    assert metrics["global_prior_loss"] > 0
    assert pulled == pytest.approx(plain + 0.1 * metrics["global_prior_loss"], rel=1e-12)


def overshooting_by_hand(settings):
    """(divergence, reward loss) of a world whose belief never moves: KL 1/2 (post - prior)^2 with unit deviations.

    Posterior means of three rows 1, 2, 4; the open-loop prior stays at 0 whatever the start, its reward is 0; T = 3,
    D = 2. Rows reached ahead: 2 steps: 2, 4 (KL 2 and 8); 3 steps: 4 (KL 8); beyond the end nothing.
    """
    ahead = {"all": ([2.0, 8.0], 3), "valid": ([2.0, 8.0, 8.0], 3)}
    kls, entries = ahead[settings.overshooting_mean]
    rewards = {"all": [10.0, 20.0], "valid": [10.0, 20.0, 20.0]}[settings.overshooting_mean]
    return sum(max(0, kl - 1) for kl in kls) / entries, sum(r * r for r in rewards) / entries


@pytest.mark.parametrize("mean", ["all", "valid"])
def test_overshooting_by_hand(side, mean):
    """all: predictions of 2 .. D steps over all B T (D - 1) entries; valid: 2 .. D + 1 steps over those inside."""
    settings = SimpleNamespace(
        free_nats=1.0,
        overshooting_mean=mean,
        overshooting_reward_scale=1.0,
        likelihood="squared_error",
        keep_free_nats=False,
    )
    zero, one = side.double(np.zeros((1, 3, 1))), side.double(np.ones((1, 3, 1)))

    class Still:
        def prior(self, state, action, noise):
            return {"mean": 0 * state["mean"], "std": 0 * state["mean"] + 1, "sample": 0 * state["mean"]}

        def features(self, state):
            return state["sample"]

    world = SimpleNamespace(latent=Still(), reward=lambda features: features[..., 0])
    post = {"mean": side.double([[[1.0], [2.0], [4.0]]]), "std": one, "sample": zero}
    reward, noise = side.double([[5.0, 10.0, 20.0]]), side.double(np.zeros((1, 3, 3, 1)))
    divergence, miss = side.agent.overshooting(world, settings, post, zero, reward, noise)
    expected = overshooting_by_hand(settings)
    assert_allclose(float(divergence), expected[0], rtol=1e-14)
    assert_allclose(float(miss), expected[1], rtol=1e-14)
    settings.keep_free_nats = True  # one nat more for every entry inside
    inside = {"all": 2 / 3, "valid": 1.0}[mean]
    kept, _ = side.agent.overshooting(world, settings, post, zero, reward, noise)
    assert_allclose(float(kept), expected[0] + inside, rtol=1e-14)


def test_the_learning_rate_rises_over_the_ramp(side):
    """Gradient 1 throughout, so every full step of Adam is (nearly) the learning rate: 0, 1/4, 2/4, 3/4, 1, 1 of it."""
    config = make_config(optimiser__ramp_updates=4, optimiser__epsilon=1e-12, optimiser__clip_norm=1e6)
    values = [side.numpy(p[0]).item() for _, p in side.updates(config, [np.zeros(1)], [[np.ones(1)]] * 6)]
    steps = -np.diff([0.0, *values]) / config.optimiser.learning_rate
    assert_allclose(steps, [0, 0.25, 0.5, 0.75, 1, 1], rtol=1e-6, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- planning


class Walk:
    """s' = s + a; the reward is minus the squared distance to (1.5, -0.5)."""

    def __init__(self, side):
        self.latent, self.goal = self, side.double([1.5, -0.5])

    def prior(self, state, action, noise):
        return {"sample": state["sample"] + action}

    def features(self, state):
        return state["sample"]

    def reward(self, x):
        return -((x - self.goal) ** 2).sum(-1)


def walk(side, num_envs=1, **changes):
    config = make_config(**{f"planner__{name}": value for name, value in changes.items()})
    plan, random = config.planner, np.random.default_rng(0)
    shape = (plan.iterations, num_envs, plan.candidates, plan.horizon)
    noise = side.double(random.normal(size=(*shape, ACTIONS)))
    latent = side.double(np.zeros((plan.iterations, num_envs * plan.candidates, plan.horizon, 1)))
    start = {"sample": side.double(np.zeros((num_envs, ACTIONS)))}
    mean, std = side.plan(Walk(side), config, start, noise, latent)
    return side.numpy(mean), side.numpy(std)


def test_planning_by_gradient_walks_to_the_goal(side):
    """Optimum: a_1 = (1, -0.5), a_2 = (0.5, 0), a_3 = 0; steps of 0.05 come within about one step of it."""
    mean, std = walk(side, num_envs=2, method="gradient", iterations=60, candidates=10, step_size=0.05, elites=1)
    assert_allclose(mean, [[[1.0, -0.5], [0.5, 0.0], [0.0, 0.0]]] * 2, atol=0.1)
    assert mean.shape == std.shape == (2, 3, ACTIONS) and not std.any()


def test_one_iteration_of_gradient_planning_only_chooses_the_best_start(side):
    config = make_config(planner__method="gradient", planner__iterations=1)
    noise = np.random.default_rng(0).normal(size=(1, 1, config.planner.candidates, 3, ACTIONS))
    starts = np.clip(noise[0, 0], -1, 1)
    goal = np.array([1.5, -0.5])
    returns = -((np.cumsum(starts, 1) - goal) ** 2).sum((1, 2))
    mean, _ = walk(side, method="gradient", iterations=1)
    assert_allclose(mean[0], starts[returns.argmax()], rtol=1e-12)


def test_random_shooting_is_the_best_of_the_first_candidates(side):
    config = make_config(planner__iterations=1, planner__elites=1)
    starts = np.clip(np.random.default_rng(0).normal(size=(1, 1, config.planner.candidates, 3, ACTIONS))[0, 0], -1, 1)
    returns = -((np.cumsum(starts, 1) - np.array([1.5, -0.5])) ** 2).sum((1, 2))
    mean, _ = walk(side, iterations=1, elites=1)
    assert_allclose(mean[0], starts[returns.argmax()], rtol=1e-12)


def test_a_discount_makes_late_rewards_worth_less(side):
    """Three rewards of -1, -2, -4 at 1, d, d^2."""
    world = SimpleNamespace(
        latent=SimpleNamespace(
            prior=lambda state, action, noise: {"sample": 2 * state["sample"]}, features=lambda state: state["sample"]
        ),
        reward=lambda x: -x[..., 0],
    )
    start, steps = {"sample": side.double([[0.5]])}, side.double(np.zeros((1, 3, 1)))
    for discount in (1.0, 0.5):
        settings = make_config(planner__discount=discount).planner
        if side.name == "torch":
            agent = SimpleNamespace(model=world, config=SimpleNamespace(planner=settings))
            got = side.agent.PlanetAgent.imagined_return(agent, start, steps, steps)
        else:
            got = side.agent.imagined_return(world, settings, start, steps, steps)
        assert_allclose(side.numpy(got), [-(1 + 2 * discount + 4 * discount**2)], rtol=1e-14)


# --------------------------------------------------------------------------------------------------------- exploration


@pytest.mark.parametrize("framework", SIDES)
def test_random_collection_draws_clipped_noise_and_tests_with_the_planner(framework):
    """clip(N(0, 1)): a third of all entries lies on the border (0.317); the planner's own actions hardly ever do."""
    agent = make_agent(framework, exploration__collect="noise", exploration__action_noise=1.0)
    count = 2000
    rows = {
        "image": np.zeros((count, 64, 64, 3), np.uint8),
        "is_first": np.ones(count, bool),
        "is_last": np.zeros(count, bool),
        "reward": np.zeros(count, np.float32),
    }
    action = agent.act(rows, agent.initial_carry(count), explore=True).action
    border = np.mean(np.abs(action) == 1)
    assert border == pytest.approx(0.3173, abs=5 * math.sqrt(0.3173 * 0.6827 / action.size))
    assert abs(action.mean()) < 5 / math.sqrt(action.size)
    few = {name: value[:50] for name, value in rows.items()}
    planned = agent.act(few, agent.initial_carry(50), explore=False).action
    assert np.mean(np.abs(planned) == 1) < 0.15 and planned.any()


# --------------------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"planner__method": "gradient", "planner__iterations": 0}, "at least 1 with method: gradient"),
        ({"loss__overshooting_reward_scale": 1.0}, r"overshooting_distance \(0\) must be at least 2"),
        ({"loss__overshooting_scale": 1.0, "loss__overshooting_mean": "valid"}, r"at least 1 .* 2 .. D \+ 1 steps"),
        ({"loss__alignment": "leaving", "batch__length": 31}, r"batch.length \(needs 32 rows\) exceeds"),
        ({"replay__pool": 5, "replay__recent": 6}, r"pool \(5\) must be at least recent \(6\)"),
        ({"loss__alignment": "both"}, "alignment"),
        ({"planner__discount": 1.5}, "discount"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_config(**changes)


# ----------------------------------------------------------------------------------------------------------- whole runs


def test_one_agent_for_all_tasks_trains_tests_each_and_resumes(tmp_path):
    """toy_reach and toy_terminal in turn; two test episodes of each; killed and started again, the same bits."""
    settings = {
        "environment__joint_tasks": ["toy_reach", "toy_terminal"],
        "schedule__evaluate_every_env_steps": 480,
        "replay__recent": 3,
        "replay__pool": 3,
        "replay__shuffle_chunks": 10,
        "replay__prefetch_chunks": 4,
        "loss__alignment": "leaving",
    }
    config = tiny.write_config(tmp_path / "config.yaml", **settings)
    done = tiny.train(config, tmp_path / "whole.h5", task="all_tasks")
    assert done.returncode == 0, done.stderr
    run = read_run(tmp_path / "whole.h5")
    tests = run.tables["eval/episode"]
    assert (tests.groupby("env_steps").size() == 4).all()
    reach = tests["episode"] < 2
    assert (tests.loc[reach, "length"] == 30).all(), "toy_reach always runs to its limit of 120 env steps at repeat 4"
    trained = run.tables["train/episode"]
    assert (trained.loc[trained["episode"] % 2 == 1, "length"] == 30).all(), "the first episode is toy_reach's"
    killed = tiny.train(config, tmp_path / "killed.h5", task="all_tasks", die="step:150")
    assert killed.returncode != 0 and not (tmp_path / "killed.h5").exists()
    done = tiny.train(config, tmp_path / "killed.h5", task="all_tasks")
    assert done.returncode == 0 and "continuing at" in done.stderr, done.stderr
    tiny.assert_same(tmp_path / "killed.h5", tmp_path / "whole.h5")


def test_a_simulator_variant_is_not_trained_and_a_model_variant_not_played(tmp_path, capsys):
    for variant, framework, words in (("simulator-x", "torch", "--framework numpy"), ("rssm", "numpy", "torch or jax")):
        config = {"paper": "planet", "variant": variant, "scale": "smoke", "overrides": [], "values": tiny.values()}
        write_resolved(tmp_path / "config.yaml", config)
        options = ["--config", str(tmp_path / "config.yaml"), "--task", "cartpole_swingup", "--seed", "0"]
        assert train.main([*options, "--framework", framework, "--out", str(tmp_path / "new" / "seed_0.h5")]) == 2
        said = capsys.readouterr().err
        assert variant in said and words in said
        assert not (tmp_path / "new").exists()
