r"""Trajectory length by the SNAPER criterion: the slowest direction alone (Sountsov & Hoffman, 2022, arXiv:2110.11576).

$P = w^\top$ with $w$ the leading principal component of the whitened ensemble, by one step of power iteration in every
sweep: the criterion is $E[(((q' - Eq') \cdot w)^2 - ((q - Eq) \cdot w)^2)^2]$ per gradient. For a Gaussian direction
of standard deviation $\sigma$ and $h$ uniform it is $(\frac12 - \sin(2a)/(4a))/a$ up to a factor, $a = \tau/\sigma$,
and largest at $\tau = \frac{\pi}{2} \sigma$, however many other directions there are.
"""

from jaxtyping import Array, Float

from shoal.adaptation.trajectory import TrajectoryLength


class SNAPER(TrajectoryLength):
    """Moves `tuning.trajectory` up the SNAPER criterion per gradient."""

    def seen(self, vectors: Float[Array, "chains dim"], slowest: Float[Array, " dim"]) -> Float[Array, "chains seen"]:
        return (vectors * slowest[None]).sum(-1, keepdims=True)
