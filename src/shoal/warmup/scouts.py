"""Who goes ahead for whom: chains by their starts, and the scouts among them."""

import numpy as np


def those_of(scouts: np.ndarray, best: np.ndarray, good: np.ndarray) -> np.ndarray:
    """The best of some scouts, or where there are none among them, the good ones."""
    return scouts[best[scouts]] if best[scouts].any() else scouts[good[scouts]]


def together(position: np.ndarray) -> list[np.ndarray]:
    """The numbers of the chains with each start; `position` is `[chains, dim]`, with equal rows for one start."""
    starts: dict[bytes, list[int]] = {}
    for number, row in enumerate(np.ascontiguousarray(position)):
        starts.setdefault(row.tobytes(), []).append(number)
    return [np.array(numbers) for numbers in starts.values()]


def leaders(starts: list[np.ndarray], num_scouts: int) -> np.ndarray:
    """The chain that each chain follows, itself for a scout: of chains with one start, the first few in turn.

    Args:
        starts: as from `together`.
        num_scouts: of all starts; more where they are not a multiple of the number of starts.
    """
    of_each = -(-num_scouts // len(starts))
    follows = np.empty(sum(map(len, starts)), int)
    for members in starts:
        follows[members] = members[np.arange(len(members)) % of_each]
    return follows
