"""Dreamer in torch and in JAX: same parameters, same batch, same noise, same numbers.

float64: 1e-10 relative to each tensor's largest entry, after 1 and after 100 updates of world model, actor and value,
for every variant of experiments.yaml that learns differently (measured: 3e-13 at most; an actor that does not stop the
gradient at its input differs by 1e-3 at once). float32: stated at the tests.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from replications.dreamer import agent_jax, agent_torch
from replications.dreamer.config import Config
from shared.config import ROOT, build, read_variants
from shared.envs.spec import ActSpec
from shared.layers_jax import named_parameters, with_parameters
from shared.testing import agent_parity
from shared.testing.parity import assert_same
from shared.training.loop import to_numpy
from tests import tiny_dreamer
from tests.compilation import STEADY
from tests.replications.test_planet_parity import public_names

ACTIONS, BATCH, LENGTH = 3, 2, 4
LEARNING = ("model", "loss", "behaviour", "optimisers")  # the groups of the config that an update depends on
GROUPS = ("model", "actor", "value", "decoder")  # of parameters, by optimiser
FLOAT64 = 1e-10


def learning_variants():
    """Every variant of experiments.yaml, made tiny, that learns unlike those before it."""
    found = {}
    for variant in read_variants("dreamer"):
        values = tiny_dreamer.values(variant)
        values = {group: values[group] for group in LEARNING}
        if values not in found.values():
            found[variant] = values
    return tuple(found)


DISCRETE = {"atari", "atari-straight"}
EXTRA = {  # what no variant of experiments.yaml has, other horizons among it: name -> (variant it starts from, changes)
    "ends-continuous": ("tf2", {"model__continuation": True, "loss__continuation_scale": 10.0}),
    "all-heads-horizon-2": (  # the smallest horizon: one return, which ends with its own value
        "contrastive",
        {"loss__gradient_heads": ["image", "reward", "contrastive"], "behaviour__horizon": 2},
    ),
    "clipped-horizon-7": (
        "reward-only",
        {**{f"optimisers__{name}__clip_norm": 1e-2 for name in GROUPS}, "behaviour__horizon": 7},
    ),
}


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are tiny: a second thread only waits, and where the machine is busy it waits for long."""
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def make_config(variant) -> Config:
    base, changes = EXTRA.get(variant, (variant, {}))
    return build(Config, tiny_dreamer.values(base, **changes), where="a test")


def make_spec(variant) -> ActSpec:
    return ActSpec(ACTIONS, discrete=EXTRA.get(variant, (variant,))[0] in DISCRETE)


def make_agent(module, variant, seed=0):
    return module.DreamerAgent(make_config(variant), {}, make_spec(variant), seed=np.random.SeedSequence(seed))


def make_agents(variant):
    """{framework: agent}, of different seeds."""
    return {"torch": make_agent(agent_torch, variant, 0), "jax": make_agent(agent_jax, variant, 1)}


def make_networks(variant, parameters):
    """JAX's, with the settings that an update takes."""
    config = make_config(variant)
    networks = with_parameters(agent_jax.Networks.make(config, make_spec(variant)), parameters)
    return networks, agent_jax.Settings(**{name: getattr(config, name) for name in agent_jax.Settings._fields})


def make_double(variant, parameters):
    """The torch agent in float64."""
    agent = make_agent(agent_torch, variant)
    agent.parts.double()
    agent.optimiser = agent_torch.make_optimiser(agent.parts, agent.config.loss, agent.config.optimisers)
    agent.load_parameters(parameters)
    return agent


def test_every_kind_of_variant_is_held():
    """The names as they stand in experiments.yaml; what is left out learns as one of these does."""
    assert set(learning_variants()) == {
        "dreamer", "no-value", "no-value-undiscounted", "planet", "tf2", "contrastive", "reward-only", "paper-text",
        "atari", "atari-straight",
    }  # fmt: skip


def make_actions(random, spec, *shape):
    if spec.discrete:
        return np.eye(spec.size)[random.integers(0, spec.size, shape)]
    return random.uniform(-1, 1, (*shape, spec.size))


def make_inputs(config, spec, dtype):
    """What an update takes, noise included: with an end of the world in the middle and one in the last row."""
    random, behaviour = np.random.default_rng(0), config.behaviour
    stoch, starts = config.model.stoch_size, BATCH * (LENGTH - config.model.continuation)
    terminal = np.zeros((BATCH, LENGTH))
    terminal[0, 1] = terminal[1, -1] = 1
    inputs = {
        "image": random.uniform(-0.5, 0.5, (BATCH, LENGTH, 64, 64, 3)),
        "action": make_actions(random, spec, BATCH, LENGTH),
        "reward": random.uniform(0, 4, (BATCH, LENGTH)),
        "terminal": terminal,
        "noise": random.normal(size=(BATCH, LENGTH, stoch)),
    }
    if behaviour.learner == "actor":
        shape = (behaviour.horizon, starts)
        inputs["latent_noise"] = random.normal(size=(*shape, stoch))
        inputs["action_noise"] = (
            random.uniform(size=shape) if spec.discrete else random.normal(size=(*shape, spec.size))
        )
    return {name: value.astype(dtype) for name, value in inputs.items()}


def start_parameters(variant, dtype=np.float64):
    return {name: value.astype(dtype) for name, value in make_agent(agent_torch, variant).parameters().items()}


def torch_updates(variant, inputs, parameters, marks):
    """{update: (losses and norms, gradients, parameters)} after the updates named in marks."""
    if inputs["reward"].dtype == np.float64:
        agent = make_double(variant, parameters)
    else:
        agent = make_agent(agent_torch, variant)
        agent.load_parameters(parameters)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    results = {}
    for update in range(1, max(marks) + 1):
        metrics = agent.gradients(**tensors)
        raw = {name: p.grad.numpy().copy() for name, p in agent.parts.named_parameters()}
        metrics |= agent.update()
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, raw, agent.parameters())
    return results


def jax_updates(variant, inputs, parameters, marks):
    networks, settings = make_networks(variant, parameters)
    moments = agent_jax.first_moments(settings, networks)
    arrays = {name: jnp.asarray(value) for name, value in inputs.items()}

    def step(networks, moments):
        grads, metrics = agent_jax.gradients(settings, networks, **arrays)
        networks, moments, norms = agent_jax.update(settings, networks, moments, grads)
        return networks, moments, grads, metrics | norms

    step = jax.jit(step, compiler_options=STEADY if max(marks) > 10 else {})
    results = {}
    for update in range(1, max(marks) + 1):
        networks, moments, grads, metrics = step(networks, moments)
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, *(jax.device_get(named_parameters(tree)) for tree in (grads, networks)))
    return results


def check_updates(variant, last):
    """Losses, norms, gradients and parameters after the first update and the last one. Returns the last ones."""
    inputs = make_inputs(make_config(variant), make_spec(variant), np.float64)
    parameters = start_parameters(variant)
    expected, got = (run(variant, inputs, parameters, {1, last}) for run in (torch_updates, jax_updates))
    for update in (1, last):
        for what, ours, theirs in zip(("loss", "gradient", "parameter"), got[update], expected[update], strict=True):
            assert_same(ours, theirs, FLOAT64, f"{variant}, {what} after update {update}")
    assert expected[last][0]["loss"] < expected[1][0]["loss"], "nothing was learned: the test shows little"
    return expected[last][2]


@pytest.mark.parametrize("variant", learning_variants())
def test_losses_gradients_and_parameters_agree_over_a_hundred_updates(variant, float64):
    after, before = check_updates(variant, 100), start_parameters(variant)
    still = {name for name, value in after.items() if np.array_equal(value, before[name])}
    assert not still, f"never updated: {sorted(still)}"


@pytest.mark.parametrize("variant", EXTRA)
def test_what_no_variant_has_agrees_too(variant, float64):
    check_updates(variant, 5)


@pytest.mark.parametrize("variant", ["dreamer", "atari"])
def test_float32_agrees_to_its_rounding(variant):
    """One update: losses 1e-5, gradients 5e-4 of the largest entry (sums over 12288 pixels, in other orders)."""
    config, spec = make_config(variant), make_spec(variant)
    inputs, parameters = make_inputs(config, spec, np.float32), start_parameters(variant, np.float32)
    (expected,), (got,) = (f(variant, inputs, parameters, {1}).values() for f in (torch_updates, jax_updates))
    assert_same(got[0], expected[0], 1e-5, "float32 losses")
    assert_same(got[1], expected[1], 5e-4, "float32 gradients")


@pytest.mark.parametrize("variant", ["dreamer", "tf2", "atari", "atari-straight"])
def test_imagination_agrees(variant, float64):
    """Every state and every action on the way, not only what the losses make of them."""
    config, spec = make_config(variant), make_spec(variant)
    inputs, parameters = make_inputs(config, spec, np.float64), start_parameters(variant)
    agent, (networks, _) = make_double(variant, parameters), make_networks(variant, parameters)
    noise = {name: inputs[name] for name in ("action_noise", "latent_noise")}
    starts, random = noise["latent_noise"].shape[1], np.random.default_rng(1)
    sizes = networks.model.latent.sizes
    start = {name: random.uniform(0.1, 1, (starts, size)) for name, size in sizes.items()}
    as_torch, as_jax = (
        {name: make(x) for name, x in (start | noise).items()} for make in (torch.from_numpy, jnp.asarray)
    )
    results = {}
    for name, module, (model, actor), arrays in (
        ("torch", agent_torch, (agent.model, agent.actor), as_torch),
        ("jax", agent_jax, (networks.model, networks.actor), as_jax),
    ):
        state = {part: arrays[part] for part in start}
        noises = {part: arrays[part] for part in noise}
        found = module.imagine_behaviour(model, actor, state, **noises)
        results[name] = {part: to_numpy(x) for part, x in zip(("features", "actions"), found, strict=True)}
    assert_same(results["jax"], results["torch"], 1e-12, f"{variant}, imagination")
    horizon, features = config.behaviour.horizon, networks.model.latent.feature_size
    assert results["jax"]["features"].shape == (horizon, starts, features)
    assert results["jax"]["actions"].shape == (horizon, starts, ACTIONS)


def test_plans_agree(float64):
    """All iterations of the planner: the same elites, means and deviations."""
    config, parameters = make_config("planet"), start_parameters("planet")
    random, planner, stoch = np.random.default_rng(1), config.planner, config.model.stoch_size
    agent, model = make_double("planet", parameters), make_networks("planet", parameters)[0].model
    start = {name: random.uniform(0.1, 1, (2, size)) for name, size in model.latent.sizes.items()}
    noise = {
        "action_noise": random.normal(size=(planner.iterations, 2, planner.candidates, planner.horizon, ACTIONS)),
        "latent_noise": random.normal(size=(planner.iterations, 2 * planner.candidates, planner.horizon, stoch)),
    }
    with torch.no_grad():
        state = {name: torch.from_numpy(x) for name, x in start.items()}
        tensors = {name: torch.from_numpy(x) for name, x in noise.items()}
        expected = agent_torch.plan(agent.model, planner, state, **tensors)
    state = {name: jnp.asarray(x) for name, x in start.items()}
    got = agent_jax.plan(model, planner, state, **{name: jnp.asarray(x) for name, x in noise.items()})
    names = ("mean", "std")
    assert_same(dict(zip(names, got, strict=True)), dict(zip(names, expected, strict=True)), FLOAT64, "plan")
    assert np.ptp(np.asarray(got[0])) > 0.1


@pytest.fixture
def same_noise(monkeypatch):
    """Agents of both frameworks draw the same numbers: NumPy's, seeded by the shape that is asked for."""

    def drawn(kind, shape):
        return getattr(np.random.default_rng(tuple(shape)), kind)(size=shape).astype(np.float32)

    for kind in ("normal", "uniform"):
        monkeypatch.setattr(jax.random, kind, lambda key, shape, kind=kind: jnp.asarray(drawn(kind, shape)))
        monkeypatch.setattr(
            agent_torch.DreamerAgent, kind, lambda _, *shape, kind=kind: torch.from_numpy(drawn(kind, shape))
        )
    monkeypatch.setattr(agent_jax, "uniform", lambda key, shape: jnp.asarray(drawn("uniform", shape)))
    monkeypatch.setattr(agent_torch, "uniform", lambda generator, shape: torch.from_numpy(drawn("uniform", shape)))
    compiled = (agent_jax.act_step, agent_jax.learn_step, agent_jax.predict_step)
    for function in compiled:
        function.clear_cache()
    yield
    for function in compiled:
        function.clear_cache()  # they have these numbers built in


def make_batch(spec, seed=0, size=2, length=6):
    """Rows as replay samples them; one episode starts inside a chunk, another ends."""
    random = np.random.default_rng(seed)
    flags = {name: np.zeros((size, length), bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_first"][0, 0] = flags["is_last"][1, -1] = flags["is_terminal"][1, -1] = True
    actions = make_actions(random, spec, size, length + 1).astype(np.float32)
    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 3), np.uint8),
        "action": actions[:, 1:],
        "action_before": actions[:, 0],
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        **flags,
    }


@pytest.mark.parametrize("variant", ["dreamer", "tf2", "atari"])
def test_learning_from_rows_agrees(variant, request):
    """`learn` itself, from uint8 images and stored rows: what it makes of rows, which noise goes where. float32: losses
    of three updates to 1e-4, norms of gradients to 1e-3."""
    agents = make_agents(variant)
    request.getfixturevalue("same_noise")  # from here on: the agents' first weights are their own
    agents["jax"].load_parameters(agents["torch"].parameters())
    for update in range(3):
        batch = make_batch(make_spec(variant), seed=update)
        learned = {name: agent.learn(batch) for name, agent in agents.items()}
        agent_parity.check_metrics(learned, f"{variant}, update {update}")


@pytest.mark.parametrize(
    ("variant", "trained"), [("dreamer", "torch"), ("tf2", "jax"), ("atari", "jax"), ("planet", "torch")]
)
def test_weights_trained_in_one_framework_act_and_predict_alike_in_the_other(variant, trained, request, tmp_path):
    """float32, uint8 images in: belief and action to 1e-4, exploring and not, over a restart of one environment's
    episode; the predicted film but for pixels (1 in 1000) at the edge between two of its 256 levels."""
    spec = make_spec(variant)
    batch, agents = make_batch(spec), make_agents(variant)
    for seed in range(3):
        agents[trained].learn(make_batch(spec, seed))
    request.getfixturevalue("same_noise")
    agent_parity.share_parameters(agents, trained, tmp_path)
    for agent in agents.values():
        agent.updates = 0
    agent_parity.check_decisions(agents, batch, variant)
    agent_parity.check_films(agents, batch)


@pytest.mark.parametrize("variant", [*learning_variants(), "ends-continuous", "all-heads-horizon-2"])
def test_one_parameter_file_loads_into_both(variant, tmp_path):
    agent_parity.check_one_parameter_file(make_agents(variant), tmp_path)


# Twins: the same names in the same order, with the same docstrings.

IDIOM = {
    "torch": {"forward", "reset", "filter", "choose", "explored", "planner_noise",
              "gradients", "update", "learning_noise", "action_noise", "tensor", "normal", "uniform", "preprocessed"},
    "jax": {"sizes", "feature_size", "Settings", "Networks", "act_step", "filter_step", "choose", "randomised",
            "planner_noise", "learn_step", "gradients", "update", "learning_noise", "action_noise", "predict_step",
            "preprocessed", "grouped", "ungrouped", "decoder_of", "first_moments"},
}  # fmt: skip
OWN_WORDS = {"MLP.resume", "RSSM.observe", "make_optimiser", "DreamerAgent.load"}


@pytest.mark.parametrize("kind", ["model", "agent"])
def test_the_twins_have_the_same_names_in_the_same_order(kind):
    """And the same docstrings, apart from what each framework needs for itself (IDIOM)."""
    folder = ROOT / "replications" / "dreamer"
    names = {f: public_names(folder / f"{kind}_{f}.py", IDIOM[f]) for f in ("torch", "jax")}
    assert [name for name, _ in names["torch"]] == [name for name, _ in names["jax"]]
    for (name, one), (_, other) in zip(names["torch"], names["jax"], strict=True):
        one, other = (text and text.replace("torch", "jax") for text in (one, other))
        if name not in OWN_WORDS:
            assert one == other, name
