"""Many-chain Markov chain Monte Carlo on accelerators."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal import examples as examples
    from shoal.bridges.numpyro import from_numpyro as from_numpyro
    from shoal.findings import Finding as Finding
    from shoal.model import Model as Model
    from shoal.parameters import Parameter as Parameter
    from shoal.parameters import cholesky_corr as cholesky_corr
    from shoal.parameters import interval as interval
    from shoal.parameters import ordered as ordered
    from shoal.parameters import param as param
    from shoal.parameters import positive as positive
    from shoal.parameters import real as real
    from shoal.parameters import simplex as simplex
    from shoal.parameters import unit_interval as unit_interval
    from shoal.recipes import HMC as HMC
    from shoal.recipes import ChEES as ChEES
    from shoal.result import Result as Result
    from shoal.sampling import sample as sample
    from shoal.store import load as load

__version__ = "0.1.0"

# Where each public name lives. Names are looked up when first used (PEP 562), so that the command line
# answers `--help` without importing JAX.
_HOMES = {
    "ChEES": "shoal.recipes",
    "Finding": "shoal.findings",
    "HMC": "shoal.recipes",
    "Model": "shoal.model",
    "Parameter": "shoal.parameters",
    "Result": "shoal.result",
    "cholesky_corr": "shoal.parameters",
    "from_numpyro": "shoal.bridges.numpyro",
    "interval": "shoal.parameters",
    "load": "shoal.store",
    "ordered": "shoal.parameters",
    "param": "shoal.parameters",
    "positive": "shoal.parameters",
    "real": "shoal.parameters",
    "sample": "shoal.sampling",
    "simplex": "shoal.parameters",
    "unit_interval": "shoal.parameters",
}

__all__ = [*sorted(_HOMES), "examples"]


def __getattr__(name: str) -> Any:
    if name == "examples":
        return import_module("shoal.examples")
    if name not in _HOMES:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
