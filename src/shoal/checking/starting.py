"""Whether chains can begin: the log density and its gradient at points where those of a run would."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from shoal.checking.probe import Probe, listed
from shoal.diagnostics.findings import Finding
from shoal.models.formula import LOG_DET
from shoal.randomness import root_key
from shoal.starts import MOST_SUPERCHAINS, culprits_at, key_of_starts, points_of

# As many as the superchains of any run have.
POINTS = MOST_SUPERCHAINS
# A share of starts at which the density is zero, or overflows in single, that a run copes with: it draws them again.
MOST_LOST = 0.5
# Coordinates that are tried one by one, and those that are named.
MOST_BLAMED, SHOWN = 256, 3
# Where a log density that is a straight line at the starts is looked at again.
FAR_OUT = 10.0 ** np.arange(1, 9)

REMEDIES = {
    "nan": "Look there for the logarithm or the root of a negative number, 0/0, or the difference of two infinities.",
    "inf": "Look there for a division by zero or the exponential of a large number: a density cannot be infinite.",
    "-inf": "Declare the support as narrow as the density is (shoal.positive(), shoal.interval(low, high)), so that no "
    "chain leaves it; or replace log(0) by what it should be.",
    "gradient": "Often jnp.where hides a branch that is not finite, or a root or norm is taken at zero: make the "
    "arguments of both branches harmless, by a second jnp.where inside.",
    "overflow": "Compute in logarithms (logsumexp, log1p, gammaln), rescale the data, or give precision='float64'.",
}


@dataclass(frozen=True)
class Starting:
    """What was seen at the starts.

    Attributes:
        position: points of the first attempt, by the key of a run.
        value: the log density.
        gradient: of it.
        finite: whether both are.
        findings: about those where they are not.
    """

    position: Float[np.ndarray, "points dim"]
    value: Float[np.ndarray, " points"]
    gradient: Float[np.ndarray, "points dim"]
    finite: Bool[np.ndarray, " points"]
    findings: tuple[Finding, ...]


def look(probe: Probe, double: Probe | None, seed: int) -> Starting:
    """Evaluate at starts.

    Args:
        probe: in the precision of the run.
        double: in double, where the model can be evaluated in it.
        seed: of the run.
    """
    with probe.precision():
        key, shape = key_of_starts(root_key(seed)), (POINTS, probe.model.dim)
        position = np.asarray(points_of(key, jnp.asarray(0, jnp.int32), shape, probe.dtype))
    value, gradient = probe.at(position)
    finite = np.isfinite(value) & np.isfinite(gradient).all(1)
    seen = Starting(position, value, gradient, finite, ())
    found = [*_not_finite(probe, double, seen), *_improper(probe, double or probe, seen)]
    return replace(seen, findings=tuple(found))


def kind_of(value: float) -> str:
    """What is not finite, by the log density at a point: "nan", "inf" or "-inf", or else "gradient"."""
    return "gradient" if np.isfinite(value) else str(float(value))


def _not_finite(probe: Probe, double: Probe | None, seen: Starting) -> list[Finding]:
    """One finding for each kind of trouble, about the first point that has it."""
    bad = np.flatnonzero(~seen.finite)
    if not bad.size:
        return []
    overflows = np.zeros(len(seen.finite), bool)
    if double is not None and probe.dtype != np.float64:
        overflows[bad] = double.is_finite(seen.position[bad])
    kinds = np.array(["overflow" if overflows[i] else kind_of(seen.value[i]) for i in bad])
    return [_trouble(probe, seen, bad[kinds == kind], str(kind)) for kind in dict.fromkeys(kinds)]


def _trouble(probe: Probe, seen: Starting, bad: np.ndarray, kind: str) -> Finding:
    first, total = bad[0], len(seen.finite)
    point, value = seen.position[first], seen.value[first]
    culprits = _culprits(probe, point, seen.gradient[first])
    part = _part(probe, point)
    what = "the gradient is not finite" if np.isfinite(value) else f"the log density is {value}"
    what += " in single, and finite in double" * (kind == "overflow")
    said = [f"At {bad.size} of {total} starting points {what}."]
    if part:
        said.append(f"It is {part} that is not finite.")
    if culprits:
        at = probe.told(point, culprits[:SHOWN])
        said.append(f"The cause is in {listed(culprits, SHOWN)}: at the first of these points {at}.")
    share, harmless = bad.size / total, kind in ("-inf", "overflow")
    return Finding(
        kind="not_finite",
        where=listed(culprits, SHOWN) if culprits else "starts",
        number=share,
        threshold=MOST_LOST if harmless else 0.0,
        blocking=not harmless or share > MOST_LOST,
        words=" ".join(said),
        remedy=REMEDIES[kind] + (" A run draws such starts again." if harmless else ""),
    )


def _culprits(probe: Probe, point: np.ndarray, gradient: np.ndarray) -> list[str]:
    """Coordinates to blame, where few are; else the parameters."""
    coordinates = np.array(probe.model.coordinates)
    parameters = np.array(probe.model.layout.parameters())
    blamed = culprits_at(point, parameters, gradient, probe.is_finite)
    size = np.isin(parameters, blamed).sum()
    if not len(blamed) < size <= MOST_BLAMED:
        return blamed
    names = np.where(np.isin(parameters, blamed), coordinates, parameters)
    closer = culprits_at(point, names, gradient, probe.is_finite)
    closer = [name for name in closer if probe.parameter_of(name) in blamed]
    return closer if 0 < len(closer) <= SHOWN else blamed


def _part(probe: Probe, point: np.ndarray) -> str:
    """The terms of the log density that are not finite at a point, or whose gradient is not."""
    parts = probe.parts(point[None])
    bad = [name for name, (value, _) in parts.items() if not np.isfinite(value).all()]
    # What is known as the rest of a sum is as little finite as the sum.
    if set(bad) - {LOG_DET}:
        bad = [name for name in bad if name != LOG_DET]
    bad = bad or [name for name, (_, slope) in parts.items() if not np.isfinite(slope).all()]
    return " and ".join(bad) if len(bad) < len(parts) or len(parts) == 1 else ""


def _straight_far_out(exact: Probe, point: np.ndarray, index: int) -> bool:
    """Whether the log density is a straight line far beyond the starts, too: it may bend where the data are."""
    points = np.repeat(point[None].astype(np.float64), 2 * len(FAR_OUT), 0)
    points[:, index] = np.concatenate([FAR_OUT, -FAR_OUT])
    slopes = exact.at(points)[1][:, index]
    slopes = slopes[np.isfinite(slopes)]
    return not slopes.size or np.ptp(slopes) <= 4 * np.finfo(exact.dtype).eps * np.abs(slopes).max()


def _improper(probe: Probe, exact: Probe, seen: Starting) -> list[Finding]:
    """Coordinates in which the log density is a straight line: no such density has a finite integral."""
    # Where a density is zero at some, it may well be one: of an exponential law on a part of the line, say.
    if not seen.finite.all():
        return []
    slopes = seen.gradient
    straight = np.ptp(slopes, axis=0) <= 4 * np.finfo(probe.dtype).eps * np.abs(slopes).max(0)
    found: dict[str, int] = {}
    parameters = probe.model.layout.parameters()
    for index in map(int, np.flatnonzero(straight)):
        if parameters[index] not in found and _straight_far_out(exact, seen.position[0], index):
            found[parameters[index]] = index
    said = [(name, probe.model.coordinates[index], float(slopes[0, index])) for name, index in found.items()]
    return [
        Finding(
            kind="improper",
            where=coordinate,
            number=slope,
            words=f"{coordinate}: the derivative of the log density is {slope:.3g} at all {len(slopes)} starting "
            "points, and a straight line has no finite integral: nothing depends on it but, at most, the map onto its "
            "support, or what does is lost to rounding.",
            remedy=f"Give {name} a prior, or use it in the likelihood, or leave it out.",
        )
        for name, coordinate, slope in said
    ]
