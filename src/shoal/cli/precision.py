"""Options that say how precise an answer is to be, which commands share."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shoal.until import Until

_POSITIVE = click.FloatRange(min=0, min_open=True)


def ending(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a run that ends by itself."""
    options = (
        click.option("--ess", type=_POSITIVE, help="End at so many effective draws of everything.  [default: 1000]"),
        click.option(
            "--mcse", multiple=True, metavar="NAME=ERROR", help="End at this error of a mean; may be repeated."
        ),
        click.option("--quantiles", is_flag=True, help="Ask the same of the 5% and 95% quantiles."),
        click.option(
            "--max-samples", type=click.IntRange(min=1), help="The most draws of each chain.  [default: 10000]"
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def until_of(options: dict[str, Any], last: Mapping[str, Any] | None = None) -> "Until | None":
    """What was asked for; None where nothing was.

    Args:
        options: of the command line.
        last: what a run that goes on was last asked for, of which the options change a part.

    Raises:
        click.UsageError: a number of draws was, too, or an error is no number.
        ValueError: a number is out of its range.
    """
    given = {name: options[name] for name in ("ess", "mcse", "quantiles", "max_samples") if options[name]}
    if not given:
        return None
    for name in ("num_samples", "add_samples"):
        if options.get(name):
            other = "--" + next(iter(given)).replace("_", "-")
            raise click.UsageError(
                f"--{name.replace('_', '-')} and {other} were both given: a run has a number of draws, or ends when it "
                "is precise enough."
            )
    from shoal.until import Until

    if "mcse" in given:
        given["mcse"] = dict(map(_error, given["mcse"]))
    return replace(Until.from_dict(last) if last else Until(), **given)


def _error(pair: str) -> tuple[str, float]:
    name, _, word = pair.partition("=")
    try:
        return name.strip(), float(word)
    except ValueError:
        raise click.UsageError(f"--mcse {pair}: expected NAME=ERROR, such as --mcse tau=0.01.") from None
