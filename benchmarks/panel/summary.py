"""What the rows say together: the verdict of every cell, costs, and ratios to the best peer."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import store
from .targets import TARGETS

# The ends that a cell can come to, best first.
KINDS = {
    "good": "converged and right",
    "cautious": "right, but not said to have converged",
    "admitted": "wrong, and not said to have converged",
    "unfinished": "timeout, error or crash",
    "silent": "wrong, but said to have converged: a silent failure",
}


@dataclass(frozen=True)
class Cell:
    """A target and a sampler, all seeds.

    Attributes:
        rows: by seed.
    """

    rows: dict[int, dict[str, Any]]

    @property
    def kinds(self) -> list[str]:
        """The end of every seed."""
        return [kind(row) for row in self.rows.values()]

    @property
    def worst(self) -> str:
        """The worst end of any seed."""
        return max(self.kinds, key=list(KINDS).index)

    @property
    def good(self) -> bool:
        """Every seed converged and was right."""
        return set(self.kinds) == {"good"}

    def median(self, column: str) -> float:
        """Over the seeds that ended; NaN where none has a number."""
        values = [row[column] for row in self.rows.values() if row.get(column) is not None]
        return statistics.median(values) if values else math.nan


def kind(row: dict[str, Any]) -> str:
    """One of `KINDS`."""
    if row["status"] != "done":
        return "unfinished"
    if row["converged"]:
        return "good" if row["right"] else "silent"
    return "cautious" if row["right"] else "admitted"


def cells(samplers: list[str]) -> dict[tuple[str, str], Cell]:
    """Every cell that has rows, by target and sampler; without those whose package is missing."""
    found = {}
    for target in TARGETS:
        for sampler in samplers:
            rows = {int(seed): row for seed, row in store.read(target, sampler)["rows"].items()}
            rows = {seed: row for seed, row in rows.items() if row["status"] != "not installed"}
            if rows:
                found[target, sampler] = Cell(rows)
    return found


def best_peer(found: dict[tuple[str, str], Cell], target: str, peers: list[str]) -> float:
    """The lowest median cost of any peer that was right and converged; NaN where none was."""
    costs = [
        found[target, name].median("cost_4000")
        for name in peers
        if (target, name) in found and found[target, name].good
    ]
    return min(costs, default=math.nan)


def relative(found: dict[tuple[str, str], Cell], sampler: str, peers: list[str]) -> dict[str, float]:
    """Costs relative to the best peer, on the targets that the sampler and some peer got right."""
    ratios = {}
    for target in TARGETS:
        cell, best = found.get((target, sampler)), best_peer(found, target, peers)
        if cell and cell.good and math.isfinite(best):
            ratios[target] = cell.median("cost_4000") / best
    return ratios


def against_recipes(
    found: dict[tuple[str, str], Cell], sampler: str, recipes: list[str]
) -> dict[str, tuple[str, float, float]]:
    """By target: the recipe that is fastest in sampling, and the sampler's rates over its, per second and per gradient.

    With seed 0, on targets where the sampler and some recipe converged and were right.
    """
    compared = {}
    for target in TARGETS:
        rows = {name: found[target, name].rows.get(0) for name in (sampler, *recipes) if (target, name) in found}
        good = {name: row for name, row in rows.items() if row and kind(row) == "good"}
        own = good.pop(sampler, None)
        if own and good:
            best = max(good, key=lambda name: good[name]["ess_per_second"])
            ratios = [own[rate] / good[best][rate] for rate in ("ess_per_second", "ess_per_gradient")]
            compared[target] = (best, *ratios)
    return compared


def race_shares(found: dict[tuple[str, str], Cell], sampler: str) -> list[float]:
    """Of the cost of 4,000 effective draws, what the race took, in every run."""
    rows = (row for (_, name), cell in found.items() if name == sampler for row in cell.rows.values())
    known = (row for row in rows if row["status"] == "done" and "race_gradients" in row["settings"])
    return [row["settings"]["race_gradients"] / row["cost_4000"] for row in known]


def geometric_mean(values: Any) -> float:
    """NaN of nothing."""
    values = np.array(list(values), float)
    return float(np.exp(np.log(values).mean())) if values.size else math.nan
