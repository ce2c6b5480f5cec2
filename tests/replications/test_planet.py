"""PlaNet's agents: the behaviour of every agent, in torch and JAX, and what is PlaNet's own, in torch.

JAX's own numbers are held against torch's in test_planet_parity.py; the numbers of the authors' code are in
tests/golden/test_planet_model.py.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications.planet import agent_jax, agent_torch, model_torch
from replications.planet.agent_torch import PlanetAgent, objective
from replications.planet.config import Config
from shared.config import build
from shared.envs.spec import ActSpec
from shared.testing import agent_suite
from tests import tiny

ACTIONS = 2
VARIANTS = {
    "rssm": {},
    "ssm": {"model__latent": "ssm"},
    "drnn": {"model__latent": "drnn"},
    "mean_only": {"model__mean_only": True},
    "overshooting": {"loss__overshooting_scale": 0.5, "loss__overshooting_distance": 3},
}


def make_config(**changes) -> Config:
    return build(Config, tiny.values(**changes), where="a test")


def make_agent(seed=0, **changes) -> PlanetAgent:
    torch.set_num_threads(1)
    return PlanetAgent(make_config(**changes), {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(seed))


def make_batch(seed=0, size=3, length=6):
    random = np.random.default_rng(seed)
    flags = np.zeros((size, length), bool)
    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 3), np.uint8),
        "action": random.uniform(-1, 1, (size, length, ACTIONS)).astype(np.float32),
        "action_before": random.uniform(-1, 1, (size, ACTIONS)).astype(np.float32),
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        "is_first": flags.copy(),
        "is_last": flags.copy(),
        "is_terminal": flags.copy(),
    }


def make_jax_agent(seed=0, **changes) -> agent_jax.PlanetAgent:
    return agent_jax.PlanetAgent(make_config(**changes), {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(seed))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(seed, **VARIANTS[variant]), make_batch)


@pytest.mark.parametrize("variant", ["rssm", "ssm", "drnn"])  # the others differ in nothing but the loss: see parity
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent_in_jax(check, variant):
    check(lambda seed: make_jax_agent(seed, **VARIANTS[variant]), make_batch)


# -------------------------------------------------------------------------------------------------------- the model


def latent(kind="rssm", **changes):
    config = make_config(model__latent=kind, **changes).model
    module = model_torch.LATENTS[kind](config, 5, ACTIONS)
    model_torch.initialise(module, torch.Generator().manual_seed(0))
    return module.double()


def test_the_fast_filter_equals_the_step_applied_in_turn():
    """RSSM.observe moves work out of the loop; the state after every row must stay the same."""
    module = latent(model__hidden_layers=2)
    embed, action, noise = (
        torch.randn(3, 6, 5).double(),
        torch.randn(3, 6, ACTIONS).double(),
        torch.randn(3, 6, 4).double(),
    )
    start = model_torch.initial_state(module, 3)
    fast = module.observe(embed, action, noise, start)
    slow = model_torch.filter_sequence(module, embed, action, noise, start)
    for one, other in zip(fast, slow, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", ["rssm", "ssm", "drnn"])
def test_the_posterior_depends_on_its_observation_and_the_prior_does_not(kind):
    module = latent(kind)
    start, action, noise = (
        model_torch.initial_state(module, 1),
        torch.zeros(1, ACTIONS).double(),
        torch.zeros(1, 4).double(),
    )
    first, second = (module.posterior(start, action, torch.full((1, 5), value).double(), noise) for value in (0.0, 1.0))
    assert not torch.equal(first[0]["mean"], second[0]["mean"])
    assert torch.equal(first[1]["mean"], second[1]["mean"])


def test_initialisers_are_tensorflows_defaults():
    module = latent()
    hidden, deter = 8, 8
    limit = math.sqrt(6 / (hidden + deter + 2 * deter))  # Glorot over the joint matrix [x, h] -> [r, u]
    assert 0.9 * limit < module.gru.gates.weight.abs().max() <= limit
    assert (module.gru.gates.bias == 1).all() and (module.gru.candidate.bias == 0).all()
    head = module.prior_head.linear
    limit = math.sqrt(6 / (8 + 4))  # two matrices of 8 -> 4, not one of 8 -> 8
    assert 0.9 * limit < head.weight.abs().max() <= limit and (head.bias == 0).all()


def test_sizes_at_the_papers_setting():
    """Spatial sizes 64 -> 31 -> 14 -> 6 -> 2 and 1 -> 5 -> 13 -> 30 -> 64; embedding of 1024."""
    encoder, decoder = model_torch.Encoder(32), model_torch.Decoder(230, 32)
    assert encoder(torch.zeros(2, 3, 64, 64, 3)).shape == (2, 3, 1024)
    assert decoder(torch.zeros(2, 3, 230)).shape == (2, 3, 64, 64, 3)
    assert [tuple(conv.weight.shape) for conv in encoder.convs] == [
        (32, 3, 4, 4),
        (64, 32, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
    ]


def test_the_first_transposed_convolution_as_a_product_equals_torchs_own():
    decoder = model_torch.Decoder(7, 2).double()
    features = torch.randn(3, 7).double()
    x = decoder.dense(features).view(3, -1, 1, 1)
    for index, deconv in enumerate(decoder.deconvs):
        x = deconv(torch.relu(x) if index else x)
    torch.testing.assert_close(decoder(features), x.permute(0, 2, 3, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_tanh_is_tanh_and_has_its_gradient(dtype, tolerance):
    x = (
        torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, 1e-8, -1e-4, 1e4, -1e4])])
        .to(dtype)
        .requires_grad_()
    )
    got = model_torch.tanh(x)
    torch.testing.assert_close(got, torch.tanh(x), rtol=0, atol=tolerance)
    (gradient,) = torch.autograd.grad(got.sum(), x)
    torch.testing.assert_close(gradient, 1 - torch.tanh(x) ** 2, rtol=0, atol=4 * tolerance)


# ------------------------------------------------------------------------------------------------------ the objective


def terms(loss_changes=None, seed=0):
    agent = make_agent(**(loss_changes or {}))
    random = torch.Generator().manual_seed(seed)
    total, metrics = objective(
        agent.model,
        agent.config.loss,
        image=torch.rand(2, 4, 64, 64, 3, generator=random) - 0.5,
        action=torch.zeros(2, 4, ACTIONS),
        reward=torch.rand(2, 4, generator=random),
        noise=torch.randn(2, 4, 4, generator=random),
    )
    return total.item(), {name: float(value) for name, value in metrics.items()}


def test_the_total_is_image_plus_ten_times_reward_plus_divergence():
    total, metrics = terms()
    expected = metrics["image_loss"] + 10 * metrics["reward_loss"] + metrics["divergence_loss"]
    assert total == pytest.approx(expected, rel=1e-6)


def test_free_nats_are_taken_from_every_entry_before_the_mean():
    _, none = terms({"loss__free_nats": 0.0})
    assert none["divergence_loss"] == pytest.approx(none["kl"], rel=1e-5)
    _, many = terms({"loss__free_nats": 1000.0})
    assert many["divergence_loss"] == 0.0 and many["kl"] == pytest.approx(none["kl"], rel=1e-5)


def test_image_loss_of_a_perfect_prediction_is_the_gaussians_constant():
    """12288 values at the mean of a unit Gaussian: 12288 * log(2 pi) / 2 = 11291.92 nats."""
    constant = 64 * 64 * 3 * 0.5 * math.log(2 * math.pi)
    assert constant == pytest.approx(11291.92, abs=0.05)
    _, metrics = terms()
    assert metrics["image_loss"] > constant


def test_adam_has_tensorflows_epsilon():
    """One parameter, one gradient, by hand: p - lr * sqrt(1 - b2) / (1 - b1) * m / (sqrt(v) + eps)."""
    agent = make_agent()
    parameter = agent.model.reward.mean.bias
    for each in agent.model.parameters():
        each.grad = torch.zeros_like(each)
    parameter.grad.fill_(1e-3)
    before = parameter.item()
    agent.update()
    m, v = 0.1 * 1e-3, 0.001 * 1e-6
    step = 1e-3 * math.sqrt(0.001) / 0.1 * m / (math.sqrt(v) + 1e-4)
    assert before - parameter.item() == pytest.approx(step, rel=1e-4)  # 2.4e-4; torch's epsilon would give 9.1e-4


def test_the_gradient_is_clipped_by_its_global_norm():
    agent = make_agent(optimiser__clip_norm=1.0)
    for each in agent.model.parameters():
        each.grad = torch.full_like(each, 3.0)
    norm = agent.update()
    assert norm == pytest.approx(3 * math.sqrt(sum(p.numel() for p in agent.model.parameters())), rel=1e-5)
    clipped = torch.sqrt(sum((p.grad**2).sum() for p in agent.model.parameters()))
    assert clipped == pytest.approx(1.0, rel=1e-4)


def test_float32_agrees_with_float64():
    """What the golden tests leave open: they run in float64. Loss within 1e-6, gradients within 1e-3 of the largest."""
    inputs = {
        "image": torch.rand(2, 5, 64, 64, 3) - 0.5,
        "action": torch.rand(2, 5, ACTIONS),
        "reward": torch.rand(2, 5),
        "noise": torch.randn(2, 5, 4),
    }
    results = []
    for dtype in (torch.float32, torch.float64):
        agent = make_agent()
        model = agent.model.to(dtype)
        total, _ = objective(model, agent.config.loss, **{name: value.to(dtype) for name, value in inputs.items()})
        total.backward()
        results.append((total.item(), {name: p.grad.double() for name, p in model.named_parameters()}))
    (loss32, grads32), (loss64, grads64) = results
    assert loss32 == pytest.approx(loss64, rel=1e-6)
    for name, grad in grads64.items():
        assert (grads32[name] - grad).abs().max() <= 1e-3 * grad.abs().max() + 1e-9, name


# -------------------------------------------------------------------------------------------------------- the planner


def with_known_model(agent, reward_of):
    """Replace the world by s' = s + a (first ACTIONS components), reward by a function of s'."""

    class Latent:
        def prior(self, state, action, noise):
            return {"sample": state["sample"] + action}

        def features(self, state):
            return state["sample"]

    agent.model = SimpleNamespace(latent=Latent(), reward=reward_of)
    return agent


def test_the_planner_walks_to_a_goal_it_can_see():
    """Goal at (1.5, -0.5), reward minus the squared distance: optimum is a_1 = (1, -0.5), a_2 = (0.5, 0), a_3 = 0."""
    agent = make_agent(planner__candidates=400, planner__elites=40, planner__iterations=15)
    goal = torch.tensor([1.5, -0.5])
    with_known_model(agent, lambda x: -((x - goal) ** 2).sum(-1))
    mean, std = agent.plan({"sample": torch.zeros(1, ACTIONS)}, **agent.planner_noise(1))
    expected = torch.tensor([[[1.0, -0.5], [0.5, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(mean, expected, atol=0.06, rtol=0)
    assert mean.abs().max() <= 1 and std.max() < 0.2


def test_planning_for_several_environments_keeps_them_apart():
    """The authors' batched planner mixes candidates of different environments; ours must plan each as if alone."""
    agent = make_agent(planner__candidates=30, planner__elites=5)
    goals = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    noise = agent.planner_noise(3)
    together = with_known_model(agent, lambda x: -((x[..., :2] - x[..., 2:]) ** 2).sum(-1))
    pad = lambda action: torch.cat([action, torch.zeros_like(action)], -1)  # noqa: E731
    together.model.latent.prior = lambda state, action, noise: {"sample": state["sample"] + pad(action)}
    start = {"sample": torch.cat([torch.zeros(3, 2), goals], -1)}
    mean, _ = together.plan(start, **noise)
    for index in range(3):
        alone, _ = together.plan(
            {"sample": start["sample"][index : index + 1]},
            action_noise=noise["action_noise"][:, index : index + 1],
            latent_noise=noise["latent_noise"][:, 30 * index : 30 * index + 30],
        )
        torch.testing.assert_close(mean[index], alone[0], rtol=1e-5, atol=1e-6)


def test_without_iterations_the_plan_is_zero():
    agent = make_agent(planner__iterations=0)
    mean, _ = agent.plan(model_torch.initial_state(agent.model.latent, 2), **agent.planner_noise(2))
    assert mean.shape == (2, 3, ACTIONS) and not mean.any()


def test_the_planners_return_begins_with_the_state_after_the_first_action():
    agent = with_known_model(make_agent(), lambda x: x[..., 0])
    action = torch.tensor([[[0.5, 0.0], [0.25, 0.0], [0.0, 0.0]]])
    returned = agent.imagined_return({"sample": torch.zeros(1, 2)}, action, torch.zeros(1, 3, 4))
    assert returned.tolist() == [0.5 + 0.75 + 0.75]


def test_the_last_row_of_an_episode_is_not_planned_for(monkeypatch):
    agent = make_agent()
    monkeypatch.setattr(agent, "plan", lambda *_, **__: pytest.fail("planned for a row that nothing follows"))
    rows = agent_suite.rows_of(make_batch(), 0, is_first=False) | {"is_last": np.ones(3, bool)}
    assert not agent.act(rows, agent.initial_carry(3), explore=True).action.any()


def test_the_belief_is_filtered_with_the_executed_action():
    """The carried action is the noisy, clipped one that the environment received."""
    agent = make_agent(exploration__action_noise=5.0)
    acted = agent.act(agent_suite.rows_of(make_batch(), 0, is_first=True), agent.initial_carry(3), explore=True)
    np.testing.assert_array_equal(acted.carry["action"].numpy(), acted.action)
    assert (np.abs(acted.action) == 1).any()


# --------------------------------------------------------------------------------------------- images and parameters


def test_images_are_quantised_to_five_bits_once_with_noise_inside_a_level():
    agent = make_agent()
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    got = agent.dequantised(image)
    level = (image // 8).float() / 32 - 0.5
    assert got.dtype == torch.float32
    assert (got >= level).all() and (got < level + 1 / 32).all()
    assert not torch.equal(got, agent.dequantised(image)), "the noise is drawn anew each time"


def test_learning_feeds_every_row_the_action_that_led_to_it(monkeypatch):
    """Row t gets the action of row t - 1, the first row the one before the chunk, an episode's first row none."""
    agent, batch, seen = make_agent(), make_batch(), {}
    batch["is_first"][1, 0] = True
    gradients = agent.gradients
    monkeypatch.setattr(agent, "gradients", lambda **inputs: seen.update(inputs) or gradients(**inputs))
    agent.learn(batch)
    np.testing.assert_array_equal(seen["action"][:, 1:].numpy(), batch["action"][:, :-1])
    np.testing.assert_array_equal(seen["action"][[0, 2], 0].numpy(), batch["action_before"][[0, 2]])
    assert not seen["action"][1, 0].any()
    np.testing.assert_array_equal(seen["reward"].numpy(), batch["reward"])


@pytest.mark.parametrize(("row", "matters"), [(1, True), (2, True), (4, True), (5, False)])
def test_prediction_uses_the_action_that_led_to_each_row(row, matters):
    """With 2 rows of context out of 6: the action at row 1 leads to the first imagined row, that at row 5 nowhere."""
    batch, changed = make_batch(), make_batch()
    changed["action"][:, row] = -changed["action"][:, row]
    first, second = (make_agent().predict(b, context=2)["prediction"] for b in (batch, changed))
    assert np.array_equal(first[:, : row + 1], second[:, : row + 1]), "an action changed the rows before its effect"
    assert np.array_equal(first, second) != matters


def test_predict_sees_only_the_context():
    batch, changed = make_batch(), make_batch()
    changed["image"][:, 2:] = 255 - changed["image"][:, 2:]
    first, second = (make_agent().predict(b, context=2)["prediction"] for b in (batch, changed))
    assert first.shape == batch["image"].shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)


def test_parameters_round_trip_through_safetensors(tmp_path):
    from safetensors.numpy import load_file, save_file

    agent, other = make_agent(0), make_agent(1)
    save_file(agent.parameters(), tmp_path / "parameters.safetensors")
    other.load_parameters(load_file(tmp_path / "parameters.safetensors"))
    for name, value in agent.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value, err_msg=name)


def test_asking_for_a_missing_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert agent_torch.prepare("auto", 1) == "cpu"
    with pytest.raises(agent_torch.UserError, match="--device cuda"):
        agent_torch.prepare("cuda", 1)
