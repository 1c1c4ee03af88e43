"""How draws that are not written read as missing, and how an array says that none is any more."""

from typing import Any

import numpy as np


def storage(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any, dict[str, Any]]:
    """The type on disk, the number that means missing, and the attributes that say so."""
    if dtype.kind == "b":
        return np.dtype(np.int8), -1, {"_FillValue": -1, "stored_dtype": "bool"}
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        missing = int(limits.max if dtype.kind == "u" else limits.min)
        return dtype, missing, {"_FillValue": missing}
    return dtype, np.nan, {}


def declare_incomplete(array: Any) -> None:
    """The inverse of `declare_complete`."""
    dtype = np.dtype(bool) if array.attrs.get("stored_dtype") == "bool" else array.dtype
    array.attrs.update(storage(dtype)[2])
    if "dtype" in array.attrs:
        del array.attrs["dtype"]


def declare_complete(array: Any) -> None:
    """Nothing is missing any more: readers may show integers and booleans as such."""
    attributes = {key: value for key, value in array.attrs.asdict().items() if key != "_FillValue"}
    if attributes.get("stored_dtype") == "bool":
        attributes["dtype"] = "bool"
    array.attrs.put(attributes)
