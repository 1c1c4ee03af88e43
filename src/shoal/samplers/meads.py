"""The sampler `meads`: generalised HMC that tunes itself from all chains."""

from typing import ClassVar

from shoal import kernels
from shoal.adaptation import Adaptation, Chain, Damping, DiagonalMetric, During, GradientStep, StepSize
from shoal.adaptation.meads import BURN_IN
from shoal.samplers.base import Sampler, check_one_of, check_positive, check_whole

STEP_RULES = ("acceptance", "gradients")


class MEADS(Sampler):
    """Generalised HMC that tunes itself from all chains: step size, diagonal metric, damping.

    The first three tenths of the warmup are burn-in, in which a momentum lives for ten steps; then the damping follows
    the widest direction of the ensemble.

    Attributes:
        target_accept: harmonic mean of the acceptance probabilities to aim at, in (0, 1).
        num_steps: leapfrog steps of a draw.
        step_rule: what the step size is from: "acceptance", or "gradients" for the published rule, which
            `target_accept` then only leads to the end of the burn-in.

    Raises:
        ValueError: a target outside (0, 1), fewer than one step, or a rule that is not known.
    """

    name: ClassVar[str] = "meads"
    target_accept: float = 0.8
    num_steps: int = 8
    step_rule: str = "acceptance"

    def __check_init__(self) -> None:
        check_positive("MEADS", "target_accept", self.target_accept, below=1.0)
        check_whole("MEADS", "num_steps", self.num_steps)
        check_one_of("MEADS", "step_rule", self.step_rule, STEP_RULES)

    def kernel(self) -> kernels.GHMC:
        return kernels.GHMC(num_steps=self.num_steps)

    def adaptation(self) -> Adaptation:
        step = StepSize(self.target_accept)
        if self.step_rule == "gradients":
            step = Chain((During(0.0, BURN_IN, step), During(BURN_IN, 1.0, GradientStep())))
        return Chain((step, During(0.05, 0.9, DiagonalMetric()), Damping()))
