"""The lock of a run: one process at a time writes it, and everybody may ask whether one does."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

# How file systems say that they have no locks: then nothing keeps a second process out.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
# Whoever asks whether a run is being written has its lock for some microseconds: one who wants it tries again.
TRIES, PAUSE = 5, 0.05


class Holder(NamedTuple):
    """Who writes a run.

    Attributes:
        writing: whether a process does; None where the file system has no locks.
        name: the process that does, or did last: "process 123 on host".
    """

    writing: bool | None
    name: str


def held(file: Path, run: Path | str) -> int:
    """An open file that this process alone has locked; the system lets go of it when the process ends.

    Args:
        file: to lock, made where it is missing.
        run: the directory of the run, or its URL, for the message.

    Raises:
        ValueError: another process holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor)
    except BlockingIOError as error:
        holder = _name(descriptor)
        os.close(descriptor)
        raise ValueError(
            f"The run in '{run}' is being written by another process ({holder or 'unknown'}). Wait for it to end, stop "
            "it, or give another directory."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(descriptor)
            raise
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def holder_of(file: Path) -> Holder:
    """Who has locked a file, without keeping anybody from it: the lock that is tried is shared, and let go at once.

    Args:
        file: as of `held`; one that is not there is held by nobody.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return Holder(False, "")
    try:
        name = _name(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Holder(True, name)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return Holder(None, name)
        return Holder(False, name)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    for _ in range(TRIES - 1):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _name(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip()
