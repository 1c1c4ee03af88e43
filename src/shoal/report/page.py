"""The page of a report: verdict, findings, key figures, table, figures, settings."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.progress import human
from shoal.report import ink, numbers, warmup
from shoal.report.overview import (
    HEADINGS,
    Overview,
    Row,
    columns_of,
    divergences,
    fewest,
    gradients_per_second,
    headline,
    overview,
)
from shoal.report.suspects import looked_at, named_first, suspects

if TYPE_CHECKING:
    from shoal.diagnostics.findings import Finding
    from shoal.results.result import Result

MOST_ROWS = 500
MOST_FIGURES = 4
UNIT = re.compile(r"(\d) ([kMGT]|s|min|h)\b")  # A number and its unit stay on one line.
FIGURE_SPACE, PUNCTUATION_SPACE = "\u2007", "\u2008"

RANKS = (
    "Left: the values of all chains at each draw (the median, half of the chains, nine tenths of them); "
    "the bands should be level. Middle: the ranks of each superchain's draws among all draws, orange "
    "where there are too many and blue where too few; an even, pale field is good, and a row that slopes "
    "has not forgotten where it started. Right: the mean of every superchain; if all sample the same "
    "posterior, 95% of the dots lie in the green band."
)
EVERY = (
    "One dot for every number of the model, in its order. Dashed: what the verdict asks for, 400 "
    "effective draws and a nested R-hat of 1.01. Chains of one superchain began at one point, and nested "
    "R-hat asks whether superchains agree. The R-hat over chains is near √(1 + chains / effective draws) "
    "even for perfect chains: with many short ones it may stay above 1.01, and the verdict does not look "
    "at it."
)
ALONG = (
    "The same numbers, had the run ended earlier, as the verdict sees them: nested R-hat of halves of superchains, by "
    "ranks, and the effective draws of location or scale, whichever are fewer. Both scales are logarithmic. Dashed: "
    "what is asked for. Effective draws should grow as draws do, and nested R-hat fall; where both stand still, chains "
    "do not go where others are, and a longer run will not help."
)
DIVERGENT = (
    "The two numbers in which divergent draws differ most from all others, by ranks, beyond chance. Left: these draws, "
    "from which the trajectories that diverged began, and some of the others. Right: which ranks they have among all "
    "draws; what is far above the dashed line says where the step is too long for the posterior."
)
MOVES = (
    "Energy errors near zero mean accurate trajectories; a long right tail means steps that are too long. A "
    "chain far to the left in acceptance or log density is stuck. Orange: the mean over chains."
)

SOME = " The run keeps moments, and of each chain {some} draws, which are drawn here and numbered from 0."


def page(result: "Result") -> str:
    """The whole page.

    Args:
        result: the run.

    Returns:
        HTML that names no other file.
    """
    seen = overview(result)
    with ink.style():
        drawn = _figures(result, seen)
    title = str(result.settings.get("model") or "A run")
    settings = {name: value for name, value in result.settings.items() if name != "model"}
    body = "\n".join(
        (
            f"<header><h1>{escape(title)}</h1><p>{escape(headline(settings))}</p></header>",
            _verdict(seen),
            _tiles(result, seen),
            drawn,
            _table(seen),
            warmup.section(result.warmup),
            _details(result),
        )
    )
    style = files("shoal.report").joinpath("page.css").read_text(encoding="utf-8")
    script = files("shoal.report").joinpath("sort.js").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - Shoal</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _verdict(seen: Overview) -> str:
    kind = "good" if seen.good else "bad"
    return (
        f'<section class="verdict {kind}"><p class="sentence">{escape(seen.verdict)}</p>'
        f"{_findings(seen.blocking, 'blocking')}{_findings(seen.remarks, 'remark')}</section>"
    )


def _findings(findings: "Iterable[Finding]", kind: str) -> str:
    items = "".join(
        f'<li class="{kind}"><b>{escape(finding.kind.replace("_", " "))}</b> {escape(finding.words)}'
        f' <span class="remedy">{escape(finding.remedy)}</span></li>'
        for finding in findings
    )
    return f"<ul>{items}</ul>" if items else ""


def _tiles(result: "Result", seen: Overview) -> str:
    """Key figures, each a number, what it is, and a note."""
    from shoal.results.summary import round_number, seconds

    draws, diverging = result.num_chains * result.num_draws, divergences(result)
    before = result.warmup.get("draws", result.settings.get("num_warmup"))
    after = f"after {before:,} of warmup" if isinstance(before, int) else ""
    times = result.timing
    spent = f"compile {seconds(times.compile)}, warmup {seconds(times.warmup)}"
    counts = f"{human(result.gradients.warmup)} in warmup, {human(result.gradients.sampling)} in sampling"
    among = "among the draws that were kept" if result.moments is None else f"of {draws:,} draws"
    share = f"of {draws:,} draws" if diverging else among
    figures = [
        (f"{result.num_chains:,} × {result.num_draws:,}", "chains × draws", after),
        (numbers.whole(fewest(seen.rows)), "effective draws", "of the worst number, in bulk or in tails"),
        (
            round_number(result.ess_per_second_sampling),
            "effective draws per second",
            f"worst parameter, sampling alone; {round_number(result.ess_per_second)} with warmup",
        ),
        (human(gradients_per_second(result)), "gradients per second", counts),
        (seconds(times.sampling), "of sampling", spent),
        (f"{diverging:,}", "divergent", share),
    ]
    tiles = "".join(
        f'<div class="tile"><strong>{escape(number)}</strong><span>{escape(what)}</span>'
        f"<small>{escape(UNIT.sub('\\1\u00a0\\2', note))}</small></div>"
        for number, what, note in figures
        if number not in ("unknown", "-")
    )
    return f'<section class="tiles">{tiles}</section>'


def _table(seen: Overview) -> str:
    shown = seen.worst[:MOST_ROWS]
    order = {row.label: place for place, row in enumerate(seen.rows)}
    heads = "".join(f'<th scope="col"><button type="button">{name}</button></th>' for name in ("parameter", *HEADINGS))
    words = columns_of(shown, FIGURE_SPACE, PUNCTUATION_SPACE)
    lines = "\n".join(_line(row, cells, order[row.label]) for row, cells in zip(shown, words, strict=True))
    left = len(seen.rows) - len(shown)
    more = f" The {len(shown):,} worst are shown; shoal summary --all prints {left:,} more." if left else ""
    return (
        "<section><h2>Summary</h2>"
        "<p>Worst first; a heading sorts by its column, and “parameter” restores the order of the model. "
        "mcse is the Monte Carlo error of the mean; estimates are shown to its second digit; R-hat is "
        f"rank-normalised, over chains.{more}</p>"
        f'<div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead><tbody>\n{lines}\n'
        "</tbody></table></div></section>"
    )


def _line(row: Row, cells: Iterable[str], place: int) -> str:
    values = (row.mean, row.sd, row.mcse_mean, row.ess_bulk, row.ess_tail, row.r_hat)
    filled = "".join(
        f'<td data-v="{value:.9g}">{escape(cell)}</td>' if math.isfinite(value) else f"<td>{escape(cell)}</td>"
        for value, cell in zip(values, cells, strict=True)
    )
    return f'<tr><th scope="row" data-v="{place}">{escape(row.label)}</th>{filled}</tr>'


def _figures(result: "Result", seen: Overview) -> str:
    from shoal.report import course, energy, figures

    shown = looked_at(result)
    pair = course.telling(shown)
    named = [finding.where for finding in (*seen.blocking, *seen.remarks)]
    rows = named_first(seen.worst, [*named, *(axis.label for axis in pair)])
    moving = [row for row in rows if row.sd > 0 and math.isfinite(row.mean)][:MOST_FIGURES]
    names = ", ".join(row.label for row in moving)
    worst, along, diverging, every, moves = "", "", "", "", ""
    if moving and shown.draws:
        worst = ink.svg(figures.closer(shown, moving), "closer", f"Paths, ranks, means of {names}")
        along = ink.svg(course.course(shown, moving), "course", f"Nested R-hat and effective draws of {names} by draws")
    if pair:
        picture = course.divergent(pair, np.asarray(shown.sample_stats["diverging"], bool))
        diverging = ink.svg(picture, "divergent", f"Divergent draws by {pair[0].label} and {pair[1].label}")
    if seen.rows and shown.draws:
        nested = np.array([suspect.nested for suspect in suspects(result, seen)])
        drawn = figures.all_numbers(seen.rows, nested)
        every = ink.svg(drawn, "every", "Effective draws and R-hat of every number")
    if shown.sample_stats:
        moves = ink.svg(figures.moves(shown), "moves", "Energy error, acceptance, steps, log density")
    spread, spread_words = "", ""
    if found := energy.picture(shown):
        spread, spread_words = ink.svg(found[0], "energy", "The energy, and what fresh momenta change of it"), found[1]
    some = ""
    if result.moments is not None:
        stride = result.moments.stride
        some = SOME.format(some="all" if stride == 1 else f"one of {stride:,}")
    parts = (
        ("The worst, closer", worst, RANKS + some),
        ("How it came about", along, ALONG + some),
        ("Where it diverges", diverging, DIVERGENT + some),
        ("Every number", every, EVERY),
        ("How the chains moved", moves, MOVES + some),
        ("The energy", spread, spread_words + some),
    )
    return "".join(
        f"<section><h2>{title}</h2><figure>{drawn}<figcaption>{words}</figcaption></figure></section>"
        for title, drawn, words in parts
        if drawn
    )


def _details(result: "Result") -> str:
    tuned = {name: _tuned(np.asarray(value)) for name, value in result.tuning.items()}
    parts = (("Settings", result.settings), ("Tuned to", tuned), ("Versions", result.versions))
    tables = "".join(_pairs(title, mapping) for title, mapping in parts if mapping)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    made = f'<section><h2>How it was made</h2><div class="details">{tables}</div></section>'
    return f"{made}<footer>Written {now}</footer>"


def _tuned(value: np.ndarray) -> str:
    if value.size == 1:
        return f"{value.item():.4g}"
    return f"{value.min():.3g} to {value.max():.3g} ({' × '.join(map(str, value.shape))})"


def _pairs(title: str, mapping: Mapping[str, Any]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_plain(value))}</td></tr>'
        for name, value in mapping.items()
    )
    return f"<table><caption>{title}</caption><tbody>{lines}</tbody></table>"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
