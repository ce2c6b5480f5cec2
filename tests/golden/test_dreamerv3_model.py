"""DreamerV3's networks and losses against numbers from the authors' code, all three agents.

Everything runs in float64 from the same float32 inputs; what remains is the authors' float32. FORWARD and GRADIENT are
relative to the largest entry (data/golden/dreamerv3/README.md asks for 1e-4). Options that no version of the agent uses
are skipped, and named; formulas alone: test_dreamerv3_core.py and test_dreamerv3_losses.py.
"""

import numpy as np
import pytest

from replications.dreamerv3.config import Config
from shared.config import build
from shared.envs.spec import ActSpec, ArraySpec
from shared.formulas.schedules import horizon_discount
from tests import tiny_dreamerv3
from tests.golden import dreamerv3_weights
from tests.golden.dreamerv3_sides import SIDES
from tests.golden.dreamerv3_weights import under
from tests.golden.loading import options, weights

FORWARD = 1e-5
GRADIENT = 3e-5
UPDATE = 1e-4  # of an update's largest entry: the authors' 1 - 0.999^t is a float32 difference


@pytest.fixture(params=SIDES)
def side(request):
    """A framework, in float64."""
    side = SIDES[request.param]()
    with side.precision():
        yield side


def close(got, expected, tolerance=FORWARD, name=""):
    got, expected = (np.asarray(x.detach() if hasattr(x, "detach") else x) for x in (got, expected))
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, in the file {expected.shape}"
    scale = float(np.abs(expected).max(initial=0))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale + 1e-9, err_msg=name)


def make_config(variant="dreamerv3", *, deter=16, units=8, classes=4, depth=2, **changes):
    """A variant's settings with the sizes of a golden file."""
    sizes = {"deter_size": deter, "units": units, "classes": classes, "image_depth": depth}
    size = "s2023" if variant == "proprio-2023" else "12m"
    sizes = {f"sizes__{size}__{name}": value for name, value in sizes.items()}
    return build(Config, tiny_dreamerv3.values(variant, **sizes, **changes), where="a golden file")


def choosing(one_hot, probs):
    """Uniform draws that pick these classes: the middle of each class's part of [0, 1). (...) from two (..., K)."""
    ends = np.cumsum(probs / probs.sum(-1, keepdims=True), -1)
    middle = ends - np.diff(ends, axis=-1, prepend=0) / 2
    return np.take_along_axis(middle, one_hot.argmax(-1)[..., None], -1)[..., 0]


def mixed(logits, share):
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    return (1 - share) * probs / probs.sum(-1, keepdims=True) + share / logits.shape[-1]


# ------------------------------------------------------------------------------------------------------------ layers


@pytest.mark.golden("layers", case="rms")
def test_rms_norm(side, case):
    check_norm(side, case, "rms")


@pytest.mark.golden("layers", case="layer")
def test_layer_norm(side, case, monkeypatch):
    monkeypatch.setitem(side.layers.EPSILON, "layer", options(case.load())["eps"])
    check_norm(side, case, "layer")


def check_norm(side, case, kind):
    arrays = case.load()
    expected = {"weight": "scale", "bias": "shift"} if kind == "layer" else {"weight": "scale"}
    names = {ours: arrays[f"param:nm/{theirs}"] for ours, theirs in expected.items()}
    weighting = side.double(arrays["w"])

    def total(x):
        norm = side.layers.Norm(kind, arrays["x"].shape[-1])
        for ours in names:
            norm = side.replaced(norm, ours, x[ours])
        y = norm.normalised(x["x"])
        return (weighting * y).sum(), y

    _, y, slopes = side.slopes(total, {"x": arrays["x"], **names})
    close(y, arrays["y"])
    close(slopes["x"], arrays["grad_x"], GRADIENT)
    for ours, theirs in expected.items():
        close(slopes[ours], arrays[f"grad:nm/{theirs}"], GRADIENT, ours)


@pytest.mark.golden("layers", case="linear_conv")
def test_block_layers_and_convolutions(side, case):
    arrays = case.load()
    source = weights(arrays, "param:")
    blocks, inputs, outputs = source["bl/kernel"].shape
    block = side.layers.BlockLinear(blocks * inputs, blocks * outputs, blocks)
    block = side.load(block, {"weight": source["bl/kernel"], "bias": source["bl/bias"]})
    found = side.layers.joined(block(side.double(arrays["bl_x"])))
    close(found, arrays["bl_y"])

    def conv(name):
        found = {key.removeprefix("."): x for key, x in dreamerv3_weights.linear(source, name, "").items()}
        out, inputs, kernel, _ = found["weight"].shape
        return side.load(side.layers.Conv(inputs, out, kernel), found)

    x = side.images(arrays["conv_x"])
    for name, how in {
        "conv5s1": "__call__", "conv5s2": "halving", "conv4s2": "halving",
        "convT5s2": "spreading", "convT4s2": "spreading",
    }.items():  # fmt: skip
        close(side.pixels(getattr(conv(name), how)(x)), arrays[f"{name}_y"], name=name)
    doubled = side.images(arrays["repeat2_y"])
    close(conv("conv5s1").of_doubled(x), side.numpy(conv("conv5s1")(doubled)), 1e-12)


# ------------------------------------------------------------------------------------------------ encoder and decoder


def stages(side, monkeypatch, setting):
    """Image stages as in a golden file; the name of the kind."""
    kind = "pool" if not setting["strided"] else "stride"
    found = side.model.Stages(setting["kernel"], tuple(setting["mults"]), setting["outer"], not setting["strided"])
    monkeypatch.setitem(side.model.STAGES, kind, found)
    return kind


@pytest.mark.golden("encoder")
def test_encoder(side, case, monkeypatch):
    """A discrete observation is one-hot; ours would squeeze it by symlog, to log 2, so its weights are larger here."""
    arrays, setting = case.load(), options(case.load())
    source = weights(arrays, "param:enc/")
    obs = weights(arrays, "obs:")
    if "k" in obs:
        classes = len(source["mlp0/kernel"]) - obs["v"].shape[-1]
        obs["k"] = np.eye(classes)[obs["k"]]
        source["mlp0/kernel"] = np.concatenate(
            [source["mlp0/kernel"][:classes] / np.log(2), source["mlp0/kernel"][classes:]]
        )
    spec = {key: ArraySpec(x.shape[2:], "float32") for key, x in obs.items()}
    config = make_config(
        units=setting["units"], depth=setting["depth"], model__vector_layers=setting["layers"] or 1,
        model__convolutions=stages(side, monkeypatch, setting),
    )  # fmt: skip
    encoder = side.model.Encoder(config.model, config.size, spec)
    encoder = side.load(encoder, dreamerv3_weights.encoder(source))
    images = {key: x / 255.0 if x.dtype == np.uint8 else x.astype(float) for key, x in obs.items()}
    tokens = encoder({key: side.double(x) for key, x in images.items()})
    close(tokens, arrays["tokens"])
    assert encoder.embed_size == arrays["tokens"].shape[-1]


@pytest.mark.golden("decoder")
def test_decoder(side, case, monkeypatch):
    arrays, setting = case.load(), options(case.load())
    out = weights(arrays, "out:")
    spec = {key: ArraySpec(x.shape[2:], "float32") for key, x in out.items()}
    config = make_config(
        deter=arrays["deter"].shape[-1], units=setting["units"], depth=setting["depth"],
        classes=arrays["stoch"].shape[-1], model__stoch_size=arrays["stoch"].shape[-2],
        model__vector_layers=setting["layers"] or 1, model__blocks=setting["bspace"],
        model__convolutions=stages(side, monkeypatch, setting),
    )  # fmt: skip
    decoder = side.model.Decoder(config.model, config.size, spec)
    decoder = side.load(decoder, dreamerv3_weights.decoder(weights(arrays, "param:dec/")))
    found = decoder({name: side.double(arrays[name]) for name in ("deter", "stoch")})
    assert found.keys() == out.keys()
    for key, expected in out.items():
        close(found[key], expected, name=key)


@pytest.mark.golden("v2023_extras", case="cnn")
def test_images_of_2023(side, case, monkeypatch):
    arrays = case.load()
    monkeypatch.setitem(side.model.STAGES, "kernel4", side.model.Stages(4, (1, 2), outer=False, pooled=False))
    config = make_config("proprio-2023", deter=3, classes=4, depth=2, model__stoch_size=1)
    spec = {"image": ArraySpec(arrays["image01"].shape[1:], "float32")}
    source = weights(arrays, "param:")
    encoder = side.model.Encoder(config.model, config.size, spec)
    encoder = side.load(encoder, dreamerv3_weights.encoder_2023(under(source, "enc/")))
    close(encoder({"image": side.double(arrays["image01"])}), arrays["embed"])
    decoder = side.model.Decoder(config.model, config.size, spec)
    decoder = side.load(decoder, dreamerv3_weights.decoder_2023(under(source, "dec/")))
    state = {"deter": arrays["feat"][:, :3], "stoch": arrays["feat"][:, None, 3:]}
    found = decoder({name: side.double(x) for name, x in state.items()})
    close(found["image"], arrays["recon"])


# ------------------------------------------------------------------------------------------------ the latent model


@pytest.mark.golden("rssm_steps")
def test_latent_model_over_a_sequence(side, case, monkeypatch):
    """Filtering with the authors' draws; an episode may begin anywhere, which clears state and action."""
    arrays, setting = case.load(), options(case.load())
    if setting["norm"] == "layer":
        monkeypatch.setitem(side.layers.EPSILON, "layer", 1e-4)  # of the last commit's layer norm, an option
        monkeypatch.setattr(side.layers, "activate", side.gelu)
    latent = make_latent(side, arrays, setting)
    probs = mixed(arrays["seq_post_logit"].astype(float), setting["unimix"])
    noise = side.double(choosing(arrays["seq_stoch_sample"], probs))
    action, reset = embedded(arrays), arrays["reset"]
    action = np.where(reset[..., None], 0, action)
    state = {"deter": side.double(arrays["carry_deter"]), "stoch": side.double(arrays["carry_stoch"])}
    sequence = (side.double(arrays["tokens"]), side.double(action), side.double(reset), noise, state)
    post, prior = side.compiled(latent.observe)(*sequence)
    np.testing.assert_array_equal(side.numpy(post["stoch"]).argmax(-1), arrays["seq_stoch_sample"].argmax(-1))
    close(post["deter"], arrays["seq_deter"])
    close(post["logit"], arrays["seq_post_logit"])
    close(prior["logit"], arrays["seq_prior_logit"])

    def one_step(x):
        previous = {"deter": x["deter"], "stoch": state["stoch"]}
        found = latent.prior(previous, side.double(arrays["core_action_embed"]), noise[:, 0])
        return side.sine(found["deter"]).sum(), found

    _, found, slopes = side.slopes(one_step, {"deter": arrays["carry_deter"]})
    close(found["deter"], arrays["core_deter"])
    close(found["logit"], arrays["core_prior_logit"])
    close(slopes["deter"], arrays["core_grad_deter_sumsin"], GRADIENT)


def embedded(arrays):
    """Actions of all keys, sorted, discrete ones one-hot, (B, T, A)."""
    actions = [x for _, x in sorted(weights(arrays, "action:").items())]
    classes = arrays["core_action_embed"].shape[-1] - sum(x.shape[-1] for x in actions if x.dtype.kind == "f")
    return np.concatenate([np.eye(classes)[x] if x.dtype.kind == "i" else x for x in actions], -1)


def make_latent(side, arrays, setting):
    source = weights(arrays, "param:dyn/")
    deter, (stoch, classes) = arrays["seq_deter"].shape[-1], arrays["seq_stoch_sample"].shape[-2:]
    config = make_config(
        deter=deter, units=source["dynin0/bias"].shape[0], classes=classes, model__stoch_size=stoch,
        model__blocks=setting["blocks"], model__dynamics_layers=setting["dynlayers"],
        model__prior_layers=setting["imglayers"], model__posterior_layers=setting["obslayers"],
        model__norm=setting["norm"], model__unimix=setting["unimix"],
    )  # fmt: skip
    latent = side.latent.RSSM(
        config.model, config.size, arrays["tokens"].shape[-1], arrays["core_action_embed"].shape[-1]
    )
    source |= {"absolute": setting["absolute"]}
    return side.load(side.with_biases(latent), dreamerv3_weights.latent(source, deter))


@pytest.mark.golden("v2023_extras", case="rssm")
def test_latent_model_of_2023(side, case):
    arrays = case.load()
    deter, (stoch, classes) = arrays["deter"].shape[-1], arrays["post_logit"].shape[-2:]
    config = make_config(
        "proprio-2023", deter=deter, units=6, classes=classes, model__stoch_size=stoch,
        model__unimix=options(arrays)["unimix"],
    )  # fmt: skip
    latent = side.latent.RSSM(config.model, config.size, arrays["embed"].shape[-1], arrays["action"].shape[-1])
    latent = side.load(latent, dreamerv3_weights.latent_2023(weights(arrays, "param:rssm/")))
    initial = latent.initial(2)
    close(initial["deter"], arrays["initial_deter"])
    close(initial["stoch"], arrays["initial_stoch"])
    first = side.double(arrays["is_first"])
    state = {"deter": side.double(arrays["prev_deter"]), "stoch": side.double(arrays["prev_stoch"])}
    action = side.double(np.where(arrays["is_first"][:, None], 0, arrays["action"]))
    noise = side.double(np.full(arrays["post_logit"].shape[:2], 0.5))
    post, prior = latent.posterior(latent.restarted(state, first), action, side.double(arrays["embed"]), noise)
    close(post["deter"], arrays["deter"])
    close(latent.log_probs(post["logit"]), arrays["post_logit"])
    close(latent.log_probs(prior["logit"]), arrays["prior_logit"])


@pytest.mark.golden("rssm_kl")
@pytest.mark.parametrize(("version", "scale"), [("v2025", 1.0), ("v2023", 0.5)])
def test_divergences_and_what_they_train(side, case, version, scale):
    arrays, setting = case.load(), options(case.load())
    config = make_config(loss__free_nats=setting["free_nats"], model__unimix=setting["unimix"])
    model = side.made("WorldModel", config.model, config.size, {"x": ArraySpec((2,), "float32")}, 2)

    def total(x):
        dyn, rep = side.objectives.latent_divergences(model, config.loss, x["post"], x["prior"])
        return scale * dyn.mean() + 0.1 * rep.mean(), (dyn, rep)

    value, (dyn, rep), slopes = side.slopes(total, {name: arrays[f"{name}_logit"] for name in ("post", "prior")})
    close(dyn, arrays["dyn"])
    close(rep, arrays["rep"])
    close(side.numpy(value), arrays[f"total_{version}"])
    for name, slope in slopes.items():
        close(slope, arrays[f"dtotal_d{name}_{version}"], GRADIENT, name)


# ------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.golden("heads")
def test_heads(side, case):
    arrays, setting = case.load(), options(case.load())
    source, kind = weights(arrays, "param:head/"), setting["output"]
    parameters, x = dreamerv3_weights.head(source), side.double(arrays["x"])
    features, layers = arrays["x"].shape[-1], setting["layers"]
    if kind in ("symexp_twohot", "binary"):
        name = "ScalarHead" if kind == "symexp_twohot" else "BinaryHead"
        config = make_config(units=setting["units"], model__bins=255)
        made = getattr(side.model, name)(config.model, config.size, features, layers)
        raw = side.load(made, parameters)(x)
        close(raw, arrays["res:logits" if kind == "symexp_twohot" else "res:logit"])
        if kind == "binary":
            np.testing.assert_array_equal(side.numpy(raw) > 0, arrays["res:pred"])
        else:
            close(made.scalar.bins, arrays["res:bins"])
            close(made.scalar.mean(raw), arrays["res:pred"], 1e-4)
            critic = side.made("Critic", config.model, config.size, features)
            assert arrays["init_out_kernel_is_zero"] and not side.numpy(critic.out.weight).any()
        return
    actions = (arrays["res:logits"] if kind == "categorical" else arrays["res:mean"]).shape[-1]
    config = make_config(units=setting["units"], model__actor_layers=layers)
    spec = ActSpec(actions, discrete=kind == "categorical")
    actor = side.load(side.made("Actor", config.model, config.size, features, spec), parameters)
    policy = actor(x)
    if kind == "categorical":
        close(np.exp(side.numpy(policy[0])), mixed(arrays["res:logits"].astype(float), 0.0))
    else:
        close(policy[0], arrays["res:mean"])
        close(policy[1], arrays["res:stddev"])


# ------------------------------------------------------------------------------------------------------------ losses


@pytest.mark.golden("losses_misc", case="symlog_mse")
def test_squared_error_of_vectors(side, case):
    arrays = case.load()
    loss, target = make_config().loss, side.double(arrays["target"][None])

    def total(x):
        terms = side.objectives.reconstruction_terms(loss, {"x": x["mean"]}, {"x": target}, True)
        return terms["vector"][1].sum(), terms["vector"][1]

    _, found, slopes = side.slopes(total, {"mean": arrays["mean"][None]})
    close(found, arrays["loss"][None])
    close(slopes["mean"], arrays["dloss_dmean"][None], GRADIENT)


@pytest.mark.golden("losses_misc", case="image_mse")
def test_squared_error_of_images(side, case):
    arrays = case.load()
    loss, target = make_config().loss, side.double(arrays["image"] / 255.0)

    def total(x):
        predicted = {"x": 1 / (1 + side.exp(-x["pre"]))}
        terms = side.objectives.reconstruction_terms(loss, predicted, {"x": target}, True)
        return terms["image"][1].sum(), terms["image"][1]

    _, found, slopes = side.slopes(total, {"pre": arrays["pre_sigmoid"]})
    close(found, arrays["loss"])
    close(slopes["pre"], arrays["dloss_dpre"], GRADIENT)


@pytest.mark.golden("losses_misc", case="binary_con")
def test_target_of_the_continuation_head(side, case):
    arrays, setting = case.load(), options(case.load())
    behaviour = make_config(behaviour__discount_steps=setting["horizon"]).behaviour
    target = side.objectives.continuation_target(behaviour, side.double(arrays["is_terminal"]))
    close(target, arrays["soft_target"], 1e-7)


def critic_of(side, config, logits, bins):
    """A critic that answers with these logits, whose first two axes are those of the features."""
    critic = side.made("Critic", config.model, config.size, 1)
    return side.answering(side.with_bins(critic, bins), out=logits)


class Several:
    """An actor of several independent actions: log-probabilities and entropies add."""

    def __init__(self, actors):
        self.actors = actors

    def __call__(self, features):
        return [actor(features) for actor in self.actors]

    def judge(self, policies, actions):
        pairs = zip(self.actors, policies, actions, strict=True)
        found = [actor.judge(policy, action) for actor, policy, action in pairs]
        return tuple(sum(parts) for parts in zip(*found, strict=True))


def actor_of(side, config, x):
    """An actor that answers with the policy of a file, time first; and its actions."""
    if "policy_raw_mean" in x:
        actor = side.made("Actor", config.model, config.size, 1, ActSpec(x["policy_raw_mean"].shape[-1]))
        return side.answering(actor, out=x["policy_raw_mean"], std=x["policy_raw_std"])
    if "policy_logits" in x:
        actor = side.made("Actor", config.model, config.size, 1, ActSpec(x["policy_logits"].shape[-1], discrete=True))
        return side.answering(actor, out=x["policy_logits"])
    tables = [x["policy_logits_a"], *(x["policy_logits_b"][..., i, :] for i in range(x["policy_logits_b"].shape[-2]))]
    specs = [ActSpec(table.shape[-1], discrete=True) for table in tables]
    actors = [side.made("Actor", config.model, config.size, 1, spec) for spec in specs]
    return Several([side.answering(actor, out=table) for actor, table in zip(actors, tables, strict=True)])


def time_first(x):
    return np.swapaxes(np.asarray(x), 0, 1)


@pytest.mark.golden("imag_loss")
def test_losses_of_actor_and_critic(side, case):
    arrays, setting = case.load(), options(case.load())
    if setting["slowtar"]:
        pytest.skip("returns of the slow critic's values (slowtar) are in no version's settings")
    advantages = "advnorm" in case.name
    config = make_config(
        model__actor_unimix=0.01 if "onehot" in case.name else 0.0, behaviour__discount_steps=setting["horizon"],
        behaviour__continuation="discounted" if setting["contdisc"] else "plain", behaviour__lambda=setting["lam"],
        behaviour__entropy_scale=setting["actent"], behaviour__slow_regulariser=setting["slowreg"],
        behaviour__normalise="advantages" if advantages else "returns",
    )  # fmt: skip
    names = {"low": "lo", "high": "hi"}
    before = {ours: side.double(arrays[f"retnorm_{theirs}_before"]) for ours, theirs in names.items()}
    if advantages:
        before = {name: side.double(np.zeros(())) for name in ("mean", "mean_square", "weight")}
    gamma = 1.0 if setting["contdisc"] else horizon_discount(setting["horizon"])
    reward, discount = side.double(time_first(arrays["rew"])), side.double(gamma * time_first(arrays["con"]))
    policies = [name for name in arrays if name.startswith("policy_")]
    if "onehot" in case.name:
        b = arrays["action_b"]
        parts = [arrays["action_a"], *(b[..., i, :] for i in range(b.shape[-2]))]
        actions = side.several(side.double(time_first(part)[:-1]) for part in parts)
    else:
        raw = arrays["action"]
        raw = np.eye(arrays["policy_logits"].shape[-1])[raw] if raw.dtype.kind == "i" else raw
        actions = side.double(time_first(raw)[:-1].astype(float))
    slow = critic_of(side, config, side.double(time_first(arrays["slowvalue_logits"])), arrays["bins"])
    features = side.double(np.zeros((*time_first(arrays["rew"]).shape, 1)))

    def total(x):
        critic = critic_of(side, config, x["value_logits"], arrays["bins"])
        actor = actor_of(side, config, x)
        found = side.objectives.behaviour_objectives(
            actor, critic, slow, config.behaviour, before, features, actions, reward, discount
        )
        return found[0] + found[1], found

    inputs = {name: time_first(arrays[name]) for name in ("value_logits", *policies)}
    value, (actor_loss, critic_loss, returns, after, _), slopes = side.slopes(total, inputs)
    close(returns, time_first(arrays["ret"]))
    close(side.numpy(actor_loss), arrays["loss_policy"].mean())
    close(side.numpy(critic_loss), arrays["loss_value"].mean())
    close(side.numpy(value), arrays["total"])
    for name, slope in slopes.items():
        close(slope, time_first(arrays[f"dtotal_d{name}"]), GRADIENT, name)
    if not advantages:
        for ours, theirs in names.items():
            close(side.numpy(after[ours]), arrays[f"retnorm_{theirs}_after"], name=ours)


@pytest.mark.golden("repl_loss")
def test_loss_of_replayed_values(side, case):
    """slowtar has no effect on it. The bootstrap and the slow critic are constants."""
    arrays, setting = case.load(), options(case.load())
    config = make_config(
        behaviour__discount_steps=setting["horizon"], behaviour__lambda=setting["lam"],
        behaviour__slow_regulariser=setting["slowreg"],
    )  # fmt: skip
    flags = (side.double(arrays[name]) for name in ("is_last", "is_terminal"))
    is_last, is_terminal = flags
    features = side.double(np.zeros((*arrays["rew"].shape, 1)))

    def total(x):
        critics = (critic_of(side, config, x[name], arrays["bins"]) for name in ("value_logits", "slowvalue_logits"))
        found = side.objectives.replay_value_objective(
            *critics, config.behaviour, features, side.double(arrays["rew"]), is_last, is_terminal, x["boot"]
        )
        return found, None

    inputs = {name: arrays[name] for name in ("value_logits", "slowvalue_logits", "boot")}
    value, _, slopes = side.slopes(total, inputs)
    close(side.numpy(value), arrays["mean_loss"])
    close(slopes["value_logits"], arrays["dmean_dvalue_logits"], GRADIENT)
    assert not slopes["slowvalue_logits"].any() and not slopes["boot"].any()


@pytest.mark.golden("v2023_extras", case="discdist")
def test_numbers_of_2023(side, case):
    arrays = case.load()
    config = make_config("proprio-2023", model__bins=len(arrays["bins"]))
    scalar = side.with_bins(side.made("Critic", config.model, config.size, 1), arrays["bins"]).scalar

    def total(x):
        loss = scalar.loss(x["logits"], side.double(arrays["target"]))
        return loss.sum(), (loss, scalar.mean(x["logits"]))

    _, (loss, mean), slopes = side.slopes(total, {"logits": arrays["logits"]})
    close(loss, arrays["loss"])
    close(mean, arrays["mean"])
    close(slopes["logits"], arrays["dloss_dlogits"], GRADIENT)


# ------------------------------------------------------------------------------------------------ statistics, updates


@pytest.mark.golden("normalizers")
def test_normalisers(side, case):
    arrays, setting = case.load(), options(case.load())
    if setting["impl"] == "perc" and setting["debias"]:
        pytest.skip("percentiles freed of their first zeros (debias) are in no version's settings")
    if setting["impl"] == "perc":
        changes = {"rate": "rate", "low": "perclo", "high": "perchi", "limit": "limit"}
        changes = {f"behaviour__returns__{ours}": setting[theirs] for ours, theirs in changes.items()}
        state = {name: side.double(np.zeros(())) for name in ("low", "high")}
    else:
        changes = {"behaviour__advantage_rate": setting["rate"], "behaviour__advantage_limit": setting["limit"]}
        state = {name: side.double(np.zeros(())) for name in ("mean", "mean_square", "weight")}
    behaviour = make_config(**changes).behaviour
    for i, x in enumerate(arrays["x"]):
        if setting["impl"] == "perc":
            state, scale = side.objectives.normalise_returns(behaviour, state, side.double(x))
            close(side.numpy(scale), arrays["scale"][i], name=f"scale {i}")
            close(side.numpy(state["low"]), arrays["state:lo"][i], name=f"low {i}")
            continue
        state, advantage = side.objectives.normalise_advantages(behaviour, state, side.double(x))
        if x.any():
            expected = (x.astype(float) - arrays["offset"][i]) / arrays["scale"][i]
            close(advantage, expected, 1e-3 if i < 12 else FORWARD, f"advantage {i}")


@pytest.mark.golden("v2023_extras", case="moments_perc_ema")
def test_normaliser_of_2023(side, case):
    arrays = case.load()
    state = {name: side.double(np.zeros(())) for name in ("low", "high")}
    for x, expected in zip(arrays["x"], arrays["invscale"], strict=True):
        state, scale = side.objectives.normalise_returns(make_config("proprio-2023").behaviour, state, side.double(x))
        close(side.numpy(scale), expected)


@pytest.mark.golden("optimizer")
def test_the_agents_optimiser(side, case):
    arrays, setting = case.load(), options(case.load())
    if setting["nesterov"] or setting["schedule"] != "const":
        pytest.skip("Nesterov's momentum, decay and annealing are in no version's settings")
    changes = {
        "learning_rate": setting["lr"], "warmup_updates": setting["warmup"], "epsilon": setting["eps"],
        "beta1": setting["beta1"], "beta2": setting["beta2"], "adaptive_clip": setting["agc"] or 1e30,
    }  # fmt: skip
    config = make_config(**{f"optimisers__laprop__{name}": value for name, value in changes.items()})
    start = weights(arrays, "init:")
    steps = [{name: arrays[f"grads:{name}"][t] for name in start} for t in range(8)]
    found = list(side.steps(config.optimisers.laprop, start, steps))
    assert len(found) == 8
    for t, parameters in enumerate(found):
        before = start if t == 0 else {name: arrays[f"params:{name}"][t - 1] for name in start}
        for name in start:
            largest = np.abs(arrays[f"updates:{name}"][t]).max()
            allowed = UPDATE * largest * (t + 1) + 2e-6 * np.abs(before[name]).max()
            error = np.abs(side.numpy(parameters[name]) - arrays[f"params:{name}"][t]).max()
            assert error <= allowed, f"{name} after step {t + 1}: {error} > {allowed}"


@pytest.mark.golden("slow_critic")
def test_the_agents_slow_critic(side, case):
    arrays, setting = case.load(), options(case.load())
    if setting["every"] != 1:
        pytest.skip("a slow critic that moves with every third update is in no version's settings")
    found = list(
        side.slow_critics(make_config(behaviour__slow_rate=setting["rate"]), arrays["slow_init"], arrays["src"])
    )
    assert len(found) == len(arrays["slow"])
    for slow, expected in zip(found, arrays["slow"], strict=True):
        close(slow, expected, 2e-6)
