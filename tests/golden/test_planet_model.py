"""PlaNet's networks, losses and planner in torch against numbers made by running the authors' code.

Tolerance: the golden numbers are float32 results of another library; we compute in float64 from the same float32
inputs, so what remains is THEIR rounding: 1e-4 relative (sums over 12288 pixels, exponentials of large logits), with an
absolute part of 1e-4 of the array's largest entry for entries that nearly cancel. Gradients pass through more sums:
1e-3. The agent's own float32 is held against float64 in tests/replications/test_planet.py.
"""

import numpy as np
import pytest
import torch

from replications.planet.agent_torch import PlanetAgent, make_optimiser, objective
from replications.planet.config import Config, Loss, Model
from replications.planet.model_torch import (
    GRU,
    LATENTS,
    Decoder,
    Encoder,
    RewardHead,
    WorldModel,
    imagine,
    initial_state,
)
from shared.config import build
from shared.envs.spec import ActSpec
from tests import tiny
from tests.golden import planet_weights
from tests.golden.loading import options, weights

GRADIENT = 1e-3
FORWARD = 1e-4


def close(got, expected, tolerance=FORWARD, name=""):
    got, expected = (x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (got, expected))
    scale = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale + 1e-7, err_msg=name)


def double(x):
    return torch.from_numpy(np.asarray(x, np.float64))


def load(module, parameters):
    module.load_state_dict({name: double(value) for name, value in parameters.items()})
    return module.double()


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


def make_latent(arrays, meta, kind):
    embed = meta.get("embed") or arrays["embed"].shape[-1]
    config = model_config(meta, latent=kind)
    return load(
        LATENTS[kind](config, embed, arrays["action" if "action" in arrays else "prev_action"].shape[-1]),
        planet_weights.latent(weights(arrays)),
    )


@pytest.mark.golden("gru_block")
def test_gru_applies_the_reset_gate_before_the_candidate(case):
    arrays = case.load()
    cell = GRU(arrays["x"].shape[1], arrays["h_prev"].shape[1])
    parameters = planet_weights.gru(weights(arrays), "gru", "cell")
    load(cell, {name.removeprefix("cell."): value for name, value in parameters.items()})
    close(cell(double(arrays["x"]), double(arrays["h_prev"])), arrays["h_next"])


def check_state(got, arrays, prefix, names):
    for ours, theirs in names.items():
        if f"{prefix}_{theirs}" in arrays:
            close(got[ours], arrays[f"{prefix}_{theirs}"], name=f"{prefix}_{theirs}")


def kl_of(post, prior):
    from shared.formulas.divergences import gaussian_kl

    return gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)


def check_cell(case, kind, deterministic):
    """One step: posterior and prior statistics, and every part of the state that is carried on."""
    arrays = case.load()
    meta = options(arrays)
    latent = make_latent(arrays, meta, kind)
    previous = {"sample": double(arrays["prev_sample"]), "mean": double(arrays["prev_sample"])}
    previous |= {ours: double(arrays[f"prev_{theirs}"]) for ours, theirs in deterministic.items()}
    # The noise that turns their statistics into their sample, so that what follows the sample can be compared.
    stats = ("sample", "mean", "stddev")
    sample, mean, std = (double(arrays[f"post_{s}"]) for s in stats)
    prior_sample, prior_mean, prior_std = (double(arrays[f"prior_{s}"]) for s in stats)
    action, embed = double(arrays["prev_action"]), double(arrays["obs"])
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
def test_rssm_step(case):
    check_cell(case, "rssm", {"belief": "rnn_state"})


@pytest.mark.golden("ssm_cell")
def test_ssm_step(case):
    check_cell(case, "ssm", {})


@pytest.mark.golden("drnn_cell")
def test_drnn_step(case):
    check_cell(case, "drnn", {"encoder": "encoder_state", "decoder": "decoder_state"})


@pytest.mark.golden("unroll")
def test_unrolling_filters_then_predicts_open_loop(case):
    arrays = case.load()
    meta = options(arrays)
    latent = make_latent(arrays, meta, meta["kind"])
    embed, action = double(arrays["embed"]), double(arrays["action"])
    shape = arrays["post_mean"].shape
    names = {"mean": "mean", "std": "stddev", "sample": "sample", "belief": "belief"}

    def noise(name):
        return double(arrays.get(name, np.zeros(shape)))

    post, prior = latent.observe(embed, action, noise("post_eps"), initial_state(latent, shape[0]))
    check_state(post, arrays, "post", names)
    for ours, theirs in (("mean", "mean"), ("std", "stddev")):
        close(prior[ours], arrays[f"prior_{theirs}"], name=f"prior_{theirs}")
    close(kl_of(post, prior), arrays["kl_post_prior"])

    context, eps = meta["context"], noise("open_eps")
    seen, _ = latent.observe(embed[:, :context], action[:, :context], eps[:, :context], initial_state(latent, shape[0]))
    last = {name: value[:, -1] for name, value in seen.items()}
    dreamt = imagine(latent, last, action[:, context:], eps[:, context:])
    check_state({k: torch.cat([seen[k], dreamt[k]], 1) for k in seen}, arrays, "open", names)


@pytest.mark.golden("conv_small")
def test_encoder_decoder_and_image_likelihood(case):
    arrays = case.load()
    depth = arrays["w/encoder/conv1/bias"].shape[0]
    image = double(arrays["image"] / 32 - 0.5)
    encoder = load(Encoder(depth), planet_weights.encoder(weights(arrays)))
    decoder = load(Decoder(arrays["features"].shape[-1], depth), planet_weights.decoder(weights(arrays)))
    close(encoder(image), arrays["embed"])
    mean = decoder(double(arrays["features"]))
    close(mean, arrays["recon_mean"])
    from shared.formulas.elbo import gaussian_log_prob

    close(gaussian_log_prob(image, mean, 1.0).sum((-3, -2, -1)), arrays["log_prob"])


@pytest.mark.golden("conv_full")
def test_networks_at_full_size(case):
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
    features, image = double(arrays["features"]), double(arrays["image"] / 32 - 0.5)
    close(load(Encoder(32), planet_weights.encoder(source))(image), arrays["embed"])
    mean = load(Decoder(230, 32), planet_weights.decoder(source))(features)
    close(mean[..., ::4, ::4, :], arrays["recon_mean"])
    close(load(RewardHead(230, 300, 3, "relu"), planet_weights.reward(source))(features), arrays["reward_mean"])


@pytest.mark.golden("reward_head")
def test_reward_head(case):
    arrays = case.load()
    meta = options(arrays)
    head = RewardHead(arrays["features"].shape[-1], meta["units"], meta["layers"], meta["activation"])
    mean = load(head, planet_weights.reward(weights(arrays)))(double(arrays["features"]))
    close(mean, arrays["mean"])
    from shared.formulas.elbo import gaussian_log_prob

    close(gaussian_log_prob(double(arrays["reward"]), mean, 1.0), arrays["log_prob"])


def check_gradients(module, expected):
    """Every stored gradient, by our name; parameters without one must have none or zero."""
    for name, parameter in module.named_parameters():
        if name in expected:
            close(parameter.grad, expected[name], GRADIENT, name)
        else:
            assert parameter.grad is None or not parameter.grad.any(), (
                f"{name} has a gradient, the golden file has none"
            )


@pytest.mark.golden("overshooting_rssm")
def test_latent_overshooting_loss_and_gradients(case):
    from replications.planet.agent_torch import overshooting
    from shared.formulas.divergences import floor_nats

    arrays = case.load()
    meta = options(arrays)
    latent = make_latent(arrays, meta, "rssm")
    shape = arrays["os_prior_mean"].shape
    noise = double(arrays.get("post_eps", np.zeros(arrays["post_mean"].shape)))
    post, prior = latent.observe(
        double(arrays["embed"]), double(arrays["action"]), noise, initial_state(latent, shape[0])
    )
    divergence = (floor_nats(kl_of(post, prior), meta["free_nats"]) - meta["free_nats"]).mean()
    close(divergence, arrays["loss_divergence"])
    os_noise = double(arrays.get("os_prior_eps", np.zeros(shape)))
    loss = overshooting(latent, post, double(arrays["action"]), os_noise, meta["free_nats"]).mean()
    close(loss, arrays["loss_overshooting"])
    loss.backward()
    zeros = {name: np.zeros_like(value) for name, value in weights(arrays).items()}
    check_gradients(latent, planet_weights.latent({**zeros, **weights(arrays, "g_w/")}))


@pytest.mark.golden("loss_full")
def test_whole_objective_and_every_gradient(case):
    arrays = case.load()
    meta = options(arrays)
    depth = arrays["w/encoder/conv1/bias"].shape[0]
    config = model_config(meta, latent="rssm", encoder_depth=depth)
    model = WorldModel(config, arrays["action"].shape[-1], torch.Generator().manual_seed(0))
    load(model, planet_weights.world_model(weights(arrays)))
    scales = meta["scales"]
    loss = Loss(
        image_scale=scales["image"],
        reward_scale=scales["reward"],
        divergence_scale=scales["divergence"],
        overshooting_scale=scales["overshooting"],
        overshooting_distance=meta["overshooting_distance"],
        free_nats=float(meta["free_nats"]),
    )
    total, metrics = objective(
        model,
        loss,
        image=double(arrays["image"] / 32 - 0.5),
        action=double(arrays["action"]),
        reward=double(arrays["reward"]),
        noise=double(arrays["post_eps"]),
        overshooting_noise=double(arrays["os_prior_eps"]) if scales["overshooting"] else None,
    )
    for name, sign in (("divergence", 1), ("image", -1), ("reward", -1), ("overshooting", 1)):
        if f"obj_{name}" in arrays:
            close(sign * metrics[f"{name}_loss"], arrays[f"obj_{name}"], name=name)
    close(total, arrays["loss_total"])
    total.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    close(norm, arrays["grad_norm"], GRADIENT)
    zeros = {name: np.zeros_like(value) for name, value in weights(arrays).items()}
    check_gradients(model, planet_weights.world_model({**zeros, **weights(arrays, "g_w/")}))


class KnownWorld:
    """x' = A x + B a + c, in place of the learned model; its reward is minus the squared distance to the goal."""

    def __init__(self, arrays):
        self.a, self.b, self.c, self.goal = (double(arrays[name]) for name in ("A", "B", "c", "goal"))
        self.latent = self

    def prior(self, state, action, noise):
        return {"sample": state["sample"] @ self.a.T + action @ self.b.T + self.c}

    def features(self, state):
        return state["sample"]

    def reward(self, x):
        return -((x - self.goal) ** 2).sum(-1)


@pytest.mark.golden("cem")
def test_the_agents_planner(case):
    """PlanetAgent.plan itself, every iteration of it, with the authors' noise."""
    arrays = case.load()
    assert (arrays["min_action"], arrays["max_action"]) == (-1, 1)
    noise, x0 = double(arrays["noise"]), double(arrays["x0"])[None]
    for iterations in range(len(noise) + 1):
        config = build(
            Config,
            tiny.values(
                planner__horizon=int(arrays["horizon"]),
                planner__iterations=iterations,
                planner__candidates=int(arrays["amount"]),
                planner__elites=int(arrays["topk"]),
            ),
            where="a golden file",
        )
        agent = PlanetAgent(config, {}, ActSpec(noise.shape[-1]), seed=np.random.SeedSequence(0))
        agent.model = KnownWorld(arrays)
        latent_noise = torch.zeros(iterations, noise.shape[1], noise.shape[2], 1)
        mean, std = agent.plan({"sample": x0}, noise[:iterations, None], latent_noise)
        if iterations:
            close(mean[0], arrays["mean_per_iter"][iterations - 1], name=f"mean after iteration {iterations}")
            close(std[0], arrays["stddev_per_iter"][iterations - 1], name=f"std after iteration {iterations}")
    close(mean[0], arrays["plan"])
    close(mean[0, 0], arrays["first_action"])


@pytest.mark.golden("adam_clip")
def test_the_agents_optimiser(case):
    """PlanetAgent.update itself: six steps of clipping by the global norm and Adam with TensorFlow's epsilon."""
    arrays = case.load()
    rates = {"learning_rate": "lr", "clip_norm": "clip", "epsilon": "epsilon", "beta1": "beta1", "beta2": "beta2"}
    settings = {f"optimiser__{ours}": float(arrays[theirs]) for ours, theirs in rates.items()}
    config = build(Config, tiny.values(**settings), where="a golden file")
    agent = PlanetAgent(config, {}, ActSpec(1), seed=np.random.SeedSequence(0))
    agent.model = torch.nn.ParameterList([double(arrays["a0"]), double(arrays["b0"])])
    agent.optimiser = make_optimiser(agent.model, config.optimiser)
    for step in range(len(arrays["grad_norm"])):
        for parameter, name in zip(agent.model, "ab", strict=True):
            parameter.grad = double(arrays[f"grad_{name}"][step])
        close(agent.update(), arrays["grad_norm"][step], name=f"norm before clipping, step {step + 1}")
        for parameter, name in zip(agent.model, "ab", strict=True):
            close(parameter, arrays[name][step], name=f"{name} after step {step + 1}")
