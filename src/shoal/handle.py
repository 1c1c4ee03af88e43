"""A run beside the program that began it: looked at, paused, stopped, waited for."""

import atexit
import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from shoal.durable.folder import RunFolder
from shoal.models.model import Model
from shoal.progress import NOTHING_YET, ChunkReport, Progress, progress
from shoal.request import Call, checked_call
from shoal.results.result import Result
from shoal.results.so_far import SoFar
from shoal.samplers import Sampler
from shoal.sampling import carried_out, held
from shoal.stopping import Stop, stoppable
from shoal.until import Until

# What a program may have set for one thread, by JAX's name for it: the run computes under the same.
SURROUNDINGS: dict[str, Callable[[Any], contextlib.AbstractContextManager[None]]] = {
    "jax_default_device": jax.default_device,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_debug_nans": jax.debug_nans,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
}


def start(  # noqa: PLR0913  (the arguments of `shoal.sample`)
    model: Model,
    *,
    num_chains: int = 128,
    num_warmup: int | None = None,
    num_samples: int | None = None,
    until: Until | None = None,
    sampler: str | Sampler = "auto",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress_bar: bool = False,
    initial_positions: Any = None,
    tuning: Mapping[str, np.ndarray] | None = None,
    precision: str = "float32",
    num_superchains: int | None = None,
    thinning: int = 1,
    keep: Sequence[str] | str | None = None,
    save_warmup: bool = False,
    tile: int | None = None,
    mesh: Mapping[str, int] | None = None,
    row_block: int | None = None,
    deterministic: bool = True,
    max_seconds: float | None = None,
    tensorboard: bool = False,
) -> "Handle":
    """Begin a run and return at once; it goes on in a thread of its own.

    Its draws are, bit by bit, those of `shoal.sample` with the same arguments. Several runs may go on at once, each
    with its own `out`; they take turns on the devices. When the program ends first, the run is stopped at the end of
    its chunk. With `out` it goes on from there by the same call or `shoal.resume`; without it its draws are lost, and a
    line on standard error says so.

    Args:
        model: as for `shoal.sample`, and so are all others but these two.
        num_chains: chains.
        num_warmup: draws of every chain in which the sampler is tuned.
        num_samples: draws of every chain after the warmup.
        until: how precise the answer is to be where there is no such number.
        sampler: by name, or as an object.
        seed: of the run.
        out: a directory or a URL to keep the run in.
        progress_bar: show progress, beside what the program shows; off by default, since `Handle.progress` tells it.
        initial_positions: where chains begin.
        tuning: of another result.
        precision: "float32", "mixed" or "float64".
        num_superchains: starting points.
        thinning: every so many draws one is kept.
        keep: names of the quantities that are kept, "moments" or "none".
        save_warmup: whether the draws of the warmup are, too.
        tile: chains that are evaluated at once.
        mesh: into how many parts the chains, the rows of the data and the parameters go.
        row_block: rows of the data that are evaluated at once.
        deterministic: whether the same seed gives the same draws on a GPU, too.
        max_seconds: that the run may take; time in which it is paused does not count.
        tensorboard: whether to write events for TensorBoard.

    Returns:
        The handle of the run.

    Raises:
        ValueError: an argument is out of its range, or `out` is being written. `Handle.wait` raises what comes later.
    """
    call = checked_call(
        model,
        num_chains=num_chains,
        num_warmup=num_warmup,
        num_samples=num_samples,
        until=until,
        sampler=sampler,
        seed=seed,
        out=out,
        initial_positions=initial_positions,
        tuning=tuning,
        precision=precision,
        num_superchains=num_superchains,
        tile=tile,
        mesh=mesh,
        row_block=row_block,
        deterministic=deterministic,
        max_seconds=max_seconds,
        thinning=thinning,
        keep=keep,
        save_warmup=save_warmup,
        tensorboard=tensorboard,
    )
    with contextlib.ExitStack() as until_started:
        folder = until_started.enter_context(held(call.place))
        show = until_started.enter_context(progress(progress_bar))
        handle = Handle(call, folder, show)
        handle._start(until_started.pop_all())
    return handle


class Handle:
    """A run that goes on in a thread of its own, as `shoal.start` returns it."""

    def __init__(self, call: Call, folder: RunFolder | None, show: Callable[[ChunkReport], None]) -> None:
        """Do nothing yet.

        Args:
            call: what is to be done.
            folder: of the run.
            show: the progress.
        """
        self._call, self._folder, self._show = call, folder, show
        self._stop = Stop(call.max_seconds)
        self._ended = threading.Event()
        self._waiting: list[int] = []  # threads that are told what goes wrong
        self._last: ChunkReport | None = None
        self._so_far: SoFar | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def done(self) -> bool:
        """Whether the run has ended, for whatever reason."""
        return self._ended.is_set()

    @property
    def state(self) -> str:
        """How it is: "running", "paused", "finished", "stopped" (before its number of draws) or "failed"."""
        if not self.done:
            return "paused" if self._stop.pause.is_on else "running"
        if self._result is None:
            return "stopped" if self._was_stopped else "failed"
        if any(note.kind == "failed" for note in self._result.notes):
            return "failed"
        return "stopped" if self._result.interrupted else "finished"

    def progress(self) -> Progress:
        """How far the run was at the end of its last chunk."""
        last = self._last
        if last is None:
            return NOTHING_YET
        rate = last.gradients / last.seconds if last.seconds > 0 else float("nan")
        return Progress(
            last.phase, last.done, last.total, last.acceptance, last.divergences, rate, last.r_hat, last.seconds
        )

    def inspect(self) -> Result:
        """The draws so far, while the run goes on.

        Returns:
            A result that counts as interrupted and does not change any more: draws that are made later are not in it.
            Its arrays in memory are read-only; with `out` they are read from disk on access. Of a run that has ended,
            the result itself.

        Raises:
            RuntimeError: there are no draws yet.
        """
        if self.done:
            return self._outcome()
        last, so_far = self._last, self._so_far
        seconds, gradients = (last.seconds, last.gradients) if last and last.phase == "sampling" else (0.0, 0)
        result = None if so_far is None else so_far.result(seconds, gradients)
        if result is None:
            raise RuntimeError(
                f"The run has no draws yet: its phase is {self.progress().phase!r}. Look again when its first chunk of "
                "sampling is kept."
            )
        return result

    def pause(self, timeout: float | None = None) -> None:
        """Have the run stand still at the end of its chunk, and wait until it does: then the devices are free.

        A run that has ended stays as it is. What was drawn is kept as ever: a process that is killed meanwhile loses
        nothing of a run with `out` but, in the warmup of `auto`, its last stage.

        Args:
            timeout: seconds to wait; None to wait as long as it takes, compiling included.

        Raises:
            TimeoutError: it took longer; the run pauses nevertheless when it gets there.
        """
        if not self._stop.pause.begin(_checked_timeout(timeout)):
            raise TimeoutError(
                f"The run did not get to the end of a chunk within {timeout:g} s; it pauses when it does. "
                "run.go_on() takes that back."
            )

    def go_on(self) -> None:
        """Have a paused run go on."""
        self._stop.pause.end()

    def stop(self) -> None:
        """Have the run end at the end of its chunk, as Ctrl-C does, and return at once: `wait` has the result.

        Everything that was drawn is kept. In the warmup there is no result yet; with `out` the same call goes on from
        there.
        """
        self._stop.ask()

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until the run has ended.

        Ctrl-C meanwhile ends the run at the end of its chunk and returns the draws so far, as for `shoal.sample`; a
        second one leaves at once, and so does one in the warmup of a run without `out`. With `out` SIGTERM ends the run
        as well, and takes its course when everything is kept. That holds in the main thread, which Python gives all
        signals to.

        Args:
            timeout: seconds to wait; None to wait as long as it takes.

        Returns:
            The result; the same one each time.

        Raises:
            TimeoutError: it took longer; the run goes on. (Also where `max_seconds` passed before the first draw.)
            RuntimeError: the run is paused and there is no timeout, or `stop` ended it before the first draw.
            Exception: whatever went wrong in the run, as `shoal.sample` raises it.
        """
        timeout = _checked_timeout(timeout)
        if timeout is None and self._stop.pause.is_on:
            raise RuntimeError(
                "The run is paused, so there is no end to wait for: run.go_on() first, or give a timeout."
            )
        before = self._stop.signal
        self._waiting.append(threading.get_ident())
        try:
            with stoppable(self._stop, keeps=self._call.place is not None):
                ended = self._ended.wait(timeout)
                if self._stop.signal is not before:
                    ended = self._ended.wait()  # until everything is kept
        except KeyboardInterrupt:
            self.stop()
            raise
        finally:
            self._waiting.remove(threading.get_ident())
        if not ended:
            raise TimeoutError(f"The run has not ended within {timeout:g} s; it goes on.")
        if self._was_stopped and self._stop.signal is not before:
            raise KeyboardInterrupt
        return self._outcome()

    def __repr__(self) -> str:
        seen = self.progress()
        of = "" if seen.total is None else f" of {seen.total:,}"
        return f"<shoal.Handle: {self.state}, {seen.phase}, {seen.done:,}{of} iterations>"

    @property
    def _was_stopped(self) -> bool:
        """Whether it was stopped before there was a result."""
        return isinstance(self._error, KeyboardInterrupt)

    def _outcome(self) -> Result:
        if self._was_stopped:
            raise RuntimeError(
                "The run was stopped before its first draw, so it has no result. With out= the same call goes on "
                "with it."
            )
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def _start(self, entered: contextlib.ExitStack) -> None:
        """Begin, with what was entered for the run and is to be left when it ends."""
        context, surroundings = contextvars.copy_context(), _surroundings()
        self._thread = threading.Thread(
            target=context.run, args=(self._carry_out, entered, surroundings), name="shoal-run", daemon=True
        )
        _ending_with_the_program()
        _GOING_ON.add(self)
        try:
            self._thread.start()
        except BaseException:
            _GOING_ON.discard(self)
            entered.close()
            raise

    def _carry_out(self, entered: contextlib.ExitStack, surroundings: Mapping[str, Any]) -> None:
        try:
            with entered, contextlib.ExitStack() as around:
                for name, value in surroundings.items():
                    around.enter_context(SURROUNDINGS[name](value))
                self._result = carried_out(self._call, self._folder, self._stop, self._report, self._expose)
        except BaseException as error:
            self._error = error
        finally:
            if self._error is not None and not self._was_stopped and not self._waiting:
                _say(f"A run has failed with {type(self._error).__name__}: {self._error} (run.wait() raises it.)")
            self._ended.set()
            self._so_far = None
            self._stop.pause.over()
            _GOING_ON.discard(self)

    def _report(self, chunk: ChunkReport) -> None:
        self._last = chunk
        self._show(chunk)

    def _expose(self, so_far: SoFar) -> None:
        self._so_far = so_far

    def _leave(self) -> None:
        """The program ends: wait for the run, which was stopped, and say what becomes of it."""
        assert self._thread is not None
        self._thread.join()
        seen, place = self.progress(), self._call.place
        drawn = f"after {seen.done:,} draws of each chain" if seen.phase == "sampling" else "in its warmup"
        kept = (
            "What it has drawn is lost: run.wait() waits for the end of a run, and out= keeps it."
            if place is None
            else f"It is kept in '{place}': the same call or shoal.resume goes on with it."
        )
        if self.state == "stopped":
            _say(f"The program ended while a run was going on, which was stopped {drawn}. {kept}")


_GOING_ON: set[Handle] = set()


def _end_all() -> None:
    left = tuple(_GOING_ON)
    for handle in left:
        handle.stop()
    for handle in left:
        handle._leave()


_registered = False


def _ending_with_the_program() -> None:
    """Have runs that go on when the program ends end first."""
    global _registered
    if not _registered:
        # `atexit` comes too late: by then Python has closed the pools of threads that Zarr writes files with. They are
        # closed by this, in reverse order.
        getattr(threading, "_register_atexit", atexit.register)(_end_all)
        _registered = True


def _surroundings() -> dict[str, Any]:
    return {name: getattr(jax.config, name) for name in SURROUNDINGS}


def _checked_timeout(timeout: Any) -> float | None:
    """Refuse what is no time to wait."""
    number = isinstance(timeout, (int, float, np.number)) and not isinstance(timeout, bool)
    if timeout is not None and not (number and timeout >= 0):
        raise ValueError(f"timeout={timeout!r}: expected a number of seconds, at least 0, or None for any time.")
    return None if timeout is None else float(timeout)


def _say(words: str) -> None:
    with contextlib.suppress(Exception):
        print(f"Shoal: {words}", file=sys.stderr, flush=True)
