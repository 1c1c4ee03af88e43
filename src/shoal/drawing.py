"""What follows the warmup of a run: draws, and where they go."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from shoal.allocator import give_back
from shoal.compiling import keep_compiled
from shoal.deciding import Decision, Sink, centre
from shoal.diagnostics.findings import Finding
from shoal.paths import by_path
from shoal.placing import tuning_of
from shoal.results.background import BackgroundDraws
from shoal.results.draws import Header, MemoryDraws
from shoal.results.failure import cut_short, ended, unfinished
from shoal.results.folded_draws import MemoryFolds, ZarrFolds
from shoal.results.made import import_zarr_meanwhile, made
from shoal.results.result import Gradients, Result, Timing
from shoal.results.so_far import SoFar
from shoal.results.store import is_damaged, load, untold, warmup_draws
from shoal.results.zarr_draws import ZarrDraws
from shoal.run import compile_phase, drive, enter
from shoal.session import PRECISION, Phase, Session
from shoal.warming import warmed
from shoal.watching.record import Told

type Known = tuple[int, Told | None]


def sampled(session: Session, settings: dict[str, Any]) -> Result:
    """The whole run, or what is left of it.

    Args:
        session: what is to be done.
        settings: what is recorded with it.
    """
    request = session.request
    if (whole := _ended(session)) is not None:
        return whole
    if session.folder is not None:
        import_zarr_meanwhile()
    warm = warmed(session)
    session.visited = warm.visited
    # Fetched before sampling: a device that fails there may give nothing back afterwards.
    tuning = tuning_of(by_path(warm.run.tuning), session.placement.layout.parts)
    began = time.perf_counter()
    sampling = session.sampling.program
    run = eqx.tree_at(lambda r: r.tuning, warm.run, request.sampler.frozen(warm.run.tuning))
    run = enter(sampling, run, session.placement, request.num_samples)
    centre(session, run)
    sampling, capacity = session.sampling
    header = session.header(settings, warm.record, **warm.kept)
    with session.changing:
        draws, phase, looks = _opened(session, header, Phase(run))
    if request.folded:
        give_back()
    compile_phase(sampling, phase.run, session.placement, capacity)
    keep_compiled()
    if request.folded:
        give_back()
    compiled = session.seconds + warm.compile_seconds + time.perf_counter() - began
    notes = (*session.starts.findings, *warm.findings)
    so_far = SoFar(draws, tuning, Timing(compiled, warm.seconds), warm.gradients, notes)
    session.expose(so_far if session.folder is None else replace(so_far, keep=session.folder.keep))
    drawn = _drawn(session, phase, draws, Decision(session, header, looks))
    if request.folded:
        give_back()
    recovered = () if session.folder is None else tuple(session.folder.notes)
    if session.folder is not None and request.save_warmup:
        kept, lost = warmup_draws(session.folder.path)
        header, recovered = replace(header, **kept), (*recovered, *lost)
    result = Result(
        draws=draws.draws,
        sample_stats=draws.sample_stats,
        **vars(header),
        timing=Timing(compiled, warm.seconds, drawn.seconds),
        gradients=Gradients(warm.gradients, *drawn.gradients),
        tuning=tuning,
        interrupted=drawn.interrupted,
        notes=(*notes, *recovered, *drawn.findings),
        judged=None if drawn.judged is None else (*notes, *recovered, *drawn.findings, *drawn.judged),
        moments=draws.moments(drawn.coordinates) if isinstance(draws, MemoryFolds | ZarrFolds) else None,
    )
    try:
        with session.changing:
            draws.finish(result)
    except Exception as error:
        out = None if session.folder is None else session.folder.name
        return replace(result, notes=(*result.notes, unfinished(error, out)))
    return result


def _ended(session: Session) -> Result | None:
    """The result of a run that has all that is asked for, undamaged."""
    folder, until, length = session.folder, session.request.until, session.request.num_kept
    if folder is None:
        return None
    there = made(folder.path)
    asked_again = until is not None and there.until == until.as_dict()
    if not there.finished or not (asked_again or (until is None and there.draws == there.asked == length)):
        return None
    kept = folder.latest(there.draws, whole=False)
    if kept is None or is_damaged(folder.path):
        return None
    session.check_log_density(kept.tree("ensemble"))
    whole = load(folder.path)
    if not session.request.save_warmup:
        return whole
    _, lost = warmup_draws(folder.path)
    return replace(whole, notes=untold(whole.notes, lost), judged=untold(whole.findings, lost))


def _opened(session: Session, header: Header, phase: Phase) -> tuple[Sink, Phase, Mapping[str, np.ndarray]]:
    """Where draws go, how far sampling has got there, and what is remembered of its looks."""
    folder, length, folded = session.folder, session.request.num_kept, session.request.folded
    if folder is None:
        return MemoryFolds(header) if folded else MemoryDraws(length, header), phase, {}
    draws = (ZarrFolds if folded else ZarrDraws).reopened(folder.path, length, header)
    damage = draws.clear_damage()
    if damage:
        folder.note(f"Draws on disk are damaged: {damage}.", "All are made again, the same.")
        folder.journal.forget(folder.journal.files())
    kept = None if damage else folder.latest(draws.committed, whole=draws.committed < length)
    if kept is not None:
        phase = session.gone_on(phase.run, kept)
    count = phase.done // session.request.thinning
    folder.journal.forget(folder.journal.beyond(count))
    draws.rewind(count)
    if kept is not None and isinstance(draws, ZarrFolds):
        draws.restore(kept.facts["folds"], kept.tree("folds"))
    folding = PRECISION in phase.run.statistics and int(phase.run.statistics[PRECISION].count[0]) > 0
    return draws, phase, kept.tree("looks") if kept is not None and folding else {}


class Drawn(NamedTuple):
    """How sampling went.

    Attributes:
        seconds: that it took, in all processes.
        gradients: evaluations for the draws that there are, used and paid.
        interrupted: whether there are fewer than were asked for.
        findings: why, where nobody asked for that, and what the draws do not tell.
        coordinates: what is known of these where nothing else is kept.
        judged: what was found when it was precise enough; None where that was not asked for, or not reached.
    """

    seconds: float
    gradients: tuple[int, int]
    interrupted: bool
    findings: tuple[Finding, ...]
    coordinates: dict[str, np.ndarray]
    judged: tuple[Finding, ...] | None


def _drawn(session: Session, phase: Phase, draws: Sink, decision: Decision) -> Drawn:
    """Make the draws that are missing."""
    run, done, seconds = phase
    sampling, capacity = session.sampling
    length, thinning = session.request.num_samples, session.request.thinning
    told = session.told("sampling", sampling, run, done, length, seconds) if done else None
    # Of the last chunk that is written, and of those that may not be yet: draws that are kept so far, what is told.
    known: list[Known] = [(done // thinning, told)]
    began, sink = session.stop.clock(), BackgroundDraws(draws, session.changing, may_wait=not session.request.folded)
    ending: tuple[Finding, ...] = ()
    try:
        try:
            decision.look(run, done)
            chunks = drive(sampling, run, session.placement, length, capacity, done, decision.next_end)
            for chunk in () if decision.ends(done, draws, sink.drain, told) else chunks:
                done = chunk.done
                values, stats = session.on_host(chunk)
                seconds = phase.seconds + session.stop.clock() - began
                told = session.told("sampling", sampling, chunk.run, done, length, seconds)
                decision.look(chunk.run, done)
                # Of a chunk without a draw that is kept, too: the run goes on from there.
                state = session.archive(chunk.run, done, seconds, looks=decision.arrays)
                del chunk  # what the device has kept is free while this one waits and the next is made
                sink.append(values, stats, state)
                if stats["lp"].shape[1]:
                    known = [*_from(known, sink.committed), (done // thinning, told)]
                    session.stop.something = True
                session.tell(told, values)
                del values, stats, state
                if session.stop.pause.wanted:
                    sink.drain()
                if decision.ends(done, draws, sink.drain, told):
                    session.show(told.chunk._replace(total=done))
                    break
                if done < length and session.stop.after_rest():
                    ending = (ended(done, length),) if session.stop.signal is None else ()
                    break
        finally:
            sink.settle()
        if not draws.committed:
            session.stop.check()
    except (KeyboardInterrupt, Exception) as error:
        if not draws.committed or sink.is_writing:
            raise
        if not isinstance(error, KeyboardInterrupt):
            written = draws.committed * thinning
            ending = (cut_short(error, written, done, length, session.folder is not None),)
    seconds = phase.seconds + session.stop.clock() - began
    told = _from(known, draws.committed)[0][1]
    nothing = (0, 0), (), {}
    said = nothing if told is None else (told.evaluations, session.beside_draws(told), session.coordinates(told))
    gradients, beside, coordinates = said
    made_all = decision.judged is not None or draws.committed * thinning >= length
    ending = (*ending, *decision.concluded(draws.committed * thinning, length))
    findings = ending if decision.judged is not None else (*ending, *beside)
    return Drawn(seconds, gradients, not made_all, findings, coordinates, decision.judged)


def _from(known: list[Known], committed: int) -> list[Known]:
    """What is known from the last chunk on that is written."""
    return [*[one for one in known if one[0] <= committed][-1:], *[one for one in known if one[0] > committed]]
