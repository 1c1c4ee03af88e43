"""The directory of a run: where it began, how far its warmup got, and where it goes on from."""

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.durable.lock import held
from shoal.paths import by_path
from shoal.results.archive import Archive, DamagedFileError, read_archive, write_archive
from shoal.results.journal import BEGINNING, FOLDER, KEPT, LOCK, Journal
from shoal.results.result import Result
from shoal.results.zarr_draws import FORMAT_VERSION
from shoal.starts import Starts
from shoal.warmup.ledger import Played
from shoal.warmup.trail import Trail

if TYPE_CHECKING:
    from shoal.durable.mirror import Mirror

# Of what bits depend on. The number of devices changes none.
VERSIONS = ("shoal", "jax", "backend")
WARM = "warm.npz"


class Beginning(NamedTuple):
    """What is known of a run before it moves.

    Attributes:
        identity: what decides its draws.
        settings: as they are recorded with the run.
        versions: of the packages, and the names of the devices.
        starts: where its chains begin.
        tuning: that was given, or None.
    """

    identity: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    starts: Starts
    tuning: Mapping[str, np.ndarray] | None


class Checkpoint(NamedTuple):
    """What a run goes on from.

    Attributes:
        trees: the arrays of a pytree by path, by the name of the pytree.
        facts: what else there is to know.
    """

    trees: Mapping[str, Mapping[str, np.ndarray]]
    facts: dict[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any], **trees: Any) -> "Checkpoint":
        """Of pytrees on the host."""
        return cls({name: by_path(tree) for name, tree in trees.items()}, dict(facts))

    @classmethod
    def read(cls, archive: Archive) -> "Checkpoint":
        """The inverse of `archive`."""
        trees: dict[str, dict[str, np.ndarray]] = {}
        for name, array in archive.arrays.items():
            tree, _, path = name.partition(":")
            trees.setdefault(tree, {})[path] = array
        return cls(trees, archive.facts)

    @property
    def archive(self) -> Archive:
        """As it is written."""
        arrays = {f"{name}:{path}": array for name, tree in self.trees.items() for path, array in tree.items()}
        return Archive(arrays, self.facts)

    def tree(self, name: str) -> Mapping[str, np.ndarray]:
        """The arrays of a pytree by path; one without leaves has none."""
        return self.trees.get(name, {})


class RunFolder:
    """The files of one run but for its draws; held by one process at a time.

    Attributes:
        path: the directory.
        journal: of its draws.
        name: what the user calls it: the directory, or a URL of which this is a copy.
        notes: what was found damaged, and what was done about it.
        changing: held while files change: between that nothing is half done.
        mirror: that sends it to its URL; None where it has none.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        """Take hold of a directory, and make it where it is missing.

        Args:
            path: as from `check_place`.
            name: the URL of which it is a copy.

        Raises:
            ValueError: another process holds it.
        """
        self.path, self.journal, self.name = path, Journal(path), name or str(path)
        self.notes: list[Finding] = []
        self.changing = threading.RLock()
        self.mirror: Mirror | None = None
        self._files = path / FOLDER
        self._files.mkdir(parents=True, exist_ok=True)
        self._lock = held(self._files / LOCK, path)
        self.journal.sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._lock)
        if error is not None and [file.name for file in self._files.iterdir()] == [LOCK]:
            # Nothing was written: the directory is as it was.
            (self._files / LOCK).unlink()
            with contextlib.suppress(OSError):
                self._files.rmdir()
                self.path.rmdir()

    def begin(self, beginning: Beginning) -> None:
        """Write down how the run begins."""
        starts = beginning.starts
        arrays = {"position": starts.position, "superchain": starts.superchain}
        arrays |= {f"tuning:{name}": array for name, array in (beginning.tuning or {}).items()}
        facts = {
            "format_version": FORMAT_VERSION,
            "identity": beginning.identity,
            "settings": beginning.settings,
            "versions": beginning.versions,
            "findings": [finding.as_dict() for finding in starts.findings],
            "chosen": starts.chosen,
            "tuning_given": beginning.tuning is not None,
        }
        with self.changing:
            write_archive(self._files / BEGINNING, arrays, facts)

    def recall(self, number: int, asked: Mapping[str, Any]) -> Played | None:
        """As of a `Ledger`."""
        kept = self._read(_stage(number), "The warmup plays this stage again, the same.")
        if kept is None:
            return None
        if kept.facts["asked"] != dict(asked):
            self._delete(_stage("*"), keep=lambda path: path.name < _stage(number))
            return None
        played = Checkpoint.read(kept)
        facts = kept.facts
        return Played(
            Trail(**played.tree("trail")),
            played.tree("ensemble"),
            played.tree("tuning"),
            facts["step"],
            facts["gradients"],
            facts["seconds"],
        )

    def record(self, number: int, asked: Mapping[str, Any], played: Callable[[], Played]) -> None:
        """As of a `Ledger`."""
        left = played()
        facts = {"asked": dict(asked), "step": left.step, "gradients": left.gradients, "seconds": left.seconds}
        self._write(
            _stage(number),
            Checkpoint.of(facts, trail=left.trail, ensemble=left.ensemble, tuning=left.tuning),
        )

    def last_stage(self) -> Mapping[str, np.ndarray] | None:
        """Where the last stage that was played left the chains: the ensemble by path."""
        for path in sorted(self._files.glob(_stage("*")), reverse=True):
            kept = self._read(path.name, "The warmup plays this stage again, the same.")
            if kept is not None:
                return Checkpoint.read(kept).tree("ensemble")
        return None

    def keep_warmup(self, done: int, checkpoint: Checkpoint) -> None:
        """Where a warmup of fixed length is after so many draws."""
        self._write(f"warmup-{done:010d}.npz", checkpoint)
        earlier = sorted(self._files.glob("warmup-*.npz"))[:-KEPT]
        self._delete("warmup-*.npz", keep=lambda path: path not in earlier)

    def warmup(self) -> Checkpoint | None:
        """Where a warmup of fixed length was last."""
        for path in sorted(self._files.glob("warmup-*.npz"), reverse=True):
            kept = self._read(path.name, "The warmup goes on from the one before, and makes the same draws.")
            if kept is not None:
                return Checkpoint.read(kept)
        return None

    def keep_warm(self, checkpoint: Checkpoint) -> None:
        """What a warmup left; what it took to get there is not needed any more."""
        self._write(WARM, checkpoint)
        self._delete(_stage("*"))
        self._delete("warmup-*.npz")

    def warm(self) -> Checkpoint | None:
        """What the warmup left, if it has ended."""
        kept = self._read(WARM, "The warmup is made again, the same.")
        return None if kept is None else Checkpoint.read(kept)

    def latest(self, count: int, whole: bool, journal: Journal | None = None) -> Checkpoint | None:
        """Where sampling was last; None where it has to begin.

        Args:
            count: of draws that are there: no later one is of use.
            whole: whether more draws are to follow, which need all of a sweep.
            journal: of other draws than those of sampling.
        """
        journal = journal or self.journal
        for path in reversed(journal.files()):
            try:
                part, state = journal.read(path)
            except (DamagedFileError, FileNotFoundError) as error:
                self.note(str(error), "The run goes on from the one before, and makes the same draws again.")
                journal.forget([path])
                continue
            if part.end <= count and (state.facts["whole"] or not whole):
                return Checkpoint.read(state)
        return None

    def keep(self, result: Result) -> None:
        """Leave the draws of a result where it reads them from, as long as it is there."""
        if self.mirror is not None:
            self.mirror.keep(result)

    def note(self, words: str, remedy: str, kind: str = "recovered") -> None:
        """Say what was found, and what becomes of it."""
        self.notes.append(Finding(kind, "out", float("nan"), words, remedy, blocking=False))

    def compare(self, before: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Say that other versions go on with a run than began it."""
        changed = [name for name in VERSIONS if before.get(name) != now[name]]
        if changed:
            told = ", ".join(f"{name} {before.get(name)} and now {now[name]}" for name in changed)
            words = f"The run was begun with {told}: its draws are not, to the last bit, those of one that never ended."
            self.note(words, "They are of the same posterior.", "versions")

    def _write(self, name: str, checkpoint: Checkpoint) -> None:
        with self.changing:
            write_archive(self._files / name, *checkpoint.archive)

    def _read(self, name: str, otherwise: str) -> Archive | None:
        try:
            return read_archive(self._files / name)
        except FileNotFoundError:
            return None
        except DamagedFileError as error:
            self.note(str(error), otherwise)
            (self._files / name).unlink(missing_ok=True)
            return None

    def _delete(self, pattern: str, keep: Callable[[Path], bool] = lambda path: False) -> None:
        with self.changing:
            for path in self._files.glob(pattern):
                if not keep(path):
                    path.unlink(missing_ok=True)


def beginning_of(path: Path) -> Beginning | None:
    """How the run began; None where none has.

    Args:
        path: the directory of the run.

    Raises:
        ValueError: it is damaged, or of a newer format.
    """
    try:
        arrays, facts = read_archive(path / FOLDER / BEGINNING)
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        raise ValueError(
            f"{error} Without it the run in '{path}' cannot go on. shoal.load reads its draws; a new run "
            "needs a new directory."
        ) from error
    if facts["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"The run in '{path}' has checkpoints of format {facts['format_version']}, and this version of "
            f"Shoal reads formats up to {FORMAT_VERSION}: install a newer Shoal to go on with it."
        )
    findings = tuple(Finding.from_dict(finding) for finding in facts["findings"])
    tuning = {name.removeprefix("tuning:"): array for name, array in arrays.items() if name.startswith("tuning:")}
    return Beginning(
        facts["identity"],
        facts["settings"],
        facts["versions"],
        Starts(arrays["position"], arrays["superchain"], findings, facts["chosen"]),
        tuning if facts["tuning_given"] else None,
    )


def _stage(number: int | str) -> str:
    return f"stage-{number:06d}.npz" if isinstance(number, int) else f"stage-{number}.npz"
