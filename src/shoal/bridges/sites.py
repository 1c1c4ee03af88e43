"""What a NumPyro model is made of: latent sites, deterministic sites, plates, found by tracing it once."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import init_to_uniform

from shoal.bridges.arguments import is_array
from shoal.models.axes import RESERVED
from shoal.models.causes import cause
from shoal.models.layout import Slot

# NumPyro's handlers stand on one stack for all threads: two models that are traced at one time would see each other's.
HANDLERS = threading.RLock()


class Sites(NamedTuple):
    """The findings of one trace.

    Attributes:
        slots: latent sites, in order.
        deterministic: name and shape of each.
        fixed: names of sites that keep their first value (`numpyro.param`, `mutable`).
        dims: name of each axis of a latent or deterministic site that stands in plates.
        observed: name and shape of each observed site, as it is drawn.
        observed_dims: name of each axis of such a site that stands in plates.
    """

    slots: tuple[Slot, ...]
    deterministic: tuple[tuple[str, tuple[int, ...]], ...]
    fixed: tuple[str, ...]
    dims: dict[str, tuple[str, ...]]
    observed: tuple[tuple[str, tuple[int, ...]], ...]
    observed_dims: dict[str, tuple[str, ...]]


def find_sites(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sites:
    """Trace the model with the values of its arguments, at an abstract point.

    Args:
        function: the NumPyro model.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        The sites.

    Raises:
        ValueError: the model fails, has discrete latent sites, subsamples, or has no latent site.
    """
    failure: Exception | None = None
    for run, arguments in _ways(args, kwargs):
        try:
            return run(function, *arguments)
        except _DoorError as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            failure = failure or error
    assert failure is not None
    raise ValueError(
        f"The NumPyro model {title(function)} failed when it was run once with the arguments given: "
        f"{cause(failure)}. Check that it runs by itself, under numpyro.handlers.seed(model, 0), with the "
        "same arguments."
    ) from failure


def _ways(args: Any, kwargs: Any) -> Iterator[tuple[Callable[..., Sites], tuple[Any, Any]]]:
    """Ways to run a model once, the fast one first, which computes nothing.

    Numpy arrays cannot be indexed by what is traced; JAX arrays become traced themselves when computed with.
    """
    as_jax = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, (args, kwargs))
    for run in (_abstractly, _concretely):
        yield run, (args, kwargs)
        yield run, as_jax


def _abstractly(function: Callable[..., Any], args: Any, kwargs: Any) -> Sites:
    found: list[Sites] = []
    jax.eval_shape(lambda key: found.append(_read(trace(function, key, args, kwargs))), jax.random.key(0))
    return found[0]


def _concretely(function: Callable[..., Any], args: Any, kwargs: Any) -> Sites:
    return _read(trace(function, jax.random.key(0), args, kwargs))


def trace(function: Callable[..., Any], key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the model at a point drawn in unconstrained space, where improper priors can be drawn too.

    Args:
        function: the NumPyro model.
        key: of the draw.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        NumPyro's trace.
    """
    drawn = handlers.substitute(handlers.seed(function, key), substitute_fn=_start)
    with HANDLERS:
        return handlers.trace(drawn).get_trace(*args, **kwargs)


def title(function: Callable[..., Any]) -> str:
    """The name of a model, for messages and records.

    Args:
        function: the NumPyro model.

    Returns:
        Its name, or that of its class.
    """
    inner = getattr(function, "func", function)
    return getattr(inner, "__name__", type(inner).__name__)


class _DoorError(Exception):
    """A model that cannot be sampled; the message is for the user."""


def _start(site: dict[str, Any]) -> Any:
    if site["type"] != "sample" or site["is_observed"] or _is_discrete(site["fn"]):
        return None
    return init_to_uniform(site)


def _is_discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except NotImplementedError:
        return False


def _read(sites: dict[str, Any]) -> Sites:
    latent = {name: site for name, site in sites.items() if site["type"] == "sample" and not site["is_observed"]}
    _refuse(sites, latent)
    slots = tuple(_slot(name, site) for name, site in latent.items())
    deterministic = tuple(
        (name, tuple(jnp.shape(site["value"])))
        for name, site in sites.items()
        if site["type"] == "deterministic" and _is_numeric(site["value"])
    )
    fixed = tuple(name for name, site in sites.items() if site["type"] in ("param", "mutable"))
    shapes = {slot.name: slot.shape for slot in slots} | dict(deterministic)
    observed = {
        name: drawn_batch(site["fn"], site["value"]) + tuple(site["fn"].event_shape)
        for name, site in sites.items()
        if site["type"] == "sample" and site["is_observed"] and jnp.size(site["value"])
    }
    dims, of_observed = (
        consistent({name: _axes(name, sites[name], shape) for name, shape in some.items()}, some)
        for some in (shapes, observed)
    )
    return Sites(slots, deterministic, fixed, dims, tuple(observed.items()), of_observed)


def drawn_batch(law: Any, value: Any) -> tuple[int, ...]:
    """The batch shape of an observed site when it is drawn: one draw for every observation that the density counts.

    Args:
        law: the distribution of the site.
        value: what was observed.
    """
    observed = jnp.shape(value)[: max(jnp.ndim(value) - law.event_dim, 0)]
    try:
        return tuple(np.broadcast_shapes(tuple(law.batch_shape), observed))
    except ValueError:  # the log density fails of it, too, and says so with the name of the site
        return tuple(law.batch_shape)


def _refuse(sites: dict[str, Any], latent: dict[str, Any]) -> None:
    discrete = [name for name, site in latent.items() if _is_discrete(site["fn"])]
    if discrete:
        raise _DoorError(
            f"The NumPyro model has discrete latent sites: {', '.join(discrete)}. Gradient-based samplers "
            "move only continuous ones. Sum these out of the model (a mixture as "
            "numpyro.distributions.MixtureSameFamily or MixtureGeneral, otherwise logsumexp in "
            "numpyro.factor), or give them as observed data."
        )
    subsampled = [
        name
        for name, site in sites.items()
        if site["type"] == "plate" and site["args"][1] not in (None, site["args"][0])
    ]
    if subsampled:
        raise _DoorError(
            f"The NumPyro model subsamples its plates: {', '.join(subsampled)}. A random minibatch would "
            "make the log density random, and the samplers need a fixed one. Leave subsample_size out."
        )
    points = [name for name, site in latent.items() if isinstance(site["fn"], dist.Delta)]
    if points:
        raise _DoorError(
            f"The NumPyro model samples {', '.join(points)} from a Delta distribution, which has no density "
            "to move in. Use numpyro.deterministic for such a value."
        )
    if not latent:
        raise _DoorError(
            "The NumPyro model has no latent site: every numpyro.sample is observed. Leave obs out for what is unknown."
        )


def _slot(name: str, site: dict[str, Any]) -> Slot:
    value = site["value"]
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise _DoorError(
            f"The latent site {name} has values of type {value.dtype}, but only real ones can be sampled. "
            "Write it in terms of real sites (real and imaginary part, say)."
        )
    try:
        free = biject_to(site["fn"].support)._inverse(value)
    except NotImplementedError as error:
        raise _DoorError(
            f"The latent site {name} has the support {site['fn'].support!r}, to which NumPyro knows no map "
            "from unconstrained space. Use another distribution, or write the site as a transformation of "
            "real ones."
        ) from error
    return Slot(name, tuple(value.shape), tuple(jnp.shape(free)))


def _is_numeric(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | bool | int | float)


def _axes(name: str, site: dict[str, Any], shape: tuple[int, ...]) -> tuple[str, ...] | None:
    frames = [frame for frame in site.get("cond_indep_stack", ()) if frame.dim is not None]
    if not frames:
        return None
    if site["type"] == "deterministic":  # noqa: SIM108
        # Nothing says how many trailing axes one value takes, except where the plates account for all.
        event = 0 if len(frames) == len(shape) else -1
    else:
        event = site["fn"].event_dim
    batch = len(shape) - event
    axes = [f"{name}_dim_{index}" for index in range(len(shape))]
    for frame in frames:
        index = batch + frame.dim
        if event < 0 or not 0 <= index < batch or shape[index] != frame.size or frame.name in RESERVED:
            return None
        axes[index] = frame.name
    return tuple(axes)


def consistent(
    named: Mapping[str, tuple[str, ...] | None],
    shapes: Mapping[str, tuple[int, ...]],
    known: Mapping[str, int] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Leave out sites whose axes would clash with a quantity, or with an axis of another length.

    Args:
        named: names of axes by site; None where nothing is known of them.
        shapes: of the sites.
        known: lengths of axes that have names already.
    """
    lengths = dict(known or {})
    kept = {}
    for name, axes in named.items():
        if axes is None or any(axis in shapes for axis in axes) or len(set(axes)) < len(axes):
            continue
        pairs = list(zip(axes, shapes[name], strict=True))
        if all(lengths.setdefault(axis, length) == length for axis, length in pairs):
            kept[name] = axes
    return kept


def fixed_values(
    function: Callable[..., Any], names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The first values of `param` and `mutable` sites, which sampling leaves alone, as NumPyro does.

    Args:
        function: the NumPyro model.
        names: of the sites.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        Name to value.
    """
    if not names:
        return {}
    sites = trace(function, jax.random.key(0), args, kwargs)
    return {name: sites[name]["value"] for name in names}
