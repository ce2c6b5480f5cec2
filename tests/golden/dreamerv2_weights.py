"""The authors' DreamerV2 weights (Keras names and layouts) under our names, in torch's layouts. NumPy only.

Kernels: dense (in, out) -> (out, in); convolutions HWIO -> OIHW; transposed convolutions (kh, kw, out, in) ->
(in, out, kh, kw). The same map serves weights and their gradients.
"""

import numpy as np

RSSM = {
    "img_in": "transition_in.layers.0",
    "img_out_0": "prior_hidden.layers.0",
    "img_dist_0": "prior_head.linear",
    "obs_out": "posterior_hidden.layers.0",
    "obs_dist": "posterior_head.linear",
}
RSSM_NORMS = {
    "img_in_norm": "transition_in.norms.0",
    "img_out_norm_0": "prior_hidden.norms.0",
    "obs_out_norm": "posterior_hidden.norms.0",
}


def under(source, prefix):
    """What is below a prefix, by the rest of its name."""
    return {name.removeprefix(prefix): value for name, value in source.items() if name.startswith(prefix)}


def dense(source, name, target):
    if f"{name}/kernel" not in source:
        return {}
    return {f"{target}.weight": source[f"{name}/kernel"].T, f"{target}.bias": source[f"{name}/bias"]}


def norm(source, name, target):
    if f"{name}/gamma" not in source:
        return {}
    return {f"{target}.weight": source[f"{name}/gamma"], f"{target}.bias": source[f"{name}/beta"]}


def mlp(source):
    """Layers dense0, dense1, ..., and their norms where there are any."""
    out = {}
    for i in range(sum(f"dense{i}/kernel" in source for i in range(9))):
        out |= dense(source, f"dense{i}", f"layers.{i}") | norm(source, f"norm{i}", f"norms.{i}")
    return out


def inside(prefix, parameters):
    return {f"{prefix}.{name}": value for name, value in parameters.items()}


def head(source):
    """A head with one output layer; the policy's location and scale become one."""
    if "out/std/kernel" in source:
        pairs = {kind: [source[f"out/{part}/{kind}"] for part in ("out", "std")] for kind in ("kernel", "bias")}
        source = source | {f"out/out/{kind}": np.concatenate(pair, -1) for kind, pair in pairs.items()}
    return inside("hidden", mlp(source)) | dense(source, "out/out", "out")


def gru(source):
    return dense(source, "gru", "linear") | {
        "norm.weight": source["gru/norm_gamma"],
        "norm.bias": source["gru/norm_beta"],
    }


def latent(source):
    """The latent model; where a file has no weights of the posterior there are none here."""
    out = inside("gru", gru(source))
    for name, target in RSSM.items():
        out |= dense(source, name, target)
    for name, target in RSSM_NORMS.items():
        out |= norm(source, name, target)
    return out


def convolutions(source, target):
    out = {}
    for i in range(4):
        out[f"{target}.{i}.weight"] = source[f"conv{i}/kernel"].transpose(3, 2, 0, 1)
        out[f"{target}.{i}.bias"] = source[f"conv{i}/bias"]
        out |= norm(source, f"convnorm{i}", f"norms.{i}")
    return out


def encoder(source):
    return convolutions(source, "convs")


def decoder(source):
    return dense(source, "convin", "dense") | convolutions(source, "deconvs")


def world_model(source):
    """Every part of a world model that the file has."""
    out = inside("encoder", encoder(under(source, "enc/"))) | inside("latent", latent(under(source, "rssm/")))
    out |= inside("decoder", decoder(under(source, "decoder/")))
    for name in ("reward", "discount"):
        out |= inside(name, head(under(source, f"{name}/")))
    return out
