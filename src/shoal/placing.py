"""Where a run goes: the mesh that was asked for, checked, and the placement of its chains and data on the devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from shoal.arguments import check_count
from shoal.kernels.base import AnyKernel
from shoal.kernels.lifted import Lifted
from shoal.mesh import CHAINS, DATA, Placement
from shoal.models import datasets
from shoal.models.causes import cause
from shoal.models.compiled import check_sum_over_rows
from shoal.models.compiled import in_parts as compiled_in_parts
from shoal.models.model import Model
from shoal.models.rows import ROW_BLOCK
from shoal.target import PARAMETERS, Target
from shoal.traced import turns_freely

# Settings of a run.
DATA_SHARDS, PARAMETER_PARTS, BLOCK = "data_shards", "parameter_parts", "row_block"
# What devices share that have the same chains.
_SHARED = {DATA: "rows", PARAMETERS: "coordinates"}


def checked_mesh(mesh: Any, model: Model, deterministic: bool) -> dict[str, int]:
    """Into how many parts chains, data and parameters go, as far as it is said; nothing where no mesh is given.

    Raises:
        ValueError: something else is to be split, or data or parameters of which nobody knows how.
    """
    if mesh is None:
        return {}
    if not isinstance(mesh, Mapping) or not set(mesh) <= {CHAINS, DATA, PARAMETERS}:
        raise ValueError(
            f"mesh={mesh!r}: expected how many parts the chains, the rows of the data and the parameters are in, such "
            f'as {{"{CHAINS}": 4, "{DATA}": 2}} or {{"{CHAINS}": 2, "{PARAMETERS}": 4}} on eight devices; each may be '
            "left out."
        )
    for name, count in mesh.items():
        check_count(f"mesh[{name!r}]", count, 1)
    parts = {DATA: 1, PARAMETERS: 1} | {name: int(count) for name, count in mesh.items()}
    shards = parts[DATA]
    together = next((name for name in (DATA, PARAMETERS) if parts[name] > 1), None)
    if together is not None and not deterministic:
        raise ValueError(
            f"mesh has {together!r}: {parts[together]} with deterministic=False: devices that share the "
            f"{_SHARED[together]} of the same chains compute the rest of them each by itself, and have to come to the "
            "same bits. Leave deterministic=False out."
        )
    if parts[PARAMETERS] > model.dim:
        raise ValueError(
            f"mesh has {PARAMETERS!r}: {parts[PARAMETERS]}, but the model '{model.name}' has {model.dim} unconstrained "
            "coordinates. Use as many devices or fewer."
        )
    if shards == 1:
        return parts
    rows = model.number_of_rows
    if rows is None:
        raise ValueError(
            f"mesh has {DATA!r}: {shards}, but the log density of the model '{model.name}' is not known as a sum over "
            "rows. Give shoal.Model the two parts log_prior(params) and log_likelihood(params, rows), with data= whose "
            f"leaves share their leading axis; or split the chains alone, mesh={{'{CHAINS}': ...}}."
        )
    if rows < shards:
        raise ValueError(f"mesh has {DATA!r}: {shards}, but the data have {rows} rows. Use as many devices or fewer.")
    return parts


def placement_of(num_chains: int, tile: int | None, mesh: Mapping[str, int], settings: Mapping[str, Any]) -> Placement:
    """Where the chains are, and how many devices share the rest: as asked for, or as of the run that goes on.

    Args:
        num_chains: that move.
        tile: chains that are evaluated at once; None to choose.
        mesh: as `checked_mesh` has it.
        settings: of the run that goes on; empty where one begins.

    Raises:
        ValueError: there are not so many devices.
    """
    tile = settings.get("tile") if tile is None else tile
    shards = mesh.get(DATA, settings.get(DATA_SHARDS, 1))
    parts = mesh.get(PARAMETERS, settings.get(PARAMETER_PARTS, 1))
    devices = jax.local_devices()
    groups = mesh.get(CHAINS, max(1, len(devices) // (shards * parts)))
    if groups * shards * parts > len(devices):
        every = ((CHAINS, groups, 1), (DATA, shards, 2), (PARAMETERS, parts, 2))
        asked = " x ".join(f"{count} ({name})" for name, count, least in every if count >= least)
        raise ValueError(
            f"mesh asks for {asked} devices, but JAX shows {len(devices)} ({devices[0].device_kind}). Ask for as many "
            "or fewer; on a CPU the environment variable JAX_NUM_CPU_DEVICES sets how many there are."
        )
    return Placement.of(num_chains, tile, devices[: groups * shards * parts], shards, parts)


def targets_of(model: Model, dtype: type, mixed: bool, placement: Placement) -> tuple[Target, Target]:
    """The log density as functions of the whole process see it, and as programs of all devices do, on their devices.

    Args:
        model: what is sampled.
        dtype: of positions and gradients.
        mixed: whether log densities are in double all the same.
        placement: of chains and data. Data that are split over devices are whole on none of them.

    Raises:
        ValueError: the log density cannot be evaluated in single and in double both, where the precision is mixed; or
            the log likelihood is no sum over rows, where these are split.
    """
    if placement.layout.shards == 1:
        with jax.enable_x64(dtype is np.float64):
            target = model.target(dtype)
        if mixed:
            target = _with_double(target, model.target(np.float64).data)
        spread = placement.spread(target)
    else:
        check_sum_over_rows(model.compiled, model.data)
        functions = model.compiled.log_density, model.compiled.constrain
        with jax.enable_x64(dtype is np.float64):
            beside = model.compiled.beside
            target = Target(*functions, datasets.on_host(model.data, dtype), model.dim, beside=beside)
        if mixed:
            target = _with_double(target, datasets.on_host(model.data, np.float64))
        target = spread = placement.spread(target)
    if mixed:
        _check_both(spread, model)
    return target, spread


def _with_double(target: Target, data: Any) -> Target:
    return eqx.tree_at(lambda t: t.in_double, target, data, is_leaf=lambda leaf: leaf is None)


def _check_both(target: Target, model: Model) -> None:
    """Refuse a log density that can be traced in one precision only."""
    try:
        eqx.filter_eval_shape(target, jax.ShapeDtypeStruct((1, target.dim), np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(
            'precision="mixed" evaluates the log density in single and in double, and the model '
            f"'{model.name}' can be evaluated in one of them only ({cause(error)}). Use precision=\"float64\", or give "
            "the arrays that it closes over as data."
        ) from error


def recorded(placement: Placement, model: Model) -> dict[str, Any]:
    """What of it draws depend on to the last bit, as settings of a run."""
    shards, block, rows = placement.layout.shards, model.compiled.row_block, model.number_of_rows
    cut = block is not None and rows is not None and rows > block
    return {
        "tile": placement.layout.tile,
        **({DATA_SHARDS: shards} if shards > 1 else {}),
        **({PARAMETER_PARTS: placement.layout.parts} if placement.layout.parts > 1 else {}),
        **({BLOCK: block} if cut else {}),
    }


def as_begun(model: Model, row_block: int | None, settings: Mapping[str, Any]) -> Model:
    """The model with as many rows at once as in the run that goes on, unless another number is asked for.

    Args:
        model: what is sampled.
        row_block: that was asked for, which the model has already; None where nothing was.
        settings: of the run; empty where one begins.
    """
    rows = model.number_of_rows
    if row_block is not None or not settings or rows is None or (rows <= ROW_BLOCK and BLOCK not in settings):
        return model
    # Where none is recorded, all rows were evaluated at once.
    return model.with_row_block(settings.get(BLOCK, rows))


def check_together(
    sampler: str, kernels: Sequence[AnyKernel], target: Target, placement: Placement, dtype: Any
) -> None:
    """Refuse samplers that devices which share parameters cannot run.

    What devices of a group tell each other may be one program of all groups, to which each has to come as often.

    Raises:
        ValueError: settings are in another order than the coordinates, or chains of several groups do unequal work.
    """
    layout = placement.layout
    if layout.parts == 1:
        return
    if any(isinstance(kernel, Lifted) for kernel in kernels):
        raise ValueError(
            f"mesh has {PARAMETERS!r}: {layout.parts} with sampler {sampler!r}: settings of BlackJAX may be by "
            "coordinate, and devices that share parameters have these in another order. Use a sampler of Shoal."
        )
    if layout.groups == 1:
        return
    if not all(kernel.even for kernel in kernels):
        why = f"with the sampler {sampler!r} chains do unequal work for a draw"
        other = ", or take a sampler such as 'chees' or, from 16 chains on, 'auto'"
    elif turns_freely(target, dtype):
        why, other = "the log density has a loop that turns as often as its values say", ""
    else:
        return
    raise ValueError(
        f"mesh has {layout.groups} groups of {layout.parts} devices that share parameters, which have to do the same "
        f'at the same time, and {why}. Give mesh={{"{CHAINS}": 1, "{PARAMETERS}": {layout.parts}}}{other}.'
    )


def in_parts(model: Model, parts: int) -> Model:
    """The model with its unconstrained coordinates in so many equal parts, one after another."""
    if parts == 1:
        return model
    dims, coords = model.dims | model.generated_dims, model.coords | model.generated_coords
    same = Model.from_parts(
        compiled_in_parts(model.compiled, parts), model.data, dims=dims, coords=coords, name=model.name
    )
    same.origin = model.origin
    return same


def tuning_of(arrays: Mapping[str, np.ndarray], parts: int) -> dict[str, np.ndarray]:
    """A tuning as a result has it: its arrays by coordinate are in the order of a model in so many parts."""
    return dict(arrays) | ({PARAMETER_PARTS: np.asarray(parts)} if parts > 1 else {})


def tuning_here(tuning: Mapping[str, np.ndarray] | None, parts: int) -> Mapping[str, np.ndarray] | None:
    """The arrays of a tuning that a result had.

    Raises:
        ValueError: it is of a model in another number of parts.
    """
    if tuning is None:
        return None
    there = int(tuning.get(PARAMETER_PARTS, 1))
    if there != parts:
        so_many = "one part" if there == 1 else f"{there} parts"
        raise ValueError(
            f"tuning is of a run whose parameters were in {so_many}, and orders their coordinates likewise, but here "
            f'they are in {parts}. Give mesh={{"{PARAMETERS}": {there}, ...}}, or let the run find a tuning of its own.'
        )
    return {name: array for name, array in tuning.items() if name != PARAMETER_PARTS}


def as_recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `shoal.sample` that have a run go on as it was placed."""
    return {
        "tile": settings["tile"],
        "mesh": {DATA: settings.get(DATA_SHARDS, 1), PARAMETERS: settings.get(PARAMETER_PARTS, 1)},
    }
