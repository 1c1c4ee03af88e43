r"""Chains that stay on one value for far longer than rejections explain, and move again.

With an acceptance of at least \(a\) wherever a chain is, a stretch of \(r\) rejections begins at one of \(n\) draws
with a probability of at most \(n (1 - a)^r\). A quarter of the mean acceptance is let pass as \(a\), since proposals
from tails are rejected more often than others; a stretch counts where that probability is below 1%, so that in a
hundred runs of a kernel with such an acceptance at most one gives alarm. With 128 chains of 400 draws and an
acceptance of 0.8 it is one of more than 71 draws on end.

Measured over 200 runs each of a Metropolis walk on a normal in 5 dimensions, with an acceptance of 0.79 and of 0.27,
128 chains of 400 draws and 4 of 1,000: no alarm in 800. The longest stretch was 12 draws of 0.79 and 93 of 0.27, where
223 are let pass.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.chains import LEAST_ACCEPTANCE, RARE

ALLOWANCE = 0.25
# The share of all draws in such stretches that blocks, as that of divergent ones does: the posterior is missed where
# they are, and the values themselves are given too much weight. One of 128 chains that stands still through half of
# the run, which blocks as "stuck", is as much.
MAX_LOST = 0.005


class Stretch(NamedTuple):
    """A chain on one value.

    Attributes:
        chain: its number.
        begin: the number of the first draw.
        length: draws.
    """

    chain: int
    begin: int
    length: int


def stretches(
    draws: Mapping[str, np.ndarray], lp: np.ndarray, acceptance: np.ndarray | None
) -> tuple[tuple[Stretch, ...], int]:
    """Stretches that rejections do not explain.

    Args:
        draws: by variable, `[chain, draw, *shape]`; read only where the log density stands still.
        lp: log density, `[chain, draw]`.
        acceptance: acceptance rate, `[chain, draw]`, or None.

    Returns:
        The longest of each chain that has one, and how many draws on end are let pass.
    """
    allowed = longest_allowed(lp.size, 1.0 if acceptance is None else float(np.mean(acceptance)))
    found = [] if lp.shape[1] <= allowed else _still(lp, allowed)
    for name in draws:
        if not found:
            break
        values = np.asarray(draws[name])
        # The log density of a flat target stands still while the chain moves.
        found = [s for s in found if _one_value(values[s.chain, s.begin : s.begin + s.length])]
    return tuple(found), allowed


def longest_allowed(draws: int, acceptance: float) -> int:
    """How many draws on end rejections explain.

    Args:
        draws: of all chains.
        acceptance: the mean acceptance rate.

    Returns:
        A number of draws.
    """
    rate = ALLOWANCE * min(max(float(np.nan_to_num(acceptance)), LEAST_ACCEPTANCE), 1.0)
    return 1 + math.ceil(math.log(RARE / max(draws, 1)) / math.log1p(-rate))


def _still(lp: np.ndarray, allowed: int) -> list[Stretch]:
    number = np.arange(lp.shape[1])
    moved = np.ones(lp.shape, bool)
    moved[:, 1:] = lp[:, 1:] != lp[:, :-1]
    since = number - np.maximum.accumulate(np.where(moved, number, 0), axis=1)
    last = since.argmax(axis=1)
    longest = since[np.arange(len(lp)), last] + 1
    return [
        Stretch(int(chain), int(last[chain] - longest[chain] + 1), int(longest[chain]))
        for chain in np.flatnonzero(longest > allowed)
    ]


def _one_value(values: np.ndarray) -> bool:
    return bool((values == values[:1]).all())
