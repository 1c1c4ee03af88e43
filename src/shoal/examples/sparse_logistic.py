r"""A simulated sparse logistic regression of any size: the founding posterior's model on made-up data.

A tenth of the columns matter. Columns are independent standard normals; labels are drawn from the model.
"""

import operator

import numpy as np

from shoal.examples.breast_cancer import log_likelihood, log_prior
from shoal.models.model import Model
from shoal.models.parameters import positive, real


def simulate(num_rows: int, num_columns: int, seed: int) -> dict[str, np.ndarray]:
    """Draw a data set.

    Args:
        num_rows: observations.
        num_columns: covariates.
        seed: of the draw.

    Returns:
        `x` `[num_rows, num_columns]` and `y` `[num_rows]`, float32.
    """
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((num_rows, num_columns))
    weights = np.zeros(num_columns)
    matter = generator.choice(num_columns, max(1, num_columns // 10), replace=False)
    weights[matter] = generator.standard_normal(matter.size)
    y = generator.random(num_rows) < 1 / (1 + np.exp(-x @ weights))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def model(num_rows: int = 1_000, num_columns: int = 100, seed: int = 0) -> Model:
    """The posterior.

    Args:
        num_rows: observations.
        num_columns: covariates.
        seed: of the simulated data.

    Returns:
        A model of 2 num_columns + 1 dimensions.

    Raises:
        ValueError: a size is no whole number of at least 1.
    """
    for name, size in (("num_rows", num_rows), ("num_columns", num_columns)):
        if not hasattr(size, "__index__") or operator.index(size) < 1:
            raise ValueError(f"{name} is {size!r}, but it must be a whole number of at least 1.")
    return Model(
        params={"tau": positive(), "lamb": positive(num_columns), "beta": real(num_columns)},
        log_prior=log_prior,
        log_likelihood=log_likelihood,
        data=simulate(num_rows, num_columns, seed),
        name="sparse_logistic",
    )
