"""Jumps of the log density: places where it is not continuous, which no gradient tells of.

Between two starts the log density is followed along a straight line. What it gains over a piece is compared with what
its gradient says (the trapezoid rule); the pieces that differ most are halved, again and again, the half that differs
more being kept. The difference of something smooth becomes an eighth with every halving, that of a kink or of a wrong
gradient a half; a jump stays.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from shoal.checking.differences import noise_at
from shoal.checking.probe import BLOCK, Probe, listed, time_left
from shoal.diagnostics.digits import FELT
from shoal.diagnostics.findings import Finding

LINES, PIECES = 8, 64
# 2^-34 of a piece is less than 1e-11 of a coordinate: what changes by so much over that is a jump for every step size.
HALVINGS = 34
# What rounding does to the log density is no jump; it is measured so far from one that it is not taken for noise.
NOISES, BESIDE = 10.0, 0.01
# Coordinates that are tried one by one.
MOST_TRIED = 1024


class Piece(NamedTuple):
    """Pieces of lines, `[pieces]` of each: their ends, log density and gradient there, and how much they differ."""

    begin: Float[np.ndarray, "pieces dim"]
    end: Float[np.ndarray, "pieces dim"]
    value: tuple[Float[np.ndarray, " pieces"], Float[np.ndarray, " pieces"]]
    gradient: tuple[Float[np.ndarray, "pieces dim"], Float[np.ndarray, "pieces dim"]]

    @property
    def differ(self) -> Float[np.ndarray, " pieces"]:
        """What the log density gains beyond what its gradient says; 0 where one of them is not finite."""
        said = ((self.gradient[0] + self.gradient[1]) * (self.end - self.begin)).sum(-1) / 2
        return np.nan_to_num(self.value[1] - self.value[0] - said, nan=0.0, posinf=0.0, neginf=0.0)

    def some(self, index: np.ndarray) -> "Piece":
        """Those with these numbers."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def halved(self, probe: Probe) -> "Piece":
        """Of each the half that differs more."""
        middle = (self.begin + self.end) / 2
        value, gradient = probe.at(middle)
        first = Piece(self.begin, middle, (self.value[0], value), (self.gradient[0], gradient))
        last = Piece(middle, self.end, (value, self.value[1]), (gradient, self.gradient[1]))
        right = np.abs(last.differ) > np.abs(first.differ)
        return jax.tree.map(lambda a, b: np.where(right if a.ndim == 1 else right[:, None], b, a), first, last)


def look(probe: Probe, starts: Float[np.ndarray, "starts dim"], until: float) -> tuple[Finding, ...]:
    """Follow the log density between starts.

    Args:
        probe: in double, where the model can be evaluated in it.
        starts: points at which it is finite in the precision of the run.
        until: the time, by `time.perf_counter`, at which to follow no more lines.
    """
    lowest = middle_of(probe, starts) if len(starts) else math.nan
    found: list[Piece] = []
    for a, b in list(zip(starts[::2], starts[1::2], strict=False))[:LINES]:
        found.append(worst_of(probe, a.astype(np.float64), b.astype(np.float64), lowest))
        if not time_left(until):
            break
    if not found:
        return ()
    worst = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    eps = np.finfo(probe.dtype).eps
    for _ in range(HALVINGS):
        felt = np.flatnonzero(np.abs(worst.differ) > FELT)
        if not felt.size:
            return ()
        worst = worst.some(felt).halved(probe)
    size = np.abs(worst.differ)
    rng = np.random.default_rng(0)
    beside = worst.begin + BESIDE * rng.choice([-1.0, 1.0], worst.begin.shape)
    noise = np.nan_to_num(noise_at(probe, beside, rng).value, nan=0.0)
    rounding = np.maximum(64 * eps * np.abs(worst.value[0]), NOISES * noise)
    jumps = np.flatnonzero((size > np.maximum(FELT, rounding)) & (np.maximum(*worst.value) >= lowest))
    return (told(probe, worst.some(jumps)),) if jumps.size else ()


def middle_of(probe: Probe, starts: Float[np.ndarray, "starts dim"]) -> float:
    """The median log density of the starts: below it no chain stays.

    A solver of differential equations that fails far out is not continuous there, and does no harm.
    """
    value = probe.at(starts)[0]
    return float(np.median(value[np.isfinite(value)])) if np.isfinite(value).any() else -math.inf


def worst_of(probe: Probe, begin: Float[np.ndarray, " dim"], end: Float[np.ndarray, " dim"], lowest: float) -> Piece:
    """The pieces of a line that differ most, of those that are not below `lowest`."""
    points = begin + (end - begin) * np.linspace(0.0, 1.0, PIECES + 1)[:, None]
    value, gradient = probe.at(points[:PIECES])
    last = probe.at(points[PIECES:])
    value, gradient = np.append(value, last[0]), np.concatenate([gradient, last[1]])
    pieces = Piece(points[:-1], points[1:], (value[:-1], value[1:]), (gradient[:-1], gradient[1:]))
    differ = np.where(np.fmax(*pieces.value) >= lowest, np.abs(pieces.differ), 0.0)
    return pieces.some(np.argsort(-differ)[: BLOCK // LINES])


def told(probe: Probe, jumps: Piece) -> Finding:
    """The largest jump, and in which coordinate it is."""
    largest = int(np.abs(jumps.differ).argmax())
    begin, end, by = jumps.begin[largest], jumps.end[largest], float(jumps.differ[largest])
    names = coordinates_of(probe, begin, end, by)
    place = f"at {probe.told(begin, names[:3])}" if names else "between two starting points"
    others = f", and at {len(jumps.begin) - 1} more places" if len(jumps.begin) > 1 else ""
    return Finding(
        kind="jump",
        where=listed(names) if names else "log density",
        number=abs(by),
        threshold=FELT,
        words=f"The log density jumps by {abs(by):.3g} {place}{others}. No gradient tells of a jump.",
        remedy="Look for round, floor, astype(int), comparisons and jnp.where whose branches do not meet. Smooth the "
        "step over, or sum the discrete quantity out; with jumps an adjusted sampler is right and slow.",
    )


def coordinates_of(probe: Probe, begin: np.ndarray, end: np.ndarray, jump: float) -> list[str]:
    """The coordinates of which each alone makes the jump; else the parameters that do."""
    names = probe.model.coordinates
    parameters = [probe.parameter_of(name) for name in names]
    for labels in (names, parameters) if len(names) <= MOST_TRIED else (parameters,):
        every = list(dict.fromkeys(labels))
        changed = np.array([[label == one for label in labels] for one in every])
        value = probe.at(np.concatenate([np.where(changed, end, begin), begin[None]]))[0]
        moved = math.copysign(1.0, jump) * (value[:-1] - value[-1])
        if found := [name for name, by in zip(every, moved, strict=True) if by > abs(jump) / 2]:
            return found
    return []
