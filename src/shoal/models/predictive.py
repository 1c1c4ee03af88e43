"""How a model draws data given its parameters: functions that compare by value, as those of the log density do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Predictive:
    """What a model says of data that are not seen yet.

    Attributes:
        shapes: name and shape of each generated quantity.
        draw: `({name: value}, data, key) -> {name: value}`: the generated quantities at one point, given the parameters
            on their supports.
        observed: `data -> {name: array}`: what was observed of the generated quantities, on the host, in their shapes.
        prior: `(data, key) -> {name: value}`: parameters, deterministic and generated quantities, all of them drawn;
            None where the model is a log density, which cannot be drawn from.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    draw: Callable[..., dict[str, Any]]
    observed: Callable[[Any], dict[str, np.ndarray]]
    prior: Callable[..., dict[str, Any]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The generated quantities."""
        return tuple(name for name, _ in self.shapes)


@dataclass(frozen=True)
class Generate:
    """`({name: value}, data, key) -> {name: value}` by the user's function.

    Attributes:
        function: of the parameters, the data if it takes them, and the key.
        takes_data: whether it does.
    """

    function: Callable[..., Any]
    takes_data: bool

    def __call__(self, values: Mapping[str, Any], data: Any, key: Any) -> dict[str, Any]:
        """Draw at one point."""
        made = self.function(dict(values), *(data,) * self.takes_data, key)
        return {name: jnp.asarray(value) for name, value in made.items()}


@dataclass(frozen=True)
class SameName:
    """`data -> {name: array}`: the entries of the data that are called as a generated quantity, and have its shape.

    Attributes:
        shapes: name and shape of the generated quantities.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, data: Any) -> dict[str, np.ndarray]:
        """Look them up."""
        entries = data if isinstance(data, Mapping) else {}
        arrays = {name: entries[name] for name, _ in self.shapes if isinstance(entries.get(name), np.ndarray)}
        return {name: arrays[name] for name, shape in self.shapes if name in arrays and arrays[name].shape == shape}
