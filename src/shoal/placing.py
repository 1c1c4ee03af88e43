"""Where a run goes: the mesh that was asked for, checked, and the placement of its chains and data on the devices."""

from collections.abc import Mapping
from typing import Any

import jax

from shoal.arguments import check_count
from shoal.mesh import CHAINS, DATA, Placement
from shoal.models.model import Model
from shoal.target import Target

# Settings of a run.
DATA_SHARDS, ROW_BLOCK = "data_shards", "row_block"


def checked_mesh(mesh: Any, model: Model) -> dict[str, int]:
    """Into how many parts chains and data go, as far as it is said; nothing where no mesh is given.

    Raises:
        ValueError: something else than chains and data is to be split, or data of which nobody knows how.
    """
    if mesh is None:
        return {}
    if not isinstance(mesh, Mapping) or not set(mesh) <= {CHAINS, DATA}:
        raise ValueError(
            f"mesh={mesh!r}: expected how many parts the chains and the rows of the data are in, such as "
            f'{{"{CHAINS}": 4, "{DATA}": 2}} on eight devices; either may be left out.'
        )
    for name, count in mesh.items():
        check_count(f"mesh[{name!r}]", count, 1)
    parts = {DATA: 1} | {name: int(count) for name, count in mesh.items()}
    shards = parts[DATA]
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
    """Where the chains are, and how many devices share the data: as asked for, or as of the run that goes on.

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
    devices = jax.local_devices()
    groups = mesh.get(CHAINS, max(1, len(devices) // shards))
    if groups * shards > len(devices):
        asked = " x ".join(f"{count} ({name})" for name, count in ((CHAINS, groups), (DATA, shards)))
        raise ValueError(
            f"mesh asks for {asked} devices, but JAX shows {len(devices)} ({devices[0].device_kind}). Ask for as many "
            "or fewer; on a CPU the environment variable JAX_NUM_CPU_DEVICES sets how many there are."
        )
    return Placement.of(num_chains, tile, devices[: groups * shards], shards)


def placed(target: Target, model: Model, placement: Placement) -> Target:
    """The log density of a model with its data where the placement has them."""
    block = model.compiled.row_block
    return placement.place(target, split=False) if block is None else placement.spread(target, block)


def in_blocks(model: Model) -> bool:
    """Whether the rows of the data are more than are evaluated at once."""
    block, rows = model.compiled.row_block, model.number_of_rows
    return block is not None and rows is not None and rows > block


def in_parts(placement: Placement, model: Model) -> bool:
    """Whether the rows of the data are evaluated in parts."""
    return placement.layout.shards > 1 or in_blocks(model)


def recorded(placement: Placement, model: Model) -> dict[str, Any]:
    """What of it draws depend on to the last bit, as settings of a run."""
    shards = placement.layout.shards
    return {
        "tile": placement.layout.tile,
        **({DATA_SHARDS: shards} if shards > 1 else {}),
        **({ROW_BLOCK: model.compiled.row_block} if in_blocks(model) else {}),
    }


def as_recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `shoal.sample` that have a run go on as it was placed."""
    return {
        "tile": settings["tile"],
        "mesh": {DATA: settings.get(DATA_SHARDS, 1)},
        "row_block": settings.get(ROW_BLOCK),
    }
