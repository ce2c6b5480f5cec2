"""PlaNet's networks, losses, planner and optimiser, in torch and JAX, against numbers made by the authors' code.

Tolerance: the golden numbers are float32 results of another library; we compute in float64 from the same float32
inputs, so what remains is THEIR rounding: 1e-4 relative (sums over 12288 pixels, exponentials of large logits), with an
absolute part of 1e-4 of the array's largest entry for entries that nearly cancel. Gradients pass through more sums:
1e-3. The agents' own float32 is held against float64 in tests/replications/.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.planet.config import Config, Loss, Model
from shared.config import build
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import gaussian_log_prob
from tests import tiny
from tests.golden import planet_weights
from tests.golden.loading import options, weights
from tests.golden.planet_sides import SIDES

GRADIENT = 1e-3
FORWARD = 1e-4


@pytest.fixture(params=SIDES)
def side(request):
    """One of the two frameworks, in float64."""
    side = SIDES[request.param]()
    with side.precision():
        yield side


def close(got, expected, tolerance=FORWARD, name=""):
    got, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x) for x in (got, expected))
    scale = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale + 1e-7, err_msg=name)


def model_config(meta, **changes):
    """A Model config with the options of a golden file."""
    values = {
        "latent": meta.get("kind", "rssm"),
        "stoch_size": meta.get("stoch", 1),
        "hidden_size": meta.get("hidden", 1),
        "deter_size": meta.get("deter") or meta.get("belief") or 1,
        "hidden_layers": meta.get("num_layers", 1),
        "activation": meta.get("activation", "relu"),
        "min_std": meta.get("min_stddev", 0.1),
        "mean_only": meta.get("mean_only", False),
        "future_rnn": meta.get("future_rnn", True),
        "encoder_depth": 2,
        "image_bits": 5,
        "reward_layers": meta.get("layers", 3),
        "reward_units": meta.get("units", 7),
    }
    return Model(**{**values, **changes})


def make_latent(side, arrays, meta, kind):
    embed = meta.get("embed") or arrays["embed"].shape[-1]
    config = model_config(meta, latent=kind)
    actions = arrays["action" if "action" in arrays else "prev_action"].shape[-1]
    return side.load(side.model.LATENTS[kind](config, embed, actions), planet_weights.latent(weights(arrays)))


@pytest.mark.golden("gru_block")
def test_gru_applies_the_reset_gate_before_the_candidate(side, case):
    arrays = case.load()
    cell = side.model.GRU(arrays["x"].shape[1], arrays["h_prev"].shape[1])
    cell = side.load(cell, planet_weights.gru_alone(weights(arrays)))
    close(cell(side.double(arrays["x"]), side.double(arrays["h_prev"])), arrays["h_next"])


def check_state(got, arrays, prefix, names):
    for ours, theirs in names.items():
        if f"{prefix}_{theirs}" in arrays:
            close(got[ours], arrays[f"{prefix}_{theirs}"], name=f"{prefix}_{theirs}")


def kl_of(post, prior):
    return gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)


def check_cell(side, case, kind, deterministic):
    """One step: posterior and prior statistics, and every part of the state that is carried on."""
    arrays = case.load()
    meta = options(arrays)
    latent = make_latent(side, arrays, meta, kind)
    previous = {"sample": side.double(arrays["prev_sample"]), "mean": side.double(arrays["prev_sample"])}
    previous |= {ours: side.double(arrays[f"prev_{theirs}"]) for ours, theirs in deterministic.items()}
    # The noise that turns their statistics into their sample, so that what follows the sample can be compared.
    stats = ("sample", "mean", "stddev")
    sample, mean, std = (side.double(arrays[f"post_{s}"]) for s in stats)
    prior_sample, prior_mean, prior_std = (side.double(arrays[f"prior_{s}"]) for s in stats)
    action, embed = side.double(arrays["prev_action"]), side.double(arrays["obs"])
    post, prior = latent.posterior(previous, action, embed, (sample - mean) / std)
    blind = latent.prior(previous, action, (prior_sample - prior_mean) / prior_std)
    names = {
        "mean": "mean",
        "std": "stddev",
        "sample": "sample",
        "encoder": "encoder_state",
        "decoder": "decoder_state",
    }
    check_state(post, arrays, "post", names)
    check_state(blind, arrays, "prior", names)
    for part in ("mean", "std"):
        close(prior[part], blind[part], 1e-12)
    if "belief" in arrays:
        close(post["belief"], arrays["belief"])
        close(prior["belief"], arrays["belief"])
    if "kl_post_prior" in arrays:
        close(kl_of(post, prior), arrays["kl_post_prior"])
    if "post_features" in arrays:
        close(latent.features(post), arrays["post_features"])


@pytest.mark.golden("rssm_cell")
def test_rssm_step(side, case):
    check_cell(side, case, "rssm", {"belief": "rnn_state"})


@pytest.mark.golden("ssm_cell")
def test_ssm_step(side, case):
    check_cell(side, case, "ssm", {})


@pytest.mark.golden("drnn_cell")
def test_drnn_step(side, case):
    check_cell(side, case, "drnn", {"encoder": "encoder_state", "decoder": "decoder_state"})


@pytest.mark.golden("unroll")
def test_unrolling_filters_then_predicts_open_loop(side, case):
    arrays = case.load()
    meta = options(arrays)
    latent = make_latent(side, arrays, meta, meta["kind"])
    embed, action = side.double(arrays["embed"]), side.double(arrays["action"])
    shape = arrays["post_mean"].shape
    names = {"mean": "mean", "std": "stddev", "sample": "sample", "belief": "belief"}

    def noise(name):
        return side.double(arrays.get(name, np.zeros(shape)))

    post, prior = latent.observe(embed, action, noise("post_eps"), side.model.initial_state(latent, shape[0]))
    check_state(post, arrays, "post", names)
    for ours, theirs in (("mean", "mean"), ("std", "stddev")):
        close(prior[ours], arrays[f"prior_{theirs}"], name=f"prior_{theirs}")
    close(kl_of(post, prior), arrays["kl_post_prior"])

    context, eps = meta["context"], noise("open_eps")
    start = side.model.initial_state(latent, shape[0])
    seen, _ = latent.observe(embed[:, :context], action[:, :context], eps[:, :context], start)
    last = {name: value[:, -1] for name, value in seen.items()}
    dreamt = side.model.imagine(latent, last, action[:, context:], eps[:, context:])
    both = {k: np.concatenate([side.numpy(seen[k]), side.numpy(dreamt[k])], 1) for k in seen}
    check_state(both, arrays, "open", names)


@pytest.mark.golden("conv_small")
def test_encoder_decoder_and_image_likelihood(side, case):
    arrays = case.load()
    depth = arrays["w/encoder/conv1/bias"].shape[0]
    image = side.double(arrays["image"] / 32 - 0.5)
    encoder = side.load(side.model.Encoder(depth), planet_weights.encoder(weights(arrays)))
    decoder = side.model.Decoder(arrays["features"].shape[-1], depth)
    decoder = side.load(decoder, planet_weights.decoder(weights(arrays)))
    close(encoder(image), arrays["embed"])
    mean = decoder(side.double(arrays["features"]))
    close(mean, arrays["recon_mean"])
    close(gaussian_log_prob(image, mean, 1.0).sum((-3, -2, -1)), arrays["log_prob"])


@pytest.mark.golden("conv_full")
def test_networks_at_full_size(side, case):
    arrays = case.load()
    source, random = {}, np.random.RandomState(int(arrays["weight_seed"]))
    for name, text in zip(arrays["weight_names"], arrays["weight_shapes"], strict=True):
        shape = tuple(int(n) for n in str(text).strip("()[] ").replace("x", ",").split(",") if n.strip())
        fan = 4 * shape[3] if "deconv" in name and len(shape) == 4 else int(np.prod(shape[:-1]))
        value = random.normal(0, 0.1, shape) if len(shape) == 1 else random.normal(0, 1.4 / np.sqrt(fan), shape)
        source[str(name).removeprefix("w/")] = value.astype(np.float32)
    checksum = sum(np.abs(value.astype(np.float64)).sum() for value in source.values())
    np.testing.assert_allclose(checksum, arrays["weight_checksum"], rtol=1e-9)
    assert sum(value.size for value in source.values()) == arrays["param_count"]
    features, image = side.double(arrays["features"]), side.double(arrays["image"] / 32 - 0.5)
    close(side.load(side.model.Encoder(32), planet_weights.encoder(source))(image), arrays["embed"])
    mean = side.load(side.model.Decoder(230, 32), planet_weights.decoder(source))(features)
    close(mean[..., ::4, ::4, :], arrays["recon_mean"])
    reward = side.load(side.model.RewardHead(230, 300, 3, "relu"), planet_weights.reward(source))
    close(reward(features), arrays["reward_mean"])


@pytest.mark.golden("reward_head")
def test_reward_head(side, case):
    arrays = case.load()
    meta = options(arrays)
    head = side.model.RewardHead(arrays["features"].shape[-1], meta["units"], meta["layers"], meta["activation"])
    mean = side.load(head, planet_weights.reward(weights(arrays)))(side.double(arrays["features"]))
    close(mean, arrays["mean"])
    close(gaussian_log_prob(side.double(arrays["reward"]), mean, 1.0), arrays["log_prob"])


def check_gradients(gradients, expected):
    """Every stored gradient, by our name; the others must be zero."""
    for name, gradient in gradients.items():
        if name in expected:
            close(gradient, expected[name], GRADIENT, name)
        else:
            assert not gradient.any(), f"{name} has a gradient, the golden file has none"


@pytest.mark.golden("overshooting_rssm")
def test_latent_overshooting_loss_and_gradients(side, case):
    arrays = case.load()
    meta = options(arrays)
    shape = arrays["os_prior_mean"].shape
    noise = side.double(arrays.get("post_eps", np.zeros(arrays["post_mean"].shape)))
    os_noise = side.double(arrays.get("os_prior_eps", np.zeros(shape)))
    embed, action = side.double(arrays["embed"]), side.double(arrays["action"])
    settings = SimpleNamespace(
        free_nats=float(meta["free_nats"]), overshooting_mean="all", overshooting_reward_scale=0.0, keep_free_nats=False
    )

    def loss(latent):
        post, prior = latent.observe(embed, action, noise, side.model.initial_state(latent, shape[0]))
        divergence = (floor_nats(kl_of(post, prior), meta["free_nats"]) - meta["free_nats"]).mean()
        world = SimpleNamespace(latent=latent)
        return side.agent.overshooting(world, settings, post, action, None, os_noise)[0], divergence

    value, divergence, gradients = side.value_and_gradients(loss, make_latent(side, arrays, meta, "rssm"))
    close(divergence, arrays["loss_divergence"])
    close(value, arrays["loss_overshooting"])
    zeros = {name: np.zeros_like(value) for name, value in weights(arrays).items()}
    check_gradients(gradients, planet_weights.latent({**zeros, **weights(arrays, "g_w/")}))


@pytest.mark.golden("loss_full")
def test_whole_objective_and_every_gradient(side, case):
    arrays = case.load()
    meta = options(arrays)
    config = model_config(meta, latent="rssm", encoder_depth=arrays["w/encoder/conv1/bias"].shape[0])
    world = side.world_model(config, arrays["action"].shape[-1])
    world = side.load(world, planet_weights.world_model(weights(arrays)))
    scales = meta["scales"]
    settings = Loss(
        alignment="arriving",
        likelihood="unit_gaussian",
        keep_free_nats=False,
        global_prior_scale=0.0,
        overshooting_reward_scale=0.0,
        overshooting_mean="all",
        image_scale=scales["image"],
        reward_scale=scales["reward"],
        divergence_scale=scales["divergence"],
        overshooting_scale=scales["overshooting"],
        overshooting_distance=meta["overshooting_distance"],
        free_nats=float(meta["free_nats"]),
    )
    inputs = {
        "image": side.double(arrays["image"] / 32 - 0.5),
        "action": side.double(arrays["action"]),
        "reward": side.double(arrays["reward"]),
        "noise": side.double(arrays["post_eps"]),
        "overshooting_noise": side.double(arrays["os_prior_eps"]) if scales["overshooting"] else None,
    }
    total, metrics, gradients = side.value_and_gradients(lambda m: side.agent.objective(m, settings, **inputs), world)
    for name, sign in (("divergence", 1), ("image", -1), ("reward", -1), ("overshooting", 1)):
        if f"obj_{name}" in arrays:
            close(sign * metrics[f"{name}_loss"], arrays[f"obj_{name}"], name=name)
    close(total, arrays["loss_total"])
    close(np.sqrt(sum((g**2).sum() for g in gradients.values())), arrays["grad_norm"], GRADIENT)
    zeros = {name: np.zeros_like(value) for name, value in weights(arrays).items()}
    check_gradients(gradients, planet_weights.world_model({**zeros, **weights(arrays, "g_w/")}))


class KnownWorld:
    """x' = A x + B a + c, in place of the learned model; its reward is minus the squared distance to the goal."""

    def __init__(self, side, arrays):
        self.a, self.b, self.c, self.goal = (side.double(arrays[name]) for name in ("A", "B", "c", "goal"))
        self.latent = self

    def prior(self, state, action, noise):
        return {"sample": state["sample"] @ self.a.T + action @ self.b.T + self.c}

    def features(self, state):
        return state["sample"]

    def reward(self, x):
        return -((x - self.goal) ** 2).sum(-1)


@pytest.mark.golden("cem")
def test_the_agents_planner(side, case):
    """The agent's own `plan`, every iteration of it, with the authors' noise."""
    arrays = case.load()
    assert (arrays["min_action"], arrays["max_action"]) == (-1, 1)
    noise, x0 = side.double(arrays["noise"]), side.double(arrays["x0"])[None]
    for iterations in range(len(noise) + 1):
        changes = {"horizon": "horizon", "candidates": "amount", "elites": "topk"}
        values = {f"planner__{ours}": int(arrays[theirs]) for ours, theirs in changes.items()}
        config = build(Config, tiny.values(planner__iterations=iterations, **values), where="a golden file")
        latent_noise = side.double(np.zeros((iterations, *noise.shape[1:3], 1)))
        state = {"sample": x0}
        mean, std = side.plan(KnownWorld(side, arrays), config, state, noise[:iterations, None], latent_noise)
        if iterations:
            close(mean[0], arrays["mean_per_iter"][iterations - 1], name=f"mean after iteration {iterations}")
            close(std[0], arrays["stddev_per_iter"][iterations - 1], name=f"std after iteration {iterations}")
    close(mean[0], arrays["plan"])
    close(mean[0, 0], arrays["first_action"])


@pytest.mark.golden("adam_clip")
def test_the_agents_optimiser(side, case):
    """The agent's own update: six steps of clipping by the global norm and Adam with TensorFlow's epsilon."""
    arrays = case.load()
    rates = {"learning_rate": "lr", "clip_norm": "clip", "epsilon": "epsilon", "beta1": "beta1", "beta2": "beta2"}
    settings = {f"optimiser__{ours}": float(arrays[theirs]) for ours, theirs in rates.items()}
    config = build(Config, tiny.values(**settings), where="a golden file")
    gradients = list(zip(arrays["grad_a"], arrays["grad_b"], strict=True))
    results = list(side.updates(config, (arrays["a0"], arrays["b0"]), gradients))
    assert len(results) == len(arrays["grad_norm"])
    for step, (norm, parameters) in enumerate(results):
        close(norm, arrays["grad_norm"][step], name=f"norm before clipping, step {step + 1}")
        for parameter, name in zip(parameters, "ab", strict=True):
            close(parameter, arrays[name][step], name=f"{name} after step {step + 1}")
