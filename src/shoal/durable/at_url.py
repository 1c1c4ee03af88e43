"""A run at a URL: one process writes it, in a local copy that has all that is there."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shoal.diagnostics.findings import Finding
from shoal.durable.claim import Claim, Writer, is_claim, last_writer, new_nonce
from shoal.durable.folder import RunFolder
from shoal.durable.mirror import FIRST, NONE, ROOT, Mirror
from shoal.durable.spool import Signature, Spool, spool_of, sweep
from shoal.objects import Objects, explained
from shoal.results.directories import PARTS, check_objects


@contextlib.contextmanager
def mirrored(objects: Objects) -> Iterator[RunFolder]:
    """The local copy of a run at a URL, brought to its state, held, and sent there as it changes.

    Yields:
        The directory of the run, with its mirror.

    Raises:
        ValueError: the store cannot be used, or another process writes the run.
    """
    sweep()
    spool = Spool(objects.url)
    with spool.alone(objects.url):
        claim, sent, notes = _taken_over(objects, spool)
        kept = True
        try:
            spool.mark(whole=False)
            with RunFolder(spool.run, objects.url) as folder:
                folder.mirror = mirror = Mirror(objects, spool, claim, folder, sent, notes)
                try:
                    yield folder
                except BaseException as error:
                    _leave(mirror, spool, error)
                    raise
                finally:
                    kept, folder.mirror = mirror.close(), None
        finally:
            claim.release(kept)


def _leave(mirror: Mirror, spool: Spool, error: BaseException) -> None:
    """There is no result to say what is not uploaded."""
    missing = mirror.complete(lambda: True) if spool.is_begun else None
    if missing is not None:
        error.add_note(str(missing))
        with contextlib.suppress(Exception):
            print(f"Shoal: {missing}", file=sys.stderr, flush=True)


def _taken_over(objects: Objects, spool: Spool) -> tuple[Claim, dict[str, Signature], list[Finding]]:
    """Follow the last writer, with a local copy that has all that it has sent.

    Returns:
        The claim, what is at the URL, and what there is to say.
    """
    with explained(objects):
        listed = check_objects(objects)
        last = last_writer(objects, listed)
        nonce, is_own, notes = new_nonce(), _is_latest(spool, last, FIRST in listed), []
        # First of all it is written down what the copy is worth when the process ends before it has been filled.
        spool.writers = [*spool.writers, nonce] if is_own else []
        # The lock of the local copy says that the last writer from here has ended; what it was sending may not have.
        dead = last.nonce in spool.writers and last.nonce != spool.lingering
        claim = Claim(objects, last, nonce, dead)
        try:
            listed = {name: told for name, told in objects.listed().items() if _is_part(name)}
            if is_own:
                before = spool.sent
                sent = {name: before.get(name, NONE) for name in listed}
                sent = {name: sent[name] if sent[name].size == told.size else NONE for name, told in listed.items()}
            else:
                notes = _filled(objects, spool, list(listed))
                sent = spool.files()
            spool.sent, spool.writers = sent, spool.writers or [nonce]
        except BaseException:
            claim.release(keep=True)
            raise
    return claim, sent, notes


def _is_latest(spool: Spool, last: Writer, is_there: bool) -> bool:
    """Whether the local copy has all that is at the URL.

    Args:
        spool: the local copy.
        last: who wrote to the URL last.
        is_there: whether there is a run.
    """
    if not spool.is_begun:
        return False
    # A run that was there as a whole and is not any more was deleted by somebody; one that never was is here only.
    return last.nonce in spool.writers if is_there else not spool.is_whole


def _filled(objects: Objects, spool: Spool, names: list[str]) -> list[Finding]:
    """Have the local copy be what is at the URL; returns what there is to say."""
    notes = []
    if spool.is_begun and not spool.is_whole and FIRST in names:
        own = (spool.run / FIRST).read_bytes()
        if own != objects.read(FIRST):
            aside = spool.set_aside()
            words = f"Another run was to be sent to '{objects}' before, and was not: it is in '{aside}'."
            remedy = "shoal.load of that directory reads it; delete it if it is not needed."
            notes = [Finding("recovered", "out", float("nan"), words, remedy, blocking=False)]
    with spool.filled() as folder:
        objects.fetch_all(names, folder)
    return notes


@contextlib.contextmanager
def known_of(place: Path | Objects) -> Iterator[Path]:
    """A directory with how a run began and its `zarr.json`: of one at a URL the local copy, where that is the latest.

    Args:
        place: of the run.

    Raises:
        ValueError: the store cannot be used.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        known = Path(folder)
        with explained(place):
            listed = place.listed()
            spool = Spool(place.url) if spool_of(place.url).exists() else None
            if spool is not None and _is_latest(spool, last_writer(place, listed), FIRST in listed):
                known = spool.run
            else:
                place.fetch_all([name for name in (FIRST, ROOT) if name in listed], known)
        yield known


def _is_part(name: str) -> bool:
    """Whether an object is part of a run, and may be deleted with it."""
    return name.partition("/")[0] in PARTS and not is_claim(name)
