"""Draws on disk: a Zarr store that fills up while sampling, and a mapping that reads it on access.

The arrays are made once, for the number of draws that was asked for, and filled chunk by chunk; what is not
written reads as missing: NaN, or the `_FillValue` that integers and booleans declare. The attribute
`draws_committed` is written after the draws that it counts: a reader after a crash knows where to cut.

Names with "/" would make groups of groups. Their arrays have a plain name, and their own in the attribute `name`.
"""

import datetime
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.extras import require
from shoal.results.directories import check_new
from shoal.results.draws import Header, check_chunk
from shoal.results.names import names_of_axes, plain_axes, plain_names

if TYPE_CHECKING:
    from shoal.results.result import Result

FORMAT_VERSION = 1
# Large enough that a long run makes few files, small enough that writing a part of one costs little.
FILE_BYTES = 4_000_000


def zarr_package() -> Any:
    """Zarr, or an error that names it."""
    return require("zarr", "Saving and loading draws", extra="store")


def plain(value: Any) -> Any:
    """The same value out of types that JSON has; numbers that are not finite become "nan", "inf", "-inf"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def to_json(value: Any) -> str:
    """The value as JSON text."""
    return json.dumps(plain(value), ensure_ascii=False)


class StoredDraws(Mapping[str, np.ndarray]):
    """Variables of one group of a store, read from disk each time one is asked for.

    Attributes:
        count: the number of draws that are shown; later ones are not committed.
    """

    def __init__(self, arrays: Mapping[str, Any], count: int) -> None:
        self._arrays = dict(arrays)
        self.count = count

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        values = np.asarray(array[:, : self.count])
        return values.astype(bool) if array.attrs.get("stored_dtype") == "bool" else values

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable, chain and draw not counted; nothing is read.

        Args:
            name: the variable.

        Returns:
            The shape.
        """
        return tuple(self._arrays[name].shape[2:])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        parts = [f"{name} {(array.shape[0], self.count, *array.shape[2:])}" for name, array in self._arrays.items()]
        return f"StoredDraws({', '.join(parts)})"


class ZarrDraws:
    """Writes draws to a Zarr store, chunk by chunk.

    Args:
        path: the directory of the run; see `check_new`.
        num_samples: how many draws per chain are expected. Fewer are trimmed, more make the arrays longer.
        header: what is known about the run.

    Attributes:
        path: the directory.
        header: what is known about the run.
        committed: the number of draws written so far.
    """

    def __init__(self, path: str | os.PathLike[str], num_samples: int, header: Header) -> None:
        self.path = check_new(path)
        self.header = header
        self.committed = 0
        self._room = num_samples
        names = (*names_of_axes(header.dims), *header.coords, *header.dims, *header.parameters)
        self._plain = plain_names(names)
        self._root = zarr_package().open_group(str(self.path), mode="w-", zarr_format=3)
        self._groups = {name: self._root.create_group(name) for name in ("posterior", "sample_stats")}
        self._arrays: dict[str, dict[str, Any]] = {name: {} for name in self._groups}
        self._order: dict[str, list[str]] = {name: [] for name in self._groups}
        for group in self._groups.values():
            self._write_coordinates(group)
        self._root.attrs.update(self._first_attributes())

    def _first_attributes(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "inference_library": "shoal",
            "inference_library_version": self.header.versions.get("shoal", ""),
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
            "num_samples": self._room,
            "draws_committed": 0,
            "finished": False,
            "parameters": to_json(self.header.parameters),
            "dims": to_json(self.header.dims),
            "settings": to_json(self.header.settings),
            "versions": to_json(self.header.versions),
            "warmup": to_json(self.header.warmup),
        }

    def _write_coordinates(self, group: Any) -> None:
        self._coordinate(group, "chain", "chain", np.arange(self.header.num_chains))
        self._coordinate(group, "draw", "draw", np.arange(self._room))
        self._coordinate(group, "superchain", "chain", np.asarray(self.header.superchain))
        group.attrs["coordinates"] = "superchain"
        if group.name.endswith("posterior"):
            for axis, ticks in self.header.coords.items():
                self._coordinate(group, axis, axis, np.asarray(ticks))

    def _coordinate(self, group: Any, name: str, axis: str, ticks: np.ndarray) -> None:
        if ticks.dtype.kind not in "iufb":
            ticks = np.array([str(tick) for tick in ticks], dtype=np.dtypes.StringDType())
        dtype = str if isinstance(ticks.dtype, np.dtypes.StringDType) else ticks.dtype
        array = group.create_array(
            self._plain[name],
            shape=ticks.shape,
            dtype=dtype,
            dimension_names=(self._plain[axis],),
            compressors=None,
            attributes=self._own_name(name),
        )
        if ticks.size:
            array[...] = ticks

    def _own_name(self, name: str) -> dict[str, Any]:
        return {} if self._plain[name] == name else {"name": name}

    def _array(self, group: str, name: str, chunk: np.ndarray) -> Any:
        arrays = self._arrays[group]
        if name not in arrays:
            dtype, fill, attributes = _storage(chunk.dtype)
            arrays[name] = self._groups[group].create_array(
                self._plain[name],
                shape=(chunk.shape[0], self._room, *chunk.shape[2:]),
                chunks=(chunk.shape[0], self._draws_per_chunk(chunk), *(max(1, n) for n in chunk.shape[2:])),
                dtype=dtype,
                fill_value=fill,
                compressors=None,
                dimension_names=("chain", "draw", *plain_axes(name, chunk.ndim - 2, self.header.dims, self._plain)),
                attributes=attributes | self._own_name(name),
            )
        return arrays[name]

    def _draws_per_chunk(self, chunk: np.ndarray) -> int:
        """Draws in one file of an array: as many as `FILE_BYTES` hold, whatever comes in one chunk of the run."""
        return int(np.clip(FILE_BYTES // max(1, chunk[:, :1].nbytes), 1, max(1, self._room)))

    def append(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> None:
        """Write a chunk, then count it.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
        """
        count = check_chunk(self.header, values, stats)
        begin, end = self.committed, self.committed + count
        if end > self._room:
            self._resize(end)
        self._plain = plain_names((*values, *stats), self._plain)
        for group, chunk in (("posterior", values), ("sample_stats", stats)):
            for name, value in chunk.items():
                value = np.asarray(value)
                self._array(group, name, value)[:, begin:end] = value
            # Directories come back in any order, and the table should have the model's.
            if list(self._arrays[group]) != self._order[group]:
                self._groups[group].attrs["variables"] = list(self._arrays[group])
                self._order[group] = list(self._arrays[group])
        # Counted here first: the arrays are never cut to less than a reader was told to read.
        self.committed = end
        self._root.attrs["draws_committed"] = end

    def _resize(self, room: int) -> None:
        for name, group in self._groups.items():
            for array in self._arrays[name].values():
                array.resize((array.shape[0], room, *array.shape[2:]))
            group["draw"].resize((room,))
            if room:
                group["draw"][...] = np.arange(room)
        self._room = room

    @property
    def draws(self) -> StoredDraws:
        """The draws so far, read from disk on access."""
        return StoredDraws(self._arrays["posterior"], self.committed)

    @property
    def sample_stats(self) -> StoredDraws:
        """The sample statistics so far, read from disk on access."""
        return StoredDraws(self._arrays["sample_stats"], self.committed)

    def finish(self, result: "Result") -> None:
        """Trim to the draws that were made and write what is known at the end.

        Args:
            result: of this run; its tuning, timing, gradients, findings and notes are written.
        """
        self._resize(self.committed)
        for arrays in self._arrays.values():
            for array in arrays.values():
                _declare_complete(array)
        tuning = self._root.create_group("tuning")
        for name, value in result.tuning.items():
            value = np.asarray(value)
            names = tuple(f"{name}_dim_{axis}" for axis in range(value.ndim))
            array = tuning.create_array(
                name, shape=value.shape, dtype=value.dtype, dimension_names=names, compressors=None
            )
            array[...] = value
        self._root.attrs.update(
            {
                "timing": to_json(result.timing._asdict()),
                "gradients": to_json(result.gradients._asdict()),
                "notes": to_json([note.as_dict() for note in result.notes]),
                "findings": to_json([finding.as_dict() for finding in result.findings]),
                "draws_committed": self.committed,
                "interrupted": bool(result.interrupted),
                "finished": True,
            }
        )


def _storage(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any, dict[str, Any]]:
    """The type on disk, the number that means missing, and the attributes that say so."""
    if dtype.kind == "b":
        return np.dtype(np.int8), -1, {"_FillValue": -1, "stored_dtype": "bool"}
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        missing = int(limits.max if dtype.kind == "u" else limits.min)
        return dtype, missing, {"_FillValue": missing}
    return dtype, np.nan, {}


def _declare_complete(array: Any) -> None:
    """Nothing is missing any more: readers may show integers and booleans as such."""
    attributes = {key: value for key, value in array.attrs.asdict().items() if key != "_FillValue"}
    if attributes.get("stored_dtype") == "bool":
        attributes["dtype"] = "bool"
    array.attrs.put(attributes)
