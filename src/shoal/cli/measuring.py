"""What the commands of `shoal bench` have in common: options, and what becomes of what was measured."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.codes import usage

if TYPE_CHECKING:
    from rich.console import Console

seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every draw.")
devices = click.option("--devices", type=click.IntRange(min=1), help="CPU devices to use.  [default: one per core]")
out = click.option("--out", metavar="DIR", help="A directory for JSON and figure.  [default: only the terminal]")


def ready(out: str | None) -> Path | None:
    """The directory for results, before minutes are spent on them; None where nothing is to be written."""
    if out is None:
        return None
    from shoal.bench.record import place
    from shoal.extras import check

    check("matplotlib", "The figure of shoal bench (--out)", extra="report")
    with usage():
        return place(out)


@contextlib.contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Tell what is going on: on a terminal in a line that goes away, elsewhere in lines."""
    from shoal.cli.terminal import console

    err = console(stderr=True)
    if not err.is_terminal:
        yield lambda words: click.echo(words, err=True)
        return
    with err.status("starting") as status:
        yield lambda words: status.update(words)


def finish(
    made: Mapping[str, Any],
    folder: Path | None,
    as_json: bool,
    show: "Callable[[Console, Mapping[str, Any]], None]",
    draw: Callable[[Mapping[str, Any], Path], None],
) -> None:
    """Print what was measured, write it and draw it."""
    from shoal.bench.record import write
    from shoal.cli.terminal import console, print_json, print_pairs

    if as_json:
        print_json(made)
    else:
        show(console(), made)
    if folder is None:
        return
    path = write(made, folder)
    if made["rows"]:
        draw(made, path.with_suffix(".png"))
    if not as_json:
        print_pairs(console(), [("written", f"{path}, {path.with_suffix('.png').name}")], wrap=False)
