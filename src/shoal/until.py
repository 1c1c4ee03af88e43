"""When a run may end by itself: how precise its answer is to be, and how long it may take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Effective draws that are asked for where nothing else is, and the most draws of a chain.
USUAL_ESS, MOST_SAMPLES = 1000.0, 10_000
LARGEST = float(np.finfo(float).max)


@dataclass(frozen=True)
class Until:
    """How precise an answer is to be before a run ends: `shoal.sample(model, until=shoal.Until(ess=4000))`.

    A run ends at the first of the numbers of draws 8, 10, 12, 14, 16, 20, 24, ... at which all that is asked for holds,
    its means agree with those of its first part, Stein's identities hold, and no finding forbids to use the draws
    (`docs/stopping.md` has the rule). The tuning is fixed before the first of these draws.

    Attributes:
        ess: effective draws of the mean of every number of every parameter, and of its square about the middle, on
            which its standard deviation rests; None to ask for no number.
        rel_mcse: the largest Monte Carlo error of these means, in standard deviations: 0.02 is as much as an `ess` of
            2,500. The stricter counts.
        mcse: the largest error of the mean of some parameters, or quantities computed from them, by name, in their own
            unit.
        quantiles: whether as many effective draws are asked of the 5% and the 95% quantile, too.
        max_samples: the most draws of each chain. A run that ends there says what it lacks.
        max_seconds: that a call may take, compiling included, as `max_seconds` of `shoal.sample`.

    Raises:
        ValueError: a number is out of its range, or nothing is asked for.
    """

    ess: float | None = USUAL_ESS
    rel_mcse: float | None = None
    mcse: Mapping[str, float] = field(default_factory=dict)
    quantiles: bool = False
    max_samples: int = MOST_SAMPLES
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.ess is not None:
            _positive("ess", self.ess, "a positive number of effective draws, such as 1000, or None")
        if self.rel_mcse is not None:
            _positive("rel_mcse", self.rel_mcse, "a positive share of the standard deviation, such as 0.02, or None")
        if not isinstance(self.mcse or {}, Mapping):
            raise ValueError(f"Until(mcse={self.mcse!r}): expected errors by name, such as {{'tau': 0.01}}.")
        for name, error in (self.mcse or {}).items():
            _positive(f"mcse={{{name!r}: ...}}", error, "a positive error in the unit of the quantity")
        if not isinstance(self.quantiles, bool | np.bool_):
            raise ValueError(f"Until(quantiles={self.quantiles!r}): expected True or False.")
        most = self.max_samples
        if isinstance(most, bool) or not isinstance(most, int | np.integer) or not 1 <= most < 2**31:
            raise ValueError(f"Until(max_samples={most!r}): expected a whole number, at least 1 and below 2**31.")
        if self.max_seconds is not None:
            _positive("max_seconds", self.max_seconds, "a positive number of seconds, or None for any time")
        if self.ess is None and self.rel_mcse is None and not self.mcse:
            raise ValueError("Until(ess=None): nothing is asked for. Give one of ess, rel_mcse and mcse.")
        if self.quantiles and self.least_ess is None:
            raise ValueError("Until(quantiles=True, ess=None): give ess or rel_mcse, too, which quantiles are to have.")
        # In one order: what is folded is in it.
        own = {str(name): float(self.mcse[name]) for name in sorted(self.mcse or {}, key=str)}
        object.__setattr__(self, "mcse", own)
        object.__setattr__(self, "max_samples", int(most))
        object.__setattr__(self, "quantiles", bool(self.quantiles))

    def __hash__(self) -> int:
        return hash((self.ess, self.rel_mcse, tuple(self.mcse.items()), self.quantiles, self.max_samples))

    @property
    def least_ess(self) -> float | None:
        """Effective draws that every mean is to have."""
        asked = [self.ess, None if self.rel_mcse is None else 1 / self.rel_mcse**2]
        return max((float(number) for number in asked if number is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """What is asked for, as JSON holds it; what is as by default is left out, and so is the time."""
        fields = {
            "ess": None if self.ess is None else float(self.ess),
            "rel_mcse": None if self.rel_mcse is None else float(self.rel_mcse),
            "mcse": dict(self.mcse) or None,
            "quantiles": self.quantiles or None,
            "max_samples": self.max_samples,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Until":
        """The inverse of `as_dict`."""
        return cls(**{"ess": None, **fields})


def _positive(name: str, value: Any, expected: str) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < value <= LARGEST:
        said = f"Until({name.removesuffix('...}')}{value!r}}})" if name.endswith("...}") else f"Until({name}={value!r})"
        raise ValueError(f"{said}: expected {expected}.")
