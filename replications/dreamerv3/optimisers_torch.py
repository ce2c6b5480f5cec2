"""DreamerV3's optimisers in torch: LaProp with adaptive clipping for everything, or (2023) an Adam for each learner.

The counterpart of optimisers_jax.py, which has functions. A learner is a network: model, actor or critic.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from replications.dreamerv3.config import LEARNERS, Adams, LaProp
from shared.device_torch import to_numpy
from shared.formulas.schedules import warmup


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
