"""One run that ends by itself, held against the answer."""

from typing import Any

import numpy as np

import shoal
from shoal.diagnostics.estimates import mcse_mean, mcse_replicated

from ..panel.targets.base import Reference
from .cases import Case

# Of a 95% interval; and how many errors off a false stop is: its squared error is above nine times the promised one.
WITHIN, FALSE = 1.959964, 3.0
# An answer is wrong that is off by more than so many of its errors, and by more than so much of a standard deviation;
# or whose standard deviation is.
WRONG_ERRORS, WRONG_SD = 5.0, 0.2


def run(case: Case, model: shoal.Model, chains: int, seed: int, until: shoal.Until) -> dict[str, Any]:
    """Sample, and see how far the answer is off.

    Args:
        case: the law.
        model: its model, the same for all of its runs.
        chains: how many.
        seed: of the run.
        until: what is asked for.

    Returns:
        A row: `errors` of means and mean squares in standard deviations of what they are means of, `mcse` as it
        is reported, in the same unit, and `mcse_arviz`.
    """
    asked = {"num_chains": chains, "seed": seed, "precision": case.target.precision, **case.ask(chains, seed)}
    result = shoal.sample(model, until=until, progress_bar=False, **asked)
    with np.errstate(all="ignore"):  # of what has no variance, nothing is known
        known = case.target.reference()
        x = np.asarray(case.target.quantities(result.draws), float)
        values = np.concatenate([x, x**2], axis=2)
        truth, spread = np.concatenate([known.mean, known.mean_sq]), np.concatenate([known.sd, known.spread_sq])
        se_of_squares = 2 * known.mean_se * np.hypot(known.mean, known.sd)
        errors = (values.mean(axis=(0, 1)) - truth) / spread
        row = {
            "chains": chains,
            "seed": seed,
            "draws": result.num_draws,
            "ended": not any(note.kind in ("imprecise", "ended") for note in result.findings),
            "converged": result.converged,
            "findings": sorted({finding.kind for finding in result.findings if finding.blocking}),
            "gradients": [result.gradients.warmup, result.gradients.sampling],
            "errors": errors,
            "reference": np.concatenate([known.mean_se, se_of_squares]) / spread,
            "mcse": mcse_replicated(values) / spread,
            "mcse_arviz": mcse_mean(values) / spread,
        }
        row["z"] = float(np.nanmax(np.abs(errors) / np.hypot(row["mcse"], row["reference"]), initial=0.0))
    row["wrong"] = wrong(row, known)
    return row


def wrong(row: dict[str, Any], known: Reference) -> bool:
    """Whether an answer is: the mean of something, its square, or its standard deviation."""
    count = len(known.mean)
    errors, promised = np.abs(row["errors"]), np.hypot(row["mcse"], row["reference"])
    with np.errstate(all="ignore"):
        means = known.mean + row["errors"][:count] * known.sd
        squares = known.mean_sq + row["errors"][count:] * known.spread_sq
        width = np.abs(np.sqrt(squares - means**2) / known.sd - 1)
        far = np.concatenate([errors[:count] > WRONG_SD, (errors[count:] > WRONG_SD) | (width > WRONG_SD)])
        return bool(np.any((errors > WRONG_ERRORS * promised) & far))
