"""PlaNet in torch and in JAX behind one face, so that the golden tests are written once. float64 on both sides."""

import contextlib

import numpy as np

from shared.envs.spec import ActSpec


class TorchSide:
    name = "torch"

    def __init__(self):
        import torch

        from replications.planet import agent_torch, model_torch

        self.torch, self.agent, self.model = torch, agent_torch, model_torch

    def precision(self):
        return contextlib.nullcontext()

    def double(self, x):
        return self.torch.from_numpy(np.asarray(x, np.float64))

    def numpy(self, x):
        return x.detach().numpy() if isinstance(x, self.torch.Tensor) else np.asarray(x)

    def load(self, module, parameters):
        module.load_state_dict({name: self.double(value) for name, value in parameters.items()})
        return module.double()

    def world_model(self, config, actions):
        return self.model.WorldModel(config, actions, self.torch.Generator().manual_seed(0))

    def value_and_gradients(self, function, module):
        """function(module) -> (scalar, anything): both, and {parameter: gradient, zeros where there is none}."""
        value, rest = function(module)
        value.backward()
        named = module.named_parameters()
        return value, rest, {name: np.zeros(p.shape) if p.grad is None else p.grad.numpy() for name, p in named}

    def plan(self, world, config, state, action_noise, latent_noise):
        agent = self.agent.PlanetAgent(config, {}, ActSpec(1), seed=np.random.SeedSequence(0))
        agent.model = world
        return agent.plan(state, action_noise, latent_noise)

    def updates(self, config, start, gradients):
        """Yields (norm before clipping, parameters) after each update of a list of arrays by lists of gradients."""
        agent = self.agent.PlanetAgent(config, {}, ActSpec(1), seed=np.random.SeedSequence(0))
        agent.model = self.torch.nn.ParameterList([self.double(x) for x in start])
        agent.optimiser = self.agent.make_optimiser(agent.model, config.optimiser)
        for step in gradients:
            for parameter, gradient in zip(agent.model, step, strict=True):
                parameter.grad = self.double(gradient)
            yield agent.update(), [parameter.detach().clone() for parameter in agent.model]


class JaxSide:
    name = "jax"

    def __init__(self):
        import jax

        from replications.planet import agent_jax, model_jax
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

    def load(self, module, parameters):
        doubles = {name: np.asarray(x, np.float64) for name, x in parameters.items()}
        return self.layers.with_parameters(module, doubles)

    def world_model(self, config, actions):
        return self.model.WorldModel(config, actions)

    def value_and_gradients(self, function, module):
        (value, rest), grads = self.jax.jit(self.jax.value_and_grad(function, has_aux=True))(module)
        return value, rest, {name: np.asarray(x) for name, x in self.layers.named_parameters(grads).items()}

    def plan(self, world, config, state, action_noise, latent_noise):
        return self.agent.plan(world, config.planner, state, action_noise, latent_noise)

    def updates(self, config, start, gradients):
        parameters = [self.double(x) for x in start]
        moments = self.agent.make_optimiser(config.optimiser).init(parameters)
        for step in gradients:
            step = [self.double(x) for x in step]
            parameters, moments, norm = self.agent.update(config.optimiser, parameters, moments, step)
            yield norm, parameters


SIDES = {"torch": TorchSide, "jax": JaxSide}
