"""Files of results: what was measured, on what, with which settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal.bench.machine import about
from shoal.results.json_text import jsonable


def record(
    benchmark: str, seed: int, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **found: Any
) -> dict[str, Any]:
    """A measurement, of types that JSON has; what is not known is None.

    Args:
        benchmark: its name.
        seed: of it.
        settings: that decide what the rows mean.
        rows: each with `what` was measured, the number of `chains` or None, a `rate` and its `unit`; and more.
        **found: what follows from them.
    """
    return jsonable({"benchmark": benchmark, **about(seed), "settings": settings, "rows": list(rows), **found})


def place(out: str) -> Path:
    """The directory for results, made where it is missing.

    Raises:
        ValueError: it cannot be made, or written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / ".shoal-bench"
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ValueError(f"'{out}' cannot be written ({error.strerror}): give a directory that can.") from error
    return folder


def write(made: Mapping[str, Any], folder: Path) -> Path:
    """Write a record to `NAME.json` in the directory."""
    path = folder / f"{made['benchmark']}.json"
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read(path: str) -> dict[str, Any]:
    """A record that was written.

    Raises:
        ValueError: the file cannot be read, or is none.
    """
    try:
        made = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON: give a file that shoal bench has written.") from error
    if not isinstance(made, dict) or not {"benchmark", "machine", "versions", "settings", "rows"} <= set(made):
        raise ValueError(f"'{path}' is JSON, but no benchmark: give a file that shoal bench has written.")
    return made
