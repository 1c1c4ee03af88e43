"""Models that ship with Shoal: a catalogue that reads without JAX, and the models themselves.

Their data come with a dependency (scikit-learn), are small enough to type, or are simulated.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from shoal.models.model import Model


class Example(NamedTuple):
    """One line of the catalogue.

    Attributes:
        name: what `load` takes.
        dim: unconstrained dimension with the default options.
        difficulty: easy, medium or hard, for a self-tuning sampler.
        words: what it is, in one line.
    """

    name: str
    dim: int
    difficulty: str
    words: str


# Each name is a module beside this file with a function `model(**options)`.
_CATALOGUE = (
    Example(
        "breast_cancer",
        61,
        "medium",
        "Sparse logistic regression on scikit-learn's breast cancer data: the founding posterior.",
    ),
    Example(
        "diabetes",
        23,
        "easy",
        "Hierarchical regression on scikit-learn's diabetes data; intercepts vary by age group.",
    ),
    Example(
        "eight_schools",
        10,
        "easy",
        "Effects of coaching in eight schools, non-centred: the hierarchy in coordinates that sample well.",
    ),
    Example(
        "eight_schools_centered",
        10,
        "hard",
        "Effects of coaching in eight schools, centred: a funnel, where every fixed step size is biased.",
    ),
    Example(
        "gaussian_process",
        3,
        "easy",
        "Hyperparameters of a one-dimensional Gaussian process, the function itself integrated out.",
    ),
    Example(
        "neural_network",
        385,
        "medium",
        "One hidden layer on simulated data, weights that devices can share (num_hidden, num_rows, num_columns, seed).",
    ),
    Example(
        "sparse_logistic",
        201,
        "medium",
        "Simulated sparse logistic regression of any size (num_rows, num_columns, seed).",
    ),
    Example(
        "stochastic_volatility",
        503,
        "medium",
        "Simulated returns whose log volatility is an AR(1) process, non-centred (num_times, seed).",
    ),
)


def catalogue() -> tuple[Example, ...]:
    """All examples, by name.

    Returns:
        One line per example.
    """
    return _CATALOGUE


def load(name: str, **options: Any) -> "Model":
    """Build an example.

    Args:
        name: one of the catalogue.
        **options: of the example's own `model` function, such as `num_rows=10_000`.

    Returns:
        The model.

    Raises:
        ValueError: the name is unknown, or an option is.
        ModuleNotFoundError: a package that brings the data is missing.
    """
    names = [example.name for example in _CATALOGUE]
    if name not in names:
        raise ValueError(
            f"There is no example called {name!r}; there are {', '.join(names)}. Choose one, or give a file "
            "with your own model to the command line as file.py:object."
        )
    module = import_module(f"shoal.examples.{name}")
    try:
        model = module.model(**options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(
            f"The example {name!r} was given {', '.join(options)}, but {error}. See help(shoal.examples.{name}.model)."
        ) from error
    model.origin = None if options else name
    return model
