"""Where rows lie: one JSON file per target and sampler, with a row for every seed."""

import json
import os
import re
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("SHOAL_PANEL", Path(__file__).parents[1] / "results" / "panel"))


def path(target: str, sampler: str) -> Path:
    """The file of a target and a sampler."""
    return FOLDER / f"{target}.{sampler}.json"


def read(target: str, sampler: str) -> dict[str, Any]:
    """What is known of a target and a sampler: `about` and `rows` by seed."""
    file = path(target, sampler)
    if not file.exists():
        return {"target": target, "sampler": sampler, "rows": {}}
    return json.loads(file.read_text(encoding="utf-8"))


def write(target: str, sampler: str, seed: int, row: dict[str, Any]) -> None:
    """Add a row; another process never sees half a file."""
    known = read(target, sampler)
    known["rows"] = dict(sorted({**known["rows"], str(seed): row}.items(), key=lambda item: int(item[0])))
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = path(target, sampler)
    half = file.with_suffix(".part")
    half.write_text(_lines(known) + "\n", encoding="utf-8")
    half.replace(file)


def _lines(known: dict[str, Any]) -> str:
    """JSON with a line for every number of a row, but short lists and mappings in one line."""
    text = json.dumps(known, indent=1)
    return re.sub(r"\{\n\s{4}[^{}]*?\}|\[[^\[\]{}]*?\]", lambda found: re.sub(r"\s*\n\s*", " ", found[0]), text)
