"""The front door: one call that starts the chains, tunes them, samples, and says whether to trust the draws."""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

import shoal
from shoal import compiling
from shoal.adaptation import Fixed
from shoal.compiling import warn_of_slow_sums
from shoal.cores import warn_of_idle_cores
from shoal.diagnostics.findings import Finding
from shoal.mesh import Placement
from shoal.models.model import Model
from shoal.program import Program, Run, keep_draws, keep_nothing
from shoal.progress import ChunkReport, progress
from shoal.randomness import root_key
from shoal.request import Request, check_count, check_seed, check_superchains, checked
from shoal.results.draws import Header, MemoryDraws
from shoal.results.failure import cut_short, unfinished
from shoal.results.result import Gradients, Result, Timing
from shoal.results.zarr_draws import ZarrDraws, check_new, zarr_package
from shoal.run import compile_phase, drive, enter, frozen, prepare_phase, report, start
from shoal.samplers import Sampler
from shoal.samplers.arrays import tuning_from_arrays, tuning_to_arrays
from shoal.samplers.staged import Staged
from shoal.starts import Starts, default_superchains, dispersed, given
from shoal.statistics import Health, Moments
from shoal.target import Target
from shoal.warmup.stages import Stages

# The most that the device keeps of the draws before they go to the host. It does not depend on the number of
# samples, so runs of any length are one compiled program.
KEPT_BYTES, MOST_KEPT = 64 * 2**20, 500
# Warmup keeps no draws, so a chunk of it may have any length.
ANY = 2**30


def sample(  # noqa: PLR0913  (the front door: each is a choice that users make)
    model: Model,
    *,
    num_chains: int = 128,
    num_warmup: int | None = None,
    num_samples: int = 500,
    sampler: str | Sampler = "auto",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress_bar: bool = True,
    initial_positions: Any = None,
    tuning: Mapping[str, np.ndarray] | None = None,
    precision: str = "float32",
    num_superchains: int | None = None,
    tile: int | None = None,
    deterministic: bool = True,
) -> Result:
    """Sample a model with many chains that tune themselves together.

    Ctrl-C in sampling keeps and returns the draws so far; the result's `interrupted` says so. So does a failure
    after some draws, such as a full disk, with a finding of kind "failed" that says what happened.

    Args:
        model: what to sample: `shoal.Model(...)` or `shoal.from_numpyro(...)`.
        num_chains: chains, run side by side on all local devices.
        num_warmup: draws of every chain in which the sampler is tuned, not kept. For "auto", whose warmup ends when
            it has settled, the most of them (2,000 by default); for others 500 by default. With `tuning` 0, and
            what is asked for is run with that tuning.
        num_samples: draws of every chain that are kept.
        sampler: "auto" finds what samples the posterior best; others by name, or as an object with settings, such
            as `shoal.HMC(step_size=..., num_steps=...)`, which is set by hand.
        seed: every draw depends on the seed, the number of the draw and the number of the chain alone.
        out: a new directory to write the draws to while sampling (Zarr), read lazily by the result.
        progress_bar: show progress.
        initial_positions: `{parameter: [chains, *shape]}` on the supports, or unconstrained `[chains, dim]`;
            chains with equal starts make up a superchain. By default superchains start at points drawn
            uniformly on (-2, 2) in the unconstrained coordinates.
        tuning: the `tuning` of another result with the same sampler; skips warmup.
        precision: "float32" or "float64".
        num_superchains: starting points; the chains are divided among them.
        tile: chains that are evaluated at once; draws depend on it to the last bit. By default 32 on a CPU, and on an
            accelerator all its chains, up to 16,384.
        deterministic: whether the same seed gives the same draws on a GPU, too. Without it models that index their
            parameters (`level[group]`) are several times as fast there with thousands of chains. Elsewhere it changes
            nothing.

    Returns:
        The draws, how they were made, and whether they can be trusted.

    Raises:
        ValueError: an argument is out of its range, or the model cannot be sampled; the message says which,
            what was expected, and what to do.
    """
    request = checked(model, num_chains, num_warmup, num_samples, sampler, tuning, precision)
    check_seed(seed)
    check_superchains(num_superchains, num_chains, initial_positions)
    if tile is not None:
        check_count("tile", tile, 1)
    if out is not None:
        out = check_new(out)
        zarr_package()
    with (
        _precision(request.dtype),
        compiling.deterministic(deterministic),
        compiling.background(),
        progress(progress_bar) as show,
    ):
        placement = Placement.of(num_chains, tile)
        warn_of_idle_cores(placement.num_padded // placement.layout.tile)
        began = time.perf_counter()
        target = model.target(request.dtype)
        warn_of_slow_sums(target, request.dtype, num_chains)
        root = root_key(seed)
        sampling = _Sampling.of(request, model, target, placement)
        sampling.prepare(request, placement, root, _expected_tuning(request, target.dim))
        if initial_positions is None:
            groups = default_superchains(num_chains) if num_superchains is None else num_superchains
            starts = dispersed(model, target, root, num_chains, groups, request.dtype)
        else:
            starts = given(model, target, initial_positions, num_chains, request.dtype)
        session = _Session(request, model, target, placement, sampling, starts, show, time.perf_counter() - began)
        return session.sample(root, seed, out)


class _Sampling(NamedTuple):
    """What is done once the tuning is fixed, and how many sweeps of it the device keeps before they go to the host."""

    program: Program
    capacity: int

    @classmethod
    def of(cls, request: Request, model: Model, target: Target, placement: Placement) -> "_Sampling":
        kernel, folds = request.sampler.kernel(), {"health": Health(), "moments": Moments()}
        position = jax.ShapeDtypeStruct((placement.num_padded, model.dim), request.dtype)
        kept = jax.tree.leaves(eqx.filter_eval_shape(target.constrained, position))
        per_draw = sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
        draws = max(1, min(MOST_KEPT, KEPT_BYTES // max(per_draw, 1)))
        program = Program(target, kernel, Fixed(), folds, keep_draws)
        return cls(program, max(1, draws // kernel.draws_per_sweep))

    def prepare(self, request: Request, placement: Placement, root: Any, tuning: Any) -> None:
        """Begin to compile it in the background, for a tuning of this form, if one is known."""
        if tuning is not None and not self.program.kernel.remembers:
            anywhere = np.zeros((placement.num_chains, self.program.target.dim), request.dtype)
            prepare_phase(self.program, placement, root, anywhere, tuning, self.capacity)


def _first_tuning(request: Request, dim: int) -> Any:
    """The given tuning, or what warmup begins with."""
    first = request.sampler.tuning(dim, request.dtype)
    return first if request.tuning is None else tuning_from_arrays(request.tuning, first)


def _expected_tuning(request: Request, dim: int) -> Any | None:
    """Of the form that sampling will have, as far as is known."""
    if request.tuning is None:
        return request.sampler.expected(dim, request.dtype)
    return request.sampler.frozen(_first_tuning(request, dim))


class _Warm(NamedTuple):
    """What a warmup left: the run with the tuning to sample with, what it cost, and what is told of it."""

    run: Run
    compile_seconds: float
    seconds: float
    gradients: int
    record: dict[str, Any]
    findings: tuple[Finding, ...]


@dataclass
class _Session:
    """One call of `sample`: two phases of the same loop, and what is told on the way.

    `seconds` is what finding the starts took: compiling, as good as all of it.
    """

    request: Request
    model: Model
    target: Target
    placement: Placement
    sampling: _Sampling
    starts: Starts
    show: Callable[[ChunkReport], None]
    seconds: float

    def sample(self, root: Any, seed: int, out: Any) -> Result:
        request = self.request
        warm = self.staged(root) if request.ends_itself else self.fixed_length(root)
        # Fetched before sampling: a device that fails there may give nothing back afterwards.
        tuning = tuning_to_arrays(warm.run.tuning)
        began = time.perf_counter()
        sampling, capacity = self.sampling
        run = eqx.tree_at(lambda r: r.tuning, warm.run, request.sampler.frozen(warm.run.tuning))
        run = enter(sampling, run, self.placement, request.num_samples)
        compile_phase(sampling, run, self.placement, capacity)
        compiled = self.seconds + warm.compile_seconds + time.perf_counter() - began
        header = self.header(seed, warm.record)
        length = request.num_samples
        draws = MemoryDraws(length, header) if out is None else ZarrDraws(out, length, header)
        seconds, gradients, interrupted, failed = self.draw(sampling, run, capacity, draws)
        result = Result(
            draws=draws.draws,
            sample_stats=draws.sample_stats,
            **vars(header),
            timing=Timing(compiled, warm.seconds, seconds),
            gradients=Gradients(warm.gradients, *gradients),
            tuning=tuning,
            interrupted=interrupted,
            notes=(*self.starts.findings, *warm.findings, *failed),
        )
        try:
            draws.finish(result)
        except Exception as error:
            return replace(result, notes=(*result.notes, unfinished(error, out)))
        return result

    def fixed_length(self, root: Any) -> "_Warm":
        """A warmup of as many draws as were asked for, in one phase."""
        request, sampler = self.request, self.request.sampler
        began = time.perf_counter()
        first = _first_tuning(request, self.model.dim)
        adaptation = Fixed() if request.tuning is not None else sampler.adaptation()
        warm = Program(self.target, sampler.warmup_kernel(), adaptation, {"health": Health()}, keep_nothing)
        run = start(warm, self.placement, root, self.starts.position, first)
        run = enter(warm, run, self.placement, request.num_warmup)
        if request.num_warmup:
            compile_phase(warm, run, self.placement, ANY)
        compiled = time.perf_counter() - began
        seconds, gradients, length = 0.0, 0, request.num_warmup
        began = time.perf_counter()
        for chunk in drive(warm, run, self.placement, length, ANY):
            run = chunk.run
            seconds = time.perf_counter() - began
            gradients, _ = self.tell("warmup", warm, chunk.run, chunk.done, length, seconds)
        began = time.perf_counter()
        run = eqx.tree_at(lambda r: r.tuning, run, frozen(warm, run, self.placement))
        compiled += time.perf_counter() - began
        return _Warm(run, compiled, seconds, gradients, {"draws": length}, ())

    def staged(self, root: Any) -> "_Warm":
        """A warmup that ends by itself."""
        sampler = self.request.sampler
        assert isinstance(sampler, Staged)
        began = time.perf_counter()
        tell = lambda stages, acceptance: self.show(
            ChunkReport(
                phase="warmup",
                done=stages.draws,
                total=None,
                num_chains=self.request.num_chains,
                acceptance=acceptance,
                divergences=0,
                gradients=stages.gradients,
                seconds=time.perf_counter() - began - stages.compile_seconds,
            )
        )
        starts, most = self.starts, self.request.num_warmup
        foresee = lambda tuning: self.sampling.prepare(self.request, self.placement, root, sampler.frozen(tuning))
        stages = Stages(self.target, self.placement, root, starts.position, most, tell, starts.chosen, foresee)
        warmed = sampler.warm_up(stages, self.model.dim, self.request.dtype)
        run = stages.ready(sampler.kernel(), warmed.tuning)
        seconds = time.perf_counter() - began - stages.compile_seconds
        record = {"draws": stages.draws, **warmed.record}
        return _Warm(
            run,
            stages.compile_seconds,
            seconds,
            stages.gradients,
            record,
            warmed.findings,
        )

    def draw(
        self, sampling: Program, run: Run, capacity: int, draws: Any
    ) -> tuple[float, tuple[int, int], bool, tuple[Finding, ...]]:
        """Seconds, gradients used and paid, whether it ended early, and why, where nobody asked for that."""
        seconds, gradients, made, length = 0.0, (0, 0), 0, self.request.num_samples
        began = time.perf_counter()
        try:
            for chunk in drive(sampling, run, self.placement, length, capacity):
                made = chunk.done
                values, stats = self.on_host(chunk.kept, chunk.draws)
                draws.append(values, stats)
                seconds = time.perf_counter() - began
                gradients = self.tell("sampling", sampling, chunk.run, chunk.done, length, seconds)
        except (KeyboardInterrupt, Exception) as error:
            if not draws.committed:
                raise
            if isinstance(error, KeyboardInterrupt):
                return seconds, gradients, True, ()
            return seconds, gradients, True, (cut_short(error, draws.committed, made, length),)
        return seconds, gradients, False, ()

    def on_host(self, kept: Any, draws: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What was kept, `[chain, draw, *shape]`, without the chains that fill up a tile."""
        chains = self.placement.rows
        arrays = jax.tree.map(lambda leaf: np.asarray(leaf)[:draws, chains].swapaxes(0, 1), kept)
        return arrays["values"], arrays["stats"]

    def tell(self, phase: str, program: Program, run: Run, done: int, total: int, seconds: float) -> tuple[int, int]:
        """Show how far it is; returns the gradients of the phase so far, used and paid."""
        said = report(program, run, self.placement, self.starts.superchain)
        health, moments = said["health"], said.get("moments")
        known = None if moments is None else moments["r_hat_nested"][np.isfinite(moments["r_hat_nested"])]
        r_hat = None if known is None or known.size == 0 else float(known.max())
        self.show(
            ChunkReport(
                phase=phase,
                done=done,
                total=total,
                num_chains=self.request.num_chains,
                acceptance=float(health["acceptance"]),
                divergences=int(health["divergences"]),
                gradients=int(health["gradients"]),
                seconds=seconds,
                r_hat=r_hat,
            )
        )
        return int(health["gradients"]), int(health["paid"])

    def header(self, seed: int, warmup: dict[str, Any]) -> Header:
        return Header(
            superchain=self.starts.superchain,
            parameters=tuple(self.model.parameter_names),
            dims=self.model.dims,
            coords=self.model.coords,
            settings=self.settings(seed),
            warmup=warmup,
            versions=versions(),
        )

    def settings(self, seed: int) -> dict[str, Any]:
        request = self.request
        return {
            "model": self.model.name,
            "dim": self.model.dim,
            "sampler": request.sampler.name,
            **{f"sampler.{name}": value for name, value in request.sampler.settings().items()},
            "num_chains": request.num_chains,
            "num_superchains": int(self.starts.superchain.max()) + 1,
            "num_warmup": request.num_warmup,
            "num_samples": request.num_samples,
            "seed": seed,
            "precision": request.precision,
            "tile": self.placement.layout.tile,
            "deterministic": compiling.is_deterministic(),
            "tuning_given": request.tuning is not None,
        }


def versions() -> dict[str, str]:
    """What a run was made with."""
    devices = jax.local_devices()
    return {
        "shoal": shoal.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "backend": devices[0].platform,
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


@contextlib.contextmanager
def _precision(dtype: type) -> Iterator[None]:
    """64-bit numbers while sampling in double, whatever the process uses elsewhere."""
    with jax.enable_x64(dtype is np.float64):
        yield
