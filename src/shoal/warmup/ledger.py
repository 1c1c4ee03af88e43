"""The stages of a warmup that have been played, so that a run that was killed need not play them again.

What the host decides between stages depends on nothing but what they leave. So a warmup goes on where it ended by going
through it once more, with what was left in place of what would be played.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from shoal.warmup.trail import Trail


class Played(NamedTuple):
    """What a stage left.

    Attributes:
        trail: its draws.
        ensemble: where the chains are, `[chains, ...]`, on the host; arrays by path where it was recalled.
        tuning: what the adaptation has settled on; arrays by path where it was recalled.
        step: draws of every chain, as the keys count them.
        gradients: evaluations since the warmup began.
        seconds: that it took, compiling left out.
    """

    trail: Trail
    ensemble: Any
    tuning: Any
    step: int
    gradients: int
    seconds: float


class Ledger(Protocol):
    """Of the stages of one run."""

    def recall(self, number: int, asked: Mapping[str, Any]) -> Played | None:
        """What a stage left, or None where it has not been played.

        Args:
            number: of the stage, from 1.
            asked: what was to be done; a stage that did something else is forgotten, and all after it.
        """
        ...

    def record(self, number: int, asked: Mapping[str, Any], played: Callable[[], Played]) -> None:
        """Keep what a stage left; `played` is not asked where nothing is kept."""
        ...


class NoLedger:
    """Of a run that need not outlive its process."""

    def recall(self, number: int, asked: Mapping[str, Any]) -> None:
        return None

    def record(self, number: int, asked: Mapping[str, Any], played: Callable[[], Played]) -> None:
        pass
