"""Stages of a warmup: some draws of all chains with one kernel and one tuning, then a look from the host."""

import contextlib
import itertools
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from shoal.adaptation.base import Adaptation
from shoal.kernels.base import AnyKernel
from shoal.kernels.jittered_hmc import Jittered
from shoal.mesh import Placement
from shoal.paths import like
from shoal.program import Program, Run
from shoal.run import (
    Whereabouts,
    on_host,
    resume,
    revived,
    shape_of_ensemble,
    start,
    whereabouts,
)
from shoal.target import Target
from shoal.warmup.ledger import Ledger, NoLedger, Played
from shoal.warmup.modes import outweighed
from shoal.warmup.playing import CAPACITY, OwnProgram, Playing, SamplingProgram
from shoal.warmup.scouts import leaders, those_of, together
from shoal.warmup.trail import FEW_CHAINS, Trail, keep_trail

# Starts that must have a scout in the upper of two modes before those in the lower, without mass, are lost.
FEWEST_STARTS = 2


class Sampling(NamedTuple):
    """What follows the warmup.

    Attributes:
        program: of it, which plays the stages that have its kernel.
        capacity: of that.
        foresee: told the tuning that it may turn out to have, as soon as something is known of it.
        early: whether programs may be compiled before they are needed, beside others, in more memory.
    """

    program: Program
    capacity: int
    foresee: Callable[[Any], None]
    early: bool = True


class Left(NamedTuple):
    """What a stage has left, for whoever keeps it.

    Attributes:
        phase: that it is of.
        stage: its number, from 1 on.
        kernel: the name of its kernel.
        trail: its draws.
        members: the numbers of the chains that moved.
        again: whether an earlier process has played it.
        burnt_in: whether it came after burn-in.
    """

    phase: str
    stage: int
    kernel: str
    trail: Trail
    members: np.ndarray
    again: bool
    burnt_in: bool


class Stages:
    """Where the chains are between stages, and what it has cost to get there.

    Attributes:
        placement: of the chains that move: all, or the scouts.
        run: the state.
        gradients: evaluations so far, over all chains.
        draws: of every chain so far.
        compile_seconds: spent compiling.
        earlier_seconds: that stages took which an earlier process has played.
        tuning: that the last draws were made with, on the device; None before the first.
        ledger: of the stages that have been played.
        keep: told what every stage has left, by its number, when that is in the ledger.
        phase: that the stages are of.
        burnt_in: whether the chains have come from their starts to the bulk, as far as is known.
        members: the numbers that the chains that move have among all.
        clock: seconds since some time, pauses not counted.
    """

    def __init__(
        self,
        target: Target,
        placement: Placement,
        root: PRNGKeyArray,
        position: Float[np.ndarray, "chains dim"],
        most: int,
        tell: Callable[["Stages", float], None],
        chosen: bool = False,
        sampling: Sampling | None = None,
    ) -> None:
        """Begin at the starts.

        Args:
            target: what is sampled, with its data where the placement has them.
            placement: how chains are tiled and spread.
            root: the key of the run.
            position: the starts.
            most: draws of every chain; no stage begins after as many.
            tell: told after every few draws, with their mean acceptance.
            chosen: whether the starts are where the user wants them: then nobody is given up.
            sampling: what follows the warmup, if anything is compiled for it.
        """
        self.target, self.placement, self.root, self.tell = target, placement, root, tell
        self._sampling = sampling
        self._targets = {placement.layout.devices: target}
        self.position, self.most, self._chosen = position, most, chosen
        self.run: Run | None = None
        self._all = placement
        self._starts = together(position)
        self._follows = np.arange(placement.num_chains)
        self.gradients = self.draws = 0
        self.compile_seconds = self.earlier_seconds = 0.0
        self.tuning: Any = None
        self.ledger: Ledger = NoLedger()
        self.keep: Callable[[Left], None] = lambda left: None
        self.phase = "warmup"
        self.burnt_in = False
        self.members = np.arange(placement.num_chains)
        self.clock = time.perf_counter
        self._number = 0
        self._left: Whereabouts | None = None  # by chains that others now stand in for
        self._given_up: set[int] = set()  # starts from which some scout was
        self._made = 0  # draws that the random numbers of later ones must not repeat
        self._kernel: AnyKernel | None = None
        self._compiled: set[Hashable] = set()

    @property
    def exhausted(self) -> bool:
        """Whether the warmup has had all its draws."""
        return self.draws >= self.most

    @property
    def num_chains(self) -> int:
        return self.placement.num_chains

    def _target_at(self, placement: Placement) -> Target:
        """What is sampled, with its data on the devices where chains are."""
        devices = placement.layout.devices
        if devices not in self._targets:
            self._targets[devices] = placement.place(self.target, split=False)
        return self._targets[devices]

    def scout(self, num_scouts: int) -> None:
        """Go on with as many chains only, the same number from every start, and at least one from each.

        Chains from one start are alike until they move, so that a few of them find out for the others where the bulk
        is. All go where that would spare less than half of them, or leave too few to tell anything.
        """
        follows = leaders(self._starts, num_scouts)
        scouts = np.unique(follows)
        if FEW_CHAINS <= len(scouts) <= self._all.num_chains // 2:
            self._follows = np.searchsorted(scouts, follows)
            self.position = self.position[scouts]
            self.placement, self.members = self._all.part(len(scouts)), scouts

    @property
    def scouting(self) -> bool:
        """Whether only the scouts move."""
        return self.placement != self._all

    def gather(self, behind: np.ndarray) -> int:
        """Go on with all chains, each from where a scout from its start is.

        Args:
            behind: the scouts that no other chain follows, unless all from its start are behind.

        Returns:
            From how many starts scouts were given up.
        """
        if self.scouting:
            self._go_on_from(self._redirected(behind))
            self.placement, self._follows = self._all, np.arange(self._all.num_chains)
            self.members = np.arange(self._all.num_chains)
        return len(self._given_up)

    def give_up(self, lost: np.ndarray, astray: np.ndarray) -> None:
        """Go on without lost scouts: each from where another of its start is.

        Where all from a start are lost, they and all that follow them go on from where scouts of one other start are.

        Args:
            lost: who is given up.
            astray: they and all others that are lost or behind: nobody follows them where their start has another.
        """
        leading = [those_of(scouts, ~astray, ~lost) for scouts in self._scouts()]
        others = itertools.cycle([ahead for ahead in leading if ahead.size])
        rows = np.arange(self.num_chains)
        for number, (scouts, ahead) in enumerate(zip(self._scouts(), leading, strict=True)):
            given_up = scouts[lost[scouts]]
            if given_up.size:
                self._given_up.add(number)
                rows[given_up] = np.resize(ahead if ahead.size else next(others), given_up.size)
        self._go_on_from(rows)

    def lost(self, trail: Trail, quorum: float) -> np.ndarray:
        """The scouts that are lost.

        Those far below, if more than this share of the starts has another; and those in a mode without mass, if a few
        starts have one in the mode that outweighs it.
        """
        lost = np.zeros(self.num_chains, bool)
        if not self.scouting or self._chosen:
            return lost
        far, minor = trail.lost, lost.copy()
        near = np.flatnonzero(~far)
        minor[near] = outweighed(*(part[:, near] for part in (trail.position, trail.gradient, trail.log_density)))
        if self._starts_with_others(far) > quorum * len(self._starts):
            lost |= far
        if self._starts_with_others(far | minor) >= FEWEST_STARTS:
            lost |= minor
        return lost

    def _scouts(self) -> list[np.ndarray]:
        """Of every start."""
        return [np.unique(self._follows[group]) for group in self._starts]

    def _starts_with_others(self, some: np.ndarray) -> int:
        """How many starts have scouts besides these."""
        return sum(not some[scouts].all() for scouts in self._scouts())

    def spare(self, behind: np.ndarray) -> np.ndarray:
        """Of the scouts behind, those from whose start another is not: they lead nobody, and no metric is for them."""
        spare = np.zeros_like(behind)
        for scouts in self._scouts() if self.scouting else ():
            spare[scouts] = behind[scouts] & ~behind[scouts].all()
        return spare

    def _redirected(self, behind: np.ndarray) -> np.ndarray:
        """The scout that each chain goes on from."""
        follows = self._follows.copy()
        for group, scouts in zip(self._starts, self._scouts(), strict=True):
            ahead = scouts[~behind[scouts]]
            for scout in scouts[behind[scouts]] if ahead.size else ():
                redirected = group[self._follows[group] == scout][1:]
                follows[redirected] = np.resize(ahead, redirected.size)
        return follows

    def _go_on_from(self, rows: np.ndarray) -> None:
        """Begin anew, every chain from where one of those that moved is."""
        self.position = self.position[rows]
        if self.run is not None:
            self._left, self._made = whereabouts(self.run, self.placement), int(self.run.step)
        if self._left is not None:
            self._left = Whereabouts(*(part[rows] for part in self._left))
            self.position = self._left.position
        self.run = None

    def prepare(self, kernel: AnyKernel, adaptation: Adaptation, tuning: Any) -> None:
        """Begin to compile stages of a kernel that remembers nothing, for the chains that move now and for all."""
        shared = self.placement.layout == self._all.layout
        if self._sampling is not None and not self._sampling.early:
            return
        with self._compiling(("prepare", kernel)):
            for placement in (self.placement,) if shared else (self.placement, self._all):
                playing = self._playing(kernel, adaptation, placement)
                position = np.resize(self.position, (placement.num_chains, playing.program.target.dim))
                playing.prepare(placement, self.root, position, tuning)

    def _playing(self, kernel: AnyKernel, adaptation: Adaptation, placement: Placement) -> Playing:
        """By what program stages are played: that of sampling where it has this kernel, and steps are all to learn."""
        target = self._target_at(placement)
        same = self._sampling is not None and kernel == self._sampling.program.kernel
        if self._sampling is None or not (same and isinstance(kernel, Jittered) and adaptation.sizes_steps):
            return OwnProgram(Program(target, kernel, adaptation, {}, keep_trail))
        program = replace(self._sampling.program, target=target)
        return SamplingProgram(program, self._sampling.capacity, adaptation, self._all.num_chains)

    def foresee(self, tuning: Any) -> None:
        """Say what tuning sampling may turn out to have, so that it can be compiled meanwhile."""
        with self._compiling("foresee"):
            if self._sampling is not None:
                self._sampling.foresee(tuning)

    def play(
        self,
        kernel: AnyKernel,
        adaptation: Adaptation,
        tuning: Any,
        draws: int,
        learning: bool = True,
    ) -> tuple[Trail, Any]:
        """`draws` draws of every chain, one to a sweep.

        Args:
            kernel: how chains move.
            adaptation: how the tuning is learned meanwhile.
            tuning: to begin with.
            draws: of every chain.
            learning: whether it is; else the tuning stays what an adaptation leaves that has ended.

        Returns:
            What they left, and the tuning that the adaptation has settled on.
        """
        playing = self._playing(kernel, adaptation, self.placement)
        asked = {"kernel": type(kernel).__name__, "draws": draws, "chains": self.num_chains}
        self._number += 1
        if (played := self.ledger.recall(self._number, asked)) is not None:
            return self._again(played, playing.program, tuning, draws)
        began = self.clock() - self.compile_seconds
        run, structure = self.ready(kernel, tuning), jax.tree.structure(tuning)
        with self._compiling(("enter", self.placement.layout, adaptation, structure)):
            run = playing.enter(run, self.placement, draws, learning)
        with self._compiling(("play", self.placement.layout, kernel, adaptation, structure)) as new:
            if new:
                playing.compile(run, self.placement)
        kept, done = [], 0
        while done < draws:
            count = min(CAPACITY, draws - done)
            run, part = playing.play(run, count, self.placement)
            self.tuning = run.tuning
            kept.append(part)
            done += count
            self.draws += count
            self.gradients += int(part.gradients.sum(dtype=np.int64))
            self.tell(self, float(part.acceptance.mean()))
        settled = playing.settled(run, self.placement)
        self.run = run
        trail = Trail(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
        seconds = self.clock() - self.compile_seconds - began
        left = on_host(run.ensemble, self.placement)
        self.ledger.record(
            self._number, asked, lambda: Played(trail, left, settled, int(run.step), self.gradients, seconds)
        )
        self._keep(kernel, trail, again=False)
        return trail, settled

    def _keep(self, kernel: AnyKernel, trail: Trail, again: bool) -> None:
        with self._compiling("keep"):
            self.keep(Left(self.phase, self._number, type(kernel).__name__, trail, self.members, again, self.burnt_in))

    def _again(self, played: Played, program: Program, tuning: Any, draws: int) -> tuple[Trail, Any]:
        """What `play` left when an earlier process played it."""
        self._kernel = program.kernel
        ensemble = like(shape_of_ensemble(program, self.position.dtype), played.ensemble)
        self.run = revived(self.placement, self.root, ensemble, played.step, tuning)
        self.draws, self.gradients = self.draws + draws, played.gradients
        self.earlier_seconds += played.seconds
        self.tuning = self.placement.place(like(tuning, played.tuning), split=False)
        self._keep(program.kernel, played.trail, again=True)
        self.tell(self, float(played.trail.acceptance.mean()))
        return played.trail, self.tuning

    def ready(self, kernel: AnyKernel, tuning: Any) -> Run:
        """The chains where they are, with this kernel's memory and this tuning."""
        run = self.run
        if run is None or kernel != self._kernel:
            here = self._left if run is None else whereabouts(run, self.placement)
            made = self._made if run is None else int(run.step)
            if here is None or kernel.remembers:
                position = self.position if here is None else here.position
                run = self._started(kernel, position, made, tuning)
            else:
                run = resume(self.placement, self.root, here, made, tuning)
        self._kernel = kernel
        tuning = self.placement.place(tuning, split=False)
        return eqx.tree_at(lambda r: r.tuning, run, tuning, is_leaf=lambda leaf: leaf is run.tuning)

    def _started(self, kernel: AnyKernel, position: np.ndarray, made: int, tuning: Any) -> Run:
        with self._compiling(("start", kernel, self.placement.layout)):
            fresh = jax.block_until_ready(
                start(Program(self._target_at(self.placement), kernel), self.placement, self.root, position, tuning)
            )
        self.gradients += self.num_chains
        step = self.placement.place(np.asarray(made, fresh.step.dtype), split=False)
        return eqx.tree_at(lambda r: r.step, fresh, step)

    @contextlib.contextmanager
    def _compiling(self, key: Hashable) -> Iterator[bool]:
        """Whether the program within is new; its time then counts as compiling."""
        began, new = time.perf_counter(), key not in self._compiled
        yield new
        self._compiled.add(key)
        if new:
            self.compile_seconds += time.perf_counter() - began
