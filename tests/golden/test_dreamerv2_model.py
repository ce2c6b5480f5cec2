"""DreamerV2's networks and losses, in torch and in JAX, against numbers from the authors' code.

Everything runs in float64 from the same float32 inputs; what remains is the authors' float32. FORWARD and GRADIENT are
relative to the largest entry (data/golden/dreamerv2/README.md asks for 1e-4). The files are of the last commit (HEAD):
variant last-commit of experiments.yaml. Formulas alone: test_dreamerv2_core.py and test_dreamerv2_actor_critic.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from replications.dreamerv2.config import Config
from shared.config import build
from shared.envs.spec import ActSpec
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.sequences import reset_where_first
from tests import tiny_dreamerv2
from tests.golden import dreamerv2_weights
from tests.golden.assemblies import dense
from tests.golden.dreamerv2_schedules import schedule
from tests.golden.dreamerv2_sides import SIDES
from tests.golden.dreamerv2_weights import under
from tests.golden.loading import options, weights

FORWARD = 1e-5
GRADIENT = 3e-5
UPDATE = 2e-6
RETURNS = 2e-5  # rewards of 3500 cancel to returns of 6


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


def make_config(variant="last-commit", **changes):
    """HEAD's settings with the sizes of a golden file."""
    return build(Config, tiny_dreamerv2.values(variant, **changes), where="a golden file")


def choosing(one_hot, logits):
    """Uniform draws that pick these classes: the middle of each class's part of [0, 1). (...) from two (..., K)."""
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    ends = np.cumsum(probs / probs.sum(-1, keepdims=True), -1)
    middle = ends - np.diff(ends, axis=-1, prepend=0) / 2
    return np.take_along_axis(middle, one_hot.argmax(-1)[..., None], -1)[..., 0]


# ------------------------------------------------------------------------------------------------ the latent model


def make_latent(side, arrays, source, embed_size, action_size):
    """The latent model of a file, by its weights and the shapes of its states."""
    meta, discrete = options(arrays), "start_logit" in arrays
    shape = arrays["start_logit" if discrete else "start_mean"].shape
    sizes = {
        "latents": "categorical" if discrete else "gaussian",
        "stoch_size": shape[-2] if discrete else shape[-1],
        "classes": shape[-1],
        "deter_size": arrays["start_deter"].shape[-1],
        "hidden_size": source["img_in/bias"].shape[0],
        "norm": meta.get("norm", "none"),
        "std": {"softplus": "softplus"}.get(meta.get("std_act"), "sigmoid"),
        "min_std": meta.get("min_std", 0.1),
    }
    config = make_config(**{f"model__{name}": value for name, value in sizes.items()})
    return side.load(side.model.RSSM(config.model, embed_size, action_size), dreamerv2_weights.latent(source))


def check_step(side, got, arrays, prefix, t):
    """Statistics and belief of one step. Returns what the next one reads, with the file's sample, the likeliest one."""
    statistics = [name for name in ("logit", "mean", "std") if f"{prefix}_{name}" in arrays]
    for name in statistics:
        close(got[name], arrays[f"{prefix}_{name}"][:, t], name=f"{prefix}_{name}")
    close(got["belief"], arrays[f"{prefix}_deter"][:, t], name=f"{prefix}_deter")
    sample, found = arrays[f"{prefix}_stoch"][:, t], side.numpy(got[statistics[0]])
    if "logit" in statistics:
        np.testing.assert_array_equal(found.argmax(-1), sample.argmax(-1))
    else:
        close(found, sample)
    return {"sample": side.double(sample), "belief": got["belief"]}


@pytest.mark.golden("rssm_steps")
def test_filtering_and_imagining_step_by_step(side, case):
    """With the likeliest samples; an episode may begin anywhere, which clears state and action."""
    arrays = case.load()
    size, length, embed_size = arrays["embed"].shape
    action, embed = side.double(arrays["action"]), side.double(arrays["embed"])
    latent = make_latent(side, arrays, weights(arrays, "param:"), embed_size, action.shape[-1])
    noise = side.double(np.zeros((size, latent.shapes["sample"][0])))
    state = {"sample": side.double(arrays["start_stoch"]), "belief": side.double(arrays["start_deter"])}

    @side.compiled
    def seen(state, action, embed, first):
        state = {name: reset_where_first(value, first) for name, value in state.items()}
        return latent.posterior(state, reset_where_first(action, first), embed, noise)

    for t in range(length):
        first = side.double(arrays["is_first"][:, t]) > 0
        post, prior = seen(state, action[:, t], embed[:, t], first)
        check_step(side, prior, arrays, "prior", t)
        state = check_step(side, post, arrays, "post", t)
    imagined = side.compiled(lambda state, action: latent.prior(state, action, noise))
    for t in range(3):
        state = check_step(side, imagined(state, action[:, t]), arrays, "imag", t)
        close(latent.features(state), arrays["imag_feat"][:, t])


@pytest.mark.golden("rssm_steps")
def test_the_gru_alone_and_its_gradient(side, case):
    arrays = case.load()
    source = weights(arrays, "param:")
    inputs, units = arrays["gru_x"].shape[-1], arrays["gru_h"].shape[-1]
    gru = side.load(side.model.NormGRU(inputs, units, norm=True), dreamerv2_weights.gru(source))
    slope = side.double(np.cos(arrays["gru_out"]))  # of the sine that the file takes of the output

    def run(modules, x):
        out = modules["gru"](x["x"], x["h"])
        return (out * slope).sum(), out

    _, out, slopes, _ = side.slopes(run, {"gru": gru}, {"x": arrays["gru_x"], "h": arrays["gru_h"]})
    close(out, arrays["gru_out"])
    for name in "xh":
        close(slopes[name], arrays[f"gru_d{name}"], GRADIENT, name)


@pytest.mark.golden("onehot_straight_through")
def test_samples_of_categorical_latents(side, case):
    arrays = case.load()
    noise, weight = (side.double(choosing(arrays["sample_onehot"], arrays["logits"])), side.double(arrays["weight"]))

    def run(modules, x):
        sample = side.model.CategoricalHead.sample({"logit": x["logits"]}, noise)
        return (sample * weight).sum(), sample

    _, sample, slopes, _ = side.slopes(run, {}, {"logits": arrays["logits"]})
    np.testing.assert_array_equal(side.numpy(sample), arrays["sample_onehot"])
    close(slopes["logits"], arrays["d_sample_weighted_sum"], GRADIENT)


@pytest.mark.golden("kl_loss")
def test_divergence_of_the_world_model(side, case):
    """The option `forward` is in no version's settings and not in ours: test_dreamerv2_core.py has it as formula."""
    arrays = case.load()
    meta = options(arrays)
    if meta["forward"]:
        pytest.skip("forward: true is in no version's settings")
    settings = {"kl_balance": meta["balance"], "free_nats": meta["free"]}
    settings["free_nats_of"] = "mean" if meta["free_avg"] else "step"
    names = ("logit",) if "post_logit" in arrays else ("mean", "std")

    def run(modules, x):
        post, prior = ({name: x[f"{which}_{name}"] for name in names} for which in ("post", "prior"))
        kl, loss = side.agent.model_divergence(SimpleNamespace(**settings), post, prior)
        return loss, kl

    inputs = {f"{which}_{name}": arrays[f"{which}_{name}"] for which in ("post", "prior") for name in names}
    loss, kl, slopes, _ = side.slopes(run, {}, inputs)
    close(side.numpy(loss), arrays["loss"])
    close(kl, arrays["value"])
    for name, slope in slopes.items():
        close(slope, arrays[f"dloss_d{name}"], GRADIENT, name)


# -------------------------------------------------------------------------------------------------- the other networks


@pytest.mark.golden("misc", case="layernorm")
def test_layer_norm(side, case):
    arrays = case.load()
    source = {f"norm/{name}": value for name, value in weights(arrays, "param:").items()}
    norms = side.load(side.model.make_norms("layer", [6]), dreamerv2_weights.norm(source, "norm", "0"))
    weight = side.double(arrays["weight"])

    def run(modules, x):
        y = modules["norms"][0](x["x"])
        return (y * weight).sum(), y

    _, y, slopes, _ = side.slopes(run, {"norms": norms}, {"x": arrays["x"]})
    close(y, arrays["y"])
    close(slopes["x"], arrays["dx"], GRADIENT)


@pytest.mark.golden("conv_nets")
def test_encoder_decoder_and_image_likelihood(side, case):
    arrays, meta = case.load(), options(case.load())
    source = weights(arrays, "param:")
    channels, shape = arrays["image"].shape[-1], (meta["depth"], meta["norm"])
    encoder = side.load(side.model.Encoder(channels, *shape), dreamerv2_weights.encoder(under(source, "enc/")))
    decoder = side.model.Decoder(arrays["feat"].shape[-1], channels, *shape)
    decoder = side.load(decoder, dreamerv2_weights.decoder(under(source, "dec/")))
    image, mean = side.double(arrays["image"] / 255 - 0.5), side.compiled(decoder)(side.double(arrays["feat"]))
    close(side.compiled(encoder)(image), arrays["embed"])
    close(mean, arrays["recon_mean"])
    close(gaussian_log_prob(image, mean, 1.0).sum((-3, -2, -1)), arrays["image_log_prob"])


@pytest.mark.golden("vector_nets")
def test_networks_of_vectors(side, case):
    """Agents see images alone; what stands here is the MLP of every head. Layer by layer, as they differ in size."""
    arrays = case.load()
    source, kind = weights(arrays, "param:"), options(arrays)["norm"]

    def through(net, x):
        for i in range(2):
            layer = side.model.MLP(*source[f"{net}/dense{i}/kernel"].shape, 1, kind)
            of_layer = dreamerv2_weights.dense(source, f"{net}/dense{i}", "layers.0")
            of_norm = dreamerv2_weights.norm(source, f"{net}/densenorm{i}", "norms.0")
            x = side.load(layer, of_layer | of_norm)(x)
        return side.numpy(x)

    keys = ("position", "velocity")
    vectors = np.concatenate([arrays[f"obs_{key}"] for key in keys], -1)
    close(through("enc", side.double(vectors)), arrays["embed"])
    hidden = through("dec", side.double(arrays["feat"]))
    for key in keys:
        mean = dense(source, f"dec/dense_{key}/out", hidden)
        close(mean, arrays[f"recon_{key}"])
        log_prob = gaussian_log_prob(arrays[f"obs_{key}"].astype(np.float64), mean, 1.0)
        close(log_prob.sum(-1), arrays[f"logprob_{key}"])


def make_head(side, cls, source, *arguments, **changes):
    """An Actor or Critic with a file's weights; cls(config.model, *arguments, features, ...) builds it."""
    source = dreamerv2_weights.head(source)
    layers = sum(name.startswith("hidden.layers.") and name.endswith("weight") for name in source)
    units, features = source["hidden.layers.0.weight"].shape
    sizes = {"model__dense_units": units, "model__actor_layers": layers, "model__critic_layers": layers}
    config = make_config(**sizes, **changes)
    before = (config.behaviour,) if cls == "Actor" else ()
    return side.load(side.made(cls, config.model, *before, features, *arguments), source)


@pytest.mark.golden("dists", case="trunc_normal")
def test_continuous_policy(side, case):
    arrays, meta = case.load(), options(case.load())
    size = arrays["event"].shape[-1]
    check_policy(side, arrays, ActSpec(size), np.eye(2 * size), ("raw_out", "raw_std"), meta)


@pytest.mark.golden("dists", case="onehot")
def test_discrete_policy(side, case):
    arrays, meta = case.load(), options(case.load())
    size = arrays["event"].shape[-1]
    check_policy(side, arrays, ActSpec(size, discrete=True), np.eye(size), ("raw_out",), meta)


def check_policy(side, arrays, spec, identity, names, meta):
    """Log-probability, entropy and their gradients, of a policy whose network is the identity."""
    config = SimpleNamespace(dense_units=len(identity), actor_layers=0, norm="none")
    behaviour = SimpleNamespace(init_std=meta["init_std"], min_std=meta["min_std"])
    actor = side.made("Actor", config, behaviour, len(identity), spec)
    actor = side.load(actor, {"out.weight": identity, "out.bias": np.zeros(len(identity))})
    event = side.double(arrays["event"])

    def run(modules, x):
        log_prob, entropy = modules["actor"].judge(x["features"], event)
        return log_prob.sum() + entropy.sum(), (log_prob, entropy)

    features = np.concatenate([arrays[name] for name in names], -1)
    _, (log_prob, entropy), slopes, _ = side.slopes(run, {"actor": actor}, {"features": features})
    close(log_prob, arrays["log_prob"])
    close(entropy, arrays["entropy"])
    both = [arrays[f"dlogp_d{name}"] + arrays[f"dent_d{name}"] for name in names]
    close(slopes["features"], np.concatenate(both, -1), GRADIENT)
    close(actor.mode(side.double(features)), arrays["mode"])


# ---------------------------------------------------------------------------------------------------- the objectives


@pytest.mark.golden("world_model_loss")
def test_world_model_loss(side, case):
    arrays, meta = case.load(), options(case.load())
    source = weights(arrays, "param:")
    latents, classes = arrays["post_logit"].shape[-2:]
    config = make_config(
        model__stoch_size=latents,
        model__classes=classes,
        model__deter_size=arrays["post_deter"].shape[-1],
        model__hidden_size=source["rssm/img_in/bias"].shape[0],
        model__encoder_depth=source["enc/conv0/bias"].shape[0],
        model__dense_units=source["reward/dense0/bias"].shape[0],
        model__reward_layers=2,
        model__discount_layers=2,
        model__discount_head=meta["pred_discount"],
        loss__gradient_heads=["image", "reward", "discount"] if meta["pred_discount"] else ["image", "reward"],
        loss__divergence_scale=meta["loss_scales_kl"],
        loss__discount_scale=meta["loss_scales_discount"],
        loss__kl_balance=meta["balance"],
        loss__free_nats=meta["kl_free"],
        loss__free_nats_of="mean" if meta["free_avg"] else "step",
        loss__reward_transform="tanh" if meta["clip_rewards"] == "tanh" else "none",
        schedule__prefill_env_steps=10_000,
    )
    model = side.made("WorldModel", config.model, arrays["image"].shape[-1], arrays["action"].shape[-1])
    model = side.load(model, dreamerv2_weights.world_model(source))
    assert not arrays["is_first"][:, 1:].any()  # so that the first row alone forgets the action that led to it
    action = np.where(arrays["is_first"][..., None], 0, arrays["action"])
    inputs = {
        "image": arrays["image"] / 255 - 0.5,
        "action": action,
        "reward": arrays["reward"],
        "discount": meta["discount"] * (1.0 - arrays["is_terminal"]),
        "noise": choosing(arrays["post_stoch"], arrays["post_logit"]),
    }
    inputs = {name: side.double(x) for name, x in inputs.items()}
    run = side.compiled(lambda inputs: side.agent.model_objective(model, config.loss, **inputs))
    total, metrics, post = run(inputs)
    for ours, theirs in {"logit": "logit", "sample": "stoch", "belief": "deter"}.items():
        close(post[ours], arrays[f"post_{theirs}"], name=theirs)
    close(model.latent.features(post), arrays["feat"])
    close(side.numpy(total), arrays["model_loss"])
    close(side.numpy(metrics["kl"]), arrays["kl_value"].mean())
    terms = {"kl": "divergence", **{name: name for name in ("image", "reward", "discount")}}
    stored = [name for name in terms if f"loss:{name}" in arrays]
    assert len(stored) == 3 + meta["pred_discount"]
    for name in stored:
        close(side.numpy(metrics[f"{terms[name]}_loss"]), arrays[f"loss:{name}"], name=name)


@pytest.mark.golden("imagine")
def test_imagination(side, case):
    """From the draws that pick the file's samples: states, actions, discounts and weights."""
    arrays, meta = case.load(), options(case.load())
    source = weights(arrays, "param:")
    classes = arrays["seq_action"].shape[-1]
    latent = make_latent(side, arrays, under(source, "rssm/"), 1, classes)
    actor = make_head(side, "Actor", under(source, "actor/"), ActSpec(classes, discrete=True))
    discount = make_head(side, "Critic", under(source, "discount/")) if meta["pred_discount"] else None
    model = SimpleNamespace(latent=latent, discount=discount, reward=lambda features: features[..., 0])
    behaviour = make_config(behaviour__discount=meta["discount"]).behaviour
    rows = {"logit": "start_logit", "sample": "start_stoch", "belief": "start_deter"}
    rows = {name: side.double(arrays[theirs]) for name, theirs in rows.items()}
    rows["discount"] = side.double(meta["discount"] * (1.0 - arrays["start_is_terminal"]))
    starts = side.agent.imagination_starts(model, behaviour, rows)
    start_discount = starts.pop("discount")
    logits = side.numpy(actor(side.double(arrays["seq_feat"][:-1])))
    action_noise = side.double(choosing(arrays["seq_action"][1:], logits))
    latent_noise = side.double(choosing(arrays["seq_stoch"][1:], arrays["seq_logit"][1:]))
    noise = {"action_noise": action_noise, "latent_noise": latent_noise}
    features, actions = side.agent.imagine_behaviour(model, actor, starts, **noise)
    close(features, arrays["seq_feat"])
    np.testing.assert_array_equal(side.numpy(actions), arrays["seq_action"][1:])
    reward, found = side.agent.imagined_rewards(model, behaviour, features, start_discount)
    close(found, arrays["seq_discount"])
    _, weight = side.agent.imagined_returns(behaviour, reward, found, reward)
    close(weight, arrays["seq_weight"][:-1])


@pytest.mark.golden("actor_critic_loss")
def test_losses_of_actor_and_critic_and_what_is_constant_in_them(side, case):
    arrays, meta = case.load(), options(case.load())
    source, norm = weights(arrays, "param:"), {"model__norm": options(case.load())["norm"]}
    spec = ActSpec(arrays["action"].shape[-1], discrete=meta["discrete"])
    modules = {
        "actor": make_head(side, "Actor", under(source, "actor/"), spec, **norm),
        "critic": make_head(side, "Critic", under(source, "critic/"), **norm),
        "target_critic": make_head(side, "Critic", under(source, "target_critic/"), **norm),
    }
    behaviour = make_config(behaviour__actor_gradient=meta["actor_grad"], behaviour__lambda=meta["lambda"]).behaviour
    scales = {"mix": "mix", "entropy_scale": "actor_ent"}
    scales = {name: schedule(meta[theirs], meta["tfstep"]) for name, theirs in scales.items()}
    arrays = {**arrays, "action": arrays["action"][1:], "d_actor_daction": arrays["d_actor_daction"][1:]}

    def run(which):
        def losses(modules, x):
            trajectory = (x["feat"], x["action"], x["reward"], x["discount"])
            actor, critic, metrics = side.agent.behaviour_objectives(
                *modules.values(), behaviour, *trajectory, **scales
            )
            return (actor, critic)[which], metrics

        return side.slopes(losses, modules, {name: arrays[name] for name in ("feat", "action", "reward", "discount")})

    loss, metrics, slopes, gradients = run(0)
    close(side.numpy(loss), arrays["actor_loss"], RETURNS)
    close(side.numpy(metrics["actor_entropy"]), arrays["actor_entropy_mean"])
    close(side.numpy(metrics["imagined_return"]), arrays["target"].mean(), RETURNS)
    for name, slope in slopes.items():
        close(slope, arrays[f"d_actor_d{name}"], GRADIENT, name)
    check_gradients(gradients["actor"], weights(arrays, "grad:actor/"))
    check_gradients(gradients["target_critic"], weights(arrays, "grad_of_actor_loss:target_critic/"))
    assert not any(x.any() for x in gradients["critic"].values())

    loss, _, slopes, gradients = run(1)
    close(side.numpy(loss), arrays["critic_loss"], RETURNS)
    check_gradients(gradients["critic"], weights(arrays, "grad:critic/"))
    assert not any(x.any() for x in slopes.values())
    assert not any(x.any() for name in ("actor", "target_critic") for x in gradients[name].values())


def check_gradients(gradients, stored):
    expected = dreamerv2_weights.head(stored)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        close(gradient, expected[name], GRADIENT, name)


# ------------------------------------------------------------------------------------------------ the agent's updates


@pytest.mark.golden("optimizer")
def test_the_agents_optimiser(side, case):
    """Clipping by the global norm, decay whatever the learning rate, Adam with Keras' epsilon, several steps."""
    arrays, meta = case.load(), options(case.load())
    if meta["wd_pattern"] != ".*":
        pytest.skip("decay of some weights alone is in no version's settings")
    config = make_config(
        optimisers__model__learning_rate=meta["lr"],
        optimisers__model__clip_norm=meta["clip"] or 1e30,
        optimisers__epsilon=meta["eps"],
        optimisers__weight_decay=meta["wd"],
    )
    names = list(weights(arrays, "init:"))
    gradients = list(zip(*(arrays[f"grads:{name}"] for name in names), strict=True))
    results = list(side.steps(config, [arrays[f"init:{name}"] for name in names], gradients))
    assert len(results) == len(arrays["grad_norm"])
    for t, (norm, parameters) in enumerate(results):
        close(side.numpy(norm), arrays["grad_norm"][t], name=f"norm before clipping, step {t + 1}")
        for parameter, name in zip(parameters, names, strict=True):
            close(parameter, arrays[f"params:{name}"][t], UPDATE, f"{name} after step {t + 1}")


@pytest.mark.golden("slow_target")
def test_the_agents_target_critic(side, case):
    arrays, meta = case.load(), options(case.load())
    config = make_config(behaviour__target_every=meta["every"], behaviour__target_fraction=float(meta["fraction"]))
    found = list(side.targets(config, arrays["target_init"], arrays["source"]))
    assert len(found) == len(arrays["target"])
    for t, target in enumerate(found):
        close(target, arrays["target"][t], UPDATE, f"after update {t + 1}")
