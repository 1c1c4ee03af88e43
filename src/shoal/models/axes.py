"""Names of axes and labels along them: checked against the shapes they describe."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

RESERVED = ("chain", "draw", "superchain")


def check_axes(
    shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, Sequence[str]] | None,
    coords: Mapping[str, Any] | None,
    generated: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
    """Refuse names and labels that do not fit.

    Args:
        shapes: name of each quantity to its shape.
        dims: quantity to the names of its axes; a single name may be given as text.
        coords: name of an axis to its labels.
        generated: name of each generated quantity to its shape. They are kept apart from the others, so that an axis
            of the ones may be called as one of the others is.

    Returns:
        Both, as plain dictionaries.

    Raises:
        ValueError: names the parameter or the axis.
    """
    named = {name: (axes,) if isinstance(axes, str) else tuple(axes) for name, axes in (dims or {}).items()}
    labels = {axis: np.asarray(values) for axis, values in (coords or {}).items()}
    check_reserved(shapes)
    _check_names(shapes, generated or {}, named)
    lengths = _check_lengths({**shapes, **(generated or {})}, named)
    for axis, values in labels.items():
        if axis not in lengths:
            raise ValueError(
                f"coords has labels for {axis!r}, but no axis has this name: dims names "
                f"{', '.join(sorted(lengths)) or 'none'}. Name the axis of a parameter in dims, or drop the "
                "labels."
            )
        if values.ndim != 1 or len(values) != lengths[axis]:
            raise ValueError(
                f"coords[{axis!r}] has shape {values.shape}, but the axis {axis!r} has length "
                f"{lengths[axis]}. Give one label per element of the axis."
            )
    return named, labels


def check_reserved(names: Iterable[str]) -> None:
    """Refuse quantities that are called as an axis of every result.

    Args:
        names: of the quantities.

    Raises:
        ValueError: names the first.
    """
    for name in names:
        if name in RESERVED:
            raise ValueError(
                f"A quantity of the model is called {name!r}, but the axes of every result are called chain and draw, "
                "and superchain goes along. Choose another name for it."
            )


def _check_names(
    shapes: Mapping[str, tuple[int, ...]],
    generated: Mapping[str, tuple[int, ...]],
    named: dict[str, tuple[str, ...]],
) -> None:
    for name, axes in named.items():
        if name not in shapes and name not in generated:
            raise ValueError(
                f"dims names the axes of {name!r}, but the model has no such quantity; it has "
                f"{', '.join((*shapes, *generated))}."
            )
        peers = shapes if name in shapes else generated
        if len(axes) != len(peers[name]):
            raise ValueError(
                f"dims[{name!r}] names {len(axes)} axes ({', '.join(map(str, axes))}), but {name} has shape "
                f"{peers[name]}. Give one name per axis."
            )
        doubled = [axis for axis, count in Counter(axes).items() if count > 1]
        if doubled or any(not isinstance(axis, str) or not axis for axis in axes):
            raise ValueError(
                f"dims[{name!r}] is {axes}, but the axes of one quantity need different, non-empty names: "
                "row and column of a matrix, say."
            )
        clash = [axis for axis in axes if axis in RESERVED or axis in peers]
        if clash:
            raise ValueError(
                f"dims[{name!r}] calls an axis {clash[0]!r}, but that is the name of "
                f"{'an axis of every result' if clash[0] in RESERVED else 'a quantity of the model'}. Choose "
                "another name for the axis."
            )


def _check_lengths(shapes: Mapping[str, tuple[int, ...]], named: dict[str, tuple[str, ...]]) -> dict[str, int]:
    lengths: dict[str, tuple[int, str]] = {}
    for name, axes in named.items():
        for axis, length in zip(axes, shapes[name], strict=True):
            first, owner = lengths.setdefault(axis, (length, name))
            if first != length:
                raise ValueError(
                    f"dims calls axes of {owner} (length {first}) and of {name} (length {length}) both "
                    f"{axis!r}, but an axis has one length. Choose different names."
                )
    return {axis: length for axis, (length, _) in lengths.items()}


def axes_of(
    shapes: Mapping[str, Any], named: dict[str, tuple[str, ...]], labels: dict[str, Any]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
    """Names of axes of some quantities, and the labels along these."""
    dims = {name: axes for name, axes in named.items() if name in shapes}
    used = {axis for axes in dims.values() for axis in axes}
    return dims, {axis: ticks for axis, ticks in labels.items() if axis in used}
