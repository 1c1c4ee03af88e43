"""Markov kernels of an ensemble, one sampler per file."""

from shoal.kernels.base import Kernel
from shoal.kernels.hmc import HMC
from shoal.kernels.jittered_hmc import JitteredHMC

__all__ = ["HMC", "JitteredHMC", "Kernel"]
