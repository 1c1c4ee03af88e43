"""The front doors: one call that tunes, samples and says whether to trust the draws, and one that goes on with it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shoal import compiling
from shoal.arguments import check_count
from shoal.compile_cache import kept_programs
from shoal.compiling import warn_of_slow_sums
from shoal.cores import warn_of_idle_cores
from shoal.drawing import sampled
from shoal.durable.at_url import known_of, mirrored
from shoal.durable.folder import Beginning, RunFolder, beginning_of
from shoal.durable.identity import differences, identity, other_run
from shoal.models.model import Model
from shoal.objects import Objects, place_of
from shoal.paths import by_path
from shoal.placing import as_begun, as_recorded, check_together, in_parts, placement_of, targets_of, tuning_here
from shoal.progress import ChunkReport, progress
from shoal.randomness import root_key
from shoal.request import Call, Request, checked_call
from shoal.results.made import made
from shoal.results.result import Result
from shoal.results.so_far import SoFar, unwatched
from shoal.samplers import SAMPLERS, Sampler, named
from shoal.session import SamplingPhase, Session, expected_tuning, recorded_settings, versions
from shoal.starts import Evaluate, Starts, default_superchains, dispersed, given
from shoal.stopping import Stop, stoppable
from shoal.target import Target
from shoal.until import Until
from shoal.watching.watch import watched


def sample(  # noqa: PLR0913  (the front door: each is a choice that users make)
    model: Model,
    *,
    num_chains: int = 128,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    until: Until | None = None,
    sampler: str | Sampler = "auto",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
    initial_positions: Any = None,
    tuning: Mapping[str, np.ndarray] | None = None,
    precision: str = "float32",
    num_superchains: int | None = None,
    thinning: int = 1,
    keep: Sequence[str] | str | None = None,
    save_warmup: bool = False,
    tile: int | None = None,
    mesh: Mapping[str, int] | None = None,
    row_block: int | None = None,
    deterministic: bool = True,
    max_seconds: float | None = None,
    tensorboard: bool = False,
) -> Result:
    """Sample a model with many chains that tune themselves together; `shoal.start` does so beside the program.

    Ctrl-C in sampling keeps and returns the draws so far, at the end of a chunk of half a second; the result's
    `interrupted` says so. A second Ctrl-C stops at once. A failure after some draws, such as a full disk, also returns
    what there is, with a finding of kind "failed" that says what happened. With `out`, SIGTERM ends the run as Ctrl-C
    does, and takes its course when everything is kept: by default the process then ends.

    Args:
        model: what to sample: `shoal.Model(...)` or `shoal.from_numpyro(...)`.
        num_chains: chains, run side by side on all local devices.
        num_warmup: draws of every chain in which the sampler is tuned. For "auto", whose warmup ends when
            it has settled, the most of them (2,000 by default); for others 500 by default. With `tuning` 0, and
            what is asked for is run with that tuning.
        num_samples: draws of every chain after the warmup. By default the run ends by itself, when `until` holds.
        until: how precise the answer is to be; `shoal.Until()` where neither this nor `num_samples` is given: 1,000
            effective draws of every parameter and its square, in at most 10,000 draws of each chain.
        sampler: "auto" finds what samples the posterior best; others by name, or as an object with settings, such
            as `shoal.HMC(step_size=..., num_steps=...)`, which is set by hand.
        seed: every draw depends on the seed, the number of the draw and the number of the chain alone.
        out: a directory to keep the run in, or the URL of an object store such as "s3://bucket/run": its draws (Zarr),
            read lazily by the result, and what it goes on from. The same call with the same `out` goes on where it
            ended, after a kill, too; with more `num_samples` it makes a run longer that has ended. See `shoal.resume`.
        progress_bar: show progress.
        initial_positions: `{parameter: [chains, *shape]}` on the supports, or unconstrained `[chains, dim]`;
            chains with equal starts make up a superchain. By default superchains start at points drawn
            uniformly on (-2, 2) in the unconstrained coordinates.
        tuning: the `tuning` of another result with the same sampler; skips warmup.
        precision: "float32" or "float64"; or "mixed", in which positions and gradients are in single and the log
            density by which draws are accepted is in double, for sums that are too large for the digits of single.
        num_superchains: starting points; the chains are divided among them.
        thinning: every so many draws one is kept, of `num_samples`, which is a multiple of it.
        keep: names of the parameters and deterministic quantities that are kept; all by default. "moments" keeps
            moments and quantiles of all draws, in memory that does not grow with their number, and "none" next to
            nothing: see `Result.moments`.
        save_warmup: whether the draws of the warmup are kept, too, thinned likewise: in `warmup_draws` of the result
            and the group `warmup_posterior`. Nothing is judged by them, and other draws stay the same.
        tile: chains that are evaluated at once; draws depend on it to the last bit. By default 32 on a CPU, and on an
            accelerator all its chains, up to 16,384.
        mesh: into how many parts the chains, the rows of the data and the parameters go, each on a local device:
            `{"chains": 4, "data": 2}` needs eight, and so does `{"chains": 2, "parameters": 4}`. By default the chains
            go over all devices. Rows are split of a model with `log_likelihood`; how many parts they are in changes
            draws in the last bits, and parts of the parameters are other draws.
        row_block: rows of the data that are evaluated at once, of a model with `log_likelihood`; draws depend on it
            to the last bit where there are more. By default 8,192.
        deterministic: whether the same seed gives the same draws on a GPU, too. Without it models that index their
            parameters (`level[group]`) are several times as fast there with thousands of chains. Elsewhere it changes
            nothing.
        max_seconds: that this call may take, compiling included; it then ends as by Ctrl-C, with the draws so far.
        tensorboard: whether to write event files for TensorBoard into the directory `tensorboard` of `out`.

    Returns:
        The draws, how they were made, and whether they can be trusted.

    Raises:
        ValueError: an argument is out of its range, or the model cannot be sampled; the message says which,
            what was expected, and what to do.
        ModuleNotFoundError: a package is missing that `out` or `tensorboard` needs.
        TimeoutError: `max_seconds` passed before the first draw.
    """
    call = checked_call(
        model,
        num_chains=num_chains,
        num_warmup=num_warmup,
        num_samples=num_samples,
        until=until,
        sampler=sampler,
        seed=seed,
        out=out,
        initial_positions=initial_positions,
        tuning=tuning,
        precision=precision,
        num_superchains=num_superchains,
        tile=tile,
        mesh=mesh,
        row_block=row_block,
        deterministic=deterministic,
        max_seconds=max_seconds,
        thinning=thinning,
        keep=keep,
        save_warmup=save_warmup,
        tensorboard=tensorboard,
    )
    stop = Stop(call.max_seconds)
    # Not `start(...).wait()`: Python hands signals to the main thread alone, and there a second Ctrl-C ends at once
    # what nothing can end in another thread.
    with (
        stoppable(stop, keeps=call.place is not None),
        held(call.place) as folder,
        progress(progress_bar) as show,
    ):
        return carried_out(call, folder, stop, show)


def held(place: Path | Objects | None) -> contextlib.AbstractContextManager[RunFolder | None]:
    """The directory of a run, held while it is entered, or None where it has none; of one at a URL its local copy.

    Raises:
        ValueError: somebody else holds it, or the store cannot be used.
    """
    if place is None:
        return contextlib.nullcontext()
    return mirrored(place) if isinstance(place, Objects) else RunFolder(place)


def carried_out(
    call: Call,
    folder: RunFolder | None,
    stop: Stop,
    show: Callable[[ChunkReport], None],
    expose: Callable[[SoFar], None] = unwatched,
) -> Result:
    """Do what was asked for, in this thread.

    Args:
        call: what was.
        folder: of the run.
        stop: whether it is to end early, or to stand still.
        show: the progress, after every chunk.
        expose: told once, before the first draw, where the draws will be.
    """
    request, model = call.request, call.model
    num_chains = request.num_chains
    with (
        _precision(request),
        compiling.deterministic(call.deterministic),
        kept_programs(),
        compiling.background(),
    ):
        there = None if folder is None else beginning_of(folder.path)
        if there is not None and folder is not None and call.ends_as_before:
            has = made(folder.path)
            if (has.until if has.asked else there.settings.get("until")) is None:
                length = has.asked * request.thinning or there.settings["num_samples"]
                request = replace(request, num_samples=length, until=None)
                call = replace(call, request=request)
        before = {} if there is None else there.settings
        model = as_begun(model, call.row_block, before)
        placement = placement_of(num_chains, call.tile, call.mesh, before)
        parts = placement.layout.parts
        model, request = in_parts(model, parts), replace(request, tuning=tuning_here(request.tuning, parts))
        warn_of_idle_cores(placement.num_padded // placement.layout.tile)
        began = time.perf_counter()
        target, spread = targets_of(model, request.dtype, request.mixed, placement)
        warn_of_slow_sums(target, request.dtype, num_chains)
        if parts > 1:  # Whatever the number of groups: a run may go on with another.
            request = replace(request, sampler=request.sampler.in_step())
        moves = request.sampler.kernel(), request.sampler.warmup_kernel()
        check_together(request.sampler.name, moves, target, placement, request.dtype)
        root = root_key(call.seed)
        sampling = SamplingPhase.of(request, model, spread, placement)
        evaluate = sampling.evaluation(request, placement) if there is None else None
        sampling.prepare(request, placement, root, expected_tuning(request, target.dim))
        starts = _starts(call, model, target, root, there, evaluate)
        del evaluate  # and what it has of the data
        groups = call.num_superchains or default_superchains(num_chains)
        groups = int(groups) if call.initial_positions is None else int(starts.superchain.max()) + 1
        settings = recorded_settings(request, model, placement, groups, call.seed)
        if folder is not None:
            asked = identity(
                model,
                settings,
                tuning=request.tuning,
                sampler=by_path(request.sampler),
                initial_positions=starts.position if starts.chosen else None,
            )
            # Starts that the user chose are given again where the run goes on.
            given_there = starts._replace(position=model.layout.plain(starts.position)) if starts.chosen else starts
            _begun(folder, there, Beginning(asked, settings, versions(), given_there, call.request.tuning))
        seconds = time.perf_counter() - began
        with watched(folder, model, settings, call.tensorboard) as watch:
            session = Session(
                request, model, target, placement, root, sampling, starts, folder, show, watch, stop, seconds, expose
            )
            result = sampled(session, settings)
    return result if folder is None or folder.mirror is None else folder.mirror.delivered(result, stop)


def _starts(
    call: Call,
    model: Model,
    target: Target,
    root: Any,
    there: Beginning | None,
    evaluate: Evaluate | None,
) -> Starts:
    """Where the chains begin: as given, as a run on disk began, or anywhere."""
    request = call.request
    if call.initial_positions is not None:
        return given(model, target, call.initial_positions, request.num_chains, request.dtype)
    if there is not None and not there.starts.chosen:
        return there.starts
    groups = int(call.num_superchains or default_superchains(request.num_chains))
    return dispersed(model, target, root, request.num_chains, groups, request.dtype, evaluate)


def _begun(folder: RunFolder, there: Beginning | None, asked: Beginning) -> None:
    """Write down how the run begins, or see that it is the one that is there.

    Raises:
        ValueError: it is another one, or shorter.
    """
    if there is None:
        folder.begin(asked)
        return
    if differ := differences(there.identity, asked.identity):
        raise ValueError(other_run(folder.name, differ))
    num_samples = asked.settings["num_samples"]
    has = made(folder.path).draws * asked.settings.get("thinning", 1)
    if has > num_samples:
        name = "max_samples" if "until" in asked.settings else "num_samples"
        raise ValueError(
            f"{name}={num_samples}: the run in '{folder.name}' has {has} draws of each chain already. Ask for as "
            "many or more; shoal.load reads those that are there."
        )
    folder.compare(there.versions, versions())


def resume(  # noqa: PLR0913  (the other front door)
    out: str | os.PathLike[str],
    model: Model | None = None,
    *,
    num_samples: int | None = None,
    add_samples: int | None = None,
    until: Until | None = None,
    sampler: Sampler | None = None,
    progress_bar: bool = True,
    max_seconds: float | None = None,
    tensorboard: bool = False,
) -> Result:
    """Go on with a run that was killed or interrupted, or make one longer that has ended.

    The draws are, bit by bit, those of a run that was never stopped: on the same kind of device, with the same versions
    of JAX and Shoal. They are also those of other numbers of devices, since chains are evaluated in tiles. The warmup
    goes on, too, from its last stage (`auto`) or its last second (samplers with a warmup of fixed length).

    Args:
        out: the directory or the URL of the run, as it was given to `shoal.sample`.
        model: what it samples; it may be left out where it is one of the examples. Another posterior than that of the
            run is refused.
        num_samples: draws of every chain that the whole run is to have. By default what it was last asked for: a number
            of draws, or a precision.
        add_samples: draws of every chain to add to what it was last asked for: a second call adds as many again. To a
            run that ends by itself, to what it has.
        until: how precise the whole run is to be. Of a run that was not asked for a precision before, what it rests on
            is folded from here on.
        sampler: where it is one of `shoal.from_blackjax`; others are known from the run.
        progress_bar: show progress.
        max_seconds: that this call may take, as for `shoal.sample`.
        tensorboard: as for `shoal.sample`; the events go on where those of the earlier process ended.

    Returns:
        The result of the whole run.

    Raises:
        ValueError: there is no run to go on with, another process writes it, or the model is not the one it samples;
            the message says what differs.
    """
    place = place_of(out)
    with known_of(place) as known:
        there, has = beginning_of(known), made(known)
    if there is None:
        state = "does not exist" if isinstance(place, Path) and not place.exists() else "has no run that can go on"
        raise ValueError(f"'{place}' {state}: give the directory that was given to shoal.sample as out.")
    settings = there.settings
    if model is None:
        model = _example(place, settings)
    given = {"num_samples": num_samples, "add_samples": add_samples, "until": until}
    if len(both := [name for name, value in given.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(both)} were given: give one of them.")
    if add_samples is not None:
        check_count("add_samples", add_samples, 1)
    if sampler is None:
        own = {name.removeprefix("sampler."): value for name, value in settings.items() if name.startswith("sampler.")}
        if settings["sampler"] not in SAMPLERS:
            raise ValueError(f"The run in '{place}' was made by shoal.from_blackjax: give that sampler as sampler=.")
        sampler = named(settings["sampler"], own)
    chosen = there.starts.chosen
    thinning = settings.get("thinning", 1)
    last = has.until if has.asked else settings.get("until")
    if add_samples is not None:
        asked = has.draws if last else has.asked
        num_samples = (asked * thinning or (0 if last else settings["num_samples"])) + add_samples
    elif num_samples is None and until is None:
        until = Until.from_dict(last) if last else None
        num_samples = None if last else has.asked * thinning or settings["num_samples"]
    return sample(
        model,
        num_chains=settings["num_chains"],
        num_warmup=settings["num_warmup"],
        num_samples=num_samples,
        until=until,
        sampler=sampler,
        seed=settings["seed"],
        out=place,
        progress_bar=progress_bar,
        initial_positions=there.starts.position if chosen else None,
        tuning=there.tuning,
        precision=settings["precision"],
        num_superchains=None if chosen else settings["num_superchains"],
        thinning=thinning,
        keep=settings.get("keep"),
        save_warmup=settings.get("save_warmup", False),
        **as_recorded(settings),
        deterministic=settings["deterministic"],
        max_seconds=max_seconds,
        tensorboard=tensorboard,
    )


def _example(place: Path | Objects, settings: Mapping[str, Any]) -> Model:
    """The example that a run samples."""
    from shoal import examples

    if settings.get("target") not in [example.name for example in examples.catalogue()]:
        raise ValueError(
            f"The run in '{place}' samples '{settings['model']}', which is none of Shoal's examples: give it as "
            "shoal.resume(out, model)."
        )
    return examples.load(settings["target"])


@contextlib.contextmanager
def _precision(request: Request) -> Iterator[None]:
    """64-bit numbers while anything is in double, whatever the process uses elsewhere."""
    with jax.enable_x64(request.dtype is np.float64 or request.mixed):
        yield
