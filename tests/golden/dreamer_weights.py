"""The authors' Dreamer weights (TensorFlow names and layouts) under our names, in torch's layouts. NumPy only.

Kernels: dense (in, out) -> (out, in); convolutions HWIO -> OIHW; transposed convolutions (kh, kw, out, in) ->
(in, out, kh, kw). The same map serves weights and their gradients.
"""

import numpy as np

RSSM = {
    "img1": "transition_in.layers.0",
    "img2": "prior_hidden.layers.0",
    "img3": "prior_head.linear",
    "obs1": "posterior_hidden.layers.0",
    "obs2": "posterior_head.linear",
}
SCALARS = {"reward": "model.reward", "pcont": "model.continuation", "value": "value"}


def dense(source, name, target):
    return {f"{target}.weight": source[f"{name}/kernel"].T, f"{target}.bias": source[f"{name}/bias"]}


def hidden(source, name, target):
    """Layers h0, h1, ... of a head."""
    count = sum(f"{name}/h{i}/kernel" in source for i in range(9))
    assert count, f"no layer {name}/h0 among {sorted(source)}"
    return {k: v for i in range(count) for k, v in dense(source, f"{name}/h{i}", f"{target}.layers.{i}").items()}


def head(source, name):
    """A head with one output layer: reward, value, pcont, actor."""
    return {**hidden(source, name, "hidden"), **dense(source, f"{name}/hout", "out")}


def tf1_actor(source):
    """The TF1 action head: mean and std come from two layers."""
    source = {f"actor/{name}": value for name, value in source.items()}
    pairs = {kind: [source[f"actor/{part}/{kind}"] for part in ("mean", "std")] for kind in ("kernel", "bias")}
    joint = {f"actor/hout/{kind}": np.concatenate(pair, -1) for kind, pair in pairs.items()}
    return head(source | joint, "actor")


def latent(source):
    """An RSSM with Keras' GRU: gates z, r, candidate; bias row 0 of the input's product, row 1 of the belief's."""
    out = {k: v for name, target in RSSM.items() for k, v in dense(source, f"rssm/{name}", target).items()}
    kernels = {"inputs": source["rssm/gru/kernel"], "recurrent": source["rssm/gru/recurrent_kernel"]}
    for row, (target, kernel) in enumerate(kernels.items()):
        out |= {f"gru.{target}.weight": kernel.T, f"gru.{target}.bias": source["rssm/gru/bias"][row]}
    return out


def convolutions(source, name, target, numbers):
    out = {}
    for i, number in enumerate(numbers):
        out[f"{target}.{i}.weight"] = source[f"{name}/h{number}/kernel"].transpose(3, 2, 0, 1)
        out[f"{target}.{i}.bias"] = source[f"{name}/h{number}/bias"]
    return out


def encoder(source):
    return convolutions(source, "encoder", "convs", range(1, 5))


def decoder(source):
    return {**dense(source, "decoder/h1", "dense"), **convolutions(source, "decoder", "deconvs", range(2, 6))}


def agent(source):
    """Every part of an agent, those that the source has: names as DreamerAgent.parameters gives them."""
    parts = {"model.encoder": encoder(source), "model.latent": latent(source), "model.decoder": decoder(source)}
    parts |= {target: head(source, name) for name, target in SCALARS.items() if f"{name}/hout/kernel" in source}
    parts |= {"actor": head(source, "actor")}
    return {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}
