"""Dreamer's networks and whole training steps, in torch and in JAX, against numbers from the authors' code.

Everything runs in float64 from the same float32 inputs; what remains is the authors' float32. FORWARD and GRADIENT are
relative to the largest entry (data/golden/dreamer/README.md asks for 1e-4 and 1e-3). The world of the training steps is
variant tf2 of experiments.yaml, so its settings are held too. The latent model of the paper's lineage (TF1) is
PlaNet's: it is held to PlaNet's files. Formulas alone: test_dreamer_core.py and test_dreamer_policies.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.dreamer.config import Config
from shared.config import build, resolve
from shared.envs.spec import ActSpec
from shared.formulas.divergences import gaussian_kl
from shared.formulas.elbo import gaussian_log_prob
from tests import tiny_dreamer
from tests.golden import dreamer_weights, planet_weights
from tests.golden.dreamer_sides import SIDES
from tests.golden.loading import options, weights

FORWARD = 1e-5
GRADIENT = 3e-5
STATE = {"mean": "mean", "std": "std", "sample": "stoch", "belief": "deter"}


@pytest.fixture(params=SIDES)
def side(request):
    """One of the two frameworks, in float64."""
    side = SIDES[request.param]()
    with side.precision():
        yield side


def close(got, expected, tolerance=FORWARD, name=""):
    got, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x) for x in (got, expected))
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, in the file {expected.shape}"
    scale = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale + 1e-8, err_msg=name)


def state_close(got, arrays, prefix, names=STATE):
    for ours, theirs in names.items():
        close(got[ours], arrays[f"{prefix}_{theirs}"], name=f"{prefix}_{theirs}")


def model_config(**changes):
    """The Model settings of variant tf2 with the sizes of a golden file."""
    return build(Config, tiny_dreamer.values("tf2", **changes), where="a golden file").model


def shared_noise(side, eps, *batch):
    """TF2 draws one noise vector for the whole batch: (..., S) -> (*batch, ..., S)."""
    return side.double(np.broadcast_to(eps, (*batch, *eps.shape)))


# ------------------------------------------------------------------------------------------------ the latent model


def make_latent(side, arrays):
    meta = options(arrays)
    sizes = {"stoch_size": meta["stoch"], "deter_size": meta["deter"], "hidden_size": meta["hidden"]}
    config = model_config(**{f"model__{name}": value for name, value in sizes.items()})
    latent = side.model.RSSM(config, meta["embed"], meta["action"])
    return side.load(latent, dreamer_weights.latent(weights(arrays)))


@pytest.mark.golden("rssm_cell")
def test_rssm_step(side, case):
    arrays = case.load()
    latent, size = make_latent(side, arrays), len(arrays["action"])
    previous = {"sample": side.double(arrays["prev_stoch"]), "belief": side.double(arrays["prev_deter"])}
    action, embed = side.double(arrays["action"]), side.double(arrays["embed"])
    post, prior = latent.posterior(previous, action, embed, shared_noise(side, arrays["post_eps"], size))
    state_close(post, {**arrays, "post_deter": arrays["deter"]}, "post")
    state_close(prior, arrays, "prior", {"mean": "mean", "std": "std"})
    close(latent.features(post), arrays["post_feat"])
    close(gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1), arrays["kl_post_prior"])
    for prefix in ("prior", "img"):
        blind = latent.prior(previous, action, shared_noise(side, arrays[f"{prefix}_eps"], size))
        state_close(blind, {**arrays, "prior_deter": arrays["deter"]}, prefix)


@pytest.mark.golden("rssm_unroll")
def test_filtering_a_sequence_then_imagining(side, case):
    arrays = case.load()
    latent, size = make_latent(side, arrays), len(arrays["action"])
    embed, action = side.double(arrays["embed"]), side.double(arrays["action"])
    start = side.model.initial_state(latent, size)
    post, prior = latent.observe(embed, action, shared_noise(side, arrays["post_eps"], size), start)
    state_close(post, arrays, "post")
    state_close(prior, arrays, "prior", {"mean": "mean", "std": "std", "belief": "deter"})
    last = {name: value[:, -1] for name, value in post.items()}
    future, noise = side.double(arrays["future_action"]), shared_noise(side, arrays["imag_eps"], size)
    state_close(side.model.imagine(latent, last, future, noise), arrays, "imag")


@pytest.mark.golden("gru_block", paper="planet")
def test_the_papers_gru_applies_the_reset_gate_before_the_candidate(side, case):
    arrays = case.load()
    cell = side.model.BlockGRU(arrays["x"].shape[1], arrays["h_prev"].shape[1])
    cell = side.load(cell, planet_weights.gru_alone(weights(arrays)))
    close(cell(side.double(arrays["x"]), side.double(arrays["h_prev"])), arrays["h_next"])


@pytest.mark.golden("unroll_rssm_sampled", paper="planet")
def test_the_papers_latent_model_filters_a_sequence_then_imagines(side, case):
    """`imagine` continues from the state after the file's context, with the file's noise."""
    arrays = case.load()
    meta, size = options(arrays), len(arrays["action"])
    changes = {"stoch_size": meta["stoch"], "deter_size": meta["deter"], "hidden_size": meta["hidden"]}
    changes = {f"model__{name}": value for name, value in (changes | {"activation": meta["activation"]}).items()}
    config = build(Config, tiny_dreamer.values(**changes), where="a golden file").model
    latent = side.model.RSSM(config, meta["embed"], meta["action"])
    latent = side.load(latent, planet_weights.latent(weights(arrays)))
    embed, action, noise = (side.double(arrays[name]) for name in ("embed", "action", "post_eps"))
    post, prior = latent.observe(embed, action, noise, side.model.initial_state(latent, size))
    names = {"mean": "mean", "std": "stddev", "sample": "sample", "belief": "belief"}
    state_close(post, arrays, "post", names)
    state_close(prior, arrays, "prior", {"mean": "mean", "std": "stddev", "belief": "belief"})
    context, eps = meta["context"], side.double(arrays["open_eps"])
    start = {name: side.double(arrays[f"open_{theirs}"][:, context - 1]) for name, theirs in names.items()}
    dreamt = side.model.imagine(latent, start, action[:, context:], eps[:, context:])
    state_close(dreamt, {name: value[:, context:] for name, value in arrays.items() if "open_" in name}, "open", names)


# -------------------------------------------------------------------------------------------------- the other networks


@pytest.mark.golden("conv_small")
def test_encoder_decoder_and_image_likelihood(side, case):
    arrays = case.load()
    depth = arrays["w/encoder/h1/bias"].shape[0]
    image = side.double(arrays["image"] / 255 - 0.5)
    encoder = side.load(side.model.Encoder(depth), dreamer_weights.encoder(weights(arrays)))
    decoder = side.model.Decoder(arrays["features"].shape[-1], depth)
    mean = side.load(decoder, dreamer_weights.decoder(weights(arrays)))(side.double(arrays["features"]))
    close(encoder(image), arrays["embed"])
    close(mean, arrays["recon_mean"])
    close(gaussian_log_prob(image, mean, 1.0).sum((-3, -2, -1)), arrays["log_prob"])


@pytest.mark.golden("conv_full")
def test_networks_at_full_size(side, case):
    """The paper's sizes as paper.yaml has them: heads of 400 units, reward 2, value 3, pcont 3, actor 4 layers."""
    arrays = case.load()
    source, random = {}, np.random.RandomState(int(arrays["weight_seed"]))
    for name, text in zip(arrays["weight_names"], arrays["weight_shapes"], strict=True):
        shape = tuple(int(n) for n in str(text).strip("()").split(",") if n.strip())
        fan = 4 * shape[3] if str(name).startswith("decoder") and len(shape) == 4 else int(np.prod(shape[:-1]))
        value = random.normal(0, 0.1, shape) if len(shape) == 1 else random.normal(0, 1.4 / np.sqrt(fan), shape)
        source[str(name)] = value.astype(np.float32)
    checksum = sum(np.abs(value.astype(np.float64)).sum() for value in source.values())
    np.testing.assert_allclose(checksum, arrays["weight_checksum"], rtol=1e-9)
    assert sum(value.size for value in source.values()) == arrays["param_count"]
    tree = resolve("dreamer", "dreamer", {"name": "paper"})["values"]
    config = build(Config, {**tree, "model": {**tree["model"], "continuation": True}}, where="paper.yaml")
    features, image = side.double(arrays["features"]), side.double(arrays["image"] / 255 - 0.5)
    world = side.made("WorldModel", config.model, 6)
    close(side.load(world.encoder, dreamer_weights.encoder(source))(image), arrays["embed"])
    mean = side.load(world.decoder, dreamer_weights.decoder(source))(features)
    close(mean[..., ::4, ::4, :], arrays["recon_mean_sub4"])
    size = arrays["features"].shape[-1]
    heads = {"reward": world.reward, "value": side.made("Value", config.model, size), "pcont": world.continuation}
    for name, head in heads.items():
        got = side.numpy(side.load(head, dreamer_weights.head(source, name))(features))
        close(1 / (1 + np.exp(-got)) if name == "pcont" else got, arrays[name], name=name)
    actor = side.made("Actor", config.model, config.behaviour, size, ActSpec(6))
    mean, std = side.load(actor, dreamer_weights.head(source, "actor"))(features)
    close(mean, arrays["action_mean"])
    close(std, arrays["action_std"])


# ------------------------------------------------------------------------------------------------------- the policies


def make_actor(side, arrays, act_spec, parameters, **behaviour):
    """An actor with the options of a golden file."""
    meta = options(arrays)
    layout = {"dense_units": meta["units"], "actor_layers": meta["layers"], "activation": meta["activation"]}
    layout = SimpleNamespace(**layout, joint_heads=True)
    names = {"mean_scale": "mean_scale", "init_std": "init_std", "min_std": "min_std"}
    settings = SimpleNamespace(**{ours: float(meta[theirs]) for ours, theirs in names.items()}, **behaviour)
    return side.load(side.made("Actor", layout, settings, arrays["features"].shape[-1], act_spec), parameters)


@pytest.mark.golden("action_head")
def test_continuous_policy_its_samples_and_their_gradient(side, case):
    arrays = case.load()
    source, spec = weights(arrays), ActSpec(arrays["action"].shape[-1])
    actor = make_actor(side, arrays, spec, dreamer_weights.head(source, "actor"))
    features, eps = side.double(arrays["features"]), side.double(arrays["eps"])
    for got, name in zip(actor(features), ("mean", "std"), strict=True):
        close(got, arrays[name], name=name)
    close(actor.sample(features, eps), arrays["sample"])
    slopes = side.parameter_slopes(lambda module: module.sample(features, eps).sum(), actor)
    close(slopes["out.bias"], arrays["grad_raw_of_sum_sample"].sum(0), GRADIENT)


@pytest.mark.golden("tf1_action_head")
def test_tf1_policy(side, case):
    arrays = case.load()
    spec = ActSpec(arrays["action"].shape[-1])
    actor = make_actor(side, arrays, spec, dreamer_weights.tf1_actor(weights(arrays)))
    for got, name in zip(actor(side.double(arrays["features"])), ("mean", "std"), strict=True):
        close(got, arrays[name], name=name)


def choosing(index, logits):
    """Uniform draws that pick these classes: the middle of each class's part of [0, 1). (...) from (...), (..., K)."""
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    ends = np.cumsum(probs / probs.sum(-1, keepdims=True), -1)
    middle = ends - np.diff(ends, axis=-1, prepend=0) / 2
    return np.take_along_axis(middle, index[..., None].astype(int), -1)[..., 0]


def bare_actor(side, classes, estimator):
    """A discrete actor whose logits are its features."""
    config = SimpleNamespace(dense_units=classes, actor_layers=0, activation="elu", joint_heads=False)
    behaviour = SimpleNamespace(action_gradient=estimator)
    actor = side.made("Actor", config, behaviour, classes, ActSpec(classes, discrete=True))
    return side.load(actor, {"out.weight": np.eye(classes), "out.bias": np.zeros(classes)})


def check_discrete(side, arrays, estimator, prefix):
    """The sample, and the gradient of sum(sample * coef) to the logits."""
    actor = bare_actor(side, arrays["logits"].shape[-1], estimator)
    uniform = side.double(choosing(arrays["sample_index"], arrays["logits"]))
    coef = side.double(arrays["coef"])

    def sampled(logits):
        sample = actor.sample(logits, uniform)
        return (sample * coef).sum(), sample

    _, sample, slopes = side.slopes(sampled, logits=arrays["logits"])
    np.testing.assert_array_equal(side.numpy(sample), arrays[f"{prefix}sample"])
    close(slopes["logits"], arrays[f"{prefix}grad_logits"], GRADIENT)


@pytest.mark.golden("onehot_head")
def test_discrete_policy_its_mode_and_straight_through_samples(side, case):
    arrays = case.load()
    actor = bare_actor(side, arrays["logits"].shape[-1], "straight")
    np.testing.assert_array_equal(side.numpy(actor.mode(side.double(arrays["logits"]), None)), arrays["mode"])
    check_discrete(side, arrays, "straight", "")


@pytest.mark.golden("tf1_onehot")
@pytest.mark.parametrize("estimator", ["score", "straight"])
def test_tf1_discrete_samples(side, estimator, case):
    check_discrete(side, case.load(), estimator, f"{estimator}/")


# ---------------------------------------------------------------------------------------------------- the objectives


class KnownHeads:
    """Stands for world model and value: each reads its entry of the features."""

    def __init__(self, continues):
        self.continuation = (lambda features: features[..., 2]) if continues else None

    def reward(self, features):
        return features[..., 0]

    def value(self, features):
        return features[..., 1]


@pytest.mark.golden("tf1_behaviour")
@pytest.mark.parametrize("label", ["default", "pcont", "novalue"])
def test_tf1_objectives_and_what_is_constant_in_them(side, label, case):
    """The paper's settings as paper.yaml has them. An input without a stored gradient has none."""
    arrays, heads = case.load(), KnownHeads(label == "pcont")
    behaviour = build(Config, tiny_dreamer.values(), where="paper.yaml").behaviour
    value = None if label == "novalue" else heads.value
    inputs = {name: arrays[name] for name in ("reward", "value", "pcont_logit")}

    def expected(name):
        return arrays.get(f"{label}/{name}", np.zeros_like(arrays["reward"]))

    def actor(reward, value_, pcont_logit):
        features = side.stack([reward.T, value_.T, pcont_logit.T])
        loss, returns, weight = side.agent.actor_objective(heads, value, behaviour, features)
        return loss, (returns, weight)

    names = {"reward": "reward", "value_": "value", "pcont_logit": "pcont_logit"}
    loss, (returns, weight), slopes = side.slopes(actor, **{name: inputs[theirs] for name, theirs in names.items()})
    close(-side.numpy(loss), expected("action_objective"))
    close(side.numpy(weight * returns).T, expected("action_values"))
    for name, theirs in names.items():
        close(-slopes[name], expected(f"action_grad_{theirs}"), GRADIENT, f"action_grad_{theirs}")
    if value is None:
        return

    def regression(value_):
        zeros = 0 * value_.T
        features = side.stack([zeros, value_.T, zeros])
        returned, weighed = (side.double(side.numpy(x)) for x in (returns, weight))
        return side.agent.value_objective(value, features, returned, weighed), None

    loss, _, slopes = side.slopes(regression, value_=inputs["value"])
    close(side.numpy(loss), expected("value_objective"))
    close(slopes["value_"], expected("value_grad_value"), GRADIENT)


@pytest.mark.golden("tf1_cpc")
@pytest.mark.parametrize("kind", ["batch", "time", "window"])
def test_contrastive_objective(side, kind, case):
    arrays = case.load()
    amounts = (int(arrays[f"cpc_{axis}_amount"]) for axis in ("batch", "time"))
    loss = SimpleNamespace(contrastive_negatives=kind)
    loss.contrastive_batch_shifts, loss.contrastive_time_shifts = amounts
    shifts = side.agent.contrastive_shifts(loss, *arrays["features"].shape[:2])

    def bound(pred_mean, pred_std, features):
        found = side.agent.contrastive_bound(pred_mean, pred_std, features, shifts)
        return found.mean(), found

    inputs = {name: arrays[name] for name in ("pred_mean", "pred_std", "features")}
    _, found, slopes = side.slopes(bound, **inputs)
    close(found, arrays[f"{kind}/objective"])
    for name in ("pred_mean", "features"):
        close(slopes[name], arrays[f"{kind}/grad_{name}"], GRADIENT, name)


# ------------------------------------------------------------------------------------------------ whole training steps


class Step:
    """A training step of the golden files: its config, parameters and inputs under our names."""

    def __init__(self, side, arrays):
        meta = self.meta = options(arrays)
        self.side, self.arrays = side, arrays
        size, length = arrays["reward"].shape
        sizes = {"stoch_size": "stoch_size", "deter_size": "deter_size", "hidden_size": "deter_size"}
        sizes |= {"encoder_depth": "cnn_depth", "dense_units": "num_units", "continuation": "pcont"}
        layers = {"reward_layers": 2, "value_layers": 3, "actor_layers": 4, "continuation_layers": 3}
        changes = {f"model__{ours}": meta[theirs] for ours, theirs in sizes.items()}
        changes |= {f"model__{name}": count for name, count in layers.items()}
        changes |= {"loss__free_nats": meta["free_nats"], "loss__divergence_scale": meta["kl_scale"]}
        changes |= {"loss__continuation_scale": meta["pcont_scale"], "loss__reward_transform": meta["clip_rewards"]}
        changes |= {"loss__continuation_target_scale": meta["discount"], "behaviour__discount": meta["discount"]}
        changes |= {"behaviour__horizon": meta["horizon"], "behaviour__lambda": meta["disclam"]}
        for group in ("model", "actor", "value"):
            changes[f"optimisers__{group}__learning_rate"] = meta[f"{group}_lr"]
            changes[f"optimisers__{group}__clip_norm"] = meta["grad_clip"]
        discrete = meta["action_dist"] == "onehot"
        changes["behaviour__action_gradient"] = "straight"
        self.config = build(Config, tiny_dreamer.values("tf2", **changes), where="a golden file")
        self.spec = ActSpec(arrays["action"].shape[-1], discrete=discrete)
        self.parameters = dreamer_weights.agent(weights(arrays))
        self.agent = side.make_agent(self.config, self.spec, self.parameters)
        self.rows = {
            "image": arrays["image"] / 255 - 0.5,
            "action": arrays["action"],
            "reward": arrays["reward"],
            "terminal": 1 - arrays["discount_data"],
            "noise": np.broadcast_to(arrays["post_eps"], (size, *arrays["post_eps"].shape)),
        }
        count = arrays["imag_feat"].shape[1]
        latent = arrays["imag_latent_eps"][:, None]
        self.latent_noise = np.broadcast_to(latent, (len(latent), count, latent.shape[-1]))
        self.total, self.metrics, self.post = side.agent.model_objective(
            self.agent.model, self.config.loss, **{name: side.double(x) for name, x in self.rows.items()}
        )
        self.action_noise = self.choosing_noise() if discrete else arrays["action_eps"]

    def imagine(self, action_noise):
        """Features and actions of the agent's own imagination, as far as there is noise."""
        side, model = self.side, self.agent.model
        noise = {"action_noise": action_noise, "latent_noise": self.latent_noise[: len(action_noise)]}
        start = side.agent.imagination_starts(model, self.post)
        noise = {name: side.double(x) for name, x in noise.items()}
        return side.agent.imagine_behaviour(model, self.agent.actor, start, **noise)

    def choosing_noise(self):
        """The uniform draws that make the discrete actor choose the file's classes, step by step."""
        start = self.side.agent.imagination_starts(self.agent.model, self.post)
        here, noise = self.agent.model.latent.features(start), np.zeros((0, self.latent_noise.shape[1]))
        for index in self.arrays["action_index"]:
            logits = self.side.numpy(self.agent.actor(here))
            noise = np.concatenate([noise, choosing(index, logits)[None]])
            here = self.imagine(noise)[0][-1]
        return noise


@pytest.mark.golden("train_step")
def test_world_model_imagination_and_returns_of_a_training_step(side, case):
    arrays = case.load()
    step = Step(side, arrays)
    state_close(step.post, arrays, "post")
    close(step.total, arrays["model_loss"])
    close(step.metrics["kl"], arrays["kl"].mean())
    features, actions = step.imagine(step.action_noise)
    close(features, arrays["imag_feat"])
    if step.spec.discrete:
        np.testing.assert_array_equal(side.numpy(actions).argmax(-1), arrays["action_index"])
    model, value = step.agent.model, step.agent.value
    close(model.reward(features)[:-1], arrays["lr_reward"])
    close(value(features), np.concatenate([arrays["lr_value"], arrays["lr_bootstrap"][None]]))
    loss, returns, weight = side.agent.actor_objective(model, value, step.config.behaviour, features)
    close(returns, arrays["returns"])
    close(weight, arrays["discount"])
    close(loss, arrays["actor_loss"])
    close(side.agent.value_objective(value, features, returns, weight), arrays["value_loss"])


@pytest.mark.golden("train_step")
def test_gradients_norms_and_updated_weights_of_a_training_step(side, case):
    """The agent's own update. The first step of Adam is nearly the sign of the gradient, and rounding can turn a small
    one: a hundredth of the learning rate is allowed (the README of the file: a tenth)."""
    arrays = case.load()
    step = Step(side, arrays)
    inputs = {**step.rows, "action_noise": step.action_noise, "latent_noise": step.latent_noise}
    metrics, gradients, after = side.learn(step.agent, inputs)
    for ours, theirs in (("loss", "model_loss"), ("actor_loss", "actor_loss"), ("value_loss", "value_loss")):
        close(metrics[ours], arrays[theirs], name=theirs)
    for group in ("model", "actor", "value"):
        close(metrics[f"{group}_grad_norm"], arrays[f"{group}_grad_norm"], GRADIENT, group)
    expected, updated = (dreamer_weights.agent(weights(arrays, prefix)) for prefix in ("g/", "w_after/"))
    assert gradients.keys() == expected.keys() == after.keys()
    for name, gradient in gradients.items():
        close(gradient, expected[name], GRADIENT, name)
        rate = step.meta[f"{name.partition('.')[0]}_lr"]
        np.testing.assert_allclose(after[name], updated[name], rtol=0, atol=0.01 * rate, err_msg=name)
        moved = np.abs(after[name] - step.parameters[name]).max()
        assert moved > 0.5 * rate or not gradient.any(), f"{name} moved by {moved}: the test would show little"


@pytest.mark.golden("adam_clip")
def test_the_agents_optimiser(side, case):
    """The agent's own update: six steps of clipping by the global norm and Adam with TensorFlow's epsilon."""
    arrays = case.load()
    settings = {f"optimisers__{name}": float(arrays[name]) for name in ("epsilon", "beta1", "beta2")}
    settings |= {"optimisers__model__learning_rate": float(arrays["lr"])}
    settings |= {"optimisers__model__clip_norm": float(arrays["clip"])}
    config = build(Config, tiny_dreamer.values("tf2", **settings), where="a golden file")
    gradients = list(zip(arrays["grad_a"], arrays["grad_b"], strict=True))
    results = list(side.updates(config, (arrays["a0"], arrays["b0"]), gradients))
    assert len(results) == len(arrays["grad_norm"])
    for number, (norm, parameters) in enumerate(results):
        close(norm, arrays["grad_norm"][number], name=f"norm before clipping, step {number + 1}")
        for parameter, name in zip(parameters, "ab", strict=True):
            close(parameter, arrays[name][number], name=f"{name} after step {number + 1}")
