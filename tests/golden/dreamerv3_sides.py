"""DreamerV3 in torch and in JAX behind one face, so that the golden tests are written once. float64 on both sides."""

import contextlib
import dataclasses
import functools

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec
from shared.formulas.normalization import ema
from tests.compilation import QUICK

OBS_SPEC = {"position": ArraySpec((2,), "float32")}


class Constants(list):
    """Tensors without gradients."""

    def detach(self):
        return self


class TorchSide:
    name = "torch"

    def __init__(self):
        import torch

        from replications.dreamerv3 import (
            agent_torch,
            latent_torch,
            layers_torch,
            model_torch,
            objectives_torch,
            optimisers_torch,
        )

        self.torch, self.agent, self.model, self.layers = torch, agent_torch, model_torch, layers_torch
        self.latent, self.objectives, self.optimisers = latent_torch, objectives_torch, optimisers_torch

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

    def images(self, x):
        """(N, H, W, C) as the networks' layers have them."""
        return self.double(x.transpose(0, 3, 1, 2))

    def pixels(self, x):
        """What `images` takes."""
        return self.numpy(x).transpose(0, 2, 3, 1)

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

    def several(self, actions):
        """Independent actions as one, a constant."""
        return Constants(actions)

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
        optimiser = self.optimisers.LaPropOptimiser(parameters, settings)
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


class JaxSide:
    name = "jax"

    def __init__(self):
        import equinox
        import jax

        from replications.dreamerv3 import agent_jax, latent_jax, layers_jax, model_jax, objectives_jax, optimisers_jax
        from shared.layers_jax import named_parameters, with_parameters

        self.jax, self.eqx = jax, equinox
        self.agent, self.model, self.layers = agent_jax, model_jax, layers_jax
        self.latent, self.objectives, self.optimisers = latent_jax, objectives_jax, optimisers_jax
        self.named_parameters, self.with_parameters = named_parameters, with_parameters

    @contextlib.contextmanager
    def precision(self):
        """float64; and XLA does without most optimisations, which take it longer than the tests."""
        before = self.jax.config.values["jax_disable_most_optimizations"]
        self.jax.config.update("jax_disable_most_optimizations", True)
        with self.jax.enable_x64(True):
            yield
        self.jax.config.update("jax_disable_most_optimizations", before)

    def compiled(self, function):
        """One program for a function of arrays, or a module: as a hundred single operations it takes far longer."""
        return self.jax.jit(lambda *arguments: function(*arguments), compiler_options=QUICK)

    def double(self, x):
        x = np.asarray(x)
        return self.jax.numpy.asarray(x, np.float64 if x.dtype.kind == "f" else x.dtype)

    def numpy(self, x):
        return np.asarray(x)

    def load(self, module, parameters):
        """A module with these parameters; those that are not named stay as they are."""
        there = self.named_parameters(module)
        assert parameters.keys() <= there.keys(), sorted(parameters.keys() - there.keys())
        doubles = {name: np.asarray(parameters.get(name, x), np.float64) for name, x in there.items()}
        return self.with_parameters(module, doubles)

    def made(self, name, *arguments):
        """WorldModel, Actor or Critic, with random first values."""
        with self.jax.ensure_compile_time_eval():  # also where a function is being compiled
            module = getattr(self.model, name)(*arguments)
            return self.layers.initialise(module, arguments[0].first_values, self.jax.random.key(0))

    def images(self, x):
        """(N, H, W, C) as the networks' layers have them."""
        return self.double(x)

    def pixels(self, x):
        """What `images` takes."""
        return np.asarray(x)

    def gelu(self, x):
        """With tanh, as JAX has it."""
        return self.jax.nn.gelu(x)

    def exp(self, x):
        return self.jax.numpy.exp(x)

    def sine(self, x):
        return self.jax.numpy.sin(x)

    def replaced(self, module, name, value):
        """A module with an array in the place of a parameter."""
        return self.eqx.tree_at(lambda part: getattr(part, name), module, value)

    def with_biases(self, module):
        """Every dense layer has a bias, though a norm follows it."""
        is_linear = lambda part: isinstance(part, self.layers.Linear)  # noqa: E731

        def biased(part):
            if not is_linear(part) or part.bias is not None:
                return part
            zeros = self.jax.numpy.zeros(len(part.weight))
            return self.eqx.tree_at(lambda x: x.bias, part, zeros, is_leaf=lambda x: x is None)

        return self.jax.tree.map(biased, module, is_leaf=is_linear)

    def answering(self, module, **tables):
        """A head without hidden layers whose output layers (`out`, `std`) give these tables, however they are asked.

        The tables' first two axes are those of the features.
        """
        answers = [self.eqx.nn.Lambda(functools.partial(beginning, table)) for table in tables.values()]
        parts = lambda head: (head.hidden, *(getattr(head, name) for name in tables))  # noqa: E731
        return self.eqx.tree_at(parts, module, (self.eqx.nn.Identity(), *answers))

    def with_bins(self, head, bins):
        """A head whose two-hot codes have these bins."""
        scalar = self.changed(head.scalar, bins=tuple(np.asarray(bins, np.float64).tolist()), outputs=len(bins))
        return self.changed(head, scalar=scalar)

    def changed(self, module, **fields):
        """A copy with other fields, parameters or not."""
        copy = object.__new__(type(module))
        for field in dataclasses.fields(module):
            object.__setattr__(copy, field.name, fields.get(field.name, getattr(module, field.name)))
        return copy

    def several(self, actions):
        """Independent actions as one, a constant."""
        return list(actions)

    def slopes(self, function, arrays):
        """function(arrays) -> (scalar, anything): both, and the gradients to arrays, zeros where there is none."""
        leaves = {name: self.double(x) for name, x in arrays.items()}
        run = self.compiled(self.jax.value_and_grad(lambda x: function(x), has_aux=True))
        (value, rest), slopes = run(leaves)
        return value, rest, {name: np.asarray(x) for name, x in slopes.items()}

    def steps(self, settings, start, gradients):
        """Yields the parameters after each step of LaProp; start and every step's gradients: arrays by name."""
        parameters = {name: self.double(x) for name, x in start.items()}
        moments = self.optimisers.laprop_moments(parameters)
        step = self.compiled(functools.partial(self.optimisers.laprop_step, settings))
        for updates, slopes in enumerate(gradients):
            slopes = {name: self.double(x) for name, x in slopes.items()}
            parameters, moments, _ = step(parameters, slopes, moments, updates)
            yield parameters

    def slow_critics(self, config, slow, sources):
        """Yields the slow critic after each update; sources: the critic before it, one array each."""
        slow, settings = self.double(slow), self.agent.Settings.of(config, "cpu")
        for updates, source in enumerate(sources):
            slow = ema(slow, self.double(source), self.agent.slow_share(settings, updates))
            yield slow


def beginning(table, x, *, key=None):
    """As much of a table as there are features."""
    return table[: x.shape[0], : x.shape[1]]


SIDES = {"torch": TorchSide, "jax": JaxSide}
