"""The figures of a report, in forms that hundreds of chains do not crowd."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.report.ink import BLUE, BLUE_RGB, FAINT, GREEN, INK, ORANGE, ORANGE_RGB, RED, figure, light_grid
from shoal.report.overview import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from shoal.results.result import Result

WIDTH = 11.0
_FEW_CHAINS = 6
_MOST_DRAWS = 200
_MOST_ROWS = 32
_MOST_POINTS = 3000
_BINS = 20


def closer(result: "Result", rows: Sequence[Row]) -> "Figure":
    """Some numbers of the model, one under the other: path over the draws, ranks, means by superchain."""
    groups, together = _groups(np.asarray(result.superchain))
    drawn = figure(WIDTH, 2.75 * len(rows))
    drawn.get_layout_engine().set(hspace=0.06)  # pyright: ignore
    panels = drawn.subplots(len(rows), 3, width_ratios=(1.5, 1, 1), squeeze=False)
    for (path, ranks, means), row in zip(panels, rows, strict=True):
        values = np.asarray(result.draws[row.variable])
        values = values.reshape(*values.shape[:2], -1)[..., row.place].astype(np.float64)
        _path(path, values, row.label)
        _ranks(ranks, values, groups)
        _means(means, values, groups, row)
        for axes in (ranks, means):
            _name_rows(axes, groups, together)
    return drawn


def _groups(superchain: np.ndarray) -> tuple[np.ndarray, int]:
    """The row of every chain: its superchain, or several neighbouring ones where there are very many.

    Returns:
        Rows `[chain]`, counted from 0 without gaps, and how many superchains stand in a row.
    """
    _, number = np.unique(superchain, return_inverse=True)
    together = -(-(int(number.max()) + 1) // _MOST_ROWS)
    return number // together, together


def _path(axes: "Axes", values: np.ndarray, label: str) -> None:
    chains, draws = values.shape
    shown = np.unique(np.linspace(0, draws - 1, min(draws, _MOST_DRAWS)).astype(int))
    if chains <= _FEW_CHAINS:
        for chain in values:
            axes.plot(shown, chain[shown], color=BLUE, linewidth=0.7, alpha=0.7)
    else:
        levels = np.nanquantile(values[:, shown], (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
        low, lower, middle, upper, high = levels
        axes.fill_between(shown, low, high, color=BLUE, alpha=0.18, linewidth=0, label="90%")
        axes.fill_between(shown, lower, upper, color=BLUE, alpha=0.35, linewidth=0, label="50%")
        axes.plot(shown, middle, color=BLUE, linewidth=1.2, label="median")
    axes.set_title(label)
    axes.set_xlabel("draw")
    axes.set_ylabel(f"value over {chains:,} chains" if chains > 1 else "value")
    axes.margins(x=0)
    light_grid(axes)


def _ranks(axes: "Axes", values: np.ndarray, groups: np.ndarray) -> None:
    """More or fewer ranks than uniform, by superchain and bin: orange and blue, nothing when as expected."""
    from matplotlib.colors import ListedColormap

    order = np.argsort(values, axis=None, kind="stable")
    rank = np.empty(values.size, int)
    rank[order] = np.arange(values.size)
    bins = (rank * _BINS // values.size).reshape(values.shape)
    rows = int(groups.max()) + 1
    counts = np.zeros((rows, _BINS))
    np.add.at(counts, (np.broadcast_to(groups[:, None], bins.shape), bins), 1)
    share = counts / counts.sum(axis=1, keepdims=True) * _BINS
    strength = np.linspace(-1, 1, 201)
    colours = [(*(ORANGE_RGB if s > 0 else BLUE_RGB), abs(s)) for s in strength]
    picture = axes.imshow(
        share, cmap=ListedColormap(colours), vmin=0, vmax=2, aspect="auto", origin="lower",
        extent=(0, 1, -0.5, rows - 0.5), interpolation="nearest",
    )  # fmt: skip
    bar = axes.figure.colorbar(picture, ax=axes, pad=0.02, aspect=30, ticks=[0, 1, 2])
    bar.ax.set_yticklabels(["none", "even", "double"])
    bar.outline.set_visible(False)
    axes.set_title("Ranks")
    axes.set_xlabel("rank among all draws, as a fraction")


def _means(axes: "Axes", values: np.ndarray, groups: np.ndarray, row: Row) -> None:
    """The mean of every superchain, and where they should lie if all sample the same posterior."""
    rows = int(groups.max()) + 1
    size = np.bincount(groups, minlength=rows)
    mean = np.bincount(groups, weights=values.mean(axis=1), minlength=rows) / size
    if math.isfinite(row.mcse_mean):
        # A superchain's mean errs as the whole's does, with fewer chains to average.
        spread = 2 * row.mcse_mean * math.sqrt(rows)
        axes.axvspan(row.mean - spread, row.mean + spread, color=GREEN, alpha=0.18, linewidth=0)
    axes.axvline(row.mean, color=GREEN, linewidth=1)
    axes.plot(mean, np.arange(rows), "o", color=BLUE, markersize=4)
    axes.set_title("Means by superchain")
    axes.set_xlabel("mean")
    axes.locator_params(axis="x", nbins=5)
    light_grid(axes, "x")


def _name_rows(axes: "Axes", groups: np.ndarray, together: int) -> None:
    rows = int(groups.max()) + 1
    axes.set_ylim(-0.5, rows - 0.5)
    axes.set_yticks(range(0, rows, max(1, -(-rows // 8))))
    axes.set_ylabel("superchain" if together == 1 else f"superchains, {together} to a row")


def all_numbers(rows: Sequence[Row], nested: np.ndarray) -> "Figure":
    """Effective sample size and R-hat of every number, in the order of the model."""
    drawn = figure(WIDTH, 4.6)
    above, below = drawn.subplots(2, 1, sharex=True)
    where = np.arange(len(rows))
    dots: dict[str, Any] = {"linestyle": "none", "markersize": 3.5, "rasterized": len(rows) > _MOST_POINTS}
    above.plot(where, [row.ess_bulk for row in rows], "o", color=BLUE, label="bulk", **dots)
    above.plot(where, [row.ess_tail for row in rows], "s", color=ORANGE, label="tail", **dots)
    above.axhline(400, color=RED, linewidth=1, linestyle=(0, (4, 3)))
    above.set_yscale("log")
    above.set_ylabel("effective draws")
    above.set_title("Effective sample size")
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0, handletextpad=0.2)
    ranked = [row.r_hat for row in rows]
    below.plot(where, ranked, "s", color=FAINT, label="rank-normalised, over chains", **dots)
    below.plot(where, nested, "o", color=BLUE, label="nested, over superchains", **dots)
    below.axhline(1.01, color=RED, linewidth=1, linestyle=(0, (4, 3)))
    below.set_title("R-hat")
    below.set_ylabel("R-hat")
    below.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0, handletextpad=0.2)
    for axes in (above, below):
        light_grid(axes)
        _name_variables(axes, rows)
        axes.set_xlim(-1, len(rows))
    return drawn


def _name_variables(axes: "Axes", rows: Sequence[Row]) -> None:
    """Thin lines between variables, and the name of each that has the room."""
    begins = [i for i, row in enumerate(rows) if i == 0 or row.variable != rows[i - 1].variable]
    ends = [*begins[1:], len(rows)]
    for begin in begins[1:]:
        axes.axvline(begin - 0.5, color=FAINT, linewidth=0.5, alpha=0.5)
    ticks, words, free = [], [], -math.inf
    for begin, end in zip(begins, ends, strict=True):
        centre, name = (begin + end - 1) / 2, rows[begin].variable
        half = 0.5 * len(rows) * (len(name) + 2) / 130  # About 130 letters fit across.
        if centre - half >= free:
            ticks.append(centre)
            words.append(name)
            free = centre + half
    axes.set_xticks(ticks, words)
    axes.tick_params(axis="x", length=0)


def moves(result: "Result") -> "Figure":
    """How chains moved: energy errors, acceptance, trajectory lengths, and where each chain was."""
    stats = result.sample_stats
    panels = [
        (_energy_errors, "energy_error"),
        (_acceptance, "acceptance_rate"),
        (_steps, "n_steps"),
        (_levels, "lp"),
    ]
    there = [(draw, name) for draw, name in panels if name in stats]
    drawn = figure(WIDTH, 2.6)
    every = drawn.subplots(1, max(len(there), 1), squeeze=False)[0]
    for axes, (draw, name) in zip(every, there, strict=False):
        draw(axes, np.asarray(stats[name], dtype=np.float64))
        light_grid(axes)
    return drawn


def _histogram(axes: "Axes", values: np.ndarray, bins: Any = 40) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.hist(values, bins=bins, color=BLUE, alpha=0.75)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(_thousands)


def _thousands(value: float, _: Any = None) -> str:
    return f"{value / 1000:,.0f}k" if value >= 10_000 else f"{value:,.0f}"


def _energy_errors(axes: "Axes", values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    # Divergences may be off by thousands; they are counted elsewhere and would hide all others here.
    middle, far = np.quantile(np.abs(finite), (0.75, 0.98)) if finite.size else (1.0, 1.0)
    reach = max(min(float(far), 10 * float(middle)), 1e-6)
    inside = finite[np.abs(finite) <= reach]
    _histogram(axes, inside, np.linspace(-reach, reach, 41))
    outside = 1 - inside.size / max(values.size, 1)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_title("Energy error")
    axes.set_xlabel(f"energy, end − start ({outside:.1%} beyond)")
    axes.set_ylabel("draws")


def _acceptance(axes: "Axes", values: np.ndarray) -> None:
    mean = values.mean(axis=1)
    _histogram(axes, mean[np.isfinite(mean)], np.linspace(0, 1, 41))
    axes.axvline(float(mean.mean()), color=ORANGE, linewidth=1.2)
    axes.set_title("Acceptance")
    axes.set_xlabel("mean acceptance of a chain")
    axes.set_ylabel("chains")
    axes.set_xlim(0, 1)


def _steps(axes: "Axes", values: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = int(np.nanmin(values)), int(np.nanmax(values))
    edges = np.append(np.arange(low - 0.5, high, max(1, -(-(high - low + 1) // 40))), high + 0.5)
    # A density: the last bin may be narrower than the others.
    axes.hist(values.ravel(), bins=edges.tolist(), density=True, color=BLUE, alpha=0.75)
    axes.set_title("Trajectory length")
    axes.set_xlabel("integrator steps of a draw")
    axes.set_ylabel("share of draws per step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _levels(axes: "Axes", values: np.ndarray) -> None:
    mean = values.mean(axis=1)
    _histogram(axes, mean[np.isfinite(mean)], min(40, max(5, len(mean) // 4)))
    axes.set_title("Log density")
    axes.set_xlabel("mean log density of a chain")
    axes.set_ylabel("chains")
    axes.locator_params(axis="x", nbins=4)
