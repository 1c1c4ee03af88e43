"""What is told of a phase while it goes on: what is shown, and beside it what is written down."""

import contextlib
import datetime
import math
import resource
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from shoal.labels import labels
from shoal.models.model import Model
from shoal.progress import ChunkReport

# What `Moments` folds after the coordinates.
LOG_DENSITY = "lp"
# The unit of the peak of resident memory is kilobytes, but on macOS.
RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024


class Quantity(NamedTuple):
    """One of the numbers that `Moments` folds.

    Attributes:
        label: such as `beta[Texture]`.
        variable: whose draws have it.
        place: its index in one draw of the variable; None where no single number of a draw is its counterpart.
    """

    label: str
    variable: str
    place: tuple[int, ...] | None


def quantities(model: Model) -> tuple[Quantity, ...]:
    """The unconstrained coordinates in order, then the log density.

    A coordinate has the label of the number that it becomes on the support. Where there is no such number, as for a
    simplex, it is called `weights coordinate 2`.
    """
    found = []
    for slot in model.layout.slots:
        if slot.shape == slot.free_shape:
            names, places = labels(slot.name, slot.shape, model.dims, model.coords), np.ndindex(slot.shape)
            found += [Quantity(label, slot.name, place) for label, place in zip(names, places, strict=True)]
        else:
            found += [Quantity(f"{slot.name} coordinate {number}", slot.name, None) for number in range(slot.size)]
    return (*found, Quantity(LOG_DENSITY, LOG_DENSITY, None))


class Told(NamedTuple):
    """How far a phase is after a chunk, or after some draws of a warmup that ends by itself.

    Attributes:
        chunk: what is shown.
        paid: evaluations of the gradient that devices made, used or not; None where nobody counts them.
        gradients_per_draw: of one chain; None where the chains that move are not all.
        tuning: what draws are made with now, on the device; None before it is known.
        spread: of each quantity `r_hat_nested`, `r_hat` and `ess`; None in warmup.
        reach: of each chain and coordinate the least and the greatest, `low` and `high`; None where nobody asks.
        counts_divergences: whether `chunk` has their number.
    """

    chunk: ChunkReport
    paid: int | None = None
    gradients_per_draw: float | None = None
    tuning: Any = None
    spread: Mapping[str, np.ndarray] | None = None
    reach: Mapping[str, np.ndarray] | None = None
    counts_divergences: bool = True

    @property
    def evaluations(self) -> tuple[int, int]:
        """Of the gradient in this phase so far, used and paid."""
        return self.chunk.gradients, self.chunk.gradients if self.paid is None else self.paid


class Record(NamedTuple):
    """What is written down of a phase.

    Attributes:
        time: of the record.
        metrics: by name, of types that JSON has; None where it is not known or not finite.
        spread: as of `Told`.
        draws: of the chunk by variable, `[chain, draw, *shape]`; empty in warmup.
    """

    time: datetime.datetime
    metrics: dict[str, Any]
    spread: Mapping[str, np.ndarray]
    draws: Mapping[str, np.ndarray]


def record(told: Told, names: tuple[Quantity, ...], draws: Mapping[str, np.ndarray]) -> Record:
    """What is written down.

    Args:
        told: of a phase.
        names: as from `quantities`.
        draws: of its last chunk.
    """
    now, chunk = datetime.datetime.now(datetime.UTC), told.chunk
    spread = told.spread or {}
    step_size, trajectory = _of_tuning(told.tuning)
    metrics = {
        "time": now.isoformat(timespec="microseconds"),
        "phase": chunk.phase,
        "draws": chunk.done,
        "draws_asked": chunk.total,
        "num_chains": chunk.num_chains,
        "seconds": chunk.seconds,
        "acceptance": chunk.acceptance,
        "step_size": step_size,
        "trajectory_length": trajectory,
        "divergences": chunk.divergences if told.counts_divergences else None,
        "gradients": chunk.gradients,
        "gradients_paid": told.paid,
        "gradients_per_draw": told.gradients_per_draw,
        "gradients_per_second": _rate(chunk.gradients, chunk.seconds),
    }
    for name in ("r_hat_nested", "r_hat", "ess"):
        number, which = worst(spread[name], name) if name in spread else (None, None)
        metrics |= {name: number, f"{name}_parameter": None if which is None else names[which].label}
    metrics["ess_per_second"] = _rate(metrics["ess"], chunk.seconds)
    metrics |= memory()
    return Record(now, {name: _finite(value) for name, value in metrics.items()}, spread, draws)


def worst(values: np.ndarray, name: str) -> tuple[float | None, int | None]:
    """The worst of the quantities and its number; None where none is known.

    Args:
        values: of each quantity.
        name: of what they are: the smallest effective sample size is the worst one, the largest of the others.
    """
    known = np.flatnonzero(~np.isnan(values))
    if not known.size:
        return None, None
    which = int(known[order(values[known], name)[0]])
    return float(values[which]), which


def order(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers of the quantities from the worst to the best; as of `worst`. What is NaN comes last."""
    return np.argsort(values if name == "ess" else -values, kind="stable")


def memory() -> dict[str, int | None]:
    """Bytes: in use on all devices of the process now and at most, where they tell, and of the process at most."""
    told: list[Mapping[str, int]] = [{}]
    with contextlib.suppress(Exception):  # some backends raise where others have nothing to tell
        told = [device.memory_stats() or {} for device in jax.local_devices()]
    now, peak = (
        sum(stats[key] for stats in told) if all(key in stats for stats in told) else None
        for key in ("bytes_in_use", "peak_bytes_in_use")
    )
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RESIDENT_UNIT
    return {"device_bytes": now, "device_peak_bytes": peak, "host_peak_bytes": host}


def _of_tuning(tuning: Any) -> tuple[float | None, float | None]:
    """Step size and length of a trajectory, in whitened units, of tunings that have them."""
    field = tuning.get if isinstance(tuning, Mapping) else lambda name: getattr(tuning, name, None)
    step_size, trajectory, steps = field("step_size"), field("trajectory"), field("num_steps")
    if trajectory is None and step_size is not None and steps is not None:
        trajectory = step_size * steps
    mean = lambda value: None if value is None else float(np.mean(np.asarray(value)))
    return mean(step_size), mean(trajectory)


def _rate(amount: float | None, seconds: float) -> float | None:
    return None if amount is None or not seconds > 0 else amount / seconds


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
