"""Arguments that are numbers, checked at the door."""

from typing import Any

import numpy as np


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value < 2**31:
        raise ValueError(f"{name}={value!r}: expected a whole number, at least {least} and below 2**31.")


def check_seed(seed: Any) -> None:
    """Refuse what is not a whole number of 63 bits."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed!r}: expected a whole number from 0 to 2**63 - 1.")


def check_seconds(max_seconds: Any) -> None:
    """Refuse what is no time that a run may take."""
    if max_seconds is None:
        return
    number = isinstance(max_seconds, (int, float, np.number)) and not isinstance(max_seconds, bool)
    if not number or not max_seconds > 0:
        raise ValueError(f"max_seconds={max_seconds!r}: expected a positive number of seconds, or None for any time.")
