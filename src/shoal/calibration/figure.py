"""The figure of a calibration: empirical distributions of places less the uniform one, with simultaneous bands."""

from typing import TYPE_CHECKING

import numpy as np

from shoal.calibration.uniformity import bands, counts_below
from shoal.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.calibration.outcome import Calibration
    from shoal.calibration.uniformity import Bands

MOST_PANELS, ACROSS = 24, 4
USUAL = 0.05
BAND, LINE, WRONG = "#7f9fbf", "#1f4e79", "#c0392b"


def ecdf_differences(calibration: "Calibration", labels: list[str] | None) -> "Figure":
    """A panel for each quantity; see `Calibration.plot`."""
    require("matplotlib", "The plot of a calibration", extra="report")
    from matplotlib.figure import Figure

    shown = _places(calibration, labels)
    rows = -(-len(shown) // ACROSS)
    across = min(ACROSS, len(shown))
    drawn = Figure(figsize=(2.9 * across, 2.3 * rows), layout="constrained")
    panels = drawn.subplots(rows, across, sharex=True, sharey=True, squeeze=False).ravel()
    total, num_points = len(calibration.ranks), num_points_of(len(calibration.ranks), calibration.num_draws)
    around = [bands(total, num_points, level) for level in (calibration.level, USUAL)]
    for axes, at in zip(panels, shown, strict=False):
        _panel(axes, calibration.places[:, at], around, calibration.labels[at])
        if calibration.p_values[at].min() < calibration.level:
            axes.title.set_color(WRONG)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[:: ACROSS if rows > 1 else len(panels)]:
        axes.set_ylabel("ECDF − uniform")
    for axes in panels[max(0, len(shown) - across) : len(shown)]:
        axes.set_xlabel("place among the draws")
    return drawn


def num_points_of(total: int, num_draws: int) -> int:
    """At how many points places are looked at: no more than there are data sets, or ranks."""
    return max(2, min(total, num_draws + 1) - 1)


def _places(calibration: "Calibration", labels: list[str] | None) -> list[int]:
    every = list(calibration.labels)
    if labels is None:
        worst = np.argsort(calibration.p_values.min(1), kind="stable")[:MOST_PANELS]
        return sorted(int(at) for at in worst)
    unknown = [label for label in labels if label not in every]
    if unknown or not labels:
        raise ValueError(
            f"labels={labels!r}: expected some of {', '.join(every[:6])}{', ...' if len(every) > 6 else ''}."
        )
    return [every.index(label) for label in labels]


def _panel(axes: "Axes", places: np.ndarray, around: "list[Bands]", label: str) -> None:
    for band, strength in zip(around, (0.3, 0.55), strict=True):
        below, above = band.low - band.points, band.high - band.points
        axes.fill_between(band.points, below, above, color=BAND, alpha=strength, linewidth=0)
    points = around[0].points
    share = counts_below(places, len(points)) / len(places)
    axes.plot(np.r_[0, points, 1], np.r_[0, share - points, 0], color=LINE, linewidth=1.2)
    axes.set_title(label, fontsize=9)
    axes.set_xlim(0, 1)
