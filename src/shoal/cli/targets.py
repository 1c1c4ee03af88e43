"""What TARGET means: the name of an example, or an object in a file.

An object is a `shoal.Model`; or a NumPyro model without required arguments; or a function without required
arguments that returns either. The two kinds of function are told apart by calling it once, with a seed, under
NumPyro's `block` and `trace`: a function that returns a `shoal.Model` is taken at its word, one that met
sample sites is a NumPyro model, and one that returns a function is asked about that function.
"""

import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shoal.models.model import Model


def check(text: str) -> None:
    """Refuse, without importing JAX, what cannot be a target.

    Raises:
        click.UsageError: no such example, file, or name in the file.
    """
    if _is_file(text):
        _in_file(text)
        return
    from shoal.examples import catalogue

    names = [example.name for example in catalogue()]
    if text not in names:
        raise click.UsageError(
            f"There is no example called '{text}'.{_close(text, names)} The examples are {', '.join(names)}; "
            "a model of your own is given as file.py:object."
        )


def short_name(text: str) -> str:
    """What to call a run of this target: the example, or the object."""
    return text.rpartition(":")[2] if _is_file(text) else text


def resolve(text: str) -> "Model":
    """The model that a target names.

    Args:
        text: an example's name or `file.py:object`; see the top of this file.

    Returns:
        The model.

    Raises:
        click.UsageError: there is no such thing, or it is not a model.
        click.ClickException: the file or the function failed.
    """
    check(text)
    if not _is_file(text):
        from shoal.examples import load

        return load(text)
    path, name = _in_file(text)
    module = _load(path)
    if name not in vars(module):
        close = _close(name, list(vars(module)))
        raise click.UsageError(f"The file '{path}' has no object '{name}' once it has run.{close}")
    model = _as_model(vars(module)[name], text)
    model.origin = f"{path.resolve()}:{name}"
    return model


def _is_file(text: str) -> bool:
    return ".py:" in text or text.endswith(".py")


def _close(text: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _in_file(text: str) -> tuple[Path, str]:
    """The file and the name in it, both checked as far as reading the file tells."""
    file, _, name = text.rpartition(":") if ".py:" in text else (text, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise click.UsageError(f"There is no file '{file}'. A model of your own is given as file.py:object.")
    names, open_ended = _names(path)
    if not name:
        known = f" It defines {', '.join(names)}." if names else ""
        raise click.UsageError(f"Say which object of '{file}' is the model: {file}:object.{known}")
    if name not in names and not open_ended:
        known = f" It defines {', '.join(names)}." if names else " It defines nothing."
        raise click.UsageError(f"The file '{file}' has no object '{name}'.{_close(name, names)}{known}")
    return path, name


def _names(path: Path) -> tuple[list[str], bool]:
    """What a file defines at its top level, imports left out, and whether it may define more."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return [], True  # Running it says what is wrong, and where.
    names: list[str] = []
    open_ended = False
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=targets):
                nodes = (node for target in targets for node in ast.walk(target))
                names += [node.id for node in nodes if isinstance(node, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                open_ended = open_ended or any(alias.name == "*" for alias in imported)
            case ast.Expr():
                pass
            case _:
                open_ended = True
    return list(dict.fromkeys(names)), open_ended


def _load(path: Path) -> Any:
    """Run the file as a module, with its own directory on the path, as Python does with a script."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules.setdefault(path.stem, module)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise click.ClickException(f"The file '{path}' failed{_line(error, path)}: {_told(error)}") from error
    return module


def _line(error: Exception, path: Path) -> str:
    """Where in the user's file it happened, innermost."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    lines, trace = [], error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" in line {lines[-1]}" if lines else ""


def _told(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, ValueError) and words else f"{type(error).__name__}: {words}"


def _as_model(thing: Any, text: str) -> "Model":
    from shoal.models.model import Model

    for _ in range(2):
        if isinstance(thing, Model):
            return thing
        if not callable(thing):
            break
        _check_arguments(thing, text)
        returned, has_sites = _call(thing, text)
        if isinstance(returned, Model):
            return returned
        if has_sites:
            from shoal.bridges.numpyro import from_numpyro

            return from_numpyro(thing)
        thing = returned
    raise click.UsageError(
        f"'{text}' is no model: it is or gives {type(thing).__name__}. Give a shoal.Model, a NumPyro model, "
        "or a function without arguments that returns one."
    )


def _check_arguments(function: Callable[..., Any], text: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if required:
        raise click.UsageError(
            f"'{text}' needs arguments ({', '.join(required)}), and the command line has none to give. Write "
            "a function without arguments that returns shoal.from_numpyro(model, ...) or a shoal.Model."
        )


def _call(function: Callable[..., Any], text: str) -> tuple[Any, bool]:
    """What a function returns, and whether it met NumPyro's sample sites on the way."""
    from numpyro import handlers

    try:
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=0):
            returned = function()
    except Exception as error:
        where = _line(error, Path(text.rpartition(":")[0]))
        raise click.ClickException(f"'{text}' failed when called{where}: {_told(error)}") from error
    return returned, any(site["type"] == "sample" for site in trace.values())
