"""DreamerV3's agent in torch: the world model, and in it, by imagination, an actor and a critic, learned in one step.

Paper: Methods. Read objectives_torch.py first, which is what is learned; the class here ties it to the loop, to the
optimiser (optimisers_torch.py) and to one source of noise.
"""

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.dreamerv3.config import FLAGS, LEARNERS, Config
from replications.dreamerv3.latent_torch import State, imagine
from replications.dreamerv3.layers_torch import exact
from replications.dreamerv3.model_torch import Actor, Critic, WorldModel, image_keys
from replications.dreamerv3.objectives_torch import (
    behaviour_objectives,
    continuation_target,
    imagination_starts,
    imagine_behaviour,
    imagined_rewards,
    model_objective,
    replay_value_objective,
)
from replications.dreamerv3.optimisers_torch import make_optimisers
from shared.device_torch import prepare as prepare
from shared.device_torch import set_exact_arithmetic, to_numpy
from shared.envs.spec import ArraySpec, ObsSpec
from shared.errors import UserError
from shared.formulas.normalization import ema
from shared.formulas.sequences import previous_actions, reset_where_first
from shared.layers_torch import frozen
from shared.training.agent import Acted, Arrays, Carry, Learned

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
