"""`shoal diagnose DIR`: whether a run can be trusted, why not, and where to look."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.codes import DONE, NOT_CONVERGED, as_json, debug, run_directory, usage

if TYPE_CHECKING:
    from rich.console import Console

    from shoal.diagnostics.findings import Finding
    from shoal.report.overview import Overview
    from shoal.report.suspects import Look, Suspect
    from shoal.results.result import Result


@click.command(short_help="Say whether the run in DIR can be trusted, why not, and what to do.")
@run_directory
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Numbers, worst first.")
@as_json
@debug
def diagnose(directory: str, limit: int, as_json: bool) -> int:
    r"""Say whether the run in DIR can be trusted: verdict, every finding with what to do, the worst numbers.

    Also of a run that was interrupted or is under way. Exits with 3 when the draws have not converged.

    \b
    Examples:
      shoal diagnose runs/mine
      shoal diagnose s3://bucket/run --json
    """
    from shoal.report.overview import overview
    from shoal.report.suspects import suspects, where_to_look, worst_suspects
    from shoal.results.store import load

    with usage():
        result = load(directory)
    seen = overview(result)
    worst = worst_suspects(suspects(result, seen), seen)
    looks = where_to_look(result, seen)
    if as_json:
        from shoal.cli.terminal import print_json

        print_json(as_object(result, seen, worst[:limit], looks, directory))
    else:
        _print(seen, worst, limit, looks, directory)
    return DONE if result.converged else NOT_CONVERGED


def as_object(
    result: "Result", seen: "Overview", worst: "Sequence[Suspect]", looks: "Sequence[Look]", directory: str
) -> dict[str, Any]:
    """The same as one JSON object."""
    return {
        "verdict": seen.verdict,
        "converged": result.converged,
        "interrupted": result.interrupted,
        "num_chains": result.num_chains,
        "num_draws": result.num_draws,
        "e_bfmi": _e_bfmi(result),
        "findings": [finding.as_dict() for finding in (*seen.blocking, *seen.remarks)],
        "worst": [
            {
                "parameter": suspect.row.label,
                "r_hat_nested": suspect.nested,
                "ess_bulk": suspect.row.ess_bulk,
                "ess_tail": suspect.row.ess_tail,
                "mcse_mean": suspect.row.mcse_mean,
                "mcse_over_sd": suspect.relative_error,
                "drift": suspect.drift,
            }
            for suspect in worst
        ],
        "look": [look._asdict() for look in looks],
        "directory": directory,
    }


def _e_bfmi(result: "Result") -> float | None:
    """Of all chains together; None where the kernel tells no energy."""
    from shoal.diagnostics.energy import fraction
    from shoal.report.suspects import looked_at

    stats = looked_at(result).sample_stats
    return fraction(stats["energy"], stats["lp"]).value if {"energy", "lp"} <= set(stats) else None


def _print(seen: "Overview", worst: "Sequence[Suspect]", limit: int, looks: "Sequence[Look]", directory: str) -> None:
    from rich.text import Text

    from shoal.cli.terminal import console, print_pairs

    out = console()
    out.print(Text(seen.verdict, style="bold green" if seen.good else "bold yellow"))
    for finding in (*seen.blocking, *seen.remarks):
        out.print()
        _print_finding(out, finding)
    if worst:
        out.print()
        _print_suspects(out, worst[:limit], "worst first" if len(worst) > limit else "parameter")
        if len(worst) > limit:
            out.print(f"{len(worst) - limit:,} more: shoal diagnose {directory} --limit {len(worst)}", style="dim")
    place = shlex.quote(directory)
    out.print()
    if looks:
        print_pairs(out, [("look", f'result = shoal.load("{directory}")')], wrap=False)
        print_pairs(out, [(look.kind, look.code) for look in looks], wrap=False)
    print_pairs(out, [("pictures", f"shoal report {place}")], wrap=False)


def _print_finding(out: "Console", finding: "Finding") -> None:
    """Its kind and where, whether it is in the way, what was seen, and what to do."""
    from rich.padding import Padding
    from rich.text import Text

    mark, style = ("!", "bold yellow") if finding.blocking else ("·", "dim")
    kind = finding.kind.replace("_", " ")
    way = "" if finding.blocking else "  does not stand in the way"
    out.print(Text.assemble((f"{mark} {kind}", style), f"  {finding.where}", (way, "dim")))
    out.print(Padding(Text(finding.words), (0, 0, 0, 4), expand=False))
    if finding.remedy:
        out.print(Padding(Text(finding.remedy, style="dim"), (0, 0, 0, 4), expand=False))


def _print_suspects(out: "Console", some: "Sequence[Suspect]", title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from shoal.report import numbers
    from shoal.report.suspects import SUSPECT_HEADINGS

    columns = [numbers.aligned(column) for column in zip(*(suspect.words for suspect in some), strict=True)]
    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim", pad_edge=False)
    table.add_column(Text(title), overflow="fold", min_width=12)
    for heading in SUSPECT_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for suspect, words in zip(some, zip(*columns, strict=True), strict=True):
        table.add_row(Text(suspect.row.label), *words)
    out.print(table)
