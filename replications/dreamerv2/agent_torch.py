"""DreamerV2's agent in torch: fit the world model, and in it, by imagination, an actor and a critic (learn); act.

Paper: Section 2, Algorithm 1. Read model_torch.py first; formulas are in shared/formulas. The module functions below
the class are the method; the class ties them to the loop, to the optimisers and to one source of noise.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from replications.dreamerv2.config import Behaviour, Config, Loss, Optimiser, Optimisers
from replications.dreamerv2.model_torch import Actor, Critic, State, WorldModel, imagine, initial_state
from shared.device_torch import prepare as prepare
from shared.device_torch import set_exact_arithmetic, to_numpy
from shared.errors import UserError
from shared.formulas.divergences import balanced, categorical_kl, floor_nats, gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob
from shared.formulas.images import centre
from shared.formulas.normalization import ema
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import categorical_sample
from shared.formulas.schedules import linear
from shared.formulas.sequences import previous_actions, reset_where_first
from shared.layers_torch import frozen
from shared.training.agent import Acted, Arrays, Carry, Learned

LEARNERS = ("model", "actor", "critic")  # each with its own Adam; the target critic is only ever copied to
WHITE = 255


class DreamerV2Agent:
    """World model, actor, critic and its slow copy, their optimisers and one source of noise.

    See shared/training/agent.py. The target critic starts from first values of its own and becomes a copy of the critic
    with the end of the first update.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.act_spec = config, act_spec
        self.device = torch.device(device)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint64)[0] >> 1) for s in seed.spawn(2))
        init = torch.Generator().manual_seed(init_seed)  # on the CPU: the same weights on every device
        self.model = WorldModel(config.model, obs_spec["image"].shape[-1], act_spec.size, init)
        features = self.model.latent.feature_size
        self.actor = Actor(config.model, config.behaviour, features, act_spec, init)
        self.critic = Critic(config.model, features, init)
        self.target_critic = Critic(config.model, features, init)
        parts = {"model": self.model, "actor": self.actor, "critic": self.critic, "target_critic": self.target_critic}
        self.parts = nn.ModuleDict(parts).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.optimisers = make_optimisers(self.parts, config.optimisers)
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.model.latent, num_envs)
        return {**state, "action": torch.zeros(num_envs, self.act_spec.size, device=self.device)}

    @torch.no_grad()
    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step; training episodes draw from the policy at the sampled posterior, others take its mode.

        Rows that end an episode get a zero action where all do: nothing will execute it.
        """
        num_envs = len(obs["is_first"])
        if obs["is_last"].all():
            return Acted(np.zeros((num_envs, self.act_spec.size), np.float32), carry, {})
        if explore and self.config.exploration.policy == "random":
            return Acted(self.random_action(num_envs).cpu().numpy(), carry, {})
        first = self.tensor(obs["is_first"])
        previous = {name: reset_where_first(self.tensor(value), first) for name, value in carry.items()}
        embed = self.model.encoder(self.preprocessed(obs["image"]))
        led_here = previous.pop("action")
        state, _ = self.model.latent.posterior(previous, led_here, embed, self.latent_noise(num_envs))
        features = self.model.latent.features(state)
        action = self.actor.sample(features, self.action_noise(num_envs)) if explore else self.actor.mode(features)
        return Acted(action.cpu().numpy(), {**state, "action": action}, {})

    def random_action(self, num_envs: int) -> Tensor:
        """Uniform over the classes or over the box, (N, A): the ablation of random data."""
        if self.act_spec.discrete:
            equal = torch.ones(num_envs, self.act_spec.size, device=self.device)
            return categorical_sample(equal, self.uniform(num_envs))
        return 2 * self.uniform(num_envs, self.act_spec.size) - 1

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update: a step of the world model, then, in the updated model, one of the actor and one of the critic.

        A chunk starts from the zero state, and the action that led to its first row is unknown to it: zero.
        """
        rows = {name: self.tensor(value) for name, value in batch.items() if name != "image"}
        inputs = {
            "image": self.preprocessed(batch["image"]),
            "action": previous_actions(rows["action"], rows["is_first"]),
            "reward": rows["reward"],
            "discount": self.config.behaviour.discount * (~rows["is_terminal"]).float(),
        }
        return Learned(self.update(**inputs, **self.learning_noise(*rows["reward"].shape)), {})

    def update(
        self, *, discount: Tensor, action_noise: Tensor, imagined_noise: Tensor, **inputs: Tensor
    ) -> dict[str, Tensor]:
        """One update from the inputs of model_objective and the noise of imagine_behaviour. The named losses and norms.

        Imagination starts from the posterior states before the model's step. The targets, both losses and the baseline
        are of the actor, critic and target critic before theirs.
        """
        total, metrics, post = model_objective(self.model, self.config.loss, discount=discount, **inputs)
        total.backward()
        metrics |= self.step("model")
        noise = {"action_noise": action_noise, "latent_noise": imagined_noise}
        starts = imagination_starts(self.model, self.config.behaviour, {**post, "discount": discount})
        metrics |= self.learn_behaviour(starts, **noise) | self.step("actor") | self.step("critic")
        self.update_target()
        self.updates += 1
        return metrics

    def learn_behaviour(self, starts: State, **noise: Tensor) -> dict[str, Tensor]:
        """Leave the gradients of actor and critic in their parameters; the losses by name.

        starts: from imagination_starts. noise: as for imagine_behaviour.
        """
        behaviour, start_discount = self.config.behaviour, starts.pop("discount")
        mix, entropy_scale = self.ramp("gradient_mix"), self.ramp("entropy")
        with frozen(self.model, self.target_critic):
            with torch.set_grad_enabled(not self.actions_are_constants(mix)):
                features, actions = imagine_behaviour(self.model, self.actor, starts, **noise)
                reward, discount = imagined_rewards(self.model, behaviour, features, start_discount)
            critics, trajectory = (self.critic, self.target_critic), (features, actions, reward, discount)
            actor_loss, critic_loss, metrics = behaviour_objectives(
                self.actor, *critics, behaviour, *trajectory, mix=mix, entropy_scale=entropy_scale
            )
        (actor_loss + critic_loss).backward()  # no parameter is in both
        return metrics

    def actions_are_constants(self, mix: float) -> bool:
        """Whether the actor's loss has no path through imagined actions, so that imagination needs no gradient."""
        behaviour, discrete = self.config.behaviour, self.act_spec.discrete
        if behaviour.actor_gradient == "reinforce":
            return discrete or behaviour.stop_action
        return behaviour.actor_gradient == "both" and discrete and mix == 0

    def step(self, name: str) -> dict[str, Tensor]:
        """Clip and apply one learner's gradient: weight decay, then Adam. Returns its norm before clipping, ()."""
        settings, optimiser = self.config.optimisers, self.optimisers[name]
        (group,) = optimiser.param_groups
        grads = [parameter.grad for parameter in group["params"]]
        norm, limit = torch.nn.utils.get_total_norm(grads), getattr(settings, name).clip_norm
        # Not clip_grad_norm_, which divides by norm + 1e-6: that shows in the parity tests.
        torch._foreach_mul_(grads, limit / norm.clamp(min=limit))
        # torch adds epsilon after the bias correction of v, Keras before it: this makes them equal.
        group["eps"] = settings.epsilon / math.sqrt(1 - settings.beta2 ** (self.updates + 1))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return {f"{name}_grad_norm": norm}

    @torch.no_grad()
    def update_target(self) -> None:
        """Every so many updates the target critic moves to the critic; with the first it becomes its copy."""
        behaviour = self.config.behaviour
        if self.updates % behaviour.target_every == 0:
            fraction = behaviour.target_fraction if self.updates else 1.0
            for slow, fast in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
                slow.copy_(ema(slow, fast, fraction))

    def ramp(self, name: str) -> float:
        """Where a ramp of the behaviour stands at this update."""
        ramp = getattr(self.config.behaviour, name)
        return linear(self.config.env_steps(self.updates), ramp.start, ramp.end, ramp.over_env_steps)

    def learning_noise(self, size: int, length: int) -> dict[str, Tensor]:
        """Of the filter: noise (B, T, S). Of imagination: imagined_noise (H, N, S), action_noise as the actor's.

        N: where imagination starts, B * T or B * (T - 1); see imagination_starts.
        """
        horizon = self.config.behaviour.horizon
        count = size * (length - spared_rows(self.model, self.config.behaviour))
        return {
            "noise": self.latent_noise(size, length),
            "imagined_noise": self.latent_noise(horizon, count),
            "action_noise": self.action_noise(horizon, count),
        }

    def latent_noise(self, *batch: int) -> Tensor:
        """What the latent model takes, (*batch, S): uniform for categoricals, standard normal for Gaussians."""
        draw = self.uniform if self.config.model.latents == "categorical" else self.normal
        return draw(*batch, self.config.model.stoch_size)

    def action_noise(self, *batch: int) -> Tensor:
        """What Actor.sample takes: uniform, (*batch) for discrete actions, (*batch, A) for continuous ones."""
        return self.uniform(*batch) if self.act_spec.discrete else self.uniform(*batch, self.act_spec.size)

    # ------------------------------------------------------------------------------------- pictures and persistence

    @torch.no_grad()
    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8."""
        action = previous_actions(self.tensor(batch["action"]), self.tensor(batch["is_first"]))
        size, length = action.shape[:2]
        noise, latent = self.latent_noise(size, length), self.model.latent
        embed = self.model.encoder(self.preprocessed(batch["image"][:, :context]))
        seen, _ = latent.observe(embed, action[:, :context], noise[:, :context], initial_state(latent, size))
        last = {name: value[:, -1] for name, value in seen.items()}
        dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
        features = torch.cat([latent.features(seen), latent.features(dreamt)], 1)
        pixels = ((self.model.decoder(features) + 0.5) * WHITE).round().clamp(0, WHITE).to(torch.uint8)
        return {"truth": np.array(batch["image"]), "prediction": pixels.cpu().numpy()}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in self.parts.state_dict().items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimisers and noise stay as they are."""
        self.parts.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})

    def save(self) -> Mapping[str, Any]:
        return {
            "parameters": self.parameters(),
            "optimiser": {
                name: {key: to_numpy(value) for key, value in optimiser.state[parameter].items()}
                for name, parameter, optimiser in self.trained()
                if parameter in optimiser.state
            },
            "generator": to_numpy(self.generator.get_state()),
            "updates": self.updates,
            "device": self.device.type,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what save returned.

        Raises:
          UserError: it was saved on another kind of device, whose random numbers cannot be continued here.
        """
        if state["device"] != self.device.type:
            raise UserError(
                f"it was made on {state['device']} and this run is on {self.device.type}: their random numbers differ; "
                f"give --device {state['device']}, or another --out to start anew"
            )
        self.load_parameters(state["parameters"])
        for optimiser in self.optimisers.values():
            optimiser.state.clear()
        for name, parameter, optimiser in self.trained():
            if name in state["optimiser"]:
                moments = {key: torch.from_numpy(np.array(value)) for key, value in state["optimiser"][name].items()}
                optimiser.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(value) if value.ndim else value.to(self.device)
                    for key, value in moments.items()
                }
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.updates = int(state["updates"])

    # ------------------------------------------------------------------------------------------------------ helpers

    def trained(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        """Every parameter that learns: its name, itself and its optimiser."""
        for part, optimiser in self.optimisers.items():
            for name, parameter in self.parts[part].named_parameters():
                yield f"{part}.{name}", parameter, optimiser

    def tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def preprocessed(self, image: np.ndarray) -> Tensor:
        """uint8 (..., H, W, C) -> float32 in [-0.5, 0.5]."""
        return centre(self.tensor(image).float())


def make_optimisers(parts: nn.ModuleDict, settings: Optimisers) -> dict[str, torch.optim.Optimizer]:
    """Adam for each learner; DreamerV2Agent.step clips its gradient and gives it Keras' epsilon.

    torch takes lr * weight_decay of a parameter away, the authors weight_decay of it whatever the rate.
    """
    own: dict[str, Optimiser] = {name: getattr(settings, name) for name in LEARNERS}
    return {
        name: torch.optim.AdamW(
            parts[name].parameters(),
            lr=own[name].learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay / own[name].learning_rate,
            fused=True,
        )
        for name in LEARNERS
    }


def model_objective(
    model: WorldModel, loss: Loss, *, image: Tensor, action: Tensor, reward: Tensor, discount: Tensor, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor], State]:
    """What the world model minimises, Equation 2: the negative evidence lower bound, its KL balanced.

    A head outside loss.gradient_heads learns from constant features and teaches the latent model nothing.

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, C) in [-0.5, 0.5], network input and target alike. reward: (B, T), of the row, as stored.
      action: (B, T, A), the action that LED to each row. discount: (B, T), gamma, 0 where the world ended.
      noise: (B, T, S), uniform, or standard normal for Gaussian latents.
    Returns:
      The total (); the named terms, each a mean over (B, T) in nats; the posterior states, each part (B, T, ...).
    Source: code, agent.py:105-134.
    """
    post, prior = model.latent.observe(model.encoder(image), action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    seen = {name: features if name in loss.gradient_heads else features.detach() for name in HEAD_NAMES}
    target = torch.tanh(reward) if loss.reward_transform == "tanh" else reward
    image_log_prob = gaussian_log_prob(image, model.decoder(seen["image"]), 1.0).sum((-3, -2, -1))
    kl, divergence = model_divergence(loss, post, prior)
    terms = {
        "image": (loss.image_scale, -image_log_prob.mean()),
        "reward": (loss.reward_scale, -gaussian_log_prob(target, model.reward(seen["reward"]), 1.0).mean()),
        "divergence": (loss.divergence_scale, divergence),
    }
    if model.discount is not None:
        likely = bernoulli_log_prob(discount, model.discount(seen["discount"]))
        terms["discount"] = (loss.discount_scale, -likely.mean())
    total = sum(scale * term for scale, term in terms.values())
    metrics = {f"{name}_loss": term.detach() for name, (_, term) in terms.items()}
    return total, {"loss": total.detach(), "kl": kl.mean().detach(), **metrics}, post


def model_divergence(loss: Loss, post: State, prior: State) -> tuple[Tensor, Tensor]:
    """The KL between posterior and prior, (B, T), and the scalar that the world model minimises, both in nats.

    The prior learns loss.kl_balance of it and the posterior the rest. A balance of 0.5 is a case of its own: nothing is
    stopped, so both learn all of it, and every time step has its free nats. Source: code, common/nets.py:162-180.
    """
    names = ("logit",) if "logit" in post else ("mean", "std")
    divergence_of = categorical_kl if "logit" in post else gaussian_kl

    def floored(p: tuple[Tensor, ...], q: tuple[Tensor, ...]) -> Tensor:
        kl = divergence_of(*p, *q).sum(-1)
        if loss.free_nats_of == "mean" and loss.kl_balance != 0.5:
            return floor_nats(kl.mean(), loss.free_nats)
        return floor_nats(kl, loss.free_nats).mean()

    p, q = (tuple(state[name] for name in names) for state in (post, prior))
    divergence = floored(p, q) if loss.kl_balance == 0.5 else balanced(floored, p, q, loss.kl_balance)
    return divergence_of(*(x.detach() for x in (*p, *q))).sum(-1), divergence


HEAD_NAMES = ("image", "reward", "discount")


def spared_rows(model: WorldModel, behaviour: Behaviour) -> int:
    """Rows at the end of a chunk that no imagination starts from."""
    return int(behaviour.starts == "but_last" and model.discount is not None)


def imagination_starts(model: WorldModel, behaviour: Behaviour, rows: State) -> State:
    """Where imagination starts, constants: each part (B, T, ...) as (N, ...), the batch's rows in order."""
    length = rows["belief"].shape[1] - spared_rows(model, behaviour)
    return {name: value[:, :length].detach().flatten(0, 1) for name, value in rows.items()}


def imagine_behaviour(
    model: WorldModel, actor: Actor, start: State, *, action_noise: Tensor, latent_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Let the actor act in the model for H steps.

        row        0       1      ...    H - 1     H
        feature    start   s_1           s_{H-1}   s_H
        action     a_0     a_1           a_{H-1}             chosen in the row's state, leads to the next

    The actor reads constant features: a gradient reaches an action through the states it led to, not through what later
    actions made of them.

    Args:
      model, actor: the networks.
      start: each part (N, ...).
      action_noise: (H, N), or (H, N, A) for continuous actions: see Actor.sample. latent_noise: (H, N, S).
    Returns:
      The features (H + 1, N, F), the start's first; the actions (H, N, A).
    Source: code, agent.py:136-164.
    """
    features, actions, state = [model.latent.features(start)], [], start
    for step in range(len(action_noise)):
        action = actor.sample(features[-1].detach(), action_noise[step])
        state = model.latent.prior(state, action, latent_noise[step])
        features.append(model.latent.features(state))
        actions.append(action)
    return torch.stack(features), torch.stack(actions)


def imagined_rewards(
    model: WorldModel, behaviour: Behaviour, features: Tensor, start_discount: Tensor
) -> tuple[Tensor, Tensor]:
    """Reward and discount of imagined states, each (H + 1, N): of the state itself, not of the one it leads to.

    start_discount: of the replayed rows that imagination starts from, (N,); gamma, 0 where the world ended. The head's
    discounts hold gamma already. Without a head every discount is gamma.
    """
    reward = model.reward(features)
    if model.discount is None:
        return reward, torch.full_like(reward, behaviour.discount)
    discount = torch.sigmoid(model.discount(features))
    if behaviour.start_discount == "replayed":
        discount = torch.cat([start_discount[None], discount[1:]])
    return reward, discount


def imagined_returns(behaviour: Behaviour, reward: Tensor, discount: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Returns of all states but the last, and what share of them is left when the trajectory is there: each (H, N).

    reward, discount, value: (H + 1, N), the value by the target critic. Gradients flow through the returns, Equation 4,
    to all three; weights are constants. Source: code, agent.py:229-334.
    """
    returns = lambda_return(reward[:-1], discount[:-1], value[1:], behaviour.lambda_)
    return returns, discount_weights(discount[:-1]).detach()


def behaviour_objectives(
    actor: Actor,
    critic: Critic,
    target_critic: Critic,
    behaviour: Behaviour,
    features: Tensor,
    actions: Tensor,
    reward: Tensor,
    discount: Tensor,
    *,
    mix: float,
    entropy_scale: float,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The losses of actor and critic, each (), from one imagined trajectory, and what to record of it.

    features (H + 1, N, F), actions (H, N, A), reward and discount (H + 1, N); mix and entropy_scale as actor_objective.
    """
    slow, value = target_critic(features), critic(features[:-1].detach())
    returns, weights = imagined_returns(behaviour, reward, discount, slow)
    baseline = (slow[:-1] if behaviour.baseline == "target" else value).detach()
    trajectory = (features, actions, returns, weights, baseline)
    actor_loss, entropy = actor_objective(actor, behaviour, *trajectory, mix=mix, entropy_scale=entropy_scale)
    critic_loss = critic_objective(value, returns, weights)
    metrics = {
        "actor_loss": actor_loss.detach(),
        "critic_loss": critic_loss.detach(),
        "actor_entropy": entropy,
        "imagined_return": returns.mean().detach(),
    }
    return actor_loss, critic_loss, metrics


def actor_objective(
    actor: Actor,
    behaviour: Behaviour,
    features: Tensor,
    actions: Tensor,
    returns: Tensor,
    weights: Tensor,
    baseline: Tensor,
    *,
    mix: float,
    entropy_scale: float,
) -> tuple[Tensor, Tensor]:
    """What the actor minimises, Equation 6: the negative return and entropy.

        row t      pi(a_t | s_t)   v(s_t)   w_t   R_t        of the paper and OLD, t = 0 .. H - 1
                   pi(a_t | s_t)   v(s_t)   w_t   R_{t+1}    shifted (HEAD), t = 0 .. H - 2

    reinforce: log pi(a_t) times what the return exceeds the baseline by, a constant (with stop_action the action too);
    dynamics: the return, whose gradient comes through the model; both: (1 - mix) of the former, the action never
    stopped, and mix of the latter.

    Args:
      actor, behaviour: the Actor and the Behaviour settings.
      features: (H + 1, N, F). actions: (H, N, A), chosen there. returns, weights: (H, N), from imagined_returns.
      baseline: v(s_t), (H, N), a constant.
      mix, entropy_scale: where their ramps stand.
    Returns:
      The loss (), and the mean entropy of the policy in nats, ().
    Source: code, agent.py:252-310; OLD/models.py:197-252.
    """
    rows = len(returns) - int(behaviour.shifted)
    paid = returns[int(behaviour.shifted) :]
    constant = behaviour.actor_gradient == "reinforce" and behaviour.stop_action
    chosen = actions.detach() if constant else actions
    log_prob, entropy = actor.judge(features[:rows].detach(), chosen[:rows])
    reinforce = log_prob * (paid - baseline[:rows]).detach()
    gains = {"reinforce": reinforce, "dynamics": paid, "both": mix * paid + (1 - mix) * reinforce}
    gain = gains[behaviour.actor_gradient]
    return -(weights[:rows] * (gain + entropy_scale * entropy)).mean(), entropy.mean().detach()


def critic_objective(value: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """What the critic minimises, Equation 5: -log N(returns; value, 1), weighted; () in nats.

    value: v(s_t) of constant features, returns and weights: constants, all (H, N).
    """
    return -(weights * gaussian_log_prob(returns.detach(), value, 1.0)).mean()
