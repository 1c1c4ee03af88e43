"""True parameters and data sets from the user's simulator, read at the door."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from shoal.compiling import compiled
from shoal.models import datasets
from shoal.models.causes import cause
from shoal.models.model import Model
from shoal.target import Target


class Simulated(NamedTuple):
    """What was simulated.

    Attributes:
        values: the true value of every quantity, `[data sets, *shape]`, in the order of the model.
        data: the data sets, as `shoal.sample_many` takes them.
    """

    values: dict[str, np.ndarray]
    data: Any


def simulated(model: Model, simulate: Callable[..., Any], key: PRNGKeyArray, count: int) -> Simulated:
    """Parameters and data, mapped over keys where `simulate` is a function of JAX, or one by one.

    Args:
        model: whose parameters they are.
        simulate: from a key to `(values, data)`.
        key: of all.
        count: data sets.

    Raises:
        ValueError: it fails, or gives something else; the message says what.
    """
    keys = jax.random.split(key, count)
    try:
        made = jax.jit(jax.vmap(simulate))(keys)
    except Exception:  # whatever a function raises that cannot be traced; of one that fails, it comes again below
        made = [_once(simulate, keys, number) for number in range(count)]
    if isinstance(made, list):
        pairs = [_pair(one) for one in made]
        names = list(pairs[0][0])
        values = {name: np.stack([np.asarray(one.get(name, np.nan)) for one, _ in pairs]) for name in names}
        data = [one for _, one in pairs]
    else:
        values, data = _pair(jax.tree.map(np.asarray, made))
    return Simulated(_checked(model, dict(values), count), data)


def _once(simulate: Callable[..., Any], keys: PRNGKeyArray, number: int) -> Any:
    try:
        return simulate(keys[number])
    except Exception as error:
        raise ValueError(
            f"simulate failed for data set {number}: {cause(error)}. It is called with a random key of JAX and returns "
            "the true parameters and the data; a function of numpy makes its generator of the key, such as "
            "numpy.random.default_rng(numpy.asarray(jax.random.key_data(key)))."
        ) from error


def _pair(made: Any) -> tuple[Mapping[str, Any], Any]:
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], Mapping):
        what = f"{type(made).__name__} of {len(made)}" if isinstance(made, tuple) else type(made).__name__
        raise ValueError(
            f"simulate returned a {what}; expected a tuple of two: the true parameters, a mapping from names to "
            "values on their supports, and the data, as the model has them."
        )
    return made[0], made[1]


def _checked(model: Model, values: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """In the order of the model.

    Raises:
        ValueError: a name or a shape is not the model's, or all data sets have the same parameters.
    """
    missing = [name for name in model.parameter_names if name not in values]
    unknown = [name for name in values if name not in model.shapes]
    if missing or unknown:
        said = [f"nothing for {', '.join(missing)}"] * bool(missing) + [f"also {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(
            f"simulate gave {' and '.join(said)}; expected a value for each parameter of the model '{model.name}', "
            f"{', '.join(model.parameter_names)}, and, if wanted, for some of its deterministic quantities, "
            f"{', '.join(model.deterministic_names) or 'of which it has none'}."
        )
    for name, array in values.items():
        if array.shape[1:] != model.shapes[name]:
            raise ValueError(
                f"simulate gave {name} in the shape {array.shape[1:]}, and the model '{model.name}' has it in the "
                f"shape {model.shapes[name]}."
            )
    if count > 1 and all((array == array[:1]).all() for array in values.values()):
        raise ValueError(
            "simulate gave the same parameters for all keys. Draw them with the key that it is given, by jax.random or "
            "from a generator of numpy that is made of it."
        )
    return {name: values[name] for name in model.shapes if name in values}


def log_densities(model: Model, values: Mapping[str, np.ndarray], data: Any, dtype: type) -> np.ndarray:
    """The model's log density at the true parameters, that of the unconstrained coordinates, by data set.

    Args:
        model: whose.
        values: as from `simulated`.
        data: of all data sets, on the host; leaves `[data sets, ...]`.
        dtype: in which draws are made.

    Raises:
        ValueError: values are outside their supports; the message names the data set.
    """
    given = {name: np.asarray(values[name], dtype) for name in model.parameter_names}
    rows = datasets.cast(data, dtype)
    position, level = _at_truth(model.target(dtype), model.compiled.unconstrain, given, rows)
    outside = np.isnan(np.asarray(position))
    if outside.any():
        number, coordinate = np.argwhere(outside)[0]
        name = model.layout.parameters()[coordinate]
        raise ValueError(
            f"simulate gave data set {number} {name} = {np.array2string(given[name][number], precision=3)}, which is "
            "outside its support in the model. Check what it draws, or the support."
        )
    return np.nan_to_num(np.asarray(level, np.float64), nan=-np.inf)


@compiled
def _at_truth(target: Target, unconstrain: Callable[..., Any], values: Any, data: Any) -> Any:
    def of_one(values: Any, data: Any) -> Any:
        position = unconstrain(values, data)
        log_density, _ = eqx.tree_at(lambda t: t.data, target, data)(position[None])
        return position, log_density[0]

    return jax.vmap(of_one)(values, data)
