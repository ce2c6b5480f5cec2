"""DreamerV2's actor and critic losses against numbers from the released code: formulas from the weights on, over small
dense nets (assemblies.py). data/golden/dreamerv2/README.md says what each file holds.

Tolerances: as in test_dreamerv2_core.py; FORWARD is larger (4.0e-6 found) because rewards of 3500 cancel to returns of
6. Gradients deviate by up to 4.1e-6 of a row's largest entry.
"""

import numpy as np
import pytest

from shared.formulas._backend import stop_gradient
from shared.formulas.distributions import (
    categorical_entropy,
    categorical_log_prob,
    truncated_normal,
    truncated_normal_entropy,
    truncated_normal_log_prob,
)
from shared.formulas.elbo import gaussian_log_prob
from shared.formulas.returns import discount_weights
from tests.golden.assemblies import dense, dreamer_return, elu, layer_norm
from tests.golden.checks import all_close, close, evaluate, gradient_close
from tests.golden.dreamerv2_schedules import schedule
from tests.golden.loading import options, take, weights

FORWARD = 2e-5
GRADIENT = 3e-5

NORM_EPSILON = 1e-3                                           # Keras's
MIN_STD, INIT_STD = 0.1, 0.0                                  # of the truncated normal
TRAJECTORY = ("feat", "action", "reward", "discount")


def hidden(w, net, x):
    """The hidden layers: dense, perhaps a LayerNorm, ELU."""
    for i in range(sum(f"{net}/dense{i}/kernel" in w for i in range(9))):
        x = dense(w, f"{net}/dense{i}", x)
        if f"{net}/norm{i}/gamma" in w:
            x = layer_norm(x, w[f"{net}/norm{i}/gamma"], w[f"{net}/norm{i}/beta"], NORM_EPSILON)
        x = elu(x)
    return x


def output(w, net, x):
    return dense(w, f"{net}/out/out", hidden(w, net, x))


def policy(w, feat, action, discrete):
    """(log-probability of the action, entropy), both (..., )."""
    if discrete:
        logits = output(w, "actor", feat)
        return categorical_log_prob(action, logits), categorical_entropy(logits)
    x = hidden(w, "actor", feat)
    loc, scale = truncated_normal(dense(w, "actor/out/out", x), dense(w, "actor/out/std", x), INIT_STD, MIN_STD)
    log_prob = truncated_normal_log_prob(action, loc, scale, -1.0, 1.0)
    return log_prob.sum(-1), truncated_normal_entropy(loc, scale, -1.0, 1.0).sum(-1)


def losses(x, setting):
    """Target, actor loss and critic loss of an imagined trajectory; mix and actor_ent are those of this step."""
    feat, action, reward, discount = (x[name] for name in TRAJECTORY)
    value = output(x, "target_critic", feat)[..., 0]
    target = dreamer_return(reward[:-1, ...], value[:-1, ...], discount[:-1, ...], value[-1, ...], setting["lambda"])
    weight = stop_gradient(discount_weights(discount))

    # The actor: at feat[t] it chose action[t + 1], which earns target[t + 1].
    advantage = stop_gradient(target[1:, ...] - value[:-2, ...])
    # code: "both" does not stop the action, but TensorFlow's density of a one-hot class has no gradient to the class.
    constant = setting["actor_grad"] == "reinforce" or setting["discrete"]
    chosen = stop_gradient(action[1:-1, ...]) if constant else action[1:-1, ...]
    log_prob, entropy = policy(x, stop_gradient(feat[:-2, ...]), chosen, setting["discrete"])
    mix = {"reinforce": 0.0, "dynamics": 1.0, "both": setting["mix"]}[setting["actor_grad"]]
    objective = mix * target[1:, ...] + (1 - mix) * log_prob * advantage
    actor_loss = -(weight[:-2, ...] * (objective + setting["actor_ent"] * entropy)).mean()

    # The critic: feat and target are constants to it.
    prediction = output(x, "critic", stop_gradient(feat[:-1, ...]))[..., 0]
    critic_loss = -(weight[:-1, ...] * gaussian_log_prob(stop_gradient(target), prediction, 1.0)).mean()
    return {
        "weight": weight,
        "target": target,
        "actor_loss": actor_loss,
        "critic_loss": critic_loss,
        "actor_entropy_mean": entropy.mean(),
        "total": actor_loss + critic_loss,                    # no weight is in both: one gradient shows both
    }


def stored_gradient(golden, name):
    if name in TRAJECTORY:
        return golden[f"d_actor_d{name}"]
    if name.startswith("target_critic/"):                     # the optimiser never applies it
        return golden[f"grad_of_actor_loss:{name}"]
    return golden[f"grad:{name}"]


@pytest.mark.golden("actor_critic_loss")
def test_actor_and_critic_losses(library, case):
    golden = case.double()
    setting = options(golden)
    step = setting["tfstep"]
    setting |= {name: schedule(setting[name], step) for name in ("mix", "actor_ent")}
    inputs = take(golden, *TRAJECTORY) | weights(golden, "param:")
    results, gradients = evaluate(library, lambda **x: losses(x, setting), inputs, "total", tuple(inputs))
    del results["total"]
    all_close(results, golden, FORWARD)
    for name, gradient in gradients.items():
        gradient_close(gradient, stored_gradient(golden, name), GRADIENT, name)


@pytest.mark.golden("imagine")
def test_discounts_and_weights_of_imagined_states(library, case):
    """The start state's discount is the replayed truth, not the head's. The roll-out: test_dreamerv2_model.py."""
    golden = case.double()
    setting, w = options(golden), weights(golden, "param:")
    discount = np.full(golden["seq_discount"].shape, setting["discount"])
    if setting["pred_discount"]:
        discount = 1 / (1 + np.exp(-output(w, "discount", golden["seq_feat"])[..., 0]))
        discount[0] = setting["discount"] * (1.0 - golden["start_is_terminal"].ravel())
    close(discount, golden["seq_discount"], FORWARD)
    close(library(discount_weights, golden["seq_discount"]), golden["seq_weight"], FORWARD)
