"""`shoal examples`: the models that ship with the package."""

import click

from shoal.cli.codes import as_json, debug


@click.command(short_help="List the models that ship with Shoal.")
@as_json
@debug
def examples(as_json: bool) -> None:
    """List the models that ship with Shoal.

    Each can be given to `shoal sample` by its name.
    """
    from shoal.cli.terminal import console, print_json
    from shoal.examples import catalogue

    if as_json:
        print_json([example._asdict() for example in catalogue()])
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("dimension", justify="right")
    table.add_column("difficulty")
    table.add_column("what it is")
    for example in catalogue():
        table.add_row(example.name, f"{example.dim:,}", example.difficulty, example.words)
    console().print(table)
