"""nutpie: NUTS with Fisher metrics, in Rust, over the same log density, one chain after another."""

import time
from typing import Any

import numpy as np

from shoal.bench.peers.rounds import nutpie_model, value_and_gradient

from ..outcome import Count, NotInstalled, Outcome, Problem, Seconds

CHAINS = 8


class Nutpie:
    """`nutpie.sample` with its defaults: 1,000 draws of every chain, tuning of the length it thinks right.

    Warmup and sampling are one call, so that their seconds are divided as their evaluations are.
    """

    def __init__(self, adaptation: str) -> None:
        """Args: adaptation: "diag", the default, or "low_rank"."""
        self.adaptation = adaptation

    def __call__(self, problem: Problem) -> Outcome:
        """Sample."""
        try:
            import nutpie
        except ImportError as error:
            raise NotInstalled(str(error)) from error
        density, compiling = compiled(problem)
        began = time.perf_counter()
        trace = nutpie.sample(
            nutpie_model(nutpie, density, np.asarray(problem.starts(CHAINS))),
            chains=CHAINS,
            cores=1,
            seed=problem.seed,
            adaptation=self.adaptation,
            progress_bar=False,
            store_unconstrained=True,
        )
        seconds = time.perf_counter() - began
        warm, sampled = (int(trace[group]["n_steps"].sum()) for group in ("warmup_sample_stats", "sample_stats"))
        share = seconds / max(warm + sampled, 1)
        return Outcome(
            position=np.asarray(trace["sample_stats"]["unconstrained_draw"]),
            warmup=Count(both=CHAINS + warm),
            sampling=Count(both=sampled),
            seconds=Seconds(compiling, share * warm, share * sampled),
            settings={"chains": CHAINS, "adaptation": self.adaptation},
        )


def compiled(problem: Problem) -> tuple[Any, float]:
    """Value and gradient of a NumPy vector, and the seconds of compiling it."""
    began = time.perf_counter()
    density = value_and_gradient(problem.log_density, np.asarray(problem.starts(1)[0]))
    return density, time.perf_counter() - began
