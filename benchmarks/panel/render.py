"""The page of the panel: tables between the markers of `docs/panel.md`, and two figures beside it."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

from .figures import draw_costs, draw_ends
from .samplers import OURS, PEERS
from .summary import KINDS, Cell, against_recipes, best_peer, cells, geometric_mean, race_shares, relative
from .targets import TARGETS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "panel.md"
BEGIN, END = "<!-- panel: begin -->", "<!-- panel: end -->"
# A phase of the warmup that takes more of the cost of a run is counted.
DEAR = 0.15
MARKS = {"good": "", "cautious": "?", "admitted": "×", "unfinished": "—", "silent": "‼"}


def render() -> None:
    """Write the tables and the figures of the rows that are there."""
    found = cells([*OURS, *PEERS])
    if not found:
        raise SystemExit("there are no rows: run python -m benchmarks.panel first")
    samplers = [name for name in (*OURS, *PEERS) if any(sampler == name for _, sampler in found)]
    peers = [name for name in samplers if name in PEERS]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    parts = [
        made_with(found),
        ends_table(found, samplers, peers),
        pairs_table(found, [name for name in samplers if name in OURS], peers),
        costs_table(found, samplers, peers),
        recipes_table(found, [name for name in samplers if name in OURS]),
        rest(found),
    ]
    PAGE.write_text(before + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + after, encoding="utf-8")
    draw_costs(found, samplers, peers, DOCS / "images" / "panel_costs.png")
    draw_ends(found, samplers, DOCS / "images" / "panel_ends.png")


def made_with(found: dict[tuple[str, str], Cell]) -> str:
    """Machine, versions and seeds."""
    rows = [row for cell in found.values() for row in cell.rows.values()]
    machines = sorted({row["machine"] for row in rows})
    dates = sorted({row["date"] for row in rows})
    versions: dict[str, set[str]] = {}
    for row in rows:
        for name, version in row.get("versions", {}).items():
            versions.setdefault(name, set()).add(version)
    used = ", ".join(f"{name} {' and '.join(sorted(numbers))}" for name, numbers in versions.items())
    limits = ", ".join(sorted({f"{row['limit']:.0f} s" for row in rows}))
    seeds = {
        sampler: sorted({seed for (_, name), cell in found.items() if name == sampler for seed in cell.rows})
        for _, sampler in found
    }
    listed = "; ".join(f"`{sampler}` {seeds[sampler][0]} to {seeds[sampler][-1]}" for sampler in seeds)
    return (
        f"{len(rows)} rows, {dates[0]} to {dates[-1]}, on {', '.join(machines)}; limit {limits}. Versions: {used}. "
        f"Seeds: {listed}."
    )


def ends_table(found: dict[tuple[str, str], Cell], samplers: list[str], peers: list[str]) -> str:
    """One line for each sampler: how cells ended, and costs."""
    ratio_columns = ["cost over the best peer's, geometric mean", "largest", "no dearer on"]
    head = ["sampler", "runs", *KINDS.values(), *ratio_columns]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for sampler in samplers:
        kinds = [kind for (_, name), cell in found.items() if name == sampler for kind in cell.kinds]
        ratios = relative(found, sampler, peers)
        least = sum(ratio <= 1.0 for ratio in ratios.values())
        mean = geometric_mean(ratios.values())
        counts = [str(kinds.count(kind)) for kind in KINDS]
        costs = [f"{mean:.2f}", f"{max(ratios.values()):.1f}", f"{least} of {len(ratios)}"] if ratios else [""] * 3
        lines.append([f"`{sampler}`", str(len(kinds)), *counts, *costs])
    return "### How runs ended\n\n" + _table(lines)


def pairs_table(found: dict[tuple[str, str], Cell], ours: list[str], peers: list[str]) -> str:
    """One line for each peer: its cost over that of each of Shoal's samplers, where both were right."""
    lines = [["peer", *[f"over `{name}`" for name in ours]], ["---", *["---:"] * len(ours)]]
    for peer in peers:
        entries = []
        for name in ours:
            ratios = [
                found[target, peer].median("cost_4000") / found[target, name].median("cost_4000")
                for target in TARGETS
                if all((target, one) in found and found[target, one].good for one in (peer, name))
            ]
            entries.append(f"{geometric_mean(ratios):.2f} ({len(ratios)})" if ratios else "")
        lines.append([f"`{peer}`", *entries])
    return "### Costs of single peers over Shoal's: geometric means, and numbers of targets\n\n" + _table(lines)


def costs_table(found: dict[tuple[str, str], Cell], samplers: list[str], peers: list[str]) -> str:
    """One line for each target: thousand evaluations from a cold start to 4,000 effective draws."""
    lines = [["target", "dim", *[f"`{name}`" for name in samplers]], ["---", "---:", *["---:"] * len(samplers)]]
    for name, target in TARGETS.items():
        best = best_peer(found, name, peers)
        entries = [_cost(found.get((name, sampler)), best) for sampler in samplers]
        lines.append([f"`{name}`" + ("²" if target.precision == "float64" else ""), str(target.dim), *entries])
    return "### Cost of 4,000 effective draws, in thousand evaluations\n\n" + _table(lines)


def _cost(cell: Cell | None, best: float) -> str:
    if cell is None:
        return ""
    cost, mark = cell.median("cost_4000"), MARKS[cell.worst]
    if not math.isfinite(cost) or cell.worst == "unfinished":
        return MARKS["unfinished"]
    text = f"{cost / 1e3:,.0f}{mark}"
    return f"**{text}**" if cell.good and not cost > best else text


def recipes_table(found: dict[tuple[str, str], Cell], ours: list[str]) -> str:
    """The first of our samplers against the others, one line for each target, and what its race took."""
    sampler, *recipes = ours
    compared = against_recipes(found, sampler, recipes)
    lines = [["target", "fastest recipe", "per second", "per gradient"], ["---", "---", "---:", "---:"]]
    lines += [
        [_code(name), _code(best), f"{second:.2f}", f"{gradient:.2f}"]
        for name, (best, second, gradient) in compared.items()
    ]
    second, gradient = (statistics.median([ratios[i] for ratios in compared.values()] or [math.nan]) for i in (1, 2))
    words = (
        f"Effective draws of `{sampler}` in sampling over those of the fastest of {', '.join(map(_code, recipes))}, "
        "by default settings, one core for each run, seed 0; on targets where both converged and were right. Medians "
        f"over {len(compared)} targets: {second:.2f} per second and {gradient:.2f} per gradient. Of the "
        f"cost of 4,000 effective draws the race took {_at_most(race_shares(found, sampler))}."
    )
    return f"### `{sampler}` against single recipes\n\n{words}\n\n{_table(lines)}"


def _at_most(shares: list[float]) -> str:
    """Of how many runs it has taken what, in words."""
    dear = sum(share > DEAR for share in shares)
    return (
        f"nothing in {shares.count(0.0)} of {len(shares)} runs, at most {max(shares, default=0.0):.0%}, and more than "
        f"{DEAR:.0%} in {dear}"
    )


def rest(found: dict[tuple[str, str], Cell]) -> str:
    """Every run that did not end well, in words."""
    return "### Runs that did not end well\n\n" + _table(
        [["target", "sampler", "seed", "end", "what"], ["---", "---", "---:", "---", "---"], *_troubles(found)]
    )


def _troubles(found: dict[tuple[str, str], Cell]) -> Iterator[list[str]]:
    for (target, sampler), cell in found.items():
        for (seed, row), kind in zip(cell.rows.items(), cell.kinds, strict=True):
            if kind == "good":
                continue
            if row["status"] == "done":
                said = ", ".join(row["findings"]) or f"R-hat {row['r_hat']}, {row['ess']} effective draws"
                words = f"{row['worst_quantity']} off by {row['worst_error']} of what is allowed; {said}"
                end = KINDS[kind]
            else:
                words, end = row["why"].replace("|", "/").replace("\n", " ")[:120], row["status"]
            yield [f"`{target}`", f"`{sampler}`", str(seed), end, words]


def _code(name: str) -> str:
    return f"`{name}`"


def _table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
