"""A walk through one update of Dreamer in torch, for shared/diff: the agent's own functions, one after the other."""

import numpy as np
import torch

from replications.dreamer import agent_torch
from replications.dreamer.model_torch import initial_state
from replications.dreamer.walk import spec
from shared.diff.walk import ACTIONS, Arrays, imagined
from shared.diff.walk_torch import arrays, captured, gradients, tensors

HEADS = ("decoder", "reward", "continuation")


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        torch.set_num_threads(1)
        self.agent = agent_torch.DreamerAgent(config, {}, spec(task, ACTIONS), seed=np.random.SeedSequence(5))
        self.agent.parts.double()
        self.agent.optimiser = agent_torch.make_optimiser(self.agent.parts, config.loss, config.optimisers)
        if parameters is not None:
            self.agent.load_parameters(parameters)

    def parameters(self) -> Arrays:
        return arrays(dict(self.agent.parts.named_parameters()))

    def entries(self, rows: Arrays) -> Arrays:
        found = captured(self.agent, "gradients", rows, np.zeros((*rows["reward"].shape, 64, 64, 3), np.uint8))
        return {name: found[name] for name in ("action", "reward", "terminal")}

    @torch.no_grad()
    def states(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        model, given = self.agent.model, tensors({**entries, "image": image, "noise": noise["noise"]})
        embed = model.encoder(given["image"])
        start = initial_state(model.latent, len(image))
        post, prior = model.latent.observe(embed, given["action"], given["noise"], start)
        return arrays({"embedding": embed}), arrays(prior), arrays(post)

    @torch.no_grad()
    def heads(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> Arrays:
        model, post = self.agent.model, tensors(self.states(image, entries, noise)[2])
        features = model.latent.features(post)
        heads = {name: getattr(model, name) for name in HEADS if getattr(model, name) is not None}
        found = arrays({f"heads / {name}": head(features) for name, head in heads.items()})
        if self.agent.actor is None:
            return found
        draws = tensors({name: noise[name] for name in ("action_noise", "latent_noise")})
        start = agent_torch.imagination_starts(model, post)
        features, actions = agent_torch.imagine_behaviour(model, self.agent.actor, start, **draws)
        found |= imagined(*arrays({"features": features, "actions": actions}).values())
        if self.agent.value is not None:
            found |= arrays({"imagination / value": self.agent.value(features)})
        return found | arrays({"imagination / reward": model.reward(features)})

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        losses = self.agent.gradients(**tensors({**entries, "image": image, **noise}))
        slopes = gradients(self.agent.parts.named_parameters())
        return arrays(losses), slopes, arrays(self.agent.update())
