"""Many-chain Markov chain Monte Carlo on accelerators."""

from importlib import import_module
from time import time as _now
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal import examples as examples
    from shoal import glm as glm
    from shoal.bridges.numpyro import from_numpyro as from_numpyro
    from shoal.calibration.outcome import Calibration as Calibration
    from shoal.calibration.sbc import sbc as sbc
    from shoal.checking.check import check as check
    from shoal.checking.outcome import Check as Check
    from shoal.diagnostics.findings import Finding as Finding
    from shoal.handle import Handle as Handle
    from shoal.handle import start as start
    from shoal.many.results import ManyResults as ManyResults
    from shoal.many.sampling import sample_many as sample_many
    from shoal.models.model import Model as Model
    from shoal.models.parameters import Parameter as Parameter
    from shoal.models.parameters import cholesky_corr as cholesky_corr
    from shoal.models.parameters import interval as interval
    from shoal.models.parameters import ordered as ordered
    from shoal.models.parameters import param as param
    from shoal.models.parameters import positive as positive
    from shoal.models.parameters import real as real
    from shoal.models.parameters import simplex as simplex
    from shoal.models.parameters import unit_interval as unit_interval
    from shoal.predicting.posterior import posterior_predictive as posterior_predictive
    from shoal.predicting.prior import prior_predictive as prior_predictive
    from shoal.results.result import Result as Result
    from shoal.results.store import load as load
    from shoal.samplers.auto import Auto as Auto
    from shoal.samplers.blackjax import from_blackjax as from_blackjax
    from shoal.samplers.chees import ChEES as ChEES
    from shoal.samplers.hmc import HMC as HMC
    from shoal.samplers.mams import MAMS as MAMS
    from shoal.samplers.meads import MEADS as MEADS
    from shoal.samplers.nuts import NUTS as NUTS
    from shoal.sampling import resume as resume
    from shoal.sampling import sample as sample
    from shoal.until import Until as Until

__version__ = "0.1.0"
# In seconds since the epoch: the files of what has been imported may change later.
__imported__ = _now()

# Rooms that are public as such.
_ROOMS = ("examples", "glm")

# Where each public name lives. Names are looked up when first used (PEP 562), so that the command line
# answers `--help` without importing JAX.
_HOMES = {
    "Auto": "shoal.samplers.auto",
    "Calibration": "shoal.calibration.outcome",
    "ChEES": "shoal.samplers.chees",
    "Check": "shoal.checking.outcome",
    "Finding": "shoal.diagnostics.findings",
    "HMC": "shoal.samplers.hmc",
    "Handle": "shoal.handle",
    "MAMS": "shoal.samplers.mams",
    "MEADS": "shoal.samplers.meads",
    "ManyResults": "shoal.many.results",
    "NUTS": "shoal.samplers.nuts",
    "Model": "shoal.models.model",
    "Parameter": "shoal.models.parameters",
    "Result": "shoal.results.result",
    "check": "shoal.checking.check",
    "cholesky_corr": "shoal.models.parameters",
    "from_blackjax": "shoal.samplers.blackjax",
    "from_numpyro": "shoal.bridges.numpyro",
    "interval": "shoal.models.parameters",
    "load": "shoal.results.store",
    "ordered": "shoal.models.parameters",
    "param": "shoal.models.parameters",
    "positive": "shoal.models.parameters",
    "posterior_predictive": "shoal.predicting.posterior",
    "prior_predictive": "shoal.predicting.prior",
    "real": "shoal.models.parameters",
    "resume": "shoal.sampling",
    "sample": "shoal.sampling",
    "sample_many": "shoal.many.sampling",
    "sbc": "shoal.calibration.sbc",
    "simplex": "shoal.models.parameters",
    "start": "shoal.handle",
    "Until": "shoal.until",
    "unit_interval": "shoal.models.parameters",
}

__all__ = [
    "HMC",
    "MAMS",
    "MEADS",
    "NUTS",
    "Auto",
    "Calibration",
    "ChEES",
    "Check",
    "Finding",
    "Handle",
    "ManyResults",
    "Model",
    "Parameter",
    "Result",
    "Until",
    "check",
    "cholesky_corr",
    "examples",
    "from_blackjax",
    "from_numpyro",
    "glm",
    "interval",
    "load",
    "ordered",
    "param",
    "positive",
    "posterior_predictive",
    "prior_predictive",
    "real",
    "resume",
    "sample",
    "sample_many",
    "sbc",
    "simplex",
    "start",
    "unit_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS and name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    # A model may use JAX when it is made, and then the number of devices is fixed.
    import_module("shoal.cores").use_cores()
    if name in _ROOMS:
        return import_module(f"shoal.{name}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
