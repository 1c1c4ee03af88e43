"""`shoal bench`: what this machine makes of Shoal, and how two such measurements differ."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from shoal.cli import targets
from shoal.cli.bench_peers import peers
from shoal.cli.codes import as_json, debug, usage
from shoal.cli.measuring import devices, finish, out, ready, seed, telling
from shoal.cli.sample import use_cpu_devices

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FILES = click.Path(dir_okay=False)


class Counts(click.ParamType):
    """Whole numbers from 1 on, with commas between them."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        words = value.split(",") if isinstance(value, str) else value
        try:
            counts = [int(word) for word in words]
        except ValueError:
            counts = []
        if not counts or min(counts) < 1:
            self.fail(f"{value!r}: expected whole numbers from 1 on, with commas between them, such as 1,64,1024.")
        return counts


@click.group(invoke_without_command=True, short_help="Measure this machine; compare two measurements.")
@click.option("--compare", "files", nargs=2, type=FILES, metavar="A.json B.json", help="As the command compare.")
@click.pass_context
@debug
def bench(context: click.Context, files: tuple[str, str] | None) -> None:
    r"""Measure what this machine makes of Shoal, and compare two such measurements.

    \b
    Examples:
      shoal bench device --out here
      shoal bench device model.py:model --chains 64,1024
      shoal bench chapter --out here
      shoal bench peers --quick --out here
      shoal bench --compare here/device.json there/device.json
    """
    if files is not None:
        if context.invoked_subcommand:
            raise click.UsageError("--compare stands alone: shoal bench --compare A.json B.json.")
        show_comparison(*files)
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


bench.add_command(peers)


@bench.command(short_help="Gradients a second by the number of chains, and the ceilings.")
@click.argument("target", default="breast_cancer")
@click.option("--chains", type=Counts(), help="Numbers of chains.  [default: 1 to 16,384, in steps of 4]")
@click.option("--tiles", type=Counts(), help="Tiles to compare.  [default: by backend]")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Medians of so many.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.25,
    show_default=True,
    help="Of one measurement.",
)
@seed
@devices
@out
@as_json
@debug
def device(target: str, out: str | None, as_json: bool, **options: Any) -> None:
    """Measure gradients a second by the number of chains for TARGET, beside the ceilings of the machine.

    Whole HMC draws of Shoal's own program, on all local devices. The ceilings (products of matrices, memory,
    exponentials and logarithms) are measured in the same turns.
    """
    targets.check(target)
    folder = ready(out)
    use_cpu_devices(options.pop("devices"))
    from shoal.bench import device as benchmark
    from shoal.bench.figures import of_device

    model = targets.resolve(target)
    asked = {name: value for name, value in options.items() if value is not None}
    with telling() as tell, usage():
        made = benchmark.measure(model, tell=tell, **asked)
    finish(made, folder, as_json, show_device, of_device)


def show_device(out: "Console", made: Mapping[str, Any]) -> None:
    """Rates and shares by the number of chains; then what follows."""
    from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL
    from shoal.bench.device import DRAWS
    from shoal.bench.words import rounded, share
    from shoal.cli.terminal import print_pairs

    table = columns("chains", "gradients/s", "of matrix product", "of transcendental", "of memory")
    for row in made["rows"]:
        if row["what"] == DRAWS:
            shares = [share(row["shares"][name]) for name in (MATRIX, TRANSCENDENTAL, MEMORY)]
            style = "bold" if row["chains"] == made["recommended_chains"] else None
            table.add_row(f"{row['chains']:,}", rounded(row["rate"]), *shares, style=style)
    out.print(table)
    out.print()
    print_pairs(out, facts_of_device(made))


def facts_of_device(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured beside the table, and what follows, by a word."""
    from shoal.bench.ceilings import MATRIX, MEMORY, TRANSCENDENTAL
    from shoal.bench.device import DRAWS, ONE_DEVICE, OVERHEAD, TILE
    from shoal.bench.words import of_machine, rounded
    from shoal.diagnostics.findings import count

    settings, asked = made["settings"], made["operations"]
    rows = {row["what"]: row for row in made["rows"] if row["what"] != DRAWS}
    tiles = {name.removeprefix(TILE): row for name, row in rows.items() if name.startswith(TILE)}
    # A space at which no line is broken.
    by_tile = ", ".join(f"{tile}:\u00a0{rounded(row['rate'])}" for tile, row in tiles.items())
    at = f"with {next(iter(tiles.values()))['chains']:,} chains"
    uncounted = "; in loops all but products count once, and libraries not: the shares are larger"
    missed = "" if asked["complete"] else uncounted
    best, near = made["recommended_chains"], made["bound"] != OVERHEAD
    nearest = (
        "the ceiling that the fastest draws are nearest to" if near else "what is around a gradient: no ceiling is near"
    )
    pairs = [
        ("target", f"{settings['target']}, {settings['dim']} dimensions, {settings['precision']}"),
        ("machine", of_machine(made)),
        (
            "ceilings",
            f"{rows[MATRIX]['rate'] / 1e9:,.0f} GFLOP/s in products of matrices, "
            f"{rows[TRANSCENDENTAL]['rate'] / 1e9:,.2f} billion exponentials and logarithms a second, "
            f"{rows[MEMORY]['rate'] / 1e9:,.0f} GB/s of memory",
        ),
        (
            "a gradient",
            f"{rounded(asked['flops'])} operations, {rounded(asked['products'])} of them in products of matrices, "
            f"{rounded(asked['transcendentals'])} transcendental functions, "
            f"{rounded(asked['bytes'] or 0)} bytes in and out, caches included{missed}",
        ),
        ("bound", f"{made['bound']}, {nearest}"),
        ("knee", f"half of the best rate is reached with {count(made['knee'], 'chain')}"),
        ("chains", f"{best:,}: more of them add little" if best else "the more the better, as far as was measured"),
        ("tiles", f"{by_tile} ({at})"),
        ("tile", f"{made['recommended_tile']}{_usual(made['recommended_tile'], settings['tile'])}"),
    ]
    if ONE_DEVICE in rows:
        pairs.append(
            ("devices", f"{settings['devices']} make {made['all_devices_to_one']:.2f} times the rate of one ({at})")
        )
    return pairs


def _usual(best: int, usual: int) -> str:
    return ", the default" if best == usual else f" instead of {usual}, the default: tile= or --tile; other draws"


def columns(*headings: str, words: int = 0) -> "Table":
    """A table with these headings: as many columns of words, then numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < words else "right", overflow="fold")
    return table


@bench.command(short_help="Table 1 and Figures 1 and 2 of the chapter, on this machine.")
@click.option(
    "--max-chains",
    type=click.IntRange(min=1),
    help="The most chains.  [default: 16,384; on a CPU 4,096]",
)
@seed
@devices
@out
@as_json
@debug
def chapter(max_chains: int | None, seed: int, devices: int | None, out: str | None, as_json: bool) -> None:
    """Measure effective draws a second of HMC and NUTS on breast_cancer by the number of chains, tuned before.

    Beside them the published numbers of the chapter on MCMC on modern hardware. On every backend that there is.
    """
    folder = ready(out)
    use_cpu_devices(devices)
    from shoal.bench import chapter as benchmark
    from shoal.bench.figures import of_chapter

    model = targets.resolve("breast_cancer")
    with telling() as tell:
        made = benchmark.measure(model, max_chains=max_chains, seed=seed, tell=tell)
    finish(made, folder, as_json, show_chapter, of_chapter)


def show_chapter(out: "Console", made: Mapping[str, Any]) -> None:
    """Table 1 with the published rows, then all numbers of chains."""
    from shoal.bench.chapter import TABLE
    from shoal.bench.words import of_machine, rounded
    from shoal.cli.terminal import print_pairs

    table = columns("64 chains", "on", "seconds", "ESS/s, worst", "ESS/s, mean", words=2)
    for row in made["rows"]:
        if row["chains"] == TABLE:
            numbers = f"{row['seconds']:.2f}", rounded(row["rate"]), rounded(row["mean_rate"])
            table.add_row(row["what"], row["backend"], *numbers)
    for row in made["published"]:
        words = f"{row['seconds']:.1f}", f"published: {row['ess_per_second']:,.0f}", ""
        table.add_row(row["what"], "P100", *words, style="dim")
    out.print(table)
    out.print()
    table = columns("", "on", "chains", "draws", "seconds", "ESS/s, worst", "ESS/s, mean", "gradients/s", words=2)
    for row in made["rows"]:
        rates = (rounded(row[name]) for name in ("rate", "mean_rate", "gradients_per_second"))
        counts = f"{row['chains']:,}", f"{row['draws']:,}", f"{row['seconds']:.2f}"
        table.add_row(row["what"], row["backend"], *counts, *rates)
    out.print(table)
    out.print()
    print_pairs(
        out,
        [
            ("target", f"{made['settings']['target']}, {made['settings']['dim']} dimensions, float32"),
            ("machine", of_machine(made)),
            ("ESS", "worst: the smallest over x and x² of all parameters; mean: over x of all parameters"),
            ("note", made["caveat"]),
        ],
    )


@bench.command(short_help="Compare two files of one kind.")
@click.argument("before", metavar="A.json", type=FILES)
@click.argument("after", metavar="B.json", type=FILES)
@debug
def compare(before: str, after: str) -> None:
    """Compare the rates of two files that shoal bench has written, and say what else differs between them."""
    show_comparison(before, after)


def show_comparison(before: str, after: str) -> None:
    """The rows that two files share, B over A, and what else differs."""
    from shoal.bench.compare import differences, matches
    from shoal.bench.record import read
    from shoal.bench.words import rounded
    from shoal.cli.terminal import console

    with usage():
        one, other = read(before), read(after)
        shared = matches(one, other)
    out, table = console(), columns("", "unit", "chains", "A", "B", "B/A", words=2)
    for match in shared:
        chains = "" if match.chains is None else f"{match.chains:,}"
        table.add_row(match.what, match.unit, chains, rounded(match.before), rounded(match.after), f"{match.ratio:.2f}")
    out.print(table)
    differ = differences(one, other)
    out.print()
    if not differ:
        out.print("Machine, versions, settings, seed and commit are the same.")
        return
    others = columns("differs", "A", "B", words=3)
    for difference in differ:
        others.add_row(*difference)
    out.print(others)
