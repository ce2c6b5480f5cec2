"""Dreamer's agent in torch: the behaviour of every agent, and what is Dreamer's own.

JAX's own numbers are held against torch's in test_dreamer_parity.py; the numbers of the authors' code are in
tests/golden/test_dreamer_model.py.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications.dreamer import agent_torch, model_torch
from replications.dreamer.agent_torch import DreamerAgent
from replications.dreamer.config import Config
from shared.config import build
from shared.envs.spec import ActSpec
from shared.errors import UserError
from shared.formulas.distributions import tanh_normal_log_prob
from shared.testing import agent_suite
from tests import tiny_dreamer

ACTIONS = 3
GAMES = {"atari", "atari-straight"}
VARIANTS = ("dreamer", "tf2", "no-value", "planet", "contrastive", "reward-only", "paper-text", *sorted(GAMES))


def make_config(variant="dreamer", **changes) -> Config:
    return build(Config, tiny_dreamer.values(variant, **changes), where="a test")


def make_agent(variant="dreamer", seed=0, **changes) -> DreamerAgent:
    torch.set_num_threads(1)
    spec = ActSpec(ACTIONS, discrete=variant in GAMES)
    return DreamerAgent(make_config(variant, **changes), {}, spec, seed=np.random.SeedSequence(seed))


def make_batch(seed=0, size=3, length=6, *, discrete=False):
    random = np.random.default_rng(seed)
    flags = np.zeros((size, length), bool)

    def actions(*shape):
        if discrete:
            return np.eye(ACTIONS, dtype=np.float32)[random.integers(ACTIONS, size=shape)]
        return random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)

    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 3), np.uint8),
        "action": actions(size, length),
        "action_before": actions(size),
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        "is_first": flags.copy(),
        "is_last": flags.copy(),
        "is_terminal": flags.copy(),
    }


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches_of(variant):
    return lambda seed: make_batch(seed, discrete=variant in GAMES)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    # A discrete agent explores by chance alone: make it certain.
    often = {"exploration__epsilon__start": 1.0, "exploration__epsilon__end": 1.0} if variant in GAMES else {}
    check(lambda seed: make_agent(variant, seed, **often), batches_of(variant))


# ------------------------------------------------------------------------------------------------------ the networks


@pytest.mark.parametrize("gru", ["block", "keras"])
def test_the_fast_filter_equals_the_step_applied_in_turn(gru):
    """RSSM.observe moves work out of the loop; the state after every row must stay the same."""
    latent = make_agent(model__gru=gru).model.latent.double()
    embed, action, noise = (normal(3, 6, size, seed=size).double() for size in (64, ACTIONS, 4))
    state = model_torch.initial_state(latent, 3)
    fast, fast_prior = latent.observe(embed, action, noise, state)
    for t in range(6):
        state, prior = latent.posterior(state, action[:, t], embed[:, t], noise[:, t])
        for name, value in state.items():
            torch.testing.assert_close(fast[name][:, t], value, rtol=1e-12, atol=1e-12, msg=name)
        torch.testing.assert_close(fast_prior["mean"][:, t], prior["mean"], rtol=1e-12, atol=1e-12)


def test_the_two_grus_differ_by_where_the_reset_gate_acts():
    """The same weights, a bias in the recurrent candidate alone: r (U h + d) is not U (r h) + d."""
    x, h = normal(5, 2).double(), normal(5, 4, seed=1).double()
    keras, block = model_torch.KerasGRU(2, 4).double(), model_torch.BlockGRU(2, 4).double()
    with torch.no_grad():
        weight = torch.cat([keras.inputs.weight, keras.recurrent.weight], -1)  # z, r, candidate
        bias = keras.inputs.bias + keras.recurrent.bias
        block.gates.weight.copy_(torch.cat([weight[4:8], weight[:4]]))  # r, u
        block.gates.bias.copy_(torch.cat([bias[4:8], bias[:4]]))
        block.candidate.weight.copy_(weight[8:])
        block.candidate.bias.copy_(bias[8:])
    assert not torch.allclose(keras(x, h), block(x, h), atol=1e-3)
    with torch.no_grad():
        block.gates.bias[:4] = keras.inputs.bias[4:8] = 50.0  # reset gates wide open
    torch.testing.assert_close(keras(x, h), block(x, h), rtol=1e-12, atol=1e-12)


def test_initialisers_are_those_of_the_two_lineages():
    tf1, tf2 = (make_agent(variant, model__hidden_size=40).model.latent for variant in ("dreamer", "tf2"))
    assert (tf1.gru.gates.bias == 1).all() and (tf1.gru.candidate.bias == 0).all()
    assert not tf2.gru.inputs.bias.any() and not tf2.gru.recurrent.bias.any()
    columns = tf2.gru.recurrent.weight  # (3 D, D), orthonormal columns
    torch.testing.assert_close(columns.T @ columns, torch.eye(8), atol=1e-5, rtol=0)
    for latent, outputs in ((tf1, 4), (tf2, 8)):  # two matrices of 40 -> 4, or one of 40 -> 8
        limit = math.sqrt(6 / (40 + outputs))
        assert 0.95 * limit < latent.prior_head.linear.weight.abs().max() <= limit


def test_the_policy_begins_wide_and_in_the_middle():
    """init_std 5: softplus(log(e^5 - 1)) = 5, plus min_std; means near 0."""
    actor = make_agent().actor
    mean, std = actor(torch.zeros(1, 12))
    torch.testing.assert_close(std, torch.full((1, ACTIONS), 5.0001))
    assert mean.abs().max() == 0


def test_the_mode_is_the_likeliest_of_the_samples_with_the_jacobian():
    """By hand for every row; and with a wide Gaussian it is an end of the box, not the tanh of the mean."""
    actor = make_agent().actor
    features, noise = normal(5, 12), normal(200, 5, ACTIONS, seed=1)
    mode = actor.mode(features, noise)
    mean, std = actor(features)
    for row in range(5):
        tried = torch.tanh(mean[row] + std[row] * noise[:, row])
        density = tanh_normal_log_prob(tried, mean[row].expand(200, -1), std[row].expand(200, -1)).sum(-1)
        assert torch.equal(mode[row], tried[density.argmax()])
    assert mode.abs().min() > 0.9 > torch.tanh(mean).abs().max()


def test_a_discrete_policy_draws_classes_as_often_as_it_says():
    actor = make_agent("atari").actor
    with torch.no_grad():
        actor.out.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    features = torch.zeros(1, 12).expand(30_000, -1)
    probs = torch.softmax(actor(features[:1]), -1)[0]
    drawn = actor.sample(features, torch.rand(30_000, generator=torch.Generator().manual_seed(0)))
    assert ((drawn == 0) | (drawn == 1)).all() and (drawn.sum(-1) == 1).all()
    torch.testing.assert_close(drawn.mean(0).detach(), probs.detach(), atol=0.01, rtol=0)
    assert actor.mode(features[:1], None).argmax() == probs.argmax()


# ------------------------------------------------------------------------------------------------ the model's objective


def model_terms(variant="dreamer", seed=0, **changes):
    agent, random = make_agent(variant, **changes), torch.Generator().manual_seed(seed)
    inputs = {
        "image": torch.rand(2, 4, 64, 64, 3, generator=random) - 0.5,
        "action": torch.zeros(2, 4, ACTIONS),
        "reward": 3 * torch.rand(2, 4, generator=random),
        "terminal": torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0]]),
        "noise": torch.randn(2, 4, 4, generator=random),
    }
    total, metrics, post = agent_torch.model_objective(agent.model, agent.config.loss, **inputs)
    return agent, total, {name: float(value) for name, value in metrics.items()}, (inputs, post)


def test_the_total_is_the_sum_of_the_weighted_terms():
    scales = {"image": 1.0, "reward": 2.0, "divergence": 0.1, "continuation": 10.0}
    changes = {f"loss__{name}_scale": scale for name, scale in scales.items()} | {"loss__free_nats": 0.0}
    _, total, metrics, _ = model_terms("atari", **changes)
    assert total.item() == pytest.approx(sum(metrics[f"{name}_loss"] * scale for name, scale in scales.items()))


def test_free_nats_are_taken_from_every_step_or_from_the_mean():
    _, _, none, _ = model_terms(loss__free_nats=0.0)
    assert none["divergence_loss"] == pytest.approx(none["kl"], rel=1e-5)
    for of, nats, floor in (("step", 1000.0, 0.0), ("mean", 1000.0, 1000.0)):
        _, _, metrics, _ = model_terms(loss__free_nats=nats, loss__free_nats_of=of)
        assert (metrics["divergence_loss"], metrics["kl"]) == (floor, pytest.approx(none["kl"], rel=1e-5))
    # Steps lie on both sides of the mean: clipped per step, what is above counts; clipped after, nothing does.
    nats = none["kl"] * 1.0001
    agent, total, per_step, _ = model_terms(loss__free_nats=nats)
    total.backward()
    assert per_step["divergence_loss"] > 0 and agent.model.latent.prior_head.linear.weight.grad.any()
    agent, total, of_mean, _ = model_terms(loss__free_nats=nats, loss__free_nats_of="mean")
    total.backward()
    assert (
        of_mean["divergence_loss"] == pytest.approx(nats) and not agent.model.latent.prior_head.linear.weight.grad.any()
    )


def test_rewards_of_games_are_squashed_for_the_head_alone():
    """-log N(tanh(r); mean, 1), the mean read off the head."""
    agent, _, metrics, (inputs, post) = model_terms("atari")
    mean = agent.model.reward(agent.model.latent.features(post))
    expected = 0.5 * (torch.tanh(inputs["reward"]) - mean) ** 2 + 0.5 * math.log(2 * math.pi)
    assert metrics["reward_loss"] == pytest.approx(expected.mean().item(), rel=1e-5)


def test_the_continuation_learns_the_discount_where_the_world_goes_on():
    """Soft labels 0.99 and, at the terminal row, 0: the cross-entropy by hand."""
    agent, _, metrics, (inputs, post) = model_terms("atari")
    p = torch.sigmoid(agent.model.continuation(agent.model.latent.features(post)))
    label = 0.99 * (1 - inputs["terminal"])
    expected = -(label * p.log() + (1 - label) * (1 - p).log()).mean()
    assert metrics["continuation_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("variant", ["reward-only", "contrastive"])
def test_without_reconstruction_the_image_teaches_the_decoder_and_nothing_else(variant):
    """Ten times the image loss: ten times the decoder's gradient, the same gradient everywhere else."""
    found = []
    for scale in (1.0, 10.0):
        agent, total, _, _ = model_terms(variant, loss__image_scale=scale)
        total.backward()
        found.append({name: parameter.grad for name, parameter in agent.model.named_parameters()})
    for name, gradient in found[0].items():
        factor = 10 if name.startswith("decoder.") else 1
        torch.testing.assert_close(found[1][name], factor * gradient, rtol=1e-3, atol=1e-6, msg=name)
        assert gradient.any() or "prior" in name, name  # below the free nats the prior learns nothing
    groups = {group["name"]: group for group in agent.optimiser.param_groups}
    assert len(groups["decoder"]["params"]) == 10
    assert (groups["decoder"]["lr"], groups["decoder"]["clip_norm"]) == (1e-3, 1000.0)


def test_the_contrastive_bound_by_brute_force():
    """log q of each row's own features less the logsumexp over the window's, which wraps around."""
    random = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 3, 2, generator=random), torch.rand(2, 3, 2, generator=random) + 0.5
    features = torch.randn(2, 3, 2, generator=random)
    shifts = agent_torch.contrastive_shifts(make_config("contrastive").loss, 2, 3)  # a window of 2 x 3
    assert sorted(shifts) == [(b, t) for b in (-1, 0) for t in (-1, 0, 1)]
    got = agent_torch.contrastive_bound(mean, std, features, shifts)
    for b in range(2):
        for t in range(3):
            q = torch.distributions.Normal(mean[b, t], std[b, t])
            others = [q.log_prob(features[(b - i) % 2, (t - j) % 3]).sum() for i, j in shifts]
            expected = q.log_prob(features[b, t]).sum() - torch.logsumexp(torch.stack(others), 0)
            torch.testing.assert_close(got[b, t], expected)


# ------------------------------------------------------------------------------------------------------- imagination


def test_the_actor_reads_constants_and_the_start_is_not_among_the_states():
    """World s' = s + a, policy a = w s read as a constant: s1 = s0 + w s0, s2 = s1 + w [s1].

    ds2/dw = s0 + s1 with the constant; through the policy's input it would be s0 + s1 + w s0.
    """
    w, start = torch.tensor(0.5, requires_grad=True), torch.tensor([[2.0]])
    latent = SimpleNamespace(
        prior=lambda state, action, noise: {"sample": state["sample"] + action},
        features=lambda state: state["sample"],
    )
    actor = SimpleNamespace(sample=lambda features, noise: w * features)
    features, actions = agent_torch.imagine_behaviour(
        SimpleNamespace(latent=latent), actor, {"sample": start}, action_noise=torch.zeros(2, 1), latent_noise=[0, 0]
    )
    assert features[:, 0, 0].tolist() == [3.0, 4.5] and actions[:, 0, 0].tolist() == [1.0, 1.5]
    (slope,) = torch.autograd.grad(features[1].sum(), w)
    assert slope.item() == 2.0 + 3.0


@pytest.mark.parametrize(("variant", "kept"), [("dreamer", 4), ("atari", 3)])
def test_imagination_starts_at_every_row_or_at_all_but_the_last(variant, kept):
    agent = make_agent(variant)
    post = {"sample": torch.arange(8.0).view(2, 4, 1).requires_grad_()}
    start = agent_torch.imagination_starts(agent.model, post)
    assert not start["sample"].requires_grad
    assert start["sample"].flatten().tolist() == [t for row in (0, 4) for t in range(row, row + kept)]
    assert agent.learning_noise(2, 4)["latent_noise"].shape[1] == 2 * kept


def test_latent_noise_is_one_row_for_all_in_tf2_and_the_actors_noise_never_is():
    for variant, shared in (("dreamer", False), ("tf2", True)):
        noise = make_agent(variant).learning_noise(3, 5)
        assert noise["noise"].shape == (3, 5, 4) and noise["latent_noise"].shape == (4, 15, 4)
        assert torch.equal(noise["noise"][0], noise["noise"][1]) == shared
        assert torch.equal(noise["latent_noise"][:, 0], noise["latent_noise"][:, 7]) == shared
        assert not torch.equal(noise["action_noise"][:, 0], noise["action_noise"][:, 1])
        assert not torch.equal(noise["noise"][:, 0], noise["noise"][:, 1]), "each step has noise of its own"


# ----------------------------------------------------------------------------------------- actor's and value's losses

REWARD, WORTH = [1.0, 2.0, 4.0], [10.0, 20.0, 40.0]


def known_heads(continues=False):
    """Features (H, N, 3) that ARE reward, value and the log-odds of going on."""
    model = SimpleNamespace(reward=lambda x: x[..., 0], continuation=(lambda x: x[..., 2]) if continues else None)
    return model, lambda x: x[..., 1]


def actor_numbers(variant="dreamer", log_odds=None, horizon=3, **changes):
    odds = [0.0] * 3 if log_odds is None else log_odds
    features = torch.tensor([REWARD, WORTH, odds]).T[:horizon, None].requires_grad_()
    model, value = known_heads(log_odds is not None)
    behaviour = make_config(variant, **changes).behaviour
    loss, returns, weights = agent_torch.actor_objective(model, value if behaviour.value else None, behaviour, features)
    (slopes,) = torch.autograd.grad(loss, features)
    return loss.item(), returns[:, 0].tolist(), weights[:, 0].tolist(), slopes[:, 0]


def test_returns_end_with_the_last_state_or_one_too_early():
    """lambda 0.95, discount 0.99, by hand. last: R_1 = 2 + 0.99 * 40. early: R_1 = 2 + 0.99 * 20.
    R_0 = 1 + 0.99 (0.05 * 20 + 0.95 R_1)."""
    for bootstrap, last in (("last", 2 + 0.99 * 40), ("early", 2 + 0.99 * 20)):
        loss, returns, weights, _ = actor_numbers(behaviour__bootstrap=bootstrap)
        first = 1 + 0.99 * (0.05 * 20 + 0.95 * last)
        assert returns == pytest.approx([first, last]) and weights == pytest.approx([1, 0.99])
        assert loss == pytest.approx(-(first + 0.99 * last) / 2)


def test_the_smallest_horizon_has_one_return():
    """Of two states; early: it ends with the value of its own state, R_0 = 1 + 0.99 * 10. last: R_0 = 1 + 0.99 * 20."""
    for bootstrap, worth in (("early", 10), ("last", 20)):
        loss, returns, weights, slopes = actor_numbers(horizon=2, behaviour__bootstrap=bootstrap)
        assert returns == pytest.approx([1 + 0.99 * worth]) and weights == [1] and loss == pytest.approx(-returns[0])
        by_value = {"early": [-0.99, 0], "last": [0, -0.99]}[bootstrap]
        assert slopes[:, 1].tolist() == pytest.approx(by_value) and slopes[:, 0].tolist() == [-1, 0]


def test_weights_are_off_as_the_paper_writes_it():
    loss, returns, weights, _ = actor_numbers("paper-text")
    assert weights == [1, 1] and loss == pytest.approx(-sum(returns) / 2)


def test_without_a_value_the_sum_of_all_rewards_counts_discounted_or_not():
    """All three rows, no weights: R_2 = 4, R_1 = 2 + d 4, R_0 = 1 + d R_1."""
    for variant, discount in (("no-value", 0.99), ("no-value-undiscounted", 1.0)):
        loss, returns, _, slopes = actor_numbers(variant)
        expected = [1 + discount * (2 + discount * 4), 2 + discount * 4, 4]
        assert returns == pytest.approx(expected) and loss == pytest.approx(-sum(expected) / 3)
        assert not slopes[:, 1].any()


def test_a_predicted_end_takes_the_discounts_place_and_has_a_gradient_but_not_through_the_weights():
    odds = [1.0, -1.0, 5.0]
    p = 1 / (1 + np.exp(-np.array(odds)))
    loss, returns, weights, slopes = actor_numbers("atari", log_odds=odds, behaviour__bootstrap="last")
    last = 2 + p[1] * 40
    first = 1 + p[0] * (0.05 * 20 + 0.95 * last)
    assert returns == pytest.approx([first, last]) and weights == pytest.approx([1, p[0]])
    by_p0 = 0.05 * 20 + 0.95 * last  # of R_0; the weight of R_1 is p_0 as a constant
    by_p1 = p[0] * 0.95 * 40 + p[0] * 40  # of R_0, and of R_1 with its weight
    expected = [-by_p0 * p[0] * (1 - p[0]) / 2, -by_p1 * p[1] * (1 - p[1]) / 2, 0]
    assert slopes[:, 2].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_value_regresses_on_constant_returns_with_weights():
    """mean of w (0.5 (v - R)^2 + 0.919) at all states but the last."""
    features = torch.tensor([REWARD, WORTH, [0.0] * 3]).T[:, None].requires_grad_()
    returns, weights = torch.tensor([[12.0], [19.0]]), torch.tensor([[1.0], [0.5]])
    loss = agent_torch.value_objective(known_heads()[1], features, returns, weights)
    constant = 0.5 * math.log(2 * math.pi)
    assert loss.item() == pytest.approx(((0.5 * 4 + constant) + 0.5 * (0.5 * 1 + constant)) / 2)
    (slopes,) = torch.autograd.grad(loss, features)
    assert slopes[:, 0, 1].tolist() == pytest.approx([-2 / 2, 0.5 * 1 / 2, 0])


@pytest.mark.parametrize("variant", ["dreamer", "no-value", "atari"])
def test_every_network_learns_from_its_own_loss_alone(variant):
    """The world model's gradient is that of its objective; nothing of the actor's or the value's loss reaches it."""
    agent, batch = make_agent(variant), batches_of(variant)(0)
    seen, gradients = {}, agent.gradients
    agent.gradients = lambda **inputs: seen.update(inputs) or gradients(**inputs)
    agent.learn(batch)
    inputs = {name: seen[name] for name in ("image", "action", "reward", "terminal", "noise")}
    fresh = make_agent(variant)
    total, _, _ = agent_torch.model_objective(fresh.model, fresh.config.loss, **inputs)
    total.backward()
    whole = make_agent(variant)
    whole.gradients(**seen)
    for (name, one), (_, other) in zip(fresh.model.named_parameters(), whole.model.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
        assert other.requires_grad, f"{name} stayed frozen"
    for part in filter(None, (whole.actor, whole.value)):
        assert all(parameter.grad.any() for parameter in part.parameters())


def test_each_group_is_clipped_by_its_own_norm():
    clip = {f"optimisers__{group}__clip_norm": norm for group, norm in (("model", 1.0), ("actor", 2.0))}
    agent = make_agent(**clip)
    for each in agent.parts.parameters():
        each.grad = torch.full_like(each, 3.0)
    norms = agent.update()
    for name, limit in (("model", 1.0), ("actor", 2.0), ("value", None)):
        parameters = list(agent.parts[name].parameters())
        norm = 3 * math.sqrt(sum(p.numel() for p in parameters))
        assert norms[f"{name}_grad_norm"] == pytest.approx(norm, rel=1e-5)
        clipped = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
        assert clipped == pytest.approx(limit or norm, rel=1e-4)


def test_float32_agrees_with_float64():
    """What the golden tests leave open: they run in float64. Losses within 1e-5, gradients 1e-3 of the largest."""
    results = []
    for dtype in (torch.float32, torch.float64):
        agent, random = make_agent(), np.random.default_rng(0)
        agent.parts.to(dtype)
        inputs = {
            "image": random.uniform(-0.5, 0.5, (2, 5, 64, 64, 3)),
            "action": random.uniform(-1, 1, (2, 5, ACTIONS)),
            "reward": random.uniform(0, 4, (2, 5)),
            "terminal": np.zeros((2, 5)),
            "noise": random.normal(size=(2, 5, 4)),
            "latent_noise": random.normal(size=(4, 10, 4)),
            "action_noise": random.normal(size=(4, 10, ACTIONS)),
        }
        metrics = agent.gradients(**{name: torch.from_numpy(value).to(dtype) for name, value in inputs.items()})
        results.append((metrics, {name: p.grad.double() for name, p in agent.parts.named_parameters()}))
    (losses32, grads32), (losses64, grads64) = results
    for name, value in losses64.items():
        assert float(losses32[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-6), name
    for name, grad in grads64.items():
        assert (grads32[name] - grad).abs().max() <= 1e-3 * grad.abs().max() + 1e-9, name


# ------------------------------------------------------------------------------------------------------------- acting


def first_rows(agent, count=3):
    batch = make_batch(size=count, discrete=agent.act_spec.discrete)
    return agent_suite.rows_of(batch, 0, is_first=True), agent.initial_carry(count)


def test_training_samples_and_adds_noise_evaluation_takes_the_mode(monkeypatch):
    agent = make_agent(exploration__action_noise=5.0)
    calls = []
    for name in ("sample", "mode"):
        monkeypatch.setattr(agent.actor, name, lambda x, _, name=name: calls.append(name) or torch.zeros(3, ACTIONS))
    explored = agent.act(*first_rows(agent), explore=True)
    calm = agent.act(*first_rows(agent), explore=False)
    assert calls == ["sample", "mode"]
    assert np.abs(explored.action).max() == 1 and not calm.action.any()
    np.testing.assert_array_equal(explored.carry["action"].numpy(), explored.action)
    agent = make_agent("paper-text")
    monkeypatch.setattr(agent.actor, "sample", lambda *_: pytest.fail("the paper's text: the mode and noise"))
    assert agent.act(*first_rows(agent), explore=True).action.any()


@pytest.mark.parametrize(
    ("updates", "explore", "epsilon"),
    [(0, True, 0.4), (75_000, True, 0.25), (150_000, True, 0.1), (400_000, True, 0.1), (0, False, 0.001)],
)
def test_discrete_actions_are_replaced_as_often_as_the_schedule_says(updates, explore, epsilon):
    """0.4 max(0.25, 1 - updates / 200,000); a uniform class is the same one in 1 of 3 cases."""
    agent = make_agent("atari")
    agent.updates = updates
    chosen = torch.tensor([[0.0, 1.0, 0.0]]).expand(60_000, -1)
    executed = agent.explored(chosen, explore=explore)
    assert (executed.sum(-1) == 1).all() and executed.dtype == torch.float32
    expected = epsilon * torch.tensor([1 / 3, -2 / 3, 1 / 3]) + torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(executed.mean(0), expected, atol=0.007 if epsilon > 0.01 else 0.001, rtol=0)


def test_the_last_row_of_an_episode_is_not_decided(monkeypatch):
    agent = make_agent()
    monkeypatch.setattr(agent, "choose", lambda *_, **__: pytest.fail("chose for a row that nothing follows"))
    rows, carry = first_rows(agent)
    assert not agent.act(rows | {"is_last": np.ones(3, bool)}, carry, explore=True).action.any()


def test_the_planner_walks_to_a_goal_it_can_see():
    """Goal at (1.5, -0.5), reward minus the squared distance: optimum is a_1 = (1, -0.5), a_2 = (0.5, 0), a_3 = 0."""
    planner = make_config("planet", planner__candidates=400, planner__elites=40, planner__iterations=15).planner
    goal, random = torch.tensor([1.5, -0.5]), torch.Generator().manual_seed(0)
    latent = SimpleNamespace(
        prior=lambda state, action, noise: {"sample": state["sample"] + action}, features=lambda state: state["sample"]
    )
    model = SimpleNamespace(latent=latent, reward=lambda x: -((x - goal) ** 2).sum(-1))
    noise = torch.randn(15, 1, 400, 3, 2, generator=random), torch.zeros(15, 400, 3, 4)
    mean, std = agent_torch.plan(model, planner, {"sample": torch.zeros(1, 2)}, *noise)
    torch.testing.assert_close(mean, torch.tensor([[[1.0, -0.5], [0.5, 0.0], [0.0, 0.0]]]), atol=0.06, rtol=0)
    assert mean.abs().max() <= 1 and std.max() < 0.2


def test_planning_for_several_environments_keeps_them_apart():
    agent = make_agent("planet")
    noise, state = agent.planner_noise(3), model_torch.initial_state(agent.model.latent, 3)
    state = {name: normal(*value.shape) for name, value in state.items()}
    with torch.no_grad():
        together, _ = agent_torch.plan(agent.model, agent.config.planner, state, **noise)
        for index in range(3):
            alone, _ = agent_torch.plan(
                agent.model,
                agent.config.planner,
                {name: value[index : index + 1] for name, value in state.items()},
                action_noise=noise["action_noise"][:, index : index + 1],
                latent_noise=noise["latent_noise"][:, 10 * index : 10 * index + 10],
            )
            torch.testing.assert_close(together[index], alone[0], rtol=1e-4, atol=1e-5)


def test_the_planner_has_neither_actor_nor_value_and_refuses_discrete_actions():
    agent = make_agent("planet")
    assert agent.actor is None and agent.value is None and list(agent.parts) == ["model"]
    with pytest.raises(UserError, match="learner actor"):
        DreamerAgent(agent.config, {}, ActSpec(ACTIONS, discrete=True), seed=np.random.SeedSequence(0))


# --------------------------------------------------------------------------------------------------- images and rows


def test_images_have_eight_bits_and_noise_within_a_level_or_nothing_of_the_kind():
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    agent = make_agent()
    got, level = agent.preprocessed(image), image.float() / 256 - 0.5
    assert got.dtype == torch.float32 and (got >= level).all() and (got < level + 1 / 256).all()
    assert not torch.equal(got, agent.preprocessed(image)), "the noise is drawn anew each time"
    assert torch.equal(make_agent("tf2").preprocessed(image), image.float() / 255 - 0.5)


def test_learning_feeds_every_row_the_action_that_led_to_it_and_its_own_reward(monkeypatch):
    agent, batch, seen = make_agent(), make_batch(), {}
    batch["is_first"][1, 0] = batch["is_terminal"][2, 5] = True
    gradients = agent.gradients
    monkeypatch.setattr(agent, "gradients", lambda **inputs: seen.update(inputs) or gradients(**inputs))
    agent.learn(batch)
    np.testing.assert_array_equal(seen["action"][:, 1:].numpy(), batch["action"][:, :-1])
    np.testing.assert_array_equal(seen["action"][[0, 2], 0].numpy(), batch["action_before"][[0, 2]])
    assert not seen["action"][1, 0].any()
    np.testing.assert_array_equal(seen["reward"].numpy(), batch["reward"])
    np.testing.assert_array_equal(seen["terminal"].numpy(), batch["is_terminal"])


@pytest.mark.parametrize("variant", ["dreamer", "tf2"])
@pytest.mark.parametrize(("row", "matters"), [(1, True), (4, False)])
def test_a_prediction_sees_the_context_and_no_later_image(variant, row, matters):
    batch = make_batch()
    films = []
    for value in (0, 255):
        batch["image"][:, row] = value
        agent = make_agent(variant)
        with torch.no_grad():
            agent.model.decoder.deconvs[-1].weight.mul_(50)  # an untrained decoder draws grey in grey
        films.append(agent.predict(batch, context=2))
    assert films[0]["truth"].dtype == np.uint8 and films[0]["truth"].shape == batch["image"].shape
    np.testing.assert_array_equal(films[1]["truth"], batch["image"])
    assert (films[0]["prediction"][:, 3:] != films[1]["prediction"][:, 3:]).any() == matters


# -------------------------------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss__gradient_heads": ["image"]}, "must name reward"),
        ({"loss__gradient_heads": ["reward", "reward"]}, "names a head twice"),
        ({"loss__gradient_heads": ["contrastive", "reward"]}, "must agree"),
        ({"model__dequantise": False, "model__image_bits": 5}, "must be 8"),
        ({"behaviour__horizon": 1}, "at least 2"),
        ({"behaviour__learner": "planner"}, "value must be false"),
        ({"behaviour__value": False, "model__continuation": True}, "needs behaviour.value"),
        ({"planner__elites": 11}, "exceed candidates"),
        ({"planner__elites": 1, "planner__std": "paper"}, "divides by elites - 1"),
        ({"batch__length": 62}, "exceeds an episode"),
        ({"batch__length": 61, "replay__ends": "excluded"}, "exceeds an episode"),
        ({"schedule__prefill_env_steps": 119}, "shorter than one episode"),
        ({"replay__pool": 3, "replay__recent": 4}, "holds both kinds"),
        ({"video__context": 8}, "must be shorter"),
        ({"environment__atari__grayscale": True}, "grayscale"),
        ({"behaviour__lambda": 1.5}, "behaviour.lambda"),
    ],
)
def test_settings_that_cannot_work_are_told(changes, words):
    with pytest.raises(UserError) as caught:
        make_config(**changes)
    assert words in str(caught.value)


def test_a_window_of_negatives_must_fit_the_batch():
    with pytest.raises(UserError, match="contrastive_time_shifts"):
        make_config("contrastive", loss__contrastive_time_shifts=7)
    make_config("contrastive", loss__contrastive_time_shifts=7, loss__contrastive_negatives="time")


def test_quadrupeds_are_seen_from_another_camera():
    environment = make_config().environment
    assert [environment.camera_of(task) for task in ("walker_walk", "quadruped_run", "quadruped_walk")] == [0, 2, 2]
