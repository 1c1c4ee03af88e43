"""Figures as inline SVG whose colours are the page's: light, dark, and on paper."""

import html
import io
import re
from typing import TYPE_CHECKING, Any

from shoal.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that matplotlib draws with; each becomes a variable of the page's style sheet.
INK, FAINT, GRID, BLUE, ORANGE, GREEN, RED = (
    "#010203",
    "#020304",
    "#030405",
    "#040506",
    "#050607",
    "#060708",
    "#070809",
)
_VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--rule",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    RED: "--red",
}
# Real colours, for pictures inside the SVG, which cannot follow the page; they stand on white and on black.
BLUE_RGB = (0.16, 0.47, 0.77)
ORANGE_RGB = (0.85, 0.42, 0.08)
GREY_RGB = (0.50, 0.55, 0.60)

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.formatter.useoffset": False,
}


def style() -> Any:
    """A context in which figures are made and drawn; leaves the user's settings as they were."""
    matplotlib = require("matplotlib", "shoal report", extra="report")
    return matplotlib.rc_context(_STYLE)


def figure(width: float, height: float) -> "Figure":
    """An empty figure in inches, without pyplot and so without a window or global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def light_grid(axes: "Axes", along: str = "y") -> None:
    """Thin lines behind the data."""
    axes.grid(axis=along)  # pyright: ignore[reportArgumentType]
    axes.set_axisbelow(True)


def svg(drawn: "Figure", name: str, words: str) -> str:
    """The figure as an SVG element.

    Args:
        drawn: the figure.
        name: unique on the page, so that marks of one figure are not taken for those of another.
        words: what it shows, for those who do not see it.

    Returns:
        An `<svg>` element without names of hosts, prologue or metadata.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'font-family: [^;"]*', "font-family: var(--sans)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # The page decides the width; the proportions are in the viewBox.
    head, _, rest = text.partition(">")
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(words)}">{rest}'
