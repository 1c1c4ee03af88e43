"""The sampler `chees`: jittered HMC that tunes itself from all chains."""

from typing import ClassVar

from shoal import adaptation, kernels
from shoal.adaptation import Adaptation, Chain, DiagonalMetric, During, StepSize
from shoal.samplers.base import Sampler, check_one_of, check_positive, check_whole

CRITERIA = {"chees": adaptation.ChEES, "snaper": adaptation.SNAPER}


class ChEES(Sampler):
    """Jittered HMC that tunes itself from all chains: step size, diagonal metric, trajectory length.

    The first tenth of the warmup takes single steps, so that chains find the bulk cheaply; the last tenth
    settles the step size for the metric and the length that sampling will use.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        max_steps: the most leapfrog steps of a trajectory.
        criterion: of the trajectory length: "chees", all coordinates, or "snaper", the slowest direction alone.

    Raises:
        ValueError: a target outside (0, 1), fewer than one step, or a criterion that is not known.
    """

    name: ClassVar[str] = "chees"
    target_accept: float = 0.8
    max_steps: int = 1000
    criterion: str = "chees"

    def __check_init__(self) -> None:
        check_positive("ChEES", "target_accept", self.target_accept, below=1.0)
        check_whole("ChEES", "max_steps", self.max_steps)
        check_one_of("ChEES", "criterion", self.criterion, CRITERIA)

    def kernel(self) -> kernels.JitteredHMC:
        return kernels.JitteredHMC(max_steps=self.max_steps)

    def adaptation(self) -> Adaptation:
        metric = During(0.05, 0.9, DiagonalMetric())
        length = During(0.1, 0.9, CRITERIA[self.criterion]())
        return Chain((StepSize(self.target_accept), metric, length))
