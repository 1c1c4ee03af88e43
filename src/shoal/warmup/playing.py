"""By what program a stage of a warmup is played."""

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from shoal.adaptation.base import Adaptation
from shoal.kernels.jittered_hmc import Jittered
from shoal.learning import Learner, Number
from shoal.mesh import Placement
from shoal.program import Program, Run
from shoal.run import advance, compile_phase, enter, frozen, on_host, prepare_phase, sweeping, sweeps_as_array
from shoal.warmup.trail import Trail

# Draws of a stage at a time, at most; after as many is told how far it is.
CAPACITY = 10
# What a trail has of the statistics that `KeepDraws` keeps.
TOLD = ("acceptance_rate", "step_size", "n_steps")


class Playing(Protocol):
    """A program, and what it is to do in a stage."""

    @property
    def program(self) -> Program: ...

    def prepare(self, placement: Placement, root: PRNGKeyArray, position: np.ndarray, tuning: Any) -> None:
        """Begin to compile it in the background, of a kernel that remembers nothing; as `prepare_phase`."""
        ...

    def enter(self, run: Run, placement: Placement, draws: int, learning: bool) -> Run:
        """The run at the start of a stage; as `shoal.run.enter`."""
        ...

    def compile(self, run: Run, placement: Placement) -> None:
        """Compile all that a stage needs, without a draw."""
        ...

    def play(self, run: Run, count: int, placement: Placement) -> tuple[Run, Trail]:
        """The run some draws later, at most `CAPACITY`, and these."""
        ...

    def settled(self, run: Run, placement: Placement) -> PyTree:
        """The tuning that the adaptation has settled on."""
        ...


class OwnProgram(NamedTuple):
    """A program of the stage, with its adaptation in it.

    Attributes:
        program: keeps what a `Trail` has.
    """

    program: Program

    def prepare(self, placement: Placement, root: PRNGKeyArray, position: np.ndarray, tuning: Any) -> None:
        prepare_phase(self.program, placement, root, position, tuning, CAPACITY)

    def enter(self, run: Run, placement: Placement, draws: int, learning: bool) -> Run:
        return enter(self.program, run, placement, draws, learning)

    def compile(self, run: Run, placement: Placement) -> None:
        compile_phase(self.program, run, placement, CAPACITY)
        self.settled(run, placement)

    def play(self, run: Run, count: int, placement: Placement) -> tuple[Run, Trail]:
        run, buffer = advance(self.program, run, sweeps_as_array(count), placement, CAPACITY)
        return run, Trail(**{name: np.asarray(leaf)[:count, placement.rows] for name, leaf in buffer.items()})

    def settled(self, run: Run, placement: Placement) -> PyTree:
        return frozen(self.program, run, placement)


class SamplingProgram:
    """The program of sampling, draw by draw; the step size is learned between draws, and nothing else.

    So what is sampled is compiled once for settling, racing and sampling.
    """

    def __init__(self, program: Program, capacity: int, adaptation: Adaptation, most: int) -> None:
        """Play nothing yet.

        Args:
            program: of sampling, of a kernel of the `Jittered` kind.
            capacity: of it.
            adaptation: of the step size.
            most: chains that there are, of which some or all move: what is learned does not depend on how they are
                spread over devices.
        """
        self.program, self._capacity, self._adaptation, self._most = program, capacity, adaptation, most
        self._learner: Learner | None = None

    def prepare(
        self, placement: Placement, root: PRNGKeyArray, position: Float[np.ndarray, "chains dim"], tuning: Any
    ) -> None:
        prepare_phase(self.program, placement, root, position, tuning, self._capacity)
        self._begun(tuning).prepare()

    def enter(self, run: Run, placement: Placement, draws: int, learning: bool) -> Run:
        self._learner = self._begun(run.tuning, draws, learning)
        # What the statistics of sampling fold here nobody asks for: they begin anew when sampling does.
        return run if run.statistics else enter(self.program, run, placement, 0)

    def compile(self, run: Run, placement: Placement) -> None:
        compile_phase(self.program, run, placement, self._capacity)
        self._begun(run.tuning).learn(np.ones(placement.num_chains, run.ensemble.position.dtype))

    def _begun(self, tuning: Any, draws: int = 1, learning: bool = True) -> Learner:
        return Learner(self._adaptation, np.asarray(tuning.step_size), self._most, draws, learning)

    def play(self, run: Run, count: int, placement: Placement) -> tuple[Run, Trail]:
        kernel, learner, draws = self.program.kernel, self._learner, []
        assert isinstance(kernel, Jittered)
        assert learner is not None
        later = sweeping(self.program, run, placement, self._capacity)
        for _ in range(count):
            run, kept = later(run)
            acceptance, size, steps = (placement.fetched(kept["stats"][name], slice(0, 1))[:, 0] for name in TOLD)
            at, gradients = on_host(run.ensemble, placement), kernel.integrator.gradients_per_step * steps
            draws.append((at.position, at.gradient, at.log_density, acceptance, size, gradients))
            learner.learn(acceptance)
            run = replace(run, tuning=self._tuning(run, learner.step_size, placement))
        return run, Trail(*map(np.stack, zip(*draws, strict=True)))

    def settled(self, run: Run, placement: Placement) -> PyTree:
        assert self._learner is not None
        return self._tuning(run, self._learner.settled, placement)

    def _tuning(self, run: Run, step_size: Number, placement: Placement) -> PyTree:
        return replace(run.tuning, step_size=placement.place(step_size, split=False))
