"""What single precision does to the log density: its error in differences, which is what acceptances are made of.

An error that is the same everywhere cancels. So the log density is compared at pairs of points next to each other, in
single and in double: at starts, and on the way from one of them to a mode. Starts can be very far out, where a log
density is large and its rounding with it, and a mode can be one without mass, where a scale is zero. What counts is the
smallest error on the way: chains will be somewhere along it.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from shoal.checking.probe import BLOCK, Probe, time_left
from shoal.diagnostics.digits import FELT
from shoal.diagnostics.findings import Finding

# How far apart points of a pair are: at least a thousand times the spacing of numbers in single, and as far as the log
# density changes by no more than a few, as it does between draws. Nearer, a sum of large terms rounds to the same.
APART, CHANGE = 10.0 ** np.arange(0, -5, -1), 5.0
# Points of the way that are looked at, the last one among them, of so many at most.
STAGES, STEPS = 3, 60
# Of the minimiser: it has converged, or digits do not let it come nearer.
ARRIVED = (0, 2)
# By these names random numbers are drawn.
RANDOM = ("random_bits", "threefry", "rng_bit_generator")
# What the climb sees where the log density is not finite.
FAR_BELOW = -1e100


class Rounding(NamedTuple):
    """How far single is off; NaN where it is not known.

    Attributes:
        log_density: in differences of it, the median over pairs, where that is smallest.
        gradient: relative to its size, the median over starts.
        findings: what follows from it.
    """

    log_density: float
    gradient: float
    findings: tuple[Finding, ...]


def compare(single: Probe, double: Probe, starts: Float[np.ndarray, "starts dim"], until: float) -> Rounding:
    """Compare at the starts, and uphill from there.

    Args:
        single: the model in single.
        double: the same in double.
        starts: points in single at which the log density is finite.
        until: the time, by `time.perf_counter`, at which to climb no further.
    """
    starts = starts[: BLOCK // 2]
    way, arrived = climb(double, starts, until)
    stages = [starts, *way]
    pairs = [near(double, stage) for stage in stages]
    off = [error_at(single, double, some) for some in pairs]
    gradient = gradient_error(single, double, starts)
    known = [index for index, error in enumerate(off) if math.isfinite(error)]
    if not known:
        return Rounding(math.nan, gradient, ())
    least = min(known, key=lambda index: off[index])
    if off[least] <= FELT:
        return Rounding(off[least], gradient, ())
    if draws_numbers(single):
        return Rounding(math.nan, math.nan, (of_random_numbers(off[least]),))
    near_starts = "" if arrived else " (near the starts: there was no time to come near a mode)"
    part, where = worst_part(single, double, pairs[least]), worst_coordinate(single, double, pairs[least])
    finding = Finding(
        kind="single",
        where=where,
        number=off[least],
        threshold=FELT,
        # Far from where chains will be a log density is large, and its rounding with it.
        blocking=arrived,
        words=f"In single precision differences of the log density are off by {off[least]:.2g}, and acceptances feel "
        f"{FELT}{near_starts}. The derivative by {where} is off most{f', and of the terms {part}' * bool(part)}.",
        remedy="Give precision='float64' (--precision float64). Or rewrite what loses digits: sums of large terms that "
        "cancel, constants of no use, a covariance matrix that is nearly singular, data far from zero.",
    )
    return Rounding(off[least], gradient, (finding,))


def near(double: Probe, points: Float[np.ndarray, "points dim"]) -> Float[np.ndarray, "pairs dim"]:
    """Pairs of points in single beside the given ones, one after another, as many as are evaluated at once."""
    rows = np.sort(np.resize(np.arange(len(points)), BLOCK // 2)).repeat(2)
    way = np.random.default_rng(0).uniform(-1.0, 1.0, (BLOCK, points.shape[1])) * np.maximum(1.0, np.abs(points[rows]))
    pairs = (points[rows] + APART[:, None, None] * way).astype(np.float32)
    for some in pairs:
        if _median(np.abs(np.subtract(*double.at(some)[0].reshape(-1, 2).T))) <= CHANGE:
            return some
    return pairs[-1]


def error_at(single: Probe, double: Probe, pairs: Float[np.ndarray, "pairs dim"]) -> float:
    """The median error of the difference of the log density over pairs of points."""
    return _of_pairs(single.at(pairs)[0], double.at(pairs)[0])


def gradient_error(single: Probe, double: Probe, points: Float[np.ndarray, "points dim"]) -> float:
    """The median error of the gradient, relative to its size."""
    exact = double.at(points)[1]
    return _median(np.linalg.norm(single.at(points)[1] - exact, axis=1) / np.linalg.norm(exact, axis=1))


def draws_numbers(single: Probe) -> bool:
    """Whether the log density draws random numbers, which are others in double."""
    log_density, point = single.model.compiled.log_density, np.zeros(single.model.dim, single.dtype)
    with single.precision():
        traced = jax.make_jaxpr(lambda point, data: log_density(point, data))(point, single.data)
    return any(word in str(traced) for word in RANDOM)


def of_random_numbers(off: float) -> Finding:
    """What is said of a log density that draws random numbers."""
    return Finding(
        kind="double",
        where="log density",
        number=off,
        words="The log density draws random numbers, and they are others in double: differences of it are off by "
        f"{off:.2g}. What single precision does to it was not looked at.",
        remedy="Give the numbers as data, if they are to be the same in both.",
        blocking=False,
    )


def climb(
    double: Probe, starts: Float[np.ndarray, "starts dim"], until: float
) -> tuple[list[Float[np.ndarray, "1 dim"]], bool]:
    """Points on the way from the start with the highest log density to a mode, by conjugate gradients.

    Returns:
        The points, and whether the way has come to its end.
    """
    from scipy.optimize import minimize

    way: list[np.ndarray] = []

    def downhill(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = (part[0] for part in double.at(point[None]))
        finite = np.isfinite(value) and np.isfinite(gradient).all()
        return (-float(value), -gradient) if finite else (-FAR_BELOW, np.zeros_like(point))

    def step(intermediate_result: object) -> None:
        way.append(np.array(intermediate_result.x))  # pyright: ignore[reportAttributeAccessIssue]
        if not time_left(until):
            raise StopIteration

    best = starts[np.nan_to_num(double.at(starts)[0], nan=-np.inf).argmax()].astype(np.float64)
    ended = minimize(downhill, best, jac=True, method="CG", callback=step, options={"maxiter": STEPS})
    chosen = np.unique(np.linspace(0, len(way) - 1, STAGES + 1).astype(int)[1:]) if way else ()
    return [way[index][None] for index in chosen], ended.status in ARRIVED


def worst_part(single: Probe, double: Probe, pairs: Float[np.ndarray, "pairs dim"]) -> str:
    """The term of the log density that is off by most; empty where they are not known."""
    value, exact = single.parts(pairs), double.parts(pairs)
    off = {name: _of_pairs(value[name][0], exact[name][0]) for name in value}
    return max(off, key=lambda name: np.nan_to_num(off[name])) if off else ""


def worst_coordinate(single: Probe, double: Probe, pairs: Float[np.ndarray, "pairs dim"]) -> str:
    """The coordinate whose derivative is off by most."""
    off = np.nan_to_num(np.abs(single.at(pairs)[1] - double.at(pairs)[1]))
    return single.model.coordinates[int(np.median(off, axis=0).argmax())]


def _of_pairs(value: Float[np.ndarray, " pairs"], exact: Float[np.ndarray, " pairs"]) -> float:
    return _median(np.abs(np.subtract(*(value.astype(np.float64) - exact).reshape(-1, 2).T)))


def _median(numbers: np.ndarray) -> float:
    some = numbers[np.isfinite(numbers)]
    return float(np.median(some)) if some.size else math.nan
