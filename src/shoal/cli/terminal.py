"""What commands print: aligned tables and blocks through Rich, and JSON that every reader accepts."""

import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal.extras import require
from shoal.report.overview import (
    HEADINGS,
    Overview,
    Row,
    columns_of,
    divergences,
    facts,
    gradients_per_second,
    headline,
)
from shoal.results.json_text import jsonable

if TYPE_CHECKING:
    from rich.console import Console

    from shoal.diagnostics.findings import Finding
    from shoal.results.result import Result

WORD_WIDTH = 12


def console(stderr: bool = False) -> "Console":
    """A Rich console that leaves words alone: no guessed colours, no markup in data."""
    rich = require("rich.console", "Output on the terminal", extra="cli")
    return rich.Console(stderr=stderr, highlight=False, markup=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """One JSON object; what is not finite becomes null."""
    click.echo(json.dumps(jsonable(value), ensure_ascii=False, indent=2, allow_nan=False))


def as_object(result: "Result", seen: Overview, directory: str | None) -> dict[str, Any]:
    """A run as one JSON object."""
    from shoal.results.summary import shown_columns

    columns = shown_columns(result)
    return {
        "verdict": seen.verdict,
        "converged": result.converged,
        "interrupted": result.interrupted,
        "findings": [finding.as_dict() for finding in result.findings],
        "num_chains": result.num_chains,
        "num_draws": result.num_draws,
        "divergences": divergences(result),
        "timing": result.timing._asdict(),
        "gradients": result.gradients._asdict(),
        "gradients_per_second": gradients_per_second(result),
        "worst_ess": result.worst_ess,
        "ess_per_second": result.ess_per_second,
        "ess_per_second_sampling": result.ess_per_second_sampling,
        "summary": {
            row.label: {name: float(result.table[row.variable][name].ravel()[row.place]) for name in columns}
            for row in seen.rows
        },
        "settings": dict(result.settings),
        "versions": dict(result.versions),
        "directory": directory,
    }


def print_verdict(out: "Console", seen: Overview) -> None:
    """The verdict, then every finding with its remedy."""
    from rich.text import Text

    out.print(Text(seen.verdict, style="bold green" if seen.good else "bold yellow"))
    print_findings(out, (*seen.blocking, *seen.remarks))


def print_findings(out: "Console", findings: "Sequence[Finding]") -> None:
    """Findings in words, what to do about each under it."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    for finding in findings:
        mark = Text("  !", style="bold yellow") if finding.blocking else Text("  ·", style="dim")
        remedy = f" {finding.remedy}" if finding.remedy else ""
        grid.add_row(mark, Text.assemble(finding.words, (remedy, "dim")))
    if findings:
        out.print(grid)


def print_rows(out: "Console", some: Sequence[Row], title: str) -> None:
    """A table of numbers, points under points."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim", pad_edge=False)
    table.add_column(Text(title), overflow="fold", min_width=12)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, words in zip(some, columns_of(some), strict=True):
        table.add_row(Text(row.label), *words)
    out.print(table)


def print_pairs(out: "Console", pairs: Sequence[tuple[str, str]], wrap: bool = True) -> None:
    """Words and texts in two columns; a text that is to be copied is not wrapped."""
    for word, text in pairs:
        width = max(out.width - WORD_WIDTH, 20) if wrap else sys.maxsize
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
        for head, line in zip([word, *[""] * (len(lines) - 1)], lines, strict=True):
            out.print(f"[dim]{head:<{WORD_WIDTH}}[/]", end="", markup=True)
            out.print(line, soft_wrap=True)


def print_closing(out: "Console", result: "Result", seen: Overview, directory: str | None) -> None:
    """What a finished run says: verdict, worst parameters, key figures, where it is and what to do next."""
    out.print()
    print_verdict(out, seen)
    out.print()
    shown = seen.worst[:5]
    print_rows(out, shown, "worst first" if len(shown) < len(seen.worst) else "parameter")
    out.print()
    print_pairs(out, [("model", headline(result.settings)), *facts(result)])
    if directory is None:
        print_pairs(out, [("saved", "no: give --out DIR to keep the draws")])
    else:
        from shoal.results.journal import FOLDER

        goes_on = result.interrupted and ("://" in directory or (Path(directory) / FOLDER).is_dir())
        command = "resume" if goes_on else "report"
        copied = [("saved", directory), ("next", f"shoal {command} {shlex.quote(directory)}")]
        print_pairs(out, copied, wrap=False)
