"""A walk through one update of DreamerV3 in torch, for shared/diff: the agent's own functions, one after the other."""

from collections.abc import Mapping

import numpy as np
import torch

from replications.dreamerv3 import agent_torch, objectives_torch
from replications.dreamerv3.walk import moved_from_first, specs, unflat
from shared.diff.walk import ACTIONS, Arrays, flat, imagined
from shared.diff.walk_torch import arrays, captured, gradients, tensors

NOISES = ("noise", "imagined_noise", "action_noise")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float64)  # optimisers and statistics are made in it
        self.agent = agent_torch.DreamerV3Agent(config, *specs(config, task, ACTIONS), seed=np.random.SeedSequence(5))
        self.agent.load_parameters(moved_from_first(self.parameters()) if parameters is None else parameters)

    def parameters(self) -> Arrays:
        return arrays(dict(self.agent.parts.named_parameters()))

    def entries(self, rows: Arrays) -> Arrays:
        found = captured(self.agent, "update", rows, rows.get("image", np.zeros(0)))
        return {name: value for name, value in found.items() if name not in NOISES}

    @torch.no_grad()
    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        model, given = self.agent.model, inputs(entries)
        embed = model.encoder(given["obs"])
        draws = tensors({"noise": noise["noise"]})["noise"]
        post, prior = model.latent.observe(embed, given["action"], given["is_first"], draws, given["state"])
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    @torch.no_grad()
    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        agent, model, post = self.agent, self.agent.model, tensors(self.states(image, entries, noise)[2])
        behaviour, features = agent.config.behaviour, self.agent.model.latent.features(post)
        heads = {"decoder": model.decoder(post), "reward": model.reward(features)}
        heads["continuation"] = model.continuation(features)
        found = arrays({f"heads / {name}": value for name, value in flat(heads).items()})
        rows = {**post, "is_terminal": inputs(entries)["is_terminal"]}
        starts = objectives_torch.imagination_starts(behaviour, rows)
        ends = starts.pop("is_terminal")
        draws = tensors({"action_noise": noise["action_noise"], "latent_noise": noise["imagined_noise"]})
        features, actions = objectives_torch.imagine_behaviour(model, agent.actor, starts, **draws)
        found |= imagined(*arrays({"features": features, "actions": actions}).values())
        reward, discount = objectives_torch.imagined_rewards(model, behaviour, features, ends)
        values = {"reward": reward, "discount": discount, "critic": agent.critic(features)}
        return found | arrays({f"imagination / {name}": value for name, value in values.items()})

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        slopes: Arrays = {}
        own = self.agent.step

        def step(*names: str) -> dict[str, torch.Tensor]:
            for name in names:
                found = gradients(self.agent.parts[name].named_parameters())
                slopes.update({f"{name}.{key}": value for key, value in found.items()})
            return own(*names)

        self.agent.step = step
        try:
            metrics = arrays(self.agent.update(**inputs(entries), **tensors(noise))[0])
        finally:
            del self.agent.step
        norms = {name: value for name, value in metrics.items() if name.endswith("_norm")}
        return {name: value for name, value in metrics.items() if name not in norms}, slopes, norms


def inputs(entries: Mapping[str, np.ndarray]) -> dict:
    """Entries as the update takes them: float64, flags as they are."""
    made = {
        name: torch.from_numpy(np.array(value)) if value.dtype == bool else tensors({name: value})[name]
        for name, value in entries.items()
    }
    return unflat(made)
