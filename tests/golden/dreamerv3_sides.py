"""DreamerV3 in torch behind one face, so that the golden tests are written once. float64.

A second framework gets a class of the same methods here, and its name in SIDES.
"""

import contextlib

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec

OBS_SPEC = {"position": ArraySpec((2,), "float32")}


class TorchSide:
    name = "torch"

    def __init__(self):
        import torch

        from replications.dreamerv3 import agent_torch, model_torch

        self.torch, self.agent, self.model = torch, agent_torch, model_torch

    def precision(self):
        return contextlib.nullcontext()

    def compiled(self, function):
        return function

    def double(self, x):
        x = np.asarray(x)
        return self.torch.from_numpy(x.astype(np.float64) if x.dtype.kind == "f" else x)

    def numpy(self, x):
        return x.detach().numpy() if isinstance(x, self.torch.Tensor) else np.asarray(x)

    def load(self, module, parameters):
        """A module with these parameters; those that are not named stay as they are."""
        arrays = {name: self.double(value) for name, value in parameters.items()}
        unknown = module.load_state_dict(arrays, strict=False).unexpected_keys
        assert not unknown, f"no parameters {unknown} in {type(module).__name__}"
        return module.double()

    def made(self, name, *arguments):
        """WorldModel, Actor or Critic, with random first values."""
        return getattr(self.model, name)(*arguments, self.torch.Generator().manual_seed(0))

    def gelu(self, x):
        """With tanh, as JAX has it."""
        return self.torch.nn.functional.gelu(x, approximate="tanh")

    def exp(self, x):
        return x.exp()

    def sine(self, x):
        return x.sin()

    def replaced(self, module, name, value):
        """A module with an array in the place of a parameter."""
        delattr(module, name)
        setattr(module, name, value)
        return module

    def with_biases(self, module):
        """Every dense layer has a bias, though a norm follows it."""
        for part in module.modules():
            if isinstance(part, self.torch.nn.Linear) and part.bias is None:
                part.bias = self.torch.nn.Parameter(self.torch.zeros(part.out_features))
        return module

    def answering(self, module, **tables):
        """A head without hidden layers whose output layers (`out`, `std`) give these tables, however they are asked.

        The tables' first two axes are those of the features.
        """
        module.hidden = self.torch.nn.Identity()
        for name, table in tables.items():
            answer = self.torch.nn.Identity()
            answer.forward = lambda x, table=table: table[: x.shape[0], : x.shape[1]]
            setattr(module, name, answer)
        return module.double()

    def with_bins(self, head, bins):
        """A head whose two-hot codes have these bins."""
        head.scalar.bins, head.scalar.outputs = self.double(bins), len(bins)
        return head

    def slopes(self, function, arrays):
        """function(arrays) -> (scalar, anything): both, and the gradients to arrays, zeros where there is none."""
        leaves = {name: self.double(x).requires_grad_() for name, x in arrays.items()}
        value, rest = function(leaves)
        gradients = self.torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        return value, rest, {name: x.numpy() for name, x in zip(leaves, gradients, strict=True)}

    def make_agent(self, config):
        return self.agent.DreamerV3Agent(config, OBS_SPEC, ActSpec(2), seed=np.random.SeedSequence(0))

    def steps(self, settings, start, gradients):
        """Yields the parameters after each step of LaProp; start and every step's gradients: arrays by name."""
        parameters = {name: self.torch.nn.Parameter(self.double(x)) for name, x in start.items()}
        optimiser = self.agent.LaPropOptimiser(parameters, settings)
        for updates, step in enumerate(gradients):
            for name, gradient in step.items():
                parameters[name].grad = self.double(gradient)
            optimiser.step(updates)
            yield {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def slow_critics(self, config, slow, sources):
        """Yields the slow critic after each update; sources: the critic before it, one array each."""
        agent = self.make_agent(config)
        agent.slow_critic = self.torch.nn.ParameterList([self.double(slow)])
        for source in sources:
            agent.critic = self.torch.nn.ParameterList([self.double(source)])
            agent.update_slow_critic()
            agent.updates += 1
            yield agent.slow_critic[0].detach().clone()


SIDES = {"torch": TorchSide}
