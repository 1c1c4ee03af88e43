"""The local copy of a run at a URL: where it is written, what of it has been sent, and how long it is kept."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shoal.durable.lock import NO_LOCKS, held
from shoal.results.archive import UNFINISHED
from shoal.results.journal import BEGINNING, FOLDER, LOCK
from shoal.results.zarr_draws import HALF_WRITTEN

VARIABLE = "SHOAL_SPOOL"
RUN, ALONE, USERS, WRITERS, SENT, WHOLE = "run", "lock", "users", "writers.json", "sent.json", "uploaded"
LINGERING = "lingering.json"
DELETED = ".deleted-"


class Signature(NamedTuple):
    """What changes with a file: files of a run are replaced, or grow."""

    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path | os.DirEntry[str]) -> "Signature":
        """As it is now."""
        told = path.stat()
        return cls(told.st_ino, told.st_size, told.st_mtime_ns)


def spools() -> Path:
    """The folder of all local copies: `SHOAL_SPOOL`, or one in the user's cache folder."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted:
        return Path(wanted).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("shoal") / "spool"


def spool_of(url: str) -> Path:
    """The folder of the local copy of a run, which need not be there."""
    name = re.sub(r"[^\w.-]", "-", url.rpartition("/")[2])[:40]
    return spools() / f"{name}-{hashlib.blake2b(url.encode(), digest_size=8).hexdigest()}"


class Spool:
    """The local copy of one run; it is deleted when all of it is at the URL and nobody reads from it any more.

    Attributes:
        path: of its folder.
        run: the directory of the run in it.
    """

    def __init__(self, url: str) -> None:
        """Make the folder where it is missing, and keep others from deleting it.

        Args:
            url: of the run.

        Raises:
            ValueError: it cannot be made.
        """
        self.path = spool_of(url)
        self.run = self.path / RUN
        try:
            self._users = _shared(self.path)
        except OSError as error:
            raise ValueError(
                f"A run at a URL is written to a folder of this machine first, and '{self.path}' cannot be written "
                f"({error.strerror}). Set {VARIABLE} to a folder in a place where you may write, with room on the disk."
            ) from error
        weakref.finalize(self, _let_go, self._users, self.path)

    def keep_for(self, *owners: Any) -> None:
        """Keep it as long as any of these is there, which read from it."""
        for owner in owners:
            weakref.finalize(owner, id, self)

    @contextlib.contextmanager
    def alone(self, url: str) -> Iterator[None]:
        """Be the only process of this machine that writes the run.

        Raises:
            ValueError: another one does.
        """
        descriptor = held(self.path / ALONE, url)
        try:
            yield
        finally:
            os.close(descriptor)

    @property
    def is_begun(self) -> bool:
        """Whether it holds a run."""
        return (self.run / FOLDER / BEGINNING).is_file()

    @property
    def is_whole(self) -> bool:
        """Whether all of it was at the URL when a process ended."""
        return (self.path / WHOLE).exists()

    def mark(self, whole: bool) -> None:
        """Say whether all of it is at the URL."""
        (self.path / WHOLE).touch() if whole else (self.path / WHOLE).unlink(missing_ok=True)

    @property
    def writers(self) -> list[str]:
        """Nonces of processes which wrote the run from here, and since which nobody has from elsewhere."""
        return self._told(WRITERS, [])

    @writers.setter
    def writers(self, nonces: list[str]) -> None:
        self._tell(WRITERS, nonces)

    @property
    def lingering(self) -> str:
        """Nonce of the last one that has ended with something under way to the URL."""
        return self._told(LINGERING, "")

    @lingering.setter
    def lingering(self, nonce: str) -> None:
        self._tell(LINGERING, nonce)

    @property
    def sent(self) -> dict[str, Signature]:
        """Files that are at the URL, as they were when they were sent."""
        return {name: Signature(*told) for name, told in self._told(SENT, {}).items()}

    @sent.setter
    def sent(self, files: dict[str, Signature]) -> None:
        self._tell(SENT, files)

    def files(self) -> dict[str, Signature]:
        """Of the run as it is now, by name."""
        return {name: signature for name, signature in _walk(self.run, "") if _is_of_the_run(name)}

    @contextlib.contextmanager
    def filled(self) -> Iterator[Path]:
        """A folder to fill, which then is the run in place of what was there."""
        new = self.path / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        shutil.rmtree(self.run, ignore_errors=True)
        new.rename(self.run)

    def set_aside(self) -> Path:
        """Make room for another run; what was there is kept, and never deleted by Shoal."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}-aside-{number}")).exists():
            number += 1
        self.run.rename(aside)
        return aside

    def _told(self, name: str, otherwise: Any) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return otherwise

    def _tell(self, name: str, value: Any) -> None:
        part = self.path / (name + UNFINISHED)
        part.write_text(json.dumps(value))
        part.replace(self.path / name)


def sweep() -> None:
    """Delete local copies that are at their URLs and that nobody uses: of processes that ended by a signal."""
    for whole in spools().glob(f"*/{WHOLE}"):
        with contextlib.suppress(OSError):
            _let_go(os.open(whole.parent / USERS, os.O_RDWR), whole.parent)
    for left in spools().glob(f"*{DELETED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _is_of_the_run(name: str) -> bool:
    return name != f"{FOLDER}/{LOCK}" and not name.endswith((UNFINISHED, HALF_WRITTEN))


def _walk(folder: Path, before: str) -> Iterator[tuple[str, Signature]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{before}{entry.name}/")
            else:
                with contextlib.suppress(FileNotFoundError):
                    yield before + entry.name, Signature.of(entry)


def _shared(folder: Path) -> int:
    """An open file that tells others, as long as it is open, that the folder is in use."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder / USERS, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            if os.path.samestat(os.fstat(descriptor), (folder / USERS).stat()):
                return descriptor
            os.close(descriptor)  # deleted meanwhile


def _let_go(descriptor: int, folder: Path) -> None:
    """Use a folder no more; delete it where that is no loss to anybody."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / WHOLE).exists() or not (folder / RUN).exists():
            # Under another name first: half of a run would be taken for all of it.
            left = folder.with_name(f"{folder.name}{DELETED}{os.getpid()}")
            folder.rename(left)
            shutil.rmtree(left, ignore_errors=True)
    os.close(descriptor)
