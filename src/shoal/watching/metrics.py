"""`metrics.jsonl`: a line of JSON for every chunk of a run, and reading it while it is written or after a kill."""

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Reading must be quick: a record brings JAX with it.
if TYPE_CHECKING:
    from shoal.watching.record import Record

FILE = "metrics.jsonl"
# As much of the end of the file has the last whole line in it.
TAIL = 2**16


class MetricsFile:
    """Appends lines.

    Attributes:
        mends: whether it can go on after it has failed: the next line begins afresh.
    """

    mends = True

    def __init__(self, run: Path) -> None:
        """Open no file yet.

        Args:
            run: the directory of the run.
        """
        self._path = run / FILE
        self._descriptor: int | None = None

    def hear(self, record: "Record") -> None:
        """Append a line; what an earlier process left half written ends before it."""
        line = json.dumps(record.metrics, ensure_ascii=False, allow_nan=False) + "\n"
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            line = line if _ends_with_a_line(self._descriptor) else "\n" + line
        try:
            rest = line.encode()
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def last_metrics(run: Path) -> dict[str, Any] | None:
    """The last line that is whole; None where there is none.

    Args:
        run: the directory of the run.
    """
    try:
        with (run / FILE).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return None


def _ends_with_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
