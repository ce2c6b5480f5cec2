"""Dreamer in torch and in JAX behind one face, so that the golden tests are written once. float64 on both sides."""

import contextlib
from types import SimpleNamespace

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


class JaxSide:
    name = "jax"

    def __init__(self):
        import jax

        from replications.dreamer import agent_jax, model_jax
        from shared import layers_jax

        self.jax, self.agent, self.model, self.layers = jax, agent_jax, model_jax, layers_jax

    @contextlib.contextmanager
    def precision(self):
        """float64; and XLA does without most optimisations, which take it longer than the tests."""
        before = self.jax.config.values["jax_disable_most_optimizations"]
        self.jax.config.update("jax_disable_most_optimizations", True)
        with self.jax.enable_x64(True):
            yield
        self.jax.config.update("jax_disable_most_optimizations", before)

    def double(self, x):
        return self.jax.numpy.asarray(x, self.jax.numpy.float64)

    def numpy(self, x):
        return np.asarray(x)

    def stack(self, arrays):
        return self.jax.numpy.stack(list(arrays), -1)

    def load(self, module, parameters):
        doubles = {name: np.asarray(x, np.float64) for name, x in parameters.items()}
        return self.layers.with_parameters(module, doubles)

    def made(self, name, *arguments):
        """WorldModel, Actor or Value, of zeros."""
        return getattr(self.model, name)(*arguments)

    def slopes(self, function, **arrays):
        """function(**arrays) -> (scalar, anything): both, and {name: gradient, zeros where there is none}."""
        arrays = {name: self.double(x) for name, x in arrays.items()}
        run = self.jax.value_and_grad(lambda arrays: function(**arrays), has_aux=True)
        (value, rest), gradients = run(arrays)
        return value, rest, {name: np.asarray(x) for name, x in gradients.items()}

    def parameter_slopes(self, function, module):
        """function(module) -> scalar: {parameter: gradient}."""
        gradients = self.jax.grad(function)(module)
        return {name: np.asarray(x) for name, x in self.layers.named_parameters(gradients).items()}

    def make_agent(self, config, act_spec, parameters):
        """The agent's networks, with the settings that its update takes."""
        networks = self.load(self.agent.Networks.make(config, act_spec), parameters)
        settings = self.agent.Settings(**{name: getattr(config, name) for name in self.agent.Settings._fields})
        parts = {name: getattr(networks, name) for name in ("model", "actor", "value")}
        return SimpleNamespace(networks=networks, settings=settings, **parts)

    def learn(self, agent, inputs):
        """One whole update: (metrics and norms, gradients before clipping, parameters after), each by name."""
        settings, inputs = agent.settings, {name: self.double(x) for name, x in inputs.items()}

        @self.jax.jit
        def step(networks):
            gradients, metrics = self.agent.gradients(settings, networks, **inputs)
            moments = self.agent.first_moments(settings, networks)
            networks, _, norms = self.agent.update(settings, networks, moments, gradients)
            return metrics | norms, gradients, networks

        metrics, *trees = step(agent.networks)
        named = [{name: np.asarray(x) for name, x in self.layers.named_parameters(tree).items()} for tree in trees]
        return {name: float(x) for name, x in metrics.items()}, *named

    def updates(self, config, start, gradients):
        """Yields (norm before clipping, parameters) after each update of a list of arrays by lists of gradients."""
        settings = self.agent.Settings(**{name: getattr(config, name) for name in self.agent.Settings._fields})
        parts = self.agent.Networks([self.double(x) for x in start], None, None)
        moments = self.agent.first_moments(settings, parts)
        for step in gradients:
            slopes = self.agent.Networks([self.double(x) for x in step], None, None)
            parts, moments, norms = self.agent.update(settings, parts, moments, slopes)
            yield norms["model_grad_norm"], parts.model


SIDES = {"torch": TorchSide, "jax": JaxSide}
