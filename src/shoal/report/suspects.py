"""The numbers to look at first: what the verdict saw in each, and how one gets to its draws."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shoal.report import numbers
from shoal.report.overview import Overview, Row, variables

if TYPE_CHECKING:
    from shoal.diagnostics.findings import Finding
    from shoal.results.result import Result

SUSPECT_HEADINGS = ("nested R-hat", "ESS bulk", "ESS tail", "mcse", "mcse/sd", "drift")
# Chains to name in a line of code.
FEW = 8


class Suspect(NamedTuple):
    """A number of the model, and what the verdict saw in it.

    Attributes:
        row: its summary.
        nested: nested R-hat, as the verdict has it; NaN where that is not known.
        drift: how far the second half of the run is from what came before, in standard deviations; 0 where chance
            explains it.
    """

    row: Row
    nested: float
    drift: float

    @property
    def relative_error(self) -> float:
        """Of the mean, in standard deviations."""
        return self.row.mcse_mean / self.row.sd if self.row.sd > 0 else float("nan")

    @property
    def words(self) -> tuple[str, ...]:
        """One for each of `SUSPECT_HEADINGS`."""
        return (
            numbers.ratio(self.nested),
            numbers.whole(self.row.ess_bulk),
            numbers.whole(self.row.ess_tail),
            numbers.error_of(self.row.mcse_mean),
            f"{self.relative_error:.1%}" if np.isfinite(self.relative_error) else numbers.MISSING,
            f"{self.drift:.2f}" if self.drift > 0 else numbers.MISSING,
        )


class Look(NamedTuple):
    """Where to look for the cause of a finding.

    Attributes:
        kind: of the finding.
        where: what it is about.
        code: what has its draws, of a `result`.
    """

    kind: str
    where: str
    code: str


def suspects(result: "Result", seen: Overview) -> tuple[Suspect, ...]:
    """Every number, in the order of the model."""
    from shoal.diagnostics.estimates import superchain_index
    from shoal.diagnostics.mixing import mixing
    from shoal.diagnostics.rows import variable

    shown = looked_at(result)
    ids = superchain_index(np.asarray(result.superchain), result.num_chains)
    values = {}
    for name in variables(result):
        # Of coordinates whose draws are not kept there is nothing to look at.
        found = mixing(variable(shown.draws, name), ids) if name in shown.draws else None
        values[name] = None if found is None else (found.r_hat, found.drift)
    nothing = (float("nan"), 0.0)
    each = [
        nothing if values[row.variable] is None else tuple(float(column[row.place]) for column in values[row.variable])
        for row in seen.rows
    ]
    return tuple(Suspect(row, *pair) for row, pair in zip(seen.rows, each, strict=True))


def named_first(rows: Sequence[Row], labels: Sequence[str]) -> list[Row]:
    """The same rows, but first those with one of these labels, in their order."""
    order = {label: -place for place, label in enumerate(reversed(labels), 1)}
    return sorted(rows, key=lambda row: order.get(row.label, 0))


def worst_suspects(every: Sequence[Suspect], seen: Overview) -> list[Suspect]:
    """What findings are about, then the others, the worst first."""
    by_row = {(suspect.row.variable, suspect.row.place): suspect for suspect in every}
    ordered = named_first(seen.worst, [finding.where for finding in (*seen.blocking, *seen.remarks)])
    return [by_row[row.variable, row.place] for row in ordered]


def where_to_look(result: "Result", seen: Overview) -> list[Look]:
    """For every finding about numbers or chains the draws that it is about."""
    rows = {row.label: row for row in seen.rows}
    looks = []
    for finding in (*seen.blocking, *seen.remarks):
        code = _code(result, finding, rows.get(finding.where))
        if code:
            looks.append(Look(finding.kind, finding.where, code))
    return looks


def _code(result: "Result", finding: "Finding", row: Row | None) -> str:
    before = "result" if result.moments is None else "result.moments"
    if result.moments is not None and result.moments.coordinates:
        return ""
    if finding.kind == "divergences":
        return f'{before}.sample_stats["diverging"].nonzero()  # chain and draw of each'
    chains = ":" if len(finding.chains) > FEW or not finding.chains else str(list(finding.chains))
    if row is not None:
        place = np.unravel_index(row.place, result.shape(row.variable))
        index = ", ".join((chains, ":", *(str(int(axis)) for axis in place)))
        return f'{before}.draws["{row.variable}"][{index}]'
    if finding.kind == "energy":
        return f'{before}.sample_stats["energy"]'
    if finding.chains:
        return f'{before}.sample_stats["lp"][{chains}]'
    return ""


def looked_at(result: "Result") -> "Result":
    """The same with the draws that can be drawn: some where the run keeps moments."""
    moments = result.moments
    if moments is None:
        return result
    return replace(result, draws=moments.draws, sample_stats=moments.sample_stats, moments=None)
