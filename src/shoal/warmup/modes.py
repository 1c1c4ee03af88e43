r"""Chains in a mode that holds next to none of the mass, as far as draws can tell.

A mode holds $\log Z = E[\log \pi] + H$, $H$ the entropy of the law within it. Where chains have come together in two
modes, that of the lower one is at most that of a normal law with its standard deviations, $\sum_i \log s_i$ plus a
constant; and that of the upper one at least $-\frac12 \log \det J$ plus the same, $J = E[g g^\top]$ with $g$ the
gradient of the log density (Stam, 1959; Dembo, Cover & Thomas, 1991, doi:10.1109/18.104312). Chains that have not been
everywhere in their mode would mislead both. So no $s_i$ is less than $E[g_i^2]^{-1/2}$, which it cannot be in the whole
mode (Cramér-Rao): where the lower mode is flat, chains that have hardly begun to spread do not make it narrow. And the
upper mode counts as no wider than $\frac12 \log \det C$, $C$ the covariance of its draws about the mean of their chain.
"""

import numpy as np
from jaxtyping import Bool, Float

# A mode is given up where even this many times as wide in every direction, as a logarithm, it would hold less than the
# upper one; few dimensions count as more.
WIDER, FEWEST_DIMENSIONS = 2.0, 5
# Chains of the upper mode and of the lower one, at least.
FEWEST_ABOVE, FEWEST_BELOW = 4, 2
# The variance of log densities between the chains of a mode, over that within: more, and they have not come together.
TOGETHER = 4.0


def outweighed(
    position: Float[np.ndarray, "draws chains dim"],
    gradient: Float[np.ndarray, "draws chains dim"],
    log_density: Float[np.ndarray, "draws chains"],
) -> Bool[np.ndarray, " chains"]:
    """The chains of the lower of two modes, if there are two and it holds next to none of the mass; else nobody.

    Nobody, too, where there are fewer draws than dimensions, from which no covariance can be known.

    Args:
        position: draws of chains that have settled.
        gradient: of the log density there.
        log_density: of the target there.
    """
    draws, chains, dim = position.shape
    nobody = np.zeros(chains, bool)
    if chains < FEWEST_ABOVE + FEWEST_BELOW:
        return nobody
    level = log_density.mean(0, dtype=float)
    ranked = np.argsort(-level, kind="stable")
    gaps = -np.diff(level[ranked])[FEWEST_ABOVE - 1 : chains - FEWEST_BELOW]
    below = nobody.copy()
    below[ranked[FEWEST_ABOVE + int(np.argmax(gaps)) :]] = True
    if (draws - 1) * (~below).sum() < dim:
        return nobody
    if not (_is_one_mode(log_density[:, below]) and _is_one_mode(log_density[:, ~below])):
        return nobody
    with np.errstate(all="ignore"):
        most, least = _most(position[:, below], gradient[:, below]), _least(position[:, ~below], gradient[:, ~below])
    if np.isnan(most) or not np.isfinite(least):
        return nobody
    # Chains that hardly move are no narrow mode.
    gap = level[~below].mean() - level[below].mean() - max(0.0, most - least)
    return below & bool(gap > WIDER * max(dim, FEWEST_DIMENSIONS))


def _most(position: np.ndarray, gradient: np.ndarray) -> float:
    """The most that the entropy of a mode can be, up to the constant."""
    deviation = position.std((0, 1), dtype=float)
    return float(np.log(np.maximum(deviation, np.square(gradient, dtype=float).mean((0, 1)) ** -0.5)).sum())


def _least(position: np.ndarray, gradient: np.ndarray) -> float:
    """The least that it can be."""
    dim = position.shape[2]
    off = (position - position.mean(0, dtype=float)).reshape(-1, dim)
    slopes = gradient.reshape(-1, dim).astype(float)
    log_det = lambda rows: np.linalg.slogdet(rows.T @ rows / len(rows))[1]
    return float(min(0.5 * log_det(off), -0.5 * log_det(slopes)))


def _is_one_mode(log_density: np.ndarray) -> bool:
    """Whether the chains agree in how high they are, and that does not rise."""
    within = log_density.var(0, dtype=float).mean()
    half = len(log_density) // 2
    risen = log_density[-half:].mean(dtype=float) - log_density[:half].mean(dtype=float)
    return bool(log_density.mean(0, dtype=float).var() <= TOGETHER * within and risen <= within**0.5)
