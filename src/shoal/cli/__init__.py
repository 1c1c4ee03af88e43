"""The command line: `shoal doctor`, `examples`, `sample`, `resume`, `status`, `summary`, `report`, `export`."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what stands after `shoal`; of this process when None.

    Returns:
        The exit code: 0 converged (or done), 1 failed, 2 usage, 3 sampled but not converged or not precise
        enough, 130 interrupted, 143 terminated.
    """
    from shoal.extras import require

    require("click", "The command line", extra="cli")
    from shoal.cli.app import run

    return run(arguments)
