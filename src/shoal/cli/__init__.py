"""The command line: doctor, examples, check, sample, resume, status, summary, report, export, bench."""

import gc
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

    if arguments is None:
        # The process is ours. What is imported and traced stays, and looking for garbage in it again and again takes a
        # tenth of the time to the first draw.
        gc.set_threshold(50_000, *gc.get_threshold()[1:])
    require("click", "The command line", extra="cli")
    from shoal.cli.app import run

    return run(arguments)
