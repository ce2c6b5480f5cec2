"""DreamerV2 in torch and in JAX: same parameters, same batch, same noise, same numbers.

float64: 1e-10 relative to each tensor's largest entry, after the first and the last of ten or a hundred updates of
world model, actor, critic and target critic, for every variant of experiments.yaml that learns by other code than those
before it. float32: stated at the tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from replications.dreamerv2 import agent_jax, agent_torch
from replications.dreamerv2.config import Config
from shared.config import ROOT, build, read_variants
from shared.envs.spec import ActSpec, ArraySpec
from shared.layers_jax import named_parameters
from shared.testing import agent_parity
from shared.testing.parity import assert_same
from shared.training.loop import to_numpy
from tests import tiny_dreamerv2
from tests.compilation import QUICK, STEADY
from tests.replications.test_planet_parity import public_names

ACTIONS, BATCH, LENGTH = 3, 2, 4
LEARNING = ("model", "loss", "behaviour", "optimisers")  # the groups of the config that an update depends on
FLOAT64 = 1e-10


def learning_variants():
    """Every variant of experiments.yaml, made tiny, that learns by other code than those before it.

    Fractions change numbers and not the code, but for a KL balance of 0.5.
    """
    found = {}
    for variant in read_variants("dreamerv2"):
        values = tiny_dreamerv2.values(variant)
        code = [words(values[group]) for group in LEARNING] + [values["loss"]["kl_balance"]]
        if code not in found.values():
            found[variant] = code
    return tuple(found)


def words(tree):
    """A group of settings without its fractions."""
    if isinstance(tree, dict):
        return {key: words(value) for key, value in tree.items()}
    return None if isinstance(tree, float) else tree


LONG = {"dreamerv2", "schedules", "gaussian-latents", "humanoid"}  # a hundred updates; the others ten
CONTROL = {"control", "control-release", "humanoid"}
EXTRA = {  # what no variant of experiments.yaml has: name -> (variant it starts from, changes)
    "norms-and-clips": (
        "gaussian-latents",
        {"model__norm": "layer", "model__std": "softplus", "loss__free_nats_of": "step", "loss__free_nats": 0.1}
        | {f"optimisers__{name}__clip_norm": 1e-2 for name in agent_jax.LEARNERS}
        | {"behaviour__target_fraction": 0.5},
    ),
    "reinforce-continuous": ("control", {"behaviour__actor_gradient": "reinforce"}),
    "reinforce-through-actions": (
        "control-release",
        {"behaviour__actor_gradient": "reinforce", "behaviour__baseline": "target"},
    ),
    "both-continuous": ("control", {"behaviour__actor_gradient": "both"}),
    "ramps": ("schedules", {f"behaviour__{name}__over_env_steps": 400 for name in ("gradient_mix", "entropy")}),
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
    """Control tasks with fewer free nats than the KL of such small networks has, else the prior learned nothing."""
    base, changes = EXTRA.get(variant, (variant, {}))
    nats = {"loss__free_nats": 0.01} if base in CONTROL else {}
    return build(Config, tiny_dreamerv2.values(base, **nats | changes), where="a test")


def make_specs(variant) -> tuple[dict[str, ArraySpec], ActSpec]:
    discrete = EXTRA.get(variant, (variant,))[0] not in CONTROL
    return {"image": ArraySpec((64, 64, 1 if discrete else 3), "uint8")}, ActSpec(ACTIONS, discrete=discrete)


def make_agent(module, variant, seed=0):
    return module.DreamerV2Agent(make_config(variant), *make_specs(variant), seed=np.random.SeedSequence(seed))


def make_agents(variant):
    """{framework: agent}, of different seeds."""
    return {"torch": make_agent(agent_torch, variant, 0), "jax": make_agent(agent_jax, variant, 1)}


def make_loaded(module, variant, parameters):
    """An agent in the precision of these parameters."""
    agent = make_agent(module, variant)
    if module is agent_torch and parameters["critic.out.bias"].dtype == np.float64:
        agent.parts.double()
        agent.optimisers = agent_torch.make_optimisers(agent.parts, agent.config.optimisers)
    agent.load_parameters(parameters)
    return agent


def test_every_kind_of_variant_is_held():
    """The names as they stand in experiments.yaml; what is left out learns as one of these does."""
    assert set(learning_variants()) == {
        "dreamerv2", "schedules", "gaussian-latents", "no-kl-balancing", "no-image-gradients", "no-reward-gradients",
        "no-layer-norm", "no-reinforce", "humanoid", "control-release", "last-commit",
    }  # fmt: skip
    assert set(learning_variants()) >= LONG


def make_actions(random, spec, *shape):
    if spec.discrete:
        return np.eye(spec.size)[random.integers(0, spec.size, shape)]
    return random.uniform(-1, 1, (*shape, spec.size))


def make_inputs(variant, dtype):
    """What an update takes, noise included: with an end of the world in the middle and one in the last row."""
    config, (obs_spec, spec), random = make_config(variant), make_specs(variant), np.random.default_rng(0)
    latent = random.uniform if config.model.latents == "categorical" else random.normal
    spared = config.behaviour.starts == "but_last" and config.model.discount_head
    imagined = (config.behaviour.horizon, BATCH * (LENGTH - spared))
    goes_on = np.ones((BATCH, LENGTH))
    goes_on[0, 1] = goes_on[1, -1] = 0
    inputs = {
        "image": random.uniform(-0.5, 0.5, (BATCH, LENGTH, *obs_spec["image"].shape)),
        "action": make_actions(random, spec, BATCH, LENGTH),
        "reward": random.uniform(0, 4, (BATCH, LENGTH)),
        "discount": config.behaviour.discount * goes_on,
        "noise": latent(size=(BATCH, LENGTH, config.model.stoch_size)),
        "imagined_noise": latent(size=(*imagined, config.model.stoch_size)),
        "action_noise": random.uniform(size=imagined if spec.discrete else (*imagined, spec.size)),
    }
    return {name: value.astype(dtype) for name, value in inputs.items()}


def start_parameters(variant, dtype=np.float64):
    return {name: value.astype(dtype) for name, value in make_agent(agent_torch, variant).parameters().items()}


def torch_updates(variant, inputs, parameters, marks):
    """{update: (losses and norms, gradients, parameters)} after the updates named in marks."""
    agent = make_loaded(agent_torch, variant, parameters)
    tensors, slopes, results = {name: torch.from_numpy(value) for name, value in inputs.items()}, {}, {}

    def recorded(name):
        slopes.update({f"{name}.{key}": p.grad.numpy().copy() for key, p in agent.parts[name].named_parameters()})
        return agent_torch.DreamerV2Agent.step(agent, name)

    agent.step = recorded
    for update in range(1, max(marks) + 1):
        metrics = agent.update(**tensors)
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, dict(slopes), agent.parameters())
    return results


def jax_updates(variant, inputs, parameters, marks):
    agent, step = make_loaded(agent_jax, variant, parameters), agent_jax.step
    arrays = {name: jnp.asarray(value) for name, value in inputs.items()}

    @functools.partial(
        jax.jit, static_argnames="constant_actions", compiler_options=STEADY if max(marks) > 20 else QUICK
    )
    def run(networks, moments, now, *, constant_actions):
        slopes = {}

        def recorded(settings, name, part, moments, grads):
            slopes.update({f"{name}.{key}": x for key, x in named_parameters(grads).items()})
            return step(settings, name, part, moments, grads)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(agent_jax, "step", recorded)
            state = agent_jax.update(
                agent.settings, networks, moments, now, constant_actions=constant_actions, **arrays
            )  # fmt: skip
        return *state, slopes

    moments, results = jax.device_put(agent_jax.first_moments(agent.settings, agent.networks), agent.place), {}
    for update in range(1, max(marks) + 1):
        now = agent.now()
        agent.networks, moments, metrics, slopes = run(
            agent.networks, moments, now, constant_actions=agent.actions_are_constants(now.mix)
        )
        agent.updates += 1
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, jax.device_get(slopes), agent.parameters())
    return results


def check_updates(variant, last):
    """Losses, norms, gradients and parameters after the first update and the last one."""
    inputs, parameters = make_inputs(variant, np.float64), start_parameters(variant)
    expected, got = (run(variant, inputs, parameters, {1, last}) for run in (torch_updates, jax_updates))
    for update in (1, last):
        for what, ours, theirs in zip(("loss", "gradient", "parameter"), got[update], expected[update], strict=True):
            assert_same(ours, theirs, FLOAT64, f"{variant}, {what} after update {update}")
    assert expected[last][0]["loss"] < expected[1][0]["loss"], "nothing was learned: the test shows little"
    still = [name for name, slope in expected[last][1].items() if not slope.any()]
    assert not still, f"no gradient: {still}"


@pytest.mark.parametrize("variant", learning_variants())
def test_losses_gradients_and_parameters_agree(variant, float64):
    check_updates(variant, 100 if variant in LONG else 10)


@pytest.mark.parametrize("variant", EXTRA)
def test_what_no_variant_has_agrees_too(variant, float64):
    """The ramps to their ends, where the actor's gradient has no dynamics left."""
    check_updates(variant, 12 if variant == "ramps" else 5)


@pytest.mark.parametrize("variant", ["dreamerv2", "control"])
def test_float32_agrees_to_its_rounding(variant):
    """One update: losses 1e-5, gradients 5e-4 of the largest entry (sums over thousands of pixels, in other orders)."""
    inputs, parameters = make_inputs(variant, np.float32), start_parameters(variant, np.float32)
    (expected,), (got,) = (f(variant, inputs, parameters, {1}).values() for f in (torch_updates, jax_updates))
    assert_same(got[0], expected[0], 1e-5, "float32 losses")
    assert_same(got[1], expected[1], 5e-4, "float32 gradients")


@pytest.mark.parametrize("variant", ["dreamerv2", "gaussian-latents", "control"])
def test_imagination_agrees(variant, float64):
    """Every state and every action on the way, not only what the losses make of them."""
    inputs, parameters = make_inputs(variant, np.float64), start_parameters(variant)
    agents = {module: make_loaded(module, variant, parameters) for module in (agent_torch, agent_jax)}
    latent, random = agents[agent_jax].networks.model.latent, np.random.default_rng(1)
    horizon, starts = inputs["imagined_noise"].shape[:2]
    start = {name: random.uniform(0.1, 1, (starts, *shape)) for name, shape in latent.shapes.items()}
    noise = {"action_noise": inputs["action_noise"], "latent_noise": inputs["imagined_noise"]}
    results = {}
    for module, agent in agents.items():
        networks, make = (agent, torch.from_numpy) if module is agent_torch else (agent.networks, jnp.asarray)
        state, noises = ({name: make(x) for name, x in arrays.items()} for arrays in (start, noise))
        found = module.imagine_behaviour(networks.model, networks.actor, state, **noises)
        results[module] = {part: to_numpy(x) for part, x in zip(("features", "actions"), found, strict=True)}
    assert_same(results[agent_jax], results[agent_torch], 1e-12, f"{variant}, imagination")
    assert results[agent_jax]["features"].shape == (horizon + 1, starts, latent.feature_size)
    assert results[agent_jax]["actions"].shape == (horizon, starts, ACTIONS)


@pytest.fixture
def same_noise(monkeypatch):
    """Agents of both frameworks draw the same numbers: NumPy's, seeded by the shape that is asked for."""

    def drawn(kind, shape):
        return getattr(np.random.default_rng(tuple(shape)), kind)(size=shape).astype(np.float32)

    for kind in ("normal", "uniform"):
        monkeypatch.setattr(jax.random, kind, lambda key, shape, kind=kind: jnp.asarray(drawn(kind, shape)))
        monkeypatch.setattr(
            agent_torch.DreamerV2Agent, kind, lambda _, *shape, kind=kind: torch.from_numpy(drawn(kind, shape))
        )
    quick_programs(monkeypatch)


def quick_programs(patch):
    """The agent's compiled functions anew, with whatever stands in for other functions now, and soon compiled."""
    for name, static in {
        "act_step": ("settings", "explore"),
        "random_step": ("num_envs",),
        "learn_step": ("settings", "constant_actions"),
        "predict_step": ("settings", "context"),
    }.items():
        function = getattr(agent_jax, name).__wrapped__
        patch.setattr(agent_jax, name, jax.jit(function, static_argnames=static, compiler_options=QUICK))


def make_batch(variant, seed=0, size=2, length=6):
    """Rows as replay samples them; one episode starts inside a chunk, another ends."""
    (obs_spec, spec), random = make_specs(variant), np.random.default_rng(seed)
    flags = {name: np.zeros((size, length), bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_first"][0, 2] = flags["is_last"][1, -1] = flags["is_terminal"][1, -1] = True
    actions = make_actions(random, spec, size, length + 1).astype(np.float32)
    return {
        "image": random.integers(0, 256, (size, length, *obs_spec["image"].shape), np.uint8),
        "action": actions[:, 1:],
        "action_before": actions[:, 0],
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        **flags,
    }


@pytest.mark.parametrize(
    ("variant", "trained"), [("dreamerv2", "jax"), ("gaussian-latents", "torch"), ("control", "jax")]
)
def test_from_rows_to_actions_both_do_the_same(variant, trained, request, tmp_path):
    """Agents as the loop has them, float32, uint8 images in.

    `learn` from stored rows, three updates: losses to 1e-4, norms of gradients to 1e-3. What one framework has trained
    and saved, the other loads: belief and action to 1e-4, exploring and not, over a restart of one environment's
    episode; the predicted film but for pixels (1 in 1000) at the edge between two of its 256 levels.
    """
    agents, batch = make_agents(variant), make_batch(variant)
    request.getfixturevalue("same_noise")  # from here on: the agents' first weights are their own
    agents["jax"].load_parameters(agents["torch"].parameters())
    for update in range(3):
        rows = make_batch(variant, seed=update)
        learned = {name: agent.learn(rows) for name, agent in agents.items()}
        agent_parity.check_metrics(learned, f"{variant}, update {update}")
    agent_parity.share_parameters(agents, trained, tmp_path)
    agent_parity.check_decisions(agents, batch, variant)
    agent_parity.check_films(agents, batch)


@pytest.mark.parametrize("variant", ["random-data", "control"])
def test_random_actions_agree(variant, same_noise):
    """Exactly: uniform over the classes, or over the box."""
    spec = make_specs(variant)[1]
    agent = make_agent(agent_torch, variant)
    _, got = agent_jax.random_step(agent_jax.Actor(*actor_settings(variant), spec), jax.random.key(0), 50)
    np.testing.assert_array_equal(got, agent.random_action(50))
    assert (np.ptp(got, axis=0) > 0.9).all()


def actor_settings(variant):
    config = make_config(variant)
    return config.model, config.behaviour, 5


@pytest.mark.parametrize("variant", [*learning_variants(), "norms-and-clips"])
def test_one_parameter_file_loads_into_both(variant, tmp_path):
    agent_parity.check_one_parameter_file(make_agents(variant), tmp_path)


# Twins: the same names in the same order, with the same docstrings.

IDIOM = {
    "torch": {"forward", "reset", "over_channels", "random_action", "update", "learn_behaviour", "step",
              "update_target", "learning_noise", "latent_noise", "action_noise", "trained", "tensor", "normal",
              "uniform", "preprocessed", "make_optimisers"},
    "jax": {"shapes", "feature_size", "Settings", "Now", "Networks", "now", "act_step", "random_step", "learn_step",
            "update", "behaviour_gradients", "step", "target_share", "learning_noise", "latent_noise", "action_noise",
            "predict_step", "preprocessed", "first_moments", "make_optimiser"},
}  # fmt: skip
OWN_WORDS = {"MLP.resume", "RSSM.observe", "DreamerV2Agent.load"}


@pytest.mark.parametrize("kind", ["model", "agent"])
def test_the_twins_have_the_same_names_in_the_same_order(kind):
    """And the same docstrings, apart from what each framework needs for itself (IDIOM)."""
    folder = ROOT / "replications" / "dreamerv2"
    names = {f: public_names(folder / f"{kind}_{f}.py", IDIOM[f]) for f in ("torch", "jax")}
    assert [name for name, _ in names["torch"]] == [name for name, _ in names["jax"]]
    for (name, one), (_, other) in zip(names["torch"], names["jax"], strict=True):
        one, other = (text and text.replace("torch", "jax") for text in (one, other))
        if name not in OWN_WORDS:
            assert one == other, name
