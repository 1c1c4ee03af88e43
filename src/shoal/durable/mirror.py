"""Sending a run to its URL: it is written to a local copy, as any run, and a thread sends from there what changes.

What is at the URL is at any moment a run to load and to go on with. Files of a moment at which nothing is half done
are sent as whole objects: arrays, then `zarr.json`, which counts draws, then what the warmup left, and checkpoints of
chunks; last what is gone is deleted. So draws count when they are there, and what a run goes on from is there until it
goes on from something later. After damage fewer draws may count than before: then `zarr.json` is sent first, too.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from shoal.diagnostics.findings import Finding
from shoal.durable.claim import DEAD, Claim, TakenOverError
from shoal.durable.folder import WARM, RunFolder
from shoal.durable.spool import Signature, Spool
from shoal.objects import AT_ONCE, Objects
from shoal.results.journal import BEGINNING, FOLDER, Journal
from shoal.results.made import SAMPLING, WARMUP
from shoal.results.result import Result
from shoal.stopping import Stop

ROOT = "zarr.json"
FIRST, ENDED = f"{FOLDER}/{BEGINNING}", f"{FOLDER}/{WARM}"
# Seconds between looks for something to send; after a failure they double from the first to the second.
EVERY, RETRY, SELDOM = 10.0, 1.0, 60.0
# The second of these at the end of a run.
OFTEN = 4.0
# Seconds without progress after which the end of a run does not wait any longer, and where a signal ended it: who sends
# SIGTERM often kills 30 seconds later.
PATIENCE, HURRY = 120.0, 10.0
# Seconds between looks for a signal.
LOOK = 0.1
# Of an object that the local copy has not sent, or not so.
NONE = Signature(0, -1, 0)


class Snapshot(NamedTuple):
    """A run at a moment at which nothing is half done.

    Attributes:
        files: all of them, as they are then, by name.
        changed: where those that are not at the URL yet are, which do not change any more.
    """

    files: dict[str, Signature]
    changed: dict[str, Path]


class Counted(NamedTuple):
    """What a `zarr.json` says.

    Attributes:
        made: when the store was; None where it has draws of the warmup alone.
        draws: that count.
        warmup: draws of the warmup that count.
    """

    made: str | None
    draws: int
    warmup: int

    @classmethod
    def by(cls, contents: bytes) -> "Counted":
        """A file of this name."""
        attributes = json.loads(contents).get("attributes", {})
        draws, warmup = (int(attributes.get(kind.committed, 0)) for kind in (SAMPLING, WARMUP))
        return cls(attributes.get("created_at"), draws, warmup)

    def makes_room(self, there: "Counted") -> bool:
        """Whether draws that count there do not here: then files of draws may be gone."""
        return self.made != there.made or self.draws < there.draws or self.warmup < there.warmup


class Mirror:
    """Sends a run to its URL while it goes on."""

    def __init__(
        self,
        objects: Objects,
        spool: Spool,
        claim: Claim,
        folder: RunFolder,
        sent: dict[str, Signature],
        notes: Sequence[Finding],
    ) -> None:
        """Begin to send.

        Args:
            objects: where to.
            spool: the local copy.
            claim: that this process writes the run.
            folder: of the run in the local copy.
            sent: what is at the URL, as the local copy had it when it was sent, or `NONE`.
            notes: what there is to say of the local copy.
        """
        self._objects, self._spool, self._claim, self._folder = objects, spool, claim, folder
        self._sent, self._notes = sent, notes
        self._counted: Counted | None = None
        self._snapshot = spool.path / "snapshot"
        for left in spool.path.glob("snapshot*"):
            shutil.rmtree(left, ignore_errors=True)
        self._wake, self._ending, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._abandoned = self._whole = False
        self._failure: Exception | None = None
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._keep_up, name="shoal-mirror", daemon=True)
        self._thread.start()

    def complete(self, is_hurried: Callable[[], bool]) -> Finding | None:
        """Wait until everything is at the URL, or as long as there is progress.

        Args:
            is_hurried: whether the process may be killed soon.

        Returns:
            What is not there, and what to do about it.
        """
        self._progress = time.monotonic()
        self._ending.set()
        self._wake.set()
        with contextlib.suppress(KeyboardInterrupt):  # nothing is lost by leaving at once
            while not self._ended.wait(LOOK):
                if time.monotonic() - self._progress > (HURRY if is_hurried() else PATIENCE):
                    break
        self._abandoned = True
        self._wake.set()
        self._spool.mark(self._whole)
        return None if self._whole else self._not_uploaded()

    def delivered(self, result: Result, stop: Stop) -> Result:
        """A result whose run is at the URL, or that says what is not; it is read from the local copy."""
        missing = self.complete(lambda: stop.signal is not None)
        self.keep(result)
        said = (*self._notes, *(() if missing is None else (missing,)))
        if not said:
            return result
        return dataclasses.replace(result, notes=(*result.notes, *said), judged=(*result.findings, *said))

    def keep(self, result: Result) -> None:
        """Leave the local copy there as long as a result reads from it."""
        warmup = (part for part in (result.warmup_draws, result.warmup_sample_stats) if part)
        self._spool.keep_for(result.draws, result.sample_stats, *warmup)

    def close(self) -> bool:
        """Send nothing more.

        Returns:
            Whether there is something of the run at the URL.
        """
        self._abandoned = True
        self._wake.set()
        self._thread.join(LOOK)
        if self._thread.is_alive():  # what is under way may arrive after whatever follows
            self._spool.lingering = self._claim.nonce
            self._claim.abandon()
        shutil.rmtree(self._snapshot, ignore_errors=True)
        return bool(self._sent)

    def _keep_up(self) -> None:
        failures, pause = 0, 0.0
        while not self._abandoned:
            self._wake.wait(pause)
            self._wake.clear()
            is_last, began = self._ending.is_set(), time.monotonic()
            try:
                self._send()
                failures, pause, self._failure = 0, max(EVERY, time.monotonic() - began), None
                if is_last and not self._abandoned:
                    self._whole = True
                    break
            except TakenOverError as failure:
                self._failure = failure
                break
            except Exception as failure:
                self._failure = failure
                pause, failures = min(RETRY * 2.0**failures, OFTEN if is_last else SELDOM), failures + 1
        self._ended.set()

    def _send(self) -> None:
        """Bring what is at the URL to the state of the run."""
        with self._folder.changing:
            now = self._taken()
        gone = self._deleted(now)
        if not (now.changed or gone):
            return
        self._claim.check()
        send = lambda name: self._send_one(name, now)
        self._uncount(now, gone)
        if FIRST in now.changed:
            send(FIRST)
        chunks = set(Journal.names_beyond(now.changed, 0))
        self._each([name for name in now.changed if name not in (FIRST, ROOT, ENDED, *chunks)], send)
        if ROOT in now.changed:
            self._counted = None  # until it has arrived
            send(ROOT)
            self._counted = Counted.by(now.changed[ROOT].read_bytes())
        if ENDED in now.changed:  # from where no draw of the warmup is made again
            send(ENDED)
        self._each(sorted(chunks), send)
        self._each(sorted(gone - {ROOT}), self._delete_one)
        self._go_on()
        self._spool.sent = self._sent

    def _deleted(self, now: Snapshot) -> Set[str]:
        """What the run has deleted. What somebody else has, who cleans up the folder of a cache, stays at the URL."""
        gone = self._sent.keys() - now.files.keys()
        there, root = self._counted, now.changed.get(ROOT)
        if ROOT in gone or (there and root and Counted.by(root.read_bytes()).makes_room(there)):
            return gone
        return {name for name in gone if name.startswith(f"{FOLDER}/") and name != FIRST}

    def _uncount(self, now: Snapshot, gone: Set[str]) -> None:
        """See that no draw counts at the URL that is not in what is sent next, as after damage."""
        if ROOT in gone:
            self._delete_one(ROOT)
        if ROOT not in now.changed:
            return
        with contextlib.suppress(FileNotFoundError):
            try:
                there = self._counted or Counted.by(self._objects.read(ROOT))
            except ValueError:  # what is there is not what was sent
                self._objects.delete(ROOT)
                return
            new = Counted.by(now.changed[ROOT].read_bytes())
            if there.made is not None and new.made != there.made:  # of another store: chunks have other sizes
                self._objects.delete(ROOT)
            elif new.draws < there.draws or new.warmup < there.warmup:
                self._send_one(ROOT, now)

    def _taken(self) -> Snapshot:
        """The run as it is; while nothing of it changes."""
        new = Path(tempfile.mkdtemp(prefix="snapshot-", dir=self._spool.path))
        files = self._spool.files()
        changed = {}
        for name, signature in files.items():
            if self._sent.get(name) != signature:
                changed[name] = new / str(len(changed))
                _same_file(self._spool.run / name, changed[name])
        # The last one is kept until now: so no file that has changed since has the inode of the one that was sent.
        shutil.rmtree(self._snapshot, ignore_errors=True)
        new.rename(self._snapshot)
        changed = {name: self._snapshot / file.name for name, file in changed.items()}
        return Snapshot(files, changed)

    def _each(self, names: list[str], do: Callable[[str], None]) -> None:
        """Do something for several at once; the first failure is raised when none is under way any more."""
        if len(names) < 2:
            for name in names:
                do(name)
            return
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shoal-send") as pool:
            list(pool.map(do, names))

    def _send_one(self, name: str, now: Snapshot) -> None:
        self._go_on()
        self._objects.send(now.changed[name], name)
        self._sent[name] = now.files[name]
        self._progress = time.monotonic()

    def _delete_one(self, name: str) -> None:
        self._go_on()
        self._objects.delete(name)
        del self._sent[name]
        self._progress = time.monotonic()

    def _go_on(self) -> None:
        if self._abandoned:
            raise InterruptedError
        self._claim.go_on()

    def _not_uploaded(self) -> Finding:
        failure, where = self._failure, f"'{self._spool.run}' on this machine"
        if isinstance(failure, TakenOverError):
            words = (
                f"Another process ({failure}) writes the run in '{self._objects}' now: for {DEAD:.0f} seconds this one "
                f"could give no sign of life. What it has drawn is in {where}."
            )
            remedy = "shoal.load of that directory reads it; the other process makes the same draws."
        else:
            told = "" if failure is None else " ".join(f"{type(failure).__name__}: {failure}".split()).rstrip(".")
            why = f"the store could not be written, with {told}" if told else "there was no time to wait for it"
            words = f"Not all of the run is in '{self._objects}': {why}. All of it is in {where}."
            remedy = (
                "The same call, or shoal.resume, on this machine sends what is missing; shoal.load of that directory "
                "reads it."
            )
        return Finding("not_uploaded", "out", float("nan"), words, remedy)


def _same_file(file: Path, link: Path) -> None:
    """Another name for a file, which is replaced and never changed; a copy where the file system has no such names."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copy2(file, link)
