"""The authors' DreamerV3 weights (their names and layouts) under our names, in torch's layouts. NumPy only.

Kernels: dense (in, out) -> (out, in); those of blocks stay; convolutions, transposed ones too, (kh, kw, in, out) ->
(out, in, kh, kw). The same map serves weights and their gradients.
"""

import re

import numpy as np

RSSM = {
    "dynin0": "gru.deter_in",
    "dynin1": "gru.stoch_in",
    "dynin2": "gru.action_in",
    "priorlogit": "prior_head",
    "obslogit": "posterior_head",
    "dyngru": "gru.gates",
}
RSSM_2023 = {
    "img_in": "gru.inputs",
    "img_out": "prior_hidden.layers.0",
    "obs_out": "posterior_hidden.layers.0",
}


def under(source, prefix):
    """What is below a prefix, by the rest of its name."""
    return {name.removeprefix(prefix): value for name, value in source.items() if name.startswith(prefix)}


def inside(prefix, parameters):
    return {f"{prefix}.{name}": value for name, value in parameters.items()}


def linear(source, name, target):
    """A dense layer or a convolution, with its bias where there is one."""
    kernel = source[f"{name}/kernel"]
    weight = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel if kernel.ndim == 3 else kernel.T
    bias = {f"{target}.bias": source[f"{name}/bias"]} if f"{name}/bias" in source else {}
    return {f"{target}.weight": weight} | bias


def norm(source, name, target):
    found = {"weight": f"{name}/scale", "bias": f"{name}/shift"}
    return {f"{target}.{ours}": source[theirs] for ours, theirs in found.items() if theirs in source}


def layer(source, name, target, norm_name):
    return linear(source, name, f"{target}.linear") | norm(source, norm_name, f"{target}.norm")


def layers(source, pattern, norm_pattern, target):
    """Layers 0, 1, ... as an MLP's."""
    out, i = {}, 0
    while f"{pattern.format(i)}/kernel" in source:
        out |= layer(source, pattern.format(i), f"{target}.layers.{i}", norm_pattern.format(i))
        i += 1
    return out


def latent(source, deter_size):
    """The latent model. A posterior that reads the tokens alone gets weights of 0 for the rest."""
    source = dict(source)
    units = source["dynin0/kernel"].shape[1]
    tokens = source["obs0/kernel"].shape[0]
    if source.pop("absolute", False):
        source["obs0/kernel"] = np.concatenate([np.zeros((deter_size, units)), source["obs0/kernel"]])
        assert len(source["obs0/kernel"]) == deter_size + tokens
    out = {}
    for name, target in RSSM.items():
        single = target.endswith(("head", "gates"))
        out |= linear(source, name, target) if single else layer(source, name, target, f"{name}norm")
    for i in range(sum(f"dynhid{i}/kernel" in source for i in range(9))):
        out |= linear(source, f"dynhid{i}", f"gru.hidden.{i}") | norm(source, f"dynhid{i}norm", f"gru.norms.{i}")
    out |= layers(source, "prior{}", "prior{}norm", "prior_hidden")
    return out | layers(source, "obs{}", "obs{}norm", "posterior_hidden")


def encoder(source):
    out = layers(source, "mlp{}", "mlp{}norm", "mlp")
    for i in range(sum(f"cnn{i}/kernel" in source for i in range(9))):
        out |= linear(source, f"cnn{i}", f"convs.convs.{i}") | norm(source, f"cnn{i}norm", f"convs.norms.{i}")
    return out


def decoder(source):
    """Convolutions are numbered from the last to the first there."""
    out = inside("vectors", layers(source, "mlp/linear{}", "mlp/norm{}", "mlp"))
    for name in source:
        if match := re.fullmatch(r"(vec/(\w+)/\w+)/kernel", name):
            out |= linear(source, match[1], f"vectors.heads.{match[2]}")
    if "sp0/kernel" in source:
        out |= linear(source, "sp0", "images.start.deter_in") | linear(source, "sp2", "images.start.stoch_in")
        out |= layer(source, "sp1", "images.start.stoch_hidden", "sp1norm")
        out |= norm(source, "spnorm", "images.start.norm") | linear(source, "imgout", "images.out")
        count = sum(f"conv{i}/kernel" in source for i in range(9))
        for i in range(count):
            place = count - 1 - i
            out |= linear(source, f"conv{i}", f"images.convs.{place}")
            out |= norm(source, f"conv{i}norm", f"images.norms.{place}")
    return out


def head(source):
    """A head: hidden layers, and one output layer, or a policy's mean and std."""
    out = layers(source, "mlp/linear{}", "mlp/norm{}", "hidden")
    targets = {"logits": "out", "logit": "out", "mean": "out", "stddev": "std"}
    for name, target in targets.items():
        if f"head/{name}/kernel" in source:
            out |= linear(source, f"head/{name}", target)
    return out


# ------------------------------------------------------------------------------------------------ the 2023 agent


def norm_2023(source, name, target):
    return {f"{target}.weight": source[f"{name}/scale"], f"{target}.bias": source[f"{name}/bias"]}


def latent_2023(source):
    out = {"initial_deter": source["initial"], "gru.gates.weight": source["gru/kernel"].T}
    out |= norm_2023(source, "gru/norm", "gru.norm")
    out |= linear(source, "img_stats", "prior_head") | linear(source, "obs_stats", "posterior_head")
    for name, target in RSSM_2023.items():
        out |= linear(source, name, f"{target}.linear") | norm_2023(source, f"{name}/norm", f"{target}.norm")
    return out


def encoder_2023(source):
    out = {}
    for i in range(2):
        out |= linear(source, f"s{i}res", f"convs.convs.{i}") | norm_2023(source, f"s{i}res/norm", f"convs.norms.{i}")
    return out


def decoder_2023(source):
    """Two stages; kernels are stored (kh, kw, out, in)."""
    source = source | {f"s{i}res/kernel": source[f"s{i}res/kernel"].transpose(0, 1, 3, 2) for i in range(2)}
    out = linear(source, "in", "images.start.linear") | linear(source, "s1res", "images.out")
    return out | linear(source, "s0res", "images.convs.0") | norm_2023(source, "s0res/norm", "images.norms.0")
