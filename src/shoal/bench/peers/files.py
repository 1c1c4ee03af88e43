"""The file of a comparison."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(made: Mapping[str, Any], folder: Path) -> Path:
    """Write `peers.json`; returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "peers.json"
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path
