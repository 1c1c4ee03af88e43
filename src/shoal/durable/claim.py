"""Who writes a run at a URL: one process at a time, which tells the store again and again that it is alive.

Each writer makes an object of its own, numbered after the one before, that the store makes only where there is none:
of two that want to follow a dead process one does. Whoever holds the largest number is the writer, and one that was
taken for dead sees so before it writes again. Times are compared by the store's clock, or not at all.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Collection
from typing import NamedTuple

from shoal.durable.lock import Holder
from shoal.objects import Objects, Stored
from shoal.results.journal import FOLDER

# Seconds between signs of life, and without one after which a process counts as dead.
BEAT, DEAD = 10.0, 60.0
# Seconds between looks for a sign of life.
LOOK = 2.0
# Of a process that may have been asleep meanwhile.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_NAME = re.compile(rf"{FOLDER}/writer-(\d{{10}})\.json")


class TakenOverError(Exception):
    """Another process has taken this one for dead, and writes the run."""


class Writer(NamedTuple):
    """Who writes a run, or did last.

    Attributes:
        number: of its object; 0 where there was nobody.
        process: its name: "process 123 on host".
        nonce: no other process has the same.
        beats: signs of life so far.
        released: whether it has said that it has ended.
    """

    number: int = 0
    process: str = ""
    nonce: str = ""
    beats: int = 0
    released: bool = True

    @property
    def key(self) -> str:
        """The name of its object."""
        return f"{FOLDER}/writer-{self.number:010d}.json"

    @property
    def contents(self) -> bytes:
        """Of its object."""
        return json.dumps({**self._asdict(), "seconds_between_beats": BEAT}).encode()


def is_claim(name: str) -> bool:
    """Whether an object says who writes, and is no part of the run."""
    return _NAME.fullmatch(name) is not None


def new_nonce() -> str:
    """Of a process that is about to write."""
    return secrets.token_hex(16)


def last_writer(objects: Objects, names: Collection[str] | None = None) -> Writer:
    """Who writes a run, or did last.

    Args:
        objects: of the run.
        names: of all of them, where that is known.
    """
    names = objects.listed(FOLDER) if names is None else names
    numbers = sorted((int(match[1]) for match in map(_NAME.fullmatch, names) if match), reverse=True)
    for number in numbers:
        with contextlib.suppress(FileNotFoundError):
            told = json.loads(objects.read(Writer(number).key))
            return Writer(number, *(told[name] for name in Writer._fields[1:]))
    return Writer()


def holder_at(objects: Objects, listed: dict[str, Stored]) -> Holder:
    """Who writes, for others to know; by the clock of this machine, which only this display trusts.

    Args:
        objects: of the run.
        listed: of all of them.
    """
    writer = last_writer(objects, listed)
    if writer.released:
        return Holder(False, writer.process)
    modified = listed[writer.key].modified if writer.key in listed else None
    return Holder(None if modified is None else time.time() - modified.timestamp() < DEAD, writer.process)


class Claim:
    """That this process writes the run."""

    def __init__(self, objects: Objects, last: Writer, nonce: str, dead: bool) -> None:
        """Follow the last writer.

        Args:
            objects: of the run.
            last: as from `last_writer`.
            nonce: of this process.
            dead: whether the last writer is known to have ended.

        Raises:
            ValueError: it is alive, or another process follows it.
        """
        self._objects = objects
        if not (last.released or dead):
            _wait_for_death(objects, last, nonce)
        self._told = _now()
        process = f"process {os.getpid()} on {socket.gethostname()}"
        self._own = Writer(last.number + 1, process, nonce, released=False)
        with contextlib.suppress(FileExistsError):
            objects.write(self._own.key, self._own.contents, new=True)
        now = last_writer(objects)
        if now.nonce != nonce:
            raise _refused(objects, now)
        for number in range(max(1, last.number - 1), last.number + 1):
            objects.delete(Writer(number).key)
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._lost: str | None = None
        self._abandoned = False
        threading.Thread(target=self._beat, name="shoal-claim", daemon=True).start()

    @property
    def nonce(self) -> str:
        """Of this process."""
        return self._own.nonce

    def check(self) -> None:
        """See that this process is the writer still.

        Raises:
            TakenOverError: it is not.
        """
        now = last_writer(self._objects)
        if now.nonce != self._own.nonce:
            self._lost = now.process or "unknown"
            raise TakenOverError(self._lost)

    def go_on(self) -> None:
        """See that nobody can have taken this process for dead; the store is asked only after a silence.

        Raises:
            TakenOverError: somebody has.
            TimeoutError: it cannot tell that it is alive; any error of the store means the same.
        """
        if self._lost is not None:
            raise TakenOverError(self._lost)
        if self._is_fresh():
            return
        if not self._turn.acquire(timeout=BEAT):
            raise TimeoutError("the store does not answer")
        try:
            if not self._is_fresh():
                self._tell()
        finally:
            self._turn.release()

    def abandon(self) -> None:
        """Tell nothing more, and release nothing: others wait until this process counts as dead."""
        self._ended.set()
        self._abandoned = True

    def release(self, keep: bool) -> None:
        """Let others write; never raises an error of the store: they see before long that nobody is alive.

        Args:
            keep: whether there is a run, whose last writer is to be known.
        """
        self._ended.set()
        if self._abandoned:
            return
        with self._turn, contextlib.suppress(Exception):
            self.check()
            if keep:
                self._objects.write(self._own.key, self._own._replace(released=True).contents)
            else:
                self._objects.delete(self._own.key)

    def _beat(self) -> None:
        while self._lost is None and not self._ended.wait(BEAT):
            # Where the store is gone for a while the next one may get there.
            with self._turn, contextlib.suppress(Exception):
                self._tell()

    def _tell(self) -> None:
        """Give a sign of life, which counts when nobody has followed before it arrived."""
        began = _now()
        self.check()
        if self._ended.is_set():
            raise TimeoutError("no sign of life is given any more")
        self._own = self._own._replace(beats=self._own.beats + 1)
        self._objects.write(self._own.key, self._own.contents)
        self.check()
        self._told = began

    def _is_fresh(self) -> bool:
        return _now() - self._told < DEAD / 2


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def _wait_for_death(objects: Objects, last: Writer, nonce: str) -> None:
    """Return when the last writer has ended, or has not told for long that it is alive.

    Raises:
        ValueError: it is alive.
    """
    began, age = time.monotonic(), _age(objects, last, nonce)
    while age + time.monotonic() - began < DEAD:
        time.sleep(LOOK)
        now = last_writer(objects)
        if now != last and not now.released:
            raise _refused(objects, now)
        if now.released:
            return


def _age(objects: Objects, last: Writer, nonce: str) -> float:
    """Seconds since a writer told that it was alive, by the clock of the store; 0 where that does not tell."""
    asking = f"{FOLDER}/asking-{nonce}"
    objects.write(asking, b"")
    try:
        listed = objects.listed(FOLDER)
    finally:
        objects.delete(asking)
    told, now = (listed[name].modified if name in listed else None for name in (last.key, asking))
    return 0.0 if told is None or now is None else max(0.0, (now - told).total_seconds())


def _refused(objects: Objects, writer: Writer) -> ValueError:
    return ValueError(
        f"The run in '{objects}' is being written by another process ({writer.process or 'unknown'}). Wait for it to "
        "end, stop it, or give another URL."
    )
