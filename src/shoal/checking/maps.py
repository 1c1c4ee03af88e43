r"""The maps onto the supports: there and back, inside the support, and log|J| against the map's own derivatives.

The log density of a model is that on the supports plus $\log|\det ∂f/∂z|$ of the maps $f$. Shoal's supports are
NumPyro's; what is looked at here matters for constraints of a user's own, and for a NumPyro model whose supports depend
on its sites. The determinant is that of central differences of $f$, so that nothing but its values is believed.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from shoal.checking.probe import Probe
from shoal.diagnostics.findings import Finding
from shoal.models.causes import cause

# In double, relative to the coordinates and absolute in log|J|; in single what rounding leaves of them.
BACK = {"float64": 1e-6, "float32": 1e-2}
LOG_DET = {"float64": 1e-4, "float32": 0.1}
STEP = {"float64": 1e-3, "float32": 3e-2}
# Nearer to none than starts: there rows of a large correlation matrix have nothing left for the diagonal, and NumPyro's
# maps, which subtract, do not come back.
NEARER = 0.5
# A larger matrix of derivatives is not looked at.
MOST_ENTRIES = 2**22
REMEDY = "It is the map that numpyro.distributions.biject_to has for the constraint {}: correct its {}."


class Maps(NamedTuple):
    """What was seen of the maps.

    Attributes:
        back: the largest error after going there and back, relative to a coordinate of 1 or more; NaN where not known.
        log_det: the largest error of log|J| of a parameter; NaN where not known.
        names: the parameters whose log|J| was compared: those on a support of their own.
        findings: what is wrong, or why nothing was looked at.
    """

    back: float
    log_det: float
    names: tuple[str, ...]
    findings: tuple[Finding, ...]


class Seen(NamedTuple):
    """Of one parameter at one point, or at many.

    Attributes:
        back: coordinates after going there and back.
        inside: whether the value is in the support.
        claimed: log|J| as the density has it.
        measured: the same by differences; NaN where not known.
    """

    back: Any
    inside: Any
    claimed: Any
    measured: Any


def look(probe: Probe, points: Float[np.ndarray, "points dim"]) -> Maps:
    """Look at all the maps of a model, at some points brought nearer to none."""
    if probe.model.compiled.maps is None or not len(points):
        return Maps(math.nan, math.nan, (), ())
    points = NEARER * points
    try:
        seen: dict[str, Seen] = probe.each("maps", AtPoint(probe.model), points)
    except Exception as error:  # A constraint of a user's own may do anything when it is traced.
        unseen = Finding(
            kind="unseen",
            where="supports",
            number=math.nan,
            words=f"The maps onto the supports could not be looked at: {cause(error)}.",
            remedy="Write constraints and transforms of your own with jax.numpy, for one value.",
            blocking=False,
        )
        return Maps(math.nan, math.nan, (), (unseen,))
    back, log_det, found, names = [0.0], [0.0], [], []
    for slot, ahead in zip(probe.model.layout.slots, probe.pieces(points), strict=True):
        name, one = slot.name, seen[slot.name]
        off = np.abs(one.back.reshape(ahead.shape) - ahead) / np.maximum(1.0, np.abs(ahead))
        back.append(float(off.max(initial=0.0)))
        apart = np.abs(one.claimed - one.measured)
        if np.isfinite(apart).any():
            names.append(name)
            log_det.append(float(apart[np.isfinite(apart)].max()))
        found += _wrong(probe, name, one, back[-1], apart)
    return Maps(float(np.max(back)), max(log_det), tuple(names), tuple(found))


class AtPoint:
    """`(point, data) -> {name: Seen}`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, point: Any, data: Any) -> dict[str, Seen]:
        compiled, layout = self.model.compiled, self.model.layout
        values = compiled.constrain(point, data)
        again = compiled.unconstrain({name: values[name] for name in layout.names}, data)
        free, back = layout.split(point), layout.split(again)
        seen = {}
        for name, (constraint, there) in compiled.maps(point, data).items():
            value, claimed = there(free[name])
            measured = log_det(lambda z, there=there: there(z)[0], constraint, free[name], value)
            seen[name] = Seen(back[name], _inside(constraint, value), claimed, measured)
        return seen


def log_det(there: Callable[[Any], Any], constraint: Any, free: Any, value: Any) -> Any:
    """log|det J| of a map by central differences, of all its events together.

    Args:
        there: from free coordinates to a value.
        constraint: NumPyro's, of the value.
        free: the coordinates.
        value: what they are mapped to.

    Returns:
        A scalar: 0 for the identity; NaN where the matrix is too large, or which of the value's numbers are the
        coordinates of the support is not known.
    """
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if type(constraint).__name__ == "_Real":
        return jnp.full((), jnp.nan, free.dtype)
    step = jnp.asarray(STEP[free.dtype.name], free.dtype)

    def difference(way: Any) -> Any:
        central = lambda h: (there(free + h * way) - there(free - h * way)) / (2 * h)
        return (4 * central(step / 2) - central(step)) / 3

    events = value.ndim - constraint.event_dim
    if constraint.event_dim == 0 and free.shape == value.shape:
        return jnp.log(jnp.abs(difference(jnp.ones_like(free)))).sum()
    batch, shape = value.shape[:events], free.shape[events:]
    size = math.prod(shape)
    if size * value.size > MOST_ENTRIES:
        return jnp.full((), jnp.nan, free.dtype)
    ways = jnp.eye(size, dtype=free.dtype).reshape(size, *shape)
    columns = jax.vmap(lambda way: _coordinates(difference(jnp.broadcast_to(way, free.shape)), constraint, size))(ways)
    if columns.shape[-1] != size:
        return jnp.full((), jnp.nan, free.dtype)
    matrix = jnp.moveaxis(columns.reshape(size, *batch, size), 0, -1)
    return jnp.linalg.slogdet(matrix)[1].sum()


def _coordinates(value: Any, constraint: Any, size: int) -> Any:
    """The numbers of a value that are coordinates of its support, along one last axis: those of NumPyro's densities.

    All but the last of a simplex; of a matrix, whose other half they decide, those below the diagonal, with it or not.
    """
    events = value.ndim - constraint.event_dim
    shape = value.shape[events:]
    flat = value.reshape(*value.shape[:events], -1)
    if flat.shape[-1] == size:
        return flat
    if type(constraint).__name__ == "_Simplex":
        return flat[..., :size]
    if len(shape) == 2 and shape[0] == shape[1]:
        for diagonal in (-1, 0):
            below = np.flatnonzero(np.tri(shape[0], k=diagonal).ravel())
            if len(below) == size:
                return flat[..., below]
    return flat


def _inside(constraint: Any, value: Any) -> Any:
    try:
        return jnp.all(constraint(value))
    except NotImplementedError:  # a constraint that has no check
        return jnp.ones((), bool)


def _wrong(probe: Probe, name: str, one: Seen, back: float, apart: np.ndarray) -> list[Finding]:
    precision, total = probe.dtype.name, len(apart)
    found = []
    if not back <= BACK[precision]:
        found.append(
            Finding(
                kind="round_trip",
                where=name,
                number=back,
                threshold=BACK[precision],
                words=f"{name} does not come back: mapped onto the support and from there, a coordinate is "
                + (f"off by {back:.2g}." if math.isfinite(back) else "not finite."),
                remedy=REMEDY.format(f"of {name}", "_inverse or its __call__"),
            )
        )
    outside = int((~one.inside.astype(bool)).sum())
    if outside:
        found.append(
            Finding(
                kind="support",
                where=name,
                number=outside / total,
                threshold=0.0,
                words=f"{name} is outside its support at {outside} of {total} points.",
                remedy=REMEDY.format(f"of {name}", "__call__, or the check of the constraint"),
            )
        )
    worst = int(np.nan_to_num(apart, nan=-1.0).argmax())
    if apart[worst] > LOG_DET[precision]:
        found.append(
            Finding(
                kind="jacobian",
                where=name,
                number=float(apart[worst]),
                threshold=LOG_DET[precision],
                words=f"log|J| of the map of {name} onto its support is {one.claimed[worst]:.5g} at some point, "
                f"and {one.measured[worst]:.5g} by differences of the map: draws would be from another law.",
                remedy=REMEDY.format(f"of {name}", "log_abs_det_jacobian"),
            )
        )
    return found
