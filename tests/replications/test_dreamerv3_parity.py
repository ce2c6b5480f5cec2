"""DreamerV3 in torch and in JAX: same parameters, same batch, same noise, same numbers.

float64: 1e-9 relative to each tensor's largest entry, after the first and the last of a few or a hundred updates of
world model, actor, critic and slow critic, for every variant of experiments.yaml that learns by other code than those
before it. float32: stated at the test.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from replications.dreamerv3 import agent_jax, agent_torch, objectives_jax, objectives_torch
from replications.dreamerv3.config import FLAGS, LEARNERS, Config
from shared.config import ROOT, build, read_variants
from shared.envs.spec import ActSpec, ArraySpec
from shared.layers_jax import named_parameters
from shared.testing import agent_parity
from shared.testing.parity import assert_same
from shared.training.loop import to_numpy
from tests import tiny_dreamerv3
from tests.compilation import QUICK, STEADY
from tests.replications.test_planet_parity import public_names

ACTIONS, BATCH, LENGTH, SIDE = 3, 2, 3, 32
LEARNING = ("model", "loss", "behaviour", "optimisers")  # the groups of the config that an update depends on
FLOAT64 = 1e-9
NAMES = ("torch", "jax")
MODULES = {"torch": agent_torch, "jax": agent_jax}
OBJECTIVES = {"torch": objectives_torch, "jax": objectives_jax}
# Smaller yet than tests/tiny_dreamerv3.py, and fewer free nats than the KL of such small networks has.
TINY = {
    "loss__free_nats": 0.02, "model__bins": 15, "model__vector_layers": 1, "model__reward_layers": 1,
    "model__continuation_layers": 1, "behaviour__horizon": 3,
}  # fmt: skip


def learning_variants():
    """Every variant of experiments.yaml, made tiny, that learns by other code than those before it."""
    found = {}
    for variant in read_variants("dreamerv3"):
        values = tiny_dreamerv3.values(variant)
        code = [words(values[group]) for group in LEARNING]
        code += [values["environment"]["observations"], values["batch"]["context"], is_game(variant)]
        if code not in found.values():
            found[variant] = code
    return tuple(found)


def words(tree):
    """A group of settings: of its fractions only whether they are 0, and not the size, which is tiny anyway."""
    if isinstance(tree, dict):
        return {key: words(value) for key, value in tree.items() if key != "size"}
    return bool(tree) if isinstance(tree, float) else tree


def is_game(variant):
    return variant.startswith("atari")


def sees_images(variant):
    return variant.startswith(("vision", "atari"))


LONG = {"dreamerv3", "proprio-2023", "discrete", "vision"}  # a hundred updates; the others four or five
EXTRA = {  # what no variant of experiments.yaml has: name -> (variant it starts from, changes)
    "discrete": ("proprio-2024", {}),  # and discrete actions
    "last-rows": ("dreamerv3", {"behaviour__imagine_last": 2, "model__dynamics_layers": 2}),
    "warm-up": ("dreamerv3", {"optimisers__laprop__warmup_updates": 3}),
    "clips": ("proprio-2023", {f"optimisers__adam__{name}__clip_norm": 1e-3 for name in LEARNERS}),
}


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are tiny: a second thread only waits, and where the machine is busy it waits for long."""
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


def make_config(variant) -> Config:
    base, changes = EXTRA.get(variant, (variant, {}))
    nats = {"loss__free_nats": 0.0} if base == "no-free-bits" else {}
    return build(Config, tiny_dreamerv3.values(base, **TINY | nats | changes), where="a test")


def make_specs(variant) -> tuple[dict[str, ArraySpec], ActSpec]:
    base = EXTRA.get(variant, (variant,))[0]
    image = {"image": ArraySpec((SIDE, SIDE, 1 if is_game(base) else 3), "uint8")}
    vectors = {"height": ArraySpec((), "float32"), "velocity": ArraySpec((4,), "float32")}
    discrete = is_game(base) or variant == "discrete"
    return image if sees_images(base) else vectors, ActSpec(ACTIONS, discrete=discrete)


def make_agent(module, variant, seed=0):
    return module.DreamerV3Agent(make_config(variant), *make_specs(variant), seed=np.random.SeedSequence(seed))


def make_agents(variant):
    """{framework: agent}, of different seeds."""
    return {name: make_agent(module, variant, seed) for seed, (name, module) in enumerate(MODULES.items())}


def test_every_kind_of_variant_is_held():
    """The names as they stand in experiments.yaml; what is left out learns as one of these does."""
    assert set(learning_variants()) == {
        "dreamerv3", "proprio-2024", "proprio-2023", "vision", "vision-2024", "vision-2023", "atari", "atari-2024",
        "no-symlog-inputs", "advantage-normalisation", "huber-heads", "no-free-bits", "no-unimix",
        "no-reward-value-gradients", "no-reconstruction-gradients", "entropy-target",
    }  # fmt: skip
    assert {*learning_variants(), *EXTRA} >= LONG


def make_inputs(variant, dtype):
    """What an update takes, noise included: an episode begins inside a window, another ends in the last row but one."""
    config, (obs_spec, spec), random = make_config(variant), make_specs(variant), np.random.default_rng(0)
    rows, latents = (BATCH, LENGTH), (config.model.stoch_size, config.size.classes)
    imagined = (config.behaviour.horizon, BATCH * (config.behaviour.imagine_last or LENGTH))
    flags = {name: np.zeros(rows, bool) for name in FLAGS}
    flags["is_first"][0, 1] = flags["is_last"][1, 1] = flags["is_terminal"][1, 1] = True
    state = {
        "deter": random.uniform(-1, 1, (BATCH, config.size.deter_size)),
        "stoch": np.eye(latents[1])[random.integers(latents[1], size=(BATCH, latents[0]))],
    }
    obs = {key: random.uniform(0, 1 if len(s.shape) == 3 else 3, (*rows, *s.shape)) for key, s in obs_spec.items()}
    if spec.discrete:
        action = np.eye(ACTIONS)[random.integers(0, ACTIONS, rows)]
    else:
        action = random.uniform(-1.5, 1.5, (*rows, ACTIONS))
    inputs = {
        "obs": obs,
        "action": action,
        "reward": random.uniform(0, 4, rows),
        "state": state,
        "noise": random.uniform(size=(*rows, latents[0])),
        "imagined_noise": random.uniform(size=(*imagined, latents[0])),
        "action_noise": random.uniform(size=imagined) if spec.discrete else random.normal(size=(*imagined, ACTIONS)),
    }
    return jax.tree.map(lambda x: x.astype(dtype), inputs) | flags


def start_parameters(variant, dtype=np.float64):
    """First weights and a little more, so that no layer is zero and the slow critic is none of the critic."""
    parameters, random = make_agent(agent_torch, variant).parameters(), np.random.default_rng(1)
    return {name: (x + 0.05 * random.normal(size=x.shape)).astype(dtype) for name, x in parameters.items()}


def torch_updates(variant, inputs, parameters, marks):
    """{update: (losses and norms, gradients, parameters, statistics)} after the updates named in marks."""
    agent = make_agent(agent_torch, variant)
    agent.load_parameters(parameters)
    tensors, slopes, results = jax.tree.map(torch.from_numpy, inputs), {}, {}

    def recorded(*names):
        for name in names:
            slopes.update({f"{name}.{key}": p.grad.numpy().copy() for key, p in agent.parts[name].named_parameters()})
        return agent_torch.DreamerV3Agent.step(agent, *names)

    agent.step = recorded
    for update in range(1, max(marks) + 1):
        metrics, _ = agent.update(**tensors)
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            statistics = {name: value.numpy() for name, value in agent.normaliser.items()}
            results[update] = (losses, dict(slopes), agent.parameters(), statistics)
    return results


def jax_updates(variant, inputs, parameters, marks):
    agent, step = make_agent(agent_jax, variant), agent_jax.step
    agent.load_parameters(parameters)

    def update(networks, moments, normaliser, updates, inputs):
        slopes = {}

        def recorded(settings, learners, grads, moments, updates):
            slopes.update({f"{name}.{key}": x for name in grads for key, x in named_parameters(grads[name]).items()})
            return step(settings, learners, grads, moments, updates)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agent_jax, "step", recorded)
            state = agent_jax.update(agent.settings, networks, moments, normaliser, updates, **inputs)
        return *state, slopes

    options = STEADY if sees_images(variant) and max(marks) > 10 else QUICK
    run, results = jax.jit(update, compiler_options=options), {}
    for update in range(1, max(marks) + 1):
        agent.networks, agent.moments, agent.normaliser, metrics, _, slopes = run(
            agent.networks, agent.moments, agent.normaliser, update - 1, inputs
        )
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, jax.device_get(slopes), agent.parameters(), jax.device_get(agent.normaliser))
    return results


def check_updates(variant, last):
    """Losses, norms, gradients, parameters and statistics after the first update and the last one."""
    inputs, parameters = make_inputs(variant, np.float64), start_parameters(variant)
    expected, got = (run(variant, inputs, parameters, {1, last}) for run in (torch_updates, jax_updates))
    for update in (1, last):
        for what, ours, theirs in zip(
            ("loss", "gradient", "parameter", "statistic"), got[update], expected[update], strict=True
        ):
            assert_same(ours, theirs, FLOAT64, f"{variant}, {what} after update {update}")
    assert expected[last][0]["loss"] < expected[1][0]["loss"], "nothing was learned: the test shows little"
    still = [name for name, slope in expected[1][1].items() if not slope.any()]
    assert not still, f"no gradient: {still}"


@pytest.mark.parametrize("variant", learning_variants())
def test_losses_gradients_and_parameters_agree(variant, float64):
    check_updates(variant, 100 if variant in LONG else 4)


@pytest.mark.parametrize("variant", EXTRA)
def test_what_no_variant_has_agrees_too(variant, float64):
    check_updates(variant, 100 if variant in LONG else 5)


@pytest.mark.parametrize("variant", ["dreamerv3", "atari"])
def test_float32_agrees_to_its_rounding(variant):
    """One update: losses 1e-5, gradients 5e-4 of the largest entry (sums over thousands of pixels, in other orders)."""
    inputs, parameters = make_inputs(variant, np.float32), start_parameters(variant, np.float32)
    (expected,), (got,) = (f(variant, inputs, parameters, {1}).values() for f in (torch_updates, jax_updates))
    assert_same(got[0], expected[0], 1e-5, "float32 losses")
    assert_same(got[1], expected[1], 5e-4, "float32 gradients")


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023", "atari"])
def test_imagination_agrees(variant, float64):
    """Every state and every action on the way, not only what the losses make of them."""
    inputs, parameters = make_inputs(variant, np.float64), start_parameters(variant)
    noise, starts = inputs["imagined_noise"], inputs["imagined_noise"].shape[1]
    start = {name: np.concatenate([x, x[::-1], x])[:starts] for name, x in inputs["state"].items()}
    results = {}
    for name, module in MODULES.items():
        agent = make_agent(module, variant)
        agent.load_parameters(parameters)
        networks, make = (agent, torch.from_numpy) if name == "torch" else (agent.networks, jnp.asarray)
        state = {part: make(x.copy()) for part, x in start.items()}
        drawn = {"action_noise": make(inputs["action_noise"]), "latent_noise": make(noise)}
        run = OBJECTIVES[name].imagine_behaviour
        if name == "jax":
            run = jax.jit(run, compiler_options=QUICK)
        found = run(networks.model, networks.actor, state, **drawn)
        results[name] = {part: to_numpy(x) for part, x in zip(("features", "actions"), found, strict=True)}
    assert_same(results["jax"], results["torch"], 1e-12, f"{variant}, imagination")
    assert results["jax"]["features"].shape == (len(noise) + 1, starts, agent.networks.model.latent.feature_size)
    assert results["jax"]["actions"].shape == (len(noise), starts, ACTIONS)


@pytest.fixture
def same_noise(monkeypatch):
    """Agents of both frameworks draw the same numbers: NumPy's, seeded by the shape that is asked for."""

    def drawn(kind, *shape):
        return getattr(np.random.default_rng(shape), kind)(size=shape).astype(np.float32)

    def action_noise(actor, *batch):
        return drawn("uniform", *batch) if actor.discrete else drawn("normal", *batch, ACTIONS)

    def learning_noise(config, actor, size, length):
        horizon, latents = config.behaviour.horizon, config.model.stoch_size
        return {
            "noise": drawn("uniform", size, length, latents),
            "imagined_noise": drawn("uniform", horizon, size * length, latents),
            "action_noise": action_noise(actor, horizon, size * length),
        }

    theirs = agent_torch.DreamerV3Agent
    as_torch = functools.partial(jax.tree.map, torch.from_numpy)
    monkeypatch.setattr(theirs, "uniform", lambda _, *shape: as_torch(drawn("uniform", *shape)))
    monkeypatch.setattr(theirs, "action_noise", lambda self, *batch: as_torch(action_noise(self.actor, *batch)))
    monkeypatch.setattr(
        theirs, "learning_noise", lambda self, *shape: as_torch(learning_noise(self.config, self.actor, *shape))
    )
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.asarray(drawn("uniform", *shape)))
    monkeypatch.setattr(agent_jax, "action_noise", lambda actor, key, *batch: jnp.asarray(action_noise(actor, *batch)))
    monkeypatch.setattr(
        agent_jax, "learning_noise", lambda settings, actor, key, *shape: learning_noise(settings, actor, *shape)
    )
    for name in ("act_step", "learn_step", "predict_step"):
        static = ("settings", "context") if name == "predict_step" else ("settings",)
        function = getattr(agent_jax, name).__wrapped__
        monkeypatch.setattr(agent_jax, name, jax.jit(function, static_argnames=static, compiler_options=QUICK))


def make_batch(variant, seed=0, size=2, length=4):
    """Windows as replay samples them; one episode starts inside a window, another ends."""
    (obs_spec, spec), config, random = make_specs(variant), make_config(variant), np.random.default_rng(seed)
    rows = (size, length + config.batch.context)
    flags = {name: np.zeros(rows, bool) for name in FLAGS}
    flags["is_first"][0, 2] = flags["is_last"][1, -1] = flags["is_terminal"][1, -1] = True
    batch = {"reward": random.uniform(0, 4, rows).astype(np.float32), **flags}
    for key, s in obs_spec.items():
        drawn = (
            random.integers(0, 256, (*rows, *s.shape)) if s.dtype == "uint8" else random.normal(size=(*rows, *s.shape))
        )
        batch[key] = drawn.astype(s.dtype)
    if config.batch.context:
        batch["deter"] = random.uniform(-1, 1, (*rows, config.size.deter_size)).astype(np.float32)
        batch["stoch"] = random.integers(0, config.size.classes, (*rows, config.model.stoch_size)).astype(np.uint8)
    if spec.discrete:
        return batch | {"action": np.eye(ACTIONS, dtype=np.float32)[random.integers(0, ACTIONS, rows)]}
    return batch | {"action": random.uniform(-1, 1, (*rows, ACTIONS)).astype(np.float32)}


@pytest.mark.parametrize(("variant", "trained"), [("dreamerv3", "jax"), ("vision-2023", "torch"), ("atari", "jax")])
def test_from_rows_to_actions_both_do_the_same(variant, trained, request, tmp_path):
    """Agents as the loop has them, float32, stored rows in.

    `learn`, three updates: losses to 1e-4, norms of gradients to 1e-3, memos to 1e-4 (classes exactly). What one
    framework has trained and saved, the other loads: state and action to 1e-4, over a restart of one environment's
    episode; the predicted film but for pixels (1 in 1000) at the edge between two of its 256 levels.
    """
    agents, batch = make_agents(variant), make_batch(variant)
    request.getfixturevalue("same_noise")  # from here on: the agents' first weights are their own
    start = start_parameters(variant, np.float32)
    for agent in agents.values():
        agent.load_parameters(start)
    for update in range(3):
        found = {name: agent.learn(make_batch(variant, seed=update)) for name, agent in agents.items()}
        agent_parity.check_metrics(found, f"{variant}, update {update}")
        assert_same(found["jax"].memo, found["torch"].memo, 1e-4, f"{variant}, memo of update {update}")
        assert [x.dtype for x in found["jax"].memo.values()] == [x.dtype for x in found["torch"].memo.values()]
    agent_parity.share_parameters(agents, trained, tmp_path)
    agent_parity.check_decisions(agents, batch, variant)
    if "image" in batch:
        agent_parity.check_films(agents, batch)


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023", "vision", "vision-2024", "vision-2023", "atari"])
def test_one_parameter_file_loads_into_both(variant, tmp_path):
    agent_parity.check_one_parameter_file(make_agents(variant), tmp_path)


# Twins: the same names in the same order, with the same docstrings.

IDIOM = {
    "torch": {"forward", "over_channels", "memo", "start", "update", "learn_behaviour", "replayed_values",
              "step", "update_slow_critic", "learning_noise", "action_noise", "tensor", "uniform", "preprocessed",
              "arithmetic"},
    "jax": {"affine", "biased", "filled", "Linear", "_padded", "_biased", "_flat", "_restarted", "pooled", "first_std",
            "Settings", "Networks", "placed", "initial_state", "act_step", "memo", "learn_step", "start", "update",
            "learn_behaviour", "through_model", "replayed_values", "slow_share", "learning_noise", "normal",
            "action_noise", "predict_step", "preprocessed", "arithmetic"},
}  # fmt: skip
OWN_WORDS = {  # layouts of images and of cut weights, scans for loops
    "in_blocks", "Conv", "Conv.halving", "Conv.spreading", "Conv.of_doubled", "BlockGRU.weights", "RSSM.observe",
    "ImageEncoder", "BlockStart", "DenseStart", "ImageDecoder", "Actor.sample", "DreamerV3Agent.load",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["latent", "model", "objectives", "agent"])
def test_the_twins_have_the_same_names_in_the_same_order(kind):
    """And the same docstrings, apart from what each framework needs for itself (IDIOM)."""
    folder = ROOT / "replications" / "dreamerv3"
    names = {f: public_names(folder / f"{kind}_{f}.py", IDIOM[f]) for f in NAMES}
    assert [name for name, _ in names["torch"]] == [name for name, _ in names["jax"]]
    for (name, one), (_, other) in zip(names["torch"], names["jax"], strict=True):
        one, other = (text and text.replace("torch", "jax") for text in (one, other))
        if name not in OWN_WORDS:
            assert one == other, name
