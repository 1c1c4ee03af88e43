"""Figures of benchmarks: rates against the number of chains on log-log paper."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL
from shoal.bench.chapter import TABLE
from shoal.bench.counting import by_ceiling
from shoal.bench.device import DRAWS
from shoal.bench.words import of_machine, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, INK, GREY = "#1f4e79", "#333333", "#8a8f98"
SAMPLERS = {"HMC": BLUE, "NUTS": "#c0392b"}
CEILINGS = {MATRIX: "-", TRANSCENDENTAL: "--", MEMORY: ":"}
DOTS_PER_INCH, CAPTION = 160, 125


def of_device(made: Mapping[str, Any], path: Path) -> None:
    """Gradients a second by the number of chains, ceilings as lines, the knee marked; as PNG."""
    draws = [row for row in made["rows"] if row["what"] == DRAWS]
    chains = [row["chains"] for row in draws]
    drawn, axes = _paper(chains)
    axes.fill_between(chains, [r["least"] for r in draws], [r["most"] for r in draws], color=BLUE, alpha=0.18, lw=0)
    axes.plot(chains, [row["rate"] for row in draws], color=BLUE, marker="o", ms=4, lw=1.6, label="measured")
    asked = by_ceiling(made["operations"])
    for row in made["rows"]:
        if asked.get(row["what"]):
            limit = row["rate"] / asked[row["what"]]
            cached = " if no cache held anything" if row["what"] == MEMORY else ""
            label = f"ceiling: {row['what']}{cached}, {rounded(limit)}"
            axes.axhline(limit, color=INK, linestyle=CEILINGS[row["what"]], lw=1.0, label=label)
    axes.axvline(made["knee"], color=GREY, lw=0.9, linestyle=(0, (1, 2)), label=f"knee: {made['knee']:,} chains")
    if best := made["recommended_chains"]:
        at = next(row for row in draws if row["chains"] == best)
        label = f"recommended: {best:,} chains, {rounded(at['rate'])}"
        axes.plot([best], [at["rate"]], marker="o", ms=10, mfc="none", mec=BLUE, lw=0, label=label)
    axes.set_ylabel("gradients per second")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    settings = made["settings"]
    _caption(
        drawn,
        f"{settings['target']}, {settings['dim']} dimensions, {settings['precision']}, tile {settings['tile']}, on "
        f"{of_machine(made)}. Whole HMC draws of {settings['leapfrog_steps']} leapfrog steps through Shoal's program; "
        f"medians of {settings['repeats']} repeats, the band from the slowest to the fastest. Ceilings measured in the "
        "same turns, divided by what one gradient asks for.",
    )
    drawn.savefig(path, dpi=DOTS_PER_INCH)


def _paper(chains: list[int]) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.2, 4.9), layout="constrained")
    axes = drawn.subplots()
    axes.set(xscale="log", yscale="log", xlabel="chains")
    axes.set_xticks(chains, [f"{number:,}" for number in chains])
    axes.set_xticks([], minor=True)
    axes.grid(which="major", color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    return drawn, axes


def _caption(drawn: "Figure", words: str) -> None:
    drawn.supxlabel("\n".join(textwrap.wrap(words, CAPTION)), fontsize=7.5, color=INK, x=0.02, ha="left")


def of_chapter(made: Mapping[str, Any], path: Path) -> None:
    """Effective draws a second by the number of chains, by sampler and backend, and what was published; as PNG."""
    chains = sorted({row["chains"] for row in made["rows"]})
    drawn, axes = _paper(chains)
    for backend, line in zip(dict.fromkeys(row["backend"] for row in made["rows"]), ("-", "--"), strict=False):
        for what, colour in SAMPLERS.items():
            rows = [row for row in made["rows"] if (row["what"], row["backend"]) == (what, backend)]
            at = [row["chains"] for row in rows]
            label = f"{what}, {backend}: worst of x and x²"
            axes.plot(at, [row["rate"] for row in rows], color=colour, linestyle=line, marker="o", ms=4, label=label)
            label = f"{what}, {backend}: mean of x"
            means = [row["mean_rate"] for row in rows]
            axes.plot(at, means, color=colour, linestyle=line, alpha=0.35, lw=1.0, label=label)
    for row in made["published"]:
        label = f"{row['what']}, P100: published"
        axes.plot([TABLE], [row["ess_per_second"]], color=SAMPLERS[row["what"]], marker="*", ms=11, lw=0, label=label)
    axes.set_ylabel("effective draws per second")
    drawn.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    settings = made["settings"]
    _caption(
        drawn,
        f"{settings['target']}, {settings['dim']} dimensions, {settings['precision']}, on {of_machine(made)}. Sampling "
        f"alone: {TABLE} chains were tuned before. {made['caveat']}",
    )
    drawn.savefig(path, dpi=DOTS_PER_INCH)
