"""What the allocator of the system is asked to do: it keeps what is freed, in pieces, and a process seems to grow."""

import contextlib
import ctypes


def give_back() -> None:
    """Give the system back what is free, as after compiling: on Linux the allocator keeps it, tens of megabytes."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have other allocators
        ctypes.CDLL(None).malloc_trim(0)
