"""A model in one precision, evaluated at many points by programs of its own.

Nothing of them outlives the check. JAX keeps the trace of a function that lives on, with the form that the numpy arrays
it closes over had in one precision, and the same function then fails in the other (`shoal.models.precision.shape_of`):
were the programs those of a run, a check in double would be in the way of a run in single.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from shoal.models import datasets
from shoal.models.model import Model
from shoal.target import Target

# Points that are evaluated at once: a tile of a run on a CPU. Intermediate results take no more memory than there.
BLOCK = 32


class Probe:
    """The functions of a model, at points `[points, dim]` on the host, in single or double.

    Attributes:
        model: what is looked at.
        dtype: float32 or float64.
        data: of the model, on the device.
    """

    def __init__(self, model: Model, dtype: Any) -> None:
        """Put the data on the device; nothing is compiled yet.

        Args:
            model: what is looked at.
            dtype: float32 or float64.

        Raises:
            ValueError: data are too large for float32.
        """
        self.model, self.dtype = model, np.dtype(dtype)
        with self.precision():
            self.data = datasets.cast(model.data, self.dtype)
        self._programs: dict[str, Any] = {}

    def precision(self) -> Any:
        """JAX in the precision of the probe, while it is entered."""
        return jax.enable_x64(self.dtype == np.float64)

    def target(self) -> Target:
        """The log density as a run would have it, as a function that nothing else has traced."""
        log_density, constrain = self.model.compiled.log_density, self.model.compiled.constrain
        log = lambda position, data: log_density(position, data)
        return Target(log, lambda position, data: constrain(position, data), self.data, self.model.dim)

    def at(
        self, position: Float[np.ndarray, "points dim"]
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "points dim"]]:
        """The log density and its gradient."""
        log_density = self.model.compiled.log_density
        return self.each("log density", jax.value_and_grad(lambda point, data: log_density(point, data)), position)

    def is_finite(self, position: Float[np.ndarray, "points dim"]) -> Bool[np.ndarray, " points"]:
        """Whether both are."""
        value, gradient = self.at(position)
        return np.isfinite(value) & np.isfinite(gradient).all(1)

    def parts(self, position: Float[np.ndarray, "points dim"]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The terms that the log density is the sum of, and the gradient of each; nothing where they are not known."""
        parts = self.model.compiled.parts
        if parts is None:
            return {}

        def both(point: Any, data: Any) -> Any:
            twice = lambda point: (made := parts(point, data), made)
            slopes, values = jax.jacrev(twice, has_aux=True)(point)
            return {name: (values[name], slopes[name]) for name in values}

        return self.each("parts", both, position)

    def values(self, position: Float[np.ndarray, "points dim"]) -> dict[str, np.ndarray]:
        """Every quantity of the model, on its support."""
        constrain = self.model.compiled.constrain
        return self.each("values", lambda point, data: constrain(point, data), position)

    def pieces(self, position: Float[np.ndarray, "points dim"]) -> list[np.ndarray]:
        """The coordinates of each parameter, `[points, coordinates]`, in the order of the layout."""
        return np.split(position, np.cumsum([slot.size for slot in self.model.layout.slots])[:-1], axis=1)

    def parameter_of(self, coordinate: str) -> str:
        """The parameter of a coordinate: "beta" of "beta[3]", and "w[0]" where a parameter has that name."""
        names = self.model.layout.names
        return coordinate if coordinate in names else coordinate.rpartition("[")[0]

    def told(self, point: Float[np.ndarray, " dim"], coordinates: Sequence[str]) -> str:
        """Where a point is, by some coordinates or parameters on their supports: "tau = 0.12, beta[3] = -1.3"."""
        values, slots = self.values(point[None]), {slot.name: slot for slot in self.model.layout.slots}
        said = []
        for coordinate in coordinates:
            name = self.parameter_of(coordinate)
            index = coordinate.removeprefix(name).strip("[]")
            value = values[name][0]
            # A simplex has other numbers than coordinates, and is shown whole.
            if index and slots[name].free_shape == slots[name].shape:
                value = value[tuple(int(number) for number in index.split(","))]
            words = np.array2string(np.asarray(value), precision=4, threshold=4, edgeitems=2)
            said.append(f"{coordinate} = {' '.join(words.split())}")
        return ", ".join(said)

    def each(self, name: str, of_one: Callable[[Any, Any], Any], position: Float[np.ndarray, "points dim"]) -> Any:
        """`of_one(point, data)` at every point, in blocks of `BLOCK`.

        Args:
            name: of the program, which is compiled once.
            of_one: for one point.
            position: the points.

        Returns:
            A pytree of numpy arrays with a leading axis of points.

        Raises:
            ValueError: it cannot be compiled in this precision; so does TypeError.
        """
        count = len(position)
        rows = np.resize(np.arange(count), -(-count // BLOCK) * BLOCK)
        blocks = np.asarray(position, self.dtype)[rows].reshape(-1, BLOCK, self.model.dim)
        with self.precision():
            if name not in self._programs:
                self._programs[name] = self._compiled(of_one)
            made = [jax.tree.map(np.asarray, self._programs[name](jnp.asarray(block), self.data)) for block in blocks]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *made)

    def _compiled(self, of_one: Callable[[Any, Any], Any]) -> Any:
        def block(position: Any, data: Any) -> Any:
            # As in a run: see `shoal.target`.
            with jax.default_matmul_precision("highest"):
                return jax.vmap(of_one, in_axes=(0, None))(position, data)

        points = jax.ShapeDtypeStruct((BLOCK, self.model.dim), self.dtype)
        return jax.jit(block).lower(points, self.data).compile()


def listed(names: Sequence[str], shown: int = 3) -> str:
    """Names in words, the first few where they are many."""
    if len(names) > shown + 1:
        return f"{', '.join(names[:shown])} and {len(names) - shown} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def time_left(until: float) -> bool:
    """Whether there is time left, by the clock of `time.perf_counter`."""
    return time.perf_counter() < until
