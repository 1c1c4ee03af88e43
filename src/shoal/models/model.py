"""What a user writes down: parameters on their supports, a log density, data; checked here, at the door."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from shoal.models import datasets
from shoal.models.axes import axes_of, check_axes, check_reserved
from shoal.models.compiled import Compiled, check_blocks, constrained, in_precision, unconstrained, with_row_block
from shoal.models.contract import deterministic_takes_data, generated_takes_data, read_params, read_terms
from shoal.models.formula import (
    Constrain,
    Formula,
    LogDensity,
    Maps,
    Parts,
    Unconstrain,
    check_term,
    hashable,
    structs,
    term_of,
)
from shoal.models.layout import Layout
from shoal.models.parameters import Parameter
from shoal.models.precision import current
from shoal.models.predictive import Generate, Predictive, SameName
from shoal.models.quantities import key_struct, quantities_of
from shoal.models.rows import ROW_BLOCK, number_of_rows
from shoal.models.values import check_support, read_values
from shoal.target import Target

if TYPE_CHECKING:
    from shoal.checking.outcome import Check


class Model:
    """A posterior: parameters, log density, data.

    The log density is given either in two parts, `log_prior(params)` and `log_likelihood(params, rows)` with
    data whose leaves share their leading axis, or whole, as `log_density(params)` or `log_density(params,
    data)`. Each is written for one point with `jax.numpy`; `params` maps names to values on their supports.
    The Jacobian of the supports is added by Shoal.

    Attributes:
        name: for display and records.
        dims: names of the axes of parameters and deterministic quantities.
        coords: labels along these axes.
        generated_dims: names of the axes of generated quantities.
        generated_coords: labels along those.
        data: the pytree of numpy arrays in the precision given, or None.
        origin: what the command line finds it by: an example, or `file.py:object`; None where it was made otherwise.
    """

    origin: str | None = None
    name: str
    dims: dict[str, tuple[str, ...]]
    coords: dict[str, Any]
    generated_dims: dict[str, tuple[str, ...]]
    generated_coords: dict[str, Any]
    data: Any

    def __init__(  # noqa: PLR0913  (a front door: each is a choice that users make)
        self,
        *,
        params: Mapping[str, Parameter],
        log_prior: Callable[..., Any] | None = None,
        log_likelihood: Callable[..., Any] | None = None,
        log_density: Callable[..., Any] | None = None,
        data: Any = None,
        deterministic: Callable[..., Any] | None = None,
        generated: Callable[..., Any] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        """Check everything that can be checked without computing.

        Args:
            params: name to `shoal.positive()`, `shoal.real(30)` and the like, in the order of the vector.
            log_prior: `(params) -> scalar`.
            log_likelihood: `(params, rows) -> scalar`, the sum over the rows given.
            log_density: `(params) -> scalar` or `(params, data) -> scalar`, instead of the two above.
            data: a pytree of arrays (a list of numbers is one array).
            deterministic: `(params) -> {name: array}` or `(params, data) -> {name: array}`: quantities that are kept,
                summarised and judged beside the parameters.
            generated: `(params, data, key) -> {name: array}`, or `(params, key) -> {name: array}` without data: one
                draw of data given the parameters, by a random key of JAX, for `shoal.posterior_predictive`.
            dims: parameter, deterministic or generated quantity to the names of its axes.
            coords: name of an axis to its labels.
            name: of the model.

        Raises:
            ValueError: something does not fit; the message names the argument or the parameter.
        """
        parameters = read_params(params)
        data = datasets.read(data)
        terms = read_terms(log_prior, log_likelihood, log_density, data is not None)
        rows = None if log_likelihood is None else datasets.check_rows(data)
        datasets.check_finite(data)
        seen = structs(parameters, np.float32), datasets.structs(data, np.float32)
        for label, function, takes_data in terms:
            check_term(label, function, seen[: 1 + takes_data])
            if rows is not None and takes_data and rows > ROW_BLOCK:
                check_term(label, function, (seen[0], datasets.first_rows(seen[1], ROW_BLOCK)))
        formula = Formula(
            parameters,
            tuple(term_of(label, function) for label, function, _ in terms),
            tuple(takes_data for *_, takes_data in terms),
        )
        constrain, made = _deterministic(formula, deterministic, *seen)
        compiled = Compiled(
            formula.layout,
            LogDensity(formula),
            constrain,
            Unconstrain(formula),
            made,
            parts=Parts(formula),
            maps=Maps(formula),
            predictive=_predictive(generated, *seen, [*formula.layout.names, *(name for name, _ in made)]),
            row_block=None if rows is None else ROW_BLOCK,
        )
        main = log_density if log_density is not None else log_likelihood
        self._fill(compiled, data, dims, coords, name or getattr(main, "__name__", "model"))

    @classmethod
    def from_parts(
        cls,
        compiled: Compiled,
        data: Any,
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
        coords: Mapping[str, Any] | None = None,
        name: str = "model",
    ) -> Self:
        """A model whose log density on R^dim exists already: what bridges to other libraries return.

        Args:
            compiled: the functions, which read the data in the form of `data`.
            data: as from `shoal.models.datasets.read`.
            dims: as for `Model`.
            coords: as for `Model`.
            name: as for `Model`.

        Returns:
            The model.

        Raises:
            ValueError: dims or coords do not fit.
        """
        model = object.__new__(cls)
        model._fill(compiled, data, dims, coords, name)
        return model

    def _fill(self, compiled: Compiled, data: Any, dims: Any, coords: Any, name: str) -> None:
        shapes = {slot.name: slot.shape for slot in compiled.layout.slots} | dict(compiled.deterministic)
        generated = {} if compiled.predictive is None else dict(compiled.predictive.shapes)
        named, labels = check_axes(shapes, dims, coords, generated)
        self.dims, self.coords = axes_of(shapes, named, labels)
        self.generated_dims, self.generated_coords = axes_of(generated, named, labels)
        self.name, self.data = name, data
        self._compiled, self._shapes = compiled, shapes
        self._targets: dict[np.dtype, Target] = {}
        self._on_device: dict[np.dtype, Any] = {}

    @property
    def compiled(self) -> Compiled:
        """The functions of the model, without its data: what the other rooms of Shoal look into."""
        return self._compiled

    @property
    def layout(self) -> Layout:
        """The place of each parameter on the unconstrained vector."""
        return self._compiled.layout

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return self.layout.dim

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The parameters, in the order of the vector; whatever else `constrain` gives is deterministic."""
        return self.layout.names

    @property
    def deterministic_names(self) -> tuple[str, ...]:
        """What `constrain` gives beside the parameters."""
        return tuple(name for name, _ in self._compiled.deterministic)

    @property
    def generated_names(self) -> tuple[str, ...]:
        """What `shoal.posterior_predictive` draws given the parameters."""
        return () if self._compiled.predictive is None else self._compiled.predictive.names

    @property
    def number_of_rows(self) -> int | None:
        """Rows of the data; None where the log density is not known as a sum over rows."""
        return None if self._compiled.row_block is None else number_of_rows(self.data)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every quantity that `constrain` gives."""
        return dict(self._shapes)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """A name for every unconstrained coordinate, by its index in unconstrained space."""
        return self.layout.coordinates()

    def target(self, dtype: Any = np.float32) -> Target:
        """The log density on R^dim with its data on the device.

        Args:
            dtype: float32, or float64 inside `jax.enable_x64(True)`.

        Returns:
            The same object for the same precision. Targets of equal models compare equal but for their data.

        Raises:
            ValueError: another precision, or data too large for float32.
        """
        dtype = np.dtype(dtype)
        if dtype.name not in ("float32", "float64"):
            raise ValueError(
                f"target(dtype={dtype.name!r}) was asked for, but log densities are evaluated in float32 or float64."
            )
        if dtype == np.float64 != current():
            raise ValueError(
                "target(float64) was asked for while JAX is in single precision. Call it, and all that uses "
                "it, inside `with jax.enable_x64(True):`; shoal.sample does so by itself for "
                "precision='float64'."
            )
        if dtype not in self._targets:
            check_blocks(self._compiled, self.data)
            if dtype not in self._on_device:
                self._on_device[dtype] = datasets.cast(self.data, dtype)
            functions = self._compiled.log_density, self._compiled.constrain
            self._targets[dtype] = Target(*functions, self._on_device[dtype], self.dim, beside=self._compiled.beside)
        return self._targets[dtype]

    def constrain(self, position: Any) -> dict[str, np.ndarray]:
        """Every quantity of the model, on the user's supports.

        Args:
            position: `[..., dim]`; float64 is evaluated in double.

        Returns:
            Name to `[..., *shape]`, parameters first, then deterministic quantities.

        Raises:
            ValueError: the last axis is not of length `dim`.
        """
        position = np.asarray(position)
        dtype = np.dtype(np.float64 if position.dtype == np.float64 else np.float32)
        if position.ndim == 0 or position.shape[-1] != self.dim:
            raise ValueError(
                f"constrain was given positions of shape {position.shape}, but the last axis must hold the "
                f"{self.dim} unconstrained coordinates of the model: {self._listed(self.coordinates)}."
            )
        flat = position.reshape(-1, self.dim)
        values = in_precision(dtype, lambda: constrained(self.target(current()), flat.astype(current())))
        return {
            name: np.asarray(values[name]).reshape(position.shape[:-1] + shape) for name, shape in self._shapes.items()
        }

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        """The positions of given parameter values.

        Args:
            values: every parameter's name to `[..., *shape]` on its support, with the same leading axes.

        Returns:
            `[..., dim]` in float64.

        Raises:
            ValueError: a name is missing or unknown, a shape is wrong, or a value is outside its support.
        """
        arrays, batch = read_values(values, self.layout)
        flat = {name: array.reshape(-1, *self._shapes[name]) for name, array in arrays.items()}

        def there_and_back() -> tuple[Any, Any]:
            target = self.target(current())
            given = {name: array.astype(current()) for name, array in flat.items()}
            position = unconstrained(self._compiled.unconstrain, given, target.data)
            return position, constrained(target, position)

        position, back = in_precision(np.dtype(np.float64), there_and_back)
        position = np.asarray(position, np.float64)
        check_support(self.layout, flat, position, back)
        return position.reshape(*batch, self.dim)

    def with_data(self, data: Any = None, /, **leaves: Any) -> "Model":
        """The same model of other data: same program, nothing compiles again.

        Args:
            data: the whole pytree, or None.
            **leaves: only some entries, where data are a mapping.

        Returns:
            A new model.

        Raises:
            ValueError: structure, shape or type differ, or the data are not finite.
        """
        if self._compiled.fixed_data or self.data is None:
            reason = self._compiled.fixed_data or "it was built without data="
            raise ValueError(f"with_data cannot change the data of this model: {reason}. Build a new model instead.")
        if (data is None) == (not leaves):
            raise ValueError(
                "with_data takes either the whole data, with_data(data), or entries of it by name, "
                f"with_data(y=...), but it was given {'both' if leaves else 'neither'}."
            )
        if leaves:
            known = list(self.data) if isinstance(self.data, Mapping) else []
            unknown = [name for name in leaves if name not in known]
            if unknown:
                raise ValueError(
                    f"with_data was given {', '.join(unknown)}, but the data of this model have the entries "
                    f"{', '.join(map(str, known)) or 'none by name'}. Use these names, or give the whole "
                    "data as with_data(data)."
                )
            data = dict(self.data) | leaves
        data = datasets.conform(self.data, datasets.read(data))
        if not self._compiled.allow_nonfinite:
            datasets.check_finite(data)
        return self._with(self._compiled, data)

    def with_row_block(self, row_block: int) -> "Model":
        """The same model with at most so many rows of its data evaluated at once.

        Args:
            row_block: rows; the fewer, the less memory. Draws depend on it to the last bit.

        Returns:
            A new model.

        Raises:
            ValueError: the log density is not known as a sum over rows.
        """
        same = self._with(with_row_block(self._compiled, row_block), self.data)
        same.origin, same._on_device = self.origin, self._on_device
        return same

    def _with(self, compiled: Compiled, data: Any) -> "Model":
        dims, coords = self.dims | self.generated_dims, self.coords | self.generated_coords
        return Model.from_parts(compiled, data, dims=dims, coords=coords, name=self.name)

    def check(self, *, seed: int = 0, precision: str = "float32", max_seconds: float | None = 10.0) -> "Check":
        """Look at the model before a run: see `shoal.check`.

        Args:
            seed: of the run.
            precision: of the run, "float32" or "float64".
            max_seconds: about how long it may take, beside compiling; None for any time.

        Returns:
            Findings and numbers; `ok` says whether something stands in the way.

        Raises:
            ValueError: an argument is out of its range, or the model cannot be evaluated at all.
        """
        # By its public name: a model is made of less than what it takes to look at one.
        import shoal

        return shoal.check(self, seed=seed, precision=precision, max_seconds=max_seconds)

    @staticmethod
    def _listed(names: Sequence[str]) -> str:
        return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]}"

    def __repr__(self) -> str:
        parts = [f"{name}{list(self._shapes[name]) if self._shapes[name] else ''}" for name in self._shapes]
        count = len(self.parameter_names)
        described = ", ".join(parts[:count]) + (f"; also {', '.join(parts[count:])}" if parts[count:] else "")
        leaves = ", ".join(f"{key} {leaf.shape}" for key, leaf in datasets.named_leaves(self.data))
        return f"<shoal.Model {self.name}: {self.dim} dimensions: {described}{'; ' + leaves if leaves else ''}>"


def _deterministic(
    formula: Formula, function: Callable[..., Any] | None, params: Any, data: Any
) -> tuple[Constrain, tuple[tuple[str, tuple[int, ...]], ...]]:
    """The way to the supports, and name and shape of what it gives beside the parameters."""
    if function is None:
        return Constrain(formula), ()
    takes_data = deterministic_takes_data(function, data is not None)
    arguments = {"params": params} | ({"data": data} if takes_data else {})
    made = quantities_of("deterministic", function, arguments, formula.layout.names)
    return Constrain(formula, hashable(function), takes_data), made


def _predictive(function: Callable[..., Any] | None, params: Any, data: Any, taken: list[str]) -> Predictive | None:
    """How data are drawn, where the user says so."""
    if function is None:
        return None
    takes_data = generated_takes_data(function, data is not None)
    arguments = {"params": params} | ({"data": data} if takes_data else {}) | {"key": key_struct()}
    made = quantities_of("generated", function, arguments, taken)
    check_reserved(name for name, _ in made)
    return Predictive(made, Generate(hashable(function), takes_data), SameName(made))
