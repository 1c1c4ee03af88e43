"""What follows the warmup of a run: draws, and where they go."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx

from shoal.diagnostics.findings import Finding
from shoal.paths import by_path
from shoal.results.draws import Header, MemoryDraws
from shoal.results.failure import cut_short, ended, unfinished
from shoal.results.made import made
from shoal.results.result import Gradients, Result, Timing
from shoal.results.so_far import SoFar
from shoal.results.store import is_damaged, load
from shoal.results.zarr_draws import ZarrDraws
from shoal.run import compile_phase, drive, enter
from shoal.session import Phase, Session
from shoal.warming import warmed


def sampled(session: Session, settings: dict[str, Any]) -> Result:
    """The whole run, or what is left of it.

    Args:
        session: what is to be done.
        settings: what is recorded with it.
    """
    request = session.request
    if (whole := _ended(session)) is not None:
        return whole
    warm = warmed(session)
    # Fetched before sampling: a device that fails there may give nothing back afterwards.
    tuning = by_path(warm.run.tuning)
    began = time.perf_counter()
    sampling, capacity = session.sampling
    run = eqx.tree_at(lambda r: r.tuning, warm.run, request.sampler.frozen(warm.run.tuning))
    header = session.header(settings, warm.record)
    draws, phase = _opened(session, header, Phase(enter(sampling, run, session.placement, request.num_samples)))
    compile_phase(sampling, phase.run, session.placement, capacity)
    compiled = session.seconds + warm.compile_seconds + time.perf_counter() - began
    notes = (*session.starts.findings, *warm.findings)
    session.watch(SoFar(draws, tuning, Timing(compiled, warm.seconds), warm.gradients, notes))
    seconds, gradients, interrupted, failed = _drawn(session, phase, draws)
    recovered = () if session.folder is None else tuple(session.folder.notes)
    result = Result(
        draws=draws.draws,
        sample_stats=draws.sample_stats,
        **vars(header),
        timing=Timing(compiled, warm.seconds, seconds),
        gradients=Gradients(warm.gradients, *gradients),
        tuning=tuning,
        interrupted=interrupted,
        notes=(*notes, *recovered, *failed),
    )
    try:
        draws.finish(result)
    except Exception as error:
        out = None if session.folder is None else session.folder.path
        return replace(result, notes=(*result.notes, unfinished(error, out)))
    return result


def _ended(session: Session) -> Result | None:
    """The result of a run that has all that is asked for, undamaged."""
    folder, length = session.folder, session.request.num_samples
    if folder is None or made(folder.path) != (length, length, True):
        return None
    kept = folder.latest(length, whole=False)
    if kept is None or is_damaged(folder.path):
        return None
    session.check_log_density(kept.tree("ensemble"))
    return load(folder.path)


def _opened(session: Session, header: Header, phase: Phase) -> tuple[MemoryDraws | ZarrDraws, Phase]:
    """Where draws go, and how far sampling has got there."""
    folder, length = session.folder, session.request.num_samples
    if folder is None:
        return MemoryDraws(length, header), phase
    draws = ZarrDraws.reopened(folder.path, length, header)
    damage = draws.clear_damage()
    if damage:
        folder.note(f"Draws on disk are damaged: {damage}.", "All are made again, the same.")
        folder.journal.forget(folder.journal.files())
    kept = None if damage else folder.latest(draws.committed, whole=draws.committed < length)
    if kept is not None:
        phase = session.gone_on(phase.run, kept)
    folder.journal.forget(folder.journal.beyond(phase.done))
    draws.rewind(phase.done)
    return draws, phase


def _drawn(
    session: Session, phase: Phase, draws: MemoryDraws | ZarrDraws
) -> tuple[float, tuple[int, int], bool, tuple[Finding, ...]]:
    """Seconds, gradients used and paid, whether it ended early, and why, where nobody asked for that."""
    run, done, seconds = phase
    sampling, capacity = session.sampling
    length, per_sweep = session.request.num_samples, sampling.kernel.draws_per_sweep
    gradients = (0, 0)
    if done:
        gradients = session.told("sampling", sampling, run, done, length, seconds).evaluations
    began = session.stop.clock()
    try:
        for chunk in drive(sampling, run, session.placement, length, capacity, done):
            done = chunk.done
            values, stats = session.on_host(chunk.kept, chunk.draws)
            seconds = phase.seconds + session.stop.clock() - began
            told = session.told("sampling", sampling, chunk.run, done, length, seconds)
            whole, before = done % per_sweep == 0, draws.committed
            try:
                draws.append(values, stats, partial(session.archive, chunk.run, done, seconds, whole))
            finally:
                if draws.committed > before:
                    gradients, session.stop.something = told.evaluations, True
            seconds = phase.seconds + session.stop.clock() - began
            session.show(told.chunk)
            if done < length and session.stop.after_rest():
                timely = (ended(done, length),) if session.stop.signal is None else ()
                return seconds, gradients, True, timely
    except (KeyboardInterrupt, Exception) as error:
        if not draws.committed:
            raise
        if isinstance(error, KeyboardInterrupt):
            return seconds, gradients, True, ()
        said = cut_short(error, draws.committed, done, length, session.folder is not None)
        return seconds, gradients, True, (said,)
    return seconds, gradients, False, ()
