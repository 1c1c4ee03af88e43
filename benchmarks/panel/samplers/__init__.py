"""The samplers of the panel by name: functions `(problem) -> Outcome`, Shoal's own first.

Peers are called as their documentation says, from the same starts, until 4,000 effective draws or the time limit.
A peer's package is imported when it is called.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from ..outcome import Outcome, Problem
from . import ours


class Peer(NamedTuple):
    """A sampler of another package.

    Attributes:
        module: of this folder.
        name: a sampler there, or what makes one from `arguments`.
        arguments: which of its kind.
    """

    module: str
    name: str
    arguments: tuple[Any, ...] = ()

    def __call__(self, problem: Problem) -> Outcome:
        """Sample."""
        found = getattr(import_module(f"{__name__}.{self.module}"), self.name)
        return (found(*self.arguments) if self.arguments else found)(problem)


OURS: dict[str, Callable[[Problem], Outcome]] = ours.samplers()

PEERS: dict[str, Callable[[Problem], Outcome]] = {
    "blackjax_chees_64": Peer("blackjax_peers", "ChEES", (64,)),
    "blackjax_chees_128": Peer("blackjax_peers", "ChEES", (128,)),
    "blackjax_chees_diagonal_64": Peer("blackjax_peers", "ChEES", (64, "diagonal")),
    "blackjax_meads": Peer("blackjax_peers", "meads"),
    "blackjax_nuts": Peer("few_chains", "window_nuts"),
    "blackjax_nuts_auto": Peer("few_chains", "auto_nuts"),
    "blackjax_mams": Peer("few_chains", "adjusted_microcanonical"),
    "blackjax_laps": Peer("laps", "laps"),
    "numpyro_nuts": Peer("numpyro_peers", "nuts"),
    "nutpie": Peer("nutpie_peers", "Nutpie", ("diag",)),
    "nutpie_low_rank": Peer("nutpie_peers", "Nutpie", ("low_rank",)),
}

SAMPLERS = OURS | PEERS
