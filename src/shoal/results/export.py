"""A result as one file that other programs read."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shoal.results.datatree import check_draws
from shoal.results.netcdf import write_netcdf
from shoal.results.stored_draws import between
from shoal.results.tables import write_arrow, write_parquet

if TYPE_CHECKING:
    from shoal.results.result import Result

WRITERS: dict[str, Callable[["Result", Path], None]] = {
    "netcdf": write_netcdf,
    "arrow": write_arrow,
    "parquet": write_parquet,
}
FORMATS = {".nc": "netcdf", ".arrow": "arrow", ".feather": "arrow", ".parquet": "parquet"}
# Numbers that all the formats have.
NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


def export(result: "Result", path: str | os.PathLike[str], to: str | None, overwrite: bool) -> Path:
    """Write a result to a file; see `Result.export`."""
    place = Path(path).expanduser()
    write = WRITERS[checked_format(place, to)]
    check_file(place, overwrite)
    check_draws(result)
    if not result.num_draws:
        raise ValueError("The run has no draws yet, so there is nothing to export: wait until it has some.")
    for draws in (result.draws, result.sample_stats, result.warmup_draws):
        _check_numbers(draws)
    half = place.with_name(f".{place.name}.part")
    try:
        write(result, half)
        with half.open("rb") as file:
            os.fsync(file.fileno())
        check_file(place, overwrite)  # again: writing may have taken long
        half.replace(place)
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
    return place


def checked_format(place: Path, to: str | None) -> str:
    """The format of a file.

    Args:
        place: the file.
        to: the format that was asked for; None to go by the name of the file.

    Raises:
        ValueError: there is no such format, or the name does not say which.
    """
    found = FORMATS.get(place.suffix.lower()) if to is None else to
    if found not in WRITERS:
        known = ", ".join(map(repr, WRITERS))
        raise ValueError(
            f"to={to!r}: expected one of {known}."
            if to is not None
            else f"The name of the file '{place.name}' does not say its format: give one that ends in "
            f"{', '.join(FORMATS)}, or say which by to=, one of {known}."
        )
    return found


def check_file(place: Path, overwrite: bool) -> None:
    """Refuse a place where the file cannot be.

    Raises:
        ValueError: it is there and is not to be replaced, is a directory, or lies in one that does not exist.
    """
    if place.is_dir():
        raise ValueError(f"'{place}' is a directory, and a run is exported to a file: give the name of one.")
    if not place.parent.is_dir():
        raise ValueError(f"The directory '{place.parent}' does not exist: make it, or give a file in one that does.")
    if not overwrite and (place.exists() or place.is_symlink()):
        raise ValueError(
            f"The file '{place}' is there already, and is not written over. Give another name, or say that it is to be "
            "replaced (overwrite=True, --force)."
        )


def _check_numbers(draws: Mapping[str, np.ndarray]) -> None:
    for name in draws:
        dtype = between(draws, name, 0, 1).dtype
        if dtype.name not in NUMBERS:
            raise ValueError(
                f"The numbers of {name!r} are of type {dtype.name}, which the formats of files do not have: have the "
                f"model give one of {', '.join(NUMBERS)}."
            )
