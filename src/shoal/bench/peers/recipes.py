"""Peers that tune themselves, each as its documentation says: a warmup, then blocks of draws of the same length."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from shoal.extras import require

type Density = Callable[[Any], Any]


class Block(NamedTuple):
    """What a block of draws gives back.

    Attributes:
        state: to go on from.
        position: `[draw, chain, dim]`.
        steps: evaluations, `[draw, chain]`.
    """

    state: Any
    position: Any
    steps: Any


class Recipe(NamedTuple):
    """How a peer is run; both functions can be compiled.

    Attributes:
        warmup: `(key, starts [chain, dim]) -> (state, steps)`.
        block: `(key, state) -> Block`.
        chains: how many.
        settings: to be recorded.
    """

    warmup: Callable[[Any, Any], tuple[Any, Any]]
    block: Callable[[Any, Any], Block]
    chains: int
    settings: dict[str, Any]


def blackjax() -> Any:
    """The package.

    Raises:
        ModuleNotFoundError: it is missing.
    """
    return require("blackjax", "the peer BlackJAX", extra="peers")


def steps_only() -> Any:
    """What BlackJAX's adaptations are to tell of a step: its evaluations."""
    blackjax()
    from blackjax.adaptation.base import get_filter_adapt_info_fn

    return get_filter_adapt_info_fn(info_keys={"num_integration_steps"})


def chees(density: Density, chains: int = 64, metric: str | None = None, draws: int = 50) -> Recipe:
    """BlackJAX's `chees_adaptation`, then `dynamic_hmc`.

    500 warmup draws, half of the default, which would double its price. First step size 0.1, Adam with rate 0.02:
    BlackJAX has no defaults for these.

    Args:
        density: the log density of one point.
        chains: how many.
        metric: `mass_matrix_estimation`, None by BlackJAX's default.
        draws: of a block.
    """
    package, optax = blackjax(), require("optax", "the peer BlackJAX", extra="peers")
    functions: dict[str, Any] = {}
    adaptation = package.chees_adaptation(
        density, chains, adaptation_info_fn=steps_only(), mass_matrix_estimation=metric
    )
    settings = {"num_steps": 500, "step_size": 0.1, "optim": "adam(0.02)", "metric": metric}

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        (states, tuned), info = adaptation.run(key, starts, 0.1, optax.adam(0.02), settings["num_steps"])
        functions.update({name: value for name, value in tuned.items() if callable(value)})
        numbers = {name: value for name, value in tuned.items() if not callable(value)}
        return (states, numbers), info.info.num_integration_steps

    def block(key: Any, state: Any) -> Block:
        states, numbers = state
        step = jax.vmap(package.dynamic_hmc(density, **functions, **numbers).step)

        def draw(states: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
            states, info = step(jax.random.split(key, chains), states)
            return states, (states.position, info.num_integration_steps)

        states, (position, steps) = jax.lax.scan(draw, states, jax.random.split(key, draws))
        return Block((states, numbers), position, steps)

    return Recipe(warmup, block, chains, settings)


def window_nuts(density: Density, chains: int = 8, warmup_draws: int = 1_000, draws: int = 100) -> Recipe:
    """BlackJAX's `window_adaptation` with its defaults, each chain by itself, then `nuts`."""
    package = blackjax()
    adaptation = package.window_adaptation(package.nuts, density, adaptation_info_fn=steps_only())

    def warm_one(key: Any, start: Any) -> tuple[Any, Any]:
        (state, tuned), info = adaptation.run(key, start, warmup_draws)
        return (state, (tuned["step_size"], tuned["inverse_mass_matrix"])), info.info.num_integration_steps

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        return jax.vmap(warm_one)(jax.random.split(key, chains), starts)

    def block(key: Any, state: Any) -> Block:
        return nuts_block(density, key, state, draws, axes=0)

    return Recipe(warmup, block, chains, {"num_steps": warmup_draws, "target_acceptance_rate": 0.8})


def nuts_block(density: Density, key: Any, state: Any, draws: int, axes: int | None) -> Block:
    """Draws of BlackJAX's NUTS with a tuning per chain (`axes=0`) or one for all (`axes=None`)."""
    kernel = blackjax().nuts.build_kernel()
    states, (step_size, metric) = state
    chains = len(states.logdensity)

    def step(key: Any, state: Any, step_size: Any, metric: Any) -> tuple[Any, Any]:
        return kernel(key, state, density, step_size, metric)

    def draw(states: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
        keys = jax.random.split(key, chains)
        states, info = jax.vmap(step, in_axes=(0, 0, axes, axes))(keys, states, step_size, metric)
        return states, (states.position, info.num_integration_steps)

    states, (position, steps) = jax.lax.scan(draw, states, jax.random.split(key, draws))
    return Block((states, (step_size, metric)), position, steps)


def numpyro_nuts(density: Density, chains: int = 8, warmup_draws: int = 1_000, draws: int = 100) -> Recipe:
    """NumPyro's `NUTS` with its defaults: diagonal metric, acceptance 0.8, trees of at most 1,023 steps.

    All chains at once (`chain_method="vectorized"`), by its kernel's own two functions.
    """
    numpyro = require("numpyro", "the peer NumPyro", extra="peers")
    kernel = numpyro.infer.NUTS(potential_fn=lambda z: -density(z))

    def draw(state: Any, _: Any) -> tuple[Any, tuple[Any, Any]]:
        state = kernel.sample(state, (), {})
        return state, (state.z, state.num_steps)

    def warmup(key: Any, starts: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, chains)
        state = kernel.init(keys, warmup_draws, init_params=starts, model_args=(), model_kwargs={})
        state, (_, steps) = jax.lax.scan(draw, state, length=warmup_draws)
        return state, steps

    def block(_: Any, state: Any) -> Block:
        state, (position, steps) = jax.lax.scan(draw, state, length=draws)
        return Block(state, position, steps)

    return Recipe(warmup, block, chains, {"num_warmup": warmup_draws})
