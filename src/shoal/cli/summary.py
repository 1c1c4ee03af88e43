"""`shoal summary DIR`: the verdict and the table of a run on disk."""

import click

from shoal.cli.codes import DONE, NOT_CONVERGED, as_json, debug, run_directory, usage


@click.command(short_help="Summarise the run in DIR.")
@run_directory
@click.option("--all", "everything", is_flag=True, help="Show every number, in the order of the model.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows, worst first.")
@as_json
@debug
def summary(directory: str, everything: bool, limit: int, as_json: bool) -> int:
    """Summarise the run in DIR: verdict, findings with remedies, numbers with the worst first.

    Exits with 3 when the draws have not converged or are not precise enough.
    """
    from shoal.cli.terminal import (
        as_object,
        console,
        headline,
        print_json,
        print_pairs,
        print_rows,
        print_verdict,
    )
    from shoal.report.overview import facts, overview
    from shoal.results.store import load

    with usage():
        result = load(directory)
    seen = overview(result)
    code = DONE if result.converged else NOT_CONVERGED
    if as_json:
        print_json(as_object(result, seen, directory))
        return code
    out = console()
    print_verdict(out, seen)
    out.print()
    shown = seen.rows if everything or len(seen.rows) <= limit else seen.worst[:limit]
    print_rows(out, shown, "worst first" if len(shown) < len(seen.rows) else "parameter")
    if len(shown) < len(seen.rows):
        out.print(f"{len(seen.rows) - len(shown):,} more: shoal summary {directory} --all", style="dim")
    out.print()
    print_pairs(out, [("model", headline(result.settings)), *facts(result)])
    return code
