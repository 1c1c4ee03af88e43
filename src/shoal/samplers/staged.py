"""What a sampler is whose warmup ends by itself."""

import abc
from typing import Any, ClassVar, NamedTuple

from jax.typing import DTypeLike

from shoal.diagnostics.findings import Finding
from shoal.samplers.base import Sampler
from shoal.warmup.phases import Phase
from shoal.warmup.stages import Stages


class Warmed(NamedTuple):
    """What a warmup that ends by itself hands on.

    Attributes:
        tuning: to sample with.
        record: what was done and measured, for JSON.
        findings: what the reader should know.
    """

    tuning: Any
    record: dict[str, Any]
    findings: tuple[Finding, ...]


class Staged(Sampler):
    """A sampler whose warmup ends by itself.

    Attributes:
        burns_in: whether its warmup tells when the chains have come to the bulk.
    """

    burns_in: ClassVar[bool] = False

    @abc.abstractmethod
    def warm_up(self, stages: Stages, dim: int, dtype: DTypeLike) -> Warmed:
        """Bring the chains to stationarity and find the tuning to sample with."""


def as_record(phase: Phase) -> dict[str, Any]:
    """A phase in numbers."""
    return {
        "phase": phase.name,
        "draws": phase.draws,
        "gradients": phase.gradients,
        "settled": phase.settled,
        "metric": phase.setting.family,
        "prices": {} if phase.look is None else phase.look.choice.prices,
    }


def unsettled(phase: Phase) -> tuple[Finding, ...]:
    """What to say of a phase that ended at its bound."""
    if phase.settled or phase.look is None:
        return ()
    look = phase.look
    words = (
        f"Warmup ended at its bound, after {phase.draws} draws of {phase.name}, and had not stood still: in its last "
        f"stage the log density drifted by {look.drift:+.2f} of its standard deviations, the metric's price was "
        f"{look.choice.prices[look.choice.best]:.3g}, and the mean gradient was {look.pull:.2g} of its "
        "standard deviations (near 0 at the target)"
        + (f", and {look.behind.sum()} chains were far below the others." if look.behind.any() else ".")
    )
    remedy = "Whether the draws that followed can be used, the other findings say; if they cannot, reparametrise."
    return (Finding("warmup", "warmup", abs(look.drift), words, remedy, blocking=False),)


def given_up(starts: int) -> tuple[Finding, ...]:
    """What to say of starts from which scouts were given up."""
    if not starts:
        return ()
    words = (
        f"Scouts from {starts} of the starts were where next to none of the mass can be: their log density was so much "
        "lower than that of others that a region there would have to be many times as wide in every direction to hold "
        "as much. They went on from where others were, of their own start or else of another."
    )
    remedy = "A mode that can be reached from these starts only is not in the draws; expect one only if you know of it."
    return (Finding("warmup", "starts", float(starts), words, remedy, blocking=False),)
