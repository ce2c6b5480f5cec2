"""A walk through one update of PlaNet in torch, for shared/diff: the agent's own functions, one after the other."""

import numpy as np
import torch

from replications.planet import agent_torch
from replications.planet.model_torch import initial_state
from shared.diff.walk import ACTIONS, Arrays
from shared.diff.walk_torch import arrays, captured, gradients, tensors
from shared.envs.spec import ActSpec


class Walk:
    """See shared/diff/walk.py."""

    def __init__(self, config, task: str, parameters: Arrays | None):
        torch.set_num_threads(1)
        self.agent = agent_torch.PlanetAgent(config, {}, ActSpec(ACTIONS), seed=np.random.SeedSequence(5))
        self.agent.model.double()
        self.agent.optimiser = agent_torch.make_optimiser(self.agent.model, config.optimiser)
        if parameters is not None:
            self.agent.load_parameters(parameters)

    def parameters(self) -> Arrays:
        return arrays(dict(self.agent.model.named_parameters()))

    def entries(self, rows: Arrays) -> Arrays:
        blank = np.zeros((*rows["reward"].shape, 64, 64, 3), np.uint8)
        found = captured(self.agent, "gradients", rows, blank)
        return {name: found[name] for name in ("action", "reward")}

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
        return arrays({f"heads / {name}": head(features) for name, head in
                       (("image", model.decoder), ("reward", model.reward))})  # fmt: skip

    def update(self, image: np.ndarray, entries: Arrays, noise: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        losses = self.agent.gradients(**tensors({**entries, "image": image, **noise}))
        slopes = gradients(self.agent.model.named_parameters())
        return arrays(losses), slopes, arrays({"grad_norm": self.agent.update()})
