"""What a directory has of a run already."""

import contextlib
import json
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shoal.extras import check, require
from shoal.results.journal import FOLDER, Journal


class Kind(NamedTuple):
    """Which draws of a run.

    Attributes:
        groups: of the store, for the draws and for their sample statistics.
        journal: with which the names of the files of their journal begin.
        committed: the attribute of the store that counts them.
    """

    groups: tuple[str, str]
    journal: str
    committed: str


SAMPLING = Kind(("posterior", "sample_stats"), "draws", "draws_committed")
WARMUP = Kind(("warmup_posterior", "warmup_sample_stats"), "warmup", "warmup_draws_committed")
_FILTERS = threading.Lock()


_ZARR = ("zarr", "Saving and loading draws", "store")


def zarr_package() -> Any:
    """Zarr, or an error that names it."""
    return require(*_ZARR)


def check_zarr() -> None:
    """Refuse to go on without Zarr."""
    check(*_ZARR)


def import_zarr_meanwhile() -> None:
    """Begin to import Zarr in another thread: it takes 0.2 s, and a warmup leaves Python idle while devices work."""

    def imported() -> None:
        # What goes wrong here goes wrong where Zarr is used.
        with contextlib.suppress(Exception):
            zarr_package()

    threading.Thread(target=imported, name="shoal-import", daemon=True).start()


def set_aside(path: Path, kind: Kind, described: bool) -> None:
    """Make room for new groups. What is there may be draws: it is kept among the checkpoints.

    Args:
        path: the directory of the run.
        kind: of the draws.
        described: whether what describes the whole store can be read, and stays.
    """
    others = ("tuning", "moments.npz") if kind is SAMPLING else ()
    parts = (*kind.groups, *others, *(() if described else ("zarr.json",)))
    there = [part for part in parts if (path / part).exists()]
    if there:
        aside = Path(tempfile.mkdtemp(prefix="damaged-", dir=path / FOLDER))
        for part in there:
            (path / part).rename(aside / part)


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Have Zarr say nothing meanwhile. Python's filters are the process's: one thread at a time changes them."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Made(NamedTuple):
    """What a directory has of a run.

    Attributes:
        draws: that its arrays and its journal have.
        asked: draws that it was last asked for; 0 where its warmup has not ended.
        finished: whether it made them all, or was precise enough.
        until: how precise it was last asked to be, as of `Until.as_dict`; None where a number of draws was asked for.
    """

    draws: int = 0
    asked: int = 0
    finished: bool = False
    until: dict[str, Any] | None = None


def made(path: Path) -> Made:
    """What the directory of a run has of it; nothing where what describes it is damaged."""
    try:
        attributes = attributes_of(path)
    except ValueError:
        return Made()
    finished = attributes.get("finished", False) and not attributes["interrupted"]
    draws, asked = (int(attributes.get(name, 0)) for name in ("draws_committed", "num_samples"))
    until = json.loads(attributes.get("settings", "{}")).get("until")
    return Made(draws if finished else Journal(path).reach(draws), asked, finished, until)


def attributes_of(path: Path) -> dict[str, Any]:
    """Of the store in a directory; none where there is no store."""
    if not (path / "zarr.json").is_file():
        return {}
    return zarr_package().open_group(str(path), mode="r", use_consolidated=False).attrs.asdict()
