"""Numbers and machines in words, for tables and captions."""

from collections.abc import Mapping
from typing import Any


def rounded(value: float) -> str:
    """Three digits: 1,420,000."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share in percent; a dash where it is not known."""
    return "-" if value is None else f"{100 * value:.0f}%" if value >= 0.1 else f"{100 * value:.1f}%"


def of_machine(made: Mapping[str, Any]) -> str:
    """The devices of a record."""
    machine = made["machine"]
    devices = machine["devices"]
    kinds = ", ".join(dict.fromkeys(device["kind"] for device in devices))
    if machine["backend"] == "cpu":
        return f"{len(devices)} of {machine['cores']} cores ({machine['cpu']})"
    return f"{len(devices)} × {kinds}"
