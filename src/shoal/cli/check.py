"""`shoal check TARGET`: look at a model before a run."""

import shlex
from typing import TYPE_CHECKING

import click

from shoal.cli import targets
from shoal.cli.codes import DONE, DOUBTFUL, as_json, debug
from shoal.cli.sample import use_cpu_devices

if TYPE_CHECKING:
    from rich.console import Console

    from shoal.checking.outcome import Check


PRECISIONS = ("float32", "float64")


@click.command(short_help="Look at a model before a run.")
@click.argument("target")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the run: where it begins.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="Of the run.")
@click.option("--devices", type=click.IntRange(min=1), help="CPU devices to use.  [default: one per core]")
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="About how long it may take.",
)
@as_json
@debug
def check(target: str, seed: int, precision: str, devices: int | None, max_seconds: float, as_json: bool) -> int:
    """Look at TARGET before a run: an example's name, or file.py:object, as for `shoal sample`.

    Whether log density and gradient are finite where chains begin, the gradient agrees with finite differences, the
    log density jumps, supports and log|J| are right, and single precision is enough; and how many chains pay.

    Exits with 3 where something stands in the way.
    """
    targets.check(target)
    use_cpu_devices(devices)
    from shoal.cli.terminal import console, print_json

    seen = targets.resolve(target).check(seed=seed, precision=precision, max_seconds=max_seconds)
    if as_json:
        print_json(seen.as_dict())
    else:
        show(console(), seen, target, seed)
    return DONE if seen.ok else DOUBTFUL


def show(out: "Console", seen: "Check", target: str, seed: int) -> None:
    """The verdict, what was found, what was looked at, and rates by the number of chains."""
    from rich.table import Table
    from rich.text import Text

    from shoal.cli.terminal import print_findings, print_pairs

    out.print(Text(seen.verdict, style="bold green" if seen.ok else "bold yellow"))
    print_findings(out, seen.findings)
    out.print()
    print_pairs(out, seen.facts())
    if seen.rates:
        out.print()
        headings, *rows = seen.table()
        table = Table(box=None, padding=(0, 0, 0, 3), header_style="dim", pad_edge=False)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for rate, row in zip(seen.rates, rows, strict=True):
            table.add_row(*row, style="bold" if rate.num_chains == seen.recommended_chains else None)
        out.print(table)
    if seen.ok:
        out.print()
        print_pairs(out, [("next", next_command(seen, target, seed))], wrap=False)


def next_command(seen: "Check", target: str, seed: int) -> str:
    """The run that was looked at, with more chains than by default where they pay."""
    from shoal.checking.speed import DEFAULT

    words = ["shoal", "sample", target]
    if (seen.recommended_chains or 0) > DEFAULT:
        words += ["--num-chains", str(seen.recommended_chains)]
    if seen.precision != PRECISIONS[0]:
        words += ["--precision", seen.precision]
    if seed:
        words += ["--seed", str(seed)]
    return shlex.join(words)
