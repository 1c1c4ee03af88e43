"""How the tuning of a kernel is learned from all chains at once."""

from shoal.adaptation.base import Adaptation, Chain, During, Fixed
from shoal.adaptation.chees import ChEES
from shoal.adaptation.diagonal import DiagonalMetric
from shoal.adaptation.step_size import StepSize

__all__ = ["Adaptation", "ChEES", "Chain", "DiagonalMetric", "During", "Fixed", "StepSize"]
