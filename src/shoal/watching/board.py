"""Events for TensorBoard, written by tensorboardX: curves of the metrics, and histograms of the worst parameters.

The writer is the one that knows no thread and no queue: where a disk is full, a queue that nobody empties would stop
the run. Summaries are put together here, since tensorboardX would turn `beta[Texture]` into `beta_Texture_`.
"""

import contextlib
import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shoal.extras import require
from shoal.watching.record import Quantity, Record, order

FOLDER = "tensorboard"
# Curves by parameter, and histograms: of so many, the worst ones of each time.
CURVES, HISTOGRAMS = 20, 5
# Seconds between events, and between times when they are sent to the disk.
EVERY, FLUSHED_EVERY = 1.0, 3.0
BINS = 50
# Of the draws: tails of a heavy one would leave a single bar.
MIDDLE = 0.99
# Draws of a chunk that a histogram is of, at most; about as many are taken at even distances.
MOST_DRAWS = 20_000
SHOWN = (
    "acceptance",
    "step_size",
    "trajectory_length",
    "divergences",
    "gradients",
    "gradients_paid",
    "gradients_per_draw",
    "gradients_per_second",
    "r_hat_nested",
    "r_hat",
    "ess",
    "ess_per_second",
    "device_bytes",
    "device_peak_bytes",
    "host_peak_bytes",
    "seconds",
)
# What runs are compared by, in the table of their settings.
COMPARED = ("sampling/r_hat_nested", "sampling/ess_per_second", "sampling/divergences")


def tensorboard_package(module: str = "event_file_writer") -> Any:
    """A module of tensorboardX, or an error that names it."""
    return require(f"tensorboardX.{module}", "tensorboard=True", extra="tensorboard")


class Board:
    """Writes events, in a folder of its own for every process of the run.

    Attributes:
        mends: whether it can go on after it has failed: half an event ends the file for its readers.
    """

    mends = False

    def __init__(self, run: Path, names: tuple[Quantity, ...], settings: Mapping[str, Any]) -> None:
        """Write nothing yet.

        Args:
            run: the directory of the run.
            names: as from `quantities`.
            settings: of the run.
        """
        self._run, self._names, self._settings = run, names, settings
        self._writer: Any = None
        self._waiting: Record | None = None
        self._written_at = self._flushed_at = -np.inf

    def hear(self, record: Record) -> None:
        """Write an event: at once where the last one is some time ago, or when nothing of the phase follows."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.metrics["phase"] != record.metrics["phase"]:
            self._write(waiting)
        if time.monotonic() - self._written_at >= EVERY:
            self._write(record)
        else:
            self._waiting = record

    def close(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, None
        try:
            if waiting is not None:
                self._write(waiting)
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _write(self, record: Record) -> None:
        if self._writer is None:
            folder = new_folder(self._run / FOLDER, record.time)
            self._writer = tensorboard_package().EventsWriter(str(folder / "events"))
            self._begin(record)
        self._event(self._summary(record), record)
        self._written_at = time.monotonic()
        if self._written_at - self._flushed_at >= FLUSHED_EVERY:
            self._writer.flush()
            self._flushed_at = self._written_at

    def _begin(self, record: Record) -> None:
        """Write the settings, by which runs can be compared."""
        plain = {name: value for name, value in self._settings.items() if isinstance(value, str | int | float)}
        for summary in tensorboard_package("summary").hparams(plain, dict.fromkeys(COMPARED, 0.0)):
            self._event(summary, record)

    def _event(self, summary: Any, record: Record) -> None:
        event = tensorboard_package("proto.event_pb2").Event
        when, step = record.time.timestamp(), record.metrics["draws"]
        self._writer.write_event(event(wall_time=when, step=step, summary=summary))

    def _summary(self, record: Record) -> Any:
        """Curves and histograms of one moment, as one summary."""
        summary, metrics = tensorboard_package("proto.summary_pb2").Summary, record.metrics
        phase = metrics["phase"]
        shown = {f"{phase}/{name}": metrics[name] for name in SHOWN} | self._by_parameter(record)
        values = [summary.Value(tag=tag, simple_value=value) for tag, value in shown.items() if value is not None]
        for quantity in self._worst(record):
            draws = _finite_draws(record.draws, quantity)
            # NumPy refuses draws that are none, or closer to each other than rounding lets bars be.
            with contextlib.suppress(ValueError, IndexError):
                values.append(summary.Value(tag=f"draws/{quantity.label}", histo=_histogram(draws)))
        return summary(value=values)

    def _by_parameter(self, record: Record) -> dict[str, float]:
        """R-hat and effective draws a second of the worst quantities."""
        shown: dict[str, float] = {}
        seconds = record.metrics["seconds"]
        for name, label, scale in ((_r_hat_of(record), "", 1.0), ("ess", "ess_per_second", seconds)):
            values = record.spread.get(name)
            if values is None or not scale > 0:
                continue
            some = [number for number in order(values, name)[:CURVES] if np.isfinite(values[number])]
            shown |= {f"{label or name}/{self._names[number].label}": float(values[number] / scale) for number in some}
        return shown

    def _worst(self, record: Record) -> list[Quantity]:
        """Those with the largest R-hat whose draws can be shown."""
        name = _r_hat_of(record)
        if name not in record.spread or not record.draws:
            return []
        ordered = (self._names[number] for number in order(record.spread[name], name))
        shown = (quantity for quantity in ordered if quantity.place is not None and quantity.variable in record.draws)
        return list(shown)[:HISTOGRAMS]


def new_folder(parent: Path, when: datetime.datetime) -> Path:
    """A folder that is new, named after a time."""
    name, number = when.strftime("%Y%m%dT%H%M%SZ"), 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _r_hat_of(record: Record) -> str:
    """Nested R-hat, or R-hat over chains where there is one superchain."""
    return "r_hat_nested" if np.isfinite(record.spread.get("r_hat_nested", np.nan)).any() else "r_hat"


def _finite_draws(draws: Mapping[str, np.ndarray], quantity: Quantity) -> np.ndarray:
    """Some of the draws of a quantity, one after the other."""
    rows = np.asarray(draws[quantity.variable])[(slice(None), slice(None), *(quantity.place or ()))].ravel()
    rows = rows[:: -(-rows.size // MOST_DRAWS)].astype(float)
    return rows[np.isfinite(rows)]


def _histogram(draws: np.ndarray) -> Any:
    """Of the middle of the draws."""
    low = np.quantile(draws, (1 - MIDDLE) / 2, method="lower")
    high = np.quantile(draws, (1 + MIDDLE) / 2, method="higher")
    draws = draws[(draws >= low) & (draws <= high)]
    counts, edges = np.histogram(draws, BINS)
    return tensorboard_package("proto.summary_pb2").HistogramProto(
        min=draws.min(),
        max=draws.max(),
        num=draws.size,
        sum=draws.sum(),
        sum_squares=(draws**2).sum(),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
