"""Markov kernels of an ensemble, one sampler per file."""

from shoal.kernels.base import Kernel
from shoal.kernels.ghmc import GHMC
from shoal.kernels.hmc import HMC
from shoal.kernels.jittered_hmc import JitteredHMC
from shoal.kernels.mams import MAMS
from shoal.kernels.microcanonical import Microcanonical
from shoal.kernels.nuts import NUTS

__all__ = ["GHMC", "HMC", "MAMS", "NUTS", "JitteredHMC", "Kernel", "Microcanonical"]
