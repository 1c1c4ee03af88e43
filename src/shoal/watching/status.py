"""What a directory says of its run, whether it is being written, has ended or was killed."""

import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from shoal.durable.claim import holder_at
from shoal.durable.lock import Holder, holder_of
from shoal.objects import Objects, Stored, explained
from shoal.results.archive import DamagedFileError, read_archive
from shoal.results.journal import BEGINNING, FOLDER, LOCK, Journal
from shoal.results.made import attributes_of, made
from shoal.watching.metrics import FILE, TAIL, last_metrics


class Status(NamedTuple):
    """How a run is getting on.

    Attributes:
        state: "running", "finished", "interrupted" (ended early, in good order), "stopped" (a process ended without
            ending the run), or "unknown", where a file system without locks does not tell the last two from running.
        holder: who writes it, or did last.
        phase: "starting", "warmup" or "sampling".
        draws: of each chain that are kept.
        asked: draws of each chain that it is to have; None where it is not known, as of a run that ends by itself.
        settings: of the run; empty where they cannot be read.
        metrics: the last that the run has told of itself; empty where it has told nothing.
        age: seconds since it last wrote something.
    """

    state: str
    holder: Holder
    phase: str
    draws: int
    asked: int | None
    settings: dict[str, Any]
    metrics: dict[str, Any]
    age: float

    @property
    def goes_on(self) -> bool:
        """Whether more may be heard of it."""
        return self.state in ("running", "unknown")

    @property
    def seconds_left(self) -> float | None:
        """Of this phase, at the rate of all of it so far; None where nobody knows."""
        done, asked, seconds = (self.metrics.get(name) for name in ("draws", "draws_asked", "seconds"))
        # A run that is being made longer was asked for less when it told this.
        asked = self.asked if self.phase == "sampling" else asked
        if not self.goes_on or not done or asked is None or seconds is None:
            return None
        return seconds / done * max(asked - done, 0)

    @property
    def draws_per_second(self) -> float | None:
        """Of each chain in this phase."""
        done, seconds = self.metrics.get("draws"), self.metrics.get("seconds")
        return done / seconds if done and seconds else None

    def as_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "state": self.state,
            "writing": self.holder.writing,
            "process": self.holder.name or None,
            "phase": self.phase,
            "draws_committed": self.draws,
            "num_samples": self.asked,
            "draws_per_second": self.draws_per_second,
            "seconds_left": self.seconds_left,
            "seconds_since_update": self.age,
            "settings": self.settings,
            "metrics": self.metrics,
        }


def status_of(place: Path | Objects) -> Status:
    """How a run is getting on; nothing of it is changed, and nobody is kept from writing it.

    Args:
        place: of the run.

    Raises:
        ValueError: there is no run, or the store of a URL cannot be used.
    """
    # Who writes it is asked before the files: of a run that ends meanwhile the end is then seen.
    if isinstance(place, Path):
        return _status(place, place, holder_of(place / FOLDER / LOCK))
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder, explained(place):
        holder = holder_at(place, listed := place.listed())
        _outline(place, listed, Path(folder))
        return _status(place, Path(folder), holder)


def _outline(objects: Objects, listed: dict[str, Stored], run: Path) -> None:
    """Make a directory that says of a run how it is: of chunks it has the names alone, and of metrics the end."""
    objects.fetch_all([name for name in ("zarr.json", f"{FOLDER}/{BEGINNING}") if name in listed], run)
    (run / FOLDER).mkdir(exist_ok=True)
    for name in Journal.names_beyond(listed, 0):
        (run / name).touch()
    if FILE in listed:
        (run / FILE).write_bytes(objects.tail(FILE, TAIL))
    times = [told.modified.timestamp() for told in listed.values() if told.modified is not None]
    last = max(times, default=0.0)
    for path in (*run.rglob("*"), run):
        os.utime(path, (last, last))


def _status(place: Path | Objects, run: Path, holder: Holder) -> Status:
    files = run / FOLDER
    store = _attributes(run)
    begun = (files / BEGINNING).is_file()
    if "draws_committed" not in store and not begun and not holder.writing:
        state = "does not exist" if not run.exists() else "does not hold a run"
        raise ValueError(
            f"'{place}' {state}: give the directory that was given as `out` to shoal.sample, or to `save`."
        )
    settings = json.loads(store["settings"]) if "settings" in store else _settings(files)
    metrics = last_metrics(run) or {}
    there = made(run)
    phase = "sampling" if "draws_committed" in store else "warmup" if begun else "starting"
    if metrics.get("phase") != phase:
        metrics = {}
    thinning = settings.get("thinning", 1)
    return Status(
        _state(store, holder),
        holder,
        phase,
        there.draws * thinning,
        None if "until" in settings else there.asked * thinning or settings.get("num_samples"),
        settings,
        metrics,
        _age(run, metrics),
    )


def _state(store: dict[str, Any], holder: Holder) -> str:
    if holder.writing:
        return "running"
    if store.get("finished"):
        return "interrupted" if store.get("interrupted") else "finished"
    return "unknown" if holder.writing is None else "stopped"


def _attributes(run: Path) -> dict[str, Any]:
    """Of the store; none where there is none, or it is damaged."""
    try:
        return attributes_of(run)
    except ValueError:
        return {}


def _settings(files: Path) -> dict[str, Any]:
    try:
        return read_archive(files / BEGINNING).facts["settings"]
    except (FileNotFoundError, DamagedFileError):
        return {}


def _age(run: Path, metrics: dict[str, Any]) -> float:
    """Seconds since the last line of metrics, or since a file was written where there is none."""
    if "time" in metrics:
        then = datetime.datetime.fromisoformat(metrics["time"])
        return max(0.0, (datetime.datetime.now(datetime.UTC) - then).total_seconds())
    places = [run, run / "zarr.json", run / FOLDER, *(run / FOLDER).glob("*.npz")]
    return max(0.0, time.time() - max((place.stat().st_mtime for place in places if place.exists()), default=0.0))
