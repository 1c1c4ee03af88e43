"""The commands together, and what becomes of errors: a paragraph, an exit code, tracebacks on demand."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

import click

from shoal import __version__
from shoal.cli.bench import bench
from shoal.cli.check import check
from shoal.cli.codes import DONE, FAILED, INTERRUPTED
from shoal.cli.diagnose import diagnose
from shoal.cli.doctor import doctor
from shoal.cli.examples import examples
from shoal.cli.export import export
from shoal.cli.report import report
from shoal.cli.resume import resume
from shoal.cli.sample import sample
from shoal.cli.status import status
from shoal.cli.summary import summary

EPILOG = """
\b
Exit codes:
  0    done; the draws converged
  1    failed
  2    the command was not understood, or an argument cannot be used
  3    sampled, but not converged or not precise enough; the draws are kept. Of check: something is in the way
  130  interrupted, 143 terminated; the draws so far are kept
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="shoal")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors (also: SHOAL_DEBUG=1).")
def shoal(debug: bool) -> None:
    r"""Many-chain Markov chain Monte Carlo on accelerators.

    \b
    To begin:
      shoal doctor
      shoal check breast_cancer
      shoal sample breast_cancer --out runs/breast_cancer
      shoal diagnose runs/breast_cancer
      shoal report runs/breast_cancer
    """


for command in (doctor, examples, check, sample, resume, status, summary, diagnose, report, export, bench):
    shoal.add_command(command)
for command in (shoal, *shoal.commands.values(), *bench.commands.values()):
    # Before lines that are to stay as they are click looks for the character itself, which a docstring spells.
    command.help = (command.help or "").replace("\\b", "\b")


def run(arguments: Sequence[str] | None) -> int:
    """Run a command; see `shoal.cli.main`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("SHOAL_DEBUG", "") not in ("", "0")
    try:
        return int(shoal.main(given, prog_name="shoal", standalone_mode=False) or DONE)
    except click.ClickException as error:
        if debug and error.__cause__ is not None:
            raise
        show(error)
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; nobody is left to be told, and nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if debug:
            raise
        click.echo(wrapped(paragraph(error)), err=True)
        return FAILED


def show(error: click.ClickException) -> None:
    """An error of the command line: how the command is used where that helps, and what is wrong."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help' for help.\n", err=True)
    click.echo(wrapped(f"Error: {error.format_message()}"), err=True)


def wrapped(words: str) -> str:
    """A paragraph, broken between words and never inside a path."""
    width = shutil.get_terminal_size(fallback=(100, 24)).columns
    return textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)


def paragraph(error: Exception) -> str:
    """An error as one paragraph for the reader; Shoal's own say all there is to say."""
    words = " ".join(str(error).split())
    if isinstance(error, ValueError | ModuleNotFoundError | TimeoutError) and words:
        return f"Error: {words}"
    kind = type(error).__name__
    told = f"{kind}: {words}" if words else kind
    return f"Error: {told} Run the command again with --debug to see where it happened."
