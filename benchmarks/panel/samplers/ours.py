"""Shoal as a user calls it: `shoal.sample(model, sampler=NAME)`, 128 chains, everything else by default."""

from collections.abc import Callable
from typing import Any

import numpy as np

import shoal
from shoal.samplers import SAMPLERS

from ..outcome import CHAINS, Count, Outcome, Problem, Seconds

# Of each chain: rows of samplers that end by themselves say how much that takes.
DRAWS = 500
# In the order of the tables. Samplers that are set by hand are not compared.
NAMES = ("auto", "chees", "nuts", "mams", "meads")
# These ask for the value with every gradient; all others at the start and once for a draw.
VALUE_EVERY_TIME = ("nuts",)


class Ours:
    """`shoal.sample` with a sampler by name."""

    def __init__(self, name: str) -> None:
        """Args: name: as in `shoal.sample(sampler=name)`."""
        self.name = name

    def __call__(self, problem: Problem) -> Outcome:
        """Sample with default arguments."""
        result = shoal.sample(
            problem.model,
            sampler=self.name,
            num_chains=CHAINS,
            num_samples=DRAWS,
            seed=problem.seed,
            precision=problem.target.precision,
            progress_bar=False,
        )
        record = getattr(result, "warmup", {})
        warmup_draws = record.get("draws", result.settings["num_warmup"])
        warmup = result.gradients.warmup + CHAINS  # and the start
        return Outcome(
            position=positions(problem, result.draws),
            draws={name: np.asarray(values) for name, values in result.draws.items()},
            warmup=self.count(warmup, CHAINS * (1 + int(warmup_draws))),
            sampling=self.count(result.gradients.sampling, CHAINS * result.num_draws),
            seconds=Seconds(*result.timing),
            converged=result.converged,
            findings=tuple(dict.fromkeys(finding.kind for finding in result.findings if finding.blocking)),
            settings={key: value for key, value in result.settings.items() if key not in ("model", "seed", "dim")}
            | {
                "warmup_draws": int(warmup_draws),
                "race": record.get("race"),
                "race_gradients": phase_gradients(record, "race"),
                "reach": record.get("reach"),
                "necks": len(record.get("necks", ())),
            },
        )

    def count(self, total: int, ends: int) -> Count:
        """With and without the value."""
        both = total if self.name in VALUE_EVERY_TIME else min(ends, total)
        return Count(both, total - both)


def phase_gradients(record: dict[str, Any], name: str) -> int:
    """What a phase of the warmup has taken, if there was one."""
    return sum(phase["gradients"] for phase in record.get("phases", ()) if phase["phase"] == name)


def positions(problem: Problem, draws: dict[str, np.ndarray]) -> np.ndarray:
    """Unconstrained draws; those on the supports, where a value was rounded to the edge of its support."""
    model = problem.model
    inner = {name: np.asarray(draws[name]) for name in model.parameter_names}
    try:
        return model.unconstrain(inner).astype(problem.dtype)
    except ValueError:
        return np.concatenate([x.reshape(*x.shape[:2], -1) for x in inner.values()], axis=-1)


def samplers() -> dict[str, Callable[[Problem], Outcome]]:
    """Those of `NAMES` that Shoal has."""
    return {f"shoal_{name}": Ours(name) for name in NAMES if name in SAMPLERS}
