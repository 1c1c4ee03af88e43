"""The picture of the energy: how far it spreads, how far fresh momenta change it, and what goes with it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.diagnostics.energy import LOW, fraction, partners
from shoal.diagnostics.rows import row_of, variable
from shoal.report.figures import WIDTH
from shoal.report.ink import BLUE, BLUE_RGB, FAINT, ORANGE, figure, light_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.results.result import Result

WORDS = (
    "How far the energy of draws, potential and kinetic, spreads around its mean (field), and how far fresh momenta "
    "change it from one draw to the next (line). E-BFMI is the ratio of the two variances: 1 for a normal posterior. "
    f"Below {LOW} chains take many draws from the bulk to the tails and back."
)
PARTNER = " On the right the number that goes with the energy most."

_BINS = 60
_MOST_POINTS = 3000


def picture(result: "Result") -> "tuple[Figure, str] | None":
    """The figure and its caption; None where the kernel tells no energy, or it is not finite.

    Args:
        result: with draws that can be drawn.
    """
    if not {"energy", "lp"} <= set(result.sample_stats):
        return None
    energy, lp = (np.asarray(result.sample_stats[name], float) for name in ("energy", "lp"))
    if not (energy.size and np.isfinite(energy).all() and np.isfinite(lp).all() and np.ptp(energy) > 0.0):
        return None
    named = partners(result.draws, energy)[:1]
    drawn = figure(WIDTH, 2.9)
    left, *right = drawn.subplots(1, 1 + len(named), squeeze=False)[0]
    _spreads(left, energy, lp)
    for axes, partner in zip(right, named, strict=True):
        values = row_of(variable(result.draws, partner.name), partner.quantity)
        _against(axes, energy, values, result.labels(partner.name)[partner.quantity])
    return drawn, WORDS + (PARTNER if named else "")


def _spreads(axes: "Axes", energy: np.ndarray, lp: np.ndarray) -> None:
    """Both densities, each around its mean."""
    spread = energy.ravel() - energy.mean()
    kinetic = (energy + lp).ravel()
    # Of draws that have nothing to do with each other, so that chains need not have kept every draw.
    change = kinetic - np.random.default_rng(0).permutation(kinetic)
    low, high = np.quantile(spread, (0.001, 0.999))
    reach = max(float(np.quantile(np.abs(change), 0.999)), 1e-6)
    edges = np.linspace(min(float(low), -reach), max(float(high), reach), _BINS + 1)
    field: dict[str, Any] = {"histtype": "stepfilled", "color": BLUE, "alpha": 0.35, "label": "energy"}
    line: dict[str, Any] = {"histtype": "step", "color": ORANGE, "linewidth": 1.4, "label": "change by momenta"}
    for values, how in ((spread, field), (change, line)):
        axes.hist(values, edges.tolist(), density=True, **how)
    axes.set_title(f"Energy: E-BFMI {fraction(energy, lp).value:.2f}")
    axes.set_xlabel("energy, distance from the mean")
    axes.set_ylabel("density")
    axes.margins(x=0)
    axes.legend(loc="upper right", handlelength=1.2)
    light_grid(axes)


def _against(axes: "Axes", energy: np.ndarray, values: np.ndarray, label: str) -> None:
    """A number of the model against the energy, some draws of all chains."""
    step = max(1, energy.size // _MOST_POINTS)
    some = np.random.default_rng(0).permutation(energy.size)[: energy.size // step]
    low, high = np.quantile(values, (0.001, 0.999))
    axes.plot(
        energy.ravel()[some], np.asarray(values).ravel()[some], "o", color=BLUE_RGB, markersize=2.5, alpha=0.35,
        markeredgewidth=0, rasterized=True,
    )  # fmt: skip
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.axvline(float(energy.mean()), color=FAINT, linewidth=0.8)
    axes.set_title(f"{label} by energy")
    axes.set_xlabel("energy")
    axes.set_ylabel(label)
    light_grid(axes)
