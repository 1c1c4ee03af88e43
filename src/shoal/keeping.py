"""The draws of a warmup, where they are asked for: to memory or to disk, by a thread of its own.

A warmup of fixed length keeps a chunk and where the run is after it in one file of a journal, as sampling does. One in
stages keeps what a stage has left once that is recorded, from the record: a stage that is not recorded is played again,
and one that is need not be.
"""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from shoal.compiling import compiled
from shoal.durable.folder import Checkpoint
from shoal.results.background import BackgroundDraws
from shoal.results.course import Course
from shoal.results.draws import MemoryDraws
from shoal.results.journal import Journal
from shoal.results.made import WARMUP
from shoal.results.zarr_draws import ZarrDraws
from shoal.run import Chunk
from shoal.session import Session
from shoal.target import Target
from shoal.warmup.stages import CAPACITY, Left

# What the trail of a stage tells of a draw, by the name that it has among the sample statistics.
TOLD = {"lp": "log_density", "acceptance_rate": "acceptance", "step_size": "step_size", "gradients": "gradients"}


class WarmupDraws:
    """Takes the draws of one warmup.

    Attributes:
        kept: where a warmup of fixed length goes on from; None where it begins.
    """

    def __init__(self, session: Session) -> None:
        """Begin, or go on with what an earlier process has kept.

        Args:
            session: of the run.
        """
        request, folder = session.request, session.folder
        self._session, self._course, self.kept = session, Course(), None
        self._num_chains, self._seen = request.num_chains, 0  # draws before thinning
        room, header = request.num_warmup // request.thinning, session.header({}, {})
        if not request.ends_itself:
            self._course.add("warmup", 1, type(request.sampler.warmup_kernel()).__name__, room)
        with session.changing:
            self._draws = MemoryDraws(room, header) if folder is None else self._reopened(room)
        self._there = self._draws.committed  # what an earlier process has kept
        self._sink = BackgroundDraws(self._draws, session.changing)

    def _reopened(self, room: int) -> ZarrDraws:
        """What is on disk, and where a warmup of fixed length was last."""
        session, folder = self._session, self._session.folder
        assert folder is not None
        draws = ZarrDraws.reopened(folder.path, room, session.header({}, {}), WARMUP, self._course.labels)
        journal, damage = Journal(folder.path, WARMUP.journal), draws.clear_damage()
        if damage:
            folder.note(f"Draws of the warmup on disk are damaged: {damage}.", "All are made again, the same.")
            journal.forget(journal.files())
        if not session.request.ends_itself and not damage:
            self.kept = folder.latest(draws.committed, whole=False, journal=journal)
        if damage or not session.request.ends_itself:
            count = 0 if self.kept is None else self.kept.facts["done"] // session.request.thinning
            journal.forget(journal.beyond(count))
            draws.rewind(count)
        return draws

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._sink.settle()

    def chunk(self, chunk: Chunk, checkpoint: Checkpoint) -> None:
        """Keep a chunk of a warmup of fixed length, and what is gone on from after it."""
        self._sink.append(*self._session.on_host(chunk), checkpoint.archive)

    def stage(self, left: Left) -> None:
        """Keep what a stage has left, but for what is on disk."""
        thinning, trail, begun = self._session.request.thinning, left.trail, self._course.count
        rows = np.arange(thinning - 1 - self._seen % thinning, len(trail.log_density), thinning)
        self._seen += len(trail.log_density)
        self._course.add(left.phase, left.stage, left.kernel, len(rows))
        if self._there > begun and not left.again and isinstance(self._draws, ZarrDraws):
            # They are of a stage whose record is lost, or whose place another has taken.
            with self._session.changing:
                self._draws.cut(begun)
            self._there = begun
        rows = rows[max(0, self._there - begun) :]
        for some in _pieces(rows, self._session.sampling.draws):
            told = {name: getattr(trail, part)[some] for name, part in TOLD.items()}
            told["lp"] = self._of_model(told["lp"], trail.position[some])
            stats = {name: of_all(part, left.members, self._num_chains) for name, part in told.items()}
            self._sink.append(self._values(trail.position[some], left), stats, None)

    def _of_model(self, log_density: np.ndarray, position: np.ndarray) -> np.ndarray:
        """The log density of the model alone, `[draw, member]`."""
        every = jnp.asarray(log_density.reshape(-1)), jnp.asarray(position.reshape(-1, position.shape[-1]))
        return np.asarray(self._session.target.of_model(*every)).reshape(log_density.shape)

    def _values(self, position: np.ndarray, left: Left) -> dict[str, np.ndarray]:
        """The quantities that are kept of some positions `[draw, member, dim]`."""
        session, parts = self._session, []
        size = min(CAPACITY, session.sampling.draws)
        # Always of as many rows: one program, and numbers that do not depend on what else is computed with them.
        everywhere = np.zeros((size, self._num_chains, position.shape[2]), position.dtype)
        for piece in _pieces(position, size):
            everywhere[: len(piece), left.members] = piece
            values = constrained(session.target, jnp.asarray(everywhere), session.request.keep)
            parts.append({name: np.asarray(value)[: len(piece), left.members] for name, value in values.items()})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: of_all(part, left.members, self._num_chains) for name, part in whole.items()}

    def drain(self) -> None:
        """Wait until all is written that has come so far."""
        self._sink.drain()

    def ended(self) -> dict[str, Any]:
        """Those in memory, by the names that they have in a result. No more may come."""
        self._sink.settle()
        draws = self._draws
        if isinstance(draws, ZarrDraws):
            with self._session.changing:
                draws.complete()
            return {}
        if not draws.committed:
            return {}
        # Nobody may write to them: a look at the run shows them, too.
        values, stats = draws.so_far()
        labels = self._course.labels(0, draws.committed)
        return {"warmup_draws": values, "warmup_sample_stats": stats, "warmup_coords": labels}


def of_all(part: np.ndarray, members: np.ndarray, num_chains: int) -> np.ndarray:
    """`[draw, member, ...]` as `[chain, draw, ...]`, NaN for chains that are no members: integers become floats."""
    dtype = np.float64 if part.dtype.kind in "iub" else part.dtype
    every = np.full((num_chains, len(part), *part.shape[2:]), np.nan, dtype)
    every[members] = part.swapaxes(0, 1)
    return every


def _pieces(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


@compiled
def constrained(
    target: Target, position: Float[Array, "draws chains dim"], names: tuple[str, ...] | None
) -> dict[str, Array]:
    """The quantities of these names, all of them where none are given, `[draws, chains, ...]`."""

    def of_draw(position: Float[Array, "chains dim"]) -> dict[str, Array]:
        values = target.constrained(position)
        return {name: value for name, value in values.items() if names is None or name in names}

    return jax.lax.map(of_draw, position)
