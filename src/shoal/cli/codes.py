"""Exit codes, and the error of a command that was given something it cannot use."""

import contextlib
from collections.abc import Iterator

import click

DONE = 0
FAILED = 1
USAGE = 2
NOT_CONVERGED = 3
INTERRUPTED = 130
TERMINATED = 143


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Whatever is wrong with an argument in here is the caller's to mend: exit code 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error
