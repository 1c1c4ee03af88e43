r"""The posteriors that samplers are compared on, as models: everybody is given the same log density.

- `breast_cancer`: the founding posterior, with the likelihood that ships, whose derivative is stated by hand.
- `breast_cancer_bernoulli`: the same with NumPyro's `Bernoulli`, as a user would write it.
- `german_credit`: logistic regression on the German credit data as the inference gym has it,
  $w ∼ N(0, I)$, 24 standardised columns and one of ones. The file is not part of Shoal: `SHOAL_TARGETS` names the
  folder in which `inference_gym/german.data-numeric` is.
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

import shoal
from shoal.examples import breast_cancer
from shoal.glm import bernoulli_logit
from shoal.models.model import Model
from shoal.models.parameters import positive, real

VARIABLE = "SHOAL_TARGETS"
FILE = Path("inference_gym", "german.data-numeric")


def load(name: str) -> Model:
    """One of `POSTERIORS`.

    Raises:
        ValueError: there is none of that name, or its data are missing.
    """
    if name not in POSTERIORS:
        raise ValueError(f"There is no posterior called {name!r} to compare on; there are {', '.join(POSTERIORS)}.")
    return POSTERIORS[name]()


def absent(name: str) -> str | None:
    """Why a posterior cannot be had here; None where it can."""
    if name != "german_credit" or german_file().is_file():
        return None
    return f"the file {FILE} is missing: set {VARIABLE} to the folder that it is in"


def bernoulli_log_likelihood(params: dict[str, Array], rows: dict[str, Array]) -> Array:
    """The founding likelihood by NumPyro's distribution."""
    import numpyro.distributions as dist

    logits = rows["x"] @ (params["tau"] * params["lamb"] * params["beta"])
    return dist.Bernoulli(logits=logits).log_prob(rows["y"]).sum()


def _bernoulli() -> Model:
    return Model(
        params={"tau": positive(), "lamb": positive(30), "beta": real(30)},
        log_prior=breast_cancer.log_prior,
        log_likelihood=bernoulli_log_likelihood,
        data=breast_cancer.data(),
        name="breast_cancer_bernoulli",
    )


def german_file() -> Path:
    """Where the data are expected: in `SHOAL_TARGETS`, or beside the checkout."""
    beside = Path(shoal.__file__).parents[3] / "shared" / "targets"
    return Path(os.environ.get(VARIABLE) or beside) / FILE


def _german() -> Model:
    if reason := absent("german_credit"):
        raise ValueError(f"german_credit: {reason}.")
    table = np.loadtxt(german_file())
    x, y = table[:, :24], table[:, 24] == 2
    x = np.concatenate([(x - x.mean(axis=0)) / x.std(axis=0), np.ones((len(x), 1))], axis=1)
    return Model(
        params={"w": real(25)},
        log_prior=lambda params: -0.5 * jnp.sum(params["w"] ** 2),
        log_likelihood=lambda params, rows: bernoulli_logit(rows["y"], rows["x"], params["w"]),
        data={"x": x.astype(np.float32), "y": y.astype(np.float32)},
        name="german_credit",
    )


POSTERIORS: dict[str, Callable[[], Model]] = {
    "breast_cancer": breast_cancer.model,
    "breast_cancer_bernoulli": _bernoulli,
    "german_credit": _german,
}
