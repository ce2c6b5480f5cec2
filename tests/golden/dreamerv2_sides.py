"""DreamerV2 in torch and in JAX behind one face, so that the golden tests are written once. float64 on both sides."""

import contextlib
import functools

import numpy as np

from shared.envs.spec import ActSpec, ArraySpec
from shared.formulas.normalization import ema
from tests.compilation import QUICK

OBS_SPEC = {"image": ArraySpec((64, 64, 1), "uint8")}


class TorchSide:
    name = "torch"

    def __init__(self):
        import torch

        from replications.dreamerv2 import agent_torch, model_torch

        self.torch, self.agent, self.model = torch, agent_torch, model_torch

    def precision(self):
        return contextlib.nullcontext()

    def compiled(self, function):
        return function

    def double(self, x):
        return self.torch.from_numpy(np.asarray(x, np.float64))

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

    def slopes(self, function, modules, arrays):
        """function(modules, arrays) -> (scalar, anything): both, then gradients to arrays and to modules.

        modules and arrays are mappings; zeros stand where there is no gradient. The modules' gradients are
        {module: {parameter: gradient}}.
        """
        leaves = {name: self.double(x).requires_grad_() for name, x in arrays.items()}
        value, rest = function(modules, leaves)
        named = {(name, part): p for name, module in modules.items() for part, p in module.named_parameters()}
        wanted = [*leaves.values(), *named.values()]
        gradients = [x.numpy() for x in self.torch.autograd.grad(value, wanted, materialize_grads=True)]
        of_modules = {name: {} for name in modules}
        for (name, part), gradient in zip(named, gradients[len(leaves) :], strict=True):
            of_modules[name][part] = gradient
        return value, rest, dict(zip(leaves, gradients, strict=False)), of_modules

    def make_agent(self, config):
        spec = ActSpec(2, discrete=True)
        return self.agent.DreamerV2Agent(config, OBS_SPEC, spec, seed=np.random.SeedSequence(0))

    def steps(self, config, start, gradients):
        """Yields (norm before clipping, parameters) after each step of the model's optimiser."""
        agent = self.make_agent(config)
        arrays = self.torch.nn.ParameterList([self.double(x) for x in start])
        agent.parts["model"] = arrays
        agent.optimisers = self.agent.make_optimisers(agent.parts, config.optimisers)
        for step in gradients:
            for parameter, gradient in zip(arrays, step, strict=True):
                parameter.grad = self.double(gradient)
            norm = agent.step("model")["model_grad_norm"]
            agent.updates += 1
            yield norm, [parameter.detach().clone() for parameter in arrays]

    def targets(self, config, target, sources):
        """Yields the target critic after each update; sources: the critic before it, one array each."""
        agent = self.make_agent(config)
        agent.target_critic = self.torch.nn.ParameterList([self.double(target)])
        for source in sources:
            agent.critic = self.torch.nn.ParameterList([self.double(source)])
            agent.update_target()
            agent.updates += 1
            yield agent.target_critic[0].detach().clone()


class JaxSide:
    name = "jax"

    def __init__(self):
        import jax

        from replications.dreamerv2 import agent_jax, model_jax
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

    def compiled(self, function):
        """One program for a function of arrays, or a module: as a hundred single operations it takes far longer."""
        return self.jax.jit(lambda *arguments: function(*arguments), compiler_options=QUICK)

    def double(self, x):
        return self.jax.numpy.asarray(x, self.jax.numpy.float64)

    def numpy(self, x):
        return np.asarray(x)

    def load(self, module, parameters):
        """A module with these parameters; those that are not named stay as they are."""
        there = self.layers.named_parameters(module)
        assert parameters.keys() <= there.keys(), sorted(parameters.keys() - there.keys())
        doubles = {name: np.asarray(parameters.get(name, x), np.float64) for name, x in there.items()}
        return self.layers.with_parameters(module, doubles)

    def made(self, name, *arguments):
        """WorldModel, Actor or Critic, of zeros."""
        return getattr(self.model, name)(*arguments)

    def slopes(self, function, modules, arrays):
        """function(modules, arrays) -> (scalar, anything): both, then gradients to arrays and to modules.

        modules and arrays are mappings; zeros stand where there is no gradient. The modules' gradients are
        {module: {parameter: gradient}}.
        """
        leaves = {name: self.double(x) for name, x in arrays.items()}
        run = self.compiled(self.jax.value_and_grad(lambda both: function(*both), has_aux=True))
        (value, rest), (of_modules, of_arrays) = run((modules, leaves))
        named = {name: self.layers.named_parameters(module) for name, module in of_modules.items()}
        of_modules = {name: {part: np.asarray(x) for part, x in parts.items()} for name, parts in named.items()}
        return value, rest, {name: np.asarray(x) for name, x in of_arrays.items()}, of_modules

    def steps(self, config, start, gradients):
        """Yields (norm before clipping, parameters) after each step of the model's optimiser."""
        arrays = [self.double(x) for x in start]
        moments = self.agent.make_optimiser(config.optimisers, "model").init(arrays)
        step = self.compiled(functools.partial(self.agent.step, config.optimisers, "model"))
        for slopes in gradients:
            arrays, moments, norm = step(arrays, moments, [self.double(x) for x in slopes])
            yield norm, arrays

    def targets(self, config, target, sources):
        """Yields the target critic after each update; sources: the critic before it, one array each."""
        target = self.double(target)
        for updates, source in enumerate(sources):
            target = ema(target, self.double(source), self.agent.target_share(config.behaviour, updates))
            yield target


SIDES = {"torch": TorchSide, "jax": JaxSide}
