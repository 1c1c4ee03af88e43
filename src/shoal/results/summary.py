"""A result to read: its table, and a few lines for a terminal or a notebook."""

import html as escape
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.diagnostics.findings import count
from shoal.extras import require
from shoal.results.moments import QUANTILES

if TYPE_CHECKING:
    from shoal.results.result import Result

COLUMNS = ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
WIDTH = 110


def summary(result: "Result", var_names: Sequence[str] | str | None) -> Any:
    """The summary as a pandas DataFrame; see `Result.summary`.

    Args:
        result: to summarise.
        var_names: the variables to show; all when None.

    Returns:
        Rows like `lamb[3]`, columns as in `COLUMNS`.
    """
    pandas = require("pandas", "A summary table", extra="diagnostics")
    wanted = [var_names] if isinstance(var_names, str) else list(result.variables if var_names is None else var_names)
    if result.moments is not None and not result.variables:
        raise ValueError(
            "The run keeps nothing of its draws (keep='none'), and moments of its coordinates are known at its end "
            "only: wait for it, or let shoal.resume go on with it."
        )
    unknown = [name for name in wanted if name not in result.variables]
    if unknown:
        raise ValueError(
            f"The summary was asked for {', '.join(map(repr, unknown))}, and the variables of this result "
            f"are {', '.join(map(repr, result.variables))}: give some of these as var_names."
        )
    rows = [label for name in wanted for label in result.labels(name)]
    tables = [result.table[name] for name in wanted]
    columns = {
        column: np.concatenate([table[column].ravel() for table in tables] or [np.empty(0)])
        for column in shown_columns(result)
    }
    return pandas.DataFrame(columns, index=rows)


def shown_columns(result: "Result") -> tuple[str, ...]:
    """Those of the summary: of draws that were not kept the quantiles, too, since there is no other way to them."""
    return COLUMNS if result.moments is None or result.moments.coordinates else (*COLUMNS, *QUANTILES)


def lines(result: "Result") -> list[tuple[str, str]]:
    """What there is to say about a result, as pairs of a word and a text.

    Args:
        result: to describe.

    Returns:
        The first pair's word is empty: its text is the headline.
    """
    blocking = [finding for finding in result.findings if finding.blocking]
    pairs = [("", _headline(result)), ("verdict", "not converged" if blocking else _converged(result))]
    pairs += [("" if i else "findings", str(finding)) for i, finding in enumerate(result.findings)]
    if not math.isnan(result.timing.sampling):
        compile_, warmup, sampling = (seconds(value) for value in result.timing)
        pairs.append(("time", f"compile {compile_}, warmup {warmup}, sampling {sampling}"))
    if any(result.gradients):
        made = result.gradients
        pairs.append(("gradients", f"warmup {made.warmup:,}, sampling {made.sampling:,}{waiting(result)}"))
    if not math.isnan(result.ess_per_second):
        pairs.append(
            (
                "ESS/s",
                f"{round_number(result.ess_per_second)} of warmup and sampling, "
                f"{round_number(result.ess_per_second_sampling)} of sampling (worst parameter)",
            )
        )
    return pairs


def waiting(result: "Result") -> str:
    """That chains waited for others, where that cost more than a hundredth."""
    share = result.gradients.lockstep
    return f", {share:.0%} of those computed: chains waited for others" if share < 0.99 else ""


def _headline(result: "Result") -> str:
    what = [str(result.settings[key]) for key in ("model", "sampler", "precision") if result.settings.get(key)]
    numbers = sum(math.prod(result.shape(name)) for name in result.variables)
    run = f"{count(result.num_chains, 'chain')} × {count(result.num_draws, 'draw')}"
    size = f"{run} of {count(numbers, 'number')} in {count(len(result.variables), 'variable')}"
    ended = ", interrupted" if result.interrupted else ""
    return f"{', '.join(what)}: {size}{ended}" if what else size + ended


def _converged(result: "Result") -> str:
    return f"converged, with at least {round_number(result.worst_ess)} effective draws of every parameter"


def seconds(value: float) -> str:
    """A time as one reads it: "0.31 s", "12 s", "3 min 20 s".

    Args:
        value: seconds.

    Returns:
        Words; "unknown" for NaN.
    """
    if math.isnan(value):
        return "unknown"
    if value < 100:
        return f"{value:.2g} s" if value < 9.95 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def round_number(value: float) -> str:
    """A number with as many digits as one reads: "1,234", "12.3", "0.0123".

    Args:
        value: the number.

    Returns:
        Words; "unknown" for NaN.
    """
    if math.isnan(value):
        return "unknown"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def text(result: "Result") -> str:
    """The lines of a result for a terminal.

    Args:
        result: to describe.

    Returns:
        Aligned lines.
    """
    pairs = lines(result)
    paragraphs = [
        textwrap.fill(words, WIDTH, initial_indent=f"  {word:<9}  ", subsequent_indent=" " * 13)
        for word, words in pairs[1:]
    ]
    return "\n".join([pairs[0][1], *paragraphs])


def html(result: "Result") -> str:
    """The lines of a result for a notebook.

    Args:
        result: to describe.

    Returns:
        A piece of HTML.
    """
    pairs = lines(result)
    rows = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{escape.escape(word)}</th>"
        f"<td style='text-align:left'>{escape.escape(words)}</td></tr>"
        for word, words in pairs[1:]
    )
    return f"<div><strong>{escape.escape(pairs[0][1])}</strong><table>{rows}</table></div>"
