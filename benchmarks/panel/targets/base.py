"""What a target is: a model, the quantities with a known answer, and the judgement of draws against it."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

import shoal

from ..measures import Estimates, estimates

Draws = Mapping[str, np.ndarray]
SHARED = Path(os.environ.get("SHOAL_TARGETS", Path(__file__).parents[4] / "shared" / "targets"))


def shared(module: str) -> ModuleType:
    """A module of the folder of references."""
    if not SHARED.is_dir():
        raise ValueError(
            f"The folder of targets with references, {SHARED}, is missing: set SHOAL_TARGETS to where it is."
        )
    if str(SHARED) not in sys.path:
        sys.path.append(str(SHARED))
    return importlib.import_module(module)


@dataclass(frozen=True)
class Reference:
    """What is known about each quantity.

    Attributes:
        names: of the quantities.
        mean: their means.
        sd: their standard deviations.
        mean_se: Monte Carlo errors of `mean`; 0 where it is exact.
        sd_sq: standard deviations of their squares; NaN where unknown.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    mean_se: np.ndarray
    sd_sq: np.ndarray

    @classmethod
    def exact(cls, names: Any, mean: Any, sd: Any, sd_sq: Any = np.nan) -> "Reference":
        """From formulas; numbers stand for all quantities."""
        names = tuple(names)
        mean, sd, sd_sq = (np.broadcast_to(np.asarray(part, float), len(names)) for part in (mean, sd, sd_sq))
        return cls(names, mean, sd, np.zeros(len(names)), sd_sq)

    @property
    def mean_sq(self) -> np.ndarray:
        """The means of the squares."""
        return self.mean**2 + self.sd**2

    @property
    def spread_sq(self) -> np.ndarray:
        """`sd_sq`, that of a normal law where it is unknown."""
        normal = np.sqrt(2 * self.sd**4 + 4 * self.mean**2 * self.sd**2)
        return np.where(np.isnan(self.sd_sq), normal, self.sd_sq)

    def sd_se(self, kurtosis: np.ndarray) -> np.ndarray:
        """Monte Carlo errors of `sd`, from those of `mean` and the kurtosis."""
        return self.mean_se * np.sqrt((np.maximum(kurtosis, 3.0) - 1.0) / 4.0)


@dataclass(frozen=True)
class Target:
    """A posterior whose answer is known.

    Attributes:
        name: in tables and files.
        dim: unconstrained coordinates.
        family: where it is from.
        build: makes the model.
        refer: reads the reference.
        measure: from draws `{name: [chain, draw, *shape]}` to the reference's quantities, `[chain, draw, quantity]`.
        precision: of every sampler alike.
        reason: why not in single precision.
        bounded: the unconstrained coordinates `[..., dim]` as functions that have a fourth moment; the identity
            when None. Effective sample sizes are of these.
        note: what is hard about it.
    """

    name: str
    dim: int
    family: str
    build: Callable[[], shoal.Model] = field(repr=False)
    refer: Callable[[], Reference] = field(repr=False)
    measure: Callable[[Draws], np.ndarray] = field(repr=False)
    precision: str = "float32"
    reason: str = ""
    bounded: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)
    note: str = ""

    def model(self) -> shoal.Model:
        """The model that every sampler is given."""
        with jax.enable_x64(self.precision == "float64"):
            return self.build()

    def reference(self) -> Reference:
        """What is known."""
        return self.refer()

    def coordinates(self, position: np.ndarray) -> np.ndarray:
        """What effective sample sizes are of, `[..., dim]`."""
        return position if self.bounded is None else self.bounded(position)

    def quantities(self, draws: Draws) -> np.ndarray:
        """The reference's quantities, `[chain, draw, quantity]`, in its order."""
        with jax.enable_x64(self.precision == "float64"):
            return np.asarray(self.measure(draws))

    def judge(self, draws: Draws) -> dict[str, Any]:
        """Whether draws agree with the reference.

        A mean may be off by the larger of four Monte Carlo errors, the draws' and the reference's combined, and
        0.05 reference standard deviations; a standard deviation by the larger of four errors and 5%.

        Args:
            draws: `{name: [chain, draw, *shape]}` on the supports, as in `result.draws`.

        Returns:
            `right`, and `worst`: a quantity and its error in units of what is allowed; at most 1 when right.
        """
        return verdict(estimates(self.quantities(draws)), self.reference())


def verdict(made: Estimates, known: Reference) -> dict[str, Any]:
    """`Target.judge` from estimates."""
    allowed_mean = np.maximum(4 * np.hypot(made.mean_se, known.mean_se), 0.05 * known.sd)
    allowed_sd = np.maximum(4 * np.hypot(made.sd_se, known.sd_se(made.kurtosis)), 0.05 * known.sd)
    errors = np.concatenate([abs(made.mean - known.mean) / allowed_mean, abs(made.sd - known.sd) / allowed_sd])
    errors = np.where(np.isnan(errors), np.inf, errors)
    at = int(errors.argmax())
    kind, quantity = divmod(at, len(known.names))
    worst = f"{('mean', 'sd')[kind]} of {known.names[quantity]}"
    return {"right": bool(errors[at] <= 1.0), "worst": (worst, float(errors[at]))}
