"""Peers from nothing to enough draws: each a function that goes on sampling until a judge, off the clock, says so."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.bench.peers.recipes import Density, Recipe
from shoal.extras import require

# Chains and devices of peers that run few chains; as many draws of each are made before they are looked at again.
FEW, ROUND = 8, 25
# Chains and draws of a round of those that run many.
MANY, SHORT_ROUND = 64, 50
RADIUS = 2.0  # starts are uniform on (-2, 2), as those of Stan and NumPyro


class Clock:
    """Seconds since a process was asked for, and those that its cores worked, less what does not count."""

    def __init__(self, began: float) -> None:
        """Begin at `began`, by `time.monotonic`, which all processes of a machine share."""
        self.began, self.idle, self.stages = began, 0.0, {}

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self.began

    @property
    def cpu_seconds(self) -> float:
        """So far, of all cores together: what others do on the machine changes them less."""
        return time.process_time() - self.idle

    @property
    def now(self) -> tuple[float, float]:
        """Both, for `forget`."""
        return self.seconds, self.cpu_seconds

    def mark(self, stage: str) -> None:
        """Say that a stage is over."""
        self.stages[stage] = round(self.seconds, 3)

    def forget(self, since: tuple[float, float]) -> None:
        """Take out what has passed since `now` was `since`."""
        seconds, cpu_seconds = self.now
        self.began += seconds - since[0]
        self.idle += cpu_seconds - since[1]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile nothing counts."""
        since = self.now
        try:
            yield
        finally:
            self.forget(since)


class Task(NamedTuple):
    """What a peer is given.

    Attributes:
        density: the log density of one point.
        dim: of the point.
        seed: of starts and draws.
        clock: of the process.
    """

    density: Density
    dim: int
    seed: int
    clock: Clock

    def starts(self, chains: int) -> np.ndarray:
        """`[chain, dim]`."""
        numbers = np.random.default_rng(self.seed).uniform(-RADIUS, RADIUS, (chains, self.dim))
        return numbers.astype(np.float32)


class Round(NamedTuple):
    """Draws that have been made since the last.

    Attributes:
        position: `[chain, draw, dim]`.
        anew: whether they take the place of all before, and do not follow on them.
    """

    position: np.ndarray
    anew: bool = False


type Rounds = Iterator[Round]


def one_device(task: Task, recipe: Callable[[Density], Recipe]) -> Rounds:
    """All chains at once, on one device."""
    made = recipe(task.density)
    starts = task.starts(made.chains)
    return _rounds(task, jax.jit(made.warmup), jax.jit(made.block), starts, lambda key: key, _from_draws)


def device_per_chain(task: Task, recipe: Callable[..., Recipe]) -> Rounds:
    """Each chain on a device of its own, by `jax.pmap`: no chain waits for another."""
    made, devices = recipe(task.density, chains=1), jax.local_device_count()
    starts = task.starts(devices)[:, None]
    keys = lambda key: jax.random.split(key, devices)
    return _rounds(task, jax.pmap(made.warmup), jax.pmap(made.block), starts, keys, lambda z: z[:, :, 0])


def _from_draws(position: np.ndarray) -> np.ndarray:
    return position.swapaxes(0, 1)


def _rounds(task: Task, warmup: Any, block: Any, starts: np.ndarray, keys: Any, chains_first: Any) -> Rounds:
    first, key = jax.random.split(jax.random.key(task.seed))
    state, _ = jax.block_until_ready(warmup(keys(first), starts))
    task.clock.mark("warmed")
    while True:
        key, now = jax.random.split(key)
        state, position, _ = jax.block_until_ready(block(keys(now), state))
        yield Round(chains_first(np.asarray(position)))


def nutpie(task: Task) -> Rounds:
    """Nutpie's defaults but for the number of draws, as many chains at once as there are cores.

    A run of it cannot be made longer: where the draws are too few, another makes twice as many, and the time of the
    former is forgotten, as if one had known.
    """
    package = require("nutpie", "the peer nutpie", extra="peers")
    model = nutpie_model(package, value_and_gradient(task.density, task.starts(1)[0]), task.starts(FEW))
    for draws in (125 * 2**doubling for doubling in itertools.count()):
        since = task.clock.now
        trace = package.sample(
            model, draws=draws, chains=FEW, seed=task.seed, progress_bar=False, store_unconstrained=True
        )
        yield Round(np.asarray(trace["sample_stats"]["unconstrained_draw"]), anew=True)
        task.clock.forget(since)


def value_and_gradient(density: Density, point: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The compiled function of a NumPy vector that nutpie calls, in the precision of a point."""
    program = jax.jit(jax.value_and_grad(density)).lower(point).compile()

    def both(z: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = program(z.astype(point.dtype))
        return float(value), np.asarray(gradient, np.float64)

    return both


def nutpie_model(package: Any, both: Any, starts: np.ndarray) -> Any:
    """What nutpie samples; its chains begin at the starts `[chain, dim]`, one after another.

    Args:
        package: nutpie.
        both: value and gradient at a vector.
        starts: of the chains.
    """
    dim, points = starts.shape[1], itertools.cycle(np.asarray(starts, np.float64))
    return package.compiled_pyfunc.from_pyfunc(
        ndim=dim,
        make_logp_fn=lambda: both,
        make_expand_fn=lambda *_: lambda z: {"z": z},
        expanded_dtypes=[np.dtype(np.float64)],
        expanded_shapes=[(dim,)],
        expanded_names=["z"],
        make_initial_point_fn=lambda _: next(points),
    )


def peers() -> dict[str, Callable[[Task], Rounds]]:
    """By name."""
    from shoal.bench.peers import recipes

    few = {"draws": ROUND}
    many = partial(recipes.chees, chains=MANY, draws=SHORT_ROUND)
    window, trees = (partial(recipe, **few) for recipe in (recipes.window_nuts, recipes.numpyro_nuts))
    return {
        "blackjax_chees": partial(one_device, recipe=many),
        "blackjax_nuts": partial(one_device, recipe=window),
        "blackjax_nuts_pmap": partial(device_per_chain, recipe=window),
        "numpyro_nuts": partial(one_device, recipe=trees),
        "numpyro_nuts_pmap": partial(device_per_chain, recipe=trees),
        "nutpie": nutpie,
    }
