"""What every kernel is: a Markov transition of an ensemble of chains."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from shoal.ensemble import Ensemble, Info, Transition
from shoal.randomness import Keys, Stream
from shoal.target import Target


class Kernel[Tuning](eqx.Module):
    """A Markov transition of a tile of chains.

    Fields are what is fixed when the program is compiled. `tuning` is what adaptation may move; it is always
    an argument, so one compiled step serves any values of it.

    Attributes:
        exact: the target is invariant under `step` for any tuning.
        reference: where the law is from.
    """

    exact: ClassVar[bool]
    reference: ClassVar[str]

    @abc.abstractmethod
    def tuning(self, dim: int, dtype: DTypeLike) -> Tuning:
        """A first guess of the tuning."""

    @abc.abstractmethod
    def step(self, keys: Keys, ensemble: Ensemble, tuning: Tuning, target: Target) -> tuple[Ensemble, Info]:
        """One draw of every chain. It reads no randomness but `keys`, and of `tuning` it changes nothing."""

    @property
    def even(self) -> bool:
        """Whether all chains do the same work for a draw, so that groups of devices come to the end of it together."""
        return False

    @property
    def draws_per_sweep(self) -> int:
        """How many draws a chain makes before it meets the others again."""
        return 1

    def init(self, position: Float[Array, "chains dim"], target: Target) -> Ensemble:
        """The ensemble at these positions."""
        log_density, gradient = target(position)
        return Ensemble(position, log_density, gradient)

    @property
    def remembers(self) -> bool:
        """Whether an ensemble holds more for this kernel than where the chains are."""
        return type(self).init is not Kernel.init

    @property
    def starts_anywhere(self) -> bool:
        """Whether `init` may be asked of positions where the log density is not finite, and then says so."""
        return not self.remembers

    def sweep(
        self, stream: Stream, index: Int[Array, ""], ensemble: Ensemble, tuning: Tuning, target: Target
    ) -> tuple[Ensemble, Transition]:
        """`draws_per_sweep` draws of every chain, numbers `index`, `index + 1`, and so on.

        A kernel whose chains need unequal work per draw overrides this and lets each chain begin its next
        draw when it has finished one.

        Returns:
            The ensemble after the last draw; all draws, along a leading axis.
        """
        after, info = self.step(stream.draw(index), ensemble, tuning, target)
        transition = Transition(ensemble, after, info)
        return after, jax.tree.map(lambda leaf: leaf[None], transition)


AnyKernel = Kernel[Any]
