"""What the terminal and the page say about a run: verdict, rows with the worst first, key figures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.progress import human
from shoal.report import numbers

if TYPE_CHECKING:
    from shoal.diagnostics.findings import Finding
    from shoal.results.result import Result

COLUMNS = ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
HEADINGS = ("mean", "sd", "mcse", "ESS bulk", "ESS tail", "R-hat")


class Row(NamedTuple):
    """One number of the model, summarised.

    Attributes:
        label: such as `lamb[3]`.
        variable: its variable, a key of the draws.
        place: its place in the flattened variable.
    """

    label: str
    variable: str
    place: int
    mean: float
    sd: float
    mcse_mean: float
    ess_bulk: float
    ess_tail: float
    r_hat: float


@dataclass(frozen=True)
class Overview:
    """A run at a glance.

    Attributes:
        verdict: one sentence, the first thing to read.
        good: whether the draws can be used as they are.
        rows: every number, in the order of the model.
        worst: the same, worst first.
        blocking: findings that forbid to call the run converged.
        remarks: the other findings.
    """

    verdict: str
    good: bool
    rows: tuple[Row, ...]
    worst: tuple[Row, ...]
    blocking: "tuple[Finding, ...]"
    remarks: "tuple[Finding, ...]"


def overview(result: "Result") -> Overview:
    """Look at a run once, for everything that is said about it."""
    every = rows(result)
    blocking = tuple(finding for finding in result.findings if finding.blocking)
    remarks = tuple(finding for finding in result.findings if not finding.blocking)
    good = not blocking and not result.interrupted
    return Overview(verdict(result, every), good, every, worst_first(every), blocking, remarks)


def rows(result: "Result") -> tuple[Row, ...]:
    """Every number of every variable, in the order of the model."""
    found: list[Row] = []
    for variable in variables(result):
        columns = [result.table[variable][column].ravel().tolist() for column in COLUMNS]
        names = result.labels(variable)
        found += [
            Row(label, variable, place, *values)
            for place, (label, values) in enumerate(zip(names, zip(*columns, strict=True), strict=True))
        ]
    return tuple(found)


def variables(result: "Result") -> list[str]:
    """Parameters in the order of the model, then what is computed from them."""
    first = [name for name in result.parameters if name in result.variables]
    return [*first, *(name for name in result.variables if name not in first)]


def worst_first(every: Sequence[Row]) -> tuple[Row, ...]:
    """Fewest effective draws first, what cannot be computed before them; constants last."""

    def badness(row: Row) -> tuple[int, float, float]:
        if row.sd == 0:
            return 2, 0.0, 0.0
        ess = min(row.ess_bulk, row.ess_tail)
        if math.isnan(ess) or math.isnan(row.r_hat):
            return 0, 0.0, 0.0
        return 1, ess, -row.r_hat

    return tuple(sorted(every, key=badness))


def fewest(every: Sequence[Row]) -> float:
    """The smallest effective sample size of all, in bulk and in tails; NaN where there is none."""
    sizes = [min(row.ess_bulk, row.ess_tail) for row in every if row.sd != 0]
    return min((size for size in sizes if not math.isnan(size)), default=math.nan)


def verdict(result: "Result", every: Sequence[Row]) -> str:
    """One sentence: whether the draws can be used, and the number that says so."""
    blocking = [finding for finding in result.findings if finding.blocking]
    reasons = "for one reason" if len(blocking) == 1 else f"for {len(blocking)} reasons"
    ess = numbers.whole(fewest(every))
    if result.interrupted:
        state = f"and not converged, {reasons}" if blocking else f"with {ess} effective draws or more"
        return f"Interrupted after {result.num_draws:,} draws of each chain, {state}."
    if not blocking:
        whose = "every number, in bulk and in tails"
        if result.moments is not None and result.moments.coordinates:
            whose = "the mean of every coordinate"
        return f"Converged: at least {ess} effective draws of {whose}."
    if all(finding.kind.startswith("ess") for finding in blocking):
        return f"Not precise enough yet: only {ess} effective draws of the worst number."
    return f"Not converged, {reasons}."


def words_of(row: Row) -> tuple[str, ...]:
    """The values of a row in words, one for each of `COLUMNS`."""
    return (
        numbers.estimate(row.mean, row.mcse_mean),
        numbers.estimate(row.sd, row.mcse_mean),
        numbers.error_of(row.mcse_mean),
        numbers.whole(row.ess_bulk),
        numbers.whole(row.ess_tail),
        numbers.ratio(row.r_hat),
    )


def columns_of(some: Sequence[Row], digit: str = " ", point: str = " ") -> list[tuple[str, ...]]:
    """The same rows in words, the points of every column under each other; see `numbers.aligned`."""
    words = [words_of(row) for row in some]
    columns = [numbers.aligned(column, digit, point) for column in zip(*words, strict=True)]
    return list(zip(*columns, strict=True))


def gradients_per_second(result: "Result") -> float:
    """Evaluations of the gradient per second of sampling, all chains together."""
    seconds = result.timing.sampling
    return result.gradients.sampling / seconds if seconds > 0 else math.nan


def divergences(result: "Result") -> int:
    """Divergent transitions among the draws that were kept, or of all where none is."""
    if result.moments is not None:
        return int(result.moments.divergences.sum())
    return int(result.sample_stats["diverging"].sum()) if "diverging" in result.sample_stats else 0


def facts(result: "Result") -> list[tuple[str, str]]:
    """Key figures as pairs of a word and a text; what is not known is left out."""
    from shoal.results.summary import round_number, seconds, waiting

    draws, diverging = result.num_chains * result.num_draws, divergences(result)
    pairs = [("draws", f"{result.num_chains:,} chains × {result.num_draws:,} = {draws:,}")]
    pairs.append(("divergent", f"{diverging:,} ({diverging / draws:.2%})" if diverging else "none"))
    if math.isfinite(result.timing.sampling):
        spent = zip(("compile", "warmup", "sampling"), result.timing, strict=True)
        pairs.append(("time", ", ".join(f"{name} {seconds(value)}" for name, value in spent)))
    if any(result.gradients):
        warmup, sampling = human(result.gradients.warmup), human(result.gradients.sampling)
        rate = human(gradients_per_second(result))
        pairs.append(("gradients", f"{warmup} in warmup, {sampling} in sampling{waiting(result)}; {rate} per second"))
    if math.isfinite(result.ess_per_second):
        alone, both = round_number(result.ess_per_second_sampling), round_number(result.ess_per_second)
        pairs.append(("ESS/s", f"{alone} of sampling, {both} with warmup (worst parameter, bulk)"))
    return pairs


def headline(settings: Mapping[str, Any]) -> str:
    """What was sampled and how, in a line: model, dimension, sampler, precision."""
    parts = [str(settings[key]) for key in ("model", "sampler", "precision") if settings.get(key)]
    if settings.get("dim"):
        parts.insert(1 if settings.get("model") else 0, f"dimension {settings['dim']:,}")
    return " · ".join(parts)
