"""The figure of a comparison: rates of HMC by the number of chains, and seconds from nothing to an answer."""

import statistics
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"shoal": "#c8371b", "blackjax": "#2b6cb0", "numpyro": "#2f855a", "nutpie": "#805ad5"}
WIDE, CAPTION = 3.7, 64  # inches, and characters, of a panel


def draw(made: Mapping[str, Any], path: Path) -> None:
    """Draw a record as a picture."""
    require("matplotlib", "The figure of shoal bench peers", extra="report")
    from matplotlib.figure import Figure

    posteriors = list(dict.fromkeys(row["posterior"] for row in made["gradients"]))
    places = list(dict.fromkeys((row["posterior"], row["cache"]) for row in made["start"]))
    rows = [some for some in (posteriors, places) if some]
    across = max(len(some) for some in rows)
    drawn = Figure(figsize=(WIDE * across, 3.3 * len(rows) + 0.7), layout="constrained")
    panels = drawn.subplots(len(rows), across, squeeze=False)
    for axes in panels.ravel():
        axes.set_visible(False)
    if posteriors:
        for axes, posterior in zip(panels[0], posteriors, strict=False):
            _rates(axes, made, posterior)
        panels[0, 0].set_ylabel("gradients per second")
        panels[0, 0].legend(frameon=False, fontsize=7)
    if places:
        for axes, (posterior, cache) in zip(panels[-1], places, strict=False):
            _times(axes, made, posterior, cache)
    _caption(drawn, made, across)
    drawn.savefig(path, dpi=150)


def _rates(axes: "Axes", made: Mapping[str, Any], posterior: str) -> None:
    axes.set_visible(True)
    rows = [row for row in made["gradients"] if row["posterior"] == posterior]
    for name in rows[0]["rates"]:
        here = [row for row in rows if name in row["rates"]]
        each = [row["rates"][name] for row in here]
        colour, alone = COLOURS[name.partition("_")[0]], not name.endswith("_pmap") and name != "shoal"
        x = [row["chains"] for row in here]
        axes.fill_between(x, [min(r) for r in each], [max(r) for r in each], color=colour, alpha=0.15, linewidth=0)
        label = name.replace("_pmap", ", all devices") + (", one device" if alone else "")
        style = {"linestyle": "--" if alone else "-", "marker": "o", "markersize": 3.5, "linewidth": 1.3}
        axes.plot(x, [statistics.median(r) for r in each], color=colour, label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="chains", title=posterior)
    axes.set_xticks([row["chains"] for row in rows], [f"{row['chains']:,}" for row in rows])
    axes.set_xticks([], minor=True)
    _plain(axes, "both")


def _times(axes: "Axes", made: Mapping[str, Any], posterior: str, cache: str) -> None:
    axes.set_visible(True)
    rows = [row for row in made["start"] if (row["posterior"], row["cache"]) == (posterior, cache)]
    names = [name for name in dict.fromkeys(row["sampler"] for row in rows)]
    longest = max((row["seconds"] or 0.0 for row in rows), default=0.0)
    for place, name in enumerate(names):
        mine = [row for row in rows if row["sampler"] == name]
        took = [row["seconds"] for row in mine if row["status"] == "reached"]
        if len(took) == len(mine):
            middle = statistics.median(took)
            axes.barh(place, middle, color=COLOURS[name.partition("_")[0]], height=0.62)
            axes.plot(took, [place] * len(took), "|", color="#222222", markersize=7)
            axes.text(max(took), place, f"  {middle:.1f}", va="center", fontsize=8)
        else:
            axes.text(0.0, place, f" {mine[0]['status']}", va="center", fontsize=8, color="#666666")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlim(0, 1.15 * longest if longest else 1.0)
    axes.invert_yaxis()
    axes.set_xlabel("seconds to 1,000 effective draws")
    axes.set_title(f"{posterior}, {cache} cache")
    _plain(axes, "x")


def _plain(axes: "Axes", grid: Any) -> None:
    axes.title.set_fontsize(9)
    axes.tick_params(which="both", labelsize=8)
    axes.xaxis.label.set_fontsize(8.5)
    axes.yaxis.label.set_fontsize(8.5)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _caption(drawn: "Figure", made: Mapping[str, Any], across: int) -> None:
    machine, versions = made["machine"], made["versions"]
    packages = ("shoal", "jax", "blackjax", "numpyro", "nutpie")
    said = [f"{len(machine['devices'])} JAX devices on {machine['cores']} cores ({machine['cpu']})"]
    said.append(", ".join(f"{name} {versions[name]}" for name in packages if versions.get(name)))
    if made["gradients"]:
        asked = made["settings"]["gradients"]
        said.append(
            f"Rates: HMC of {asked['leapfrog_steps']} leapfrog steps in float32, compiling left out, medians of "
            f"{asked['repeats']} interleaved repeats, bands from the slowest to the fastest"
        )
    if made["start"]:
        said.append(
            "Seconds: from the start of a process, everything included, medians over repeats (ticks); with no compiled "
            "program kept, and with all. Peers' clocks stand still while the model is built and draws are judged"
        )
    words = textwrap.fill(". ".join(said) + ".", CAPTION * across)
    drawn.supxlabel(words, fontsize=7.5, color="#444444", x=0.01, ha="left")
