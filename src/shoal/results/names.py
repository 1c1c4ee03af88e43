"""Names for arrays in Zarr and xarray, where "/" stands between groups and no variable may have it in its name.

NumPyro's `scope` names a site `scope/x`. Nothing but the arrays is renamed: a result knows its own names only.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from shoal.labels import axes

RESERVED = ("chain", "draw", "superchain")


def plain_names(names: Iterable[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """A name without "/" for every name, no two alike.

    Args:
        names: of variables and axes.
        given: plain names given before, which stay.

    Returns:
        Those given, and the new: the name itself where it has no "/", otherwise with "." instead; where that is
        taken, with "_" instead; where that is taken too, with more of "_" at its end.
    """
    plain = dict(given or {})
    taken = set(plain.values())
    # Names that can stay as they are come first, so that no other name takes their place.
    for name in sorted(dict.fromkeys(names), key=lambda name: "/" in name):
        if name not in plain:
            plain[name] = next(free for free in _candidates(name) if free not in taken)
            taken.add(plain[name])
    return plain


def names_of_axes(dims: Mapping[str, Sequence[str]]) -> list[str]:
    """All names that the user gave to axes, those of every result included.

    Args:
        dims: the names of axes, by variable.

    Returns:
        Names; some may come twice.
    """
    return [*RESERVED, *(axis for names in dims.values() for axis in names)]


def plain_axes(name: str, rank: int, dims: Mapping[str, Sequence[str]], plain: Mapping[str, str]) -> tuple[str, ...]:
    """The plain names of the axes of a variable, after chain and draw; see `shoal.labels.axes`.

    Args:
        name: the variable.
        rank: how many axes it has, chain and draw not counted.
        dims: the names that the user gave, by variable.
        plain: of all these names.

    Returns:
        `rank` names; those that nobody gave begin with the plain name of the variable.
    """
    return axes(plain[name], rank, {plain[name]: tuple(plain[axis] for axis in dims.get(name, ()))})


def _candidates(name: str) -> Iterator[str]:
    yield name.replace("/", ".")
    underscored = name.replace("/", "_")
    while True:
        yield underscored
        underscored += "_"
