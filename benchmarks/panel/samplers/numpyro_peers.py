"""NumPyro's NUTS, eight chains at once (`chain_method="vectorized"`), by its kernel's own two functions."""

from shoal.bench.peers.recipes import numpyro_nuts

from ..outcome import Outcome, Problem
from .driver import followed

CHAINS = 8


def nuts(problem: Problem) -> Outcome:
    """`NUTS` with its defaults: diagonal metric, acceptance 0.8, trees of at most 1,023 steps."""
    return followed(problem, numpyro_nuts(problem.log_density, CHAINS))
