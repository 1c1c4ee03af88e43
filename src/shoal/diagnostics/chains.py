"""Chains that behave unlike the others: those that stand still, and those far away in log density."""

from collections.abc import Mapping

import numpy as np

# A chain that rejects now and then is not stuck: so rare must standing still for so long be, at an acceptance
# of at least LEAST_ACCEPTANCE, that no chain of a healthy run would do it in a hundred runs.
RARE = 0.01
LEAST_ACCEPTANCE = 0.2
# In robust standard deviations of the means of chains.
FAR = 6.0
MIN_CHAINS = 8


def stuck(draws: Mapping[str, np.ndarray], lp: np.ndarray | None, acceptance: np.ndarray | None) -> tuple[int, ...]:
    """Chains that did not move through the last half of the run.

    Args:
        draws: by variable, `[chain, draw, *shape]`.
        lp: log density, `[chain, draw]`, or None.
        acceptance: acceptance rate, `[chain, draw]`, or None.

    Returns:
        Numbers of chains; none when the run is so short that rejections alone explain it.
    """
    shape = lp.shape if lp is not None else next((draws[name].shape[:2] for name in draws), (0, 0))
    half = shape[1] // 2
    if _may_be_rejections(shape[0], half, LEAST_ACCEPTANCE if acceptance is None else float(np.mean(acceptance))):
        return ()
    still = np.ones(shape[0], bool) if lp is None else _still(lp, half)
    for name in draws:
        if not still.any():
            break
        # The log density of a flat target stands still while the chain moves.
        candidates = np.flatnonzero(still)
        still[candidates] = _still(np.asarray(draws[name])[candidates], half)
    return tuple(int(chain) for chain in np.flatnonzero(still))


def stuck_since(moved: np.ndarray, draws: int, acceptance: float) -> tuple[int, ...]:
    """As `stuck`, of chains whose draws are not there.

    Args:
        moved: `[chain]`, the number of the last draw that was not as the one before.
        draws: of each chain.
        acceptance: the mean acceptance rate.

    Returns:
        Numbers of chains.
    """
    half = draws // 2
    if _may_be_rejections(len(moved), half, acceptance):
        return ()
    return tuple(int(chain) for chain in np.flatnonzero(moved <= draws - half))


def _may_be_rejections(chains: int, half: int, acceptance: float) -> bool:
    rate = min(max(float(np.nan_to_num(acceptance)), LEAST_ACCEPTANCE), 1.0)
    return chains * (1 - rate) ** max(half - 1, 0) > RARE or half < 2


def _still(values: np.ndarray, half: int) -> np.ndarray:
    tail = values[:, -half:].reshape(len(values), half, -1)
    return (tail == tail[:, :1]).all(axis=(1, 2))


def far(lp: np.ndarray) -> tuple[tuple[int, ...], float]:
    """Chains whose log density stays away from that of the others through the last half of the run.

    Means of chains are compared with the spread of the means of all chains, which holds whatever the
    autocorrelation is; and all draws of such a chain lie beyond a pooled 5% quantile, so that a chain that
    only visits a tail is left in peace.

    Args:
        lp: log density, `[chain, draw]`.

    Returns:
        Numbers of chains, and the largest distance from the median chain.
    """
    half = lp.shape[1] - lp.shape[1] // 2
    late = np.asarray(lp, float)[:, -half:]
    if len(late) < MIN_CHAINS or not late.size or not np.isfinite(late).all():
        return (), 0.0
    means = late.mean(axis=1)
    distance = np.abs(means - np.median(means))
    spread = 1.4826 * np.median(distance)
    low, high = np.quantile(late, (0.05, 0.95))
    beyond = (late.max(axis=1) < low) | (late.min(axis=1) > high)
    members = np.flatnonzero(beyond & (distance > FAR * spread))
    return tuple(int(chain) for chain in members), float(distance[members].max(initial=0.0))
