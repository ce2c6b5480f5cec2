"""Dreamer's agent in JAX: the behaviour of every agent, and what is JAX's own work.

Its numbers are held against torch's in test_dreamer_parity.py, against the authors' in
tests/golden/test_dreamer_model.py.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replications.dreamer import agent_jax, model_jax
from replications.dreamer.config import Config
from shared.config import build
from shared.envs.spec import ActSpec
from shared.errors import UserError
from shared.layers_jax import initialise, named_parameters
from shared.testing import agent_suite
from tests import tiny_dreamer

ACTIONS = 3
DISCRETE = ("atari", "atari-straight")


def make_config(variant="dreamer", **changes) -> Config:
    return build(Config, tiny_dreamer.values(variant, **changes), where="a test")


def make_spec(variant="dreamer") -> ActSpec:
    return ActSpec(ACTIONS, discrete=variant in DISCRETE)


def make_agent(seed=0, variant="dreamer", **changes) -> agent_jax.DreamerAgent:
    config = make_config(variant, **changes)
    return agent_jax.DreamerAgent(config, {}, make_spec(variant), seed=np.random.SeedSequence(seed))


def make_networks(variant="dreamer", **changes) -> agent_jax.Networks:
    """With random first values."""
    return initialise(agent_jax.Networks.make(make_config(variant, **changes), make_spec(variant)), jax.random.key(0))


def make_batch(seed=0, size=3, length=6, *, variant="dreamer"):
    random = np.random.default_rng(seed)
    flags = {name: np.zeros((size, length), bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_last"][1, -1] = flags["is_terminal"][1, -1] = True
    shape = (size, length + 1)
    if variant in DISCRETE:
        actions = np.eye(ACTIONS, dtype=np.float32)[random.integers(0, ACTIONS, shape)]
    else:
        actions = random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)
    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 3), np.uint8),
        "action": actions[:, 1:],
        "action_before": actions[:, 0],
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        **flags,
    }


@pytest.mark.parametrize("variant", ["dreamer", "tf2", "atari", "planet"])  # they act in four ways
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(seed, variant), lambda seed: make_batch(seed, variant=variant))


@pytest.mark.parametrize("variant", ["reward-only", "no-value"])
@pytest.mark.parametrize(
    "check",
    [agent_suite.learning_lowers_the_loss, agent_suite.save_load_continue_equals_continue],
    ids=lambda check: check.__name__,
)
def test_agents_with_other_optimisers_learn_and_continue(check, variant):
    """Four optimisers where the decoder has its own (contrastive has the same four), two without a value."""
    check(lambda seed: make_agent(seed, variant), lambda seed: make_batch(seed, variant=variant))


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("gru", ["block", "keras"])
def test_the_fast_filter_equals_the_step_applied_in_turn(gru):
    """RSSM.observe moves work out of the scan; the state after every row must stay the same."""
    config = make_config(model__gru=gru).model
    with jax.enable_x64(True):
        latent = initialise(model_jax.RSSM(config, 5, ACTIONS), jax.random.key(0))
        random = np.random.default_rng(0)
        embed, action, noise = (jnp.asarray(random.normal(size=(3, 6, size))) for size in (5, ACTIONS, 4))
        state = start = model_jax.initial_state(latent, 3)
        fast = latent.observe(embed, action, noise, start)
        for time in range(6):
            state, prior = latent.posterior(state, action[:, time], embed[:, time], noise[:, time])
            for got, expected in zip(fast, (state, prior), strict=True):
                for name, value in expected.items():
                    np.testing.assert_allclose(got[name][:, time], value, rtol=1e-12, atol=1e-12, err_msg=name)


def largest(layer) -> float:
    return float(jnp.abs(layer.weight).max())


@pytest.mark.parametrize(("variant", "joint"), [("dreamer", False), ("tf2", True)])
def test_heads_start_as_one_matrix_or_as_two(variant, joint):
    """Glorot's limit is sqrt(6 / (in + out)): of 8 -> 4 and 8 -> 4, or of 8 -> 8; of 8 -> 3 twice, or of 8 -> 6."""
    networks = make_networks(variant)
    for layer, size in ((networks.model.latent.prior_head.linear, 4), (networks.actor.out, ACTIONS)):
        limit = np.sqrt(6 / (8 + size * (2 if joint else 1)))
        assert 0.9 * limit < largest(layer) <= limit and not layer.bias.any()


def test_the_two_grus_start_as_tensorflows():
    block, keras = (make_networks(variant).model.latent.gru for variant in ("dreamer", "tf2"))
    assert (block.gates.bias == 1).all() and not block.candidate.bias.any()
    limit = np.sqrt(6 / (8 + 8 + 16))  # over the joint matrix [x, h] -> [r, u]
    assert 0.9 * limit < largest(block.gates) <= limit
    assert not keras.inputs.bias.any() and not keras.recurrent.bias.any()
    recurrent = np.asarray(keras.recurrent.weight)  # (24, 8)
    np.testing.assert_allclose(recurrent.T @ recurrent, np.eye(8), atol=1e-6)


def test_networks_differ_by_seed_and_by_layer():
    one, other = (make_agent(seed).parameters() for seed in (0, 1))
    alike = [name for name in one if name.endswith("weight") and np.array_equal(one[name], other[name])]
    assert alike == []
    first, second = (one[f"actor.hidden.layers.{i}.weight"].ravel()[:8] for i in (0, 1))
    assert not np.array_equal(first, second)


# ------------------------------------------------------------------------------------------------------------ acting


def test_epsilon_replaces_so_many_actions_by_uniform_ones():
    """0.4 of 30,000 copies of class 0 are drawn anew, a third of them as class 0: 0.6 + 0.4 / 3 stay."""
    action = jnp.asarray(np.eye(ACTIONS, dtype=np.float32)[np.zeros(30_000, int)])
    kept = agent_jax.randomised(action, 0.0, jax.random.key(0))
    np.testing.assert_array_equal(kept, action)
    drawn = np.asarray(agent_jax.randomised(action, 0.4, jax.random.key(0)))
    assert (drawn.sum(-1) == 1).all()
    np.testing.assert_allclose(drawn.mean(0), [0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3], atol=0.01)


def test_epsilon_falls_with_updates_and_is_small_in_evaluation(monkeypatch):
    """0.4 at first, 0.25 half way through 150,000 updates, then 0.1; 0.001 in evaluation."""
    agent, seen = make_agent(variant="atari"), []
    act_step = agent_jax.act_step
    monkeypatch.setattr(agent_jax, "act_step", lambda *args, **words: seen.append(args[5]) or act_step(*args, **words))
    rows, carry = agent_suite.rows_of(make_batch(variant="atari"), 0, is_first=True), agent.initial_carry(3)
    for updates in (0, 75_000, 150_000, 200_000):
        agent.updates = updates
        agent.act(rows, carry, explore=True)
    agent.act(rows, carry, explore=False)
    assert seen == pytest.approx([0.4, 0.25, 0.1, 0.1, 0.001])


def test_the_belief_is_filtered_with_the_executed_action():
    """The carried action is the noisy, clipped one that the environment received."""
    agent = make_agent(exploration__action_noise=5.0)
    acted = agent.act(agent_suite.rows_of(make_batch(), 0, is_first=True), agent.initial_carry(3), explore=True)
    np.testing.assert_array_equal(acted.carry["action"], acted.action)
    assert (np.abs(acted.action) == 1).any()


def test_the_planner_refuses_discrete_actions():
    with pytest.raises(UserError, match="learner planner searches continuous actions"):
        agent_jax.DreamerAgent(make_config("planet"), {}, ActSpec(3, discrete=True), seed=np.random.SeedSequence(0))


# ----------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(("variant", "shared"), [("dreamer", False), ("tf2", True)])
def test_latent_noise_is_each_rows_own_or_the_batchs(variant, shared):
    settings, actor = make_agent(variant=variant).settings, make_networks(variant).actor
    noise = agent_jax.learning_noise(settings, actor, jax.random.key(0), 3, 5)
    horizon = settings.behaviour.horizon
    assert noise["noise"].shape == (3, 5, 4) and noise["latent_noise"].shape == (horizon, 15, 4)
    assert bool((noise["noise"][0] == noise["noise"][1]).all()) == shared
    assert bool((noise["latent_noise"][:, 0] == noise["latent_noise"][:, 1]).all()) == shared
    assert noise["action_noise"].shape == (horizon, 15, ACTIONS)
    assert not (noise["action_noise"][:, 0] == noise["action_noise"][:, 1]).any(), "the actor's noise is never shared"
    assert not (noise["latent_noise"][0] == noise["latent_noise"][1]).any(), "one draw for all steps"


def test_imagination_skips_the_last_row_where_episodes_end():
    """Noise for 3 * 4 starts of 3 * 5 rows, uniform for a discrete action."""
    settings, actor = make_agent(variant="atari").settings, make_networks("atari").actor
    noise = agent_jax.learning_noise(settings, actor, jax.random.key(0), 3, 5)
    assert noise["latent_noise"].shape[1] == noise["action_noise"].shape[1] == 12
    assert noise["action_noise"].ndim == 2 and noise["action_noise"].min() >= 0


@pytest.mark.parametrize(
    ("variant", "groups"),
    [
        ("dreamer", ["model", "actor", "value"]),
        ("planet", ["model"]),
        ("no-value", ["model", "actor"]),
        ("reward-only", ["model", "actor", "value", "decoder"]),
    ],
)
def test_every_parameter_belongs_to_one_optimiser(variant, groups):
    networks, loss = make_networks(variant), make_config(variant).loss
    parts = agent_jax.grouped(loss, networks)
    assert list(parts) == groups
    sizes = [leaf.size for part in parts.values() for leaf in jax.tree.leaves(eqx.filter(part, eqx.is_array))]
    assert sum(sizes) == sum(value.size for value in named_parameters(networks).values())
    joined = agent_jax.ungrouped(parts)
    assert jax.tree.structure(joined) == jax.tree.structure(networks)
    for name, value in named_parameters(networks).items():
        np.testing.assert_array_equal(named_parameters(joined)[name], value, err_msg=name)


def test_a_group_is_clipped_by_its_own_norm():
    """All gradients 3: the first Adam step is lr * sqrt(1 - b2) / (1 - b1) * m / (sqrt(v) + eps), by hand, with the
    clipped gradient g = clip * 3 / norm of its group; the groups have 1e-3, 1e-4 and 1e-5 to be clipped to."""
    clips = {"model": 1e-3, "actor": 1e-4, "value": 1e-5}
    changes = {f"optimisers__{name}__clip_norm": clip for name, clip in clips.items()}
    settings, networks = make_agent(**changes).settings, make_networks()
    grads = jax.tree.map(lambda x: jnp.full_like(x, 3.0), networks)
    moments = agent_jax.first_moments(settings, networks)
    after, _, norms = jax.jit(agent_jax.update, static_argnums=0)(settings, networks, moments, grads)
    for name, clip in clips.items():
        before, now = (named_parameters(getattr(tree, name)) for tree in (networks, after))
        norm = 3 * np.sqrt(sum(value.size for value in before.values()))
        assert float(norms[f"{name}_grad_norm"]) == pytest.approx(norm, rel=1e-5)
        g, rate = clip * 3 / norm, getattr(settings.optimisers, name).learning_rate
        m, v = 0.1 * g, 0.001 * g**2
        step = rate * np.sqrt(0.001) / 0.1 * m / (np.sqrt(v) + 1e-4)
        for key in before:
            moved = np.asarray(before[key], np.float64) - np.asarray(now[key], np.float64)
            np.testing.assert_allclose(moved, step, atol=1.5e-7 * max(1, np.abs(before[key]).max()), err_msg=key)


@pytest.mark.parametrize("variant", ["dreamer", "tf2"])
def test_images_are_dequantised_or_divided(variant):
    image = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    got = agent_jax.preprocessed(make_config(variant).model, image, jax.random.key(0))
    again = agent_jax.preprocessed(make_config(variant).model, image, jax.random.key(1))
    assert got.dtype == jnp.float32
    if variant == "tf2":
        np.testing.assert_allclose(got, np.asarray(image) / 255 - 0.5, atol=1e-7)
    else:
        level = np.asarray(image, np.float32) / 256 - 0.5
        assert (got >= level).all() and (got < level + 1 / 256).all()
        assert not np.array_equal(got, again), "the noise is drawn anew each time"


def test_a_checkpoint_of_another_device_is_refused():
    agent = make_agent()
    with pytest.raises(UserError, match="--device cuda"):
        agent.load({**agent.save(), "device": "cuda"})


def test_loading_parameters_keeps_optimisers_and_noise():
    agent, other = make_agent(0), make_agent(1)
    agent.learn(make_batch())
    before = agent.save()
    agent.load_parameters(other.parameters())
    after = agent.save()
    for name, value in other.parameters().items():
        np.testing.assert_array_equal(after["parameters"][name], value, err_msg=name)
    np.testing.assert_array_equal(after["generator"], before["generator"])
    for one, two in zip(after["optimiser"], before["optimiser"], strict=True):
        np.testing.assert_array_equal(one, two)
