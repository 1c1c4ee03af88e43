r"""BlackJAX's algorithms of one chain as samplers of many, set by hand or tuned by BlackJAX's window adaptation.

Window adaptation is Stan's warmup: dual averaging of the step size, and a diagonal inverse mass matrix from windows
that double. Every chain makes its own; then all sample with the median step size and the mean inverse mass matrix.
Reference: Stan Reference Manual, "HMC algorithm parameters"; Cabezas et al. (2024), BlackJAX, arXiv:2402.10797.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal.adaptation import Adaptation, Fixed
from shoal.extras import require
from shoal.kernels.lifted import Lifted
from shoal.samplers.base import Sampler
from shoal.samplers.staged import Staged, Warmed
from shoal.warmup.stages import Stages

# Draws of Stan's warmup.
MOST_DRAWS = 1000
WARMUPS = ("window_adaptation",)
# Whose `energy` is that of the draw; that of `hmc` is the proposal's, accepted or not.
TELL_ENERGY = ("nuts", "mhmc")
# What window adaptation finds.
FOUND = ("step_size", "inverse_mass_matrix")


class Functions(NamedTuple):
    """An entry of BlackJAX by its functions: a value that hashes, as the entry does not.

    Attributes:
        differentiable: from a log density and parameters to an algorithm.
        init: from a position and a log density to a state.
        build_kernel: what window adaptation calls.
    """

    differentiable: Callable[..., Any]
    init: Callable[..., Any]
    build_kernel: Callable[..., Any]


class Draw(NamedTuple):
    """One draw of an algorithm, as `Lifted` runs it."""

    functions: Functions
    options: tuple[tuple[str, Any], ...]

    def init(self, position: Any, log_density: Any) -> Any:
        return self.functions.init(position, log_density)

    def step(self, key: Any, state: Any, log_density: Any, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
        return self.functions.differentiable(log_density, **parameters, **dict(self.options)).step(key, state)


class Adapted(NamedTuple):
    """A chain after its window adaptation."""

    position: Any
    logdensity: Any
    logdensity_grad: Any
    step_size: Any
    inverse_mass_matrix: Any


class Told(NamedTuple):
    """What a window adaptation tells: the mean acceptance, and the steps of all its draws."""

    acceptance_rate: Any
    num_integration_steps: Any


class Windows(NamedTuple):
    """A whole window adaptation as one step, as `Lifted` runs it."""

    functions: Functions
    options: tuple[tuple[str, Any], ...]
    draws: int

    def init(self, position: Any, log_density: Any) -> Adapted:
        state = self.functions.init(position, log_density)
        one = jnp.ones((), position.dtype)
        return Adapted(state.position, state.logdensity, state.logdensity_grad, one, jnp.ones_like(position))

    def step(self, key: Any, state: Adapted, log_density: Any, parameters: Mapping[str, Any]) -> tuple[Adapted, Told]:
        blackjax = require("blackjax", "shoal.from_blackjax", "blackjax")
        tell = lambda state, info, adaptation: Told(info.acceptance_rate, info.num_integration_steps)
        adaptation = blackjax.window_adaptation(
            self.functions, log_density, adaptation_info_fn=tell, **dict(self.options)
        )
        (last, found), told = adaptation.run(key, state.position, self.draws)
        step_size, inverse_mass = (jnp.asarray(found[name], state.position.dtype) for name in FOUND)
        after = Adapted(last.position, last.logdensity, last.logdensity_grad, step_size, inverse_mass)
        return after, Told(told.acceptance_rate.mean(), told.num_integration_steps.sum(dtype=jnp.int32))


def pooled(step_size: np.ndarray, inverse_mass: np.ndarray) -> dict[str, np.ndarray]:
    """The chains' median step size and mean inverse mass matrix, of those whose own are finite and positive.

    Args:
        step_size: `[chains]`.
        inverse_mass: diagonals, `[chains, dim]`.
    """
    usable = np.isfinite(step_size) & (step_size > 0) & np.isfinite(inverse_mass).all(1)
    if not usable.any():
        return {"step_size": np.ones(()), "inverse_mass_matrix": np.ones(inverse_mass.shape[1])}
    return {
        "step_size": np.median(step_size[usable]),
        "inverse_mass_matrix": inverse_mass[usable].mean(0, dtype=np.float64),
    }


class _BlackJAX(Sampler):
    """What both have in common: an algorithm by name, and what is compiled into it."""

    name: ClassVar[str] = "blackjax"

    algorithm: str
    functions: Functions = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def kernel(self) -> Lifted:
        return Lifted(Draw(self.functions, self.options), self.algorithm in TELL_ENERGY)

    def adaptation(self) -> Adaptation:
        return Fixed()

    def settings(self) -> dict[str, float | int | str]:
        return {"algorithm": self.algorithm} | {name: _told(value) for name, value in self.options}


def _told(value: Any) -> float | int | str:
    """An option as it is recorded: the same in another process, and another for another function."""
    if isinstance(value, (int, float, str)):
        return value
    if isinstance(value, functools.partial):
        return f"{_told(value.func)}{value.args}{value.keywords}"
    if hasattr(value, "__qualname__"):
        # Of what a function closes over the numbers tell integrators apart, which all have one name.
        cells = (cell.cell_contents for cell in getattr(value, "__closure__", None) or ())
        numbers = [cell for cell in cells if isinstance(cell, (int, float, list, tuple)) and " at 0x" not in repr(cell)]
        return f"{value.__module__}.{value.__qualname__}" + (f"{numbers}" if numbers else "")
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


class SetByHand(_BlackJAX):
    """An algorithm of BlackJAX with its parameters set by hand.

    Attributes:
        parameters: numbers and arrays by name; they are the tuning.
    """

    parameters: dict[str, Any]

    def tuning(self, dim: int, dtype: DTypeLike) -> dict[str, Any]:
        for name, value in self.parameters.items():
            if name == "inverse_mass_matrix" and np.shape(value) not in ((dim,), (dim, dim)):
                raise ValueError(
                    f"from_blackjax(inverse_mass_matrix=...): got shape {np.shape(value)}, expected {(dim,)} or "
                    f"{(dim, dim)}: the model has {dim} unconstrained coordinates."
                )
        return {name: jnp.asarray(value, dtype) for name, value in self.parameters.items()}


class WindowAdapted(_BlackJAX, Staged):
    """An algorithm of BlackJAX whose step size and inverse mass matrix its window adaptation finds."""

    def tuning(self, dim: int, dtype: DTypeLike) -> dict[str, Any]:
        return {"step_size": jnp.ones((), dtype), "inverse_mass_matrix": jnp.ones(dim, dtype)}

    def settings(self) -> dict[str, float | int | str]:
        return {**super().settings(), "warmup": WARMUPS[0]}

    def first_kernel(self, dim: int) -> None:
        return None

    def warm_up(self, stages: Stages, dim: int, dtype: DTypeLike) -> Warmed:
        draws = min(stages.most, MOST_DRAWS)
        windows = Lifted(Windows(self.functions, self.options, draws))
        stages.phase = "window adaptation"
        stages.play(windows, Fixed(), {}, 1)
        stages.draws += draws - 1
        assert stages.run is not None
        found = jax.tree.map(lambda leaf: np.asarray(leaf)[stages.placement.rows], stages.run.ensemble.memory)
        tuning = pooled(found.step_size, found.inverse_mass_matrix)
        # How far the chains disagreed: the first and the last tenth.
        record = {WARMUPS[0]: {"step_sizes": np.quantile(found.step_size, [0.1, 0.9]).tolist()}}
        return Warmed({name: jnp.asarray(value, dtype) for name, value in tuning.items()}, record, ())


def from_blackjax(algorithm: Any, *, warmup: str | None = None, **parameters: Any) -> Sampler:
    """A sampler of BlackJAX for `shoal.sample(model, sampler=...)`.

    Numbers with a decimal point and arrays are parameters, arguments of the compiled program; whole numbers and
    everything else, such as `max_num_doublings=8` or an integrator, are compiled into it. A position is the vector of
    the model's unconstrained coordinates. Chains run in lock-step: those with little to do wait for the others of
    their tile.

    Args:
        algorithm: such as `blackjax.nuts`, or its name.
        warmup: "window_adaptation": every chain finds a step size and an inverse mass matrix by BlackJAX's window
            adaptation, in `num_warmup` draws, at most 1,000, during which there is no progress to see; then all sample
            with the median step size and the mean inverse mass matrix. None: both are given.
        parameters: of the algorithm, by BlackJAX's names: `step_size=0.5, inverse_mass_matrix=np.ones(dim)`.

    Returns:
        The sampler.

    Raises:
        ModuleNotFoundError: BlackJAX is not installed.
        ValueError: no such algorithm or warmup, an algorithm of another kind, or parameters that do not fit.

    Example:
        `shoal.sample(model, sampler=shoal.from_blackjax("nuts", warmup="window_adaptation"), num_chains=64)`
    """
    blackjax = require("blackjax", "shoal.from_blackjax", "blackjax")
    entry = getattr(blackjax, algorithm, None) if isinstance(algorithm, str) else algorithm
    functions = _functions(entry, algorithm)
    name = next(name for name, value in vars(blackjax).items() if value is entry)
    if warmup is None:
        _check_bound(functions, parameters)
        numbers = {key: np.asarray(value) for key, value in parameters.items() if _is_number(key, value)}
        if not all(np.isfinite(value).all() for value in numbers.values()) or not np.all(
            numbers.get(FOUND[0], 1.0) > 0
        ):
            raise ValueError("from_blackjax: expected finite parameters and a positive step_size.")
        options = _options({key: value for key, value in parameters.items() if key not in numbers})
        return SetByHand(name, functions, options, numbers)
    if warmup not in WARMUPS or name not in ("nuts", "hmc", "mhmc"):
        raise ValueError(
            f"from_blackjax({name}, warmup={warmup!r}): expected nuts, hmc or mhmc with warmup='window_adaptation', or "
            "parameters and no warmup."
        )
    if given := sorted(set(FOUND) & set(parameters)):
        raise ValueError(f"from_blackjax({given[0]}=...) was given, and warmup, which finds it: give one or the other.")
    _check_bound(functions, {**dict.fromkeys(FOUND, 1.0), **parameters})
    return WindowAdapted(name, functions, _options(parameters))


def _functions(entry: Any, given: Any) -> Functions:
    """The functions of an entry of BlackJAX that samples from a log density and begins without chance."""
    if all(hasattr(entry, name) for name in Functions._fields):
        functions = Functions(*(getattr(entry, name) for name in Functions._fields))
        begins = list(inspect.signature(functions.init).parameters)
        first = next(iter(inspect.signature(functions.differentiable).parameters), None)
        if begins == ["position", "logdensity_fn"] and first == "logdensity_fn":
            return functions
    raise ValueError(
        f"from_blackjax({given!r}): expected a sampler of BlackJAX that needs a log density, and a position to begin "
        "from, such as blackjax.nuts, hmc, mala or adjusted_mclmc. For other algorithms see shoal.kernels.lifted."
    )


def _is_number(name: str, value: Any) -> bool:
    """Whether a parameter is an argument of the compiled program, so that it can be tuned."""
    return name in FOUND or isinstance(value, (float, np.floating, np.ndarray, jax.Array))


def _options(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What is compiled in, as a value that hashes."""
    options = tuple(sorted(values.items()))
    for name, value in options:
        try:
            hash(value)
        except TypeError:
            raise ValueError(
                f"from_blackjax({name}=...): a {type(value).__name__} can be no option: it does not hash."
            ) from None
    return options


def _check_bound(functions: Functions, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the algorithm does not have, or lacks."""
    try:
        inspect.signature(functions.differentiable).bind(None, **parameters)
    except TypeError as error:
        raise ValueError(f"from_blackjax: {error}; the algorithm's signature is BlackJAX's.") from None
