"""One call of `sample_many`: starts for all data sets, round after round of blocks, and a result for each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shoal import compiling
from shoal.adaptation import Fixed
from shoal.diagnostics.findings import Finding
from shoal.many.blocks import Blocks, Made, Recipe, roots_of, sampled_block, starting_points
from shoal.many.results import ManyResults
from shoal.mesh import Placement
from shoal.models import datasets
from shoal.models.model import Model
from shoal.paths import by_path
from shoal.program import KeepDraws, Program, keep_nothing
from shoal.progress import ChunkReport
from shoal.randomness import root_key
from shoal.request import Request
from shoal.results.result import Gradients, Result
from shoal.session import recorded_settings, versions
from shoal.starts import ATTEMPTS, starts_redrawn, why_not_finite
from shoal.statistics import Health, Statistic
from shoal.target import Target


class Facts(NamedTuple):
    """What is known of one data set beside its draws.

    Attributes:
        tuning: by path.
        warmup: sums over the draws of the warmup, of all chains.
        sampling: sums over those after it.
        paid: evaluations of the gradient after the warmup, with those that were waited for.
    """

    tuning: dict[str, np.ndarray]
    warmup: dict[str, Any]
    sampling: dict[str, Any]
    paid: int


class Begun(NamedTuple):
    """Where the superchains of each data set begin, `[data sets, superchains, dim]`, and what there is to say of it."""

    points: np.ndarray
    findings: tuple[tuple[Finding, ...], ...]


@dataclass(frozen=True)
class Work:
    """What is to be done, checked.

    Attributes:
        model: what is sampled.
        request: how.
        data: of all data sets, on the host; leaves `[data sets, ...]`.
        count: how many they are.
        groups: superchains of each.
        seed: of all.
        blocks: how they are spread.
    """

    model: Model
    request: Request
    data: Any
    count: int
    groups: int
    seed: int
    blocks: Blocks

    @cached_property
    def target(self) -> Target:
        """The log density; its data are those of the model."""
        return self.model.target(self.request.dtype)

    @cached_property
    def superchain(self) -> np.ndarray:
        """Of each chain."""
        return np.arange(self.request.num_chains) * self.groups // self.request.num_chains

    def done(self, show: Callable[[ChunkReport], None]) -> ManyResults:
        """Everything, from the starts to the results.

        Args:
            show: the progress, after every round.
        """
        began = time.perf_counter()
        begun, facts, compiled = self.begun(), [], 0.0
        values: dict[str, np.ndarray] = {}
        stats: dict[str, np.ndarray] = {}
        for numbers, made, launched in self.rounds(begun.points):
            compiled = compiled or launched - began
            # Rows that fill up a round are the last data set once more.
            real = slice(0, numbers[-1] - numbers[0] + 1)
            for kept, chunk in ((values, made.kept["values"]), (stats, made.kept["stats"])):
                self.store(kept, numbers[real], {name: rows[real] for name, rows in chunk.items()})
            facts += [self.facts(made, row) for row in range(real.stop)]
            show(self.report(facts, time.perf_counter() - began - compiled))
        settings = recorded_settings(
            self.request,
            self.model,
            Placement.of(self.request.num_chains, self.request.num_chains),
            self.groups,
            self.seed,
        )
        settings["block"] = self.blocks.size
        results = tuple(
            self.result(
                number,
                {name: rows[number] for name, rows in values.items()},
                {name: rows[number] for name, rows in stats.items()},
                facts[number],
                begun.findings[number],
                settings,
            )
            for number in range(self.count)
        )
        return ManyResults(results, values, stats, settings, compiled, time.perf_counter() - began - compiled)

    def begun(self) -> Begun:
        """Points uniform on (-2, 2)^dim, drawn again where log density or gradient is not finite, as for one run.

        Raises:
            ValueError: for some superchain of a data set no point was finite.
        """
        points = np.empty((self.count, self.groups, self.model.dim), self.request.dtype)
        missing = np.ones((self.count, self.groups), bool)
        redrawn = np.zeros(self.count, int)
        for attempt in range(ATTEMPTS):
            wanting = np.flatnonzero(missing.any(1))
            for turn in self.blocks.rounds(len(wanting)):
                numbers = wanting[turn]
                drawn, finite = (np.asarray(part) for part in self.attempted(numbers, attempt))
                points[numbers] = np.where(missing[numbers][..., None], drawn, points[numbers])
                missing[numbers] &= ~finite
            if not missing.any():
                break
            redrawn += missing.sum(1)
        else:
            number = int(np.flatnonzero(missing.any(1))[0])
            raise ValueError(self.hopeless(number, points[number], missing[number]))
        return Begun(points, tuple(starts_redrawn(int(times), self.groups) for times in redrawn))

    def attempted(self, numbers: np.ndarray, attempt: int) -> tuple[Any, Any]:
        """An attempt at starting points of some data sets."""
        roots = roots_of(root_key(self.seed), numbers)
        turn = jnp.asarray(attempt, jnp.int32)
        return starting_points(self.target, roots, self.rows(numbers), turn, self.groups, self.request.dtype)

    def hopeless(self, number: int, points: np.ndarray, missing: np.ndarray) -> str:
        """Why a data set cannot be sampled, in words."""
        model = self.model.with_data(jax.tree.map(lambda leaf: leaf[number], self.data))
        bad = int(missing.sum())
        why = why_not_finite(model, model.target(self.request.dtype), points[missing][0], bad, len(missing))
        return (
            f"datasets[{number}]: {why.removesuffix('; or pass initial_positions= with points where it is finite.')}; "
            "and look at this data set: if it is not one that the model can have, leave it out."
        )

    def rows(self, numbers: np.ndarray) -> Any:
        """The data of some data sets, on the device."""
        return datasets.cast(jax.tree.map(lambda leaf: leaf[numbers], self.data), self.request.dtype)

    def recipe(self) -> Recipe:
        """What is done with each data set."""
        sampler = self.request.sampler
        health: dict[str, Statistic] = {"health": Health()}
        warmup = Program(self.target, sampler.warmup_kernel(), sampler.adaptation(), health, keep_nothing)
        sampling = Program(self.target, sampler.kernel(), Fixed(), health, KeepDraws(self.request.keep))
        tuning = sampler.tuning(self.model.dim, self.request.dtype)
        return Recipe(warmup, sampling, tuning, self.request.num_warmup, self.request.num_samples)

    def rounds(self, points: np.ndarray) -> Iterator[tuple[np.ndarray, Made, float]]:
        """Rounds of data sets on the host, each fetched while the devices make the next, and when each was launched.

        Args:
            points: where their superchains begin.
        """
        recipe, root, before = self.recipe(), root_key(self.seed), None
        for numbers in self.blocks.rounds(self.count):
            each = roots_of(root, numbers), self.rows(numbers), points[numbers][:, self.superchain]
            with compiling.launching():
                roots, data, position = self.blocks.place(each)
                made = sampled_block(recipe, roots, data, position, self.blocks)
            launched = time.perf_counter()
            if before is not None:
                yield jax.device_get(before)
            before = numbers, made, launched
        yield jax.device_get(before)

    def store(self, kept: dict[str, np.ndarray], numbers: np.ndarray, chunk: dict[str, np.ndarray]) -> None:
        """Put draws where they belong.

        Args:
            kept: by name, `[data sets, chains, draws, ...]`; made with the first chunk.
            numbers: of the data sets.
            chunk: by name, `[data sets, draws, chains, ...]`.
        """
        for name, rows in chunk.items():
            rows = rows.swapaxes(1, 2)
            if name not in kept:
                kept[name] = np.empty((self.count, *rows.shape[1:]), rows.dtype)
            kept[name][numbers] = rows

    def facts(self, made: Made, row: int) -> Facts:
        """What is known of the data set in a row of a round."""
        tuning, *sums = jax.tree.map(lambda leaf: leaf[row], (made.tuning, made.warmup, made.sampling))
        warmup, sampling = (Health().compute(memory, self.superchain) for memory in sums)
        return Facts(by_path(tuning), warmup, sampling, int(made.paid[row]) * self.request.num_chains)

    def report(self, facts: list[Facts], seconds: float) -> ChunkReport:
        """How far the work is."""
        return ChunkReport(
            phase="data sets",
            done=len(facts),
            total=self.count,
            num_chains=self.request.num_chains,
            acceptance=float(np.mean([fact.sampling["acceptance"] for fact in facts])),
            divergences=int(sum(fact.sampling["divergences"] for fact in facts)),
            gradients=int(sum(fact.warmup["gradients"] + fact.sampling["gradients"] for fact in facts)),
            seconds=seconds,
        )

    def result(
        self,
        number: int,
        draws: dict[str, np.ndarray],
        stats: dict[str, np.ndarray],
        facts: Facts,
        notes: tuple[Finding, ...],
        settings: dict[str, Any],
    ) -> Result:
        """The result of one data set."""
        keep = self.request.keep
        return Result(
            draws=draws,
            sample_stats=stats,
            superchain=self.superchain,
            parameters=tuple(name for name in self.model.parameter_names if keep is None or name in keep),
            dims=self.model.dims,
            coords=self.model.coords,
            gradients=Gradients(int(facts.warmup["gradients"]), int(facts.sampling["gradients"]), facts.paid),
            tuning=facts.tuning,
            settings={**settings, "data_set": number},
            versions=versions(),
            warmup={"draws": self.request.num_warmup},
            notes=notes,
        )
