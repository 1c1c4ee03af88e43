r"""Trajectory length by the ChEES criterion: all coordinates together (Hoffman, Radul & Sountsov, 2021, PMLR 130:3907).

$P = I$: the criterion is the change in the estimator of the expected square of the whole whitened position. It needs
no direction to be known, and is dominated by the bulk of the coordinates: one slow direction among many moderate ones
counts for little in it.
"""

from jaxtyping import Array, Float

from shoal.adaptation.trajectory import TrajectoryLength


class ChEES(TrajectoryLength):
    """Moves `tuning.trajectory` up the ChEES criterion per gradient."""

    def seen(self, vectors: Float[Array, "chains dim"], slowest: Float[Array, " dim"]) -> Float[Array, "chains seen"]:
        return vectors
