"""DreamerV3's agent in JAX: the behaviour of every agent, and what is JAX's own work.

Its numbers are held against torch's in test_dreamerv3_parity.py, against the authors' in
tests/golden/test_dreamerv3_model.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from replications.dreamerv3 import agent_jax, layers_jax, model_jax, optimisers_jax
from replications.dreamerv3.config import FLAGS, Config
from replications.dreamerv3.figures_settings import PARAMETERS
from shared.config import resolve
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.formulas.optimisers import adaptive_clip, laprop
from shared.layers_jax import named_parameters
from shared.testing import agent_suite
from tests.compilation import QUICK
from tests.replications.test_dreamerv3 import (
    ACTIONS,
    CHECKS,
    GAMES,
    IMAGE,
    check_mixed_gradients,
    extreme,
    make_batch,
    make_config,
    shaken,
    spec_of,
)


def make_agent(variant="dreamerv3", seed=0, **changes) -> agent_jax.DreamerV3Agent:
    config, spec = make_config(variant, **changes), ActSpec(ACTIONS, discrete=variant in GAMES)
    return agent_jax.DreamerV3Agent(config, spec_of(variant), spec, seed=np.random.SeedSequence(seed))


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023", "atari"])  # the others differ in networks and losses
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(variant, seed), lambda seed: make_batch(variant, seed))


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_each_function_is_compiled_once(variant):
    """Not again for moments or carries that no program has made, nor for what a checkpoint brings back."""
    agent_jax.learn_step.clear_cache()
    agent_jax.act_step.clear_cache()
    agent, rows = make_agent(variant), agent_suite.rows_of(make_batch(variant), 0, is_first=True)
    carry = agent.initial_carry(3)
    for _ in range(2):
        agent.learn(make_batch(variant))
        carry = agent.act(rows, carry, explore=True).carry
    agent.load(agent.save())
    agent.learn(make_batch(variant))
    agent.act(rows, {name: np.array(value) for name, value in carry.items()}, explore=True)
    assert agent_jax.learn_step._cache_size() == agent_jax.act_step._cache_size() == 1


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_the_fast_filter_equals_the_step_applied_in_turn(variant):
    """RSSM.observe moves work out of the scan; the state after every row stays the same, across an episode's end."""
    with jax.enable_x64(True):
        latent, random = make_agent(variant).networks.model.latent, np.random.default_rng(0)
        embed = latent.posterior_hidden.layers[0].linear.weight.shape[1] - 16
        tokens, action = (jnp.asarray(random.normal(size=(3, 6, size))) for size in (embed, ACTIONS))
        noise, first = jnp.asarray(random.uniform(size=(3, 6, 3))), np.zeros((3, 6), bool)
        first[1, 3] = True
        state = {"deter": jnp.asarray(random.normal(size=(3, 16))), "stoch": jnp.eye(4)[np.array([[0, 1, 3]] * 3)]}
        fast, fast_prior = jax.jit(lambda *rows: latent.observe(*rows))(tokens, action, first, noise, state)
        step = jax.jit(lambda state, first, *row: latent.posterior(latent.restarted(state, first), *row))
        for t in range(6):
            state, prior = step(state, first[:, t], action[:, t], tokens[:, t], noise[:, t])
            for quick, slow in ((fast, state), (fast_prior, prior)):
                assert quick.keys() == slow.keys()
                for name, value in slow.items():
                    np.testing.assert_allclose(quick[name][:, t], value, rtol=1e-10, atol=1e-12, err_msg=name)


def count(variant, size, obs_spec, act_spec):
    """Trainable parameters; nothing is computed."""
    values = resolve("dreamerv3", variant, {"name": "paper"})["values"]
    values["model"]["size"] = size
    config = Config.model_validate(values)

    def learners():
        model = model_jax.WorldModel(config.model, config.size, obs_spec, act_spec.size)
        settings = (config.model, config.size, model.latent.feature_size)
        return model, model_jax.Actor(*settings, act_spec), model_jax.Critic(*settings)

    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(learners)))


def test_sizes_are_those_of_the_authors_networks():
    screen = {"image": ArraySpec((96, 96, 1), "uint8")}
    for size, (small, large) in PARAMETERS.items():
        assert count("vision", size, IMAGE, ActSpec(6, discrete=True)) == small, size
        if large:
            assert count("atari", size, screen, ActSpec(18, discrete=True)) == large, size
    walker = {key: ArraySpec(shape, "float32") for key, shape in {"height": (), "o": (14,), "velocity": (9,)}.items()}
    assert count("dreamerv3", "1m", walker, ActSpec(6)) == 640_867
    assert count("proprio-2024", "12m", walker, ActSpec(6)) == 9_738_533
    assert count("vision-2024", "12m", IMAGE, ActSpec(6)) == 10_517_936


def test_first_values():
    """Truncated normal of the inputs' number; heads of numbers predict exactly 0, the policy is nearly uniform."""
    networks = make_agent(**{"sizes__12m__units": 64, "sizes__12m__deter_size": 128}).networks
    gru = networks.model.latent.gru
    weight = np.asarray(gru.deter_in.linear.weight)
    assert np.abs(weight).max() <= 2 / (128**0.5 * 0.8796) and weight.std() == pytest.approx(128**-0.5, rel=0.05)
    expected = (128 + 4 * 192) ** -0.5  # 128 of the state and 4 blocks of 3 * 64
    assert np.asarray(gru.hidden[0].weight).std() == pytest.approx(expected, rel=0.05)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(5, networks.model.latent.feature_size)), jnp.float32)
    for head in (networks.model.reward, networks.critic, networks.slow_critic):
        assert not head.scalar.mean(head(features)).any()
    mean, std = networks.actor(features)
    assert jnp.abs(mean).max() < 0.05 and jnp.abs(std - 0.893).max() < 0.02
    assert not any(x.any() for name, x in named_parameters(networks).items() if name.endswith("bias"))
    old = make_agent("proprio-2023", **{"sizes__s2023__units": 64}).networks.model.latent.prior_head.weight
    assert np.asarray(old).std() == pytest.approx((2 / (64 + 12)) ** 0.5, rel=0.1)


def test_pooling_takes_the_largest_of_four():
    x = jnp.arange(32.0).reshape(1, 4, 4, 2)
    assert layers_jax.pooled(x)[0, :, :, 0].tolist() == [[10, 14], [26, 30]]


# ---------------------------------------------------------------------------------------------------------- learning


def test_rows_hold_every_tensor_and_give_it_back():
    tree = {"a": jnp.arange(300.0).reshape(3, 100), "b": (jnp.float32(7), jnp.arange(256.0)), "c": jnp.zeros((0, 2))}
    rows = optimisers_jax.in_rows(tree)
    assert rows.shape == (2 + 1 + 1, 256) and rows.sum() == 300 * 299 / 2 + 7 + 256 * 255 / 2
    back = optimisers_jax.from_rows(rows, tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_laprop_on_rows_equals_the_formula_for_every_tensor():
    """With adaptive clipping and warm-up, several steps, tensors of several shapes, one without a gradient at first."""
    settings = make_config(optimisers__laprop__warmup_updates=2).optimisers.laprop
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        start = {"a": random.normal(size=(40, 30)), "b": random.normal(size=5), "c": 1e-5 * random.normal(size=(2, 2))}
        expected = {name: (value, np.zeros_like(value), np.zeros_like(value)) for name, value in start.items()}
        parameters = jax.tree.map(jnp.asarray, start)
        moments = optimisers_jax.laprop_moments(parameters)
        for updates in range(4):
            slopes = {name: 10.0**i * random.normal(size=x.shape) for i, (name, x) in enumerate(start.items())}
            slopes["b"] *= updates > 0
            parameters, moments, norm = optimisers_jax.laprop_step(settings, parameters, slopes, moments, updates)
            for name, (value, m, v) in expected.items():
                clipped = adaptive_clip(value, slopes[name], settings.adaptive_clip, settings.least_norm)
                rate = settings.learning_rate * min(updates / 2, 1)
                numbers = (updates + 1, rate, settings.beta1, settings.beta2, settings.epsilon)
                expected[name] = laprop(value, clipped, m, v, *numbers)
                np.testing.assert_allclose(parameters[name], expected[name][0], rtol=1e-11, atol=1e-13, err_msg=name)
            whole = np.concatenate([x.ravel() for x in slopes.values()])
            assert float(norm) == pytest.approx(np.linalg.norm(whole), rel=1e-12)
        np.testing.assert_allclose(
            optimisers_jax.from_rows(moments["m"], parameters)["c"], expected["c"][1], rtol=1e-10, atol=1e-300
        )


def test_the_slow_critic_follows_by_a_fiftieth_and_in_2023_becomes_a_copy_first():
    joint, sequential = (agent_jax.Settings.of(make_config(name), "cpu") for name in ("dreamerv3", "proprio-2023"))
    assert [agent_jax.slow_share(joint, updates) for updates in range(2)] == [0.02, 0.02]
    assert [float(agent_jax.slow_share(sequential, updates)) for updates in range(2)] == [1.0, pytest.approx(0.02)]
    agent = make_agent(optimisers__laprop__learning_rate=0.1)
    before = named_parameters(jax.tree.map(np.array, agent.networks.slow_critic))
    agent.learn(make_batch())
    fast = named_parameters(agent.networks.critic)
    for name, slow in named_parameters(agent.networks.slow_critic).items():
        np.testing.assert_allclose(slow, 0.02 * fast[name] + 0.98 * before[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_the_first_update_moves_nothing_and_the_second_a_thousandth():
    agent = make_agent(optimisers__laprop__warmup_updates=1000)
    before = agent.parameters()
    agent.learn(make_batch())
    for name, value in agent.parameters().items():
        rounding = 1e-7 if name.startswith("slow_critic.") else 0  # 0.98 x + 0.02 x
        np.testing.assert_allclose(value, before[name], rtol=rounding, atol=rounding, err_msg=name)
    agent.learn(make_batch())
    moved = max(float(np.abs(value - before[name]).max()) for name, value in agent.parameters().items())
    assert 0 < moved < 2 * 3e-3 / 1000


def test_an_entropy_scale_follows_its_target_and_is_restored():
    """Its rule is held against torch's in the parity test; here every update starts from what the one before left."""
    agent, found = make_agent("entropy-target", behaviour__entropy_target__share=0.98), []
    assert float(agent.normaliser["entropy_scale"]) == pytest.approx(3e-4)
    for _ in range(2):
        found.append(agent.learn(make_batch()).metrics)
    scales = [3e-4, *(float(metrics["entropy_scale"]) for metrics in found)]
    assert scales == sorted(set(scales)), "it grows"
    twin = make_agent("entropy-target", seed=5, behaviour__entropy_target__share=0.98)
    twin.load(agent.save())
    ours, theirs = (one.learn(make_batch(seed=3)).metrics for one in (agent, twin))
    assert {name: float(value) for name, value in ours.items()} == {name: float(x) for name, x in theirs.items()}


@pytest.mark.parametrize(
    ("variant", "changes", "starts"),
    [("dreamerv3", {}, 15), ("dreamerv3", {"behaviour__imagine_last": 2}, 6), ("atari", {}, 15)],
)
def test_noise_is_what_its_readers_take(variant, changes, starts):
    """Of windows of 3 * 5 rows: uniform for latents and discrete actions, standard normal for others."""
    agent = make_agent(variant, **changes)
    noise = agent_jax.learning_noise(agent.settings, agent.networks.actor, jax.random.key(0), 3, 5)
    assert noise["noise"].shape == (3, 5, 3) and noise["imagined_noise"].shape == (4, starts, 3)
    assert noise["action_noise"].shape == ((4, starts) if variant == "atari" else (4, starts, ACTIONS))
    for name, x in noise.items():
        assert name == "action_noise" and variant != "atari" or (x.min() >= 0 and x.max() < 1)
    drawn = agent_jax.normal(jax.random.uniform(jax.random.key(0), (100_000,)))
    assert abs(drawn.mean()) < 0.01 and drawn.std() == pytest.approx(1, abs=0.01) and 3.5 < drawn.max() < 6
    assert np.isfinite(agent_jax.normal(jnp.asarray([0.0, 1 - 2.0**-24]))).all()


def test_the_memo_is_the_state_that_the_next_row_starts_from():
    agent, batch = make_agent(), make_batch()
    acted = agent.act(agent_suite.rows_of(batch, 0, is_first=True), agent.initial_carry(3), explore=True)
    state = agent_jax.start(agent.settings, agent.networks.model, jax.tree.map(jnp.asarray, acted.memo), 3)
    for name, value in state.items():
        np.testing.assert_array_equal(value, acted.carry[name], err_msg=name)


def test_a_window_of_2023_starts_as_an_episode_does():
    batch = make_batch("proprio-2023")
    first = {**batch, "is_first": batch["is_first"].copy()}
    first["is_first"][:, 0] = True
    losses = [float(make_agent("proprio-2023").learn(rows).metrics["loss"]) for rows in (batch, first)]
    assert losses[0] == losses[1]
    assert make_agent("proprio-2023").learn(batch).memo == {}


@pytest.mark.parametrize("variant", ["dreamerv3", "vision-2024", "proprio-2023"])
def test_mixed_precision_changes_matrix_products_alone(variant):
    """As on a GPU, but on a CPU: losses within one part in fifty of float32's; parameters and memos stay float32."""
    exact = make_agent(variant).learn(make_batch(variant)).metrics
    agent = make_agent(variant)
    agent.settings = agent.settings._replace(mixed=True)
    learned = agent.learn(make_batch(variant))
    rows = agent_suite.rows_of(make_batch(variant), 0, is_first=True)
    acted = agent.act(rows, agent.initial_carry(3), explore=True)
    assert float(learned.metrics["loss"]) == pytest.approx(float(exact["loss"]), rel=0.02)
    assert float(learned.metrics["loss"]) != float(exact["loss"])
    assert {str(x.dtype) for x in agent.parameters().values()} == {"float32"}
    assert acted.action.dtype == np.float32 and all(x.dtype == np.float32 for x in acted.carry.values())
    for memo in (learned.memo, acted.memo):
        assert {name: str(x.dtype) for name, x in memo.items()} == {
            name: s.dtype for name, s in agent.memo_spec.items()
        }


def gradients_of(agent, batch):
    """Of one update, by parameter, before the optimiser sees them; with draws that rounding cannot change."""
    own, draw = agent_jax.step, agent_jax.learning_noise

    def recorded(settings, learners, grads, moments, updates):
        slopes.update({f"{name}.{key}": x for name in grads for key, x in named_parameters(grads[name]).items()})
        return own(settings, learners, grads, moments, updates)

    def learn(networks, moments, normaliser, key, rows, stored):
        agent_jax.learn_step.__wrapped__(agent.settings, networks, moments, normaliser, key, rows, stored, 0)
        return slopes

    slopes, state = {}, (agent.networks, agent.moments, agent.normaliser, agent.key)
    stored = {name: batch[name][:, 0] for name in agent.memo_spec}
    rows = {name: batch[name] for name in (*agent.obs_spec, "action", "reward", *FLAGS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_jax, "step", recorded)
        patch.setattr(
            agent_jax, "learning_noise", lambda *inputs: extreme(draw(*inputs), agent.networks.actor.discrete)
        )
        return jax.device_get(jax.jit(learn, compiler_options=QUICK)(*state, rows, stored))


@pytest.mark.parametrize("variant", ["dreamerv3", "atari"])
def test_mixed_precision_has_the_gradients_of_float32(variant):
    """Of model, actor and critic: see the same test of torch."""
    found = []
    for mixed in (True, False):
        agent = make_agent(variant, loss__free_nats=0.02)
        agent.load_parameters(shaken(agent.parameters()))
        agent.settings = agent.settings._replace(mixed=mixed)
        found.append(gradients_of(agent, make_batch(variant)))
    check_mixed_gradients(*found, variant)


def test_the_gradient_of_a_bias_counts_every_row_in_mixed_precision():
    """16384 ones, exactly; a sum in bfloat16 stands still long before that."""
    layers = {
        "linear": (layers_jax.Linear(2, 3), (16_384, 2)),
        "blocks": (layers_jax.BlockLinear(2, 4, 2), (16_384, 2)),
        "convolution": (layers_jax.Conv(1, 3, 5), (4, 64, 64, 1)),
        "doubled": (layers_jax.Conv(1, 3, 5), (4, 32, 32, 1)),
    }
    for name, (layer, shape) in layers.items():
        mixed = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, layer)

        def total(layer, name=name, shape=shape):
            y = (layer.of_doubled if name == "doubled" else layer)(jnp.ones(shape))
            assert y.dtype == jnp.bfloat16
            return y.astype(jnp.float32).sum()

        assert jax.grad(total)(mixed).bias.tolist() == [16_384.0] * len(layer.bias), name


def test_precision_is_mixed_on_a_gpu_alone():
    config = make_config()
    assert agent_jax.Settings.of(config, "cuda").mixed and not agent_jax.Settings.of(config, "cpu").mixed
    assert not agent_jax.Settings.of(make_config(precision="float32"), "cuda").mixed


# ------------------------------------------------------------------------------------------------ acting and the rest


def test_actions_are_drawn_whether_the_agent_explores_or_not():
    batch = make_batch()
    actions = [agent_suite.act_sequence(make_agent(), batch, 2, explore=explore) for explore in (True, False)]
    np.testing.assert_array_equal(*actions)
    assert np.abs(actions[0]).max() == 1  # and cut: nine draws of a deviation of 0.9


def test_an_agent_of_vectors_has_no_pictures():
    with pytest.raises(UserError, match="sees vectors, of which there are no pictures"):
        make_agent().predict(make_batch(), context=2)


def test_a_state_from_another_kind_of_device_is_refused():
    agent = make_agent()
    with pytest.raises(UserError, match="it was made on cuda and this run is on cpu"):
        agent.load({**agent.save(), "device": "cuda"})
