"""The gradient against finite differences of the log density, coordinate by coordinate.

Most are settled by a single central difference. What differs is looked at again, with steps extrapolated to none, there
and at points nearby: a wrong derivative is wrong in a neighbourhood, while a kink or a jump of the density, where there
is no derivative to compare with, is at one point.

`jax.test_util.check_grads` compares along one random direction with one step and a fixed tolerance: it names no
coordinate, and takes a kink or a noisy density for an error.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from shoal.checking.differences import STEPS, Direction, Noise, central, extrapolated, noise_at, step_for
from shoal.checking.probe import BLOCK, Probe, time_left
from shoal.diagnostics.findings import Finding

# A derivative that is wrong is usually wrong by a factor; approximations of functions are often good to 1e-6.
RELATIVE = 1e-4
# Derivatives that are off by less make longer chains of an adjusted sampler, and no others: loose adjoints of solvers.
SEVERE = 1e-2
# How many times its standard error a difference may be off: it is known to a factor.
ERRORS = 10.0
# Points at which to compare: more where that takes little, since a derivative may be wrong in some places only.
FEWEST, MOST_POINTS, PAIRS = 3, 8, 1024
# Around a point of doubt: far enough that a kink there is out of reach of the shorter steps, near enough to be alike.
NEARBY, NEAR = 2, 0.05
# What is wild, as the end of a chaotic series, has a derivative that only tiny steps show: what JAX says is right where
# two of these come nearer to it, by this factor, than the longer ones do.
TINY, NEARER = np.array([1e-7, 1e-8, 1e-9]), 0.1
# Doubts about one parameter that are looked at again, and about all.
MOST_OF_ONE, MOST = 4, 64
# For terms one by one: all that is asked is which of them is off by the most.
STEP_FOR_PARTS = 1e-3


class Slopes(NamedTuple):
    """What the comparison gave.

    Attributes:
        error: the largest difference that was let pass, in units of the largest derivative at the point.
        coordinates: that were compared one by one.
        findings: parameters whose derivative is wrong.
    """

    error: float
    coordinates: int
    findings: tuple[Finding, ...]


class Doubt(NamedTuple):
    """A derivative that differs from a difference.

    Attributes:
        size: how much, relative to the larger of the two.
        point: its number.
        direction: of the derivative.
    """

    size: float
    point: int
    direction: Direction


class Wrong(NamedTuple):
    """A derivative that is wrong.

    Attributes:
        size: by how much, relative to the larger.
        direction: of the derivative.
        point: where.
        claimed: the derivative.
        measured: the same by differences.
        error: of `measured`.
    """

    size: float
    direction: Direction
    point: Float[np.ndarray, " dim"]
    claimed: float
    measured: float
    error: float


def compare(probe: Probe, candidates: Float[np.ndarray, "candidates dim"], until: float) -> Slopes:
    """Compare at some of the points.

    Args:
        probe: in double, where the model can be evaluated in it.
        candidates: points at which log density and gradient are finite in the precision of the run.
        until: the time, by `time.perf_counter`, at which to leave the other coordinates out.
    """
    rng = np.random.default_rng(0)
    count = max(FEWEST, min(MOST_POINTS, PAIRS // probe.model.dim))
    good = probe.is_finite(candidates) if len(candidates) else np.zeros(0, bool)
    points = candidates[good][:count].astype(probe.dtype)
    if not len(points):
        return Slopes(math.nan, 0, ())
    gradient, noise = probe.at(points)[1], noise_at(probe, points, rng)
    largest, coordinates, doubts = 0.0, 0, []
    todo = directions(probe, rng)
    while some := list(itertools.islice(todo, BLOCK)):
        error, new = settle(probe, points, gradient, noise, some)
        largest, doubts = max(largest, error), doubts + new
        coordinates += sum(len(direction.coordinates) == 1 for direction in some)
        if not time_left(until):
            break
    wrong = confirmed(probe, points, chosen(doubts), rng)
    return Slopes(largest, coordinates, tuple(told(probe, wrong)))


def directions(probe: Probe, rng: np.random.Generator) -> Iterator[Direction]:
    """Parameters of many coordinates as wholes, so that none is left out; then coordinates, in random order."""
    slots, labels, parameters = probe.model.layout.slots, probe.model.coordinates, probe.model.layout.parameters()
    begin = np.cumsum([0, *(slot.size for slot in slots)])
    for slot, first in zip(slots, begin[:-1], strict=True):
        if slot.size > 1:
            index = np.arange(first, first + slot.size)
            yield Direction(slot.name, slot.name, index, rng.choice([-1.0, 1.0], slot.size))
    for coordinate in rng.permutation(probe.model.dim):
        yield Direction(labels[coordinate], parameters[coordinate], np.array([coordinate]), np.ones(1))


def settle(
    probe: Probe, points: np.ndarray, gradient: np.ndarray, noise: Noise, some: list[Direction]
) -> tuple[float, list[Doubt]]:
    """Compare with one difference each: the largest error of those that agree, and those that do not."""
    pairs = [(number, direction) for number in range(len(points)) for direction in some]
    rows = np.array([number for number, _ in pairs])
    step = step_for(noise.value)[rows]
    measured = central(probe, points[rows], [direction for _, direction in pairs], step)
    claimed = np.array([direction.along(gradient[number]) for number, direction in pairs])
    rounding = np.array([noise.gradient[number, direction.coordinates].sum() for number, direction in pairs])
    off = np.abs(measured - claimed)
    size = np.maximum(np.abs(measured), np.abs(claimed))
    doubtful = off > RELATIVE * size + ERRORS * (noise.value[rows] / step + rounding)
    agree = np.isfinite(off) & ~doubtful
    scale = np.maximum(np.abs(gradient).max(1)[rows], np.finfo(probe.dtype).tiny)
    error = float((off / scale)[agree].max(initial=0.0))
    return error, [Doubt(off[i] / size[i], *pairs[i]) for i in np.flatnonzero(doubtful)]


def chosen(doubts: list[Doubt]) -> list[Doubt]:
    """Of each parameter the worst; single coordinates before the parameter as a whole."""
    by_parameter: dict[str, list[Doubt]] = {}
    for doubt in sorted(doubts, key=lambda doubt: (len(doubt.direction.coordinates) > 1, -doubt.size)):
        by_parameter.setdefault(doubt.direction.parameter, []).append(doubt)
    return [doubt for some in by_parameter.values() for doubt in some[:MOST_OF_ONE]][:MOST]


def confirmed(probe: Probe, points: np.ndarray, doubts: list[Doubt], rng: np.random.Generator) -> list[Wrong]:
    """Those that are wrong at a point, and at one nearby, whatever the step."""
    if not doubts:
        return []
    here = points[[doubt.point for doubt in doubts]]
    away = rng.uniform(-NEAR, NEAR, (NEARBY, *here.shape)).astype(probe.dtype)
    there = np.concatenate([here[None], here + away])
    looks = [wrong_at(probe, position, [doubt.direction for doubt in doubts], rng) for position in there]
    wrong = [first for first, *others in zip(*looks, strict=True) if first is not None and any(others)]
    return [one for one, wild in zip(wrong, wild_at(probe, wrong), strict=True) if not wild]


def wrong_at(probe: Probe, points: np.ndarray, some: list[Direction], rng: np.random.Generator) -> list[Wrong | None]:
    """For each row, what is wrong with the derivative there, by extrapolated differences."""
    count, steps = len(points), len(STEPS)
    gradient, noise = probe.at(points)[1], noise_at(probe, points, rng)
    slopes = central(
        probe, points.repeat(steps, 0), [direction for direction in some for _ in STEPS], np.tile(STEPS, count)
    )
    measured, error = extrapolated(slopes.reshape(count, steps), noise.value)
    found: list[Wrong | None] = []
    for row, direction in enumerate(some):
        claimed, slope = direction.along(gradient[row]), float(measured[row])
        off, size = abs(claimed - slope), max(abs(claimed), abs(slope))
        allowed = RELATIVE * size + ERRORS * (float(error[row]) + noise.gradient[row, direction.coordinates].sum())
        wrong = off > allowed  # False where one of them is not finite
        found.append(Wrong(off / size, direction, points[row], claimed, slope, float(error[row])) if wrong else None)
    return found


def wild_at(probe: Probe, wrong: list[Wrong]) -> list[bool]:
    """Whether tiny steps agree with what JAX says, though longer ones do not."""
    if not wrong or probe.dtype != np.float64:
        return [False] * len(wrong)
    points = np.stack([one.point for one in wrong for _ in TINY])
    slopes = central(probe, points, [one.direction for one in wrong for _ in TINY], np.tile(TINY, len(wrong)))
    claimed, measured = (
        np.array([numbers]).T for numbers in zip(*((o.claimed, o.measured) for o in wrong), strict=True)
    )
    slopes = slopes.reshape(len(wrong), len(TINY))
    # Exactly none is what a density that rounds to single gives for them, and says nothing.
    agree = (np.abs(slopes - claimed) < NEARER * np.abs(measured - claimed)) & (slopes != 0)
    return (agree.sum(1) >= 2).tolist()


def told(probe: Probe, wrong: list[Wrong]) -> Iterator[Finding]:
    """One finding for each parameter, about the coordinate whose derivative is off by most."""
    by_parameter: dict[str, list[Wrong]] = {}
    for one in wrong:
        by_parameter.setdefault(one.direction.parameter, []).append(one)
    for name, some in by_parameter.items():
        worst = max(some, key=lambda one: (len(one.direction.coordinates) == 1, abs(one.claimed - one.measured)))
        part = wrong_part(probe, worst)
        one = len(worst.direction.coordinates) == 1
        by = "this unconstrained coordinate" if one else f"all unconstrained coordinates of {name} together"
        yield Finding(
            kind="gradient",
            where=worst.direction.label,
            number=worst.size,
            threshold=RELATIVE,
            blocking=worst.size > SEVERE,
            words=f"{worst.direction.label}: the derivative of the log density by {by} is {worst.claimed:.6g} at a "
            f"starting point as JAX has it, and {worst.measured:.6g} by differences (to {worst.error:.0e})."
            + (f" It is that of {part} which is wrong." if part else ""),
            remedy=f"Look in {part or 'the log density'} for a derivative written by hand (custom_vjp, custom_jvp), "
            f"for stop_gradient, and for values of {name} that are rounded or converted on the way.",
        )


def wrong_part(probe: Probe, one: Wrong) -> str:
    """The term of the log density whose derivative is wrong by the most; empty where terms are not known."""
    step = STEP_FOR_PARTS
    away = np.zeros_like(one.point)
    away[one.direction.coordinates] = step * one.direction.sign
    parts = probe.parts(np.stack([one.point, one.point + away, one.point - away]))
    off = {
        name: abs((value[1] - value[2]) / (2 * step) - one.direction.along(slope[0]))
        for name, (value, slope) in parts.items()
    }
    return max(off, key=lambda name: off[name]) if off else ""
