"""One row of the panel: every number that is kept of a run."""

import math
from typing import Any

import numpy as np

from .measures import draws_to_small_bias, estimates, largest_r_hat, smallest_ess
from .outcome import SUPERCHAINS, Outcome, Problem
from .targets.base import Reference, verdict

GOAL = 4_000  # effective draws that a run is charged for
MAX_R_HAT, MIN_ESS = 1.01, 400.0


def row(problem: Problem, outcome: Outcome) -> dict[str, Any]:
    """The row of a run that ended.

    Gradients and evaluations are those of all chains together. `cost_4000` is what 4,000 effective draws of the
    worst coordinate cost from a cold start: the warmup, plus 4,000 over the effective draws per evaluation of
    sampling. `to_small_bias` is what the mean of all chains' draws since the warmup costs, warmup included, until
    its squared error stays below 0.01 variances for every quantity of the reference and its square.
    """
    target = problem.target
    coordinates = target.coordinates(outcome.position)
    chains, draws = coordinates.shape[:2]
    ess = smallest_ess(coordinates)
    r_hat = largest_r_hat(superchains(coordinates))
    values = outcome.draws if outcome.draws is not None else problem.model.constrain(outcome.position)
    quantities, reference = target.quantities(values), target.reference()
    judged = verdict(estimates(quantities), reference)
    converged = outcome.converged
    if converged is None:
        converged = bool(r_hat < MAX_R_HAT and ess > MIN_ESS)
    sampling = outcome.sampling.total
    return {
        "status": "done",
        "chains": chains,
        "draws": draws,
        "right": judged["right"],
        "converged": converged,
        "silent_failure": converged and not judged["right"],
        "worst_quantity": judged["worst"][0],
        "worst_error": number(judged["worst"][1]),
        "r_hat": number(r_hat),
        "ess": number(ess),
        "ess_per_gradient": number(ess / sampling),
        "ess_per_second": number(ess / outcome.seconds.sampling),
        "cost_4000": number(outcome.warmup.total + GOAL * sampling / ess if ess > 0 else math.inf),
        "to_small_bias": bias_cost(outcome, quantities, reference),
        "gradients": {
            "warmup": outcome.warmup.total,
            "sampling": sampling,
            "warmup_with_value": outcome.warmup.both,
            "sampling_with_value": outcome.sampling.both,
            "sampling_with_waiting": outcome.waiting,
        },
        "seconds": {name: number(value) for name, value in outcome.seconds._asdict().items()},
        "findings": list(outcome.findings),
        "settings": outcome.settings,
    }


def superchains(values: np.ndarray) -> np.ndarray:
    """The chains of each superchain as one, draw by draw, so that its halves are the halves of the run.

    R-hat of many short chains says how short they are; of superchains, whether they have forgotten their starts.
    """
    chains, draws, dim = values.shape
    if chains <= SUPERCHAINS:
        return values
    grouped = values.reshape(SUPERCHAINS, -1, draws, dim).swapaxes(1, 2)
    return grouped.reshape(SUPERCHAINS, -1, dim)


def bias_cost(outcome: Outcome, quantities: np.ndarray, reference: Reference) -> int | None:
    """Evaluations from a cold start to a small bias, None when it is not reached."""
    draws = quantities.shape[1]
    parts = (
        draws_to_small_bias(quantities, reference.mean, reference.sd),
        draws_to_small_bias(quantities.astype(np.float64) ** 2, reference.mean_sq, reference.spread_sq),
    )
    if None in parts:
        return None
    share = 1.0 if outcome.at_once else max(parts) / draws
    return outcome.warmup.total + math.ceil(outcome.sampling.total * share)


def number(value: float) -> float | None:
    """Four digits; None where there is no finite number, which JSON has no word for."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
