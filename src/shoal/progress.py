"""Progress of a run, shown by whatever is looking: a terminal, a notebook, or a log file.

Whatever goes wrong here, sampling goes on: a display that raises is switched off, and nothing is said.
Everything is written to standard error, so that standard output stays clean for results.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol, TextIO

_PLAIN_SECONDS = 5.0
_LIVE_SECONDS = 0.1
_HEADINGS = ("", "", "iterations", "time", "left", "accept", "divergent", "gradients/s", "R-hat")


class ChunkReport(NamedTuple):
    """How far a phase has got.

    Attributes:
        phase: "warmup" or "sampling".
        done: iterations finished in this phase.
        total: iterations of this phase; None where it ends by itself.
        num_chains: chains running side by side.
        acceptance: mean acceptance rate, between 0 and 1.
        divergences: divergent transitions of the sampling phase so far.
        gradients: gradient evaluations of this phase so far, over all chains.
        seconds: time spent in this phase.
        r_hat: the worst nested R-hat so far, or None before it is known.
    """

    phase: str
    done: int
    total: int | None
    num_chains: int
    acceptance: float
    divergences: int
    gradients: int
    seconds: float
    r_hat: float | None = None

    @property
    def finished(self) -> bool:
        return self.total is not None and self.done >= self.total


class Progress(NamedTuple):
    """How far a run is.

    Attributes:
        phase: "starting" until there is something to tell, then "warmup" or "sampling".
        done: iterations of this phase.
        total: iterations that the phase is to have; None where it ends by itself.
        acceptance: mean acceptance rate, between 0 and 1; NaN before it is known.
        divergences: divergent transitions in sampling.
        gradients_per_second: evaluations in this phase, all chains together; NaN before it is known.
        r_hat: the worst nested R-hat; None before it is known.
        seconds: of this phase, pauses not counted.
    """

    phase: str
    done: int
    total: int | None
    acceptance: float
    divergences: int
    gradients_per_second: float
    r_hat: float | None
    seconds: float


NOTHING_YET = Progress("starting", 0, None, float("nan"), 0, float("nan"), None, 0.0)


class Display(Protocol):
    """Somewhere to show reports."""

    def show(self, report: ChunkReport) -> None: ...
    def close(self) -> None: ...


def human(number: float) -> str:
    """A count to three significant digits: 412 k, 1.23 M."""
    if not math.isfinite(number):
        return "-"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,600 would round to "1000 k".
        if abs(number) >= 0.9995 * size:
            scaled = number / size
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{number:.0f}" if abs(number) >= 10 or number == int(number) else f"{number:.1f}"


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(max(seconds, 0.0))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _cells(report: ChunkReport) -> dict[str, str]:
    """The words for one phase, keyed by heading."""
    left = math.nan
    if report.total is not None and report.done:
        left = report.seconds / report.done * (report.total - report.done)
    rate = report.gradients / report.seconds if report.seconds > 0 else math.nan
    r_hat = "" if report.r_hat is None or not 0 < report.r_hat < math.inf else f"{report.r_hat:.3f}"
    return {
        "iterations": f"{report.done:,}" if report.total is None else f"{report.done:,}/{report.total:,}",
        "time": clock(report.seconds),
        "left": "" if report.finished or report.total is None else clock(left),
        "accept": f"{report.acceptance:.2f}" if math.isfinite(report.acceptance) else "-",
        "divergent": f"{report.divergences:,}" if report.phase == "sampling" else "",
        "gradients/s": human(rate),
        "R-hat": r_hat,
    }


def _title(phases: dict[str, ChunkReport]) -> str:
    if not phases:
        return "Compiling"
    last = list(phases.values())[-1]
    if last.phase != "sampling":
        return f"{last.num_chains:,} chains"
    return f"{last.num_chains:,} chains × {last.done:,} draws = {last.num_chains * last.done:,} draws"


class PlainDisplay:
    """Lines for a log: one every few seconds, and one at the end of each phase."""

    def __init__(self, stream: TextIO | None = None, every: float = _PLAIN_SECONDS):
        self._stream = stream or sys.stderr
        self._every = every
        self._printed_at = time.monotonic()
        self._held: ChunkReport | None = None

    def show(self, report: ChunkReport) -> None:
        if self._held is not None and self._held.phase != report.phase:
            self._print(self._held)
        self._held = report
        if report.finished or time.monotonic() - self._printed_at >= self._every:
            self._print(report)

    def close(self) -> None:
        if self._held is not None:
            self._print(self._held)

    def _print(self, report: ChunkReport) -> None:
        cells = _cells(report)
        words = [
            f"{report.phase:<8}",
            cells["iterations"].rjust(2 * len(f"{report.total or report.done:,}") + 1),
            f"{report.num_chains:,} chains",
            f"acceptance {cells['accept']}",
            f"divergences {cells['divergent']}" if cells["divergent"] else "",
            f"{cells['gradients/s']} gradients/s",
            f"R-hat {cells['R-hat']}" if cells["R-hat"] else "",
            f"{cells['left']} left" if cells["left"] else f"{'done in ' if report.total else ''}{cells['time']}",
        ]
        print("  ".join(word for word in words if word), file=self._stream, flush=True)
        self._printed_at = time.monotonic()
        self._held = None


class TerminalDisplay:
    """A small table drawn in place, a line for each phase."""

    def __init__(self, console: Any = None):
        from rich.console import Console
        from rich.live import Live

        self._phases: dict[str, ChunkReport] = {}
        self._console = console or Console(stderr=True)
        # Refreshed by reports, not by a thread: nothing runs beside the sampler.
        self._live = Live(self.table(), console=self._console, auto_refresh=False)
        self._live.start(refresh=True)
        self._drawn_at = 0.0

    def show(self, report: ChunkReport) -> None:
        self._phases[report.phase] = report
        if report.finished or time.monotonic() - self._drawn_at >= _LIVE_SECONDS:
            self._live.update(self.table(), refresh=True)
            self._drawn_at = time.monotonic()

    def close(self) -> None:
        # A run that fails before its first chunk leaves no table behind.
        self._live.transient = not self._phases
        self._live.update(self.table(), refresh=True)
        self._live.stop()

    def table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        title = Text(_title(self._phases), style="bold" if self._phases else "dim")
        if not self._phases:
            return title
        rows = [_cells(report) for report in self._phases.values()]
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for heading in _HEADINGS:
            table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
        # The bar takes what the words leave, and goes when they leave nothing.
        words = (max(len(name), *(len(cells[name]) for cells in rows)) for name in _HEADINGS if name)
        room = self._console.width - sum(words) - len("sampling") - 2 * len(_HEADINGS)
        for report, cells in zip(self._phases.values(), rows, strict=True):
            bar = ProgressBar(self._length(report), report.done, width=min(36, room)) if room >= 4 else ""
            if report.divergences and cells["divergent"]:
                cells["divergent"] = f"[yellow]{cells['divergent']}[/]"
            table.add_row(report.phase, bar, *(cells[heading] for heading in _HEADINGS if heading))
        return Group(title, table)

    def _length(self, report: ChunkReport) -> int | None:
        """Iterations of a phase, as far as they are known: a phase that has been followed by another was as long."""
        over = report is not list(self._phases.values())[-1]
        return report.done if report.total is None and over else report.total


class NotebookDisplay:
    """One HTML output, updated in place."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._phases: dict[str, ChunkReport] = {}
        self._drawn_at = 0.0
        self._handle: Any = display(HTML(notebook_page(self._phases)), display_id=True)

    def show(self, report: ChunkReport) -> None:
        self._phases[report.phase] = report
        if report.finished or time.monotonic() - self._drawn_at >= 2 * _LIVE_SECONDS:
            self._draw()

    def close(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._handle.update(self._html(notebook_page(self._phases)))
        self._drawn_at = time.monotonic()


def notebook_page(phases: dict[str, ChunkReport]) -> str:
    """The table of a notebook, as HTML that follows the notebook's own colours."""
    cell = 'style="text-align:right;padding:2px 10px;white-space:nowrap"'
    rows = []
    for report in phases.values():
        known = "" if report.total is None else f'max="{report.total}" value="{report.done}" '
        bar = f'<progress {known}style="width:12em"></progress>'
        cells = "".join(f"<td {cell}>{word}</td>" for word in _cells(report).values())
        rows.append(f'<tr><td style="text-align:left;padding:2px 10px 2px 0">{report.phase}</td>')
        rows.append(f"<td>{bar}</td>{cells}</tr>")
    heads = "".join(f"<th {cell}>{heading}</th>" for heading in _HEADINGS[2:]) if phases else ""
    table = f'<table style="border:0"><tr><th></th><th></th>{heads}</tr>{"".join(rows)}</table>'
    return (
        '<div style="font-size:0.9em;font-variant-numeric:tabular-nums">'
        f"<b>{_title(phases)}</b>{table if phases else ''}</div>"
    )


def _in_notebook() -> bool:
    """Whether a Jupyter kernel (Colab's too) is showing our output."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    return getattr(ipython.get_ipython(), "kernel", None) is not None


def _pick() -> Display:
    if _in_notebook():
        return NotebookDisplay()
    if sys.stderr.isatty():
        with suppress(ImportError):
            return TerminalDisplay()
    return PlainDisplay()


@contextmanager
def progress(show: bool) -> Iterator[Callable[[ChunkReport], None]]:
    """Show how a run is getting on.

    Args:
        show: False shows nothing.

    Yields:
        A function that takes a `ChunkReport` after every chunk. It never raises.
    """
    display: Display | None = None
    if show:
        with suppress(Exception):
            display = _pick()

    def report(chunk: ChunkReport) -> None:
        nonlocal display
        if display is None:
            return
        try:
            display.show(chunk)
        except Exception:
            with suppress(Exception):
                display.close()
            display = None

    try:
        yield report
    finally:
        if display is not None:
            with suppress(Exception):
                display.close()
