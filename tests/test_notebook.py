"""The notebook runs top to bottom at toy size, shows its pictures, and writes its timings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "mcmc_on_accelerators.ipynb"
PACKAGES = {
    "nbformat": "reads the notebook",
    "nbclient": "executes the notebook",
    "ipykernel": "runs its cells",
    "matplotlib": "draws its pictures",
    "sklearn": "brings its data",
    "arviz": "summarises its draws",
}
# In a process of its own: the garbage collector closes the sockets of a kernel's client, with a warning.
EXECUTE = """
import sys
import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""
# What another machine would have written: drawn into the same plot.
OTHER = {
    "device": "1 x Made-up accelerator",
    "machine": {"platform": "none", "processor": "none", "cores": 1},
    "sweep": [
        {"chains": chains, "gradients_per_second": 1e5 * chains, "ess_per_second": 100.0 * chains}
        for chains in (2, 2, 4, 4, 8, 8, 16, 16)
    ],
    "ended_by": "the end of the example",
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The notebook with its outputs, and the folder it ran in."""
    for package, purpose in PACKAGES.items():
        pytest.importorskip(package, reason=f"{package}, which {purpose}, is not installed", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("notebook")
    other = folder / "other.json"
    other.write_text(json.dumps(OTHER))
    # The tests' eight devices would share the cores that the notebook measures.
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", "")).strip()
    settings = {
        "SHOAL_NOTEBOOK_TOY": "1",
        "SHOAL_NOTEBOOK_OTHER": str(other),
        "XLA_FLAGS": flags,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(folder / "ipython"),
    }
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), "executed.ipynb"],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]  # ends with the cell that failed, and why
    return json.loads((folder / "executed.ipynb").read_text(encoding="utf-8")), folder


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]


def text(notebook: Any) -> str:
    streams = [output["text"] for output in outputs(notebook) if output["output_type"] == "stream"]
    return "".join("".join(lines) for lines in streams)


def test_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_every_cell_runs_without_an_error(executed: tuple[Any, Path]) -> None:
    notebook, _ = executed
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    assert all(cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code")


def test_shows_its_pictures(executed: tuple[Any, Path]) -> None:
    notebook, _ = executed
    pictures = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3


def test_says_the_device_before_and_after(executed: tuple[Any, Path]) -> None:
    said = text(executed[0])
    assert re.search(r"before: JAX \d", said)
    assert "after: " in said


def test_prints_the_numbers_of_the_post(executed: tuple[Any, Path]) -> None:
    said = text(executed[0])
    for pattern, expected in (
        (r"tau=1.*? = (-?\d+\.\d+)", -4869.8623),
        (r"log density at 0: (-?\d+\.\d+)", -465.956),
        (r"norm of its gradient: (\d+\.\d+)", 803.637),
    ):
        found = re.search(pattern, said)
        assert found, pattern
        assert float(found[1]) == pytest.approx(expected, rel=1e-5)


def test_writes_its_timings_and_draws_those_of_another_machine(executed: tuple[Any, Path]) -> None:
    notebook, folder = executed
    (written,) = folder.glob("notebook_timings_*.json")
    timings = json.loads(written.read_text())
    assert {"device", "machine", "versions", "seed", "sweep", "ended_by", "runs"} <= set(timings)
    assert all(run["gradients_per_second"] > 0 for run in timings["sweep"])
    assert len({run["chains"] for run in timings["sweep"]}) >= 2
    assert "beside it: 1 x Made-up accelerator" in text(notebook)
