"""The authors' PlaNet weights (TensorFlow names and layouts) under our names, in torch's layouts. NumPy only.

Kernels: dense (in, out) -> (out, in); convolutions HWIO -> OIHW; transposed convolutions (kh, kw, out, in) ->
(in, out, kh, kw). The same map serves weights and their gradients.
"""

import numpy as np

RSSM = {"trans_in": "transition_in", "trans_out": "prior_hidden", "post_hid": "posterior_hidden"}
SSM = {"trans_hid": "prior_hidden", "post_hid": "posterior_hidden"}
HEADS = {"trans": "prior_head", "post": "posterior_head"}


def dense(source, name, target):
    return {f"{target}.weight": source[f"{name}/kernel"].T, f"{target}.bias": source[f"{name}/bias"]}


def mlp(source, name, target):
    """One layer `name`, or layers name0, name1, ... / h0, h1, ..."""
    if f"{name}/kernel" in source:
        return dense(source, name, f"{target}.layers.0")
    count = sum(f"{name}{i}/kernel" in source for i in range(9))
    assert count, f"no layer {name} among {sorted(source)}"
    return {k: v for i in range(count) for k, v in dense(source, f"{name}{i}", f"{target}.layers.{i}").items()}


def gaussian_head(source, name, target):
    """The authors' two layers, mean above std."""
    kernel = np.concatenate([source[f"{name}_mean/kernel"].T, source[f"{name}_std/kernel"].T])
    bias = np.concatenate([source[f"{name}_mean/bias"], source[f"{name}_std/bias"]])
    return {f"{target}.linear.weight": kernel, f"{target}.linear.bias": bias}


def gru(source, name, target):
    """The joint matrices over [x, h] of the gates (r above u) and of the candidate."""
    return {
        f"{target}.gates.weight": source[f"{name}/w_ru"].T,
        f"{target}.gates.bias": source[f"{name}/b_ru"],
        f"{target}.candidate.weight": source[f"{name}/w_c"].T,
        f"{target}.candidate.bias": source[f"{name}/b_c"],
    }


def gru_alone(source):
    """The parameters of a cell that is no part of a model."""
    return {name.removeprefix("cell."): value for name, value in gru(source, "gru", "cell").items()}


def latent(source):
    """Weights of an RSSM, SSM or DRNN, whichever the names show."""
    if "enc_gru/w_ru" in source:
        return {
            **gru(source, "enc_gru", "encoder_gru"),
            **gru(source, "dec_gru", "decoder_gru"),
            **mlp(source, "samp_hid", "hidden"),
            **gaussian_head(source, "samp", "head"),
        }
    layers = SSM if "trans_hid/kernel" in source else RSSM
    out = {k: v for name, target in layers.items() for k, v in mlp(source, name, target).items()}
    out |= {k: v for name, target in HEADS.items() for k, v in gaussian_head(source, name, target).items()}
    return out | (gru(source, "gru", "gru") if "gru/w_ru" in source else {})


def encoder(source):
    out = {}
    for i in range(4):
        out[f"convs.{i}.weight"] = source[f"encoder/conv{i + 1}/kernel"].transpose(3, 2, 0, 1)
        out[f"convs.{i}.bias"] = source[f"encoder/conv{i + 1}/bias"]
    return out


def decoder(source):
    out = dense(source, "image/dense", "dense")
    for i in range(4):
        out[f"deconvs.{i}.weight"] = source[f"image/deconv{i + 1}/kernel"].transpose(3, 2, 0, 1)
        out[f"deconvs.{i}.bias"] = source[f"image/deconv{i + 1}/bias"]
    return out


def reward(source):
    return {**mlp(source, "reward/h", "hidden"), **dense(source, "reward/mean", "mean")}


def world_model(source):
    """All parts of a WorldModel."""
    parts = {"encoder": encoder, "latent": latent, "decoder": decoder, "reward": reward}
    return {f"{part}.{name}": value for part, make in parts.items() for name, value in make(source).items()}
