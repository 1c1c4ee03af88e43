"""NumPyro models of 23 posteriors of posteriordb, with its reference draws' summaries."""

from functools import partial

import numpy as np

import shoal

from .base import Draws, Reference, Target, shared

# Name and dimension, written out so that tables can be made without the folder.
DIMENSIONS = {
    "eight_schools-eight_schools_centered": 10,
    "eight_schools-eight_schools_noncentered": 10,
    "arK-arK": 7,
    "gp_pois_regr-gp_regr": 3,
    "low_dim_gauss_mix-low_dim_gauss_mix": 5,
    "hmm_example-hmm_example": 4,
    "bball_drive_event_1-hmm_drive_1": 6,
    "hudson_lynx_hare-lotka_volterra": 8,
    "kilpisjarvi_mod-kilpisjarvi": 3,
    "sblrc-blr": 6,
    "kidiq-kidscore_interaction": 5,
    "kidiq-kidscore_momhsiq": 4,
    "kidiq_with_mom_work-kidscore_interaction_z": 5,
    "kidiq_with_mom_work-kidscore_mom_work": 5,
    "earnings-earn_height": 3,
    "earnings-logearn_height_male": 4,
    "earnings-logearn_interaction": 5,
    "mesquite-logmesquite_logvas": 8,
    "mesquite-logmesquite_logva": 5,
    "nes1972-nes": 10,
    "nes1984-nes": 10,
    "nes1992-nes": 10,
    "nes2000-nes": 10,
}
# Where single precision is known to fail, and why.
DOUBLE = {
    "kilpisjarvi_mod-kilpisjarvi": "at starts the log density is -1e10, rounded by 1,000 in float32: chains stick",
}


def build(name: str) -> shoal.Model:
    port = shared("targets_public").TARGETS[name]
    return shoal.from_numpyro(port.model, **port.data(), name=name)


def refer(name: str) -> Reference:
    known = shared("targets_public").TARGETS[name].reference()["parameters"]
    mean, sd, sd_sq, ess = (
        np.array([row[key] for row in known.values()]) for key in ("mean", "sd", "sd_sq", "ess_bulk")
    )
    return Reference(tuple(known), mean, sd, sd / np.sqrt(ess), sd_sq)


def measure(name: str, draws: Draws) -> np.ndarray:
    port = shared("targets_public").TARGETS[name]
    columns = port.flatten(draws)
    return np.stack([columns[quantity] for quantity in port.reference()["parameters"]], axis=-1)


POSTERIORDB = tuple(
    Target(
        name=name,
        dim=dim,
        family="posteriordb",
        build=partial(build, name),
        refer=partial(refer, name),
        measure=partial(measure, name),
        precision="float64" if name in DOUBLE else "float32",
        reason=DOUBLE.get(name, ""),
    )
    for name, dim in DIMENSIONS.items()
)
