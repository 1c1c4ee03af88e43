"""`shoal bench peers`: Shoal beside BlackJAX, NumPyro and nutpie on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.codes import as_json, debug
from shoal.cli.measuring import finish, out, ready, seed, telling

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PARTS = ("gradients", "start")
# Words for samplers, in the order of the tables.
NAMES = {
    "shoal": "Shoal",
    "blackjax": "BlackJAX, vmap",
    "blackjax_pmap": "BlackJAX, vmap on every device",
    "numpyro": "NumPyro, vectorized",
    "numpyro_pmap": "NumPyro, vectorized on every device",
    "blackjax_chees": "BlackJAX ChEES, 64 chains",
    "blackjax_nuts": "BlackJAX NUTS, 8 chains, vmap",
    "blackjax_nuts_pmap": "BlackJAX NUTS, 8 chains, pmap",
    "numpyro_nuts": "NumPyro NUTS, 8 chains, vectorized",
    "numpyro_nuts_pmap": "NumPyro NUTS, 8 chains, parallel",
    "nutpie": "nutpie, 8 chains",
}
QUICK = {"chains": (64, 1_024), "samplers": ("shoal", "blackjax_chees", "numpyro_nuts"), "repeats": 1}


@click.command(short_help="Measure Shoal beside BlackJAX, NumPyro and nutpie.")
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="May be repeated.  [default: both]")
@click.option("--posterior", "posteriors", multiple=True, help="May be repeated.  [default: all that are at hand]")
@click.option(
    "--sampler", "samplers", multiple=True, help="Of starts; may be repeated.  [default: Shoal and all peers]"
)
@click.option("--chains", type=click.IntRange(min=1), multiple=True, help="Of HMC.  [default: 64, 1024 and 4096]")
@click.option("--repeats", type=click.IntRange(min=1), help="Medians of so many.  [default: 7 of HMC, 3 of starts]")
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=180.0,
    show_default=True,
    help="Seconds after which a start has failed.",
)
@click.option("--quick", is_flag=True, help="Fewer chains, samplers and repeats: some minutes instead of an hour.")
@seed
@out
@as_json
@debug
def peers(  # noqa: PLR0913  (each is an option of the command)
    parts: tuple[str, ...],
    posteriors: tuple[str, ...],
    samplers: tuple[str, ...],
    chains: tuple[int, ...],
    repeats: int | None,
    limit: float,
    quick: bool,
    seed: int,
    out: str | None,
    as_json: bool,
) -> None:
    r"""Measure Shoal beside BlackJAX, NumPyro and nutpie: same posteriors, same machine, in turns.

    \b
    gradients   HMC of 20 leapfrog steps, compiled: gradients per second
    start       from the start of a process to 1,000 effective draws that have converged, with an
                empty cache of compiled programs, and with a filled one
    """
    from shoal.cores import use_cores
    from shoal.extras import check

    folder = ready(out)
    if not parts or "start" in parts:
        check("arviz_stats", "Judging the draws of peers", extra="diagnostics")
    use_cores()
    from shoal.bench.peers import gradients, measuring, starting
    from shoal.bench.peers.figure import draw
    from shoal.bench.peers.posteriors import POSTERIORS

    _known("--posterior", posteriors, tuple(POSTERIORS))
    _known("--sampler", samplers, starting.SAMPLERS)
    all_chains = chains or (QUICK["chains"] if quick else gradients.CHAINS)
    samplers = samplers or (QUICK["samplers"] if quick else starting.SAMPLERS)
    again = (QUICK["repeats"],) * 2 if quick else (7, 3)
    many, few = (repeats, repeats) if repeats else again
    of_gradients = gradients.Plan(posteriors or tuple(POSTERIORS), all_chains, many, seed=seed)
    of_starts = starting.Plan(posteriors or ("breast_cancer", "german_credit"), samplers, few, limit, seed)
    with telling() as tell:
        made = measuring.measure(
            of_gradients if not parts or "gradients" in parts else None,
            of_starts if not parts or "start" in parts else None,
            tell,
        )
    finish(made, folder, as_json, show, draw)


def _known(option: str, given: tuple[str, ...], names: tuple[str, ...]) -> None:
    if unknown := [name for name in given if name not in names]:
        raise click.UsageError(f"{option} {unknown[0]}: expected one of {', '.join(names)}.")


def show(out: "Console", made: Mapping[str, Any]) -> None:
    """Both tables, what was left out, and how the goals were met."""
    from rich.text import Text

    for part, build in (("gradients", rates), ("start", times)):
        if made[part]:
            out.print(build(made))
            out.print()
    for name, why in made["absent"].items():
        out.print(Text.assemble(("! ", "bold yellow"), f"{NAMES.get(name, name)} is left out: {why}"))


def rates(made: Mapping[str, Any]) -> "Table":
    """Thousand gradients per second: samplers by numbers of chains, a block for each posterior."""
    chains = list(dict.fromkeys(row["chains"] for row in made["gradients"]))
    table = _table("thousand gradients per second, by chains", [f"{number:,}" for number in chains])
    found = {(row["what"], row["chains"]): row["rate"] for row in made["rows"]}
    for posterior in dict.fromkeys(row["posterior"] for row in made["gradients"]):
        _heading(table, posterior, len(chains))
        for name in NAMES:
            each = [found.get((f"HMC of {posterior}, {name}", number)) for number in chains]
            if any(each):
                words = ["-" if rate is None else f"{rate / 1e3:,.0f}" for rate in each]
                table.add_row(f"  {NAMES[name]}", *words, style="bold" if name == "shoal" else None)
        for among, words in (("best", "best peer"), ("best_usual", "best peer on one device")):
            cells = [_ratio(made, "gradients", posterior, chains=number, among=among) for number in chains]
            table.add_row(f"  Shoal to the {words}, goal 2.5", *cells)
    return table


def times(made: Mapping[str, Any]) -> "Table":
    """Seconds from nothing: samplers by posterior and cache."""
    places = list(dict.fromkeys((row["posterior"], row["cache"]) for row in made["start"]))
    table = _table("seconds to 1,000 effective draws", [f"{posterior}\n{cache} cache" for posterior, cache in places])
    samplers = {row["sampler"] for row in made["start"] if row["status"] != "missing"}
    found = {row["what"]: row["rate"] for row in made["rows"]}
    for name in (name for name in NAMES if name in samplers):
        keys = [f"start to 1,000 effective draws of {posterior}, {cache} cache, {name}" for posterior, cache in places]
        words = [f"{1 / rate:.1f}" if (rate := found.get(key)) else "not reached" for key in keys]
        table.add_row(f"  {NAMES[name]}", *words, style="bold" if name == "shoal" else None)
    cells = [_ratio(made, "start", posterior, cache=cache, among="best") for posterior, cache in places]
    table.add_row("  Shoal to the best peer", *cells)
    table.add_row("  goal, at most", *["1/3" if cache == "empty" else "1/6" for _, cache in places], style="dim")
    return table


def _ratio(made: Mapping[str, Any], part: str, posterior: str, **which: Any) -> Any:
    """A ratio, green where the goal is met."""
    from rich.text import Text

    wanted = {"part": part, "posterior": posterior, **which}
    row = next((row for row in made["ratios"] if wanted.items() <= row.items()), None)
    if row is None or row["ratio"] is None:
        return Text("-", style="dim")
    return Text(f"{row['ratio']:.2f}", style="bold green" if row["met"] else "bold yellow")


def _table(title: str, headings: list[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="dim", pad_edge=False)
    # Where it is narrow, names of samplers break, and not those of what was measured.
    table.add_column(title, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _heading(table: "Table", words: str, columns: int) -> None:
    table.add_row(words, *[""] * columns, style="underline")
