"""Figures for findings: how the numbers of the verdict came about along the run, and where transitions diverge."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shoal.report.figures import WIDTH
from shoal.report.ink import BLUE, FAINT, GREEN, GREY_RGB, INK, ORANGE, ORANGE_RGB, RED, figure, light_grid
from shoal.report.overview import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.results.result import Result

POINTS = 9
_FEWEST_DRAWS = 8
_COLOURS = (BLUE, ORANGE, GREEN, INK)
_DASHES = (0, (4, 3))
# Dots of one kind in a picture; more make it large and no clearer.
_MOST_DOTS = 4000
_BINS = 20
# A quantity that goes over so many powers of ten is drawn on a scale of logarithms.
_DECADES = 1.5


class Along(NamedTuple):
    """What the verdict would have seen in a number, had the run ended earlier.

    Attributes:
        draws: of each chain, at the points.
        nested: nested R-hat.
        ess: effective draws.
    """

    draws: np.ndarray
    nested: np.ndarray
    ess: np.ndarray


def along(values: np.ndarray, superchain: np.ndarray) -> Along:
    """Look at the first draws of a number, at points in a geometric progression.

    Args:
        values: `[chain, draw]`.
        superchain: `[chain]`.
    """
    from shoal.diagnostics.estimates import superchain_index
    from shoal.diagnostics.mixing import mixing

    ids = superchain_index(superchain, len(values))
    points = np.unique(np.geomspace(min(_FEWEST_DRAWS, values.shape[1]), values.shape[1], POINTS).astype(int))
    seen = [mixing(values[:, :point], ids) for point in points]
    return Along(points, np.array([some.r_hat[0] for some in seen]), np.array([some.ess[0] for some in seen]))


def course(result: "Result", rows: Sequence[Row]) -> "Figure":
    """Nested R-hat and effective draws of some numbers against the draws so far."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    drawn = figure(WIDTH, 3.4)
    left, right = drawn.subplots(1, 2)
    for row, colour in zip(rows, _COLOURS, strict=False):
        seen = along(_values(result, row), np.asarray(result.superchain))
        left.plot(seen.draws, seen.nested - 1, "o-", color=colour, markersize=3.5, linewidth=1.3)
        right.plot(seen.draws, seen.ess, "o-", color=colour, markersize=3.5, linewidth=1.3, label=row.label)
    for axes, threshold, words in ((left, 0.01, "1.01"), (right, 400, "400")):
        axes.axhline(threshold, color=RED, linewidth=1, linestyle=_DASHES)
        axes.annotate(
            words, (1, threshold), xycoords=("axes fraction", "data"), xytext=(-3, 3), textcoords="offset points",
            color=RED, ha="right", fontsize=9,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("draws of each chain")
        axes.margins(y=0.12)
        light_grid(axes)
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{1 + value:.{_places(value)}f}"))
    left.set_title("Nested R-hat")
    left.set_ylabel("nested R-hat")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    right.set_title("Effective draws")
    right.set_ylabel("effective draws, all chains")
    drawn.legend(loc="outside lower center", ncols=len(rows), borderpad=0)
    return drawn


def _places(value: float) -> int:
    """Decimals to write one and a small number."""
    return max(0, -math.floor(math.log10(value))) if value > 0 else 0


class Axis(NamedTuple):
    """A coordinate of a picture.

    Attributes:
        label: its name.
        values: `[chain, draw]`.
    """

    label: str
    values: np.ndarray


def telling(result: "Result") -> list[Axis]:
    """The two numbers in which divergent draws differ most from all; the log density where there is but one.

    Args:
        result: with draws that can be drawn.

    Returns:
        Two, or none where nothing diverged or it has no place.
    """
    from shoal.diagnostics.places import places
    from shoal.diagnostics.rows import row_of, variable

    if "diverging" not in result.sample_stats or not len(result.draws):
        return []
    found = places(result.draws, np.asarray(result.sample_stats["diverging"], bool))
    axes = [
        Axis(result.labels(place.name)[place.quantity], row_of(variable(result.draws, place.name), place.quantity))
        for place in found
    ]
    lp = np.asarray(result.sample_stats.get("lp", np.nan))
    if len(axes) == 1 and np.isfinite(lp).all():
        axes.append(Axis("log density", lp))
    return axes if len(axes) == 2 else []


def divergent(pair: Sequence[Axis], diverging: np.ndarray) -> "Figure":
    """Where transitions diverge in two coordinates, and which ranks these draws have among all.

    Args:
        pair: of coordinates.
        diverging: `[chain, draw]`, bool.
    """
    drawn = figure(WIDTH, 3.8)
    cloud, ranks = drawn.subplots(1, 2, width_ratios=(1.25, 1))
    first, second = (np.asarray(axis.values, np.float64) for axis in pair)
    plain, marked = _some(~diverging), _some(diverging)
    style = {"linestyle": "none", "rasterized": True, "markeredgewidth": 0}
    cloud.plot(
        first[plain], second[plain], "o", color=GREY_RGB, markersize=2.6, alpha=0.4, label="other draws", **style
    )
    cloud.plot(
        first[marked], second[marked], "o", color=ORANGE_RGB, markersize=4, alpha=0.8, label="divergent", **style
    )
    for axis, values, scale, limits in (
        (pair[0], first, cloud.set_xscale, cloud.set_xlim),
        (pair[1], second, cloud.set_yscale, cloud.set_ylim),
    ):
        low, high = _reach(values, diverging)
        if low > 0 and math.log10(high / low) > _DECADES and axis.values.min() > 0:
            scale("log")
        limits(low, high)
    cloud.set_title("Where transitions diverge")
    cloud.set_xlabel(pair[0].label)
    cloud.set_ylabel(pair[1].label)
    cloud.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0, handletextpad=0.2)
    _rank_steps(ranks, pair, diverging)
    for axes in (cloud, ranks):
        light_grid(axes)
    return drawn


def _some(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chains and draws of those, or of every so manieth."""
    chain, draw = np.nonzero(which)
    step = max(1, -(-len(chain) // _MOST_DOTS))
    return chain[::step], draw[::step]


def _reach(values: np.ndarray, diverging: np.ndarray) -> tuple[float, float]:
    """What is shown: nearly all draws, and nearly all divergent ones."""
    bounds = [np.quantile(values, (0.001, 0.999)), np.quantile(values[diverging], (0.01, 0.99))]
    low, high = float(min(low for low, _ in bounds)), float(max(high for _, high in bounds))
    return (low, high) if low < high else (low - 1, high + 1)


def _rank_steps(axes: "Axes", pair: Sequence[Axis], diverging: np.ndarray) -> None:
    """How many of the divergent draws are among each twentieth of all."""
    from matplotlib.ticker import PercentFormatter

    for axis, colour in zip(pair, (BLUE, GREEN), strict=True):
        ordered = np.sort(axis.values, axis=None)
        rank = np.searchsorted(ordered, axis.values[diverging]) / ordered.size
        share, edges = np.histogram(rank, _BINS, (0, 1))
        axes.stairs(share / max(share.sum(), 1), edges, color=colour, linewidth=1.4, label=axis.label)
    axes.axhline(1 / _BINS, color=FAINT, linewidth=1, linestyle=_DASHES, label="as all draws")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Ranks of the divergent among all")
    axes.set_xlabel("rank among all draws")
    axes.set_ylabel("share of the divergent draws")
    axes.legend(loc="best")


def _values(result: "Result", row: Row) -> np.ndarray:
    from shoal.diagnostics.rows import row_of, variable

    return np.asarray(row_of(variable(result.draws, row.variable), row.place), np.float64)
