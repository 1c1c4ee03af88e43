r"""Chains in a mode that holds next to none of the mass, as far as draws can tell.

A mode holds $\log Z = E[\log \pi] + H$, with $H$ the entropy of the law within it, and of all laws with one covariance
the normal one has the most. So where chains have come together in two modes, the lower one holds at most
$E[\log \pi] + \sum_i \log s_i$ plus a constant, $s$ the standard deviations of all its draws; and the upper one about
$E[\log \pi] + \frac12 \log \det C$ plus the same, $C$ the covariance of draws about the mean of their chain, which is
too small where these have not been everywhere.
"""

import numpy as np
from jaxtyping import Bool, Float

# A mode is given up where even this many times as wide in every direction, as a logarithm, it would hold less than the
# upper one; few dimensions count as more.
WIDER, FEWEST_DIMENSIONS = 2.0, 5
# Chains of the upper mode, at least, for its covariance to be one.
FEWEST_CHAINS = 4
# The variance of log densities between the chains of a mode, over that within: more, and they have not come together.
TOGETHER = 4.0


def outweighed(
    position: Float[np.ndarray, "draws chains dim"], log_density: Float[np.ndarray, "draws chains"]
) -> Bool[np.ndarray, " chains"]:
    """The chains of the lower of two modes, if there are two and it holds next to none of the mass; else nobody.

    Args:
        position: draws of chains that have settled.
        log_density: of the target there.
    """
    chains, dim = position.shape[1:]
    level = log_density.mean(0, dtype=float)
    ranked = np.argsort(-level, kind="stable")
    below = np.zeros(chains, bool)
    if chains <= FEWEST_CHAINS:
        return below
    gaps = -np.diff(level[ranked])
    cut = FEWEST_CHAINS + int(np.argmax(gaps[FEWEST_CHAINS - 1 :]))
    below[ranked[cut:]] = True
    if not (_is_one_mode(log_density[:, below]) and _is_one_mode(log_density[:, ~below])):
        return np.zeros(chains, bool)
    rows = position[:, below].reshape(-1, dim).astype(float)
    upper = position[:, ~below].astype(float)
    upper = (upper - upper.mean(0)).reshape(-1, dim)
    with np.errstate(all="ignore"):
        extent = np.log(rows.std(0)).sum()
        width = 0.5 * np.linalg.slogdet(upper.T @ upper / len(upper))[1]
    if np.isnan(extent) or not np.isfinite(width):
        return np.zeros(chains, bool)
    # Chains that hardly move are no narrow mode.
    gap = level[~below].mean() - level[below].mean() - max(0.0, extent - width)
    return below & bool(gap > WIDER * max(dim, FEWEST_DIMENSIONS))


def _is_one_mode(log_density: np.ndarray) -> bool:
    """Whether the chains agree in how high they are, and that does not rise."""
    within = log_density.var(0, dtype=float).mean()
    half = len(log_density) // 2
    risen = log_density[-half:].mean(dtype=float) - log_density[:half].mean(dtype=float)
    return bool(log_density.mean(0, dtype=float).var() <= TOGETHER * within and risen <= within**0.5)
