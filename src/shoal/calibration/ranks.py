"""Where true values stand among draws: thinned until these are about independent, then counted."""

from typing import NamedTuple

import numpy as np

from shoal.diagnostics.effective import many_chain_ess
from shoal.labels import labels
from shoal.many.results import ManyResults

# Ranks among more draws than there are data sets tell hardly more.
MOST = 256
# Of the data sets' effective sample sizes, each that of its worst quantity: those below stand in few data sets.
USUAL = 0.05
LOG_DENSITY = "log density"


class Quantity(NamedTuple):
    """One number of the model in all data sets.

    Attributes:
        label: such as `theta[0]`.
        draws: `[data set, chain, draw]`.
        truth: `[data set]`.
    """

    label: str
    draws: np.ndarray
    truth: np.ndarray


def quantities(many: ManyResults, values: dict[str, np.ndarray], log_density: np.ndarray) -> list[Quantity]:
    """Every number of what was simulated, and the log density.

    Args:
        many: the results.
        values: the truth by variable, `[data set, *shape]`.
        log_density: at the truth, `[data set]`.
    """
    found, first = [], many[0]
    for name, truth in values.items():
        draws = many.draws[name]
        draws, truth = draws.reshape(*draws.shape[:3], -1), truth.reshape(len(truth), -1)
        names = labels(name, many.draws[name].shape[3:], first.dims, first.coords)
        found += [Quantity(label, draws[..., at], truth[:, at]) for at, label in enumerate(names)]
    return [*found, Quantity(LOG_DENSITY, many.sample_stats["lp"], log_density)]


def independent_draws(found: list[Quantity]) -> int:
    """How many draws of a data set are about independent: as many as are effective in nearly all data sets."""
    sizes = np.array([many_chain_ess(quantity.draws) for quantity in found])
    worst = np.where(np.isfinite(sizes), sizes, np.inf).min(0)
    return int(np.clip(np.quantile(worst, USUAL), 1, MOST))


def thinned(draws: np.ndarray, wanted: int) -> np.ndarray:
    """At most `wanted` draws that lie far apart: of all chains some, or of some chains the last.

    Args:
        draws: `[data set, chain, draw]`.
        wanted: at least 1.

    Returns:
        `[data set, at most wanted]`.
    """
    chains, count = draws.shape[1:]
    if wanted < chains:
        return draws[:, np.linspace(0, chains - 1, wanted).astype(int), -1]
    each = min(wanted // chains, count)
    # Evenly, and the last always.
    kept = count - 1 - (np.arange(each) * count) // each
    return draws[:, :, kept].reshape(len(draws), -1)


def ranked(draws: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The rank of the truth among the draws, and its place: the rank made continuous.

    Where the truth equals draws its rank is any that it could have. A rank r among L draws becomes (r + v) / (L + 1)
    with v uniform, which is uniform where ranks are.

    Args:
        draws: `[data set, L]`, independent.
        truth: `[data set]`.
        rng: of the ties, and of v.

    Returns:
        Ranks from 0 to L, and places in (0, 1), `[data set]` each.
    """
    below, ties = (draws < truth[:, None]).sum(1), (draws == truth[:, None]).sum(1)
    rank = below + rng.integers(0, ties + 1)
    return rank, (rank + rng.uniform(size=len(rank))) / (draws.shape[1] + 1)
