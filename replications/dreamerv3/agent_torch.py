"""DreamerV3's agent in torch: the world model, and in it, by imagination, an actor and a critic, learned in one step.

Paper: Methods. Read model_torch.py first; formulas are in shared/formulas. The module functions below the class are
the method; the class ties them to the loop, to the optimiser and to one source of noise.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.dreamerv3.config import Adams, Behaviour, Config, LaProp, Loss
from replications.dreamerv3.layers_torch import exact
from replications.dreamerv3.model_torch import Actor, Critic, State, WorldModel, image_keys, imagine
from shared.device_torch import prepare as prepare
from shared.device_torch import set_exact_arithmetic, to_numpy
from shared.envs.spec import ArraySpec, ObsSpec
from shared.errors import UserError
from shared.formulas.divergences import categorical_kl, floor_nats
from shared.formulas.elbo import bernoulli_log_prob
from shared.formulas.normalization import debias, ema, moments_std, percentile, return_range
from shared.formulas.returns import discount_weights, lambda_return
from shared.formulas.schedules import horizon_discount, warmup
from shared.formulas.sequences import previous_actions, reset_where_first
from shared.formulas.transforms import symlog
from shared.training.agent import Acted, Arrays, Carry, Learned

LEARNERS = ("model", "actor", "critic")  # what an optimiser changes; the slow critic only ever follows
FLAGS = ("is_first", "is_last", "is_terminal")
WHITE = 255


class DreamerV3Agent:
    """World model, actor, critic and its slow copy, their optimiser, return statistics and one source of noise.

    See shared/training/agent.py. memo: the latent state of every row, deter (N, D) float32 and stoch (N, S) uint8, the
    classes. Replay keeps it beside the row; a window starts from that of the row before it, and `learn` renews it.
    """

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.obs_spec, self.act_spec = config, obs_spec, act_spec
        self.device = torch.device(device)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint64)[0] >> 1) for s in seed.spawn(2))
        init = torch.Generator().manual_seed(init_seed)  # on the CPU: the same weights on every device
        self.model = WorldModel(config.model, config.size, obs_spec, act_spec.size, init)
        features = self.model.latent.feature_size
        self.actor = Actor(config.model, config.size, features, act_spec, init)
        self.critic = Critic(config.model, config.size, features, init)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        parts = {"model": self.model, "actor": self.actor, "critic": self.critic, "slow_critic": self.slow_critic}
        self.parts = nn.ModuleDict(parts).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.optimisers = make_optimisers(self.parts, config.optimisers)
        first = config.behaviour.first_statistics()
        self.normaliser = {name: torch.tensor(value, device=self.device) for name, value in first.items()}
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        with torch.no_grad():
            state = self.model.latent.initial(num_envs)
        return {**state, "action": torch.zeros(num_envs, self.act_spec.size, device=self.device)}

    @torch.no_grad()
    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step and draw an action, whether to explore or not: the authors always draw.

        A continuous action is cut to [-1, 1]; the latent model divides it by max(1, |a|), which is the same.
        """
        num_envs, first, latent = len(obs["is_first"]), self.tensor(obs["is_first"]), self.model.latent
        state = {name: self.tensor(carry[name]) for name in ("deter", "stoch")}
        led_here = reset_where_first(self.tensor(carry["action"]), first)
        with self.arithmetic():
            tokens = self.model.encoder(self.preprocessed(obs))
            noise = self.uniform(num_envs, self.config.model.stoch_size)
            state, _ = latent.posterior(latent.restarted(state, first), led_here, tokens, noise)
            action = self.actor.sample(self.actor(latent.features(state)), self.action_noise(num_envs))
        action = action.clamp(-1, 1)
        memo = {name: value.cpu().numpy() for name, value in self.memo(state).items()}
        return Acted(action.cpu().numpy(), {**state, "action": action}, memo)

    @property
    def memo_spec(self) -> ObsSpec:
        """What one row's memo is."""
        if not self.config.batch.context:
            return {}
        deter, stoch = self.config.size.deter_size, self.config.model.stoch_size
        return {"deter": ArraySpec((deter,), "float32"), "stoch": ArraySpec((stoch,), "uint8")}

    def memo(self, state: State) -> dict[str, Tensor]:
        """A latent state as replay keeps it; none where windows do not start from one."""
        if not self.config.batch.context:
            return {}
        return {"deter": exact(state["deter"]), "stoch": state["stoch"].argmax(-1).to(torch.uint8)}

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One update on windows (B, context + T). The memo is that of the T rows.

        Without context a window begins as an episode does.
        """
        context = self.config.batch.context
        rows = {name: self.tensor(batch[name]) for name in ("action", "reward", *FLAGS)}
        before = rows["action"][:, 0] if context else None
        rows = {name: value[:, context:] for name, value in rows.items()}
        if not context:
            rows["is_first"] = rows["is_first"].clone()
            rows["is_first"][:, 0] = True
        inputs = {
            "obs": self.preprocessed({key: batch[key][:, context:] for key in self.obs_spec}),
            "action": previous_actions(rows.pop("action"), rows["is_first"], before),
            **rows,
            "state": self.start(batch),
        }
        metrics, post = self.update(**inputs, **self.learning_noise(*rows["reward"].shape))
        return Learned(metrics, {name: to_numpy(value) for name, value in self.memo(post).items()})

    def start(self, batch: Arrays) -> State:
        """The state before the rows to learn from, (B, ...): stored with the row before, or the initial one."""
        if not self.config.batch.context:
            return self.model.latent.initial(len(batch["reward"]))
        stoch = F.one_hot(self.tensor(batch["stoch"][:, 0]).long(), self.config.size.classes).float()
        return {"deter": self.tensor(batch["deter"][:, 0]), "stoch": stoch}

    def update(
        self, *, reward: Tensor, is_last: Tensor, is_terminal: Tensor, action_noise: Tensor, imagined_noise: Tensor,
        **inputs: Any,
    ) -> tuple[dict[str, Tensor], State]:  # fmt: skip
        """One update from the inputs of model_objective and the noise of imagine_behaviour: metrics, and the posterior.

        joint: all losses are of the networks before the update, which is one step of one optimiser. sequential (2023):
        imagination happens in the updated model, from the states before.
        """
        loss, behaviour, sequential = self.config.loss, self.config.behaviour, "adam" in self.optimisers
        inputs |= {"reward": reward, "continuation": continuation_target(behaviour, is_terminal)}
        noise = {"action_noise": action_noise, "latent_noise": imagined_noise}
        with self.arithmetic():
            total, metrics, post = model_objective(self.model, loss, **inputs)
        if sequential:
            total.backward()
            metrics |= self.step("model")
        starts = imagination_starts(behaviour, {**post, "is_terminal": is_terminal})
        behaviour_loss, returns, found = self.learn_behaviour(starts, **noise)
        metrics |= found
        if sequential:
            total = behaviour_loss
        else:
            total = total + behaviour_loss
            if loss.replay_value_scale:
                with self.arithmetic():
                    value = self.replayed_values(post, reward, is_last, is_terminal, returns[0])
                total = total + loss.replay_value_scale * value
                metrics["replay_value_loss"] = value.detach()
        total.backward()
        metrics |= self.step("actor", "critic") if sequential else self.step(*LEARNERS)
        self.update_slow_critic()
        self.updates += 1
        return metrics, {name: value.detach() for name, value in post.items()}

    def learn_behaviour(self, starts: State, **noise: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The scaled losses of actor and critic, (); returns (H, N), constants; what to record.

        starts: from imagination_starts. noise: as for imagine_behaviour.
        """
        behaviour, is_terminal = self.config.behaviour, starts.pop("is_terminal")
        through_model = behaviour.continuous_gradient == "dynamics" and not self.act_spec.discrete
        # Two contexts: one keeps its bfloat16 copies of the actor's matrices, and those of the first have no gradient.
        with self.arithmetic(), frozen(self.model), torch.set_grad_enabled(through_model):
            features, actions = imagine_behaviour(self.model, self.actor, starts, **noise)
            reward, discount = imagined_rewards(self.model, behaviour, features, is_terminal)
        with self.arithmetic():
            networks = (self.actor, self.critic, self.slow_critic)
            actor_loss, critic_loss, returns, self.normaliser, metrics = behaviour_objectives(
                *networks, behaviour, self.normaliser, features, actions, reward, discount
            )
        loss = self.config.loss
        return loss.actor_scale * actor_loss + loss.critic_scale * critic_loss, returns, metrics

    def replayed_values(
        self, post: State, reward: Tensor, is_last: Tensor, is_terminal: Tensor, returns: Tensor
    ) -> Tensor:
        """replay_value_objective of the rows that imagination started from; returns (N,), imagined there."""
        rows = self.config.behaviour.imagine_last or reward.shape[1]
        features = self.model.latent.features(post)
        if not self.config.loss.replay_value_gradient:
            features = features.detach()
        parts = (x[:, -rows:] for x in (features, reward, is_last, is_terminal))
        return replay_value_objective(
            self.critic, self.slow_critic, self.config.behaviour, *parts, returns.unflatten(0, (-1, rows))
        )

    def step(self, *names: str) -> dict[str, Tensor]:
        """Apply the gradients of these learners and forget them. Returns their norms before clipping, each ()."""
        if "laprop" in self.optimisers:
            return {"grad_norm": self.optimisers["laprop"].step(self.updates)}
        return {f"{name}_grad_norm": self.optimisers["adam"].step(name) for name in names}

    @torch.no_grad()
    def update_slow_critic(self) -> None:
        """It moves towards the critic; in the 2023 agent it becomes its copy with the first update."""
        rate = 1.0 if "adam" in self.optimisers and not self.updates else self.config.behaviour.slow_rate
        for slow, fast in zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True):
            slow.copy_(ema(slow, fast, rate))

    def learning_noise(self, size: int, length: int) -> dict[str, Tensor]:
        """Of the filter: noise (B, T, S). Of imagination: imagined_noise (H, N, S), action_noise as the actor's."""
        behaviour, latents = self.config.behaviour, self.config.model.stoch_size
        count = size * (behaviour.imagine_last or length)
        return {
            "noise": self.uniform(size, length, latents),
            "imagined_noise": self.uniform(behaviour.horizon, count, latents),
            "action_noise": self.action_noise(behaviour.horizon, count),
        }

    def action_noise(self, *batch: int) -> Tensor:
        """What Actor.sample takes: uniform (*batch) for discrete actions, standard normal (*batch, A) for others."""
        if self.act_spec.discrete:
            return self.uniform(*batch)
        return torch.randn(*batch, self.act_spec.size, generator=self.generator, device=self.device)

    # ------------------------------------------------------------------------------------- pictures and persistence

    @torch.no_grad()
    def predict(self, batch: Arrays, *, context: int) -> Arrays:
        """Filter `context` rows, then imagine with the actions alone: truth and prediction, (B, T, H, W, C) uint8.

        Raises:
          UserError: the agent sees no images.
        """
        if not image_keys(self.obs_spec):
            raise UserError(
                "predict: this agent sees vectors, of which there are no pictures; take a variant with images"
            )
        latent, rows = self.model.latent, {name: self.tensor(batch[name]) for name in ("action", "is_first")}
        action = previous_actions(rows["action"], rows["is_first"])
        size, length = action.shape[:2]
        noise = self.uniform(size, length, self.config.model.stoch_size)
        tokens = self.model.encoder(self.preprocessed({key: batch[key][:, :context] for key in self.obs_spec}))
        seen = (tokens, action[:, :context], rows["is_first"][:, :context], noise[:, :context])
        post, _ = latent.observe(*seen, latent.initial(size))
        last = {name: value[:, -1] for name, value in post.items()}
        dreamt = imagine(latent, last, action[:, context:], noise[:, context:])
        found = self.model.decoder({name: torch.cat([post[name], dreamt[name]], 1) for name in ("deter", "stoch")})
        key = image_keys(self.obs_spec)[0]
        pixels = (found[key] * WHITE).round().clamp(0, WHITE).to(torch.uint8)
        return {"truth": np.array(batch[key]), "prediction": pixels.cpu().numpy()}

    def parameters(self) -> Arrays:
        """Name -> float32 array in torch's layouts: what the safetensors file of a run holds."""
        return {name: to_numpy(value) for name, value in self.parts.state_dict().items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimiser, statistics and noise stay as they are."""
        self.parts.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})

    def save(self) -> Mapping[str, Any]:
        return {
            "parameters": self.parameters(),
            "optimiser": {name: optimiser.save() for name, optimiser in self.optimisers.items()},
            "normaliser": {name: to_numpy(value) for name, value in self.normaliser.items()},
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
        for name, optimiser in self.optimisers.items():
            optimiser.load(state["optimiser"][name])
        self.normaliser = {name: self.tensor(np.array(value)) for name, value in state["normaliser"].items()}
        self.generator.set_state(torch.from_numpy(np.array(state["generator"])))
        self.updates = int(state["updates"])

    # ------------------------------------------------------------------------------------------------------ helpers

    def tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value, device=self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def preprocessed(self, obs: Arrays) -> dict[str, Tensor]:
        """Observations by key: images in [0, 1], vectors as they are; all float32."""
        images = image_keys(self.obs_spec)
        return {key: self.tensor(obs[key]).float() / (WHITE if key in images else 1) for key in self.obs_spec}

    def arithmetic(self) -> contextlib.AbstractContextManager:
        """bfloat16 for matrix products on a GPU, where the config says so; nothing else changes.

        Never one inside another, nor around steps without gradients and steps with them: autocast keeps the bfloat16
        copies of parameters until the outermost context ends, and one made without gradients passes none on.
        """
        mixed = self.config.precision == "mixed" and self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if mixed else contextlib.nullcontext()


# ------------------------------------------------------------------------------------------------------- optimisers


def gradients_of(named: Mapping[str, nn.Parameter]) -> list[Tensor]:
    """The gradient of every parameter, in order. Zeros are one; that none came is a bug, not a gradient of zero.

    Raises:
      RuntimeError: no loss has reached some parameter.
    """
    missing = [name for name, x in named.items() if x.grad is None]
    if missing:
        raise RuntimeError(f"gradients_of: no gradient has reached {', '.join(missing)}; they would never learn")
    return [x.grad for x in named.values()]


class LaPropOptimiser:
    """LaProp with adaptive clipping over all parameters: shared/formulas/optimisers.py on one long vector.

    The norms of clipping are those of every tensor by itself.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: LaProp):
        self.named, self.settings = dict(parameters), settings
        flat = self._flat(list(self.named.values())).detach()
        self.m, self.v = torch.zeros_like(flat), torch.zeros_like(flat)

    @torch.no_grad()
    def step(self, updates: int) -> Tensor:
        """Update number updates + 1. Returns the norm of the whole gradient before clipping, ()."""
        settings, parameters = self.settings, list(self.named.values())
        gradients = gradients_of(self.named)
        norms = torch.stack(torch._foreach_norm(gradients))
        allowed = settings.adaptive_clip * torch.stack(torch._foreach_norm(parameters)).clamp(min=settings.least_norm)
        gradients = torch._foreach_div(gradients, list((norms / allowed).clamp(min=1).unbind()))
        update = self.moved(self._flat(gradients), updates)
        parts = update.split([x.numel() for x in parameters])
        torch._foreach_add_(parameters, [part.view_as(x) for part, x in zip(parts, parameters, strict=True)])
        for parameter in parameters:
            parameter.grad = None
        return norms.norm()

    def moved(self, gradient: Tensor, updates: int) -> Tensor:
        """What LaProp adds to the parameters; the moments advance. The formula `laprop`, in place."""
        settings, step = self.settings, updates + 1
        self.v.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        scale = self.v.div(1 - settings.beta2**step).sqrt_().add_(settings.epsilon)
        scaled = gradient.div_(scale).masked_fill_(self.v == 0, 0)
        self.m.mul_(settings.beta1).add_(scaled, alpha=1 - settings.beta1)
        rate = settings.learning_rate * warmup(updates, settings.warmup_updates)
        return self.m * (-rate / (1 - settings.beta1**step))

    def save(self) -> dict[str, dict[str, np.ndarray]]:
        """Name -> both moments."""
        sizes = [x.numel() for x in self.named.values()]
        parts = zip(self.named.items(), self.m.split(sizes), self.v.split(sizes), strict=True)
        return {name: {"m": to_numpy(m.view_as(x)), "v": to_numpy(v.view_as(x))} for (name, x), m, v in parts}

    def load(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        for name, moment in (("m", self.m), ("v", self.v)):
            moment.copy_(self._flat([torch.from_numpy(np.array(state[key][name])) for key in self.named]))

    @staticmethod
    def _flat(tensors: list[Tensor]) -> Tensor:
        return torch.cat([x.reshape(-1) for x in tensors])


class AdamOptimiser:
    """The 2023 agent's: Adam for each learner, its gradient clipped by its own norm."""

    def __init__(self, parts: nn.ModuleDict, settings: Adams):
        self.settings, betas = settings, (settings.beta1, settings.beta2)
        self.named = {name: dict(parts[name].named_parameters()) for name in LEARNERS}
        own = {name: getattr(settings, name) for name in LEARNERS}
        self.adams = {
            name: torch.optim.Adam(self.named[name].values(), own[name].learning_rate, betas, own[name].epsilon)
            for name in LEARNERS
        }

    def step(self, name: str) -> Tensor:
        """One learner's update. Returns the norm of its gradient before clipping, ()."""
        gradients = gradients_of(self.named[name])
        norm, limit = torch.nn.utils.get_total_norm(gradients), getattr(self.settings, name).clip_norm
        torch._foreach_mul_(gradients, limit / norm.clamp(min=limit))
        self.adams[name].step()
        self.adams[name].zero_grad(set_to_none=True)
        return norm

    def save(self) -> dict[str, dict[str, np.ndarray]]:
        """Name -> moments and their number."""
        return {
            f"{learner}.{name}": {key: to_numpy(value) for key, value in adam.state[x].items()}
            for learner, adam in self.adams.items()
            for name, x in self.named[learner].items()
            if x in adam.state
        }

    def load(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        for learner, adam in self.adams.items():
            adam.state.clear()
            for name, parameter in self.named[learner].items():
                if f"{learner}.{name}" in state:
                    found = state[f"{learner}.{name}"].items()
                    moments = {key: torch.from_numpy(np.array(value)) for key, value in found}
                    adam.state[parameter] = {
                        key: torch.empty_like(parameter).copy_(value) if value.ndim else value
                        for key, value in moments.items()
                    }


def make_optimisers(parts: nn.ModuleDict, settings) -> dict[str, Any]:
    """The one that the settings ask for, by its name."""
    if settings.order == "sequential":
        return {"adam": AdamOptimiser(parts, settings.adam)}
    named = {f"{part}.{name}": x for part in LEARNERS for name, x in parts[part].named_parameters()}
    return {"laprop": LaPropOptimiser(named, settings.laprop)}


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, these networks are constants: a gradient passes through them and none is left in them."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


# ------------------------------------------------------------------------------------------------------- objectives


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
