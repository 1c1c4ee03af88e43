"""Two files of results side by side: which rows they share, by how much they differ, and what else does."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Match(NamedTuple):
    """A row that both have.

    Attributes:
        what: was measured.
        chains: with which it was; None where there are none.
        before: the rate in the first file.
        after: in the second.
        unit: of both.
    """

    what: str
    chains: int | None
    before: float
    after: float
    unit: str

    @property
    def ratio(self) -> float:
        """How much faster the second is."""
        return self.after / self.before


class Difference(NamedTuple):
    """Something other than a rate that differs: where it stands, and what stands there in the two files."""

    where: str
    before: str
    after: str


def matches(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Match]:
    """Rows of the same thing with the same number of chains.

    Raises:
        ValueError: the files are of different benchmarks, or share no row.
    """
    if before["benchmark"] != after["benchmark"]:
        raise ValueError(
            f"The first file is of shoal bench {before['benchmark']}, the second of shoal bench {after['benchmark']}: "
            "give two of one kind."
        )
    others = {_name(row): row for row in after["rows"]}
    shared = [(row, others[_name(row)]) for row in before["rows"] if _name(row) in others]
    made = [
        Match(row["what"], row["chains"], row["rate"], other["rate"], row["unit"])
        for row, other in shared
        if row["rate"] and other["rate"]
    ]
    if not made:
        raise ValueError("The two files share no row: nothing was measured with the same number of chains in both.")
    return made


def _name(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["what"], row["chains"], row["unit"]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """What differs in machine, versions, settings, seed and commit."""
    parts = ("machine", "versions", "settings", "seed", "commit")
    one, other = ({name: dict(_leaves(made.get(name), name)) for name in parts} for made in (before, after))
    return [
        Difference(where, one[name].get(where, "-"), other[name].get(where, "-"))
        for name in parts
        for where in dict.fromkeys((*one[name], *other[name]))
        if one[name].get(where) != other[name].get(where)
    ]


def _leaves(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """What stands where; lists are one thing, and equal members of one are told once."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{where}: {name}" if ":" not in where else f"{where}, {name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield where, ", ".join(_counted(value))
    else:
        yield where, "-" if value is None else str(value)


def _counted(items: Sequence[Any]) -> list[str]:
    told = [str(item.get("kind", item)) if isinstance(item, Mapping) else str(item) for item in items]
    return [f"{told.count(word)} × {word}" if told.count(word) > 1 else word for word in dict.fromkeys(told)]
