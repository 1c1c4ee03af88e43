"""The sampler `nuts`: the No-U-Turn Sampler that tunes itself from all chains."""

from typing import ClassVar

from shoal import kernels
from shoal.adaptation import Adaptation, Chain, DiagonalMetric, During, StepSize
from shoal.kernels.nuts import DEEPEST
from shoal.samplers.base import Sampler, check_positive, check_whole


class NUTS(Sampler):
    """The No-U-Turn Sampler that tunes itself from all chains: step size and diagonal metric.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        max_tree_depth: the most doublings of a trajectory, at most 20.

    Raises:
        ValueError: a setting out of its range.
    """

    name: ClassVar[str] = "nuts"
    target_accept: float = 0.8
    max_tree_depth: int = 10

    def __check_init__(self) -> None:
        check_positive("NUTS", "target_accept", self.target_accept, below=1.0)
        check_whole("NUTS", "max_tree_depth", self.max_tree_depth, most=DEEPEST)

    def kernel(self) -> kernels.NUTS:
        return kernels.NUTS(max_tree_depth=self.max_tree_depth)

    def warmup_kernel(self) -> kernels.NUTS:
        # The step size is corrected after every draw: while it is far off, trees are at their deepest.
        return kernels.NUTS(max_tree_depth=self.max_tree_depth, draws_per_sweep=1)

    def adaptation(self) -> Adaptation:
        return Chain((StepSize(self.target_accept), During(0.05, 0.9, DiagonalMetric())))
