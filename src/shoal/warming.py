"""The warmup of a run, in this process or in one that has ended."""

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx

from shoal.adaptation import Fixed
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.visited import Visited
from shoal.durable.folder import Checkpoint
from shoal.keeping import WarmupDraws
from shoal.paths import like
from shoal.program import KeepDraws, Program, Run, keep_nothing
from shoal.progress import ChunkReport
from shoal.run import compile_phase, drive, enter, frozen, on_host, revived, shape_of_ensemble, start
from shoal.samplers.staged import Staged
from shoal.session import Phase, Session, first_tuning
from shoal.statistics import Health
from shoal.warmup.stages import Left, Sampling, Stages
from shoal.watching.record import Told

# Where warmup keeps no draws, a chunk of it may have any length.
ANY = 2**30
# Seconds between checkpoints of such a warmup.
KEPT_EVERY = 1.0


class Warm(NamedTuple):
    """What a warmup left: the run with the tuning to sample with, what it cost, what is told, and where it was."""

    run: Run
    compile_seconds: float
    seconds: float
    gradients: int
    record: dict[str, Any]
    findings: tuple[Finding, ...]
    kept: Mapping[str, Any] = MappingProxyType({})
    visited: Visited = Visited()


def warmed(session: Session) -> Warm:
    """What the warmup left, in this process or in an earlier one."""
    folder = session.folder
    kept = None if folder is None else folder.warm()
    if kept is not None:
        return _recalled(session, kept)
    made = _staged if session.request.ends_itself else _fixed_length
    if session.request.save_warmup:
        with WarmupDraws(session) as draws:
            warm = made(session, draws)
            warm = warm._replace(kept=draws.ended())
    else:
        warm = made(session, None)
    # As JSON gives it back, so that a run that was resumed tells the same.
    warm = warm._replace(record=json.loads(json.dumps(warm.record, default=_plain)))
    if folder is not None:
        facts = {
            "step": int(warm.run.step),
            "seconds": warm.seconds,
            "gradients": warm.gradients,
            "record": warm.record,
            "findings": [finding.as_dict() for finding in warm.findings],
        }
        left = on_host(warm.run.ensemble, session.placement)
        folder.keep_warm(Checkpoint.of(facts, ensemble=left, tuning=warm.run.tuning, visited=warm.visited.arrays))
    return warm


def _recalled(session: Session, kept: Checkpoint) -> Warm:
    """What the warmup left in an earlier process."""
    request, placement, facts = session.request, session.placement, kept.facts
    ensemble = like(shape_of_ensemble(session.sampling.program, request.dtype), kept.tree("ensemble"))
    session.check_log_density(kept.tree("ensemble"))
    tuning = like(first_tuning(request, session.target.dim), kept.tree("tuning"))
    run = revived(placement, session.root, ensemble, facts["step"], placement.place(tuning, split=False))
    findings = tuple(Finding.from_dict(finding) for finding in facts["findings"])
    visited = Visited.restored(kept.tree("visited"))
    return Warm(run, 0.0, facts["seconds"], facts["gradients"], facts["record"], findings, visited=visited)


def _fixed_length(session: Session, draws: WarmupDraws | None) -> Warm:
    """A warmup of as many draws as were asked for, in one phase."""
    request, sampler, folder = session.request, session.request.sampler, session.folder
    began = time.perf_counter()
    first = first_tuning(session.request, session.target.dim)
    adaptation = Fixed() if request.tuning is not None else sampler.adaptation()
    keep = keep_nothing if draws is None else KeepDraws(request.keep)
    warm = Program(session.sampling.program.target, sampler.warmup_kernel(), adaptation, {"health": Health()}, keep)
    capacity = ANY if draws is None else max(1, session.sampling.draws // warm.kernel.draws_per_sweep)
    kept = draws.kept if draws is not None else None if folder is None else folder.warmup()
    if kept is None:
        run = start(warm, session.placement, session.root, session.starts.position, first)
        phase = Phase(enter(warm, run, session.placement, request.num_warmup))
    else:
        ensemble = like(shape_of_ensemble(warm, request.dtype), kept.tree("ensemble"))
        session.check_log_density(kept.tree("ensemble"))
        run = revived(session.placement, session.root, ensemble, kept.facts["step"], first)
        phase = session.gone_on(enter(warm, run, session.placement, request.num_warmup), kept)
    if request.num_warmup:
        compile_phase(warm, phase.run, session.placement, capacity)
    compiled = time.perf_counter() - began
    seconds, length = phase.seconds, request.num_warmup
    run = phase.run
    gradients = session.told("warmup", warm, run, phase.done, length, seconds).evaluations[0] if phase.done else 0
    began = kept_at = session.stop.clock()
    for chunk in drive(warm, run, session.placement, length, capacity, phase.done):
        run = chunk.run
        seconds = phase.seconds + session.stop.clock() - began
        told = session.told("warmup", warm, run, chunk.done, length, seconds)
        gradients = told.evaluations[0]
        session.tell(told)
        now = session.stop.asked or session.stop.pause.wanted or session.stop.clock() - kept_at >= KEPT_EVERY
        if draws is not None:
            draws.chunk(chunk, session.checkpoint(run, chunk.done, seconds, tuning=run.tuning))
            if session.stop.pause.wanted:
                draws.drain()
        elif folder is not None and now:
            folder.keep_warmup(chunk.done, session.checkpoint(run, chunk.done, seconds, tuning=run.tuning))
            kept_at = session.stop.clock()
        session.stop.check()
    began = time.perf_counter()
    run = eqx.tree_at(lambda r: r.tuning, run, frozen(warm, run, session.placement))
    compiled += time.perf_counter() - began
    return Warm(run, compiled, seconds, gradients, {"draws": length}, ())


def _staged(session: Session, draws: WarmupDraws | None) -> Warm:
    """A warmup that ends by itself."""
    request, placement, starts, root = session.request, session.placement, session.starts, session.root
    sampler = request.sampler
    assert isinstance(sampler, Staged)
    began = session.stop.clock()
    taken = lambda stages: session.stop.clock() - began - stages.compile_seconds + stages.earlier_seconds

    def tell(stages: Stages, acceptance: float) -> None:
        chunk = ChunkReport(
            phase="warmup",
            done=stages.draws,
            total=None,
            num_chains=request.num_chains,
            acceptance=acceptance,
            divergences=0,
            gradients=stages.gradients,
            seconds=taken(stages),
        )
        session.tell(Told(chunk, tuning=stages.tuning, counts_divergences=False))
        session.stop.check()

    foresee = lambda tuning: session.sampling.prepare(request, placement, root, sampler.frozen(tuning))
    most = request.num_warmup
    stages = Stages(
        session.sampling.program.target,
        placement,
        root,
        starts.position,
        most,
        tell,
        starts.chosen,
        Sampling(*session.sampling, foresee, early=not request.folded),
    )
    stages.clock = session.stop.clock
    visited = Visited()

    def keep(left: Left) -> None:
        if left.burnt_in:
            trail = left.trail
            visited.add(session.model.layout.plain(trail.position), trail.log_density, trail.gradients, left.members)
        if draws is not None:
            draws.stage(left)

    stages.keep = keep
    if session.folder is not None:
        stages.ledger = session.folder
        left = session.folder.last_stage()
        if left is not None:
            session.check_log_density(left)
    warmed = sampler.warm_up(stages, session.model.dim, request.dtype)
    run = stages.ready(sampler.kernel(), warmed.tuning)
    record = {"draws": stages.draws, **warmed.record}
    seconds = taken(stages)
    return Warm(run, stages.compile_seconds, seconds, stages.gradients, record, warmed.findings, visited=visited)


def _plain(value: Any) -> Any:
    """What JSON does not know: NumPy's numbers and arrays."""
    return value.tolist()
