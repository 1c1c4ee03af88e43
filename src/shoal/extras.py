"""Optional packages, imported when something needs them and named when they are missing."""

import importlib
import importlib.util
from typing import Any


def require(module: str, purpose: str, extra: str) -> Any:
    """Import an optional package.

    Args:
        module: name to import, such as `"zarr"`.
        purpose: what needs it, in words: "saving draws to disk".
        extra: the extra of Shoal that brings it.

    Returns:
        The imported module.

    Raises:
        ModuleNotFoundError: the package is absent; the message names it, what needs it, and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise missing(module, purpose, extra) from error


def check(module: str, purpose: str, extra: str) -> None:
    """Refuse to go on without an optional package, and import nothing; as `require` otherwise."""
    try:
        there = importlib.util.find_spec(module) is not None
    except ValueError:  # somebody has put None in its place
        there = False
    if not there:
        raise missing(module, purpose, extra)


def missing(module: str, purpose: str, extra: str) -> ModuleNotFoundError:
    """What to raise where an optional package is absent; the arguments are those of `require`."""
    package = module.partition(".")[0]
    return ModuleNotFoundError(
        f"{purpose} needs the package '{package}', which is not installed: "
        f'pip install "shoal[{extra}]", or pip install {package}.',
        name=package,
    )
