"""The tables and the figure of the docs, from the committed results."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
FIGURE = DOCS / "images" / "calibration.png"
PAGE = DOCS / "calibration.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
INK, ACCENT, FAINT = "#24292f", "#0969da", "#8c959f"


def render(made: dict[str, Any]) -> None:
    """Write the figure, and the tables into the page."""
    draw(made, FIGURE)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(made)}\n\n{END}{after}")


def tables(made: dict[str, Any]) -> str:
    """Both of them in Markdown."""
    total, count = made["overall"], sum(len(law["runs"]) for law in made["stops"].values())
    stops = [["law", "stops", "intervals", "covered", "ArviZ's error", "false stops", "cost", "sampling"]]
    for name, law in made["stops"].items():
        stops.append([f"`{_short(name)}`", *_numbers(law), *_costs([run for run in law["runs"] if run["ended"]])])
    everything = [run for law in made["stops"].values() for run in law["runs"] if run["ended"]]
    stops.append(["**all**", *_numbers(total), *_costs(everything)])
    against = [["adversary", "what is hard", "runs", "certified, by chains", "certified wrong", "findings that block"]]
    for covered in (True, False):
        for name, found in made["adversaries"].items():
            if found["covers"] == covered:
                against.append([f"`{_short(name)}`", found["note"] or "a neck", *_against(found["by_chains"])])
    with_ = made["made_with"]
    versions = ", ".join(f"{name} {with_[name]}" for name in ("shoal", "jax", "numpy", "python"))
    return "\n\n".join(
        [
            f"Made with {versions} on {with_['machine']}. Of {count:,} runs {total['not_ended']} had not ended after "
            "10,000 draws of each chain.",
            _table(stops, "lrrrrrrr"),
            _table(against, "llrlrl"),
        ]
    )


def _short(name: str) -> str:
    """Of a target of the panel, without what it has in common with others."""
    short = name.removeprefix("eight_schools-").removeprefix("kidiq-")
    return "brownian_motion" if short.startswith("brownian_motion") else short


def _against(rows: list[dict[str, Any]]) -> list[str]:
    certified = ", ".join(f"{row['chains']:,}: {row['certified']}" for row in rows)
    wrong = sum(row["certified_wrong"] for row in rows)
    kinds = sorted({kind for row in rows for kind in row["findings"]})
    named = ", ".join(f"`{kind}`" for kind in kinds) or "-"
    return [str(sum(row["runs"] for row in rows)), certified, f"**{wrong}**" if wrong else "0", named]


def _numbers(law: dict[str, Any]) -> list[str]:
    shares = (f"{law['covered']:.1%}", f"{law['covered_arviz']:.1%}", f"{law['false']:.2%}")
    return [f"{law['stops']:,}", f"{law['intervals']:,}", *shares]


def _costs(runs: list[dict[str, Any]]) -> list[str]:
    return [f"{np.median([run['cost'][which] for run in runs]):.2f}" for which in (0, 1)]


def _table(rows: list[list[str]], align: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:]))


def draw(made: dict[str, Any], path: Path) -> None:
    """Coverage by law, and costs by the number of chains."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    laws = list(made["stops"])
    for place, name in enumerate(reversed(laws)):
        law = made["stops"][name]
        left.plot([law["covered_arviz"]], [place], "o", mfc="none", color=FAINT, label="error as ArviZ has it")
        left.plot([law["covered"]], [place], "o", color=ACCENT, label="reported error")
    left.axvline(0.95, color=INK, lw=1)
    left.axvspan(0.93, 0.97, color=FAINT, alpha=0.15, lw=0)
    left.set(yticks=range(len(laws)), xlim=(0.85, 1.0), xlabel="share of 95% intervals that hold the answer")
    left.set_yticklabels([_short(name) for name in reversed(laws)])
    handles, names = left.get_legend_handles_labels()
    left.legend(handles[:2], names[:2], frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.4, -0.16))
    runs = [run for law in made["stops"].values() for run in law["runs"] if run["ended"]]
    counts = sorted({run["chains"] for run in runs})
    rng = np.random.default_rng(0)
    for place, chains in enumerate(counts):
        costs = np.array([run["cost"][0] for run in runs if run["chains"] == chains])
        right.plot(place + rng.uniform(-0.3, 0.3, len(costs)), costs, ".", color=FAINT, ms=3, alpha=0.6)
        right.plot([place - 0.35, place + 0.35], [np.median(costs)] * 2, color=ACCENT, lw=2)
    right.axhline(1, color=INK, lw=1)
    right.axhline(1.5, color=INK, lw=1, ls=":")
    right.set(yscale="log", xticks=range(len(counts)), xlabel="chains", ylabel="gradients, by those of the oracle")
    right.set_xticklabels([f"{chains:,}" for chains in counts])
    right.set_yticks([0.7, 1, 1.5, 2, 3, 5], labels=["0.7", "1", "1.5", "2", "3", "5"])
    right.minorticks_off()
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
