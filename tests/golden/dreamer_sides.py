"""Dreamer in torch and in JAX behind one face, so that the golden tests are written once. float64 on both sides."""

import contextlib

import numpy as np

from shared.envs.spec import ActSpec


class TorchSide:
    name = "torch"

    def __init__(self):
        import torch

        from replications.dreamer import agent_torch, model_torch

        self.torch, self.agent, self.model = torch, agent_torch, model_torch

    def precision(self):
        return contextlib.nullcontext()

    def double(self, x):
        return self.torch.from_numpy(np.asarray(x, np.float64))

    def numpy(self, x):
        return x.detach().numpy() if isinstance(x, self.torch.Tensor) else np.asarray(x)

    def stack(self, arrays):
        return self.torch.stack(list(arrays), -1)

    def load(self, module, parameters):
        module.load_state_dict({name: self.double(value) for name, value in parameters.items()})
        return module.double()

    def made(self, name, *arguments):
        """WorldModel, Actor or Value, with random first values."""
        return getattr(self.model, name)(*arguments, self.torch.Generator().manual_seed(0))

    def slopes(self, function, **arrays):
        """function(**arrays) -> (scalar, anything): both, and {name: gradient, zeros where there is none}."""
        leaves = {name: self.double(x).requires_grad_() for name, x in arrays.items()}
        value, rest = function(**leaves)
        gradients = self.torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return value, rest, {name: self.numpy(x) for name, x in zip(leaves, gradients, strict=True)}

    def parameter_slopes(self, function, module):
        """function(module) -> scalar: {parameter: gradient}."""
        function(module).backward()
        return {name: p.grad.numpy() for name, p in module.named_parameters()}

    def make_agent(self, config, act_spec, parameters):
        agent = self.agent.DreamerAgent(config, {}, act_spec, seed=np.random.SeedSequence(0))
        agent.parts.double()
        agent.load_parameters(parameters)
        agent.optimiser = self.agent.make_optimiser(agent.parts, config.loss, config.optimisers)
        return agent

    def learn(self, agent, inputs):
        """One whole update: (metrics and norms, gradients before clipping, parameters after), each by name."""
        metrics = agent.gradients(**{name: self.double(x) for name, x in inputs.items()})
        gradients = {name: p.grad.numpy().copy() for name, p in agent.parts.named_parameters()}
        metrics |= agent.update()
        return {name: float(x) for name, x in metrics.items()}, gradients, agent.parameters()

    def updates(self, config, start, gradients):
        """Yields (norm before clipping, parameters) after each update of a list of arrays by lists of gradients."""
        agent = self.agent.DreamerAgent(config, {}, ActSpec(1), seed=np.random.SeedSequence(0))
        arrays = self.torch.nn.ParameterList([self.double(x) for x in start])
        agent.parts = self.torch.nn.ModuleDict({"model": arrays})
        agent.optimiser = self.agent.make_optimiser(agent.parts, config.loss, config.optimisers)
        for step in gradients:
            for parameter, gradient in zip(arrays, step, strict=True):
                parameter.grad = self.double(gradient)
            yield agent.update()["model_grad_norm"], [parameter.detach().clone() for parameter in arrays]


SIDES = {"torch": TorchSide}
