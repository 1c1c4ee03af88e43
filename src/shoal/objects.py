"""Object stores: what a run at a URL such as `s3://bucket/run` needs of one, by fsspec."""

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from shoal.extras import missing, require

PURPOSE = "A run at a URL"
# Of each the package that reads and writes it. Their objects are replaced as a whole or not at all, which other things
# that fsspec knows, as SFTP, do not promise.
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "fsspec",
}
# Requests under way at once: one takes some hundredths of a second, most of which is waiting.
AT_ONCE = 8


class Stored(NamedTuple):
    """What a store tells of an object.

    Attributes:
        size: in bytes.
        modified: when it was written, by the clock of the store; None where it does not tell.
    """

    size: int
    modified: datetime.datetime | None


class Objects:
    """The objects under a URL, by the rest of their names.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        """Ask nothing of the store yet.

        Raises:
            ValueError: the URL is of no object store.
            ModuleNotFoundError: a package is missing; the message says how to install it.
        """
        self.url = url.rstrip("/")
        protocol, _, rest = self.url.partition("://")
        if protocol not in PACKAGES or not rest.strip("/"):
            raise ValueError(
                f"'{url}' is no place for a run: give a directory, or the URL of an object store with the name of a "
                f"bucket, such as s3://bucket/run. Known are {', '.join(f'{name}://' for name in PACKAGES)}."
            )
        fsspec = require("fsspec", PURPOSE, extra="cloud")
        try:
            self._store, self._root = fsspec.url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise missing(PACKAGES[protocol], f"{PURPOSE} of {protocol}://", extra="cloud") from error

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    def listed(self, folder: str = "") -> dict[str, Stored]:
        """All objects, or those in a folder of it."""
        self._store.invalidate_cache()
        found = self._store.find(self._path(folder) if folder else self._root, detail=True)
        start = len(self._root) + 1
        return {
            path[start:]: Stored(int(told["size"]), _modified(told))
            for path, told in found.items()
            if len(path) > start
        }

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            self._store.info(self._path(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """One object.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self._store.cat_file(self._path(name))

    def tail(self, name: str, size: int) -> bytes:
        """The last bytes of one object.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self._store.tail(self._path(name), size)

    def write(self, name: str, contents: bytes, new: bool = False) -> None:
        """Write one object.

        Raises:
            FileExistsError: it is to be new and there is one.
        """
        self._store.pipe_file(self._path(name), contents, mode="create" if new else "overwrite")

    def send(self, file: Path, name: str) -> None:
        """Write a file as one object; others see all of it or what was there before."""
        self._store.put_file(str(file), self._path(name))

    def fetch(self, name: str, file: Path) -> None:
        """Write one object to a file, in a folder that is made where it is missing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._store.get_file(self._path(name), str(file))

    def delete(self, name: str) -> None:
        """Delete one object, if it is there."""
        with contextlib.suppress(FileNotFoundError, KeyError):
            self._store.rm_file(self._path(name))

    def fetch_all(self, names: Iterable[str], folder: Path) -> None:
        """Write objects to files of the same names, several at once; one that is gone meanwhile is left out."""

        def fetch(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.fetch(name, folder / name)

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shoal-fetch") as pool:
            list(pool.map(fetch, names))

    def as_zarr(self) -> Any:
        """For Zarr to read from.

        Zarr would open connections of its own, in its event loop, and nobody would close them.
        """
        wrapper = require("fsspec.implementations.asyn_wrapper", PURPOSE, extra="cloud")
        storage = require("zarr.storage", PURPOSE, extra="store")
        store = wrapper.AsyncFileSystemWrapper(self._store, asynchronous=True)
        return storage.FsspecStore(store, read_only=True, path=self._root)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def place_of(out: str | os.PathLike[str]) -> Path | Objects:
    """Where a run is: a directory, absolute since a program may change its working directory later, or a URL.

    Raises:
        ValueError: as of `Objects`.
        ModuleNotFoundError: as of `Objects`.
    """
    text = os.fspath(out)
    if "://" not in text and text.partition(":/")[0] in PACKAGES:  # what a Path makes of a URL
        what = f"Path({text!r}) is no URL any more" if isinstance(out, PurePath) else f"{text!r} is no URL"
        raise ValueError(f"{what}: give it as a string, such as 's3://bucket/run'.")
    return Objects(text) if "://" in text else Path(text).expanduser().absolute()


@contextlib.contextmanager
def explained(objects: Objects) -> Iterator[None]:
    """Say at the door what stands in the way of using a store.

    Raises:
        ValueError: whatever the store has raised.
    """
    try:
        yield
    except (ValueError, FileExistsError):
        raise
    except FileNotFoundError as error:
        raise ValueError(
            f"'{objects}' cannot be used: {_told(error)} Make the bucket, or give one that is there."
        ) from error
    except PermissionError as error:
        raise ValueError(
            f"'{objects}' cannot be used: {_told(error)} A run lists, reads, writes and deletes objects there: give "
            "the credentials of somebody who may, in the environment or the files where fsspec's package for it looks."
        ) from error
    except Exception as error:
        raise ValueError(
            f"'{objects}' cannot be reached: {_told(error)} See that the network, the address of the store and the "
            "credentials in the environment are those for it."
        ) from error


def _told(error: Exception) -> str:
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}." if words else f"{type(error).__name__}."


def _modified(told: dict[str, Any]) -> datetime.datetime | None:
    """As the packages call it, each in its way."""
    for name in ("LastModified", "last_modified", "updated", "created", "mtime"):
        when = told.get(name)
        if isinstance(when, str):
            when = datetime.datetime.fromisoformat(when)
        if isinstance(when, datetime.datetime):
            return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return None
