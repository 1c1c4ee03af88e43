"""Draws from a NumPyro model: its observed sites freed, given its latent ones, or all of it from the prior.

The law is that of `numpyro.infer.Predictive`, which runs the model under the same handlers, `substitute`, `seed` and
`trace`. There the user calls the model without its observations; here they stay among its arguments and are overruled,
so that sites keep their shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from shoal.bridges.sites import HANDLERS, drawn_batch, trace
from shoal.compiling import compiled
from shoal.models import datasets
from shoal.models.precision import current

if TYPE_CHECKING:
    from shoal.bridges.numpyro import Program


@dataclass(frozen=True)
class SiteDraw:
    """`({name: value}, data, key) -> {name: value}`: the observed sites, drawn given the latent ones.

    Attributes:
        program: what to run.
        names: of the observed sites.
    """

    program: "Program"
    names: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any], data: Any, key: Any) -> dict[str, Any]:
        """Draw at one point."""
        return _drawn(self.program, self.names, dict(values), data, key)


@dataclass(frozen=True)
class SitePrior:
    """`(data, key) -> {name: value}`: latent, deterministic and observed sites, all of them drawn.

    Attributes:
        program: what to run.
        names: of the observed sites.
    """

    program: "Program"
    names: tuple[str, ...]

    def __call__(self, data: Any, key: Any) -> dict[str, Any]:
        """Draw once."""
        made = (*self.program.layout.names, *(name for name, _ in self.program.deterministic))
        return _drawn(self.program, (*made, *self.names), {}, data, key)


@dataclass(frozen=True)
class SiteObserved:
    """`data -> {name: array}`: the values of observed sites, but for those that are computed from latent ones.

    Attributes:
        program: what to run.
        shapes: name and shape of the observed sites.
    """

    program: "Program"
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, data: Any) -> dict[str, np.ndarray]:
        """Look them up."""
        cast = datasets.cast(data, current())
        one, other = (jax.tree.map(np.asarray, _observed(self, cast, jax.random.key(seed))) for seed in (0, 1))
        return {name: one[name] for name, _ in self.shapes if np.array_equal(one[name], other[name], equal_nan=True)}


@compiled
def _observed(observed: SiteObserved, data: Any, key: Any) -> dict[str, Any]:
    """The values of the observed sites at a point that the key says."""
    sites = trace(observed.program.prepared(), key, *observed.program.call.join(data))
    return {name: _unmasked(sites[name]["fn"], sites[name]["value"], shape) for name, shape in observed.shapes}


def _unmasked(law: Any, value: Any, shape: tuple[int, ...]) -> Any:
    """What was observed, NaN where a mask says that nothing was: what stands there is a filler."""
    value = jnp.broadcast_to(value, shape)
    while not isinstance(law, dist.MaskedDistribution):
        if not hasattr(law, "base_dist"):
            return value
        law = law.base_dist
    seen = jnp.broadcast_to(law._mask, law.batch_shape)
    seen = seen.reshape(seen.shape + (1,) * (len(shape) - seen.ndim))
    return jnp.where(seen, value, jnp.nan)


def _drawn(program: "Program", names: tuple[str, ...], values: dict[str, Any], data: Any, key: Any) -> dict[str, Any]:
    args, kwargs = program.call.join(data)
    fixed = program.fixed.values if program.fixed else {}
    freed = _Freed(handlers.substitute(program.function, data=fixed) if fixed else program.function)
    drawn = handlers.seed(handlers.substitute(freed, data=values), key)
    with HANDLERS:
        sites = handlers.trace(drawn).get_trace(*args, **kwargs)
    return {name: jnp.asarray(sites[name]["value"]) for name in names}


class _Freed(Messenger):
    """Has observed sites drawn, within `scan` and `cond` too: `numpyro.handlers.uncondition` stops at these.

    A site whose law is broadcast against its observations is drawn once for each of them, as the density counts them.
    """

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            first, *rest = msg["args"]
            if callable(first):
                msg["args"] = (_Freed(first), *rest)
            else:
                yes, no, *rest = rest
                msg["args"] = (first, _Freed(yes), _Freed(no), *rest)
            stack = msg["kwargs"]["substitute_stack"]
            msg["kwargs"]["substitute_stack"] = [entry for entry in stack if entry[0] != "condition"]
        elif msg["type"] == "sample" and msg["is_observed"] and jnp.size(msg["value"]):
            law, batch = msg["fn"], drawn_batch(msg["fn"], msg["value"])
            msg["fn"] = law if law.batch_shape == batch else law.expand(batch)
            msg["is_observed"], msg["value"] = False, None
            msg["kwargs"]["sample_shape"] = ()
