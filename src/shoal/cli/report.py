"""`shoal report DIR`: one HTML file that says everything about a run."""

from pathlib import Path

import click

from shoal.cli.codes import debug, file_beside, run_directory, usage


@click.command(short_help="Write the run in DIR as one HTML file.")
@run_directory
@click.option("--out", type=click.Path(dir_okay=False), help="The file to write.  [default: DIR/report.html]")
@debug
def report(directory: str, out: str | None) -> None:
    """Write the run in DIR as one HTML file that needs no network."""
    from shoal.report import write
    from shoal.results.store import load

    place = Path(out) if out else file_beside(directory, "report.html")
    if not place.parent.is_dir():
        raise click.UsageError(
            f"The directory '{place.parent}' does not exist. Make it, or give --out a file in one that does."
        )
    with usage():
        result = load(directory)
    try:
        write(result, place)
    except OSError as error:
        raise click.UsageError(
            f"The file '{place}' cannot be written ({error.strerror}). Give --out another place."
        ) from error
    click.echo(f"{place}  ({place.stat().st_size / 1e6:.1f} MB; opens in any browser, without a network)")
