"""How the tuning of a kernel is learned from all chains at once."""

from shoal.adaptation.base import Adaptation, Chain, During, Fixed
from shoal.adaptation.chees import ChEES
from shoal.adaptation.diagonal import DiagonalMetric
from shoal.adaptation.laps import LAPS
from shoal.adaptation.meads import Damping, GradientStep
from shoal.adaptation.snaper import SNAPER
from shoal.adaptation.step_size import StepSize

__all__ = [
    "LAPS",
    "SNAPER",
    "Adaptation",
    "ChEES",
    "Chain",
    "Damping",
    "DiagonalMetric",
    "During",
    "Fixed",
    "GradientStep",
    "StepSize",
]
