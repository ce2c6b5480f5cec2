"""DreamerV3's agent in torch: the behaviour of every agent, and what is DreamerV3's own.

The numbers of the authors' code are in tests/golden/test_dreamerv3_model.py.
"""

import contextlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replications.dreamerv3 import agent_torch, model_torch, objectives_torch, optimisers_torch
from replications.dreamerv3.agent_torch import DreamerV3Agent
from replications.dreamerv3.config import Config
from replications.dreamerv3.figures_settings import PARAMETERS
from shared.config import build, leaves, read_variants, resolve
from shared.envs.spec import ActSpec, ArraySpec
from shared.errors import UserError
from shared.formulas.optimisers import adaptive_clip, laprop
from shared.formulas.schedules import horizon_discount
from shared.testing import agent_suite
from tests import tiny_dreamerv3

ACTIONS = 3
IMAGE = {"image": ArraySpec((64, 64, 3), "uint8")}
VECTORS = {"height": ArraySpec((), "float32"), "velocity": ArraySpec((4,), "float32")}
GAMES = {"atari", "atari-2024", "atari100k", "crafter"}
VARIANTS = (
    "dreamerv3",
    "proprio-2024",
    "proprio-2023",
    "vision",
    "vision-2024",
    "vision-2023",
    "atari",
    "atari-2024",
    "atari100k",
    "crafter",
    "advantage-normalisation",
    "huber-heads",
    "no-reward-value-gradients",
    "no-reconstruction-gradients",
    "no-symlog-inputs",
    "entropy-target",
)
# The authors draw every action, also where they do not learn.
CHECKS = [check for check in agent_suite.CHECKS if check is not agent_suite.exploration_changes_actions]


def spec_of(variant):
    if variant.startswith(("vision", "crafter")):
        return IMAGE
    if variant.startswith("atari"):
        return {"image": ArraySpec((64, 64, 3 if variant.startswith("atari100k") else 1), "uint8")}
    return VECTORS


def make_config(variant="dreamerv3", **changes) -> Config:
    return build(Config, tiny_dreamerv3.values(variant, **changes), where="a test")


def make_agent(variant="dreamerv3", seed=0, **changes) -> DreamerV3Agent:
    torch.set_num_threads(1)
    spec, config = ActSpec(ACTIONS, discrete=variant in GAMES), make_config(variant, **changes)
    return DreamerV3Agent(config, spec_of(variant), spec, seed=np.random.SeedSequence(seed))


def make_batch(variant="dreamerv3", seed=0, size=3, length=6, **changes):
    """Windows as replay gives them, with the row of context that the variant's windows have."""
    config, random = make_config(variant, **changes), np.random.default_rng(seed)
    context, discrete = config.batch.context, variant in GAMES
    length += context
    flags = np.zeros((size, length), bool)
    shape = (size, length)
    if discrete:
        action = np.eye(ACTIONS, dtype=np.float32)[random.integers(ACTIONS, size=shape)]
    else:
        action = random.uniform(-1, 1, (*shape, ACTIONS)).astype(np.float32)
    rows = {
        "action": action,
        "reward": random.uniform(0, 4, shape).astype(np.float32),
        "is_first": flags.copy(),
        "is_last": flags.copy(),
        "is_terminal": flags.copy(),
    }
    for key, spec in spec_of(variant).items():
        drawn = random.normal(size=(*shape, *spec.shape))
        if len(spec.shape) == 3:  # large squares: noise of single pixels looks always the same
            squares = random.integers(0, 256, (*shape, 4, 4, spec.shape[-1]))
            drawn = squares.repeat(16, axis=2).repeat(16, axis=3)
        rows[key] = drawn.astype(spec.dtype)
    if context:
        sizes = config.size
        rows["deter"] = random.uniform(-1, 1, (*shape, sizes.deter_size)).astype(np.float32)
        rows["stoch"] = random.integers(0, sizes.classes, (*shape, config.model.stoch_size)).astype(np.uint8)
    return rows


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_behaviour_of_every_agent(check, variant):
    check(lambda seed: make_agent(variant, seed), lambda seed: make_batch(variant, seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------- the numbers

SUITES = ("dreamerv3", "vision", "atari", "atari100k", "crafter")
OF_A_SUITE = ("model.size", "schedule.total_env_steps", "schedule.train_ratio")  # beside environment.
OF_NOTHING_LEARNED = ("schedule.evaluate_every_env_steps", "schedule.checkpoint_every_env_steps")  # looks, saves


def flat_values(variant):
    return dict(leaves(resolve("dreamerv3", variant, {"name": "paper"})["values"], where=variant))


def test_one_set_of_hyperparameters_serves_every_suite():
    """As the paper claims: suites differ in environments, size, budget, replay ratio; and in when ours looks, saves."""
    of = [flat_values(suite) for suite in SUITES]
    assert all(values.keys() == of[0].keys() for values in of)
    differing = {key for key in of[0] if any(values[key] != of[0][key] for values in of)}
    assert {key for key in differing if not key.startswith("environment.")} == {*OF_A_SUITE, *OF_NOTHING_LEARNED}


def test_sizes_and_ratios_on_crafter_change_that_alone():
    """As size50m and ratio-32 do to control from vectors: one number of the suite's."""
    suite = flat_values("crafter")
    for variant, (key, value) in {
        **{f"crafter-size{size}": ("model.size", size) for size in ("12m", "25m", "50m", "100m", "400m")},
        **{f"crafter-ratio-{ratio}": ("schedule.train_ratio", ratio) for ratio in (32, 128, 1024)},
    }.items():
        assert flat_values(variant) == {**suite, key: value} != suite


def test_an_older_agent_is_the_same_in_every_suite():
    """2024 and 2023 change the same numbers wherever they are compared; and 2024 the replay ratio of Atari100k."""
    for year, suites in (("2024", ("proprio", "vision", "atari", "atari100k")), ("2023", ("proprio", "vision"))):
        changes = []
        for suite in suites:
            old, new = flat_values(f"{suite}-{year}"), flat_values("dreamerv3" if suite == "proprio" else suite)
            changes.append(
                {key: old[key] for key in old if old[key] != new[key] and not key.startswith("environment.")}
            )
        if year == "2024":
            assert changes[-1].pop("schedule.train_ratio") == 256  # the paper: 128
        assert all(change == changes[0] for change in changes)
        assert len(changes[0]) > 4


def count(monkeypatch, variant, size, obs_spec, act_spec):
    """Trainable parameters; on no device, and without first values, so that 400 million take no time."""
    monkeypatch.setattr(model_torch, "initialise", lambda *arguments: None)
    values = resolve("dreamerv3", variant, {"name": "paper"})["values"]
    values["model"]["size"] = size
    config = build(Config, values, where="a test")
    with torch.device("meta"):
        model = model_torch.WorldModel(config.model, config.size, obs_spec, act_spec.size, None)
        features = model.latent.feature_size
        actor = model_torch.Actor(config.model, config.size, features, act_spec, None)
        critic = model_torch.Critic(config.model, config.size, features, None)
    return sum(p.numel() for part in (model, actor, critic) for p in part.parameters())


@pytest.mark.parametrize("size", PARAMETERS)
def test_sizes_are_those_of_the_authors_networks(monkeypatch, size):
    small, large = PARAMETERS[size]
    assert count(monkeypatch, "vision", size, IMAGE, ActSpec(6, discrete=True)) == small
    if large:
        screen = {"image": ArraySpec((96, 96, 1), "uint8")}
        assert count(monkeypatch, "atari", size, screen, ActSpec(18, discrete=True)) == large


def test_the_size_of_2023_is_the_18_million_of_its_table(monkeypatch):
    found = count(monkeypatch, "vision-2023", "s2023", IMAGE, ActSpec(6))
    assert round(found / 1e6) == 18, found


def test_every_size_serves_a_variant():
    used = {flat_values(variant)["model.size"] for variant in ("dreamerv3", *read_variants("dreamerv3"))}
    assert used == set(resolve("dreamerv3", "dreamerv3", {"name": "paper"})["values"]["sizes"])


def test_sizes_from_vectors_and_of_2024(monkeypatch):
    names = {"height": (), "orientations": (14,), "velocity": (9,)}
    walker = {name: ArraySpec(shape, "float32") for name, shape in names.items()}
    assert count(monkeypatch, "dreamerv3", "1m", walker, ActSpec(6)) == 640_867
    assert count(monkeypatch, "proprio-2024", "12m", walker, ActSpec(6)) == 9_738_533
    assert count(monkeypatch, "vision-2024", "12m", IMAGE, ActSpec(6)) == 10_517_936
    screen = {"image": ArraySpec((96, 96, 1), "uint8")}
    assert count(monkeypatch, "atari-2024", "200m", screen, ActSpec(18, discrete=True)) == 187_344_788


# ------------------------------------------------------------------------------------------------------ the networks


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_the_fast_filter_equals_the_step_applied_in_turn(variant):
    """RSSM.observe moves work out of the loop; the state after every row stays the same, across an episode's end."""
    agent = make_agent(variant)
    latent = agent.model.latent.double()
    embed = agent.model.encoder.embed_size
    tokens, action, noise = normal(3, 6, embed), 2 * normal(3, 6, ACTIONS, seed=1), uniform(3, 6, 3)
    first = torch.zeros(3, 6, dtype=torch.bool)
    first[1, 3] = True
    state = {"deter": normal(3, 16, seed=2), "stoch": torch.eye(4, dtype=torch.float64)[torch.tensor([[0, 1, 3]] * 3)]}
    fast, fast_prior = latent.observe(tokens, action, first, noise, state)
    for t in range(6):
        state, prior = latent.posterior(latent.restarted(state, first[:, t]), action[:, t], tokens[:, t], noise[:, t])
        for quick, step in ((fast, state), (fast_prior, prior)):
            assert quick.keys() == step.keys()
            for name, value in step.items():
                torch.testing.assert_close(quick[name][:, t], value, rtol=1e-12, atol=1e-12, msg=name)


def test_an_action_beyond_the_box_counts_as_its_edge():
    latent = make_agent().model.latent
    state, noise = latent.initial(2), torch.full((2, 3), 0.5)
    beyond, edge = torch.tensor([[1.7, -3.0, 0.5]] * 2), torch.tensor([[1.0, -1.0, 0.5]] * 2)
    found, expected = (latent.prior(state, action, noise)["deter"] for action in (beyond, edge))
    torch.testing.assert_close(found, expected)


def test_first_values():
    """Truncated normal of the inputs' number; heads of numbers predict exactly 0, the policy is nearly uniform."""
    agent = make_agent(**{"sizes__12m__units": 64, "sizes__12m__deter_size": 128})
    weight = agent.model.latent.gru.deter_in.linear.weight
    assert float(weight.detach().abs().max()) <= 2 / (128**0.5 * 0.8796)
    assert float(weight.detach().std()) == pytest.approx(128**-0.5, rel=0.05)
    hidden = agent.model.latent.gru.hidden[0].weight  # 128 of the state and 4 blocks of 3 * 64
    assert float(hidden.detach().std()) == pytest.approx((128 + 4 * 192) ** -0.5, rel=0.05)
    features = torch.randn(5, agent.model.latent.feature_size)
    for head in (agent.model.reward, agent.critic, agent.slow_critic):
        assert not head.scalar.mean(head(features)).any()
    mean, std = agent.actor(features)
    assert mean.abs().max() < 0.05 and (std - 0.893).abs().max() < 0.02
    biases = [x for name, x in agent.parts.named_parameters() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)


def test_a_huber_loss_by_hand():
    """sqrt(2^2 + 1) - 1, and half of it to another target at distance 1."""
    huber = model_torch.Huber(None)
    loss = huber.loss(torch.tensor([[3.0]]), torch.tensor([1.0]), torch.tensor([4.0]), 0.5)
    assert float(loss) == pytest.approx(5**0.5 - 1 + 0.5 * (2**0.5 - 1))


# ------------------------------------------------------------------------------------------------- returns, by hand


def behaviour_of(**changes):
    return make_config(**{f"behaviour__{name}": value for name, value in changes.items()}).behaviour


def test_returns_and_weights_by_hand():
    """R_1 = 8 + 0.5 * 4 = 10; R_0 = 2 + 0.5 (0.5 * 6 + 0.5 * 10) = 6. Weights 0.9 and 0.9 * 0.5."""
    reward, value = torch.tensor([[1.0], [2.0], [8.0]]), torch.tensor([[9.0], [6.0], [4.0]])
    discount = torch.tensor([[0.9], [0.5], [0.5]])
    returns, weights = objectives_torch.imagined_returns(behaviour_of(**{"lambda": 0.5}), reward, discount, value)
    assert returns.flatten().tolist() == [6.0, 10.0]
    assert weights.flatten().tolist() == pytest.approx([0.9, 0.45])
    plain = behaviour_of(**{"lambda": 0.5, "continuation": "plain", "discount_steps": 2})
    _, weights = objectives_torch.imagined_returns(plain, reward, discount, value)  # gamma 1/2 is divided out once
    assert weights.flatten().tolist() == pytest.approx([1.8, 0.9])


def test_the_range_of_an_entropy_is_that_of_its_policies():
    """Of the narrowest and the widest normal distribution; of certainty and uniform odds."""
    narrow, wide = (
        float(torch.distributions.Normal(torch.zeros(ACTIONS), std).entropy().sum()) for std in (0.1, 1.0)
    )
    assert make_agent().actor.entropy_range() == pytest.approx((narrow, wide))
    assert make_agent("atari").actor.entropy_range() == pytest.approx((0, np.log(ACTIONS)))


def test_an_entropy_scale_by_hand():
    """Range 1 to 5, mean 2, so a share of 1/4. Target 3/4, rate log 4: twice the scale; target 0: 4^(-1/4) of it."""
    actor, entropy = SimpleNamespace(entropy_range=lambda: (1.0, 5.0)), torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    before = {"entropy_scale": torch.tensor(1e-3)}
    for share, most, expected in ((0.75, 1.0, 2e-3), (0.25, 1.0, 1e-3), (0.0, 1.0, 1e-3 / 2**0.5), (1.0, 2e-3, 2e-3)):
        target = {"share": share, "rate": math.log(4), "least": 1e-6, "most": most}
        behaviour = behaviour_of(**{f"entropy_target__{name}": value for name, value in target.items()})
        after, scale = objectives_torch.entropy_scales(actor, behaviour, before, entropy)
        assert float(after["entropy_scale"]) == pytest.approx(expected) and float(scale) == pytest.approx(1e-3)
    low = behaviour_of(entropy_target__share=0.0, entropy_target__rate=100.0)
    after, _ = objectives_torch.entropy_scales(actor, low, before, entropy)
    assert float(after["entropy_scale"]) == pytest.approx(3e-6)
    assert objectives_torch.entropy_scales(actor, behaviour_of(), {}, entropy) == ({}, 3e-4)


@pytest.mark.parametrize(("share", "grows"), [(0.02, False), (0.98, True)])
def test_a_target_moves_the_entropy_scale_and_the_losses_after_it(share, grows):
    """The first update has the scale of the config; then every one what the update before it recorded."""
    agent = make_agent(behaviour__entropy_target__share=share, behaviour__entropy_target__rate=0.5)
    fixed = make_agent()
    assert float(agent.normaliser["entropy_scale"]) == pytest.approx(3e-4) and "entropy_scale" not in fixed.normaliser
    first = agent.learn(make_batch()).metrics
    assert float(first["actor_loss"]) == float(fixed.learn(make_batch()).metrics["actor_loss"])
    second = agent.learn(make_batch()).metrics
    found = [3e-4, float(first["entropy_scale"]), float(second["entropy_scale"])]
    assert found == sorted(found, reverse=not grows) and len(set(found)) == 3
    assert float(second["actor_loss"]) != float(fixed.learn(make_batch()).metrics["actor_loss"])
    twin = make_agent(seed=5, behaviour__entropy_target__share=share, behaviour__entropy_target__rate=0.5)
    twin.load(agent.save())
    ours, theirs = (one.learn(make_batch(seed=3)).metrics for one in (agent, twin))
    assert {name: float(value) for name, value in ours.items()} == {name: float(x) for name, x in theirs.items()}


def test_discounts_of_the_three_agents():
    """The last commit predicts the start's; 2024 has the truth there; 2023 has yes or no everywhere, times gamma."""
    ended, odds = torch.tensor([True, False]), torch.tensor([[2.0, -1.0], [2.0, -1.0]])
    reward = torch.nn.Identity()
    reward.scalar = SimpleNamespace(mean=lambda raw: raw)
    model = SimpleNamespace(reward=reward, continuation=lambda features: odds)
    found = {}
    for variant in ("dreamerv3", "proprio-2024", "proprio-2023"):
        behaviour = make_config(variant).behaviour
        found[variant] = objectives_torch.imagined_rewards(model, behaviour, odds, ended)[1].tolist()
    likely, unlikely = torch.sigmoid(odds[0]).tolist()
    gamma = horizon_discount(333)
    assert found["dreamerv3"] == [[likely, unlikely]] * 2
    assert found["proprio-2024"] == [[0.0, 1.0], [likely, unlikely]]
    assert found["proprio-2023"] == [pytest.approx([0.0, gamma]), pytest.approx([gamma, 0.0])]


# ----------------------------------------------------------------------------------------------- windows and memos


def loss_of(batch, variant="dreamerv3"):
    return float(make_agent(variant).learn(batch).metrics["loss"])


def changed(batch, name, rows):
    batch = {key: value.copy() for key, value in batch.items()}
    batch[name][:, rows] = make_batch(seed=9)[name][:, rows]
    return batch


def test_a_window_starts_from_the_stored_state_and_action_of_the_row_before():
    """What that row showed and earned is not learned from; later memos are not read."""
    batch = make_batch()
    start = loss_of(batch)
    for name in ("deter", "stoch", "action"):
        assert loss_of(changed(batch, name, slice(0, 1))) != start, name
    for name in ("deter", "stoch"):
        assert loss_of(changed(batch, name, slice(1, None))) == start, name
    for name in ("velocity", "reward"):
        assert loss_of(changed(batch, name, slice(0, 1))) == start, name
    assert loss_of(changed(batch, "velocity", slice(1, 2))) != start


def test_an_episode_that_begins_inside_a_window_forgets_what_was_before():
    batch = make_batch()
    batch["is_first"][:, 1] = True
    losses = {loss_of(changed(batch, name, slice(0, 1))) for name in ("deter", "stoch", "action")}
    assert losses == {loss_of(batch)}


def test_a_window_of_2023_starts_as_an_episode_does():
    batch = make_batch("proprio-2023")
    first = {**batch, "is_first": batch["is_first"].copy()}
    first["is_first"][:, 0] = True
    assert loss_of(batch, "proprio-2023") == loss_of(first, "proprio-2023")
    assert make_agent("proprio-2023").learn(batch).memo == {}


def test_the_memo_is_the_state_that_the_next_row_starts_from():
    """Of acting: continuing from it is continuing. Of learning: the posterior of the rows learned from."""
    agent, batch = make_agent(), make_batch()
    acted = agent.act(agent_suite.rows_of(batch, 0, is_first=True), agent.initial_carry(3), explore=True)
    state = agent.start({**batch, **{name: value[:, None] for name, value in acted.memo.items()}})
    for name, value in state.items():
        torch.testing.assert_close(value, acted.carry[name], rtol=0, atol=0)
    twin, memo = make_agent(), make_agent().learn(batch).memo
    noise = twin.learning_noise(3, 6)["noise"]
    obs = twin.preprocessed({key: batch[key][:, 1:] for key in VECTORS})
    action = torch.from_numpy(batch["action"][:, :-1])
    post, _ = twin.model.latent.observe(
        twin.model.encoder(obs), action, torch.from_numpy(batch["is_first"][:, 1:]), noise, twin.start(batch)
    )
    np.testing.assert_allclose(memo["deter"], post["deter"].detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(memo["stoch"], post["stoch"].argmax(-1).numpy())


# ------------------------------------------------------------------------------------------------------ the gradients


def gradients(variant="dreamerv3", **changes):
    """Of one joint update, by parameter, before the optimiser sees them."""
    agent, found = make_agent(variant, **changes), {}
    agent.step = lambda *names: (
        found.update({name: x.grad.clone() for name, x in agent.parts.named_parameters() if x.grad is not None}) or {}
    )
    agent.learn(make_batch(variant, **changes))
    return found


def test_imagination_trains_actor_and_critic_alone():
    """Without replayed values the model's gradient is that of its own losses, whatever actor and critic weigh."""
    heavy, light = (
        gradients(loss__replay_value_scale=0.0, loss__actor_scale=scale, loss__critic_scale=scale)
        for scale in (5.0, 1.0)
    )
    for name, value in heavy.items():
        factor = 1.0 if name.startswith("model.") else 5.0
        torch.testing.assert_close(value, factor * light[name], rtol=1e-4, atol=1e-7, msg=name)
    assert not any(name.startswith("slow_critic.") for name in heavy)


def test_replayed_values_train_the_world_model_too():
    """The critic predicts nothing at first, so its last layer needs weights before a gradient can pass it."""
    agents = {}
    for reaches in (True, False):
        agent = make_agent(loss__replay_value_gradient=reaches)
        with torch.no_grad():
            agent.critic.out.weight.normal_(generator=torch.Generator().manual_seed(0))
        post, _ = agent.model.latent.posterior(
            agent.model.latent.initial(6), torch.ones(6, ACTIONS), torch.ones(6, 8), torch.full((6, 3), 0.5)
        )
        post = {name: value.unflatten(0, (2, 3)) for name, value in post.items()}
        flags = torch.zeros(2, 3, dtype=torch.bool)
        agent.replayed_values(post, torch.ones(2, 3), flags, flags, torch.ones(6)).backward()
        agents[reaches] = agent
    for reaches, agent in agents.items():
        hidden = agent.model.latent.gru.gates.weight.grad
        assert (hidden is not None and bool(hidden.any())) == reaches
        assert agent.critic.out.weight.grad.any()


@pytest.mark.parametrize(
    ("switch", "head", "own", "learns"),
    [
        # its last layer starts at zero, which lets no gradient through to those before it
        ("reward_gradient", "reward", "model.reward.", "model.reward.out."),
        ("reconstruction_gradient", "vector", "model.decoder.", "model.decoder."),
    ],
)
def test_a_head_without_gradient_teaches_the_latent_model_nothing(switch, head, own, learns):
    """Against the same losses with that head's scale at 0: equal gradients of encoder and latent model."""
    rest = {"loss__replay_value_scale": 0.0}
    stopped = gradients(**rest, **{f"loss__{switch}": False})
    absent = gradients(**rest, **{f"loss__{head}_scale": 0.0})
    head_itself = {name: bool(value.any()) for name, value in stopped.items() if name.startswith(learns)}
    assert head_itself and all(head_itself.values()), head_itself
    for name, value in stopped.items():
        if name.startswith("model.") and not name.startswith(own):
            torch.testing.assert_close(value, absent[name], rtol=1e-4, atol=1e-7, msg=name)


def test_the_2023_actor_learns_through_the_model_and_leaves_nothing_in_it():
    agent = make_agent("proprio-2023")
    starts = {**agent.model.latent.initial(6), "is_terminal": torch.zeros(6, dtype=torch.bool)}
    starts = {name: value.detach() for name, value in starts.items()}
    with torch.no_grad():
        agent.model.reward.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    noise = agent.learning_noise(2, 3)
    names = {"action_noise": "action_noise", "latent_noise": "imagined_noise"}
    loss, _, _ = agent.learn_behaviour(starts, **{name: noise[theirs] for name, theirs in names.items()})
    loss.backward()
    for name, parameter in agent.parts.named_parameters():
        assert (parameter.grad is not None) == name.startswith(("actor.", "critic.")), name
    assert agent.actor.out.weight.grad.any()


# ------------------------------------------------------------------------------------------------------- the updates


def test_the_first_update_moves_nothing_and_the_second_a_thousandth():
    agent = make_agent(optimisers__laprop__warmup_updates=1000)
    before = agent.parameters()
    agent.learn(make_batch())
    for name, value in agent.parameters().items():
        rounding = 1e-7 if name.startswith("slow_critic.") else 0  # 0.98 x + 0.02 x
        np.testing.assert_allclose(value, before[name], rtol=rounding, atol=rounding, err_msg=name)
    agent.learn(make_batch())
    moved = max(float(np.abs(value - before[name]).max()) for name, value in agent.parameters().items())
    assert 0 < moved < 2 * 3e-3 / 1000


def test_the_long_vector_equals_the_formula_for_every_tensor():
    """LaProp and adaptive clipping, several steps, tensors of several shapes, one whose gradient is zero at first."""
    settings = make_config(optimisers__laprop__warmup_updates=2).optimisers.laprop
    start = {"a": normal(4, 3), "b": normal(5, seed=1), "c": 1e-5 * normal(2, 2, 2, seed=2)}
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    optimiser, moments = optimisers_torch.LaPropOptimiser(parameters, settings), {}
    expected = {name: (value, torch.zeros_like(value), torch.zeros_like(value)) for name, value in start.items()}
    for updates in range(4):
        for i, (name, parameter) in enumerate(parameters.items()):
            slope = 10.0**i * normal(*parameter.shape, seed=10 * updates + i)
            slope = slope if updates or name != "b" else torch.zeros_like(slope)
            parameter.grad = slope.clone()
            value, m, v = expected[name]
            clipped = adaptive_clip(value, slope, settings.adaptive_clip, settings.least_norm)
            rate = settings.learning_rate * min(updates / 2, 1)
            betas = (settings.beta1, settings.beta2, settings.epsilon)
            expected[name] = laprop(value, clipped, m, v, updates + 1, rate, *betas)
        optimiser.step(updates)
        moments = optimiser.save()
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), expected[name][0], rtol=1e-11, atol=1e-13, msg=name)
    np.testing.assert_allclose(moments["c"]["m"], expected["c"][1].numpy(), rtol=1e-10)


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_a_gradient_that_does_not_come_is_an_error(variant):
    """Not zeros, with which that part would never learn and nobody would see it."""
    agent = make_agent(variant)
    forward = agent.actor.judge
    agent.actor.judge = lambda policy, action: forward(tuple(x.detach() for x in policy), action)
    if variant == "proprio-2023":  # its actor learns through its actions as well
        agent.actor.sample = lambda policy, noise, sample=agent.actor.sample: sample(policy, noise).detach()
    with pytest.raises(RuntimeError, match=r"no gradient has reached .*(actor\.)?hidden\.layers\.0\.linear\.weight"):
        agent.learn(make_batch(variant))


def test_the_slow_critic_follows_by_a_fiftieth_and_in_2023_becomes_a_copy_first():
    for variant, first in (("dreamerv3", 0.02), ("proprio-2023", 1.0)):
        agent = make_agent(variant, **({"optimisers__adam__critic__learning_rate": 0.01} if first == 1 else {}))
        before = [x.clone() for x in agent.slow_critic.parameters()]
        agent.learn(make_batch(variant))
        for slow, fast, old in zip(agent.slow_critic.parameters(), agent.critic.parameters(), before, strict=True):
            torch.testing.assert_close(slow, first * fast.detach() + (1 - first) * old, rtol=1e-5, atol=1e-8)


def test_one_update_is_made_of_losses_before_it():
    """All three losses are those of the networks as they were, computed anew from the module functions."""
    batch, agent, twin = make_batch(), make_agent(), make_agent()
    metrics = agent.learn(batch).metrics
    rows = {name: torch.from_numpy(batch[name][:, 1:]) for name in ("reward", "is_first", "is_last", "is_terminal")}
    noise = twin.learning_noise(3, 6)
    behaviour = twin.config.behaviour
    total, _, post = objectives_torch.model_objective(
        twin.model, twin.config.loss, obs=twin.preprocessed({key: batch[key][:, 1:] for key in VECTORS}),
        action=torch.from_numpy(batch["action"][:, :-1]), reward=rows["reward"], is_first=rows["is_first"],
        continuation=torch.full((3, 6), 1 - 1 / 333), noise=noise["noise"], state=twin.start(batch),
    )  # fmt: skip
    assert float(total.detach()) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    starts = objectives_torch.imagination_starts(behaviour, {**post, "is_terminal": rows["is_terminal"]})
    names = {"action_noise": noise["action_noise"], "latent_noise": noise["imagined_noise"]}
    _, returns, found = twin.learn_behaviour(starts, **names)
    for name in ("actor_loss", "critic_loss", "imagined_return"):
        assert float(found[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name
    flags = (rows["is_last"], rows["is_terminal"])
    value = twin.replayed_values(post, rows["reward"], *flags, returns[0])
    assert float(value.detach()) == pytest.approx(float(metrics["replay_value_loss"]), rel=1e-5)


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_the_policy_finds_what_is_rewarded(variant):
    """An action earns its first entry less the square of its second: from random rows alone the agent learns (1, 0)."""
    width = {f"sizes__{size}__{name}": 32 for size in ("12m", "s2023") for name in ("units", "deter_size")}
    adams = {f"optimisers__adam__{name}__learning_rate": 1e-3 for name in ("model", "actor", "critic")}
    rates = {"optimisers__laprop__learning_rate": 1e-3, "behaviour__discount_steps": 10, **adams}
    agent, random = make_agent(variant, **width, **rates), np.random.default_rng(0)
    length = 8 + agent.config.batch.context
    for _ in range(200):
        action = random.uniform(-1, 1, (8, length, ACTIONS)).astype(np.float32)
        led_here = np.concatenate([0 * action[:, :1], action[:, :-1]], 1)
        flags = {name: np.zeros((8, length), bool) for name in ("is_first", "is_last", "is_terminal")}
        memo = {name: np.zeros((8, length, *s.shape), s.dtype) for name, s in agent.memo_spec.items()}
        seen = {"height": led_here[..., 0], "velocity": led_here[..., [0, 1, 2, 0]]}
        reward = led_here[..., 0] - led_here[..., 1] ** 2
        agent.learn({"action": action, "reward": reward, **flags, **memo, **seen})
    with torch.no_grad():
        mean, _ = agent.actor(agent.model.latent.features(agent.model.latent.initial(1)))
    assert mean[0, 0] > 0.9 and abs(mean[0, 1]) < 0.5, mean


def test_imagination_may_start_from_the_last_rows_alone():
    rows = {"deter": torch.arange(6.0).reshape(2, 3, 1)}
    starts = objectives_torch.imagination_starts(behaviour_of(imagine_last=2), rows)
    assert starts["deter"].flatten().tolist() == [1, 2, 4, 5]
    assert objectives_torch.imagination_starts(behaviour_of(), rows)["deter"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isfinite(float(make_agent(behaviour__imagine_last=2).learn(make_batch()).metrics["critic_loss"]))


# ------------------------------------------------------------------------------------------------ acting and the rest


def test_actions_are_drawn_whether_the_agent_explores_or_not():
    batch, actions = make_batch(), []
    for explore in (True, False):
        actions.append(agent_suite.act_sequence(make_agent(), batch, 2, explore=explore))
    np.testing.assert_array_equal(*actions)
    assert np.abs(actions[0]).max() == 1  # and cut: nine draws of a deviation of 0.9


def test_predictions_are_pixels_and_the_truth_is_what_was_stored():
    agent, batch = make_agent("vision"), make_batch("vision")
    with torch.no_grad():
        agent.model.decoder.images.out.weight.zero_()
    found = agent.predict(batch, context=2)
    np.testing.assert_array_equal(found["truth"], batch["image"])
    assert found["prediction"].dtype == np.uint8 and (found["prediction"] == 128).all()  # sigmoid(0)
    assert found["prediction"].shape == batch["image"].shape


def test_an_agent_of_vectors_has_no_pictures():
    with pytest.raises(UserError, match="sees vectors, of which there are no pictures"):
        make_agent().predict(make_batch(), context=2)


def test_a_state_from_another_kind_of_device_is_refused():
    agent = make_agent()
    with pytest.raises(UserError, match="it was made on cuda and this run is on cpu"):
        agent.load({**agent.save(), "device": "cuda"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__size": "13m"}, "'13m' is not in sizes; it has 100m, 12m"),
        ({"model__blocks": 5}, r"deter_size \(16\) is no multiple of model.blocks \(5\)"),
        (
            {"environment__observations": "image", "sizes__12m__image_depth": 3, "model__blocks": 8},
            r"image_depth \(3\) makes a first image of 12 channels, no multiple of model.blocks \(8\)",
        ),
        ({"sizes__12m__classes": 257}, "classes.*less than or equal to 256"),  # replay has one byte for a class
        ({"model__min_std": 1.0}, "must be below max_std"),
        ({"behaviour__returns__low": 95.0}, r"low \(95.0\) must be below high \(95.0\)"),
        ({"behaviour__discount_steps": 1}, "discount_steps.*greater than 1"),  # gamma 0, by which 2023 divides
        (
            {"behaviour__entropy_target__share": 0.5, "behaviour__entropy_scale": 0.1},
            r"entropy_scale \(0.1\) must lie between entropy_target.least \(3e-06\) and entropy_target.most \(0.03\)",
        ),
        ({"behaviour__entropy_target__least": 0.03}, r"least \(0.03\) must be below most \(0.03\)"),
        ({"behaviour__imagine_last": 7}, r"imagine_last \(7\) exceeds batch.length \(6\)"),
        ({"behaviour__imagine_last": 1}, "imagine_last must not be 1"),
        ({"batch__length": 1}, "batch.length must be at least 2"),
        ({"optimisers__order": "sequential"}, "replay_value_scale must be 0"),
        ({"video__context": 8}, r"context \(8\) must be shorter"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_config(**changes)


@pytest.mark.parametrize("variant", ["dreamerv3", "vision", "vision-2024", "proprio-2023", "atari"])
def test_mixed_precision_changes_matrix_products_alone(monkeypatch, variant):
    """As on a GPU, but on a CPU: losses within one part in fifty of float32's; parameters and memos stay float32."""
    exact = make_agent(variant).learn(make_batch(variant)).metrics
    agent = make_agent(variant)
    monkeypatch.setattr(agent, "arithmetic", lambda: torch.autocast("cpu", torch.bfloat16))
    learned = agent.learn(make_batch(variant))
    rows = agent_suite.rows_of(make_batch(variant), 0, is_first=True)
    acted = agent.act(rows, agent.initial_carry(3), explore=True)
    assert float(learned.metrics["loss"]) == pytest.approx(float(exact["loss"]), rel=0.02)
    assert float(learned.metrics["loss"]) != float(exact["loss"])
    assert {x.dtype for x in agent.parts.state_dict().values()} == {torch.float32}
    assert acted.action.dtype == np.float32 and all(x.dtype == torch.float32 for x in acted.carry.values())
    for memo in (learned.memo, acted.memo):
        assert {name: str(x.dtype) for name, x in memo.items()} == {
            name: s.dtype for name, s in agent.memo_spec.items()
        }


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_precision_is_mixed_on_a_gpu_alone():
    agent = make_agent()
    assert isinstance(agent.arithmetic(), contextlib.nullcontext)
    agent.device = torch.device("cuda")
    assert isinstance(agent.arithmetic(), torch.autocast)
    agent.config = make_config(precision="float32")
    assert isinstance(agent.arithmetic(), contextlib.nullcontext)


# Mixed precision against float32: |difference| / |float32| over all parameters of a learner, in the Euclidean norm.
# bfloat16 rounds to one part in 256.
MIXED = {"model": 0.05, "actor": 0.05, "critic": 0.05}


def extreme(noise, discrete):
    """Draws with uniform numbers at their ends: a class drawn is the first or the last in any precision."""
    return {name: 0.9999 * (x > 0.5) if discrete or name != "action_noise" else x for name, x in noise.items()}


def shaken(parameters):
    """First weights and a little more, so that no layer is zero; and the world goes on, far from yes or no (2023)."""
    random = np.random.default_rng(1)
    moved = {name: (x + 0.05 * random.normal(size=x.shape)).astype(np.float32) for name, x in parameters.items()}
    return {**moved, "model.continuation.out.bias": np.full(1, 2.0, np.float32)}


def check_mixed_gradients(mixed, exact, where):
    """Gradients by the names of parameters: within MIXED of float32's, not equal to them, and nowhere all zero."""
    assert mixed.keys() == exact.keys()
    for learner, tolerance in MIXED.items():
        names = [name for name in exact if name.startswith(f"{learner}.")]
        ours, theirs = (np.concatenate([np.ravel(found[name]) for name in names]) for found in (mixed, exact))
        off = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert 1e-5 < off < tolerance, f"{where}, {learner}: {off:.3g}"
    still = [name for name, value in mixed.items() if not np.any(value)]
    assert not still, f"{where}, no gradient: {still}"


@pytest.mark.parametrize("variant", ["dreamerv3", "vision", "atari", "proprio-2023"])
def test_mixed_precision_has_the_gradients_of_float32(variant):
    """Of model, actor and critic, before any optimiser sees them; with draws that rounding cannot change."""
    found = {}
    for mixed in (True, False):
        agent, slopes = make_agent(variant, loss__free_nats=0.02), found.setdefault(mixed, {})
        agent.load_parameters(shaken(agent.parameters()))
        draw, step = agent.learning_noise, agent.step

        def recorded(*names, agent=agent, slopes=slopes, step=step):
            for name in names:
                slopes.update({f"{name}.{k}": x.grad.numpy().copy() for k, x in agent.parts[name].named_parameters()})
            return step(*names)

        agent.learning_noise = lambda *shape, draw=draw: extreme(draw(*shape), variant in GAMES)
        agent.step = recorded
        if mixed:
            agent.arithmetic = lambda: torch.autocast("cpu", torch.bfloat16)
        agent.learn(make_batch(variant))
    check_mixed_gradients(found[True], found[False], variant)


@pytest.mark.parametrize("variant", ["dreamerv3", "proprio-2023"])
def test_imagination_and_learning_share_no_bfloat16_copies(variant, monkeypatch):
    """Autocast keeps them while a context lasts; those that imagination makes have no gradient to pass on."""
    agent, used, contexts = make_agent(variant), {}, []

    @contextlib.contextmanager
    def counted():
        assert not (contexts and contexts[-1]), "one context inside another"
        contexts.append(True)
        yield
        contexts[-1] = False

    def noted(name, own):
        def function(*arguments, **more):
            used[name] = len(contexts) if contexts[-1] else None
            return own(*arguments, **more)

        return function

    for name in ("model_objective", "imagine_behaviour", "behaviour_objectives", "replay_value_objective"):
        monkeypatch.setattr(agent_torch, name, noted(name, getattr(agent_torch, name)))
    agent.arithmetic = counted
    agent.learn(make_batch(variant))
    assert None not in used.values()
    assert used["imagine_behaviour"] not in {place for name, place in used.items() if name != "imagine_behaviour"}
