"""The sampler `mams`: adjusted microcanonical sampling that tunes itself from all chains."""

from typing import ClassVar

from shoal import adaptation, kernels
from shoal.adaptation import Adaptation, Chain, DiagonalMetric, During, StepSize
from shoal.samplers.base import Sampler, check_positive, check_whole


class MAMS(Sampler):
    """Adjusted microcanonical sampling that tunes itself from all chains: step size, metric, trajectory length.

    The warmup is that of `shoal.ChEES`. It needs at least two unconstrained coordinates.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        max_steps: the most steps of a trajectory.

    Raises:
        ValueError: a target outside (0, 1), or fewer than one step.
    """

    name: ClassVar[str] = "mams"
    target_accept: float = 0.9
    max_steps: int = 1000

    def __check_init__(self) -> None:
        check_positive("MAMS", "target_accept", self.target_accept, below=1.0)
        check_whole("MAMS", "max_steps", self.max_steps)

    def kernel(self) -> kernels.MAMS:
        return kernels.MAMS(max_steps=self.max_steps)

    def adaptation(self) -> Adaptation:
        metric = During(0.05, 0.9, DiagonalMetric())
        length = During(0.1, 0.9, adaptation.ChEES())
        return Chain((StepSize(self.target_accept), metric, length))
