"""Files of draws that cannot be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Damage(NamedTuple):
    """What was found.

    Attributes:
        words: what is wrong with the first file; empty where nothing is.
        whole: draws of each chain that come before any damage.
        files: that are damaged.
    """

    words: str
    whole: int
    files: list[Path]


def find_damage(run: Path, arrays: Mapping[str, Any], stored: int) -> Damage:
    """Look for files that are not what was written.

    All files are read. An error of the system, such as a disk that is gone for a while, is no damage, and is raised.

    Args:
        run: the directory.
        arrays: of draws, `[chain, draw, ...]`, by name.
        stored: draws that they have.
    """
    words, whole, files = "", stored, []
    for name, array in arrays.items():
        per_file = array.chunks[1]
        for number in range(-(-stored // per_file)):
            key = array.metadata.encode_chunk_key((0, number, *(0 for _ in array.shape[2:])))
            file, begin = run / array.path / key, number * per_file
            try:
                if not file.is_file():
                    raise ValueError("it is not there")
                array[:, begin : begin + per_file]
            except ValueError as error:
                words = words or f"the file '{file}' of {name!r} cannot be read: {str(error).rstrip('.')}"
                whole = min(whole, begin)
                files.append(file)
    return Damage(words, whole, files)
