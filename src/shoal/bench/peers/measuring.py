"""Both comparisons with peers in one record: of gradients per second, and of the time to an answer."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.bench.machine import about
from shoal.bench.peers import gradients, judging, posteriors, starting
from shoal.results.json_text import jsonable

GRADIENTS, START = "gradients", "start"
PARTS = (GRADIENTS, START)
# What is to be reached, by part: the ratio of rates at least, the ratio of times at most.
GOAL_RATE = 2.5
GOAL_TIME = {"empty": 1 / 3, "filled": 1 / 6}


def measure(
    asked_gradients: gradients.Plan | None,
    asked_start: starting.Plan | None,
    say: Callable[[str], None] = lambda words: None,
) -> dict[str, Any]:
    """Measure what is asked for.

    Args:
        asked_gradients: of gradients per second; None to leave them out.
        asked_start: of the time to an answer; None to leave it out. It comes first, while this process holds little.
        say: told of what is going on.

    Returns:
        A record: `rows`, each with `what`, `chains`, `rate` and `unit`; the parts as they were measured, in
        `gradients` and `start`; `ratios` of Shoal to the best peer; `absent`, what was left out and why.
    """
    absent: dict[str, str] = {}
    parts: dict[str, list[dict[str, Any]]] = {GRADIENTS: [], START: []}
    if asked_start is not None:
        plan = asked_start._replace(posteriors=_present(asked_start.posteriors, absent))
        parts[START] = starting.measured(plan, say) if plan.posteriors else []
    if asked_gradients is not None:
        plan = asked_gradients._replace(posteriors=_present(asked_gradients.posteriors, absent))
        parts[GRADIENTS] = gradients.measured(plan, say)
    compared = starting.compared(parts[START])
    for row in parts[GRADIENTS]:
        absent |= row["missing"]
    absent |= {row["sampler"]: row["why"] for row in parts[START] if row["status"] == "missing"}
    if asked_start is not None:
        absent |= {name: "not asked for" for name in starting.SAMPLERS if name not in asked_start.samplers}
    seeds = [plan.seed for plan in (asked_gradients, asked_start) if plan is not None]
    record = {
        "benchmark": "peers",
        **about(seeds[0]),
        "settings": {
            GRADIENTS: None if asked_gradients is None else _settings(asked_gradients),
            START: None if asked_start is None else {**asked_start._asdict(), **starting.conditions()},
        },
        "rows": [*_rates(parts[GRADIENTS]), *_times(compared)],
        "ratios": ratios(parts[GRADIENTS], compared),
        GRADIENTS: parts[GRADIENTS],
        START: parts[START],
        "absent": absent,
    }
    record["versions"] |= peer_versions()
    return jsonable(record)


def _present(names: Sequence[str], absent: dict[str, str]) -> list[str]:
    """Posteriors that can be had here; why others cannot goes into `absent`."""
    reasons = {name: posteriors.absent(name) for name in names}
    absent |= {name: reason for name, reason in reasons.items() if reason}
    return [name for name, reason in reasons.items() if not reason]


def _settings(plan: gradients.Plan) -> dict[str, Any]:
    said = {"leapfrog_steps": gradients.STEPS, "step_size": gradients.STEP_SIZE, "precision": "float32"}
    return {**plan._asdict(), **said}


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "what": f"HMC of {row['posterior']}, {name}",
            "chains": row["chains"],
            "rate": statistics.median(rates),
            "unit": "gradients/s",
        }
        for row in rows
        for name, rates in row["rates"].items()
    ]


def _times(compared: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "what": f"start to {judging.ESS:,.0f} effective draws of {row['posterior']}, {row['cache']} cache, {name}",
            "chains": None,
            "rate": None if seconds is None else 1.0 / seconds,
            "unit": "1/s",
        }
        for row in compared
        for name, seconds in row["seconds"].items()
    ]


def ratios(rows: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Shoal against the best peer, one row for each number that a goal is set for.

    Returns:
        Dictionaries with `part`, `posterior`, `chains` or `cache`, `peer`, `ratio`, `goal` and whether it is `met`.
    """
    made: list[dict[str, Any]] = []
    for row in rows:
        for among in ("best", "best_usual"):
            best: dict[str, Any] = row[among] or {"peer": None, "ratio": None}
            about = {"part": GRADIENTS, "posterior": row["posterior"], "chains": row["chains"], "among": among}
            met = best["ratio"] is not None and best["ratio"] >= GOAL_RATE
            made.append({**about, "peer": best["peer"], "ratio": best["ratio"], "goal": GOAL_RATE, "met": met})
    for row in compared:
        goal = GOAL_TIME[row["cache"]]
        about = {"part": START, "posterior": row["posterior"], "cache": row["cache"], "among": "best"}
        met = row["ratio"] is not None and row["ratio"] <= goal
        made.append({**about, "peer": row["peer"], "ratio": row["ratio"], "goal": goal, "met": met})
    return made


def peer_versions() -> dict[str, str | None]:
    """Of the peers' packages; None where one is missing."""
    from importlib.metadata import PackageNotFoundError, version

    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {name: found(name) for name in ("blackjax", "nutpie", "optax", "arviz-stats")}
