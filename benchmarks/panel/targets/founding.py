"""The founding posterior: sparse logistic regression on the breast cancer data, with 96,000 reference draws."""

import json

import numpy as np

import shoal

from .base import SHARED, Draws, Reference, Target
from .plain import labels


def build() -> shoal.Model:
    from shoal.examples import breast_cancer

    return breast_cancer.model()


def refer() -> Reference:
    known = json.loads((SHARED / "breast_cancer_reference.json").read_text())
    names = ["log_tau", *labels("log_lamb", (30,)), *labels("beta", (30,)), *labels("weight", (30,))]
    mean, sd, sd_sq, mean_se = (
        np.concatenate([known[group][key] for group in ("z", "w")]) for key in ("mean", "sd", "sd_sq", "mcse_mean")
    )
    return Reference(tuple(names), mean, sd, mean_se, sd_sq)


def measure(draws: Draws) -> np.ndarray:
    tau, lamb, beta = (np.asarray(draws[name]) for name in ("tau", "lamb", "beta"))
    return np.concatenate([np.log(tau)[..., None], np.log(lamb), beta, tau[..., None] * lamb * beta], axis=-1)


FOUNDING = Target(
    name="breast_cancer",
    dim=61,
    family="founding",
    build=build,
    refer=refer,
    measure=measure,
    note="heavy left tails of log scales",
)
