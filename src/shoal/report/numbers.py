"""Numbers as one reads them in a column: digits that mean something, points under points."""

import math
from collections.abc import Sequence

MISSING = "-"


def estimate(value: float, error: float) -> str:
    """A number to the second digit of its error: 0.1234 ± 0.0021 is 0.1234, 123.4 ± 5.6 is 123.4."""
    if not math.isfinite(value):
        return MISSING
    # Without an error, four digits of the number itself.
    scale = error / 10 if math.isfinite(error) and error > 0 else abs(value) / 1e3
    if value and (abs(value) >= 1e7 or abs(value) < 1e-5):
        return f"{value:.3g}"
    places = -math.floor(math.log10(scale)) if scale > 0 else 1
    return f"{value:,.{min(max(places, 0), 7)}f}"


def error_of(error: float) -> str:
    """An error to two digits."""
    if not math.isfinite(error):
        return MISSING
    if error and (error >= 1e7 or error < 1e-5):
        return f"{error:.1e}"
    return estimate(error, error)


def significant(value: float) -> str:
    """Three significant digits."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def whole(value: float) -> str:
    """A count."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING


def ratio(value: float) -> str:
    """An R-hat: three decimals, fewer when it is far from one."""
    if not math.isfinite(value):
        return MISSING
    return f"{value:.3f}" if value < 100 else f"{value:.3g}"


def aligned(column: Sequence[str], digit: str = " ", point: str = " ") -> list[str]:
    """The same numbers, padded on the right so that the points stand under each other when right-aligned.

    Args:
        column: numbers in words.
        digit: what fills the place of a digit: a figure space in HTML.
        point: what fills the place of the point: a punctuation space in HTML.

    Returns:
        One string for each.
    """
    tails = [len(word.partition(".")[2]) for word in column]
    longest = max(tails, default=0)
    if not longest:
        return list(column)
    return [
        word + (digit * (longest - tail) if "." in word else point + digit * longest)
        for word, tail in zip(column, tails, strict=True)
    ]
