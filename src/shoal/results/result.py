"""What a run gives back: draws, what they say, and whether to believe it."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.diagnostics import estimates as diagnostics
from shoal.diagnostics.findings import Finding
from shoal.diagnostics.rows import variable
from shoal.diagnostics.verdict import judge
from shoal.labels import labels
from shoal.results.moments import Moments
from shoal.results.stored_draws import StoredDraws, shape_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas
    import xarray


class Timing(NamedTuple):
    """Seconds that a run took."""

    compile: float = float("nan")
    warmup: float = float("nan")
    sampling: float = float("nan")


class Gradients(NamedTuple):
    """Evaluations of the gradient, all chains together.

    Attributes:
        warmup: of draws in warmup.
        sampling: of draws after it, those of the last sweep included that were more than asked for.
        paid: in sampling, with those made for chains that had to wait for others; 0 where it is not known.
    """

    warmup: int = 0
    sampling: int = 0
    paid: int = 0

    @property
    def lockstep(self) -> float:
        """The share of the evaluations in sampling that a draw used: 1 where no chain waits for another."""
        return self.sampling / self.paid if self.paid else 1.0


@dataclasses.dataclass(repr=False)
class Result:
    """The draws of a run and what is known about them.

    Attributes:
        draws: by variable, `[chain, draw, *shape]`, on the user's supports; from disk on access where the run
            was written to disk.
        sample_stats: `acceptance_rate`, `diverging`, `energy_error`, `n_steps`, `step_size`, `lp`, each
            `[chain, draw]`; `energy` where the kernel draws fresh momenta (the Hamiltonian of the draw).
        superchain: which superchain each chain belongs to: chains of one superchain began at one point.
        parameters: the variables that are parameters; the others are computed from them.
        dims: the names of axes, by variable.
        coords: the names along an axis, by axis.
        timing: seconds.
        gradients: evaluations.
        tuning: what the kernel was tuned to, by path.
        settings: what was asked for.
        versions: versions of the packages and the names of the devices.
        warmup: what was done in warmup: `draws` of every chain and, for the sampler "auto", its phases and every
            number of the race.
        interrupted: whether the run ended before its number of draws.
        notes: findings made while sampling.
        judged: all findings, where they have been made before; None to make them from the draws when asked.
        moments: of a run with `keep="moments"` or `"none"`, whose `draws` and `sample_stats` are empty, what is known
            of its draws (`shoal.results.moments.Moments`); otherwise None.
        warmup_draws: draws of the warmup by variable, with `save_warmup`: they are not of the posterior, and nothing
            is made of them. A chain that did not move is NaN.
        warmup_sample_stats: theirs; of the sampler "auto" `lp`, `acceptance_rate`, `step_size` and `gradients`.
        warmup_coords: `warmup_phase`, `warmup_stage` (from 1 on) and `warmup_kernel` of each of these draws.
    """

    draws: Mapping[str, np.ndarray]
    sample_stats: Mapping[str, np.ndarray]
    superchain: np.ndarray
    parameters: tuple[str, ...] = ()
    dims: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    coords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    timing: Timing = dataclasses.field(default_factory=Timing)
    gradients: Gradients = dataclasses.field(default_factory=Gradients)
    tuning: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warmup: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    notes: tuple[Finding, ...] = ()
    judged: tuple[Finding, ...] | None = None
    moments: Moments | None = None
    warmup_draws: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_sample_stats: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_coords: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def num_chains(self) -> int:
        """Chains."""
        return len(self.superchain)

    @property
    def num_draws(self) -> int:
        """Draws of each chain."""
        if isinstance(self.draws, StoredDraws):
            return self.draws.count
        return next((int(values.shape[1]) for values in (*self.draws.values(), *self.sample_stats.values())), 0)

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, or worth knowing; made when first asked for, from all draws."""
        if self.judged is not None:
            return self.judged
        draws, stats, counts = self.draws, self.sample_stats, None
        if self.moments is not None:
            draws, stats, counts = self.moments.draws, self.moments.sample_stats, self.moments.counts
        return (*self.notes, *judge(draws, stats, self.superchain, self.dims, self.coords, counts))

    @property
    def converged(self) -> bool:
        """Whether no finding forbids to use the draws: see `shoal.diagnostics.verdict.judge` for the rules."""
        return not any(finding.blocking for finding in self.findings)

    @functools.cached_property
    def table(self) -> dict[str, dict[str, np.ndarray]]:
        """By variable, the columns of the summary as arrays of the variable's shape."""
        if self.moments is not None:
            return {name: self.moments.columns(name) for name in self.variables}
        return {name: diagnostics.summarise(variable(self.draws, name)) for name in self.draws}

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what the summary is about: of the draws, or of what there are moments of."""
        return tuple(self.draws) if self.moments is None else self.moments.variables

    def summary(self, var_names: Sequence[str] | str | None = None) -> "pandas.DataFrame":
        """Mean, standard deviation, their error, and diagnostics, one row for every number.

        Args:
            var_names: the variables to show; all when None.

        Returns:
            Rows like `lamb[3]`, columns `mean sd mcse_mean ess_bulk ess_tail r_hat`; with `keep="moments"` also the
            quantiles `5% 50% 95%`.

        Raises:
            ValueError: a name is not among the variables.
        """
        from shoal.results.summary import summary

        return summary(self, var_names)

    def to_datatree(self) -> "xarray.DataTree":
        """The run in ArviZ's schema: `posterior` and `sample_stats`, with `superchain` along `chain`.

        With `save_warmup` there are `warmup_posterior` and `warmup_sample_stats`, too, with `warmup_phase`,
        `warmup_stage` and `warmup_kernel` along `draw`.

        xarray takes no "/" in names: a variable or axis `scope/x` is called `scope.x` there, or `scope_x` where the
        model has a `scope.x` already.
        """
        from shoal.results.datatree import datatree

        return datatree(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result to a new directory; `shoal.load` reads it back.

        Args:
            path: a directory that is empty or does not exist.
        """
        from shoal.results.store import save

        save(self, path)

    def export(self, path: str | os.PathLike[str], to: str | None = None, *, overwrite: bool = False) -> "Path":
        """Write the draws to one file that other programs read; memory for a block of draws is enough.

        "netcdf" is ArviZ's schema in NetCDF-4, as of `to_datatree`: `xarray.open_datatree` and ArviZ read it. "arrow"
        (Arrow IPC, which is Feather 2) and "parquet" are a table, for pandas, Polars and DuckDB. It has a row for every
        draw of every chain, by draw and then by chain. The columns are `chain`, `draw` and `superchain`, one for every
        number under its label in the summary (`beta[Texture]`), and one for every sample statistic, with two
        underscores behind its name as in Stan's tables (`lp__`).

        Args:
            path: the file. It has its name when it is whole.
            to: "netcdf", "arrow" or "parquet"; None to go by the name of the file: `.nc`, `.arrow`, `.feather` or
                `.parquet`.
            overwrite: whether to replace a file that is there.

        Returns:
            The path.

        Raises:
            ValueError: there are no draws, a file is there already, the format is not known, or it has no such numbers.
            ModuleNotFoundError: a package is missing; the message says how to install it.
            OSError: the file cannot be written.
        """
        from shoal.results.export import export

        return export(self, path, to, overwrite)

    def labels(self, name: str) -> list[str]:
        """One label for every number of a variable, in C order.

        Args:
            name: the variable.

        Returns:
            Labels like `lamb[3]` or `beta[Texture]`.
        """
        return labels(name, self.shape(name), self.dims, self.coords)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable, chain and draw not counted; nothing is read from disk.

        Args:
            name: the variable.

        Returns:
            The shape.
        """
        return shape_of(self.draws, name) if self.moments is None else self.moments.shape(name)

    @property
    def worst_ess(self) -> float:
        """The smallest bulk effective sample size over all parameters; NaN where there is none."""
        names = [name for name in (self.parameters or self.variables) if name in self.table]
        values = np.concatenate([self.table[name]["ess_bulk"].ravel() for name in names] or [np.empty(0)])
        return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")

    @property
    def ess_per_second(self) -> float:
        """Bulk effective draws of the worst parameter per second of warmup and sampling."""
        return _rate(self.worst_ess, self.timing.warmup + self.timing.sampling)

    @property
    def ess_per_second_sampling(self) -> float:
        """Bulk effective draws of the worst parameter per second of sampling alone."""
        return _rate(self.worst_ess, self.timing.sampling)

    def __repr__(self) -> str:
        from shoal.results.summary import text

        return text(self)

    def _repr_html_(self) -> str:
        from shoal.results.summary import html

        return html(self)


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else float("nan")
