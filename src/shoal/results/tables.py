"""A result as a table in a file of Arrow or Parquet, written in blocks of draws.

Every number has a column of its own: pandas makes Python objects of lists, and DuckDB and Polars select and plot
columns. The rows go by draw and then by chain, so that the table of a run under way is the beginning of the longer one.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shoal.extras import require
from shoal.labels import labels
from shoal.results.datatree import attributes
from shoal.results.netcdf import blocks
from shoal.results.stored_draws import between, shape_of

if TYPE_CHECKING:
    from shoal.results.result import Result

PURPOSE = "Exporting to a table"


class _Column(NamedTuple):
    """Some columns of the table, all of one variable.

    Attributes:
        draws: the variable is among these.
        variable: its name.
        names: of the columns, in C order.
    """

    draws: Mapping[str, np.ndarray]
    variable: str
    names: list[str]


def write_arrow(result: "Result", path: Path) -> None:
    """Write a file of Arrow IPC, which is Feather 2; not compressed, so that it can be mapped into memory.

    Args:
        result: what to write; draws on disk are read block by block.
        path: the file, which is replaced.
    """
    ipc = require("pyarrow.ipc", PURPOSE, extra="export")
    _write(result, lambda schema: ipc.new_file(str(path), schema))


def write_parquet(result: "Result", path: Path) -> None:
    """Write a file of Parquet, compressed.

    Args:
        result: what to write; draws on disk are read block by block.
        path: the file, which is replaced.
    """
    parquet = require("pyarrow.parquet", PURPOSE, extra="export")

    def opened(schema: Any) -> Any:
        # Of floats hardly two are alike: a dictionary of them made files half as large again.
        repeated = [field.name for field in schema if not str(field.type).startswith(("float", "double", "bool"))]
        return parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)

    _write(result, opened)


def _write(result: "Result", opened: Callable[[Any], Any]) -> None:
    pyarrow = require("pyarrow", PURPOSE, extra="export")
    columns = _columns(result)
    firsts = [between(part.draws, part.variable, 0, 1) for part in columns]
    index = ("chain", "draw", "superchain")
    fields = [pyarrow.field(name, pyarrow.int32(), nullable=False) for name in index]
    for part, first in zip(columns, firsts, strict=True):
        kind = pyarrow.from_numpy_dtype(first.dtype)
        fields += [pyarrow.field(name, kind, nullable=False) for name in part.names]
    metadata = {name: str(value) for name, value in attributes(result).items()}
    schema = pyarrow.schema(fields, metadata=metadata)
    with opened(schema) as writer:
        for begin, end in blocks(result.num_draws, sum(first.nbytes for first in firsts)):
            arrays = [pyarrow.array(column) for column in _block(result, columns, begin, end)]
            writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))


def _columns(result: "Result") -> list[_Column]:
    """The columns after the first three, no two of one name."""
    taken, columns = {"chain", "draw", "superchain"}, []
    of_model = {name: result.labels(name) for name in result.draws}
    of_draws = {
        name: [label + "__" for label in labels(name, shape_of(result.sample_stats, name), {}, {})]
        for name in result.sample_stats
    }
    for draws, named in ((result.draws, of_model), (result.sample_stats, of_draws)):
        for name, wanted in named.items():
            given = []
            for label in wanted:
                while label in taken:
                    label += "_"
                taken.add(label)
                given.append(label)
            columns.append(_Column(draws, name, given))
    return columns


def _block(result: "Result", columns: list[_Column], begin: int, end: int) -> Iterator[np.ndarray]:
    """The columns of some draws, each in one piece."""
    chains, count = result.num_chains, end - begin
    yield np.tile(np.arange(chains, dtype=np.int32), count)
    yield np.repeat(np.arange(begin, end, dtype=np.int32), chains)
    yield np.tile(np.asarray(result.superchain, np.int32), count)
    for part in columns:
        values = between(part.draws, part.variable, begin, end)
        numbers = math.prod(values.shape[2:])
        flat = values.reshape(chains, count, numbers).transpose(2, 1, 0)
        yield from np.ascontiguousarray(flat).reshape(numbers, count * chains)
