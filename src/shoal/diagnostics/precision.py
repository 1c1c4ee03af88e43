"""How precisely a run knows the mean of each quantity: from means of chains, which a run can keep without its draws."""

from typing import NamedTuple

import numpy as np

from shoal.diagnostics.effective import ess_of_spread
from shoal.diagnostics.estimates import nested_of_moments

# Of lugsail batch means (Vats and Flegal, 2022): batches are joined in pairs, and half of what single ones say is taken
# off, which more than makes up for what batches that are too short leave out.
LUGSAIL = 0.5


class Precision(NamedTuple):
    """Of every quantity; NaN where it cannot be told.

    Attributes:
        mean: over all chains.
        sd: of a draw.
        mcse: the Monte Carlo standard error of the mean.
        ess: effective draws: `(sd / mcse)²`, and no more than all draws are worth.
        r_hat: nested R-hat; as published, on the draws as they are.
        freedom: degrees of freedom of `mcse`.
    """

    mean: np.ndarray
    sd: np.ndarray
    mcse: np.ndarray
    ess: np.ndarray
    r_hat: np.ndarray
    freedom: float


def precision(
    means: np.ndarray,
    variances: np.ndarray,
    count: int,
    superchain: np.ndarray,
    stretches: np.ndarray | None = None,
) -> Precision:
    r"""How precisely the mean of each quantity is known.

    With many chains from the spread of their means: \(\mathrm{MCSE}^2 = \mathrm{Var}_c(\bar x_c) / C\), right for
    chains of any length. With few from stretches of them, by lugsail batch means about the mean of all.

    Args:
        means: `[chain, quantity]`.
        variances: `[chain, quantity]`, within each chain, by draws.
        count: of draws of each chain.
        superchain: `[chain]`, from 0.
        stretches: `[chain, stretch, quantity]`, means of the full stretches of each chain, equally long, in order; None
            where there are chains enough.

    Returns:
        What is known.
    """
    chains, quantities = means.shape
    unknown = np.full(quantities, np.nan)
    with np.errstate(all="ignore"):
        mean, within = means.mean(axis=0), variances.mean(axis=0)
        sd = np.sqrt(within + means.var(axis=0))
        if stretches is None:
            spread, freedom = means.var(axis=0, ddof=1), chains - 1.0
        else:
            spread, freedom = _lugsail(stretches)
        ess = ess_of_spread(spread, within, chains, count)
        # One chain has no spread of its own: what its stretches say stands beside it.
        mcse = np.sqrt(spread / chains)
        several = count > 1 and superchain.max(initial=0) > 0
        ddof = count / max(count - 1, 1)
        r_hat = nested_of_moments(means.T, variances.T * ddof, superchain) if several else unknown
    return Precision(mean, sd, mcse, ess, r_hat, freedom)


def _lugsail(stretches: np.ndarray) -> tuple[np.ndarray, float]:
    """The variance of the mean of a chain as stretches of all chains tell it, and its degrees of freedom."""
    chains, count, quantities = stretches.shape
    pairs = count // 2
    if not pairs or chains * pairs < 4:
        return np.full(quantities, np.nan), np.nan
    stretches = stretches[:, : 2 * pairs]
    mean = stretches.mean(axis=(0, 1))
    # Of the mean of all, times its number of chains: each is what stretches of one length say of it.
    single = ((stretches - mean) ** 2).sum(axis=(0, 1)) / (chains * 2 * pairs - 1) / (2 * pairs)
    joined = stretches.reshape(chains, pairs, 2, quantities).mean(axis=2)
    paired = ((joined - mean) ** 2).sum(axis=(0, 1)) / (chains * pairs - 1) / pairs
    # Where chains alternate about the mean the correction has the wrong sign: precision is not claimed for that.
    spread = np.maximum((paired - LUGSAIL * single) / (1 - LUGSAIL), paired)
    # The variance of what is taken twice less once: 4 · 2/n + 2/(2n) - 4 · 2/(2n) = 5/n with n pairs in all.
    return spread, 2 * chains * pairs / 5
