"""Draws as rows `[quantity, chain, draw]` in blocks of bounded size; their halves and normal scores."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.special

# Numbers in one block: 16 MB in double precision, and a few times that in temporaries.
BLOCK = 1 << 21


@runtime_checkable
class InParts(Protocol):
    """A variable that is not in memory.

    Attributes:
        shape: `[chain, draw, *shape]`.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def parts(self) -> Iterator[np.ndarray]:
        """Arrays `[chain, draw, ...]` whose quantities follow on each other in C order."""
        ...


def variable(draws: Mapping[str, np.ndarray], name: str) -> np.ndarray | InParts:
    """One of the variables; in parts where the draws can be had so.

    Args:
        draws: by variable, `[chain, draw, *shape]`.
        name: which.
    """
    in_parts = getattr(draws, "variable", None)
    return np.asarray(draws[name]) if in_parts is None else in_parts(name)


def blocks(draws: np.ndarray | InParts) -> Iterator[tuple[slice, np.ndarray]]:
    """The draws as blocks of quantities.

    Args:
        draws: `[chain, draw, *shape]`.

    Yields:
        The place of the block among the quantities in C order, and its rows, floating.
    """
    passed = 0
    for part in draws.parts() if isinstance(draws, InParts) else [np.asarray(draws)]:
        if part.dtype not in (np.float32, np.float64):
            part = part.astype(np.float64)
        flat = part.reshape(*part.shape[:2], int(np.prod(part.shape[2:])))
        width = max(1, BLOCK // max(1, flat.shape[0] * flat.shape[1]))
        for begin in range(0, flat.shape[2], width):
            rows = np.ascontiguousarray(flat[:, :, begin : begin + width].transpose(2, 0, 1))
            yield slice(passed + begin, passed + begin + len(rows)), rows
        passed += flat.shape[2]


def row_of(draws: np.ndarray | InParts, quantity: int) -> np.ndarray:
    """The draws of one quantity.

    Args:
        draws: `[chain, draw, *shape]`.
        quantity: its number, in C order.

    Returns:
        `[chain, draw]`.

    Raises:
        IndexError: there is no such quantity.
    """
    for part in draws.parts() if isinstance(draws, InParts) else [np.asarray(draws)]:
        flat = part.reshape(*part.shape[:2], int(np.prod(part.shape[2:])))
        if quantity < flat.shape[2]:
            return flat[:, :, quantity]
        quantity -= flat.shape[2]
    raise IndexError("There is no such quantity.")


def moving(rows: np.ndarray) -> np.ndarray:
    """Which quantities are finite everywhere and not constant.

    Args:
        rows: `[quantity, chain, draw]`.

    Returns:
        `[quantity]`, bool.
    """
    if not rows[0].size:
        return np.zeros(rows.shape[0], bool)
    low, high = rows.min((1, 2)), rows.max((1, 2))
    return np.isfinite(low) & np.isfinite(high) & (low < high)


def split(rows: np.ndarray) -> np.ndarray:
    """Halves of chains as chains; the middle draw of an odd number is left out.

    Args:
        rows: `[quantity, chain, draw]`.

    Returns:
        `[quantity, 2 chain, draw // 2]`: all first halves, then all second halves.
    """
    half = rows.shape[2] // 2
    return np.concatenate([rows[:, :, :half], rows[:, :, rows.shape[2] - half :]], axis=1)


def normal_scores(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores of the ranks, and of the ranks of the distance from the median.

    Args:
        rows: `[quantity, chain, draw]`, finite.

    Returns:
        Two arrays of the same shape; Blom's scores, tied values share the mean of their ranks.
    """
    flat = rows.reshape(rows.shape[0], -1)
    size = flat.shape[1]
    # The mean of tied ranks is a whole or a half number: a table holds every score there is.
    table = scipy.special.ndtri((np.arange(2 * size - 1) / 2 + 1 - 3 / 8) / (size + 1 / 4))
    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, axis=1)
    bulk = np.empty(flat.shape)
    np.put_along_axis(bulk, order, table[_doubled_ranks(ordered)], axis=1)
    median = ordered[:, (size - 1) // 2] / 2 + ordered[:, size // 2] / 2
    # Distances from the median, lower half turned round: two ascending runs for a merge sort.
    turn = np.concatenate([np.arange(size // 2)[::-1], np.arange(size // 2, size)])
    # What is further off than the largest number is as far as anything is.
    with np.errstate(over="ignore"):
        distance = np.abs(ordered[:, turn] - median[:, None])
    merged = np.argsort(distance, axis=1, kind="stable")
    folded = np.empty(flat.shape)
    ranks = _doubled_ranks(np.take_along_axis(distance, merged, axis=1))
    np.put_along_axis(folded, np.take_along_axis(order, turn[merged], axis=1), table[ranks], axis=1)
    return bulk.reshape(rows.shape), folded.reshape(rows.shape)


def _doubled_ranks(ordered: np.ndarray) -> np.ndarray:
    """Twice the rank, from 0, of sorted rows; tied values share their mean rank."""
    size = ordered.shape[1]
    place = np.broadcast_to(np.arange(size), ordered.shape)
    differs = ordered[:, 1:] != ordered[:, :-1]
    if differs.all():
        return 2 * place
    edge = np.ones((len(ordered), 1), bool)
    first = np.where(np.concatenate([edge, differs], axis=1), place, 0)
    last = np.where(np.concatenate([differs, edge], axis=1), place, size - 1)
    first = np.maximum.accumulate(first, axis=1)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    return first + last
