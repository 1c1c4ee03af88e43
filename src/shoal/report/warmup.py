"""How a warmup went: its phases, and the race that says why this sampler."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from shoal.progress import human
from shoal.report import numbers
from shoal.warmup.race import MARGIN

# What is told as longer.
LONGER = 1.05
PHASE_HEADS = ("phase", "draws", "gradients", "settled", "metric", "price")
RACE_HEADS = ("candidate", "step size", "trajectory", "acceptance", "gradients per draw", "ESS per 1,000 gradients")


def section(warmup: Mapping[str, Any]) -> str:
    """The section of the page; empty for a warmup of fixed length.

    Args:
        warmup: of a result.

    Returns:
        HTML.
    """
    if "phases" not in warmup:
        return ""
    phases = _table("Phases of the warmup", PHASE_HEADS, [_phase(phase) for phase in warmup["phases"]])
    entries = warmup.get("race", [])
    race = _table("The race", RACE_HEADS, [_entry(entry) for entry in entries], [e["won"] for e in entries])
    return (
        f"<section><h2>Why this sampler</h2><p>{escape(words(warmup))}</p>"
        f'<div class="scroll">{phases}</div><div class="scroll">{race if entries else ""}</div></section>'
    )


def words(warmup: Mapping[str, Any]) -> str:
    """The outcome in a sentence or two."""
    entries = warmup.get("race", [])
    total = f"Warmup took {warmup['draws']:,} draws of every chain and ended by itself."
    if not entries:
        return total
    winner = next(entry for entry in entries if entry["won"])
    further = (
        f" Its draws say that longer trajectories pay: sampling makes them {warmup['reach']:.2g} times as long."
        if warmup.get("reach", 1.0) >= LONGER
        else ""
    )
    if warmup.get("necks"):
        further += (
            " Proposals from one tail of a coordinate failed, as they do in a neck of the posterior: in sampling those "
            "without a chance are tried again with finer steps."
        )
    if len(entries) == 1:
        return (
            f"{total} No other candidate was tried: on this posterior it could hardly have repaid that. It is "
            f"sampled with {winner['candidate']}.{further}"
        )
    measure = "effective draws of the worst coordinate or its distance from the median, by ranks, per gradient"
    how = (
        f"stayed the best: no other gave {MARGIN:g} times as many {measure}"
        if winner is entries[0]
        else f"won: it gave {winner['ahead']:.1f} times as many {measure} as the best before it"
    )
    return f"{total} Of {len(entries)} candidates, {winner['candidate']} {how}, in as many draws.{further}"


def _phase(phase: Mapping[str, Any]) -> tuple[str, ...]:
    prices = phase.get("prices") or {}
    price = numbers.significant(prices[phase["metric"]]) if phase.get("metric") in prices else ""
    settled = {True: "yes", False: "no", None: ""}[phase.get("settled")]
    return (phase["phase"], f"{phase['draws']:,}", human(phase["gradients"]), settled, phase.get("metric", ""), price)


def _entry(entry: Mapping[str, Any]) -> tuple[str, ...]:
    shown = (entry["step_size"], entry["trajectory"])
    return (
        entry["candidate"],
        *(numbers.significant(value) for value in shown),
        f"{entry['acceptance']:.2f}",
        f"{entry['gradients_per_draw']:.1f}",
        numbers.significant(1000 * entry["ess_per_gradient"]),
    )


def _table(
    title: str, heads: Sequence[str], rows: Sequence[tuple[str, ...]], marked: Sequence[bool] | None = None
) -> str:
    marked = marked or [False] * len(rows)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr{" class=won" if won else ""}><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for (first, *rest), won in zip(rows, marked, strict=True)
    )
    caption = f"<caption>{escape(title)}</caption>"
    return f'<table class="numbers plain">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
