"""What the phases of a run have in common: what they are about, and what is told and kept on the way."""

import contextlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

import shoal
from shoal import compiling
from shoal.adaptation import Fixed
from shoal.diagnostics.digits import coarse
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.unkept import nothing_kept, unkept
from shoal.diagnostics.visited import Visited
from shoal.durable.folder import Checkpoint, RunFolder
from shoal.durable.identity import log_density_differs, other_run
from shoal.mesh import Placement
from shoal.models.model import Model
from shoal.paths import by_path, like
from shoal.placing import recorded
from shoal.program import KeepDraws, Program, Run
from shoal.progress import ChunkReport
from shoal.request import Request
from shoal.results.archive import Archive
from shoal.results.draws import Header
from shoal.results.folded_draws import NONE
from shoal.results.json_text import plain
from shoal.results.moments import COORDINATES
from shoal.results.so_far import SoFar, unwatched
from shoal.run import Chunk, ensemble_at, on_host, prepare_phase, report, revived
from shoal.samplers.arrays import tuning_from_arrays
from shoal.starts import Evaluate, Starts
from shoal.statistics import ChainMeans, Health, Moments, Reach, Statistic
from shoal.statistics.chain_means import stretches_for
from shoal.stopping import Stop
from shoal.target import Target
from shoal.watching.record import LOG_DENSITY, Told, quantities, worst
from shoal.watching.watch import Watch

# The most that the device keeps of the draws before they go to the host, in bytes and in draws of a chain; with very
# many chains a few draws, for which more bytes are spent. It does not depend on the number of samples, so runs of any
# length are one compiled program, and take up as much memory.
KEPT_BYTES, MOST_KEPT = 2**22, 500
FEW_KEPT, FEW_BYTES = 8, 2**26


# What the precision of a run that ends by itself rests on, by the name that it has among the statistics.
PRECISION = "precision"
# What is known of where warmup was rests on how far draws reach.
REACH = "reach"


class SamplingPhase(NamedTuple):
    """What is done once the tuning is fixed, and how many sweeps of it the device keeps before they go to the host."""

    program: Program
    capacity: int

    @classmethod
    def of(cls, request: Request, model: Model, target: Target, placement: Placement) -> "SamplingPhase":
        kernel = request.sampler.kernel()
        folds: dict[str, Statistic] = {"health": Health(), "moments": Moments()}
        if request.burns_in:
            folds[REACH] = Reach()
        position = jax.ShapeDtypeStruct((placement.num_padded, model.dim), request.dtype)
        values = eqx.filter_eval_shape(target.constrained, position)
        kept = [leaf for name, leaf in values.items() if request.keep is None or name in request.keep]
        if request.until is not None:
            names = tuple(dict.fromkeys((*model.parameter_names, *request.until.mcse)))
            numbers = sum(values[name].size for name in names) // placement.num_padded
            nowhere = np.zeros(numbers + 1 + model.dim, request.dtype)
            stretches = stretches_for(request.num_chains, 2 * (numbers + model.dim) + 1)
            folds[PRECISION] = ChainMeans(names, nowhere, stretches)
        per_draw = sum(leaf.size * leaf.dtype.itemsize for leaf in kept)
        room = lambda size: size // max(per_draw, 1)
        if request.folded:
            stats = 6 * placement.num_padded * np.dtype(request.dtype).itemsize
            draws = max(1, min(MOST_KEPT, KEPT_BYTES // (per_draw + stats)))
        else:
            draws = max(1, min(MOST_KEPT, room(KEPT_BYTES)), min(FEW_KEPT, room(FEW_BYTES)))
        program = Program(target, kernel, Fixed(), folds, KeepDraws(request.keep))
        return cls(program, max(1, draws // kernel.draws_per_sweep))

    @property
    def draws(self) -> int:
        """How many draws of a chain that is."""
        return self.capacity * self.program.kernel.draws_per_sweep

    def prepare(self, request: Request, placement: Placement, root: Any, tuning: Any) -> None:
        """Begin to compile it in the background, for a tuning of this form, if one is known.

        Where draws are folded one program after another is compiled, which takes up less memory.
        """
        if tuning is not None and not self.program.kernel.remembers and not request.folded:
            prepare_phase(self.program, placement, root, self._anywhere(request), tuning, self.capacity)

    def evaluation(self, request: Request, placement: Placement) -> Evaluate | None:
        """What is evaluated at the starts, by the program that the run begins with, which begins to be compiled.

        None where scouts have a program of their own, or the kernel cannot be asked of any position.
        """
        dim, sampler = self.program.target.dim, request.sampler
        scouts = sampler.num_scouts(dim) if request.ends_itself else None
        kernel = sampler.first_kernel(dim) if request.ends_itself else sampler.warmup_kernel()
        apart = scouts is not None and placement.part(scouts).layout != placement.layout
        if kernel is None or not kernel.starts_anywhere or apart:
            return None
        target, layout = placement.place(self.program.target, split=False), placement.layout
        rows = lambda position: placement.place(placement.pad(position), split=True)
        if not request.folded:
            ensemble_at.ahead(kernel, target, rows(self._anywhere(request)), layout)

        def evaluate(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            there = ensemble_at(kernel, target, rows(position), layout)
            return on_host((there.log_density, there.gradient), placement)

        return evaluate

    def _anywhere(self, request: Request) -> np.ndarray:
        return np.zeros((request.num_chains, self.program.target.dim), request.dtype)


class Phase(NamedTuple):
    """How far a phase has got: the run, the draws it has made, and what they took."""

    run: Run
    done: int = 0
    seconds: float = 0.0


@dataclass
class Session:
    """One call of `sample`: a warmup and sampling, which are phases of the same loop.

    Attributes:
        request: what was asked for.
        model: what is sampled.
        target: its log density.
        placement: of the chains.
        root: the key of the run.
        sampling: what is done after the warmup.
        starts: where the chains begin.
        folder: what outlives the process; None where nothing does.
        show: the progress.
        watch: what is written down of it.
        stop: whether it is to end early.
        seconds: that finding the starts took: compiling, as good as all of it.
        expose: told before the first draw where the draws will be.
        visited: where chains were in warmup.
    """

    request: Request
    model: Model
    target: Target
    placement: Placement
    root: Any
    sampling: SamplingPhase
    starts: Starts
    folder: RunFolder | None
    show: Callable[[ChunkReport], None]
    watch: Watch
    stop: Stop
    seconds: float
    expose: Callable[[SoFar], None] = unwatched
    visited: Visited = field(default_factory=Visited)

    @property
    def changing(self) -> contextlib.AbstractContextManager[Any]:
        """Held while files of the run change."""
        return contextlib.nullcontext() if self.folder is None else self.folder.changing

    def check_log_density(self, ensemble: Mapping[str, np.ndarray]) -> None:
        """Refuse to go on with another posterior, from chains that an ensemble by path has left."""
        assert self.folder is not None
        differs = log_density_differs(self.target, ensemble["position"], ensemble["log_density"])
        if differs:
            raise ValueError(other_run(self.folder.name, [differs]))

    def checkpoint(self, run: Run, done: int, seconds: float, whole: bool = True, **trees: Any) -> Checkpoint:
        """What the phase goes on from."""
        ensemble, statistics = on_host((run.ensemble, run.statistics), self.placement)
        window = np.asarray(run.window).tolist()
        facts = {"step": int(run.step), "window": window, "done": done, "seconds": seconds, "whole": whole}
        facts["precision_of"] = self._precision_of
        return Checkpoint.of(facts, ensemble=ensemble, statistics=statistics, adaptation=run.adaptation, **trees)

    def archive(self, run: Run, done: int, seconds: float, **trees: Any) -> Archive | None:
        """The checkpoint as it is written; None where nothing outlives the process."""
        whole = done % self.sampling.program.kernel.draws_per_sweep == 0
        return None if self.folder is None else self.checkpoint(run, done, seconds, whole, **trees).archive

    def gone_on(self, run: Run, kept: Checkpoint) -> Phase:
        """A phase where a checkpoint has it.

        Args:
            run: at the start of the phase.
            kept: the checkpoint; one without a tuning is of a phase in which it stays.
        """
        place, facts = self.placement.place, kept.facts
        tuning = run.tuning if "tuning" not in kept.trees else like(run.tuning, kept.tree("tuning"))
        ensemble = like(run.ensemble, kept.tree("ensemble"))
        statistics = {name: self._folded(name, memory, kept) for name, memory in run.statistics.items()}
        rows = place(jax.tree.map(self.placement.pad, statistics), split=True)
        adaptation = like(run.adaptation, kept.tree("adaptation"))
        adaptation, window = place((adaptation, np.array(facts["window"], np.int32)), split=False)
        gone = revived(self.placement, self.root, ensemble, facts["step"], tuning)
        gone = Run(gone.root, gone.step, gone.chain, gone.ensemble, gone.tuning, adaptation, rows, window)
        return Phase(gone, facts["done"], facts["seconds"])

    def _folded(self, name: str, memory: PyTree, kept: Checkpoint) -> PyTree:
        """What a checkpoint has of a statistic; some begin here where they were not folded before."""
        arrays = kept.tree("statistics").items()
        own = {path.removeprefix(f"{name}."): array for path, array in arrays if path.startswith(f"{name}.")}
        fresh = on_host(memory, self.placement)
        shapes = lambda arrays: {path: array.shape for path, array in arrays.items()}
        # Two quantities of one shape are not to be taken for each other.
        other = kept.facts.get("precision_of") != self._precision_of or shapes(own) != shapes(by_path(fresh))
        return fresh if (name == PRECISION and other) or (name == REACH and not own) else like(memory, own)

    @property
    def _precision_of(self) -> list[str]:
        """What the means are of that precision rests on, in order."""
        fold: Any = self.sampling.program.statistics.get(PRECISION)
        return [] if fold is None else list(fold.names)

    def on_host(self, chunk: Chunk) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """What is kept of a chunk, `[chain, draw, *shape]`, without the chains that fill up a tile."""
        thinning = self.request.thinning
        first = thinning - 1 - (chunk.done - chunk.draws) % thinning
        draws = slice(first, chunk.draws, thinning)
        arrays = jax.tree.map(lambda leaf: self.placement.fetched(leaf, draws), chunk.kept)
        return arrays["values"], arrays["stats"]

    def told(self, phase: str, program: Program, run: Run, done: int, total: int, seconds: float) -> Told:
        """How far a phase is."""
        names = [name for name in program.statistics if name != PRECISION]
        said = report(program, run, self.placement, self.starts.superchain, names)
        # What is told of coordinates is in the order of the parameters, and of these alone.
        plain, health = self.model.layout.plain, said["health"]
        but_last = lambda values: np.append(plain(values[:-1]), values[-1:])
        spread, reach = (said.get(name) for name in ("moments", REACH))
        spread = None if spread is None else {name: but_last(values) for name, values in spread.items()}
        reach = None if reach is None else {name: plain(ends) for name, ends in reach.items()}
        r_hat = None if spread is None else worst(spread["r_hat_nested"], "r_hat_nested")[0]
        chunk = ChunkReport(
            phase=phase,
            done=done,
            total=None if phase == "sampling" and self.request.until is not None else total,
            num_chains=self.request.num_chains,
            acceptance=float(health["acceptance"]),
            divergences=int(health["divergences"]),
            gradients=int(health["gradients"]),
            seconds=seconds,
            r_hat=r_hat,
        )
        per_draw = chunk.gradients / max(int(health["draws"]), 1)
        return Told(chunk, int(health["paid"]), per_draw, run.tuning, spread, reach)

    def tell(self, told: Told, values: Mapping[str, np.ndarray] | None = None) -> None:
        """Show how far a phase is, and write it down.

        Args:
            told: of the phase.
            values: the draws of its last chunk by variable; None in warmup.
        """
        self.show(told.chunk)
        self.watch(told, values or {})

    def beside_draws(self, told: Told) -> tuple[Finding, ...]:
        """What there is to say that the draws do not tell: of where warmup was, of digits, and of what is not kept.

        Args:
            told: of all the draws.
        """
        spread, reach = told.spread, told.reach
        beside = self._unkept(told)
        if spread is not None:
            beside = (
                *coarse(float(spread["mean"][-1]), np.float64 if self.request.mixed else self.request.dtype),
                *beside,
            )
        if spread is None or reach is None:
            return beside
        labels = [name.label for name in quantities(self.model)[:-1]]
        spent = told.chunk.done * told.chunk.num_chains, told.chunk.gradients
        left = self.visited.left_behind(reach["low"], reach["high"], float(spread["mean"][-1]), spent, labels)
        return (*left, *beside)

    def _unkept(self, told: Told) -> tuple[Finding, ...]:
        """What there is to say of coordinates whose draws are not kept."""
        names, kept, spread = quantities(self.model), self.request.keep, told.spread
        without = [number for number, name in enumerate(names) if name.variable not in (*(kept or ()), LOG_DENSITY)]
        if kept is None or spread is None or not without:
            return ()
        labels = [names[number].label for number in without]
        say = nothing_kept if self.request.folded == NONE else unkept
        return tuple(say(labels, *(spread[name][without] for name in ("sd", "r_hat_nested", "ess"))))

    def coordinates(self, told: Told) -> dict[str, np.ndarray]:
        """What is known of each unconstrained coordinate where nothing else is kept, as columns of a summary.

        Args:
            told: of all the draws.
        """
        if self.request.folded != NONE or told.spread is None:
            return {}
        columns = {name: told.spread[name][:-1] for name in ("mean", "sd", "ess", "r_hat")}
        ess = columns.pop("ess")
        unknown = np.full_like(ess, np.nan)
        return {**columns, "mcse_mean": columns["sd"] / np.sqrt(ess), "ess_bulk": ess, "ess_tail": unknown}

    def header(self, settings: dict[str, Any], warmup: dict[str, Any], **kept: Mapping[str, np.ndarray]) -> Header:
        """What is known before the first draw; `kept` of the draws of the warmup."""
        keep, dims, coords = self.request.keep, self.model.dims, self.model.coords
        if self.request.folded == NONE:
            labels = [name.label for name in quantities(self.model) if name.variable != LOG_DENSITY]
            dims, coords = {COORDINATES: ("coordinate",)}, {"coordinate": labels}
        return Header(
            superchain=self.starts.superchain,
            parameters=tuple(name for name in self.model.parameter_names if keep is None or name in keep),
            dims=dims,
            coords=coords,
            settings=settings,
            warmup=warmup,
            versions=versions(),
            **kept,
        )


def first_tuning(request: Request, dim: int) -> Any:
    """The given tuning, or what warmup begins with."""
    first = request.sampler.tuning(dim, request.dtype)
    return first if request.tuning is None else tuning_from_arrays(request.tuning, first)


def expected_tuning(request: Request, dim: int) -> Any | None:
    """Of the form that sampling will have, as far as is known."""
    if request.tuning is None:
        return request.sampler.expected(dim, request.dtype)
    return request.sampler.frozen(first_tuning(request, dim))


def recorded_settings(
    request: Request, model: Model, placement: Placement, num_superchains: int, seed: int
) -> dict[str, Any]:
    """What a run was asked to do, as it is recorded with it."""
    settings = {
        "model": model.name,
        **({} if model.origin is None else {"target": model.origin}),
        "dim": model.layout.num_free,
        "sampler": request.sampler.name,
        **{f"sampler.{name}": value for name, value in request.sampler.settings().items()},
        "num_chains": request.num_chains,
        "num_superchains": num_superchains,
        "num_warmup": request.num_warmup,
        "num_samples": request.num_samples,
        **({} if request.until is None else {"until": request.until.as_dict()}),
        "seed": seed,
        "precision": request.precision,
        **recorded(placement, model),
        **({} if request.thinning == 1 else {"thinning": request.thinning}),
        **({} if request.keep is None else {"keep": list(request.keep)}),
        **({} if request.folded is None else {"keep": request.folded}),
        **({"save_warmup": True} if request.save_warmup else {}),
        "deterministic": compiling.is_deterministic(),
        "tuning_given": request.tuning is not None,
    }
    return plain(settings)


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
