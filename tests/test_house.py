"""The rules of the house: imports go one way, files stay short, docstrings agree with signatures."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import shoal

SOURCE = Path(shoal.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST_FILE = 400

# From the bottom up: a room imports from the rooms above it in this list and from its own, never from below.
LAYERS = [
    ["allocator", "extras", "arguments", "cores", "paths", "stopping", "until", "compile_cache", "objects"],
    ["target"],
    ["traced", "ready"],
    ["compiling"],
    ["glm"],
    ["models"],
    ["bridges"],
    ["examples"],
    ["randomness"],
    ["ensemble"],
    ["dynamics"],
    ["kernels"],
    ["mesh"],
    ["adaptation"],
    ["labels"],
    ["diagnostics"],
    ["statistics"],
    ["program"],
    ["sweep"],
    ["run"],
    ["learning"],
    ["warmup"],
    ["samplers"],
    ["results"],
    ["starts"],
    ["durable"],
    ["progress"],
    ["watching"],
    ["placing"],
    ["request"],
    ["predicting"],
    ["session"],
    ["deciding"],
    ["keeping"],
    ["warming"],
    ["drawing"],
    ["sampling"],
    ["handle"],
    ["many"],
    ["calibration"],
    ["checking"],
    ["doctor"],
    ["report"],
    ["bench"],
    ["cli", "__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def room(path: Path) -> str:
    part = path.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imported_rooms(path: Path):
    """Rooms that a file imports, wherever in it, but for imports that only a type checker sees."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "shoal"
            names = [f"shoal.{alias.name}" for alias in node.names] if whole else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "shoal" and len(parts) > 1 and not parts[1].startswith("__"):
                yield parts[1], node.lineno


@pytest.mark.parametrize(
    "path", [f for f in FILES if f != SOURCE / "__init__.py"], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_go_one_way(path):
    own = RANK[room(path)]
    wrong = [
        f"line {line} imports shoal.{other}"
        for other, line in imported_rooms(path)
        if other in RANK and RANK[other] > own
    ]
    assert not wrong, f"{path.name}, in '{room(path)}': {wrong}"


def test_every_room_has_its_place():
    assert {room(path) for path in FILES} - {"__init__"} == set(RANK)


def test_a_wrong_import_would_show(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from shoal.cli import main\n")
    assert list(imported_rooms(wrong)) == [("cli", 2)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_short_and_say_what_they_are_for(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(ast.parse(text)), "a file begins with one sentence of duty"


def public_functions():
    for name in shoal.__all__:
        value = getattr(shoal, name)
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and inspect.isfunction(member):
                    yield f"{name}.{attribute}", member


@pytest.mark.parametrize(("name", "function"), list(public_functions()), ids=lambda v: v if isinstance(v, str) else "")
def test_docstrings_name_the_arguments_that_exist(name, function):
    text = inspect.getdoc(function) or ""
    if "Args:" not in text:
        return
    section = text.split("Args:")[1].split("\n\n")[0]
    indent = min(len(line) - len(line.lstrip()) for line in section.splitlines() if line.strip())
    named = {
        line.strip().split(":")[0].split(" ")[0].lstrip("*")
        for line in section.splitlines()
        if line.strip() and len(line) - len(line.lstrip()) == indent
    }
    assert named <= set(inspect.signature(function).parameters), name


def test_public_names():
    """A change here is a change of interface: it goes into the changelog."""
    assert sorted(shoal.__all__) == [
        "Auto", "Calibration", "ChEES", "Check", "Finding", "HMC", "Handle", "MAMS", "MEADS", "ManyResults", "Model",
        "NUTS", "Parameter", "Result", "Until", "check", "cholesky_corr", "examples", "from_blackjax", "from_numpyro",
        "glm", "interval", "load", "ordered", "param", "positive", "posterior_predictive", "prior_predictive", "real",
        "resume", "sample", "sample_many", "sbc", "simplex", "start", "unit_interval",
    ]  # fmt: skip
    for name in shoal.__all__:
        assert getattr(shoal, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nuts'"):
        shoal.nuts  # noqa: B018


def test_sample_is_the_function_even_after_its_module_is_imported():
    assert callable(shoal.sample)
    import_module("shoal.sampling")
    assert callable(shoal.sample)


HEAVY = {"blackjax", "numpyro", "arviz", "sklearn", "xarray", "zarr", "pandas", "matplotlib"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import shoal", {"jax", *HEAVY}),
        ("import shoal; shoal.sample; shoal.Model", HEAVY),
    ],
)  # fmt: skip
def test_import_brings_only_what_is_needed(code, absent):
    ask = f"{code}; import sys; print(*sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
