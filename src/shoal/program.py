"""What a run is to do (Program), and how far it has got (Run)."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from shoal.adaptation.base import Adaptation, Fixed
from shoal.ensemble import Ensemble, Transition
from shoal.kernels.base import AnyKernel
from shoal.statistics.base import Statistic
from shoal.target import Target

Keep = Callable[[Transition, Target], PyTree]


def keep_nothing(transition: Transition, target: Target) -> dict[str, dict[str, Array]]:
    """Keep no draw: for warmup."""
    return {}


@dataclass(frozen=True)
class KeepDraws:
    """Keep quantities on the user's supports, and what each draw reports, in ArviZ's words.

    Attributes:
        names: of the quantities; None for all.
    """

    names: tuple[str, ...] | None = None

    def __call__(self, transition: Transition, target: Target) -> dict[str, dict[str, Array]]:
        info, values = transition.info, target.constrained(transition.after.position)
        energy = {} if info.energy is None else {"energy": info.energy}
        return {
            "values": {name: value for name, value in values.items() if self.names is None or name in self.names},
            "stats": {
                "lp": target.of_model(transition.after.log_density, transition.after.position),
                "acceptance_rate": info.acceptance_rate,
                **energy,
                "energy_error": info.energy_error,
                "diverging": info.diverging,
                "n_steps": info.num_steps,
                "step_size": info.step_size,
            },
        }


keep_draws = KeepDraws()


class Program(eqx.Module):
    """What to do: the composition, and nothing that moves.

    Attributes:
        target: what is sampled.
        kernel: how chains move.
        adaptation: how the tuning is learned.
        statistics: what is folded over the draws.
        keep: what is kept of a draw.
    """

    target: Target
    kernel: AnyKernel
    adaptation: Adaptation = Fixed()
    statistics: dict[str, Statistic] = eqx.field(default_factory=dict)
    keep: Keep = eqx.field(static=True, default=keep_nothing)


class Run(eqx.Module):
    """How far it has got: all that one needs to go on, and nothing else.

    Attributes:
        root: the key of the run; it never changes.
        step: draws that every chain has made since the run began, warmup included.
        chain: the chains' numbers; negative for those that fill up a tile.
        ensemble: where the chains are.
        tuning: what the next draw is made with.
        adaptation: what the adaptation remembers.
        statistics: what the statistics remember, by name.
        window: the number of the phase's first draw, and how many draws the phase is to have.
    """

    root: PRNGKeyArray
    step: Int[Array, ""]
    chain: Int[Array, " chains"]
    ensemble: Ensemble
    tuning: PyTree
    adaptation: PyTree
    statistics: dict[str, PyTree]
    window: Int[Array, "2"]
