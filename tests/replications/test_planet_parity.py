"""PlaNet in torch and in JAX: same parameters, same batch, same noise, same numbers.

float64: 1e-10 relative to each tensor's largest entry, after 1 and after 100 updates (measured: 3e-13 at most; both
round differently in the last bits and 100 updates of Adam carry that on). float32: stated at the test.
"""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from replications.planet import agent_jax, agent_torch, model_jax, model_torch
from replications.planet.config import Config
from shared import layers_jax
from shared.config import ROOT, build, leaves, read_variants
from shared.envs.spec import ActSpec
from shared.testing import agent_parity
from shared.testing.parity import assert_same
from tests import tiny
from tests.compilation import STEADY
from tests.replications.test_planet import make_batch

ACTIONS, BATCH, LENGTH = 2, 2, 4
LEARNING = ("model", "loss", "optimiser")  # the groups of the config that an update depends on
SMALLER = {"overshooting_distance": 3, "reward_units": 8, "reward_layers": 2, "ramp_updates": 20}  # where not 0


def learning_variants():
    """Variant -> what it changes about an update, made tiny: every variant of experiments.yaml that differs in that."""
    found = {}
    for variant, changes in read_variants("planet").items():
        keys = dict(leaves(changes, where=variant))
        keys = {key: SMALLER.get(key.partition(".")[2], value) for key, value in keys.items()}
        mine = {key.replace(".", "__"): value for key, value in keys.items() if key.partition(".")[0] in LEARNING}
        if mine not in found.values():
            found[variant] = mine
    return found


VARIANTS = {
    **learning_variants(),
    "two-layers": {"model__hidden_layers": 2},
    "clipped": {"optimiser__clip_norm": 10.0},
}
PLANNERS = {
    "rssm": {},
    "ssm": {"model__latent": "ssm"},
    "drnn": {"model__latent": "drnn"},
    "deterministic": {"model__mean_only": True},
    "random-shooting": {"planner__iterations": 1, "planner__elites": 1},
    "gradient-planner": {"planner__method": "gradient", "planner__iterations": 4, "planner__elites": 1},
    "camera-ready": {"planner__discount": 0.99},
}
FLOAT64 = 1e-10


@pytest.fixture(autouse=True)
def one_thread():
    """The networks are tiny: a second thread only waits, and where the machine is busy it waits for long."""
    torch.set_num_threads(1)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def make_config(variant, among=VARIANTS) -> Config:
    return build(Config, tiny.values(**among[variant]), where="a test")


def test_every_kind_of_variant_is_held():
    """The names as they stand in experiments.yaml; what is left out learns as one of these does."""
    assert VARIANTS.keys() == {
        "rssm", "ssm", "deterministic", "deterministic-fair", "overshooting", "drnn", "drnn-overshooting", "elu",
        "ssm-elu", "camera-ready", "first-release", "two-layers", "clipped",
    }  # fmt: skip


def make_inputs(config, dtype):
    random = np.random.default_rng(0)
    stoch = config.model.stoch_size
    inputs = {
        "image": random.uniform(-0.5, 0.5, (BATCH, LENGTH, 64, 64, 3)),
        "action": random.uniform(-1, 1, (BATCH, LENGTH, ACTIONS)),
        "reward": random.uniform(0, 4, (BATCH, LENGTH)),
        "noise": random.normal(size=(BATCH, LENGTH, stoch)),
    }
    if config.loss.overshoots:
        inputs["overshooting_noise"] = random.normal(size=(BATCH, LENGTH, config.loss.overshooting_distance + 1, stoch))
    return {name: value.astype(dtype) for name, value in inputs.items()}


def torch_updates(config, inputs, parameters, marks):
    """{update: (losses, gradients, parameters)} after the updates named in marks."""
    agent = agent_torch.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(0))
    if inputs["reward"].dtype == np.float64:
        agent.model.double()
        agent.optimiser = agent_torch.make_optimiser(agent.model, config.optimiser)
    agent.load_parameters(parameters)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    results = {}
    for update in range(1, max(marks) + 1):
        metrics = agent.gradients(**tensors)
        raw = {name: p.grad for name, p in agent.model.named_parameters()}
        raw = {name: np.zeros(1) if grad is None else grad.numpy().copy() for name, grad in raw.items()}
        metrics["grad_norm"] = agent.update()
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            results[update] = (losses, raw, agent.parameters())
    return results


def jax_updates(config, inputs, parameters, marks):
    model = layers_jax.with_parameters(model_jax.WorldModel(config.model, ACTIONS), parameters)
    moments = agent_jax.make_optimiser(config.optimiser).init(model)
    arrays = {name: jnp.asarray(value) for name, value in inputs.items()}

    def step(model, moments):
        grads, metrics = agent_jax.gradients(model, config.loss, **arrays)
        model, moments, norm = agent_jax.update(config.optimiser, model, moments, grads)
        return model, moments, grads, metrics | {"grad_norm": norm}

    step = jax.jit(step, compiler_options=STEADY if max(marks) > 10 else {})
    results = {}
    for update in range(1, max(marks) + 1):
        model, moments, grads, metrics = step(model, moments)
        if update in marks:
            losses = {name: float(value) for name, value in metrics.items()}
            named = (jax.device_get(layers_jax.named_parameters(tree)) for tree in (grads, model))
            results[update] = (losses, *named)
    return results


def start_parameters(config, dtype=np.float64):
    agent = agent_torch.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(5))
    return {name: value.astype(dtype) for name, value in agent.parameters().items()}


def without_gradient(grads):
    """Names of zero gradients: where torch has none, JAX has zeros (unused layers of the deterministic recipe)."""
    return {name for name, grad in grads.items() if not grad.any()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_gradients_and_parameters_agree_over_a_hundred_updates(variant, float64):
    config = make_config(variant)
    inputs, parameters = make_inputs(config, np.float64), start_parameters(config)
    expected = torch_updates(config, inputs, parameters, {1, 100})
    got = jax_updates(config, inputs, parameters, {1, 100})
    for update in (1, 100):
        for what, ours, theirs in zip(("loss", "gradient", "parameter"), got[update], expected[update], strict=True):
            if what == "gradient":
                unused = without_gradient(theirs)
                assert unused == without_gradient(ours), (update, unused ^ without_gradient(ours))
                ours, theirs = ({n: g for n, g in grads.items() if n not in unused} for grads in (ours, theirs))
            assert_same(ours, theirs, FLOAT64, f"{variant}, {what} after update {update}")
    assert expected[100][0]["loss"] < expected[1][0]["loss"], "a hundred updates learned nothing: the test shows little"


@pytest.mark.parametrize("size", [9, 14])  # with stride 2 and kernels of 4 and 6, a row is left over at 9
@pytest.mark.parametrize("kernel", [4, 5, 6])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(layers_jax.convolve, F.conv2d), (layers_jax.spread, F.conv_transpose2d)],
    ids=["conv", "transposed"],
)
def test_convolutions_and_their_gradients_equal_torchs(ours, theirs, kernel, size, float64):
    random = np.random.default_rng(0)
    weight, image = random.normal(size=(4, 3, kernel, kernel)), random.normal(size=(2, size, size - 2, 3))
    if theirs is F.conv_transpose2d:
        image = random.normal(size=(2, size, size - 2, 4))
    inputs = [torch.from_numpy(x).requires_grad_() for x in (image, weight)]
    expected = theirs(inputs[0].permute(0, 3, 1, 2), inputs[1], stride=2).permute(0, 2, 3, 1)
    cotangent = random.normal(size=expected.shape)
    slopes = torch.autograd.grad(expected, inputs, torch.from_numpy(cotangent))
    got, back = jax.vjp(lambda x, w: ours(x, w, 2), jnp.asarray(image), jnp.asarray(weight))
    names = ("result", "gradient of the image", "gradient of the weight")
    got = dict(zip(names, (got, *back(jnp.asarray(cotangent))), strict=True))
    expected = dict(zip(names, (expected.detach(), *slopes), strict=True))
    assert_same(got, expected, 1e-13, f"kernel {kernel}, size {size}")


@pytest.mark.parametrize("variant", ["rssm", "ssm", "drnn", "first-release"])
def test_float32_agrees_to_its_rounding(variant):
    """One update: losses 1e-5 (a KL of 0.002 nats is the difference of terms near 1), gradients 2e-4 of the largest
    entry (sums over 12288 pixels, in other orders)."""
    config = make_config(variant)
    inputs, parameters = make_inputs(config, np.float32), start_parameters(config, np.float32)
    (expected,), (got,) = (f(config, inputs, parameters, {1}).values() for f in (torch_updates, jax_updates))
    assert_same(got[0], expected[0], 1e-5, "float32 losses")
    assert_same(got[1], expected[1], 2e-4, "float32 gradients")


@pytest.mark.parametrize("variant", PLANNERS)
def test_plans_agree(variant, float64):
    """Filter an image, then all iterations of the planner: the same elites, means and deviations, the same slopes."""
    config = make_config(variant, PLANNERS)
    parameters = start_parameters(config)
    random, plan, stoch = np.random.default_rng(1), config.planner, config.model.stoch_size
    image, action = random.uniform(-0.5, 0.5, (2, 64, 64, 3)), random.uniform(-1, 1, (2, ACTIONS))
    filter_noise = random.normal(size=(2, stoch))
    noise = {
        "action_noise": random.normal(size=(plan.iterations, 2, plan.candidates, plan.horizon, ACTIONS)),
        "latent_noise": random.normal(size=(plan.iterations, 2 * plan.candidates, plan.horizon, stoch)),
    }
    agent = agent_torch.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(0))
    agent.model.double()
    agent.load_parameters(parameters)
    with torch.no_grad():
        world = agent.model
        inputs = (torch.from_numpy(action), world.encoder(torch.from_numpy(image)), torch.from_numpy(filter_noise))
        state, _ = world.latent.posterior(model_torch.initial_state(world.latent, 2), *inputs)
        expected = agent.plan(state, **{name: torch.from_numpy(value) for name, value in noise.items()})
    model = layers_jax.with_parameters(model_jax.WorldModel(config.model, ACTIONS), parameters)
    start = model_jax.initial_state(model.latent, 2)
    state = agent_jax.filter_step(model, jnp.asarray(image), jnp.asarray(action), start, jnp.asarray(filter_noise))
    got = agent_jax.plan(model, plan, state, **{name: jnp.asarray(value) for name, value in noise.items()})
    names = ("mean", "std")
    assert_same(dict(zip(names, got, strict=True)), dict(zip(names, expected, strict=True)), FLOAT64, "plan")
    assert np.ptp(np.asarray(got[0])) > 0.1


@pytest.fixture
def same_noise(monkeypatch):
    """Agents of both frameworks draw the same numbers: NumPy's, seeded by the shape that is asked for."""

    def drawn(kind, shape):
        return getattr(np.random.default_rng(shape), kind)(size=shape).astype(np.float32)

    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.asarray(drawn("normal", shape)))
    monkeypatch.setattr(agent_jax, "uniform", lambda key, shape: jnp.asarray(drawn("uniform", shape)))
    monkeypatch.setattr(agent_torch.PlanetAgent, "normal", lambda _, *shape: torch.from_numpy(drawn("normal", shape)))
    monkeypatch.setattr(agent_torch, "uniform", lambda _, shape: torch.from_numpy(drawn("uniform", tuple(shape))))
    compiled = (agent_jax.act_step, agent_jax.learn_step, agent_jax.predict_step)
    for function in compiled:
        function.clear_cache()
    yield
    for function in compiled:
        function.clear_cache()  # they have these numbers built in


@pytest.mark.parametrize(
    ("variant", "trained"), [("rssm", "torch"), ("rssm", "jax"), ("ssm", "torch"), ("drnn", "torch")]
)
def test_weights_trained_in_one_framework_act_and_predict_alike_in_the_other(variant, trained, same_noise, tmp_path):
    """float32, uint8 images in: belief and planned action to 1e-4, over a restart of one environment's episode; the
    predicted film but for pixels (1 in 1000) that lie at the edge between two of its 32 levels."""
    config, batch = make_config(variant), make_batch(size=2)
    agents = {
        framework: module.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(seed))
        for seed, (framework, module) in enumerate({"torch": agent_torch, "jax": agent_jax}.items())
    }
    for _ in range(3):
        agents[trained].learn(batch)
    agent_parity.share_parameters(agents, trained, tmp_path)
    agent_parity.check_decisions(agents, batch, variant, steps=3)
    agent_parity.check_films(agents, batch, levels=32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_parameter_file_loads_into_both(variant, tmp_path):
    config, spec = make_config(variant), ActSpec(ACTIONS)
    agents = {
        framework: module.PlanetAgent(config, {}, spec, seed=np.random.SeedSequence(seed))
        for seed, (framework, module) in enumerate({"torch": agent_torch, "jax": agent_jax}.items())
    }
    agent_parity.check_one_parameter_file(agents, tmp_path)


def test_a_difference_is_told_by_name_size_and_place():
    """2 against 2.002 is 1e-3 of the largest entry, 4 against 4.4 a tenth; the first name comes first."""
    expected = {"loss": 5.0, "weight": np.array([[1.0, 2.0]]), "bias": np.array([4.0])}
    got = expected | {"weight": np.array([[1.0, 2.002]]), "bias": np.array([4.4])}
    assert_same(got, expected, 0.2, "a test")
    with pytest.raises(AssertionError) as told:
        assert_same(got, expected, 1e-6, "after update 7")
    assert "after update 7: weight differs by 1.00e-03 of its largest entry (2), most at index (0, 1)" in str(
        told.value
    )
    assert "2 of 3 tensors differ, most of all bias differs by 1.00e-01" in str(told.value)
    with pytest.raises(AssertionError, match=r"loss differs by 2.00e-01 of its size \(5\)"):
        assert_same(got | {"loss": 6.0}, expected, 1e-6, "a test")
    with pytest.raises(AssertionError, match="loss"):
        assert_same(got | {"loss": np.nan}, expected, 1e-6, "a test")
    with pytest.raises(AssertionError, match=r"bias \(shapes \(2,\) and \(1,\)\)"):
        assert_same(expected | {"bias": np.zeros(2)}, expected, 1e-6, "a test")


# Twins: the same names in the same order, with the same docstrings.

IDIOM = {
    "torch": {"glorot_", "tanh", "forward", "reset", "plan", "plan_by_refitting",
              "plan_by_gradient", "imagined_return", "filter", "planner_noise",
              "gradients", "update", "model_noise", "tensor", "normal", "dequantised"},
    "jax": {"glorot", "Linear", "Conv2d", "ConvTranspose2d", "scan_time", "named_parameters", "with_parameters",
            "sizes", "feature_size", "convolve", "spread", "weight_gradient", "convolve_backward", "spread_backward",
            "Settings", "act_step", "learn_step", "predict_step", "filter_step", "plan",
            "plan_by_refitting", "plan_by_gradient",
            "imagined_return", "planner_noise", "gradients", "update", "model_noise", "dequantised"},
}  # fmt: skip


def public_names(path, skip):
    """[(name, docstring)] of classes, functions and methods, in order; what differs by idiom is left out."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name not in skip:
            found.append((node.name, ast.get_docstring(node)))
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__") and inner.name not in skip:
                    found.append((f"{node.name}.{inner.name}", ast.get_docstring(inner)))
    return found


@pytest.mark.parametrize("kind", ["model", "agent"])
def test_the_twins_have_the_same_names_in_the_same_order(kind):
    """And the same docstrings, apart from what each framework needs for itself (IDIOM)."""
    folder = ROOT / "replications" / "planet"
    names = {f: public_names(folder / f"{kind}_{f}.py", IDIOM[f]) for f in ("torch", "jax")}
    assert [name for name, _ in names["torch"]] == [name for name, _ in names["jax"]]
    for (name, one), (_, other) in zip(names["torch"], names["jax"], strict=True):
        one, other = (text and text.replace("torch", "jax") for text in (one, other))
        if name not in ("MLP.resume", "RSSM.observe", "initialise", "make_optimiser", "PlanetAgent.load"):  # fmt: skip
            assert one == other, name
