"""`shoal export DIR`: the draws of a run as one file that other programs read."""

from pathlib import Path

import click

from shoal.cli.codes import debug, file_beside, run_directory, usage

FILES = {"netcdf": "draws.nc", "arrow": "draws.arrow", "parquet": "draws.parquet"}
READERS = {
    "netcdf": "xarray.open_datatree and ArviZ read it",
    "arrow": "pandas and Polars read it",
    "parquet": "pandas, Polars and DuckDB read it",
}


@click.command(short_help="Write the draws of the run in DIR as one file.")
@run_directory
@click.option("--to", type=click.Choice(list(FILES)), required=True, help="The format.")
@click.option("--output", type=click.Path(dir_okay=False), help="The file to write.  [default: DIR/draws.nc, ...]")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@debug
def export(directory: str, to: str, output: str | None, force: bool) -> None:
    r"""Write the draws of the run in DIR as one file that other programs read.

    The run may have been killed, or be under way: then the file has the draws so far.

    \b
      shoal export runs/breast_cancer --to netcdf
      shoal export runs/breast_cancer --to parquet --output draws.parquet
    """
    from shoal.results.export import check_file
    from shoal.results.store import load

    place = Path(output) if output else file_beside(directory, FILES[to])
    with usage():
        check_file(place, force)
        result = load(directory)
    try:
        result.export(place, to, overwrite=force)
    except OSError as error:
        raise click.UsageError(
            f"The file '{place}' cannot be written ({error.strerror or error}). Give --output another place."
        ) from error
    size = f"{place.stat().st_size / 1e6:.1f} MB, {result.num_draws:,} draws of {result.num_chains:,} chains"
    click.echo(f"{place}  ({size}; {READERS[to]})")
