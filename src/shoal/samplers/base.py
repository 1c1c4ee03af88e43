"""What every named sampler is: a kernel, how its tuning is learned, and what a user may set."""

import abc
import dataclasses
import math
from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jax.typing import DTypeLike

from shoal.adaptation import Adaptation
from shoal.kernels.base import AnyKernel


class Sampler(eqx.Module):
    """A kernel and how its tuning is learned: data, so that it can be printed, saved and compared."""

    name: ClassVar[str]

    @abc.abstractmethod
    def kernel(self) -> AnyKernel:
        """How chains move."""

    def warmup_kernel(self) -> AnyKernel:
        """How chains move while the tuning is learned, with the tuning of `kernel`."""
        return self.kernel()

    @abc.abstractmethod
    def adaptation(self) -> Adaptation:
        """How the tuning is learned in warmup."""

    def tuning(self, dim: int, dtype: DTypeLike) -> Any:
        """The tuning that warmup begins with."""
        return self.kernel().tuning(dim, dtype)

    def first_kernel(self, dim: int) -> AnyKernel | None:
        """How chains move at first; None if that is not known yet."""
        return self.warmup_kernel()

    def num_scouts(self, dim: int) -> int | None:
        """How many chains move at first, about; None where all do."""
        return None

    def expected(self, dim: int, dtype: DTypeLike) -> Any | None:
        """A tuning of the form that the program of sampling runs with first, so that it is compiled early.

        None if no form is known.
        """
        return self.tuning(dim, dtype)

    def for_chains(self, num_chains: int) -> "Sampler":
        """The sampler that this one is for so many chains."""
        return self

    def in_step(self) -> "Sampler":
        """The sampler that this one is where all chains should do the same work for a draw, unless asked not to."""
        return self

    def frozen(self, tuning: Any) -> Any:
        """The tuning in the form that sampling runs with, where a cheaper one says the same."""
        return tuning

    def settings(self) -> dict[str, float | int | str]:
        """The fields by name, as they are recorded with a run."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def check_positive(owner: str, name: str, value: float, below: float = math.inf) -> None:
    """Refuse a setting that is not a number in (0, below)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < below:
        limit = "a positive finite number" if math.isinf(below) else f"a number between 0 and {below:g}"
        raise ValueError(f"{owner}({name}={value!r}): expected {limit}.")


def check_whole(owner: str, name: str, value: int, most: int = 2**31 - 1) -> None:
    """Refuse a setting that is not a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        limit = "at least 1" if most == 2**31 - 1 else f"from 1 to {most}"
        raise ValueError(f"{owner}({name}={value!r}): expected a whole number, {limit}.")


def check_one_of(owner: str, name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a setting that is none of those known."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{owner}({name}={value!r}): expected one of {', '.join(map(repr, known))}.")
