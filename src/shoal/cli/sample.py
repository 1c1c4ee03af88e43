"""`shoal sample TARGET`: sample, keep the draws, and say whether they can be trusted."""

import ast
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shoal.cli import targets
from shoal.cli.codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    NOT_CONVERGED,
    TERMINATED,
    as_json,
    debug,
    max_seconds,
    tensorboard,
    usage,
)
from shoal.cli.precision import ending, until_of

if TYPE_CHECKING:
    from shoal.objects import Objects
    from shoal.results.result import Result
    from shoal.samplers import Sampler
    from shoal.until import Until

PRECISIONS = ("float32", "mixed", "float64")


@click.command(short_help="Sample an example, or a model in a file.")
@click.argument("target")
@click.option("--num-chains", type=click.IntRange(min=1), default=128, show_default=True, help="Chains.")
@click.option(
    "--num-warmup",
    type=click.IntRange(min=0),
    help="Draws of each chain to tune in; for auto, the most.  [default: by sampler]",
)
@click.option("--num-samples", type=click.IntRange(min=1), help="Draws of each chain, instead of a precision.")
@ending
@click.option(
    "--sampler",
    default="auto",
    show_default=True,
    help="auto finds what samples this posterior best; chees, mams, meads, nuts tune themselves; hmc is set by hand.",
)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Of the sampler; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every draw.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="Of numbers.")
@click.option("--tile", type=click.IntRange(min=1), help="Chains evaluated at once.  [default: by backend]")
@click.option(
    "--mesh",
    metavar="chains=N,data=M,parameters=P",
    help="Devices that chains, rows of data and parameters go over.  [default: chains]",
)
@click.option("--row-block", type=click.IntRange(min=1), help="Rows of data evaluated at once.  [default: 8192]")
@click.option(
    "--deterministic/--not-deterministic",
    default=True,
    show_default=True,
    help="The same draws on a GPU, too; may be slow.",
)
@click.option("--thinning", type=click.IntRange(min=1), default=1, show_default=True, help="Keep one of so many draws.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NAME",
    help="Keep this quantity, and others given so; or, given alone: moments, none.  [default: all]",
)
@click.option("--save-warmup", is_flag=True, help="Keep the draws of the warmup, too.")
@click.option("--devices", type=click.IntRange(min=1), help="CPU devices to use.  [default: one per core]")
@click.option(
    "--out",
    type=click.Path(),
    help="A directory or a URL (s3://bucket/run) for the run; one that is there goes on.  [default: runs/TARGET]",
)
@max_seconds
@tensorboard
@click.option("--no-progress", is_flag=True, help="Do not show how far it is.")
@click.option("--quiet", is_flag=True, help="Print nothing, except why draws cannot be trusted.")
@as_json
@debug
def sample(target: str, **options: Any) -> int:
    r"""Sample TARGET: an example's name, or file.py:object.

    The object is a shoal.Model, a NumPyro model without required arguments, or a function without arguments
    that returns one of these. `shoal examples` lists the examples.

    \b
      shoal sample breast_cancer --num-chains 256 --ess 4000 --out runs/wide
      shoal sample eight_schools --sampler hmc --set step_size=0.3 --set num_steps=10
      shoal sample model.py:model --seed 3 --json
    """
    # Cheap checks first: a mistake should not cost the seconds that JAX takes to import.
    targets.check(target)
    settings = read_settings(options["settings"])
    options["mesh"] = read_mesh(options["mesh"])
    out = place_for(target, options["out"])
    use_cpu_devices(options["devices"])
    with usage():
        until = until_of(options)
        recipe = recipe_named(options["sampler"], settings)
        check_warmup(recipe, options["num_warmup"])
    model = targets.resolve(target)
    return concluded(lambda: run(model, recipe, until, out, options), out, options)


def concluded(sampling: Callable[[], "Result"], out: "Path | Objects | None", options: dict[str, Any]) -> int:
    """Sample, tell of the result, and say by the exit code how it ended."""
    with terminable() as signals:
        try:
            result = sampling()
        except KeyboardInterrupt:
            return stopped(out, options, TERMINATED if signals else INTERRUPTED)
        tell(result, out, options)
    return TERMINATED if signals else code_of(result)


def code_of(result: "Result") -> int:
    """The exit code that says how a run ended."""
    kinds = {note.kind for note in result.notes}
    if kinds & {"failed", "not_uploaded"}:
        return FAILED
    if result.interrupted and "ended" not in kinds:
        return INTERRUPTED
    return DONE if result.converged else NOT_CONVERGED


def stopped(out: "Path | Objects | None", options: dict[str, Any], code: int) -> int:
    """Tell of the draws of a run that was stopped, if there are any; returns the exit code."""
    goes_on = ""
    if out is not None:
        from shoal.results.store import has_draws, load

        if has_draws(out):
            tell(load(out), out, options)
            return code
        if not isinstance(out, Path) or out.exists():
            goes_on = f" The warmup so far is in {out}: shoal resume {out}"
    click.echo(f"Stopped. There were no draws yet to keep.{goes_on}", err=True)
    return code


def run(
    model: Any, recipe: "Sampler", until: "Until | None", out: "Path | Objects | None", options: dict[str, Any]
) -> "Result":
    """Sample, with the options of the command line."""
    from shoal import sampling

    return sampling.sample(
        model,
        num_chains=options["num_chains"],
        num_warmup=options["num_warmup"],
        num_samples=options["num_samples"],
        until=until,
        sampler=recipe,
        seed=options["seed"],
        out=out,
        progress_bar=not (options["quiet"] or options["no_progress"]),
        precision=options["precision"],
        tile=options["tile"],
        mesh=options["mesh"],
        row_block=options["row_block"],
        thinning=options["thinning"],
        keep=kept(options["keep"]),
        save_warmup=options["save_warmup"],
        deterministic=options["deterministic"],
        max_seconds=options["max_seconds"],
        tensorboard=options["tensorboard"],
    )


def kept(names: Sequence[str]) -> Sequence[str] | str | None:
    """What is kept: quantities, or one word for all of them."""
    return names[0] if len(names) == 1 else names or None


def tell(result: "Result", out: "Path | Objects | None", options: dict[str, Any]) -> None:
    """The closing block, or JSON; when quiet, only what stands in the way, on standard error."""
    from shoal.cli.terminal import as_object, console, print_closing, print_json, print_verdict
    from shoal.report.overview import overview

    seen = overview(result)
    directory = None if out is None else str(out)
    if options["as_json"]:
        print_json(as_object(result, seen, directory))
    elif not options["quiet"]:
        print_closing(console(), result, seen, directory)
    if not seen.good and (options["quiet"] or options["as_json"]):
        print_verdict(console(stderr=True), seen)


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`["step_size=0.1"]` as `{"step_size": 0.1}`; what is no Python literal stays a word.

    Raises:
        click.UsageError: a pair has no `=`, or a field comes twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        field, equals, word = pair.partition("=")
        field, word = field.strip(), word.strip()
        if not (field and equals and word):
            raise click.UsageError(f"--set {pair}: expected FIELD=VALUE, such as --set step_size=0.05.")
        if field in settings:
            raise click.UsageError(f"--set {field}: given twice. Give every setting once.")
        try:
            settings[field] = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            settings[field] = word
    return settings


def read_mesh(text: str | None) -> dict[str, int] | None:
    """`"chains=4,data=2"` as `{"chains": 4, "data": 2}`.

    Raises:
        click.UsageError: it is something else.
    """
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(equals and count.strip().isdecimal() for _, equals, count in parts):
        raise click.UsageError(f"--mesh {text}: expected numbers of devices by name, such as --mesh chains=4,data=2.")
    return {name.strip(): int(count) for name, _, count in parts}


def recipe_named(name: str, settings: dict[str, Any]) -> "Sampler":
    """The sampler that was asked for."""
    from shoal.samplers import named

    return named(name, settings)


def check_warmup(recipe: "Sampler", num_warmup: int | None) -> None:
    """Refuse a sampler that tunes itself with no warmup to do it in."""
    from shoal.adaptation import Fixed

    if num_warmup == 0 and not isinstance(recipe.adaptation(), Fixed):
        raise ValueError(
            f"--num-warmup 0: sampler '{recipe.name}' is tuned in warmup. Ask for some (500 is usual), or "
            "set a sampler by hand: --sampler hmc --set step_size=0.05 --set num_steps=20."
        )


def place_for(target: str, out: str | None) -> "Path | Objects | None":
    """Where the draws go: as asked, or the first free of runs/NAME, runs/NAME-2, ...

    Returns:
        A place that can be written or holds a run to go on with; None where nothing was asked for and Zarr is
        missing.

    Raises:
        click.UsageError: it holds something else, or cannot be written.
    """
    if out is None and find_spec("zarr") is None:
        return None
    place = out or free_directory(targets.short_name(target))
    from shoal.extras import require

    require("zarr", "Keeping draws in --out", extra="store")
    from shoal.results.directories import check_place

    try:
        return check_place(place)
    except ValueError as error:
        words = f"--out {out}: {error}" if out else f"{error} (--out says where.)"
        raise click.UsageError(words) from error


def free_directory(name: str) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that is not there."""
    place, number = Path(f"runs/{name}"), 1
    while place.exists():
        number += 1
        place = Path(f"runs/{name}-{number}")
    return place


def use_cpu_devices(count: int | None) -> None:
    """Have JAX show as many CPU devices as there are cores, or `count`: before the first use of JAX."""
    from shoal.cores import VARIABLE, use_cores

    try:
        use_cores(count)
    except RuntimeError as error:
        raise click.UsageError(
            f"--devices {count}: JAX has been used already in this process, and the number of CPU "
            f"devices is fixed by then. Set {VARIABLE} instead."
        ) from error


class Terminated(KeyboardInterrupt):
    """SIGTERM, told to the sampler as Ctrl-C is, so that it keeps its draws."""


@contextlib.contextmanager
def terminable() -> Iterator[list[int]]:
    """SIGTERM ends sampling as Ctrl-C does; a second one ends the process at once.

    Yields:
        The signals that came.
    """
    came: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
