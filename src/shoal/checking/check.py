"""The front door: a model looked at before a run, in a few seconds."""

import math
import time

import numpy as np

from shoal.arguments import check_seconds, check_seed
from shoal.checking import jumps, maps, rounding, slopes, speed, starting
from shoal.checking.outcome import Check
from shoal.checking.probe import BLOCK, Probe
from shoal.compile_cache import kept_programs
from shoal.diagnostics.findings import Finding
from shoal.models.causes import cause
from shoal.models.compiled import check_blocks
from shoal.models.model import Model

# What can be looked at: of "mixed" these are the parts.
PRECISIONS = ("float32", "float64")
# Shares of the time for the parts that could go on; what is compiled before takes as long as it takes.
GRADIENT, JUMPS, CLIMB, SPEED = 0.3, 0.1, 0.1, 0.5


def check(model: Model, *, seed: int = 0, precision: str = "float32", max_seconds: float | None = 10.0) -> Check:
    """Look at a model before a run: what would go wrong, in which parameter, and how many chains pay.

    At starting points as a run would draw them: whether log density and gradient are finite; the gradient against
    finite differences, coordinate by coordinate; whether the log density jumps between them; the maps onto the
    supports, there and back, and log|J|; what single precision does to the log density. Then gradients a second by the
    number of chains.

    Args:
        model: what is to be sampled.
        seed: of the run; the starting points are those of its first superchains.
        precision: of the run, "float32" or "float64".
        max_seconds: about how long it may take, beside compiling what is evaluated. With less time fewer derivatives
            and fewer numbers of chains are looked at; None for any time.

    Returns:
        Findings and numbers; `ok` says whether something stands in the way.

    Raises:
        ValueError: an argument is out of its range, or the model cannot be evaluated at all.
    """
    if not isinstance(model, Model):
        raise ValueError(
            f"check was given {type(model).__name__}, but it takes a shoal.Model. Wrap a NumPyro model by "
            "shoal.from_numpyro(model, *args), a log density by shoal.Model(params=..., log_density=...)."
        )
    check_seed(seed)
    check_seconds(max_seconds)
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(map(repr, PRECISIONS))}.")
    check_blocks(model.compiled, model.data)
    begin = time.perf_counter()
    until = lambda share: time.perf_counter() + share * (math.inf if max_seconds is None else max_seconds)
    # What a model gives may be anything: numbers that are not finite are looked for, and not warned of.
    with kept_programs(), np.errstate(all="ignore"):
        double, refusal = in_double(model, required=precision == "float64")
        probe = double if precision == "float64" and double is not None else Probe(model, np.float32)
        started = starting.look(probe, double, int(seed))
        good = started.position[started.finite]
        exact = double or probe
        slope = slopes.compare(exact, good, until(GRADIENT))
        jumped = jumps.look(exact, good, until(JUMPS))
        mapped = maps.look(exact, (good if len(good) else started.position)[:BLOCK])
        rounded = rounding.Rounding(math.nan, math.nan, ())
        if double is not None and probe is not double and len(good):
            rounded = rounding.compare(probe, double, good, until(CLIMB))
        fast = speed.measure(probe, good, until(SPEED))
    found = [*started.findings, *slope.findings, *jumped, *mapped.findings, *rounded.findings, *refusal]
    return Check(
        model=model.name,
        dim=model.dim,
        precision=precision,
        findings=tuple(sorted(found, key=lambda finding: not finding.blocking)),
        starts=len(started.finite),
        finite=int(started.finite.sum()),
        coordinates=slope.coordinates,
        gradient_error=slope.error,
        supports=mapped.names,
        round_trip_error=mapped.back,
        log_det_error=mapped.log_det,
        rounding=rounded.log_density,
        gradient_rounding=rounded.gradient,
        rates=fast.rates,
        recommended_chains=fast.recommended,
        bytes_per_chain=fast.bytes_per_chain,
        seconds=time.perf_counter() - begin,
    )


def in_double(model: Model, required: bool) -> tuple[Probe | None, tuple[Finding, ...]]:
    """The model in double, if it can be evaluated in it; else why not."""
    try:
        probe = Probe(model, np.float64)
        probe.at(np.zeros((1, model.dim)))
    except Exception as error:  # whatever a model raises where it cannot be evaluated
        if required:
            raise
        return None, (
            Finding(
                kind="double",
                where="log density",
                number=math.nan,
                words=f"The model cannot be evaluated in double ({cause(error).rstrip(':')}), so its gradient was "
                "compared in single, which sees less, and its rounding was not looked at.",
                remedy="Let constants take the type of the parameters. A NumPyro model that closes over numpy arrays "
                "and was sampled in single is held to it: check it before, or make the arrays its arguments.",
                blocking=False,
            ),
        )
    return probe, ()
