"""Dreamer's agent in torch: fit the world model, and in it, by imagination, an actor and a value (learn); act.

Paper: Sections 2 and 3, Algorithm 1. Read model_torch.py first; formulas are in shared/formulas. The module functions
below the class are the method; the class ties them to the loop, to the optimisers and to one source of noise.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from replications.dreamer.config import Behaviour, Config, Loss, Optimisers
from replications.dreamer.model_torch import Actor, State, Value, WorldModel, imagine, initial_state
from shared.device_torch import prepare as prepare
from shared.device_torch import set_exact_arithmetic, to_numpy, uniform
from shared.errors import UserError
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import bernoulli_log_prob, gaussian_log_prob, info_nce
from shared.formulas.images import centre, dequantise_uint8, quantise
from shared.formulas.planning import refit
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.sampling import categorical_sample
from shared.formulas.schedules import linear
from shared.formulas.sequences import previous_actions
from shared.layers_torch import frozen
from shared.training.agent import Acted, Arrays, Carry, Learned


class DreamerAgent:
    """World model, actor, value, their optimisers and one source of noise. See shared/training/agent.py.

    With behaviour.learner planner there is neither actor nor value (None): PlaNet with this world model. With
    behaviour.value false there is no value.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        """
        Raises:
          UserError: the planner is asked for discrete actions, which it cannot choose.
        """
        set_exact_arithmetic()
        behaviour = config.behaviour
        if behaviour.learner == "planner" and act_spec.discrete:
            raise UserError(
                "behaviour.learner planner searches continuous actions and the task's are discrete; use learner actor, "
                "or a control task"
            )
        self.config, self.act_spec = config, act_spec
        self.device = torch.device(device)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint64)[0] >> 1) for s in seed.spawn(2))
        init = torch.Generator().manual_seed(init_seed)  # on the CPU: the same weights on every device
        self.model = WorldModel(config.model, act_spec.size, init)
        features, self.actor, self.value = self.model.latent.feature_size, None, None
        if behaviour.learner == "actor":
            self.actor = Actor(config.model, behaviour, features, act_spec, init)
        if behaviour.value:
            self.value = Value(config.model, features, init)
        parts = {"model": self.model, "actor": self.actor, "value": self.value}
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if part is not None}).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.optimiser = make_optimiser(self.parts, config.loss, config.optimisers)
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.model.latent, num_envs)
        return {**state, "action": torch.zeros(num_envs, self.act_spec.size, device=self.device)}

    @torch.no_grad()
    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step, choose from the sampled posterior; training episodes explore.

        Rows that end an episode get a zero action where all do: nothing will execute it.
        """
        num_envs = len(obs["is_first"])
        if obs["is_last"].all():
            return Acted(np.zeros((num_envs, self.act_spec.size), np.float32), carry, {})
        first = self.tensor(obs["is_first"])[:, None]
        previous = {name: torch.where(first, 0.0, self.tensor(value)) for name, value in carry.items()}
        state = self.filter(self.preprocessed(self.tensor(obs["image"])), previous.pop("action"), previous)
        action = self.explored(self.choose(state, explore=explore), explore=explore)
        return Acted(action.cpu().numpy(), {**state, "action": action}, {})

    def filter(self, image: Tensor, action: Tensor, previous: State) -> State:
        """The posterior after one more image (N, H, W, C), reached from `previous` by `action` (N, A)."""
        noise = self.normal(len(image), self.config.model.stoch_size)
        post, _ = self.model.latent.posterior(previous, action, self.model.encoder(image), noise)
        return post

    def choose(self, state: State, *, explore: bool) -> Tensor:
        """What the actor or the planner does in a state, (N, A), before any exploration noise."""
        num_envs, size = len(state["sample"]), self.act_spec.size
        if self.actor is None:
            return plan(self.model, self.config.planner, state, **self.planner_noise(num_envs))[0][:, 0]
        features = self.model.latent.features(state)
        if explore and self.config.exploration.policy == "sample":
            return self.actor.sample(features, self.action_noise(num_envs))
        if self.act_spec.discrete:
            return self.actor.mode(features, None)
        return self.actor.mode(features, self.normal(self.config.behaviour.mode_samples, num_envs, size))

    def explored(self, action: Tensor, *, explore: bool) -> Tensor:
        """The action that is executed, (N, A): Gaussian noise while training, or now and then a random class."""
        settings = self.config.exploration
        if not self.act_spec.discrete:
            if explore:
                action = action + settings.action_noise * self.normal(*action.shape)
            return action.clamp(-1, 1)
        epsilon = settings.epsilon
        share = linear(self.updates, epsilon.start, epsilon.end, epsilon.decay_updates)
        replaced = self.uniform(len(action)) < (share if explore else epsilon.evaluation)
        random = categorical_sample(torch.ones_like(action), self.uniform(len(action)))
        return torch.where(replaced[:, None], random, action)

    def planner_noise(self, num_envs: int) -> dict[str, Tensor]:
        """Standard normal, for every iteration: action_noise (I, N, J, H, A) and latent_noise (I, N * J, H, S)."""
        plan = self.config.planner
        return {
            "action_noise": self.normal(plan.iterations, num_envs, plan.candidates, plan.horizon, self.act_spec.size),
            "latent_noise": self.normal(
                plan.iterations, num_envs * plan.candidates, plan.horizon, self.config.model.stoch_size
            ),
        }

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update: world model, actor and value, each by its own Adam step with its own clipped gradient."""
        rows = {name: self.tensor(value) for name, value in batch.items()}
        size, length = rows["reward"].shape
        inputs = {
            "image": self.preprocessed(rows["image"]),
            "action": previous_actions(rows["action"], rows["is_first"], rows["action_before"]),
            "reward": rows["reward"],
            "terminal": rows["is_terminal"].float(),
        }
        metrics = self.gradients(**inputs, **self.learning_noise(size, length))
        return Learned({**metrics, **self.update()}, {})

    def gradients(
        self, *, action_noise: Tensor | None = None, latent_noise: Tensor | None = None, **inputs: Tensor
    ) -> dict[str, Tensor]:
        """The named losses; their gradients, all taken with the present weights, are left in the parameters.

        inputs as for model_objective; action_noise and latent_noise as for imagine_behaviour, without a planner.
        """
        self.optimiser.zero_grad(set_to_none=True)
        total, metrics, post = model_objective(self.model, self.config.loss, **inputs)
        total.backward()
        if self.actor is None:
            return metrics
        start = imagination_starts(self.model, post)
        with frozen(self.model, self.value):
            features, _ = imagine_behaviour(
                self.model, self.actor, start, action_noise=action_noise, latent_noise=latent_noise
            )
            actor_loss, returns, weights = actor_objective(self.model, self.value, self.config.behaviour, features)
            actor_loss.backward()
        metrics |= {"actor_loss": actor_loss.detach(), "imagined_return": returns.mean()}
        if self.value is not None:
            value_loss = value_objective(self.value, features.detach(), returns, weights)
            value_loss.backward()
            metrics["value_loss"] = value_loss.detach()
        return metrics

    def update(self) -> dict[str, Tensor]:
        """Clip and apply the gradients, each group by its own norm. Returns the norms before clipping, each ()."""
        settings, norms = self.config.optimisers, {}
        self.updates += 1
        for group in self.optimiser.param_groups:
            grads = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(grads)
            # Not clip_grad_norm_, which divides by norm + 1e-6: that shows in the parity tests.
            torch._foreach_mul_(grads, group["clip_norm"] / norm.clamp(min=group["clip_norm"]))
            # torch adds epsilon after the bias correction of v, TensorFlow before it: this makes them equal.
            group["eps"] = settings.epsilon / math.sqrt(1 - settings.beta2**self.updates)
            norms[f"{group['name']}_grad_norm"] = norm
        self.optimiser.step()
        return norms

    def learning_noise(self, size: int, length: int) -> dict[str, Tensor]:
        """Of the filter: noise (B, T, S). Of imagination: latent_noise (H, N, S), and action_noise as the actor's.

        N: where imagination starts, B * T or, with a continuation head, B * (T - 1). The latent noise is standard
        normal, one row of it for the whole batch with shared_latent_noise.
        """
        stoch, behaviour = self.config.model.stoch_size, self.config.behaviour
        rows = 1 if behaviour.shared_latent_noise else size
        noise = {"noise": self.normal(rows, length, stoch).expand(size, -1, -1)}
        if self.actor is not None:
            count = size * (length - 1 if self.config.model.continuation else length)
            rows = 1 if behaviour.shared_latent_noise else count
            noise["latent_noise"] = self.normal(behaviour.horizon, rows, stoch).expand(-1, count, -1)
            noise["action_noise"] = self.action_noise(behaviour.horizon, count)
        return noise

    def action_noise(self, *batch: int) -> Tensor:
        """What Actor.sample takes: standard normal (*batch, A); uniform (*batch) for discrete actions."""
        return self.uniform(*batch) if self.act_spec.discrete else self.normal(*batch, self.act_spec.size)

    # ------------------------------------------------------------------------------------- pictures and persistence

    @torch.no_grad()
    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8.

        Both in image_bits bits per channel, as the authors display them.
        """
        action = previous_actions(
            self.tensor(batch["action"]), self.tensor(batch["is_first"]), self.tensor(batch["action_before"])
        )
        size, length = action.shape[:2]
        noise = self.normal(size, length, self.config.model.stoch_size)
        embed = self.model.encoder(self.preprocessed(self.tensor(batch["image"][:, :context])))
        latent = self.model.latent
        seen, _ = latent.observe(embed, action[:, :context], noise[:, :context], initial_state(latent, size))
        last = {name: value[:, -1] for name, value in seen.items()}
        dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
        features = torch.cat([latent.features(seen), latent.features(dreamt)], 1)
        bits = self.config.model.image_bits
        images = {
            "truth": quantise(self.tensor(batch["image"]).float(), bits),
            "prediction": self.model.decoder(features),
        }
        return {name: dequantise_uint8(image, bits).cpu().numpy() for name, image in images.items()}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in self.parts.state_dict().items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimisers and noise stay as they are."""
        self.parts.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})

    def save(self) -> Mapping[str, Any]:
        moments = {
            name: {key: to_numpy(value) for key, value in self.optimiser.state[parameter].items()}
            for name, parameter in self.parts.named_parameters()
            if parameter in self.optimiser.state
        }
        return {
            "parameters": self.parameters(),
            "optimiser": moments,
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
        self.optimiser.state.clear()
        for name, parameter in self.parts.named_parameters():
            if name in state["optimiser"]:
                moments = {key: torch.from_numpy(np.array(value)) for key, value in state["optimiser"][name].items()}
                self.optimiser.state[parameter] = {
                    key: torch.empty_like(parameter).copy_(value) if value.ndim else value.to(self.device)
                    for key, value in moments.items()
                }
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.updates = int(state["updates"])

    # ------------------------------------------------------------------------------------------------------ helpers

    def tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def preprocessed(self, image: Tensor) -> Tensor:
        """uint8 (..., H, W, C) -> float32: levels and uniform noise within a level, drawn anew (TF1); or /255 (TF2)."""
        if not self.config.model.dequantise:
            return centre(image.float())
        return quantise(image.float(), self.config.model.image_bits, uniform(self.generator, image.shape))


def make_optimiser(parts: nn.ModuleDict, loss: Loss, settings: Optimisers) -> torch.optim.Adam:
    """Adam with a group for each part, and for the decoder where the image does not train the latent model.

    DreamerAgent.update gives it TensorFlow's epsilon and clips each group's gradient.
    """
    groups = {name: dict(part.named_parameters()) for name, part in parts.items()}
    if "image" not in loss.gradient_heads:
        decoder = {name: groups["model"].pop(name) for name in list(groups["model"]) if name.startswith("decoder.")}
        groups["decoder"] = decoder
    own = {name: getattr(settings, name) for name in groups}
    return torch.optim.Adam(
        [
            {"params": list(group.values()), "name": name, "lr": own[name].learning_rate}
            | {"clip_norm": own[name].clip_norm}
            for name, group in groups.items()
        ],
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def model_objective(
    model: WorldModel, loss: Loss, *, image: Tensor, action: Tensor, reward: Tensor, terminal: Tensor, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor], State]:
    """What the world model minimises: the negative evidence lower bound, or the contrastive one in its place.

    A head outside loss.gradient_heads learns from constant features and teaches the latent model nothing.

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, 3) in [-0.5, 0.5], network input and target alike. reward: (B, T), of the row, as stored.
      action: (B, T, A), the action that LED to each row. terminal: (B, T), 1 where the world ended, else 0.
      noise: (B, T, S), standard normal.
    Returns:
      The total (); the named terms, each a mean over (B, T) in nats; the posterior states, each part (B, T, .).
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    embed = model.encoder(image)
    post, prior = model.latent.observe(embed, action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    kl = gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)  # (B, T)
    if loss.free_nats_of == "step":
        divergence = floor_nats(kl - loss.free_nats, 0.0).mean()
    else:
        divergence = floor_nats(kl.mean(), loss.free_nats)
    target = torch.tanh(reward) if loss.reward_transform == "tanh" else reward
    seen = features if "image" in loss.gradient_heads else features.detach()
    terms = {
        "image": (loss.image_scale, -gaussian_log_prob(image, model.decoder(seen), 1.0).sum((-3, -2, -1)).mean()),
        "reward": (loss.reward_scale, -gaussian_log_prob(target, model.reward(features), 1.0).mean()),
        "divergence": (loss.divergence_scale, divergence),
    }
    if model.contrastive is not None:
        bound = contrastive_bound(*model.contrastive(embed), features, contrastive_shifts(loss, *kl.shape))
        terms["contrastive"] = (loss.contrastive_scale, -bound.mean())
    if model.continuation is not None:
        goes_on = loss.continuation_target_scale * (1 - terminal)
        likely = bernoulli_log_prob(goes_on, model.continuation(features))
        terms["continuation"] = (loss.continuation_scale, -likely.mean())
    total = sum(scale * term for scale, term in terms.values())
    metrics = {f"{name}_loss": term.detach() for name, (_, term) in terms.items()}
    return total, {"loss": total.detach(), "kl": kl.mean().detach(), **metrics}, post


def contrastive_shifts(loss: Loss, size: int, length: int) -> list[tuple[int, int]]:
    """By how much the features are shifted along batch and time to make the candidates; (0, 0) is among them."""
    if loss.contrastive_negatives == "batch":
        return [(i, 0) for i in range(size)]
    if loss.contrastive_negatives == "time":
        return [(0, i) for i in range(length)]
    batch, time = loss.contrastive_batch_shifts, loss.contrastive_time_shifts
    return [(i - batch // 2, j - time // 2) for i in range(batch) for j in range(time)]


def contrastive_bound(mean: Tensor, std: Tensor, features: Tensor, shifts: list[tuple[int, int]]) -> Tensor:
    """How much likelier the features are, given their image, than others of the batch, (B, T) in nats.

    mean, std: what the image predicts of the features, (B, T, F). The features are shifted against the prediction (the
    paper: the observations) and wrap around. Source: TF1 code, training/utility.py (compute_cpc_loss).
    """

    def log_prob(features: Tensor, mean: Tensor, std: Tensor, shift: tuple[int, int]) -> Tensor:
        return gaussian_log_prob(torch.roll(features, shift, (0, 1)), mean, std).sum(-1)

    # Recomputed on the way back: kept, the shifted features alone would take gigabytes at the paper's size.
    again = {"use_reentrant": False, "preserve_rng_state": False}
    candidates = [checkpoint(log_prob, features, mean, std, shift, **again) for shift in shifts]
    return info_nce(candidates[shifts.index((0, 0))], torch.stack(candidates))


def imagination_starts(model: WorldModel, post: State) -> State:
    """The states that imagination starts from, constants: each part (N, .), the batch's rows in order.

    With a continuation head the last row of each sequence is left out, which may be the end of the world.
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    last = -1 if model.continuation is not None else None
    return {name: value[:, :last].detach().flatten(0, 1) for name, value in post.items()}


def imagine_behaviour(
    model: WorldModel, actor: Actor, start: State, *, action_noise: Tensor, latent_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Let the actor act in the model for H steps.

    The actor reads constant features: a gradient reaches an action through the states it led to, not through what later
    actions made of them.

    Args:
      model, actor: the networks.
      start: each part (N, .).
      action_noise: (H, N, A), or (H, N) for discrete actions: see Actor.sample. latent_noise: (H, N, S).
    Returns:
      The features AFTER each action (H, N, F), the start not among them; the actions (H, N, A).
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    features, actions, state = [], [], start
    here = model.latent.features(start)
    for step in range(len(action_noise)):
        action = actor.sample(here.detach(), action_noise[step])
        state = model.latent.prior(state, action, latent_noise[step])
        here = model.latent.features(state)
        features.append(here)
        actions.append(action)
    return torch.stack(features), torch.stack(actions)


def actor_objective(
    model: WorldModel, value: Value | None, behaviour: Behaviour, features: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What the actor minimises: the negative imagined return, Equation 7.

    Reward and value are read at the same state. The value of the last state but one (bootstrap early) or of the last
    follows the last return. Without a value the return is the discounted sum of the rewards until the horizon.

    Args:
      model, value: their heads; value None without one. behaviour: its settings.
      features: imagined, (H, N, F).
    Returns:
      The loss (); returns and weights, each (H - 1, N), constants, as value_objective takes them (H without a value).
      Gradients flow through rewards, values, predicted discounts; not through weights.
    Source: TF1 code, training/utility.py; TF2 code, dreamer.py.
    """
    reward = model.reward(features)
    if value is None:
        discount = torch.full_like(reward, behaviour.no_value_discount)
        returns = lambda_return(reward, discount, torch.zeros_like(reward), 1.0)
        return -returns.mean(), returns.detach(), torch.ones_like(returns)
    worth = value(features)
    if model.continuation is None:
        discount = torch.full_like(reward, behaviour.discount)
    else:
        discount = torch.sigmoid(model.continuation(features))
    following = worth[1:] if behaviour.bootstrap == "last" else torch.cat([worth[1:-1], worth[-2:-1]])
    returns = lambda_return(reward[:-1], discount[:-1], following, behaviour.lambda_)
    weights = discount_weights(discount[:-1]).detach() if behaviour.weights else torch.ones_like(returns)
    return -(weights * returns).mean(), returns.detach(), weights


def value_objective(value: Value, features: Tensor, returns: Tensor, weights: Tensor) -> Tensor:
    """What the value minimises: -log N(returns; value, 1), weighted, Equation 8; () in nats.

    features: imagined, (H, N, F), constants. returns, weights: (H - 1, N), from actor_objective.
    """
    return -(weights * gaussian_log_prob(returns, value(features[:-1]), 1.0)).mean()


def plan(model: WorldModel, planner, state: State, action_noise: Tensor, latent_noise: Tensor) -> tuple[Tensor, Tensor]:
    """PlaNet's planner, the cross-entropy method over action sequences (PlaNet, Algorithm 2).

    One rollout per candidate and iteration, all candidates of all environments in one batch. Statistics are those of
    the clipped actions; the belief starts at N(0, 1) at every decision.

    Args:
      model, planner: the WorldModel and the Planner settings.
      state: before every environment's decision, each part (N, .).
      action_noise: (I, N, J, H, A). latent_noise: (I, N * J, H, S). Standard normal.
    Returns:
      mean and std of the actions (N, H, A) after the last iteration. The plan is the mean.
    """
    num_envs, candidates = action_noise.shape[1:3]
    start = {name: value.repeat_interleave(candidates, 0) for name, value in state.items()}
    mean = action_noise.new_zeros(num_envs, planner.horizon, action_noise.shape[-1])
    std = torch.ones_like(mean)
    for iteration in range(planner.iterations):
        actions = (mean[:, None] + std[:, None] * action_noise[iteration]).clamp(-1, 1)
        returns = planned_return(model, planner, start, actions.flatten(0, 1), latent_noise[iteration])
        mean, std = refit(actions, returns.view(num_envs, candidates), planner.elites, std=planner.std)
    return mean, std


def planned_return(model: WorldModel, planner, state: State, action: Tensor, noise: Tensor) -> Tensor:
    """Discounted sum of the predicted mean rewards of the states after each action, (M,).

    state: each part (M, .), action: (M, H, A), noise: (M, H, S). The published discount is 1.
    """
    total = 0.0
    for step in range(action.shape[1]):
        state = model.latent.prior(state, action[:, step], noise[:, step])
        total = total + planner.discount**step * model.reward(model.latent.features(state))
    return total
