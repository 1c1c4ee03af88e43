"""The examples of the README and the documentation run, page by page, from top to bottom."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)
if (ROOT / "README.md").exists():
    PAGES.insert(0, ROOT / "README.md")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a page imports that the core does without; pages that reach it otherwise are named below.
OPTIONAL = ("arviz", "blackjax", "h5netcdf", "matplotlib", "numpyro", "pandas", "pyarrow", "sklearn", "xarray", "zarr")
REACHED = {
    "fsspec": "memory://",
    "pandas": ".summary(",
    "zarr": ".save(",
    "sklearn": "breast_cancer",
    "h5netcdf": ".export(",
    "pyarrow": ".export(",
}


def blocks(page: Path) -> list[tuple[int, str]]:
    """The Python blocks of a page with the lines they begin at; those with IPython's magics are none."""
    text = page.read_text(encoding="utf-8")
    found = [(text[: match.start(1)].count("\n"), match[1]) for match in BLOCK.finditer(text)]
    return [(line, code) for line, code in found if not re.search(r"^[%!]", code, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(page)
    if not code:
        pytest.skip(f"{page.name} has no Python block to run")
    together = "\n".join(text for _, text in code)
    for package in OPTIONAL:
        named = re.search(rf"^\s*(import|from) {package}\b", together, re.MULTILINE)
        if named or (package in REACHED and REACHED[package] in together):
            pytest.importorskip(package, reason=f"{page.name} uses {package}, which is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("SHOAL_SPOOL", str(tmp_path / "spool"))
    module = ModuleType("a_page_of_the_documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, text in code:
        # Line numbers of a traceback are those of the page.
        exec(compile("\n" * line + text, str(page), "exec"), module.__dict__)


def test_a_sampler_is_one_block_of_fewer_than_sixty_lines() -> None:
    whole = [code for _, code in blocks(ROOT / "docs" / "extending.md") if "(Kernel[" in code and "(Sampler)" in code]
    assert [len(code.splitlines()) < 60 for code in whole] == [True]
