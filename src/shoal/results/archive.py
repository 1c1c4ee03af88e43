"""A file of arrays and facts that is complete or not there, and that says so when it is damaged."""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np

FACTS = "facts.json"
UNFINISHED = ".part"
DIGITS = 8


class DamagedFileError(ValueError):
    """A file is there but not what was written: cut off, or with bits that have changed."""


class Archive(NamedTuple):
    """What such a file holds.

    Attributes:
        arrays: by name.
        facts: what JSON can hold, and numbers that are not finite.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def write_archive(path: Path, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write a file, or leave what was there.

    The file is NumPy's `.npz` and eight digits more, a CRC-32 of all of it: ZIP's own checksums leave its directory
    out. It gets its name when it is on the disk.

    Args:
        path: of the file, in a folder that exists.
        arrays: by name; no name is `FACTS`.
        facts: what JSON can hold, and numbers that are not finite.
    """
    members: dict[str, Any] = {**arrays, FACTS: np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    part = path.with_name(path.name + UNFINISHED)
    try:
        with part.open("wb") as file:
            summed = _Summed(file)
            # Not `numpy.savez`: it copies what it writes, and folds are large.
            with zipfile.ZipFile(cast(Any, summed), "w") as archive:
                for name, array in members.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        _write_array(member, np.asarray(array))
            file.write(b"%08x" % summed.sum)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_array(member: IO[bytes], array: np.ndarray) -> None:
    descr = np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_2_0(member, header)
    member.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


class _Summed:
    """A file that is written from its beginning to its end, and the CRC-32 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sum = file, 0

    def write(self, data: bytes) -> int:
        self.sum = zlib.crc32(data, self.sum)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def read_archive(path: Path) -> Archive:
    """Read a file and check it.

    Raises:
        FileNotFoundError: it is not there.
        DamagedFileError: it is not what was written.
    """
    contents = path.read_bytes()
    if len(contents) < DIGITS or contents[-DIGITS:] != b"%08x" % zlib.crc32(memoryview(contents)[:-DIGITS]):
        raise DamagedFileError(f"The file '{path}' is damaged: its checksum is not that of what it holds.")
    with np.load(io.BytesIO(contents), allow_pickle=False) as members:
        arrays = {name: members[name] for name in members.files}
    return Archive(arrays, json.loads(arrays.pop(FACTS).tobytes()))
