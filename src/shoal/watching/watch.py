"""The listeners of a run: told of every chunk, one after the other, and never in the way of sampling."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from shoal.durable.folder import RunFolder
from shoal.models.model import Model
from shoal.watching.board import Board, tensorboard_package
from shoal.watching.metrics import FILE, MetricsFile
from shoal.watching.record import Quantity, Record, Told, quantities, record

Watch = Callable[[Told, Mapping[str, np.ndarray]], None]


class Listener(Protocol):
    """Somewhere to write records."""

    mends: bool

    def hear(self, record: Record) -> None: ...
    def close(self) -> None: ...


class Listeners:
    """Those of one run. Whatever goes wrong in one is noted once, and sampling goes on."""

    def __init__(self, folder: RunFolder, names: tuple[Quantity, ...], listeners: dict[str, Listener]) -> None:
        """Begin to listen.

        Args:
            folder: of the run, where failures are noted.
            names: as from `quantities`.
            listeners: by the name of what they write.
        """
        self._folder, self._names, self._listeners = folder, names, listeners
        self._failed: set[str] = set()

    def __call__(self, told: Told, values: Mapping[str, np.ndarray]) -> None:
        """Tell of a chunk; never raises an error.

        Args:
            told: of the phase.
            values: the draws of the chunk by variable, `[chain, draw, *shape]`; none in warmup.
        """
        heard = None
        for name, listener in list(self._listeners.items()):
            try:
                heard = heard or record(told, self._names, values)
                listener.hear(heard)
            except Exception as error:
                self._note(name, error)
                if not listener.mends:
                    del self._listeners[name]
                    _closed(listener)

    def close(self) -> None:
        """Let go of all of them."""
        for name, listener in self._listeners.items():
            try:
                listener.close()
            except Exception as error:
                self._note(name, error)

    def _note(self, name: str, error: Exception) -> None:
        if name not in self._failed:
            self._failed.add(name)
            words = f"{name} could not be written: {type(error).__name__}: {' '.join(str(error).split())}."
            self._folder.note(words, "The draws are not touched by it.", "watching")


@contextlib.contextmanager
def watched(
    folder: RunFolder | None, model: Model, settings: Mapping[str, Any], tensorboard: bool = False
) -> Iterator[Watch]:
    """Write down how a run is getting on.

    Args:
        folder: of the run; nothing is written where there is none.
        model: what is sampled.
        settings: of the run.
        tensorboard: whether to write events for TensorBoard, too.

    Yields:
        A function that is told of every chunk. It never raises an error.
    """
    if folder is None:
        yield lambda told, values: None
        return
    names = quantities(model)
    listeners: dict[str, Listener] = {FILE: MetricsFile(folder.path)}
    if tensorboard:
        listeners["events of TensorBoard"] = Board(folder.path, names, settings)
    watch = Listeners(folder, names, listeners)
    try:
        yield watch
    finally:
        watch.close()


def check_tensorboard(tensorboard: bool, out: Any) -> None:
    """Refuse events that have no place to go, or no package that writes them.

    Raises:
        ValueError: there is no directory.
        ModuleNotFoundError: tensorboardX is missing.
    """
    if not isinstance(tensorboard, bool | np.bool_):
        raise ValueError(f"tensorboard={tensorboard!r}: expected True or False.")
    if tensorboard and out is None:
        raise ValueError(
            "tensorboard=True was given without out: events go to a folder of the run. Give out='runs/name', too."
        )
    if tensorboard:
        tensorboard_package()


def _closed(listener: Listener) -> None:
    with contextlib.suppress(Exception):
        listener.close()
