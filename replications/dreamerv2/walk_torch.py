"""A walk through one update of DreamerV2 in torch, for shared/diff: the agent's own functions, one after the other."""

import numpy as np
import torch

from replications.dreamerv2 import agent_torch
from replications.dreamerv2.model_torch import initial_state
from replications.dreamerv2.walk import specs
from shared.diff.walk import ACTIONS, Arrays, imagined
from shared.diff.walk_torch import arrays, captured, gradients, tensors

HEADS = ("decoder", "reward", "discount")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        torch.set_num_threads(1)
        obs_spec, act_spec = specs(config, task, ACTIONS)
        self.image_shape = obs_spec["image"].shape
        self.agent = agent_torch.DreamerV2Agent(config, obs_spec, act_spec, seed=np.random.SeedSequence(5))
        self.agent.parts.double()
        self.agent.optimisers = agent_torch.make_optimisers(self.agent.parts, config.optimisers)
        if parameters is not None:
            self.agent.load_parameters(parameters)

    def parameters(self) -> Arrays:
        return arrays(dict(self.agent.parts.named_parameters()))

    def entries(self, rows: Arrays) -> Arrays:
        blank = np.zeros((*rows["reward"].shape, *self.image_shape), np.uint8)
        found = captured(self.agent, "update", rows, blank)
        return {name: found[name] for name in ("action", "reward", "discount")}

    @torch.no_grad()
    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        model, given = self.agent.model, tensors({**entries, "image": image, "noise": noise["noise"]})
        embed = model.encoder(given["image"])
        start = initial_state(model.latent, len(image))
        post, prior = model.latent.observe(embed, given["action"], given["noise"], start)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    @torch.no_grad()
    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        model, agent, post = self.agent.model, self.agent, tensors(self.states(image, entries, noise)[2])
        features = model.latent.features(post)
        heads = {name: getattr(model, name) for name in HEADS if getattr(model, name) is not None}
        found = arrays({f"heads / {name}": head(features) for name, head in heads.items()})
        draws = tensors({"action_noise": noise["action_noise"], "latent_noise": noise["imagined_noise"]})
        starts = agent_torch.imagination_starts(
            model, agent.config.behaviour, {**post, "discount": tensors(entries)["discount"]}
        )
        start_discount = starts.pop("discount")
        features, actions = agent_torch.imagine_behaviour(model, agent.actor, starts, **draws)
        found |= imagined(*arrays({"features": features, "actions": actions}).values())
        reward, discount = agent_torch.imagined_rewards(model, agent.config.behaviour, features, start_discount)
        values = {"reward": reward, "discount": discount, "critic": agent.critic(features)}
        values["target critic"] = agent.target_critic(features)
        return found | arrays({f"imagination / {name}": value for name, value in values.items()})

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        slopes: Arrays = {}
        own = self.agent.step

        def step(name: str) -> dict[str, torch.Tensor]:
            slopes.update({f"{name}.{key}": value for key, value in
                           gradients(self.agent.parts[name].named_parameters()).items()})  # fmt: skip
            return own(name)

        self.agent.step = step
        try:
            metrics = arrays(self.agent.update(**tensors({**entries, "image": image, **noise})))
        finally:
            del self.agent.step
        norms = {name: value for name, value in metrics.items() if name.endswith("_norm")}
        return {name: value for name, value in metrics.items() if name not in norms}, slopes, norms
