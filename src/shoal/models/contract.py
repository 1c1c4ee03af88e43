"""The arguments of a model, checked: parameters, and how the functions of them are called."""

from collections.abc import Callable, Mapping
from typing import Any

from shoal.models.formula import accepts
from shoal.models.parameters import Parameter


def read_params(params: Any) -> tuple[tuple[str, Parameter], ...]:
    """Refuse what is no mapping from names to parameters.

    Args:
        params: as the user gave them.

    Returns:
        Pairs of name and parameter, in order.

    Raises:
        ValueError: names the parameter.
    """
    if not isinstance(params, Mapping) or not params:
        raise ValueError(
            f"params was given as {params!r}, but it must be a mapping with at least one parameter, such as "
            '{"tau": shoal.positive(), "beta": shoal.real(30)}.'
        )
    for name, parameter in params.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"params has the name {name!r}, but the names of parameters are non-empty strings.")
        if not isinstance(parameter, Parameter):
            made = f"shoal.{parameter.__name__}()" if callable(parameter) and hasattr(parameter, "__name__") else ""
            hint = f"did you mean {made}?" if made.split("(")[0].startswith("shoal.") else ""
            raise ValueError(
                f"params[{name!r}] is {parameter!r}, but every parameter needs its support and shape: "
                "shoal.real(), shoal.positive(30), shoal.interval(0, 10), or shoal.param(shape, support=<a "
                "NumPyro constraint>). "
                + hint
                + ("Integer parameters cannot be sampled: sum them out." if parameter is int else "")
            )
    return tuple(params.items())


def read_terms(
    log_prior: Any, log_likelihood: Any, log_density: Any, has_data: bool
) -> list[tuple[str, Callable[..., Any], bool]]:
    """Refuse functions that do not make one log density.

    Args:
        log_prior: of `Model`.
        log_likelihood: of `Model`.
        log_density: of `Model`.
        has_data: whether data were given.

    Returns:
        For each term: the argument it came by, the function, and whether it is called with the data.

    Raises:
        ValueError: names the argument.
    """
    given = {"log_prior": log_prior, "log_likelihood": log_likelihood, "log_density": log_density}
    present = tuple(name for name, function in given.items() if function is not None)
    if present not in (("log_prior", "log_likelihood"), ("log_density",)):
        raise ValueError(
            f"Model was given {' and '.join(present) or 'no log density'}, but it takes either both "
            "log_prior(params) and log_likelihood(params, rows), with data=, or log_density alone: "
            "log_density(params), or log_density(params, data)."
        )
    for name in present:
        if not callable(given[name]):
            raise ValueError(f"{name} is {given[name]!r}, but it must be a function.")
    if log_density is not None:
        return [("log_density", log_density, _takes_data(log_density, has_data))]
    if not has_data:
        raise ValueError(
            "log_likelihood(params, rows) was given without data, but its rows come from data=, whose leaves "
            "share their leading axis. Give data=, or one log_density(params) instead of the two parts."
        )
    for name, count in (("log_prior", 1), ("log_likelihood", 2)):
        if accepts(given[name], count) is False:
            wanted = "log_prior(params)" if count == 1 else "log_likelihood(params, rows)"
            raise ValueError(
                f"{name} cannot be called as {wanted}, but that is how Shoal calls it. Change its "
                "arguments, or bind the others with functools.partial."
            )
    return [("log_prior", log_prior, False), ("log_likelihood", log_likelihood, True)]


def _takes_data(log_density: Callable[..., Any], has_data: bool) -> bool:
    if has_data and accepts(log_density, 2) is False and accepts(log_density, 1):
        raise ValueError(
            "data was given, but log_density takes only params. Let it take both, log_density(params, data), "
            "or leave data= out."
        )
    return _of_params("log_density", log_density, has_data)


def deterministic_takes_data(deterministic: Any, has_data: bool) -> bool:
    """Whether the function of deterministic quantities is called with the data; refuse what cannot be called.

    Args:
        deterministic: of `Model`.
        has_data: whether data were given; it need not take them.

    Raises:
        ValueError: it is no function of the parameters, or of them and the data that there are.
    """
    _check_callable("deterministic", deterministic)
    takes = has_data and accepts(deterministic, 2) is not False
    return _of_params("deterministic", deterministic, takes)


def _of_params(name: str, function: Callable[..., Any], with_data: bool) -> bool:
    """`with_data`, if the function can be called with parameters, and data or not as that says."""
    if accepts(function, 2 if with_data else 1) is not False:
        return with_data
    if not with_data and accepts(function, 2):
        raise ValueError(
            f"{name} takes params and data, but data= was not given. Give data=, or let {name} take params alone."
        )
    raise ValueError(
        f"{name} can be called neither as {name}(params) nor as {name}(params, data), but that is how Shoal calls "
        "it. Change its arguments, or bind the others with functools.partial."
    )


def generated_takes_data(generated: Any, has_data: bool) -> bool:
    """Whether the function that draws data is called with the data; refuse what cannot be called.

    Args:
        generated: of `Model`.
        has_data: whether data were given.

    Raises:
        ValueError: it is no function of the parameters, the data where there are any, and a key.
    """
    _check_callable("generated", generated)
    if accepts(generated, 3 if has_data else 2) is False:
        wanted = "generated(params, data, key)" if has_data else "generated(params, key)"
        why = "data= was given" if has_data else "data= was not given"
        raise ValueError(
            f"generated cannot be called as {wanted}, but that is how Shoal calls it, since {why}; key is a random key "
            "of JAX. Change its arguments, or bind the others with functools.partial."
        )
    return has_data


def _check_callable(name: str, function: Any) -> None:
    if not callable(function):
        raise ValueError(
            f"{name} is {function!r}, but it must be a function that returns a mapping from names to arrays."
        )
