"""`shoal status DIR`: how a run is getting on, from another terminal."""

import contextlib
import json
import shlex
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from shoal.cli.codes import DONE, as_json, debug, run_directory, usage

if TYPE_CHECKING:
    from rich.console import RenderableType

    from shoal.watching.status import Status

EVERY = 1.0
BAR = 40
STATES = {"running": "green", "finished": "bold green", "interrupted": "yellow", "stopped": "yellow", "unknown": "dim"}
WORDS = {
    "running": "being written by {process}",
    "finished": "finished",
    "interrupted": "ended early",
    "stopped": "not finished, and no process writes it",
    "unknown": "not finished; this file system does not tell whether a process writes it",
}
NEXT = {"running": "status {} --watch", "unknown": "status {} --watch", "finished": "report {}"}


@click.command(short_help="Show how the run in DIR is getting on.")
@run_directory
@click.option("--watch", is_flag=True, help="Look again every second, until the run ends or Ctrl-C.")
@as_json
@debug
def status(directory: str, watch: bool, as_json: bool) -> int:
    """Show how the run in DIR is getting on: also while another process writes it, and after it was killed.

    With --watch --json, one line of JSON for every look.
    """
    from shoal.objects import place_of
    from shoal.watching.status import status_of

    with usage():
        place = place_of(directory)
        look = lambda: status_of(place)
        first = look()
    # Ctrl-C is how one stops watching, and ends nothing else.
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for seen in looks(first, look) if watch else (first,):
                print_object(seen, lines=watch)
        else:
            print_table(directory, first, looks(first, look) if watch else iter((first,)))
    return DONE


def looks(first: "Status", look: Any) -> Iterator["Status"]:
    """The first, and one every second until the run has ended."""
    seen = first
    yield seen
    while seen.goes_on:
        time.sleep(EVERY)
        seen = look()
        yield seen


def print_object(seen: "Status", lines: bool) -> None:
    """One JSON object, on one line where more follow."""
    from shoal.cli.terminal import print_json
    from shoal.results.json_text import jsonable

    if lines:
        click.echo(json.dumps(jsonable(seen.as_dict()), ensure_ascii=False, allow_nan=False))
    else:
        print_json(seen.as_dict())


def print_table(directory: str, first: "Status", seen: Iterator["Status"]) -> None:
    """A table, drawn in place on a terminal, and what to do next."""
    from rich.live import Live

    from shoal.cli.terminal import console, print_pairs

    out = console()
    live = Live(console=out, auto_refresh=False) if out.is_terminal else contextlib.nullcontext()
    last = first
    with live as drawn:
        for last in seen:
            if drawn is None:
                out.print(table(last))
            else:
                drawn.update(table(last), refresh=True)
    command = NEXT.get(last.state, "resume {}").format(shlex.quote(directory))
    print_pairs(out, [("next", f"shoal {command}")], wrap=False)


def table(seen: "Status") -> "RenderableType":
    """What is known of a run, a line for each thing."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from shoal.cli.terminal import WORD_WIDTH
    from shoal.report.overview import headline

    words = WORDS[seen.state].format(process=seen.holder.name or "another process")
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=WORD_WIDTH - 1, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("state", Text(words, style=STATES[seen.state]))
    if seen.settings:
        grid.add_row("model", headline(seen.settings))
    grid.add_row("phase", seen.phase)
    done, total = progress_of(seen)
    if total:
        grid.add_row("", ProgressBar(total, min(done, total), width=BAR))
    for word, text in rows(seen):
        grid.add_row(word, Text(text))
    return grid


def progress_of(seen: "Status") -> tuple[int, int | None]:
    """Draws of each chain in this phase, and how many there are to be; None where the phase ends by itself."""
    if seen.phase == "sampling":
        return seen.draws, seen.asked
    return seen.metrics.get("draws") or 0, seen.metrics.get("draws_asked")


def rows(seen: "Status") -> list[tuple[str, str]]:
    """Key figures as pairs of a word and a text; what is not known is left out."""
    metrics = seen.metrics
    known = lambda *names: all(metrics.get(name) is not None for name in names)
    pairs = [("draws", draws(seen))]
    if known("seconds"):
        pairs += [("time", times(seen)), ("rate", rates(seen))]
    if known("acceptance"):
        pairs.append(("acceptance", tuned(metrics)))
    if known("divergences"):
        pairs.append(("divergent", divergent(metrics)))
    if metrics.get("r_hat_nested_parameter") or metrics.get("r_hat_parameter"):
        pairs.append(("R-hat", r_hats(metrics)))
    if known("ess"):
        rate = f"; {metrics['ess_per_second']:,.0f} a second" if known("ess_per_second") else ""
        pairs.append(("ESS", f"{metrics['ess']:,.0f} of the mean of {metrics['ess_parameter']}{rate}"))
    if known("host_peak_bytes"):
        pairs.append(("memory", memory(metrics)))
    if not metrics and seen.phase != "starting":
        pairs.append(("metrics", "none of this phase yet" if seen.goes_on else "none: metrics.jsonl has no line of it"))
    return [*pairs, ("updated", f"{ago(seen.age)} ago")]


def draws(seen: "Status") -> str:
    """How far the phase is."""
    done, total = progress_of(seen)
    words = f"{done:,}" if total is None else f"{done:,} of {total:,} ({done / max(total, 1):.0%})"
    chains = seen.settings.get("num_chains") or seen.metrics.get("num_chains")
    words = f"{words} of each chain" + (f", {chains:,} chains" if chains else "")
    kept = "folded" if seen.settings.get("keep") in ("moments", "none") else "kept on disk"
    return f"{words}; {kept}" if seen.phase == "sampling" else words


def times(seen: "Status") -> str:
    """Of this phase, spent and left."""
    from shoal.progress import clock

    left = seen.seconds_left
    return clock(seen.metrics["seconds"]) + (f", {clock(left)} left" if left is not None else "")


def rates(seen: "Status") -> str:
    """Draws and gradients a second."""
    from shoal.progress import human

    both = (seen.draws_per_second, seen.metrics.get("gradients_per_second"))
    named = zip(both, ("draws of each chain", "gradients"), strict=True)
    return ", ".join(f"{human(rate)} {noun}" for rate, noun in named if rate is not None) + " a second"


def tuned(metrics: dict[str, Any]) -> str:
    """Acceptance, and what draws are made with."""
    parts = [f"{metrics['acceptance']:.2f}"]
    for name, words in (("step_size", "step size {:.3g}"), ("gradients_per_draw", "{:,.1f} gradients a draw")):
        if metrics.get(name) is not None:
            parts.append(words.format(metrics[name]))
    return ", ".join(parts)


def divergent(metrics: dict[str, Any]) -> str:
    """Transitions of this phase that diverged, and their share."""
    number, of = metrics["divergences"], metrics["draws"] * metrics["num_chains"]
    return f"{number:,} ({number / max(of, 1):.2%})" if number else "none"


def r_hats(metrics: dict[str, Any]) -> str:
    """The worst ones, nested and over chains, with whose they are; a line for each."""
    parts = []
    for name, words in (("r_hat_nested", "nested"), ("r_hat", "over chains")):
        if metrics.get(f"{name}_parameter"):
            number = "not finite" if metrics[name] is None else f"{metrics[name]:.3f}"
            parts.append(f"{number} {words}: {metrics[f'{name}_parameter']}")
    return "\n".join(parts)


def memory(metrics: dict[str, Any]) -> str:
    """At most so far: of the process, and of its devices where they tell."""
    devices = metrics.get("device_peak_bytes")
    return f"{metrics['host_peak_bytes'] / 1e9:.2f} GB at most" + (
        f", {devices / 1e9:.2f} GB on devices" if devices is not None else ""
    )


def ago(seconds: float) -> str:
    """A time in its largest unit."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{seconds:.0f} s"
