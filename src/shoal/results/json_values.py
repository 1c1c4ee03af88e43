"""Values as every reader of JSON takes them; without numpy, which some commands do without."""

import math
from collections.abc import Mapping
from typing import Any


def jsonable(value: Any) -> Any:
    """The same value out of types that JSON has, for every reader: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else jsonable(value.tolist())
