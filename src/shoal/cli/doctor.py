"""`shoal doctor`: what this machine has, and what is missing."""

import click

from shoal.cli.codes import as_json, debug


@click.command(short_help="Show versions, devices, memory; say what is missing.")
@as_json
@debug
def doctor(as_json: bool) -> None:
    """Show versions, devices, memory and precision, and what is missing."""
    from shoal import doctor
    from shoal.cli.terminal import console, print_json

    found = doctor.examine()
    if as_json:
        print_json(found)
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    for title, pairs in doctor.sections(found):
        out.print(Text(title, style="bold"))
        grid = Table.grid(padding=(0, 3, 0, 2))
        grid.add_column(no_wrap=True, style="dim", min_width=18)
        grid.add_column(overflow="fold")
        for word, text in pairs:
            grid.add_row(Text(word), Text(text))
        out.print(grid)
        out.print()
    for words in found["advice"]:
        out.print(Text.assemble(("! ", "bold yellow"), words))
    if not found["advice"]:
        out.print(Text("Nothing is missing.", style="bold green"))
