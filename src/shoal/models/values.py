"""Values that users give for parameters: read against the layout, and checked to lie on the supports."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shoal.models.layout import Layout


def read_values(values: Any, layout: Layout) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Read one array per parameter, all with the same leading axes.

    Args:
        values: name to `[..., *shape]`.
        layout: of the model.

    Returns:
        Name to array, and the shape of the leading axes.

    Raises:
        ValueError: a name is missing or unknown, or a shape does not fit.
    """
    if not isinstance(values, Mapping) or set(values) != set(layout.names):
        given = ", ".join(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
        raise ValueError(
            f"Values were given for: {given or 'nothing'}, but a mapping with one value for each parameter "
            f"of the model is expected: {', '.join(layout.names)}. Add what is missing and leave out what is "
            "no parameter."
        )
    arrays = {name: np.asarray(values[name]) for name in layout.names}
    batches = {}
    for slot in layout.slots:
        array = arrays[slot.name]
        split = array.ndim - len(slot.shape)
        if split < 0 or array.shape[split:] != slot.shape or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{slot.name} was given with shape {array.shape} and type {array.dtype}, but it holds real "
                f"numbers of shape {slot.shape}, after any leading axes of chains and draws."
            )
        batches[slot.name] = array.shape[:split]
    if len(set(batches.values())) > 1:
        listed = ", ".join(f"{name} {batch}" for name, batch in batches.items())
        raise ValueError(
            f"Values were given with different leading axes ({listed}), but all parameters need the same: "
            "one value of every parameter per point."
        )
    return arrays, batches[layout.names[0]]


def check_support(
    layout: Layout, values: Mapping[str, np.ndarray], position: np.ndarray, back: Mapping[str, Any]
) -> None:
    """Refuse values that the way to unconstrained space and back does not reproduce.

    Args:
        layout: of the model.
        values: name to `[points, *shape]`.
        position: `[points, dim]`, what the values were mapped to.
        back: name to `[points, *shape]`, what the positions map to.

    Raises:
        ValueError: names the first entry outside its support.
    """
    finite = dict(zip(layout.names, _finite_by_parameter(layout, position), strict=True))
    for name in layout.names:
        again = np.asarray(back[name])
        axes = tuple(range(1, again.ndim))
        size = np.where(np.isfinite(again), np.abs(again), 0.0)
        scale = np.max(size, axis=axes, keepdims=True, initial=1e-3)
        good = np.isclose(values[name], again, rtol=1e-4, atol=1e-6 * scale)
        # An infinite coordinate spoils its parameter even where the way back ends on the boundary.
        good &= finite[name].reshape(-1, *[1] * len(axes)) | ~good.all(axis=axes, keepdims=True)
        if not good.all():
            point, *index = (int(i) for i in np.argwhere(~good)[0])
            where = f"{name}[{', '.join(map(str, index))}]" if index else name
            raise ValueError(
                f"{where} was given as {float(values[name][(point, *index)])!r} (point {point}), which lies "
                f"outside the support of {name} or on its boundary. Give values strictly inside the support."
            )


def _finite_by_parameter(layout: Layout, position: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum([slot.size for slot in layout.slots])[:-1]
    return [np.isfinite(piece).all(axis=1) for piece in np.split(layout.plain(position), ends, axis=1)]
