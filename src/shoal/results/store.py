"""Saving a result to a Zarr store and loading it back."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.diagnostics.unkept import not_judged_yet
from shoal.objects import Objects, explained, place_of
from shoal.results.archive import DamagedFileError
from shoal.results.course import COORDINATES, Course
from shoal.results.damage import find_damage
from shoal.results.directories import check_new
from shoal.results.draws import Header, MemoryDraws
from shoal.results.folded_draws import FILE, MOMENTS, NONE, ZarrFolds, read_moments
from shoal.results.journal import BEGINNING, FOLDER, Journal, Part
from shoal.results.made import SAMPLING, WARMUP, zarr_package
from shoal.results.moments import Moments
from shoal.results.result import Gradients, Result, Timing
from shoal.results.stored_draws import StoredDraws
from shoal.results.zarr_draws import FORMAT_VERSION, ZarrDraws

__all__ = ["Header", "MemoryDraws", "ZarrDraws", "check_new", "load", "save"]

# Bytes of one variable in one chunk of a saved result: large enough to read fast, small enough to hold.
CHUNK_BYTES = 32_000_000


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result to a new directory.

    Args:
        result: what to write.
        path: a directory that is empty or does not exist.

    Raises:
        ValueError: the place cannot be used; see `check_new`.
    """
    findings = result.findings  # judged before the directory exists: a failure leaves nothing behind
    del findings
    path = check_new(path)
    header = Header(
        superchain=np.asarray(result.superchain),
        parameters=tuple(result.parameters),
        dims=result.dims,
        coords=result.coords,
        settings=result.settings,
        versions=result.versions,
        warmup=result.warmup,
    )
    if result.moments is not None:
        folded = ZarrFolds(path, result.num_draws, header)
        folded.restore(result.moments.folds.facts, result.moments.folds.arrays)
        folded.finish(result)
        return
    if result.warmup_draws:
        labels = Course.of(result.warmup_coords).labels
        count = len(result.warmup_coords["warmup_stage"])
        kept = ZarrDraws(path, count, header, WARMUP, labels)
        _fill(kept, result.warmup_draws, result.warmup_sample_stats, count)
        kept.complete()
    sink = ZarrDraws(path, result.num_draws, header)
    _fill(sink, result.draws, result.sample_stats, result.num_draws)
    sink.finish(result)


def _fill(sink: ZarrDraws, draws: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], count: int) -> None:
    values, stats = dict(draws.items()), dict(stats.items())
    widest = max((array[:, :1].nbytes for array in values.values()), default=1)
    step = max(1, CHUNK_BYTES // max(1, widest))
    for begin in range(0, count, step):
        part = slice(begin, begin + step)
        sink.append(
            {name: array[:, part] for name, array in values.items()},
            {name: array[:, part] for name, array in stats.items()},
        )


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result; draws are read from disk when they are asked for.

    A run that did not finish (killed, or still going on) is cut to the draws that were committed; it has no
    timing, and counts as interrupted.

    Args:
        path: the directory of a run, or its URL: then draws are fetched from there when they are asked for.

    Returns:
        The result, with the findings that were made when it was written.

    Raises:
        ValueError: there is no run, or one of a newer format, or the store of the URL cannot be used.
        ModuleNotFoundError: a package is missing that the URL needs.
    """
    place = place_of(path)
    if isinstance(place, Objects):
        with explained(place):
            return _loaded(place)
    return _loaded(place)


def _loaded(place: Path | Objects) -> Result:
    root = _open(place)
    attributes: dict[str, Any] = root.attrs.asdict()
    version = attributes.get("format_version", 0)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"The run in '{place}' has format {version}, and this version of Shoal reads formats up to "
            f"{FORMAT_VERSION}: install a newer Shoal to load it."
        )

    ended = bool(attributes.get("finished"))
    # What was written at the end of a run is not of the longer run that it became, until that ends.
    late = () if ended else ("timing", "gradients", "notes", "findings")

    def read(name: str, default: Any) -> Any:
        return json.loads(attributes[name]) if name in attributes and name not in late else default

    count = int(attributes["draws_committed"])
    tail = [] if ended else [part for part in _after(place, count) if part.stats]
    posterior, sample_stats = SAMPLING.groups
    coords = {name: _ticks(array) for name, array in _arrays(root, posterior).items() if _is_coordinate(array)}
    findings, settings = read("findings", None), read("settings", {})
    unjudged = [not_judged_yet()] if judged_at_the_end(settings) and not ended else []
    warmup, lost = _warmup(root)
    notes = tuple(Finding.from_dict(note) for note in read("notes", []))
    moments = None
    if settings.get("keep") in (MOMENTS, NONE):
        moments = _moments(place, ended)
        count = 0 if moments is None else moments.count
    return Result(
        draws=StoredDraws(_variables(root, posterior), count, [part.values for part in tail]),
        sample_stats=StoredDraws(_variables(root, sample_stats), count, [part.stats for part in tail]),
        superchain=np.asarray(root[posterior]["superchain"][...]),
        parameters=tuple(read("parameters", ())),
        dims={name: tuple(names) for name, names in read("dims", {}).items()},
        coords=coords,
        timing=Timing(**{k: float(v) for k, v in read("timing", Timing()._asdict()).items()}),
        gradients=Gradients(**read("gradients", Gradients()._asdict())),
        tuning={name: np.asarray(array[...]) for name, array in _arrays(root, "tuning").items()} if ended else {},
        settings=settings,
        versions=read("versions", {}),
        warmup=read("warmup", {}),
        interrupted=not ended or bool(attributes["interrupted"]),
        notes=(*untold(notes, lost), *unjudged),
        judged=None if findings is None else untold(tuple(Finding.from_dict(finding) for finding in findings), lost),
        moments=moments,
        **warmup,
    )


def untold(notes: tuple[Finding, ...], more: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Notes and those of some more that they do not tell yet, whatever their words."""
    told = {(note.kind, note.where) for note in notes}
    return (*notes, *(note for note in more if (note.kind, note.where) not in told))


def judged_at_the_end(settings: Mapping[str, Any]) -> bool:
    """Whether the verdict on a run with these settings needs what is known at its end only."""
    return settings.get("keep") not in (None, MOMENTS)


def _moments(place: Path | Objects, ended: bool) -> Moments | None:
    try:
        if isinstance(place, Path):
            return read_moments(place, ended)
        with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
            chunks = [] if ended else Journal.names_beyond(place.listed(FOLDER), 0)
            place.fetch_all([FILE, *chunks], Path(folder))
            return read_moments(Path(folder), ended)
    except (DamagedFileError, FileNotFoundError) as error:
        raise ValueError(
            f"The moments of the run in '{place}' are damaged ({error}). shoal.resume of the run writes them again, "
            "the same, where its checkpoints are still there."
        ) from error


def warmup_draws(path: Path) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    """The draws of a warmup that has ended, by the names that they have in a result, and what is wrong with them.

    All of them are read.

    Args:
        path: the directory of the run.
    """
    root = _root(path)
    kept, lost = _warmup(root)
    if kept:
        arrays = {name: array for group in WARMUP.groups for name, array in _variables(root, group).items()}
        words = find_damage(path, arrays, kept["warmup_draws"].count).words
        lost = (_damaged("warmup_draws", f"Draws of the warmup are damaged: {words}."),) if words else ()
    return kept, lost


def _warmup(root: Any) -> tuple[dict[str, Any], tuple[Finding, ...]]:
    draws, stats = WARMUP.groups
    if draws not in root or not (variables := _variables(root, draws)):
        return {}, ()
    count = int(root.attrs.get(WARMUP.committed, root[draws]["draw"].shape[0]))
    try:
        coords = {name: np.array(_ticks(root[draws][name])[:count], kind) for name, kind in COORDINATES.items()}
    except ValueError as error:
        words = f"The labels of the draws of the warmup are damaged ({str(error).rstrip('.')}): none of them are given."
        return {}, (_damaged("warmup_coords", words),)
    kept = {
        "warmup_draws": StoredDraws(variables, count),
        "warmup_sample_stats": StoredDraws(_variables(root, stats), count),
        "warmup_coords": coords,
    }
    return kept, ()


def _damaged(where: str, words: str) -> Finding:
    remedy = "They are of a warmup that has ended, and are not made again; nothing depends on them."
    return Finding("damaged", where, float("nan"), words, remedy, blocking=False)


def is_damaged(path: Path) -> bool:
    """Whether some draws of a run that has ended, or its moments, cannot be read; all are.

    Args:
        path: the directory of the run.
    """
    root = _open(path)
    if json.loads(root.attrs.get("settings", "{}")).get("keep") in (MOMENTS, NONE):
        try:
            read_moments(path, ended=True)
        except (DamagedFileError, FileNotFoundError):
            return True
    arrays = {name: array for group in SAMPLING.groups for name, array in _variables(root, group).items()}
    return bool(find_damage(path, arrays, int(root.attrs["draws_committed"])).words)


def has_draws(place: Path | Objects) -> bool:
    """Whether there are draws to load, or were to be: not those of a warmup."""
    return _has_store(place) and SAMPLING.committed in _root(place).attrs


def _is_begun(place: Path | Objects) -> bool:
    name = f"{FOLDER}/{BEGINNING}"
    return place.has(name) if isinstance(place, Objects) else (place / name).exists()


def _has_store(place: Path | Objects) -> bool:
    return place.has("zarr.json") if isinstance(place, Objects) else (place / "zarr.json").exists()


def _root(place: Path | Objects) -> Any:
    return zarr_package().open_group(place.as_zarr() if isinstance(place, Objects) else str(place), mode="r")


def _after(place: Path | Objects, count: int) -> list[Part]:
    """Chunks of draws that follow on so many."""
    if isinstance(place, Path):
        return Journal(place).after(count)
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        place.fetch_all(Journal.names_beyond(place.listed(FOLDER), count), Path(folder))
        return Journal(Path(folder)).after(count)


def _open(path: Path | Objects) -> Any:
    if not _has_store(path):
        if _is_begun(path):
            raise ValueError(
                f"The run in '{path}' has no draws to load: it has not come to the end of its warmup, or what "
                "describes its draws is gone. shoal.resume goes on with it."
            )
        state = "does not exist" if isinstance(path, Path) and not path.exists() else "does not hold a run"
        raise ValueError(f"'{path}' {state}: give the directory that was given as `out` to shoal.sample, or to `save`.")
    root = _root(path)
    if WARMUP.committed in root.attrs and SAMPLING.committed not in root.attrs:
        raise ValueError(
            f"The run in '{path}' has not come to the end of its warmup, so there are no draws to load: shoal.resume "
            "goes on with it. xarray.open_datatree(path, engine='zarr') shows the draws of the warmup."
        )
    if SAMPLING.committed not in root.attrs or SAMPLING.groups[0] not in root:
        raise ValueError(
            f"'{path}' is a Zarr store, but not one that Shoal wrote, or its first lines were never written: "
            "there are no draws to load. xarray.open_datatree(path, engine='zarr') shows what is there."
        )
    return root


def _arrays(root: Any, group: str) -> dict[str, Any]:
    """The arrays of a group by the names that the model has for them."""
    return {array.attrs.get("name", name): array for name, array in root[group].arrays()} if group in root else {}


def _is_coordinate(array: Any) -> bool:
    return array.metadata.dimension_names == (array.basename,) and array.basename not in ("chain", "draw")


def _ticks(array: Any) -> list[Any]:
    return np.asarray(array[...]).tolist()


def _variables(root: Any, group: str) -> dict[str, Any]:
    arrays = _arrays(root, group)
    return {name: arrays[name] for name in root[group].attrs.get("variables", [])}
