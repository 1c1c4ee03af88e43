"""Pairs of quantities that go far out together: only a sum or a difference of them is known."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from shoal.diagnostics.findings import Finding

# Between means of chains over the last quarter of the run, where a walk has left the rest behind.
TOGETHER = 0.9
# Of one variable; more would be compared with all others.
MOST = 8


def with_partner(finding: Finding, spreading: Sequence[tuple[str, np.ndarray]]) -> Finding:
    """A finding about a quantity that spreads, with the one that spreads along with it, where there is one.

    Args:
        finding: about one of them, or about something else.
        spreading: the quantities that do, by label, `[chain, draw]` each.

    Returns:
        The finding, with a sentence more.
    """
    own = next((row for label, row in spreading if label == finding.where), None)
    if finding.kind != "improper" or own is None:
        return finding
    others = [(label, _together(own, row)) for label, row in spreading if label != finding.where]
    label, correlation = max(others, key=lambda other: abs(other[1]), default=("", 0.0))
    if not abs(correlation) > TOGETHER:
        return finding
    way, known = ("against", "sum") if correlation < 0 else ("along with", "difference")
    said = f" It goes {way} {label} (correlation {correlation:.2f}): what is known is something like their {known}."
    return dataclasses.replace(finding, words=finding.words + said)


def _together(one: np.ndarray, other: np.ndarray) -> float:
    late = 3 * one.shape[1] // 4
    return float(np.corrcoef(one[:, late:].mean(axis=1), other[:, late:].mean(axis=1))[0, 1])
