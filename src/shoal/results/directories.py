"""Whether a run can be written to a place."""

import os
import tempfile
from pathlib import Path

from shoal.objects import Objects, Stored, explained, place_of
from shoal.results.archive import UNFINISHED
from shoal.results.journal import BEGINNING, FOLDER, LOCK
from shoal.results.made import SAMPLING, WARMUP

# What a run is made of: of what else is beside it at a URL nothing is read or deleted.
PARTS = (*SAMPLING.groups, *WARMUP.groups, "tuning", FOLDER, "zarr.json", "metrics.jsonl", "tensorboard")


def check_new(path: str | os.PathLike[str]) -> Path:
    """Refuse a place where a new run cannot be written.

    Args:
        path: the directory of the run. It need not exist; nothing is left behind by asking.

    Returns:
        The path, absolute: a program may change its working directory later.

    Raises:
        ValueError: it is a file, holds a run already, holds something else, or cannot be written.
    """
    place = Path(path).expanduser().absolute()
    if place.is_dir():
        if (place / "zarr.json").exists():
            raise ValueError(
                f"The directory '{place}' already holds a run, and a run is not written over another. Give a "
                f"new directory, or delete this one; shoal.load('{place}') reads the run that is there."
            )
        if any(place.iterdir()):
            raise ValueError(
                f"The directory '{place}' is not empty and does not hold a run. A run needs a directory of "
                f"its own: give one that is empty or does not exist, such as '{place / 'run'}'."
            )
    elif place.exists() or place.is_symlink():
        raise ValueError(
            f"'{place}' is a file, and a run is a directory: give the name of a directory that is empty or "
            "does not exist."
        )
    _try_writing(place)
    return place


def check_place(path: str | os.PathLike[str]) -> Path | Objects:
    """Refuse a place where a run can neither be written nor go on.

    Args:
        path: the directory of the run, new or with checkpoints in it, or a URL.

    Returns:
        The path, absolute, or the objects under the URL.

    Raises:
        ValueError: as of `check_new`, or the store cannot be used.
        ModuleNotFoundError: a package is missing that the URL needs.
    """
    place = place_of(path)
    if isinstance(place, Objects):
        with explained(place):
            check_objects(place)
        return place
    files = place / FOLDER
    begun = (files / BEGINNING).is_file()
    # What a process leaves that ends before it has written how the run begins.
    bare = files.is_dir() and list(place.iterdir()) == [files]
    bare = bare and all(file.name == LOCK or file.name.endswith(UNFINISHED) for file in files.iterdir())
    return place if begun or bare else check_new(place)


def check_objects(objects: Objects) -> dict[str, Stored]:
    """Refuse a URL where a run can neither be written nor go on.

    Returns:
        All objects under it.

    Raises:
        ValueError: it holds something else.
    """
    listed = objects.listed()
    if f"{FOLDER}/{BEGINNING}" in listed or all(name.startswith(f"{FOLDER}/") for name in listed):
        return listed
    if "zarr.json" in listed:
        raise ValueError(
            f"'{objects}' already holds a run that cannot go on, and a run is not written over another. Give a new "
            f"URL, or delete this one; shoal.load('{objects}') reads the run that is there."
        )
    raise ValueError(
        f"'{objects}' is not empty and does not hold a run. A run needs a URL of its own, such as '{objects}/run'."
    )


def _try_writing(place: Path) -> None:
    made: list[Path] = []
    try:
        for directory in (*reversed(place.parents), place):
            if not directory.exists():
                directory.mkdir()
                made.append(directory)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"The directory '{place}' cannot be written ({error.strerror}). Give a directory in a place "
            "where you may write, with room on the disk."
        ) from error
    finally:
        for directory in reversed(made):
            directory.rmdir()
