"""The report of a run: one HTML file that needs no network."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.results.result import Result


def write(result: "Result", path: str | os.PathLike[str]) -> Path:
    """Write the report of a run.

    Args:
        result: the run.
        path: the file to write; one that is there is replaced, at once and whole.

    Returns:
        The path.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says how to install it.
        OSError: the file cannot be written.
    """
    from shoal.report.page import page

    place = Path(path).expanduser()
    text = page(result)
    half = place.with_name(f".{place.name}.part")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(place)
    finally:
        half.unlink(missing_ok=True)
    return place
