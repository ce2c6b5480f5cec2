"""What DreamerV3 minimises, in torch: the world model's objective, imagination, actor's and critic's objectives.

Paper: Methods. This is the method, agent_torch.py ties it to the loop; read model_torch.py first, formulas are in
shared/formulas. Shapes: B windows, T rows, N starts of imagination, H imagined steps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from replications.dreamerv3.config import Behaviour, Loss
from replications.dreamerv3.latent_torch import State
from replications.dreamerv3.model_torch import Actor, Critic, WorldModel
from shared.formulas.divergences import categorical_kl, floor_nats
from shared.formulas.elbo import bernoulli_log_prob
from shared.formulas.normalization import debias, ema, moments_std, percentile, return_range
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.schedules import horizon_discount
from shared.formulas.transforms import symlog
from shared.layers_torch import frozen


def continuation_target(behaviour: Behaviour, is_terminal: Tensor) -> Tensor:
    """What the continuation head shall predict, (...): 0 where the world ended, else gamma, or (2023) 1."""
    gamma = horizon_discount(behaviour.discount_steps) if behaviour.continuation == "discounted" else 1.0
    return gamma * (~is_terminal).to(torch.get_default_dtype())


def model_objective(
    model: WorldModel,
    loss: Loss,
    *,
    obs: Mapping[str, Tensor],
    action: Tensor,
    reward: Tensor,
    is_first: Tensor,
    continuation: Tensor,
    noise: Tensor,
    state: State,
) -> tuple[Tensor, dict[str, Tensor], State]:
    """What the world model minimises: reconstruction, reward, continuation, and the KL with its two gradients.

        total = sum of scale * mean over (B, T);   dynamics = max(1, KL[sg(post) || prior]),
        representation = max(1, KL[post || sg(prior)])

    Args:
      model, loss: the WorldModel and its Loss settings.
      obs: (B, T, ...) by key, network input and target alike; images in [0, 1]. reward: (B, T), of the row, as stored.
      action: (B, T, A), the action that LED to each row. is_first: (B, T). continuation: (B, T), the head's target.
      noise: (B, T, S), uniform. state: before the first row, each part (B, ...).
    Returns:
      The total (); the named terms, each a mean over (B, T) in nats; the posterior states, each part (B, T, ...).
    Source: code, dreamerv3/agent.py:156-240, dreamerv3/rssm.py:120-133.
    """
    post, prior = model.latent.observe(model.encoder(obs), action, is_first, noise, state)
    seen = post if loss.reconstruction_gradient else {name: value.detach() for name, value in post.items()}
    terms = reconstruction_terms(loss, model.decoder(seen), obs, model.encoder.symlog)
    features = model.latent.features(post)
    rewards = model.reward(features if loss.reward_gradient else features.detach())
    terms["reward"] = (loss.reward_scale, model.reward.scalar.loss(rewards, reward))
    terms["continuation"] = (loss.continuation_scale, -bernoulli_log_prob(continuation, model.continuation(features)))
    dynamics, representation = latent_divergences(model, loss, post["logit"], prior["logit"])
    terms["dynamics"] = (loss.dynamics_scale, dynamics)
    terms["representation"] = (loss.representation_scale, representation)
    total = sum(scale * term.mean() for scale, term in terms.values())
    return (
        total,
        {"loss": total.detach(), **{f"{name}_loss": x.mean().detach() for name, (_, x) in terms.items()}},
        post,
    )


def reconstruction_terms(
    loss: Loss, predicted: Mapping[str, Tensor], obs: Mapping[str, Tensor], squeezed: bool
) -> dict[str, tuple[float, Tensor]]:
    """Scale and squared error (B, T), without a half, of the images and of the vectors, summed over keys."""
    terms: dict[str, tuple[float, Tensor]] = {}
    for key, mean in predicted.items():
        if mean.ndim == obs[key].ndim == 5:
            kind, scale, error = "image", loss.image_scale, (mean - obs[key]).square()
        else:
            target = symlog(obs[key]) if squeezed else obs[key]
            kind, scale, error = "vector", loss.vector_scale, (mean - target).square()
            if loss.vector_tolerance:
                error = torch.where(error < loss.vector_tolerance, 0.0, error)
        error = error.flatten(2).sum(-1) if error.ndim > 2 else error
        terms[kind] = (scale, error + terms[kind][1] if kind in terms else error)
    return terms


def latent_divergences(model: WorldModel, loss: Loss, post: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The KL of posterior and prior, at least free_nats, (B, T): once it trains the prior, once the posterior.

    post, prior: logits (B, T, S, K). Source: code, dreamerv3/rssm.py:120-133.
    """
    p, q = model.latent.log_probs(post), model.latent.log_probs(prior)
    dynamics = categorical_kl(p.detach(), q).sum(-1)
    representation = categorical_kl(p, q.detach()).sum(-1)
    return floor_nats(dynamics, loss.free_nats), floor_nats(representation, loss.free_nats)


def imagination_starts(behaviour: Behaviour, rows: State) -> State:
    """Where imagination starts, constants: each part (B, T, ...) as (N, ...), the batch's rows in order."""
    return {name: value[:, -behaviour.imagine_last :].detach().flatten(0, 1) for name, value in rows.items()}


def imagine_behaviour(
    model: WorldModel, actor: Actor, start: State, *, action_noise: Tensor, latent_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Let the actor act in the model for H steps.

        row        0       1      ...    H - 1     H
        feature    start   s_1           s_{H-1}   s_H
        action     a_0     a_1           a_{H-1}             chosen in the row's state, leads to the next

    The actor reads constant features.

    Args:
      model, actor: the networks.
      start: each part (N, ...).
      action_noise: (H, N), or (H, N, A) for continuous actions: see Actor.sample. latent_noise: (H, N, S).
    Returns:
      The features (H + 1, N, F), the start's first; the actions (H, N, A), not cut to [-1, 1].
    Source: code, dreamerv3/agent.py:188-235.
    """
    latent = model.latent
    weights, features, actions, state = latent.gru.weights(), [latent.features(start)], [], start
    for step in range(len(action_noise)):
        action = actor.sample(actor(features[-1].detach()), action_noise[step])
        state = latent.prior_step(state, latent.gru.action_part(action), latent_noise[step], weights)
        features.append(latent.features(state))
        actions.append(action)
    return torch.stack(features), torch.stack(actions)


def imagined_rewards(
    model: WorldModel, behaviour: Behaviour, features: Tensor, is_terminal: Tensor
) -> tuple[Tensor, Tensor]:
    """Reward and discount of imagined states, each (H + 1, N): earned by entering the state, counted in it.

    is_terminal: of the replayed rows that imagination starts from, (N,). The discount is gamma times the probability
    that the world goes on (2023: whether that exceeds a half).
    """
    reward = model.reward.scalar.mean(model.reward(features))
    discount = torch.sigmoid(model.continuation(features))
    if behaviour.hard_continuation:
        discount = (discount > 0.5).to(reward.dtype)
    if behaviour.start_continuation == "replayed":
        discount = torch.cat([(~is_terminal).to(discount.dtype)[None], discount[1:]])
    if behaviour.continuation == "plain":
        discount = horizon_discount(behaviour.discount_steps) * discount
    return reward, discount


def imagined_returns(behaviour: Behaviour, reward: Tensor, discount: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns of all states but the last, and what share of them is left when the trajectory is there: each (H, N).

    reward, discount, value: (H + 1, N). a_t, chosen in s_t, earns reward t + 1. The share counts the row's own
    continuation, the start's too, but no gamma for it where the head's target has none. Source: code,
    dreamerv3/agent.py:382-446,482-490.
    """
    returns = lambda_return(reward[1:], discount[1:], value[1:], behaviour.lambda_)
    weights = discount_weights(discount) * discount
    if behaviour.continuation == "plain":
        weights = weights / horizon_discount(behaviour.discount_steps)
    return returns, weights[:-1].detach()


def normalise_returns(
    behaviour: Behaviour, before: Mapping[str, Tensor], returns: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The percentiles' averages with these returns in them, and the range to divide by, (): at least 1.

    before: low and high, 0 at first. Source: code, embodied/jax/utils.py:16-91; golden normalizers.
    """
    settings, returns = behaviour.returns, returns.detach()
    after = {
        name: ema(before[name], percentile(returns, getattr(settings, name)), settings.rate) for name in ("low", "high")
    }
    return after, return_range(after["low"], after["high"], settings.limit)


def normalise_advantages(
    behaviour: Behaviour, before: Mapping[str, Tensor], advantage: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The ablation: advantages less their mean, divided by their deviation, both averaged over updates from 0 on.

    before: mean, mean_square, and the weight of what was averaged. Source: code, embodied/jax/utils.py:16-91.
    """
    rate, seen = behaviour.advantage_rate, advantage.detach()
    new = {"mean": seen.mean(), "mean_square": seen.square().mean(), "weight": torch.ones_like(before["weight"])}
    after = {name: ema(before[name], value, rate) for name, value in new.items()}
    mean, square = (debias(after[name], after["weight"], rate) for name in ("mean", "mean_square"))
    return after, (advantage - mean) / moments_std(mean, square, behaviour.advantage_limit)


def entropy_scales(
    actor: Actor, behaviour: Behaviour, before: Mapping[str, Tensor], entropy: Tensor
) -> tuple[dict[str, Tensor], Tensor | float]:
    """The scale of the entropy after this update, as a statistic, and in it, (). Without a target nothing changes.

        share = (mean H - least H) / (largest H - least H)        scale <- scale exp(rate (target - share)), in bounds

    before: entropy_scale. entropy: of the policy in imagined states, (H, N).

    # ours: v1 of the paper names an ablation with a target for the entropy; how it is reached is our choice.
    """
    target = behaviour.entropy_target
    if target.share is None:
        return {}, behaviour.entropy_scale
    least, most = actor.entropy_range()
    scale, share = before["entropy_scale"], (entropy.detach().mean() - least) / (most - least)
    moved = scale * torch.exp(target.rate * (target.share - share))
    return {"entropy_scale": moved.clamp(target.least, target.most)}, scale


def behaviour_objectives(
    actor: Actor,
    critic: Critic,
    slow_critic: Critic,
    behaviour: Behaviour,
    normaliser: Mapping[str, Tensor],
    features: Tensor,
    actions: Tensor,
    reward: Tensor,
    discount: Tensor,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The losses of actor and critic from one imagined trajectory.

        advantage = (R_t - v(s_t)) / S        S: the range of returns, this trajectory's among them
        actor     = -w_t (log pi(a_t | s_t) [advantage] + 3e-4 H[pi(. | s_t)])
        critic    = w_t (cross-entropy to R_t, and to the slow critic's value)

    With continuous_gradient: dynamics the first product is the advantage itself, and its gradient comes through the
    model.

    Args:
      actor, critic, slow_critic, behaviour: networks and settings. normaliser: the statistics before.
      features: (H + 1, N, F). actions: (H, N, A). reward, discount: (H + 1, N).
    Returns:
      Both losses (), means over (H, N); the returns (H, N), constants; the statistics after; what to record.
    Source: code, dreamerv3/agent.py:382-446; golden imag_loss.
    """
    constant = features.detach()
    logits, through_model = critic(constant), features.requires_grad
    with frozen(critic), torch.set_grad_enabled(through_model):
        value = critic.scalar.mean(critic(features) if through_model else logits.detach())
    with torch.no_grad():
        slow = slow_critic.scalar.mean(slow_critic(constant[:-1]))
    returns, weights = imagined_returns(behaviour, reward, discount, value)
    advantage, scale = returns - value[:-1], torch.ones_like(value[0, 0])
    if behaviour.normalise == "returns":
        after, scale = normalise_returns(behaviour, normaliser, returns)
        advantage = advantage / scale
    else:
        after, advantage = normalise_advantages(behaviour, normaliser, advantage)
    log_prob, entropy = actor.judge(actor(constant[:-1]), actions.detach())
    gain = advantage if through_model else log_prob * advantage
    further, entropy_scale = entropy_scales(actor, behaviour, normaliser, entropy)
    actor_loss = -(weights * (gain + entropy_scale * entropy)).mean()
    critic_loss = (weights * critic.scalar.loss(logits[:-1], returns, slow, behaviour.slow_regulariser)).mean()
    metrics = {
        "actor_loss": actor_loss.detach(),
        "critic_loss": critic_loss.detach(),
        "actor_entropy": entropy.mean().detach(),
        "imagined_return": returns.mean().detach(),
        "return_range": scale.detach(),
        **further,
    }
    return actor_loss, critic_loss, returns.detach(), {**after, **further}, metrics


def replay_value_objective(
    critic: Critic,
    slow_critic: Critic,
    behaviour: Behaviour,
    features: Tensor,
    reward: Tensor,
    is_last: Tensor,
    is_terminal: Tensor,
    bootstrap: Tensor,
) -> Tensor:
    """The critic's loss on replayed states, (): returns of what really happened, completed by imagined ones.

        R_t = r_{t+1} + d_{t+1} ((1 - c_{t+1}) boot_{t+1} + c_{t+1} R_{t+1})
        d = gamma, 0 where the world ended      c = lambda, 0 in the last row of an episode

    Args:
      critic, slow_critic, behaviour: networks and settings.
      features: (B, T, F), through which the world model learns. reward, is_last, is_terminal: (B, T).
      bootstrap: (B, T), the imagined return of the same state, a constant.
    Source: code, dreamerv3/agent.py:449-479; golden repl_loss.
    """
    going_on = horizon_discount(behaviour.discount_steps) * (~is_terminal).to(reward.dtype)
    share = behaviour.lambda_ * (~is_last).to(reward.dtype)
    rows = (x.transpose(0, 1)[1:] for x in (reward, going_on, bootstrap.detach(), share))
    returns = lambda_return(*rows).transpose(0, 1)
    logits = critic(features[:, :-1])
    with torch.no_grad():
        slow = slow_critic.scalar.mean(slow_critic(features[:, :-1]))
    loss = critic.scalar.loss(logits, returns, slow, behaviour.slow_regulariser)
    return ((~is_last[:, :-1]).to(loss.dtype) * loss).mean()
