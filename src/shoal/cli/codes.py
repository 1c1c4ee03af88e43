"""Exit codes, options that commands share, and what is the caller's to mend."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

DONE = 0
FAILED = 1
USAGE = 2
NOT_CONVERGED = 3
# Of a check: it was done, and it found something in the way. A script that stops at 3 stops at either.
DOUBTFUL = NOT_CONVERGED
INTERRUPTED = 130
TERMINATED = 143

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
# Read from the arguments by `shoal.cli.app.run`, so that it holds for errors of the command line too.
debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
max_seconds = click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Time after which to end with what there is.  [default: any]",
)
tensorboard = click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the directory.")


class RunPlace(click.Path):
    """A directory that is there, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in value else super().convert(value, param, ctx)


run_directory = click.argument("directory", metavar="DIR", type=RunPlace(exists=True, file_okay=False))


def file_beside(directory: str, name: str) -> Path:
    """Where a file about a run goes: into its directory, or for one at a URL into the one that the user is in."""
    return Path(name) if "://" in directory else Path(directory) / name


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """A ValueError in here is about an argument: exit code 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(" ".join(str(error).split())) from error
