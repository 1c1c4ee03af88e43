"""From a NumPyro model to a Shoal model.

The log density on R^dim is minus NumPyro's potential energy, which contains log|J| once. The model is
replayed at every point, so supports that depend on other sites, reparametrisations and factors need no
special care.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import compute_log_probs, constrain_fn, potential_energy, unconstrain_fn
from numpyro.primitives import Messenger

from shoal.bridges.arguments import Call, is_array, is_float_array, narrowed, take_apart
from shoal.bridges.predictive import SiteDraw, SiteObserved, SitePrior
from shoal.bridges.sites import HANDLERS, Sites, consistent, find_sites, fixed_values, title
from shoal.models import datasets
from shoal.models.causes import cause
from shoal.models.compiled import Compiled
from shoal.models.formula import LOG_DET, hashable
from shoal.models.layout import Layout
from shoal.models.model import Model
from shoal.models.precision import current, shape_of
from shoal.models.predictive import Predictive


@dataclass(frozen=True, eq=False)
class FixedValues:
    """Values of sites that sampling leaves alone.

    Attributes:
        values: name to value.
    """

    values: dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A NumPyro model and the constants among its arguments: a value that hashes.

    Attributes:
        function: the NumPyro model.
        call: its arguments without their data.
        layout: latent sites on the vector.
        deterministic: name and shape of the deterministic sites.
        fixed: sites with fixed values, None without such sites.
    """

    function: Callable[..., Any]
    call: Call
    layout: Layout
    deterministic: tuple[tuple[str, tuple[int, ...]], ...]
    fixed: FixedValues | None

    def prepared(self) -> Callable[..., Any]:
        """The model with fixed sites substituted, and with a key for `numpyro.prng_key`."""
        values = self.fixed.values if self.fixed else {}
        return _DefaultKey(handlers.substitute(self.function, data=values) if values else self.function)


@dataclass(frozen=True)
class SiteLogDensity:
    """`(position[dim], data) -> scalar`, the Jacobian included.

    Attributes:
        program: what to evaluate.
    """

    program: Program

    def __call__(self, position: Any, data: Any) -> Any:
        """Evaluate at one point."""
        free = self.program.layout.split(position)
        with HANDLERS:
            energy = potential_energy(self.program.prepared(), *self.program.call.join(data), free)
        return -jnp.asarray(energy, position.dtype)


@dataclass(frozen=True)
class SiteConstrain:
    """`(position[dim], data) -> {name: value}`: latent sites, then deterministic ones.

    Attributes:
        program: what to evaluate.
    """

    program: Program

    def __call__(self, position: Any, data: Any) -> dict[str, Any]:
        """Evaluate at one point."""
        program = self.program
        args, kwargs = program.call.join(data)
        free = program.layout.split(position)
        with HANDLERS:
            values = constrain_fn(program.prepared(), args, kwargs, free, return_deterministic=True)
        names = [*program.layout.names, *(name for name, _ in program.deterministic)]
        return {name: jnp.asarray(values[name]) for name in names}


@dataclass(frozen=True)
class SiteUnconstrain:
    """`({name: value}, data) -> position[dim]`.

    Attributes:
        program: what to evaluate.
    """

    program: Program

    def __call__(self, values: Mapping[str, Any], data: Any) -> Any:
        """Evaluate at one point."""
        args, kwargs = self.program.call.join(data)
        with HANDLERS:
            free = unconstrain_fn(self.program.prepared(), args, kwargs, dict(values))
        return self.program.layout.join(free)


@dataclass(frozen=True)
class SiteParts:
    """`(position[dim], data) -> {words: scalar}`: the log probability of each site, and log|J|.

    Attributes:
        program: what to evaluate.
    """

    program: Program

    def __call__(self, position: Any, data: Any) -> dict[str, Any]:
        """Evaluate at one point."""
        parts, _ = _at_sites(self.program, position, data)
        whole = SiteLogDensity(self.program)(position, data)
        sites = {f"site {name}": jnp.asarray(part, position.dtype) for name, part in parts.items()}
        return sites | {LOG_DET: whole - sum(sites.values(), start=jnp.zeros((), position.dtype))}


@dataclass(frozen=True)
class SiteMaps:
    """`(position[dim], data) -> {name: (constraint, map)}`: a support may depend on sites before it.

    Attributes:
        program: what to evaluate.
    """

    program: Program

    def __call__(self, position: Any, data: Any) -> dict[str, tuple[Any, Callable[..., Any]]]:
        """The supports at one point."""
        _, trace = _at_sites(self.program, position, data)
        supports = {name: trace[name]["fn"].support for name in self.program.layout.names}
        return {name: (support, partial(_with_log_det, support)) for name, support in supports.items()}


def _at_sites(program: Program, position: Any, data: Any) -> tuple[dict[str, Any], Any]:
    """The log probability of each site at a point, and the trace that has its support."""
    values = SiteConstrain(program)(position, data)
    latent = {name: values[name] for name in program.layout.names}
    with HANDLERS:
        return compute_log_probs(program.prepared(), *program.call.join(data), latent)


def _with_log_det(support: Any, free: Any) -> tuple[Any, Any]:
    bijection = biject_to(support)
    value = bijection(free)
    return value, jnp.sum(bijection.log_abs_det_jacobian(free, value))


class _DefaultKey(Messenger):
    """Gives `numpyro.prng_key` a fixed key, so that the log density is one function."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "prng_key" and msg["value"] is None:
            msg["value"] = jax.random.key(0)


def from_numpyro(
    model_fn: Callable[..., Any],
    *args: Any,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Model:
    """Bring in a NumPyro model whose latent sites are continuous.

    Arrays among the arguments, with at least one axis, are the data: `model.data` holds them by argument, and
    `model.with_data(y=...)` swaps them without compiling again. Numbers, text and None belong to the program.
    Where the model computes with the values of its arguments while it is traced (a size from `idx.max()`,
    say), the integers among them, or all arrays, become constants too. NaN and infinity in the data are
    accepted where log density and gradient are finite all the same, as behind a mask.

    Axes of sites in plates are named after the plates. What is observed can be drawn anew, given the parameters or from
    the prior: `shoal.posterior_predictive`, `shoal.prior_predictive`.

    Args:
        model_fn: the model; also wrapped in handlers such as `reparam`, or in `functools.partial`.
        *args: its positional arguments.
        dims: names of axes, beside or instead of those from plates.
        coords: labels along named axes.
        name: of the model; without it the function's.
        **kwargs: its keyword arguments. An argument of the model that is itself called dims, coords or name
            can be bound beforehand: `from_numpyro(functools.partial(model, name=...))`.

    Returns:
        A model whose `constrain` gives latent and deterministic sites.

    Raises:
        ValueError: the model fails, has discrete latent sites, subsamples, or has no latent site; or data are
            not finite where that matters.
    """
    if not callable(model_fn):
        raise ValueError(
            f"from_numpyro was given {model_fn!r}, but it takes a NumPyro model, that is a function that "
            "calls numpyro.sample, followed by the arguments of that function."
        )
    args, kwargs = jax.tree.map(narrowed, (args, kwargs))
    sites = find_sites(model_fn, args, kwargs)
    values = fixed_values(model_fn, sites.fixed, args, kwargs)
    program, data, reason = _build(model_fn, args, kwargs, sites, FixedValues(values) if values else None)
    compiled = Compiled(
        program.layout,
        SiteLogDensity(program),
        SiteConstrain(program),
        SiteUnconstrain(program),
        sites.deterministic,
        reason,
        _holds_nonfinite(program, data),
        SiteParts(program),
        SiteMaps(program),
        _predictive(program, sites),
    )
    axes = sites.dims | dict(dims or {})
    axes = _dims_of_observed(sites, axes) | axes
    return Model.from_parts(compiled, data, dims=axes, coords=coords, name=name or title(model_fn))


def _predictive(program: Program, sites: Sites) -> Predictive:
    names = tuple(name for name, _ in sites.observed)
    return Predictive(
        sites.observed, SiteDraw(program, names), SiteObserved(program, sites.observed), SitePrior(program, names)
    )


def _dims_of_observed(sites: Sites, named: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Those from plates, where the axes that have names already leave them as they are."""
    shapes = {slot.name: slot.shape for slot in sites.slots} | dict(sites.deterministic) | dict(sites.observed)
    lengths = {
        axis: length
        for name, axes in named.items()
        for axis, length in zip((axes,) if isinstance(axes, str) else axes, shapes.get(name, ()), strict=False)
    }
    return consistent(sites.observed_dims, dict(sites.observed), lengths)


def _build(
    function: Callable[..., Any], args: Any, kwargs: Any, sites: Sites, fixed: FixedValues | None
) -> tuple[Program, Any, str]:
    """Keep as many arrays as possible as arguments of the program."""
    reason, failure = "none of its arguments is an array", None
    for is_data in (is_array, is_float_array, lambda _: False):
        call, data = take_apart(function, args, kwargs, is_data)
        data = datasets.read(data) or None
        program = Program(hashable(function), call, Layout(sites.slots), sites.deterministic, fixed)
        try:
            _check_traceable(program, data)
        except Exception as error:
            failure = failure or error
            reason = (
                f"{title(function)} needs the values of its arguments while it is traced ({cause(failure)}), "
                "so they are constants of the program"
            )
            continue
        return program, data, "" if data is not None else reason
    assert failure is not None
    raise ValueError(
        f"The log density of the NumPyro model {title(function)} cannot be traced: {cause(failure)}. Check "
        "the shapes of its arguments, and use jax.numpy (no numpy, float(...), or if on values) for what "
        "depends on latent sites."
    ) from failure


def _check_traceable(program: Program, data: Any) -> None:
    # In x64 mode NumPyro's triangular transforms fail on float32.
    dtype = current()
    position = jax.ShapeDtypeStruct((program.layout.dim,), dtype)
    structs = datasets.structs(data, dtype)
    shape_of(SiteLogDensity(program), position, structs)
    shape_of(SiteConstrain(program), position, structs)


def _holds_nonfinite(program: Program, data: Any) -> bool:
    """Whether data hold NaN or infinity that the log density does not mind; refuse them if it does."""
    try:
        datasets.check_finite(data)
    except ValueError as error:
        dtype = current()
        position = jnp.full((program.layout.dim,), 0.1, dtype)
        evaluate = jax.jit(jax.value_and_grad(lambda *given: SiteLogDensity(program)(*given)))
        parts = evaluate(position, datasets.cast(data, dtype))
        if not all(jnp.all(jnp.isfinite(part)) for part in parts):
            raise ValueError(str(error)) from None
        return True
    return False
