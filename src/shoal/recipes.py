"""The named samplers: a kernel, how its tuning is learned, and what a user may set."""

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from shoal import adaptation, kernels
from shoal.adaptation import Adaptation, Chain, DiagonalMetric, During, Fixed, StepSize
from shoal.kernels.base import AnyKernel
from shoal.kernels.hmc import HMCTuning


class Sampler(eqx.Module):
    """A kernel and how its tuning is learned: data, so that it can be printed, saved and compared."""

    name: ClassVar[str]

    @abc.abstractmethod
    def kernel(self) -> AnyKernel:
        """How chains move."""

    @abc.abstractmethod
    def adaptation(self) -> Adaptation:
        """How the tuning is learned in warmup."""

    def tuning(self, dim: int, dtype: DTypeLike) -> Any:
        """The tuning that warmup begins with."""
        return self.kernel().tuning(dim, dtype)

    def settings(self) -> dict[str, float | int]:
        """The fields by name, as they are recorded with a run."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class HMC(Sampler):
    """Hamiltonian Monte Carlo with a step size and a number of steps set by hand; nothing adapts.

    Attributes:
        step_size: of the leapfrog, in units of the unconstrained coordinates.
        num_steps: of every trajectory.

    Raises:
        ValueError: a step size that is not positive, or fewer than one step.
    """

    name: ClassVar[str] = "hmc"
    step_size: float
    num_steps: int

    def __check_init__(self) -> None:
        _positive("HMC", "step_size", self.step_size)
        _whole("HMC", "num_steps", self.num_steps)

    def kernel(self) -> kernels.HMC:
        return kernels.HMC()

    def adaptation(self) -> Adaptation:
        return Fixed()

    def tuning(self, dim: int, dtype: DTypeLike) -> HMCTuning:
        first = self.kernel().tuning(dim, dtype)
        step_size, num_steps = jnp.asarray(self.step_size, dtype), jnp.asarray(self.num_steps, jnp.int32)
        return HMCTuning(step_size, num_steps, first.metric)


class ChEES(Sampler):
    """Jittered HMC that tunes itself from all chains: step size, diagonal metric, trajectory length.

    The first tenth of the warmup takes single steps, so that chains find the bulk cheaply; the last tenth
    settles the step size for the metric and the length that sampling will use.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        max_steps: the most leapfrog steps of a trajectory.

    Raises:
        ValueError: a target outside (0, 1), or fewer than one step.
    """

    name: ClassVar[str] = "chees"
    target_accept: float = 0.8
    max_steps: int = 1000

    def __check_init__(self) -> None:
        _positive("ChEES", "target_accept", self.target_accept, below=1.0)
        _whole("ChEES", "max_steps", self.max_steps)

    def kernel(self) -> kernels.JitteredHMC:
        return kernels.JitteredHMC(max_steps=self.max_steps)

    def adaptation(self) -> Adaptation:
        metric = During(0.05, 0.9, DiagonalMetric())
        length = During(0.1, 0.9, adaptation.ChEES())
        return Chain((StepSize(self.target_accept), metric, length))


SAMPLERS: dict[str, type[Sampler]] = {recipe.name: recipe for recipe in (ChEES, HMC)}


def named(name: str, settings: Mapping[str, Any] | None = None) -> Sampler:
    """The sampler of this name with these settings.

    Raises:
        ValueError: no such sampler, no such setting, a setting missing, or a value out of range.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name!r} is not known; there are {', '.join(map(repr, sorted(SAMPLERS)))}.")
    recipe, settings = SAMPLERS[name], dict(settings or {})
    fields = [field.name for field in dataclasses.fields(recipe)]
    if unknown := sorted(set(settings) - set(fields)):
        raise ValueError(f"sampler {name!r} has no setting {unknown[0]!r}; it has {', '.join(fields)}.")
    try:
        return recipe(**settings)
    except TypeError as error:
        raise ValueError(
            f"sampler {name!r} needs all of its settings without a default: {', '.join(fields)}; "
            f"got {', '.join(settings) or 'none'}. For example shoal.HMC(step_size=0.05, num_steps=20), or "
            f"--sampler hmc --set step_size=0.05 --set num_steps=20. To have them tuned, use sampler='chees'."
        ) from error


def tuning_to_arrays(tuning: Any) -> dict[str, np.ndarray]:
    """A tuning by path, such as `metric.scale`: what a result holds and a store writes."""
    leaves = jax.tree_util.tree_leaves_with_path(tuning)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}


def tuning_from_arrays(arrays: Mapping[str, np.ndarray], like: Any) -> Any:
    """The inverse of `tuning_to_arrays`, in the structure and dtypes of `like`.

    Raises:
        ValueError: a field is missing, unknown or of another shape: the tuning is another sampler's or model's.
    """
    expected = tuning_to_arrays(like)
    if set(arrays) != set(expected):
        raise ValueError(
            f"tuning has the fields {', '.join(sorted(arrays))}; this sampler needs "
            f"{', '.join(sorted(expected))}. Pass the tuning of a run with the same sampler."
        )
    for name, array in expected.items():
        if np.shape(arrays[name]) != array.shape:
            raise ValueError(
                f"tuning field {name!r} has shape {np.shape(arrays[name])}; this model needs {array.shape}. "
                "Pass the tuning of a run on a model with the same parameters."
            )
        if not np.all(np.isfinite(arrays[name])) or not np.all(np.asarray(arrays[name]) > 0):
            raise ValueError(f"tuning field {name!r} must be finite and positive, got {arrays[name]}.")
    names = list(expected)
    leaves = [jnp.asarray(arrays[name], expected[name].dtype) for name in names]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _positive(owner: str, name: str, value: float, below: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < below:
        limit = "a positive finite number" if math.isinf(below) else f"a number between 0 and {below:g}"
        raise ValueError(f"{owner}({name}={value!r}): expected {limit}.")


def _whole(owner: str, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value < 2**31:
        raise ValueError(f"{owner}({name}={value!r}): expected a whole number, at least 1.")
