"""What a check says: whether the model is ready to be sampled, what is wrong, and numbers to read."""

import dataclasses
import math
import textwrap
from typing import Any

from shoal.checking.probe import listed
from shoal.checking.speed import Rate
from shoal.diagnostics.findings import Finding, count
from shoal.progress import human

WIDTH = 110


@dataclasses.dataclass(frozen=True, repr=False)
class Check:
    """A model looked at before a run. Printed, it reads as the command line shows it.

    Attributes:
        model: its name.
        dim: unconstrained coordinates.
        precision: of the run that was thought of, "float32" or "float64".
        findings: what is wrong, or worth knowing, with a remedy; those that block first. Their kinds: `not_finite`,
            `improper`, `gradient`, `jump`, `round_trip`, `support`, `jacobian`, `single`, `double`, `unseen`.
        starts: starting points that were looked at.
        finite: at how many of them log density and gradient are finite.
        coordinates: whose derivative was compared with finite differences one by one.
        gradient_error: the largest difference between the two that was let pass, relative to the largest derivative.
        supports: parameters whose log|J| was compared with that of differences.
        round_trip_error: of unconstrained coordinates after going to the supports and back.
        log_det_error: of log|J|.
        rounding: error of differences of the log density in single, the median over points; NaN where it was not asked
            for or is not known.
        gradient_rounding: error of the gradient in single, relative to its size.
        rates: gradients a second by the number of chains.
        recommended_chains: the fewest chains, 16 at least, beyond which no number that was measured makes 10% more
            gradients a second with every doubling; None where that number was not reached.
        bytes_per_chain: that intermediate results of a gradient take up; NaN where XLA does not tell.
        seconds: that the check took.
    """

    model: str
    dim: int
    precision: str
    findings: tuple[Finding, ...]
    starts: int
    finite: int
    coordinates: int
    gradient_error: float
    supports: tuple[str, ...]
    round_trip_error: float
    log_det_error: float
    rounding: float
    gradient_rounding: float
    rates: tuple[Rate, ...]
    recommended_chains: int | None
    bytes_per_chain: float
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing that was found blocks."""
        return not any(finding.blocking for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence, the first thing to read."""
        blocking = sum(finding.blocking for finding in self.findings)
        if not blocking:
            return "Ready to sample: nothing was found that stands in the way."
        return f"Look again before a run: {count(blocking, 'thing')} stand{'s' * (blocking == 1)} in the way."

    def facts(self) -> list[tuple[str, str]]:
        """What was looked at, as pairs of a word and a text."""
        pairs = [("model", f"{self.model}, {count(self.dim, 'dimension')}, {self.precision}")]
        pairs.append(("starts", f"log density and gradient finite at {self.finite} of {self.starts}"))
        if self.coordinates:
            agree = f"agree with differences, to {self.gradient_error:.0e} of the largest"
            wrong = any(finding.kind == "gradient" for finding in self.findings)
            words = "compared with differences" if wrong else agree
            pairs.append(("gradient", f"{self.coordinates:,} of {self.dim:,} derivatives {words}"))
        if not math.isnan(self.round_trip_error):
            words = (
                f"there and back to {self.round_trip_error:.0e}" if self.round_trip_error else "there and back exactly"
            )
            if self.supports:
                words += f"; log|J| of {listed(self.supports)} to {self.log_det_error:.0e}"
            pairs.append(("supports", words))
        if not math.isnan(self.rounding):
            words = f"log density off by {self.rounding:.1g}, gradient by {self.gradient_rounding:.1g} of its size"
            pairs.append(("in single", words))
        if not math.isnan(self.bytes_per_chain):
            pairs.append(("memory", f"{_bytes(self.bytes_per_chain)} for each chain while a gradient is evaluated"))
        if self.recommended_chains is not None:
            words = f"{self.recommended_chains:,} are enough for speed: more make hardly more gradients a second"
            pairs.append(("chains", words))
        elif len(self.rates) > 1:
            pairs.append(("chains", f"{self.rates[-1].num_chains:,} or more: the rate was still growing there"))
        return [*pairs, ("time", f"{self.seconds:.1f} s")]

    def table(self) -> list[tuple[str, str, str]]:
        """The rates: a row of headings, then chains, gradients a second, and those of each chain."""
        rows = [(f"{num:,}", human(rate), human(rate / num)) for num, rate in self.rates]
        return [("chains", "gradients/s", "of each"), *rows]

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them but for NaN, with `ok` and `verdict`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        said = {
            "findings": [finding.as_dict() for finding in self.findings],
            "supports": list(self.supports),
            "rates": [rate._asdict() for rate in self.rates],
        }
        return {"ok": self.ok, "verdict": self.verdict} | fields | said

    def __repr__(self) -> str:
        lines = [self.verdict]
        for finding in self.findings:
            mark = "  ! " if finding.blocking else "  · "
            lines += textwrap.wrap(str(finding), WIDTH, initial_indent=mark, subsequent_indent="    ")
        lines += [f"{word:<12}{text}" for word, text in self.facts()]
        if self.rates:
            lines += ["", *("".join(f"{cell:>14}" for cell in row) for row in self.table())]
        return "\n".join(lines)


def _bytes(size: float) -> str:
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.3g} {unit}"
    return f"{size:.0f} bytes"
