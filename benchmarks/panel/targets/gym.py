"""Targets of the inference gym as log densities on R^dim, with its ground truths."""

import functools
from functools import partial
from typing import Any

import jax
import numpy as np

import shoal

from .base import Draws, Reference, Target, shared
from .brownian import moments
from .plain import flattened, labels, plain

BROWNIAN = "brownian_motion_unknown_scales_missing_middle_observations"

DIMENSIONS = {
    "banana": 2,
    "ill_conditioned_gaussian": 100,
    "eight_schools": 10,
    "german_credit_numeric_logistic_regression": 25,
    "german_credit_numeric_sparse_logistic_regression": 51,
    BROWNIAN: 32,
    "convection_lorenz_bridge": 90,
    "synthetic_item_response_theory": 501,
    "stochastic_volatility_log_sp500_small": 103,
    "radon_contextual_effects_minnesota_halfnormal": 91,
}


@functools.cache
def parts(name: str, double: bool) -> Any:
    """Log density, map to the supports, dimension; data in the precision in force."""
    assert double == jax.config.jax_enable_x64
    with jax.ensure_compile_time_eval():
        return shared("gym_targets").TARGETS[name]()


def build(name: str) -> shoal.Model:
    return plain(name, DIMENSIONS[name], lambda z: parts(name, jax.config.jax_enable_x64)[0](z))


@functools.cache
def refer(name: str) -> Reference:
    known = shared("gym_targets").ground_truth(name)
    if name == BROWNIAN:
        observed = np.array(shared("gym_targets").load(name)["data"]["observed_locs"], float)
        mean, sd = moments(observed)
        names = [label for key in known for label in labels(key, mean[key].shape)]
        return Reference.exact(names, *(np.concatenate([part[key].ravel() for key in known]) for part in (mean, sd)))
    names = tuple(label for key, row in known.items() for label in labels(key, row["mean"].shape))
    mean, sd, mean_se = (
        np.concatenate([row[key].ravel() for row in known.values()]) for key in ("mean", "sd", "mean_se")
    )
    return Reference(names, mean, sd, mean_se, np.full(len(names), np.nan))


def measure(name: str, draws: Draws) -> np.ndarray:
    constrain = parts(name, jax.config.jax_enable_x64)[1]
    values = jax.jit(jax.vmap(jax.vmap(constrain)))(np.asarray(draws["z"]))
    return flattened({key: values[key] for key in shared("gym_targets").ground_truth(name)})


GYM = tuple(
    Target(
        name=name,
        dim=dim,
        family="gym",
        build=partial(build, name),
        refer=partial(refer, name),
        measure=partial(measure, name),
    )
    for name, dim in DIMENSIONS.items()
)
