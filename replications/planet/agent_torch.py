"""PlaNet's agent in torch: fit the world model (learn), plan in it by CEM (act).

Paper: Sections 2 and 3, Algorithms 1 and 2. Read model_torch.py first; formulas are in shared/formulas.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from replications.planet.config import Config, Optimiser
from replications.planet.model_torch import State, WorldModel, imagine, initial_state
from shared.device_torch import prepare as prepare
from shared.device_torch import set_exact_arithmetic, to_numpy, uniform
from shared.errors import UserError
from shared.formulas.divergences import floor_nats, gaussian_kl
from shared.formulas.elbo import (
    gaussian_log_prob,
    overshooting_kl,
    overshooting_mask,
    overshooting_starts,
    overshooting_windows,
)
from shared.formulas.images import dequantise_uint8, quantise
from shared.formulas.planning import refit
from shared.formulas.schedules import linear_ramp
from shared.formulas.sequences import previous_actions
from shared.training.agent import Acted, Arrays, Carry, Learned

TINY = 1e-8  # keeps a gradient of zero from dividing by zero


def unit_gaussian(target: Tensor, mean: Tensor) -> Tensor:
    """-log N(target; mean, 1), elementwise."""
    return -gaussian_log_prob(target, mean, 1.0)


def squared_error(target: Tensor, mean: Tensor) -> Tensor:
    """(target - mean)^2, elementwise: twice the gradient of unit_gaussian."""
    return (target - mean).square()


COSTS = {"unit_gaussian": unit_gaussian, "squared_error": squared_error}


class PlanetAgent:
    """World model, optimiser, planner and their one source of noise. See shared/training/agent.py for the methods."""

    def __init__(self, config: Config, obs_spec, act_spec, *, seed: np.random.SeedSequence, device: str = "cpu"):
        set_exact_arithmetic()
        self.config, self.act_spec = config, act_spec
        self.device = torch.device(device)
        init_seed, noise_seed = (int(s.generate_state(1, np.uint64)[0] >> 1) for s in seed.spawn(2))
        init = torch.Generator().manual_seed(init_seed)  # on the CPU: the same weights on every device
        self.model = WorldModel(config.model, act_spec.size, init).to(self.device)
        self.generator = torch.Generator(self.device).manual_seed(noise_seed)
        self.optimiser = make_optimiser(self.model, config.optimiser)
        self.updates = 0

    # ------------------------------------------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        state = initial_state(self.model.latent, num_envs)
        return {**state, "action": torch.zeros(num_envs, self.act_spec.size, device=self.device)}

    @torch.no_grad()
    def act(self, obs: Arrays, carry: Carry, *, explore: bool) -> Acted:
        """Filter one step, plan from the sampled posterior, take the plan's first action; noise only when exploring.

        Rows that end an episode get a zero action without planning: nothing will execute it.
        """
        num_envs = len(obs["is_first"])
        if obs["is_last"].all():
            return Acted(np.zeros((num_envs, self.act_spec.size), np.float32), carry, {})
        first = self.tensor(obs["is_first"])[:, None]
        previous = {name: torch.where(first, 0.0, self.tensor(value)) for name, value in carry.items()}
        state = self.filter(self.dequantised(self.tensor(obs["image"])), previous.pop("action"), previous)
        action = torch.zeros(num_envs, self.act_spec.size, device=self.device)
        if not explore or self.config.exploration.collect == "planner":
            action = self.plan(state, **self.planner_noise(num_envs))[0][:, 0]
        if explore:
            action = action + self.config.exploration.action_noise * self.normal(*action.shape)
        action = action.clamp(-1, 1)
        return Acted(action.cpu().numpy(), {**state, "action": action}, {})

    def filter(self, image: Tensor, action: Tensor, previous: State) -> State:
        """The posterior after one more image (N, H, W, C), reached from `previous` by `action` (N, A)."""
        noise = self.normal(len(image), self.config.model.stoch_size)
        post, _ = self.model.latent.posterior(previous, action, self.model.encoder(image), noise)
        return post

    def planner_noise(self, num_envs: int) -> dict[str, Tensor]:
        """Standard normal, for every iteration: action_noise (I, N, J, H, A) and latent_noise (I, N * J, H, S)."""
        plan = self.config.planner
        return {
            "action_noise": self.normal(plan.iterations, num_envs, plan.candidates, plan.horizon, self.act_spec.size),
            "latent_noise": self.normal(
                plan.iterations, num_envs * plan.candidates, plan.horizon, self.config.model.stoch_size
            ),
        }

    def plan(self, state: State, action_noise: Tensor, latent_noise: Tensor) -> tuple[Tensor, Tensor]:
        """The planned actions and their spread, each (N, H, A), from a state, each part (N, .), and planner_noise."""
        candidates = action_noise.shape[2]
        start = {name: value.repeat_interleave(candidates, 0) for name, value in state.items()}
        search = {"cem": self.plan_by_refitting, "gradient": self.plan_by_gradient}[self.config.planner.method]
        return search(start, action_noise, latent_noise)

    def plan_by_refitting(self, start: State, action_noise: Tensor, latent_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Algorithm 2: the cross-entropy method over action sequences.

        One rollout per candidate and iteration, all candidates of all environments in one batch. Statistics are those
        of the clipped actions; the belief starts at N(0, 1) at every decision.
        Args: the state before every candidate, each part (N * J, .); noise as from planner_noise.
        Returns: mean and std (N, H, A) after the last iteration. The plan is the mean.
        """
        plan = self.config.planner
        num_envs, candidates = action_noise.shape[1:3]
        mean = action_noise.new_zeros(num_envs, plan.horizon, action_noise.shape[-1])
        std = torch.ones_like(mean)
        for iteration in range(plan.iterations):
            actions = (mean[:, None] + std[:, None] * action_noise[iteration]).clamp(-1, 1)
            returns = self.imagined_return(start, actions.flatten(0, 1), latent_noise[iteration])
            mean, std = refit(actions, returns.view(num_envs, candidates), plan.elites, std=plan.std)
        return mean, std

    def plan_by_gradient(self, start: State, action_noise: Tensor, latent_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient ascent on the imagined return, J random starts: an extra of ours, not in the paper.

        I - 1 steps, each of root mean square step_size per candidate and clipped to the box, with fresh latent noise
        for each; the last imagination only chooses the best candidate. Arguments and result as plan_by_refitting.
        """
        plan = self.config.planner
        actions = action_noise[0].flatten(0, 1).clamp(-1, 1)  # (N * J, H, A)
        for iteration in range(plan.iterations - 1):
            with torch.enable_grad():
                free = actions.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.imagined_return(start, free, latent_noise[iteration]).sum(), free)
            size = slope.square().mean((1, 2), keepdim=True).sqrt()
            actions = (actions + plan.step_size * slope / (size + TINY)).clamp(-1, 1)
        returns = self.imagined_return(start, actions, latent_noise[-1])
        actions = actions.view(action_noise.shape[1:])
        best = returns.view(actions.shape[:2]).argmax(1)
        mean = actions[torch.arange(len(best), device=best.device), best]
        return mean, torch.zeros_like(mean)

    def imagined_return(self, state: State, action: Tensor, noise: Tensor) -> Tensor:
        """Discounted sum of the predicted mean rewards of the states after each action, (M,).

        state: each part (M, .), action: (M, H, A), noise: (M, H, S). The published discount is 1.
        """
        latent, discount, total = self.model.latent, self.config.planner.discount, 0.0
        for step in range(action.shape[1]):
            state = latent.prior(state, action[:, step], noise[:, step])
            total = total + discount**step * self.model.reward(latent.features(state))
        return total

    # ---------------------------------------------------------------------------------------------------- learning

    def learn(self, batch: Arrays) -> Learned:
        """One Adam step on the whole objective, the gradient's global norm clipped first."""
        data = entries({name: self.tensor(value) for name, value in batch.items()}, self.config.loss.alignment)
        size, length = data["reward"].shape
        data["image"] = self.dequantised(data["image"])
        metrics = self.gradients(**data, **self.model_noise(size, length))
        return Learned({**metrics, "grad_norm": self.update()}, {})

    def gradients(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The named terms of the objective; its gradient is left in the parameters."""
        self.optimiser.zero_grad(set_to_none=True)
        total, metrics = objective(self.model, self.config.loss, **inputs)
        total.backward()
        return metrics

    def update(self) -> Tensor:
        """Clip and apply the gradient. Returns its global norm before clipping, ()."""
        settings = self.config.optimiser
        grads = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        # Not clip_grad_norm_, which divides by norm + 1e-6: that shows in the parity tests.
        torch._foreach_mul_(grads, settings.clip_norm / norm.clamp(min=settings.clip_norm))
        self.updates += 1
        # torch adds epsilon after the bias correction of v, TensorFlow before it: this makes them equal.
        self.optimiser.param_groups[0]["eps"] = settings.epsilon / math.sqrt(1 - settings.beta2**self.updates)
        ramp = linear_ramp(self.updates - 1, settings.ramp_updates, 0.0)
        self.optimiser.param_groups[0]["lr"] = settings.learning_rate * ramp
        self.optimiser.step()
        return norm

    def model_noise(self, size: int, length: int) -> dict[str, Tensor]:
        """Standard normal: noise (B, T, S), and overshooting_noise (B, T, D + 1, S) where overshooting is on."""
        stoch, loss = self.config.model.stoch_size, self.config.loss
        noise = {"noise": self.normal(size, length, stoch)}
        if loss.overshoots:
            noise["overshooting_noise"] = self.normal(size, length, loss.overshooting_distance + 1, stoch)
        return noise

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
        embed = self.model.encoder(self.dequantised(self.tensor(batch["image"][:, :context])))
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
        return {name: to_numpy(value) for name, value in self.model.state_dict().items()}

    def load_parameters(self, parameters: Arrays) -> None:
        """Take over trained weights; optimiser and noise stay as they are."""
        self.model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})

    def save(self) -> Mapping[str, Any]:
        moments = {
            name: {key: to_numpy(value) for key, value in self.optimiser.state[parameter].items()}
            for name, parameter in self.model.named_parameters()
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
        for name, parameter in self.model.named_parameters():
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

    def dequantised(self, image: Tensor) -> Tensor:
        """uint8 (..., H, W, C) -> float32 in [-0.5, 0.5): fewer bits, then uniform noise within a level, drawn anew."""
        bits = self.config.model.image_bits
        return quantise(image.float(), bits, uniform(self.generator, image.shape))


def entries(rows: Mapping[str, Tensor], alignment: str) -> dict[str, Tensor]:
    """What the objective takes from replayed rows: image, the action that led to it, and the reward to predict.

    arriving: row t's own reward and the stored action before it, (B, T, ...) from (B, T, ...).
    leaving: the reward of the step that leaves row t, which row t + 1 holds, and no action before the chunk: (B, T - 1,
      ...). Source: code, the two older states; README.md, "Three states of the code".
    """
    image, reward = rows["image"], rows["reward"]
    if alignment == "arriving":
        before = previous_actions(rows["action"], rows["is_first"], rows["action_before"])
        return {"image": image, "action": before, "reward": reward}
    before = previous_actions(rows["action"], rows["is_first"])
    return {"image": image[:, :-1], "action": before[:, :-1], "reward": reward[:, 1:]}


def make_optimiser(model: torch.nn.Module, settings: Optimiser) -> torch.optim.Adam:
    """Adam over all parameters; PlanetAgent.update gives it TensorFlow's epsilon and clips the gradient."""
    betas = (settings.beta1, settings.beta2)
    return torch.optim.Adam(model.parameters(), settings.learning_rate, betas, settings.epsilon, fused=True)


def objective(
    model, loss, *, image, action, reward, noise, overshooting_noise=None
) -> tuple[Tensor, dict[str, Tensor]]:
    """What PlaNet minimises: Equation 3 with free nats, and the terms weighted (the paper: the reward by 10).

    Args:
      model, loss: the WorldModel and its Loss settings.
      image: (B, T, 64, 64, 3) in [-0.5, 0.5), network input and target alike. reward: (B, T), to predict from each row.
      action: (B, T, A), the action that LED to each row. noise: (B, T, S), standard normal.
      overshooting_noise: (B, T, D + 1, S), or None without overshooting.
    Returns: the total (), and the named terms, each a mean over (B, T) in nats (squared_error: squared units).
    Source: code, training/utility.py, compute_objectives.
    """
    post, prior = model.latent.observe(model.encoder(image), action, noise, initial_state(model.latent, len(action)))
    features = model.latent.features(post)
    kl = gaussian_kl(post["mean"], post["std"], prior["mean"], prior["std"]).sum(-1)  # (B, T)
    removed = 0.0 if loss.keep_free_nats else loss.free_nats
    cost = COSTS[loss.likelihood]
    terms = {
        "image": (loss.image_scale, cost(image, model.decoder(features)).sum((-3, -2, -1)).mean()),
        "reward": (loss.reward_scale, cost(reward, model.reward(features)).mean()),
        "divergence": (loss.divergence_scale, (floor_nats(kl, loss.free_nats) - removed).mean()),  # clipped per entry
    }
    if loss.global_prior_scale > 0:
        spread = gaussian_kl(post["mean"], post["std"], 0.0, 1.0).sum(-1)
        terms["global_prior"] = (loss.global_prior_scale, spread.mean())
    if loss.overshoots:
        kl_ahead, reward_ahead = overshooting(model, loss, post, action, reward, overshooting_noise)
        terms["overshooting"] = (loss.overshooting_scale, kl_ahead)
        terms["overshooting_reward"] = (loss.overshooting_reward_scale, reward_ahead)
    total = sum(scale * term for scale, term in terms.values() if scale > 0)
    metrics = {f"{name}_loss": term.detach() for name, (_, term) in terms.items()}
    return total, {"loss": total.detach(), "kl": kl.mean().detach(), **metrics}


def overshooting(
    model, loss, post: State, action: Tensor, reward: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Latent overshooting, Equation 7: the divergence and the reward loss of open-loop predictions, each () in nats.

    From the posterior before every row the prior is rolled over D + 1 actions; the posteriors reached are constants (no
    gradient), the starting states are not. Entries beyond the end of the sequence count 0. overshooting_mean all:
    predictions of 2 .. D steps, mean over all entries; valid: of 2 .. D + 1 steps, over those inside the sequence.
    Source: code, training/utility.py, tools/overshooting.py (last commit; first release).
    """
    size, length, steps = noise.shape[:3]
    distance = steps - 1
    start = {name: overshooting_starts(value).flatten(0, 1) for name, value in post.items()}
    actions = overshooting_windows(action, distance).flatten(0, 1)  # (B * T, D + 1, A)
    rolled = imagine(model.latent, start, actions, noise.flatten(0, 1))
    mean, std = (rolled[name].unflatten(0, (size, length)) for name in ("mean", "std"))  # (B, T, D + 1, S)
    mask = overshooting_mask(length, distance, torch.full((size,), length, device=action.device))
    kl = overshooting_kl(post["mean"].detach(), post["std"].detach(), mean, std, mask, loss.free_nats)
    if loss.keep_free_nats:
        kl = kl + loss.free_nats * mask
    ahead = slice(1, -1 if loss.overshooting_mean == "all" else None)
    entries = mask[:, :, ahead].numel() if loss.overshooting_mean == "all" else mask[:, :, ahead].sum()
    miss = torch.zeros_like(kl)
    if loss.overshooting_reward_scale > 0:
        predicted = model.reward(model.latent.features(rolled)).unflatten(0, (size, length))
        miss = COSTS[loss.likelihood](overshooting_windows(reward, distance), predicted)
        miss = torch.where(mask, miss, 0.0)
    return kl[:, :, ahead].sum() / entries, miss[:, :, ahead].sum() / entries
