"""DreamerV2's agent in torch: the behaviour of every agent, and what is DreamerV2's own.

The numbers of the authors' code are in tests/golden/test_dreamerv2_model.py; they are of the last commit, so what the
published agent does differently (paper.yaml) is worked out by hand here.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications.dreamerv2 import agent_torch, model_torch
from replications.dreamerv2.agent_torch import DreamerV2Agent
from replications.dreamerv2.config import Config
from shared.config import build, paper_folder, read_yaml
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.testing import agent_suite
from tests import tiny_dreamerv2

ACTIONS = 3
CONTROL = {"control", "control-release", "humanoid"}
VARIANTS = (
    "dreamerv2",
    "schedules",
    "last-commit",
    "gaussian-latents",
    "no-kl-balancing",
    "no-image-gradients",
    "no-layer-norm",
    "no-reinforce",
    "random-data",
    *sorted(CONTROL),
)


def make_config(variant="dreamerv2", **changes) -> Config:
    return build(Config, tiny_dreamerv2.values(variant, **changes), where="a test")


def make_agent(variant="dreamerv2", seed=0, **changes) -> DreamerV2Agent:
    torch.set_num_threads(1)
    discrete = variant not in CONTROL
    obs_spec = {"image": ArraySpec((64, 64, 1 if discrete else 3), "uint8")}
    spec = ActSpec(ACTIONS, discrete=discrete)
    return DreamerV2Agent(make_config(variant, **changes), obs_spec, spec, seed=np.random.SeedSequence(seed))


def make_batch(seed=0, size=3, length=6, *, discrete=True):
    random = np.random.default_rng(seed)
    flags = np.zeros((size, length), bool)

    def actions(*shape):
        if discrete:
            return np.eye(ACTIONS, dtype=np.float32)[random.integers(ACTIONS, size=shape)]
        return random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)

    return {
        "image": random.integers(0, 256, (size, length, 64, 64, 1 if discrete else 3), np.uint8),
        "action": actions(size, length),
        "action_before": actions(size),
        "reward": random.uniform(0, 4, (size, length)).astype(np.float32),
        "is_first": flags.copy(),
        "is_last": flags.copy(),
        "is_terminal": flags.copy(),
    }


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", agent_suite.CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    discrete = variant not in CONTROL
    check(lambda seed: make_agent(variant, seed), lambda seed: make_batch(seed, discrete=discrete))


# ------------------------------------------------------------------------------------------------------ the networks


@pytest.mark.parametrize("variant", ["dreamerv2", "gaussian-latents", "no-layer-norm"])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_the_fast_filter_equals_the_step_applied_in_turn(variant, norm):
    """RSSM.observe moves work out of the loop; the state after every row must stay the same."""
    latent = make_agent(variant, model__norm=norm).model.latent.double()
    draw = uniform if variant != "gaussian-latents" else normal
    embed, action, noise = normal(3, 6, 64), normal(3, 6, ACTIONS, seed=1), draw(3, 6, *latent.shapes["sample"][:1])
    state = model_torch.initial_state(latent, 3)
    fast, fast_prior = latent.observe(embed, action, noise, state)
    for t in range(6):
        state, prior = latent.posterior(state, action[:, t], embed[:, t], noise[:, t])
        for quick, step in ((fast, state), (fast_prior, prior)):
            assert quick.keys() == step.keys()
            for name, value in step.items():
                torch.testing.assert_close(quick[name][:, t], value, rtol=1e-12, atol=1e-12, msg=name)


def test_sizes_are_those_of_the_authors_networks():
    """Counted in their code at the last commit: the same networks as the published agent's."""
    config = build(Config, read_yaml(paper_folder("dreamerv2") / "paper.yaml"), where="paper.yaml")
    spec, generator = ActSpec(18, discrete=True), torch.Generator().manual_seed(0)
    model = model_torch.WorldModel(config.model, 1, spec.size, generator)
    features = model.latent.feature_size
    actor = model_torch.Actor(config.model, config.behaviour, features, spec, generator)
    critic = model_torch.Critic(config.model, features, generator)
    parts = (model, model.encoder, model.latent, model.decoder, model.reward, model.discount, actor, critic)
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == [
        19_975_379, 1_549_776, 5_664_848, 10_497_553, 1_131_601, 1_131_601, 1_138_418, 1_131_601,
    ]  # fmt: skip


def test_first_values_are_keras_own():
    """Glorot-uniform; location and scale of a continuous policy as from two matrices of 40 -> 3."""
    agent = make_agent("control", model__dense_units=40)
    for weight, fans in ((agent.actor.out.weight, 40 + 3), (agent.critic.out.weight, 40 + 1)):
        limit = (6 / fans) ** 0.5
        assert 0.8 * limit < weight.abs().max() <= limit
    norm = agent.model.latent.gru.norm
    assert (norm.weight == 1).all() and not norm.bias.any() and norm.eps == 1e-3
    assert not agent.actor.out.bias.any()


def test_a_gru_without_layer_norm_by_hand():
    """r = c = 0 and u = 1 - 1: h' = (tanh(0) + h) / 2; with a candidate of 4: tanh(sigmoid(0) 4) = tanh 2."""
    gru = model_torch.NormGRU(1, 1, norm=False).double()
    with torch.no_grad():
        gru.linear.weight.zero_()
        gru.linear.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        x, h = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 0.5, dtype=torch.float64)
        assert float(gru(x, h)) == pytest.approx(0.25)
        gru.linear.bias[1] = 4.0
        assert float(gru(x, h)) == pytest.approx((np.tanh(2) + 0.5) / 2)


def test_continuous_actions_stay_inside_and_keep_their_gradient():
    """Samples within 1e-6 of the end of the box are moved inside, where a clip alone would end the gradient."""
    actor = make_agent("control").actor.double()
    features = normal(4, actor.hidden.layers[0].in_features)
    action = actor.sample(features, torch.full((4, ACTIONS), 1 - 1e-7, dtype=torch.float64))
    assert (action == 1 - 1e-6).all()
    action.sum().backward()
    assert actor.out.weight.grad[ACTIONS:].abs().min() > 0


# ------------------------------------------------------------------------------------------------------- the losses


class KnownPolicy:
    """Stands for an actor: log-probability and entropy are entries of the features."""

    def judge(self, features, action):
        return features[..., 0] + 0 * action[..., 0], features[..., 1]


def known_trajectory():
    """H = 3 and one state: log-probability, entropy of four states; returns, weights, baseline of three."""
    features = torch.tensor([[[-1.0, 0.5]], [[-2.0, 0.4]], [[-3.0, 0.3]], [[-4.0, 0.2]]])
    rows = [[1.0, 0.9, 0.5], [10.0, 20.0, 40.0], [4.0, 6.0, 8.0]]
    weights, returns, baseline = (torch.tensor(row)[:, None] for row in rows)
    return features, torch.zeros(3, 1, 2), returns, weights, baseline


def objective(shifted, gradient="reinforce", mix=0.25, entropy_scale=0.1):
    behaviour = SimpleNamespace(shifted=shifted, actor_gradient=gradient, stop_action=True)
    trajectory = known_trajectory()
    return agent_torch.actor_objective(KnownPolicy(), behaviour, *trajectory, mix=mix, entropy_scale=entropy_scale)


def test_the_papers_actor_loss_by_hand():
    """t = 0, 1, 2:  1.0 (-1 (10 - 4) + 0.05)   0.9 (-2 (20 - 6) + 0.04)   0.5 (-3 (40 - 8) + 0.03)."""
    loss, entropy = objective(shifted=False)
    assert float(loss) == pytest.approx(-(-5.95 + 0.9 * -27.96 + 0.5 * -95.97) / 3)
    assert float(entropy) == pytest.approx(0.4)


def test_the_shifted_actor_loss_by_hand():
    """t = 0, 1:  1.0 (-1 (20 - 4) + 0.05)   0.9 (-2 (40 - 6) + 0.04)."""
    loss, entropy = objective(shifted=True)
    assert float(loss) == pytest.approx(-(-15.95 + 0.9 * -67.96) / 2)
    assert float(entropy) == pytest.approx(0.45)


def test_both_gradients_are_mixed_by_hand():
    """dynamics: 10, 20, 40; both: a quarter of it and three quarters of reinforce, -6, -28, -96."""
    loss, _ = objective(shifted=False, gradient="dynamics", entropy_scale=0.0)
    assert float(loss) == pytest.approx(-(10 + 18 + 20) / 3)
    loss, _ = objective(shifted=False, gradient="both", entropy_scale=0.0)
    assert float(loss) == pytest.approx(-(2.5 - 4.5 + 0.9 * (5 - 21) + 0.5 * (10 - 72)) / 3)


@pytest.mark.parametrize("baseline", ["online", "target"])
def test_the_baseline_is_the_critic_that_the_settings_name(baseline):
    critics = {"online": lambda x: 0 * x[..., 0] + 2.0, "target": lambda x: 0 * x[..., 0] + 3.0}
    behaviour = SimpleNamespace(
        shifted=False, actor_gradient="reinforce", stop_action=True, baseline=baseline, lambda_=1.0
    )
    features = torch.tensor([[[-1.0, 0.0]], [[-1.0, 0.0]]])
    reward = discount = torch.ones(2, 1)
    loss, _, _ = agent_torch.behaviour_objectives(
        KnownPolicy(), critics["online"], critics["target"], behaviour, features, torch.zeros(1, 1, 2), reward,
        discount, mix=0.0, entropy_scale=0.0,
    )  # fmt: skip
    assert float(loss) == 1 + 3 - {"online": 2, "target": 3}[baseline]  # the return uses the target critic alone


def test_a_head_without_gradient_teaches_the_latent_model_nothing():
    """Against the same loss with that head's scale at 0: equal gradients of encoder and latent model."""
    for head, heads in (("image", ["reward", "discount"]), ("reward", ["image", "discount"])):
        slopes = []
        for changes in ({"loss__gradient_heads": heads}, {f"loss__{head}_scale": 0.0}):
            agent = make_agent(**changes)
            agent.parts.double()
            inputs = model_inputs(agent)
            agent_torch.model_objective(agent.model, agent.config.loss, **inputs)[0].backward()
            slopes.append({name: p.grad for name, p in agent.model.named_parameters()})
        stopped, absent = slopes
        for name in stopped:
            own = name.startswith({"image": "decoder", "reward": "reward"}[head])
            if own:
                assert stopped[name].any(), f"{name}: the head itself learns"
            else:
                torch.testing.assert_close(stopped[name], absent[name], rtol=1e-9, atol=1e-12, msg=name)


def model_inputs(agent, size=2, length=5):
    channels, behaviour = 1, agent.config.behaviour
    return {
        "image": uniform(size, length, 64, 64, channels) - 0.5,
        "action": normal(size, length, ACTIONS),
        "reward": normal(size, length, seed=2),
        "discount": torch.full((size, length), behaviour.discount, dtype=torch.float64),
        "noise": uniform(size, length, agent.config.model.stoch_size, seed=3),
    }


def test_plain_kl_is_no_balancing_at_one_half():
    """The authors' special case: nothing is stopped, so the gradients are twice those of halves."""
    post, prior = normal(2, 3, 4, 5).requires_grad_(), normal(2, 3, 4, 5, seed=1).requires_grad_()
    slopes = []
    for balance in (0.5, 0.5 + 1e-12):
        loss = SimpleNamespace(kl_balance=balance, free_nats=0.0, free_nats_of="mean")
        kl, value = agent_torch.model_divergence(loss, {"logit": post}, {"logit": prior})
        assert float(value.detach()) == pytest.approx(float(kl.mean()))
        slopes.append(torch.autograd.grad(value, (post, prior)))
    for plain, halves in zip(*slopes, strict=True):
        torch.testing.assert_close(plain, 2 * halves)


# ------------------------------------------------------------------------------------------------ starts and discounts


def test_no_imagination_starts_from_a_chunks_last_row_where_episodes_end():
    agent = make_agent()
    rows = {"belief": torch.arange(6.0).reshape(2, 3, 1)}
    starts = agent_torch.imagination_starts(agent.model, agent.config.behaviour, rows)
    assert starts["belief"].flatten().tolist() == [0, 1, 3, 4]
    agent = make_agent("last-commit")
    starts = agent_torch.imagination_starts(agent.model, agent.config.behaviour, rows)
    assert starts["belief"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert agent_torch.spared_rows(make_agent("control").model, make_config().behaviour) == 0


def test_discounts_of_the_published_agent_are_all_predicted():
    """The last commit has the replayed truth for the start, so that nothing counts after the end of a game."""
    features, ended = normal(3, 2, 20), torch.tensor([0.0, 0.999], dtype=torch.float64)
    for variant in ("dreamerv2", "last-commit"):
        agent = make_agent(variant)
        model = agent.model.double()
        _, discount = agent_torch.imagined_rewards(model, agent.config.behaviour, features, ended)
        head = torch.sigmoid(model.discount(features))
        torch.testing.assert_close(discount[1:], head[1:])
        torch.testing.assert_close(discount[0], head[0] if variant == "dreamerv2" else ended)
    _, weights = agent_torch.imagined_returns(agent.config.behaviour, discount, discount, discount)
    assert weights[0].tolist() == [1, 1] and weights[1].tolist() == pytest.approx([0, 0.999])


# ------------------------------------------------------------------------------------------------------- the updates


def test_imagination_happens_in_the_updated_model_from_the_states_before():
    """By hand from the module functions; in the model before its step the loss is another one."""
    batch, (agent, twin) = make_batch(), (make_agent(optimisers__model__learning_rate=0.01) for _ in range(2))
    metrics = agent.learn(batch).metrics
    inputs = {
        "image": twin.preprocessed(batch["image"]),
        "action": torch.from_numpy(np.concatenate([0 * batch["action"][:, :1], batch["action"][:, :-1]], 1)),
        "reward": torch.from_numpy(batch["reward"]),
        "discount": torch.full((3, 6), twin.config.behaviour.discount),
    }
    noise = twin.learning_noise(3, 6)
    total, _, post = agent_torch.model_objective(twin.model, twin.config.loss, **inputs, noise=noise.pop("noise"))

    def actor_loss():
        starts = agent_torch.imagination_starts(twin.model, twin.config.behaviour, {**post, **inputs})
        starts = {name: starts[name] for name in (*post, "discount")}
        found = twin.learn_behaviour(starts, action_noise=noise["action_noise"], latent_noise=noise["imagined_noise"])
        return float(found["actor_loss"])

    before = actor_loss()
    twin.parts.zero_grad()
    total.backward()
    twin.step("model")
    assert actor_loss() == pytest.approx(float(metrics["actor_loss"]), rel=1e-6)
    assert abs(before - float(metrics["actor_loss"])) > 1e-4


@pytest.mark.parametrize("variant", ["dreamerv2", "schedules", "no-reinforce", "control"])
def test_behaviour_learning_leaves_gradients_in_actor_and_critic_alone(variant):
    agent = make_agent(variant)
    post = model_torch.initial_state(agent.model.latent, 2, 3)
    rows = {**post, "discount": torch.full((2, 3), 0.9)}
    starts = agent_torch.imagination_starts(agent.model, agent.config.behaviour, rows)
    count = len(starts["belief"])
    horizon = agent.config.behaviour.horizon
    noise = {"action_noise": agent.action_noise(horizon, count), "latent_noise": agent.latent_noise(horizon, count)}
    agent.learn_behaviour(starts, **noise)
    for name, parameter in agent.parts.named_parameters():
        learns = name.startswith(("actor.", "critic."))
        assert (parameter.grad is not None) == learns, name
        assert parameter.requires_grad


def test_the_target_critic_is_copied_with_the_first_update_and_then_every_third():
    agent = make_agent(optimisers__critic__learning_rate=0.01)

    def distance():
        pairs = zip(agent.critic.parameters(), agent.target_critic.parameters(), strict=True)
        return max(float((fast - slow).detach().abs().max()) for fast, slow in pairs)

    assert distance() > 0.1  # first values of its own
    equal = []
    for seed in range(7):
        agent.learn(make_batch(seed))
        equal.append(distance() == 0)
    assert equal == [True, False, False, True, False, False, True]


def test_weight_decay_does_not_depend_on_the_learning_rate():
    """Without a gradient Adam does nothing, and what is left is the decay: a tenth at every step."""
    agent = make_agent(optimisers__weight_decay=0.1, optimisers__critic__learning_rate=0.003)
    before = {name: p.detach().clone() for name, p in agent.critic.named_parameters()}
    for parameter in agent.critic.parameters():
        parameter.grad = torch.zeros_like(parameter)
    agent.step("critic")
    for name, parameter in agent.critic.named_parameters():
        torch.testing.assert_close(parameter.detach(), 0.9 * before[name], rtol=1e-6, atol=1e-8, msg=name)


def test_ramps_count_the_env_steps_of_the_run():
    """schedules: entropy from 3e-3 to 3e-4 over 10 million env steps, of which prefill has taken some."""
    schedule = {"prefill_env_steps": 2_000_000, "learn_every_env_steps": 1000, "updates_per_learn": 4}
    schedule |= {"pretrain_updates": 10, "total_env_steps": 20_000_000}
    agent = make_agent("schedules", **{f"schedule__{name}": value for name, value in schedule.items()})
    for updates, share in ((0, 0.2), (10, 0.2), (4010, 0.3), (32_010, 1.0), (99_999, 1.0)):
        agent.updates = updates
        assert agent.ramp("entropy") == pytest.approx((1 - share) * 3e-3 + share * 3e-4), updates
        assert agent.ramp("gradient_mix") == pytest.approx((1 - share) * 0.1), updates
    assert agent.actions_are_constants(0.0) and not agent.actions_are_constants(0.01)


def test_the_first_row_of_a_chunk_knows_no_action():
    """A chunk starts from the zero state whatever was before it: another action before changes nothing."""
    losses = []
    for seed in (0, 1):
        batch = make_batch() | {"action_before": make_batch(seed)["action_before"]}
        losses.append(float(make_agent().learn(batch).metrics["loss"]))
    assert losses[0] == losses[1]


# ------------------------------------------------------------------------------------------------ acting and the rest


def test_random_data_is_uniform_and_evaluation_is_not():
    agent, batch = make_agent("random-data"), make_batch(size=2000, length=1)
    carry, rows = agent.initial_carry(2000), agent_suite.rows_of(batch, 0, is_first=True)
    drawn = agent.act(rows, carry, explore=True).action
    assert set(drawn.sum(-1)) == {1.0} and np.abs(drawn.mean(0) - 1 / ACTIONS).max() < 0.05
    control = make_agent("control", exploration__policy="random")
    box = control.random_action(3000)
    assert -1 <= box.min() < -0.99 and 0.99 < box.max() <= 1 and box.mean().abs() < 0.03
    with torch.no_grad():
        agent.actor.out.bias[1] = 50.0
    few = {name: value[:5] for name, value in rows.items()}
    assert (agent.act(few, agent.initial_carry(5), explore=False).action.argmax(-1) == 1).all()


def test_predictions_are_pixels_and_the_truth_is_what_was_stored():
    agent, batch = make_agent(), make_batch()
    with torch.no_grad():
        agent.model.decoder.deconvs[-1].weight.zero_()
        agent.model.decoder.deconvs[-1].bias.fill_(100 / 255 - 0.5)
    found = agent.predict(batch, context=2)
    np.testing.assert_array_equal(found["truth"], batch["image"])
    assert found["prediction"].dtype == np.uint8 and (found["prediction"] == 100).all()
    assert found["prediction"].shape == batch["image"].shape


def test_a_state_from_another_kind_of_device_is_refused():
    agent = make_agent()
    with pytest.raises(UserError, match="it was made on cuda and this run is on cpu"):
        agent.load({**agent.save(), "device": "cuda"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__discount_head": False}, "names discount, and model.discount_head is false"),
        ({"loss__gradient_heads": ["image", "image"]}, "names a head twice"),
        ({"behaviour__gradient_mix__start": 1.5}, "must lie between 0"),
        ({"batch__length": 1}, "no start is left"),
        ({"video__context": 8}, r"context \(8\) must be shorter"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_config(**changes)


@pytest.mark.parametrize("key", ["batch__length", "video__length", "replay__least_rows"])
def test_control_tasks_need_chunks_within_an_episode(key):
    with pytest.raises(UserError, match=rf"{key.replace('__', '.')} \(200 rows\) exceeds an episode \(121 rows"):
        make_config("control", **{key: 200, "schedule__prefill_env_steps": 240})
