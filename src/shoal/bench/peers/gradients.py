"""Gradients per second of HMC by Shoal and its peers, the same posterior, chains, step size and number of steps.

Repeats are interleaved, so that a machine whose speed drifts does so for all; ratios are taken within a repeat, and
their median is told. Compiling is left out, momenta, acceptance and keeping draws are in.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.bench.peers import posteriors
from shoal.bench.peers.hmc import Blocks, Problem, blackjax_hmc, numpyro_hmc, shoal_hmc

STEPS, STEP_SIZE = 20, 0.02
CHAINS = (64, 1_024, 4_096)
# Gradients in a block, about, and the fewest draws: what a call costs besides is then nothing.
BLOCK, FEWEST = 2**17, 4
SHOAL = "shoal"


class Contender(NamedTuple):
    """A sampler and how it is run.

    Attributes:
        blocks: makes it for a problem and a number of devices.
        everywhere: on all devices.
        usual: in the one call that its documentation begins with; the other is a peer's best, by `jax.pmap`.
    """

    blocks: Callable[[Problem, int], Blocks]
    everywhere: bool
    usual: bool


CONTENDERS = {
    SHOAL: Contender(shoal_hmc, everywhere=True, usual=True),
    "blackjax": Contender(blackjax_hmc, everywhere=False, usual=True),
    "blackjax_pmap": Contender(blackjax_hmc, everywhere=True, usual=False),
    "numpyro": Contender(numpyro_hmc, everywhere=False, usual=True),
    "numpyro_pmap": Contender(numpyro_hmc, everywhere=True, usual=False),
}


class Plan(NamedTuple):
    """What is measured.

    Attributes:
        posteriors: by name.
        chains: numbers of them.
        repeats: of each measurement.
        seconds: of one measurement, at least.
        seed: of starts and draws.
    """

    posteriors: Sequence[str]
    chains: Sequence[int] = CHAINS
    repeats: int = 7
    seconds: float = 1.0
    seed: int = 0


def measured(plan: Plan, say: Callable[[str], None] = lambda words: None) -> list[dict[str, Any]]:
    """A row for every posterior and number of chains.

    Args:
        plan: what is measured.
        say: told of each row that begins.

    Returns:
        Rows with `posterior`, `chains`, `rates` (gradients per second by sampler and repeat), `missing` (why, by
        sampler), and what `compared` adds.
    """
    rows = []
    for name in plan.posteriors:
        target = posteriors.load(name).target(np.dtype(np.float32))
        for chains in plan.chains:
            say(f"gradients per second: {name}, {chains:,} chains")
            normal = np.random.default_rng(plan.seed).normal(0.0, 0.3, (chains, target.dim))
            draws = max(FEWEST, BLOCK // (STEPS * chains))
            problem = Problem(target, normal.astype(np.float32), STEP_SIZE, STEPS, draws, plan.seed)
            works, missing = ready(problem)
            rates = interleaved(works, problem.gradients, plan.repeats, plan.seconds)
            rows.append({"posterior": name, "chains": chains, "rates": rates, "missing": missing, **compared(rates)})
    return rows


def ready(
    problem: Problem, contenders: Mapping[str, Contender] = CONTENDERS
) -> tuple[dict[str, Blocks], dict[str, str]]:
    """Every sampler compiled and under way, and why others are missing."""
    works: dict[str, Blocks] = {}
    missing: dict[str, str] = {}
    devices = jax.local_device_count()
    for name, contender in contenders.items():
        if name != SHOAL and contender.everywhere and (devices == 1 or len(problem.position) % devices):
            missing[name] = f"{len(problem.position)} chains cannot be shared among {devices} devices"
            continue
        try:
            blocks = contender.blocks(problem, devices if contender.everywhere else 1)
            # Of the second block NumPyro's states have other types than of the first, and it is compiled again.
            next(blocks)
            next(blocks)
            works[name] = blocks
        except ModuleNotFoundError as error:
            missing[name] = str(error)
    return works, missing


def interleaved(
    works: Mapping[str, Iterator[Any]], gradients: int, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Gradients per second by sampler and repeat, one sampler after another within a repeat."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began, blocks = time.perf_counter(), 0
            while not blocks or time.perf_counter() - began < seconds:
                next(work)
                blocks += 1
            rates[name].append(blocks * gradients / (time.perf_counter() - began))
    return rates


def compared(rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Shoal's rate as a multiple of the best peer's: of all, and of those that are run as usual.

    Returns:
        `best` and `best_usual`: the peer's name and the median of the ratios within a repeat; None without a peer.
    """
    peers = [name for name in rates if name != SHOAL]
    usual = [name for name in peers if CONTENDERS[name].usual]
    return {"best": against(rates, peers), "best_usual": against(rates, usual)}


def against(rates: Mapping[str, Sequence[float]], peers: Iterable[str]) -> dict[str, Any] | None:
    """The peer with the largest median, and how many times as fast Shoal is."""
    best = max(peers, key=lambda name: statistics.median(rates[name]), default=None)
    if best is None or SHOAL not in rates:
        return None
    ratios = [ours / theirs for ours, theirs in zip(rates[SHOAL], rates[best], strict=True)]
    return {"peer": best, "ratio": statistics.median(ratios), "smallest": min(ratios), "largest": max(ratios)}
