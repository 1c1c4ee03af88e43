"""The two figures of the panel: costs relative to the best peer, and how runs ended."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .samplers import OURS
from .summary import KINDS, Cell, geometric_mean, relative
from .targets import TARGETS

OURS_COLOURS = ("#c8371b", "#e8892b", "#8f1d5b", "#d9a400", "#6b4226")
PEER_COLOURS = {"blackjax": "#2b6cb0", "numpyro": "#2f855a", "nutpie": "#805ad5"}
PEER_MARKERS = ("s", "^", "v", "P", "X", "d", "<", ">", "h", "*", "p")
END_COLOURS = {
    "good": "#3a7d44",
    "cautious": "#a8cf9c",
    "admitted": "#d8d8d8",
    "unfinished": "#8f8f8f",
    "silent": "#c1121f",
}
SMALL = {"fontsize": 8.5}


def draw_costs(found: dict[tuple[str, str], Cell], samplers: Sequence[str], peers: list[str], path: Path) -> None:
    """A line for each target, a point for each sampler that was right on it."""
    ratios = {sampler: relative(found, sampler, peers) for sampler in samplers}
    names = [name for name in TARGETS if any(name in ratios[sampler] for sampler in samplers)]
    figure = Figure(figsize=(8.6, 1.9 + 0.21 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1.0, color="#444444", linewidth=1.0, zorder=1)
    for position in range(len(names)):
        axes.axhline(position, color="#eeeeee", linewidth=0.8, zorder=0)
    for sampler in (*(name for name in samplers if name in peers), *(name for name in samplers if name in OURS)):
        own = ratios[sampler]
        x = [own[name] for name in names if name in own]
        y = [row for row, name in enumerate(names) if name in own]
        mean = geometric_mean(own.values())
        said = f"{sampler}: {mean:.2f} over {len(own)}" if math.isfinite(mean) else f"{sampler}: none"
        axes.scatter(x, y, label=said, **_point(sampler, samplers, peers))
    axes.set_yticks(range(len(names)), [_short(name) for name in names], **SMALL)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_xlabel(
        "evaluations from a cold start to 4,000 effective draws, relative to the best peer (less is better)", **SMALL
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    figure.legend(
        loc="outside lower center",
        ncols=2,
        frameon=False,
        title="geometric mean over targets",
        title_fontsize=8.5,
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _point(sampler: str, samplers: Sequence[str], peers: list[str]) -> dict:
    if sampler in OURS:
        colour = OURS_COLOURS[[name for name in samplers if name in OURS].index(sampler) % len(OURS_COLOURS)]
        return {"color": colour, "marker": "o", "s": 46, "zorder": 3, "edgecolors": "white", "linewidths": 0.6}
    return {
        "color": PEER_COLOURS[sampler.partition("_")[0]],
        "marker": PEER_MARKERS[peers.index(sampler) % len(PEER_MARKERS)],
        "s": 24,
        "zorder": 2,
        "alpha": 0.75,
        "linewidths": 0.0,
    }


def _short(name: str) -> str:
    """Long names of the gym and of posteriordb, cut."""
    return name if len(name) <= 40 else name[:38] + "…"


def draw_ends(found: dict[tuple[str, str], Cell], samplers: Sequence[str], path: Path) -> None:
    """A bar for each sampler: the share of its runs that came to each end."""
    figure = Figure(figsize=(8.6, 1.5 + 0.34 * len(samplers)), layout="constrained")
    axes = figure.subplots()
    for row, sampler in enumerate(samplers):
        kinds = [kind for (_, name), cell in found.items() if name == sampler for kind in cell.kinds]
        left = 0.0
        for kind, colour in END_COLOURS.items():
            count = kinds.count(kind)
            share = 100.0 * count / len(kinds)
            axes.barh(row, share, left=left, color=colour, height=0.68, edgecolor="white", linewidth=0.8)
            if share >= 3.0:
                ink = "white" if kind in ("good", "unfinished", "silent") else "#222222"
                axes.text(left + share / 2, row, str(count), ha="center", va="center", color=ink, fontsize=8)
            left += share
    axes.set_yticks(range(len(samplers)), samplers, **SMALL)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of runs, per cent (numbers: runs)", **SMALL)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    handles = [Patch(color=END_COLOURS[kind], label=words) for kind, words in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
