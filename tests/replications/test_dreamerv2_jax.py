"""DreamerV2's agent in JAX: the behaviour of every agent, and what is JAX's own work.

Its numbers are held against torch's in test_dreamerv2_parity.py, against the authors' in
tests/golden/test_dreamerv2_model.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replications.dreamerv2 import agent_jax, model_jax
from replications.dreamerv2.config import Config
from shared.config import build, paper_folder, read_yaml
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.layers_jax import initialise, named_parameters
from shared.testing import agent_suite
from tests import tiny_dreamerv2

ACTIONS = 3


def make_config(variant="dreamerv2", **changes) -> Config:
    return build(Config, tiny_dreamerv2.values(variant, **changes), where="a test")


def make_agent(seed=0, variant="dreamerv2", **changes) -> agent_jax.DreamerV2Agent:
    discrete = variant != "control"
    obs_spec = {"image": ArraySpec((64, 64, 1 if discrete else 3), "uint8")}
    config, spec = make_config(variant, **changes), ActSpec(ACTIONS, discrete=discrete)
    return agent_jax.DreamerV2Agent(config, obs_spec, spec, seed=np.random.SeedSequence(seed))


def make_batch(seed=0, size=3, length=6, *, variant="dreamerv2"):
    random, discrete = np.random.default_rng(seed), variant != "control"
    flags = {name: np.zeros((size, length), bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_last"][1, -1] = flags["is_terminal"][1, -1] = True
    shape = (size, length + 1)
    if discrete:
        actions = np.eye(ACTIONS, dtype=np.float32)[random.integers(0, ACTIONS, shape)]
    else:
        actions = random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)
    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 1 if discrete else 3), np.uint8),
        "action": actions[:, 1:],
        "action_before": actions[:, 0],
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        **flags,
    }


@pytest.mark.parametrize("variant", ["dreamerv2", "control"])  # the others differ in nothing but losses
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(seed, variant), lambda seed: make_batch(seed, variant=variant))


def test_each_function_is_compiled_once():
    """Not again for moments or carries that no program has made, nor for what a checkpoint brings back: seconds each,
    and minutes for the networks of the paper."""
    agent_jax.learn_step.clear_cache()
    agent_jax.act_step.clear_cache()
    agent, rows = make_agent(), agent_suite.rows_of(make_batch(), 0, is_first=True)
    carry = agent.initial_carry(3)
    for _ in range(2):
        agent.learn(make_batch())
        carry = agent.act(rows, carry, explore=True).carry
    agent.load(agent.save())
    agent.learn(make_batch())
    agent.act(rows, {name: np.array(value) for name, value in carry.items()}, explore=True)
    assert agent_jax.learn_step._cache_size() == agent_jax.act_step._cache_size() == 1


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("variant", ["dreamerv2", "gaussian-latents"])
def test_the_fast_filter_equals_the_step_applied_in_turn(variant):
    """RSSM.observe moves work out of the scan; the state after every row must stay the same."""
    with jax.enable_x64(True):
        latent = model_jax.RSSM(make_config(variant, model__norm="layer").model, 5, ACTIONS)
        latent = jax.tree.map(lambda x: x.astype(jnp.float64), initialise(latent, jax.random.key(0)))
        random = np.random.default_rng(0)
        embed, action = (jnp.asarray(random.normal(size=(3, 6, size))) for size in (5, ACTIONS))
        noise = jnp.asarray(random.uniform(size=(3, 6, latent.sample_shape[0])))
        state = start = model_jax.initial_state(latent, 3)
        fast = jax.jit(lambda *rows: latent.observe(*rows))(embed, action, noise, start)
        posterior = jax.jit(lambda *row: latent.posterior(*row))
        for time in range(6):
            state, prior = posterior(state, action[:, time], embed[:, time], noise[:, time])
            for got, expected in zip(fast, (state, prior), strict=True):
                assert got.keys() == expected.keys()
                for name, value in expected.items():
                    np.testing.assert_allclose(got[name][:, time], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_sizes_are_those_of_the_authors_networks():
    """Counted in their code at the last commit: the same networks as the published agent's."""
    config = build(Config, read_yaml(paper_folder("dreamerv2") / "paper.yaml"), where="paper.yaml")
    obs_spec = {"image": ArraySpec((64, 64, 1), "uint8")}
    networks = jax.eval_shape(lambda: agent_jax.Networks.make(config, obs_spec, ActSpec(18, discrete=True)))
    model = networks.model
    parts = (model, model.encoder, model.latent, model.decoder, model.reward, model.discount)
    parts = (*parts, networks.actor, networks.critic)
    assert [sum(leaf.size for leaf in jax.tree.leaves(part)) for part in parts] == [
        19_975_379, 1_549_776, 5_664_848, 10_497_553, 1_131_601, 1_131_601, 1_138_418, 1_131_601,
    ]  # fmt: skip


def test_first_values_are_keras_own():
    """Glorot-uniform; location and scale of a continuous policy as from two matrices of 40 -> 3."""
    networks = make_agent(variant="control", model__dense_units=40).networks
    for layer, fans in ((networks.actor.out, 40 + 3), (networks.critic.out, 40 + 1)):
        limit = (6 / fans) ** 0.5
        assert 0.8 * limit < jnp.abs(layer.weight).max() <= limit and not layer.bias.any()
    norm = networks.model.latent.gru.norm
    assert (norm.weight == 1).all() and not norm.bias.any() and norm.epsilon == 1e-3


def test_the_target_critic_has_first_values_of_its_own():
    one, other = make_agent(0).networks, make_agent(1).networks
    assert not np.array_equal(one.critic.out.weight, one.target_critic.out.weight)
    assert not np.array_equal(one.critic.out.weight, other.critic.out.weight)


# ---------------------------------------------------------------------------------------------------------- learning


def test_the_target_critic_becomes_a_copy_with_the_first_update_then_every_third():
    agent, copied = make_agent(behaviour__target_every=3), []
    for update in range(5):
        agent.learn(make_batch(update))
        critic, target = (named_parameters(x) for x in (agent.networks.critic, agent.networks.target_critic))
        copied.append(all(np.array_equal(value, target[name]) for name, value in critic.items()))
    assert copied == [True, False, False, True, False]


def test_a_later_copy_may_be_partial():
    behaviour = make_config(behaviour__target_every=2, behaviour__target_fraction=0.25).behaviour
    assert [agent_jax.target_share(behaviour, updates) for updates in range(4)] == [1.0, 0.0, 0.25, 0.0]


def test_decay_takes_no_part_in_the_learning_rate():
    """Gradients of 0: what is left of a weight of 2 after one step is 2 (1 - 0.01), at any rate."""
    for rate in (1e-4, 1e-2):
        settings = make_config(optimisers__weight_decay=0.01, optimisers__actor__learning_rate=rate).optimisers
        part = {"weight": jnp.full((3,), 2.0)}
        moments = agent_jax.make_optimiser(settings, "actor").init(part)
        after, _, norm = agent_jax.step(settings, "actor", part, moments, {"weight": jnp.zeros(3)})
        np.testing.assert_allclose(after["weight"], 1.98, rtol=1e-6)
        assert norm == 0


@pytest.mark.parametrize(
    ("variant", "changes", "starts"),
    [
        ("dreamerv2", {}, 3 * 4),
        ("last-commit", {}, 3 * 5),
        ("control", {"behaviour__starts": "but_last"}, 3 * 5),
    ],
)
def test_imagination_has_noise_for_every_start(variant, changes, starts):
    """Of 3 * 5 rows; not the last of a chunk where the settings say so and episodes can end."""
    agent = make_agent(variant=variant, **changes)
    noise = agent_jax.learning_noise(agent.settings, agent.networks, jax.random.key(0), 3, 5)
    assert noise["noise"].shape == (3, 5, 3) and noise["imagined_noise"].shape == (4, starts, 3)
    assert noise["action_noise"].shape == ((4, starts, ACTIONS) if variant == "control" else (4, starts))
    assert all(x.min() >= 0 and x.max() < 1 for x in noise.values())


# ------------------------------------------------------------------------------------------------ acting and the rest


def test_random_data_is_uniform_and_evaluation_is_not():
    agent = make_agent(variant="random-data")
    rows = agent_suite.rows_of(make_batch(size=2), 0, is_first=True)
    _, drawn = agent_jax.random_step(agent.networks.actor, jax.random.key(0), 3000)
    assert set(np.asarray(drawn.sum(-1))) == {1.0} and np.abs(drawn.mean(0) - 1 / ACTIONS).max() < 0.05
    actor = make_agent(variant="control").networks.actor
    _, box = agent_jax.random_step(actor, jax.random.key(0), 3000)
    assert -1 <= box.min() < -0.99 and 0.99 < box.max() < 1 and jnp.abs(box.mean()) < 0.03
    parameters = agent.parameters()
    parameters["actor.out.bias"][1] = 50.0
    agent.load_parameters(parameters)
    few, carry = {name: value[:2] for name, value in rows.items()}, agent.initial_carry(2)
    assert (agent.act(few, carry, explore=False).action.argmax(-1) == 1).all()
    explored = [agent.act(few, carry, explore=True).action.argmax(-1) for _ in range(20)]
    assert len(np.unique(explored)) == ACTIONS


def test_a_state_from_another_kind_of_device_is_refused():
    agent = make_agent()
    with pytest.raises(UserError, match="it was made on cuda and this run is on cpu"):
        agent.load({**agent.save(), "device": "cuda"})
