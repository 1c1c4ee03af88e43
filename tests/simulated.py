"""Simulated chains with known autocorrelation, and results made of them."""

from typing import Any

import numpy as np
from scipy.signal import lfilter

from shoal.results.result import Gradients, Result, Timing


def ar1(rng: np.random.Generator, chains: int, draws: int, shape: tuple[int, ...] = (), rho: float = 0.5) -> np.ndarray:
    """Stationary AR(1) chains, standard normal, autocorrelation time (1 + rho) / (1 - rho)."""
    noise = rng.standard_normal((chains, draws, *shape))
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=1))


def metropolis(
    rng: np.random.Generator, chains: int, draws: int, dim: int, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """A stationary Metropolis walk on a standard normal, and its acceptance rates, `[chain, draw]`."""
    at, path, rates = rng.standard_normal((chains, dim)), [], []
    for _ in range(draws):
        proposed = at + step * rng.standard_normal(at.shape)
        rate = np.minimum(1.0, np.exp(0.5 * (at**2 - proposed**2).sum(axis=1)))
        at = np.where((rng.random(chains) < rate)[:, None], proposed, at)
        path.append(at)
        rates.append(rate)
    return np.stack(path, axis=1), np.stack(rates, axis=1)


def sample_stats(lp: np.ndarray, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """What a well-behaved sampler would report beside this log density."""
    shape = lp.shape
    return {
        "acceptance_rate": np.full(shape, 0.8, dtype),
        "diverging": np.zeros(shape, bool),
        "energy_error": np.zeros(shape, dtype),
        "n_steps": np.full(shape, 7, np.int32),
        "step_size": np.full(shape, 0.1, dtype),
        "lp": lp.astype(dtype),
    }


def result(chains: int = 64, draws: int = 100, /, dtype: type = np.float32, seed: int = 0, **changes: Any) -> Result:
    """A converged run of a scalar and a labelled vector."""
    z = ar1(np.random.default_rng(seed), chains, draws, (4,), rho=0.3).astype(dtype)
    fields: dict[str, Any] = {
        "draws": {"tau": np.exp(z[..., 0]), "beta": z[..., 1:]},
        "sample_stats": sample_stats(-0.5 * (z**2).sum(axis=2), dtype),
        "superchain": np.repeat(np.arange(8), chains // 8),
        "parameters": ("tau", "beta"),
        "dims": {"beta": ("feature",)},
        "coords": {"feature": ["Radius", "Texture", "Größe"]},
        "timing": Timing(3.0, 2.0, 0.5),
        "gradients": Gradients(1000, 2000),
        "tuning": {"step_size": np.asarray(0.1, dtype), "metric.scale": np.linspace(0.1, 1, 4).astype(dtype)},
        "settings": {"model": "toy", "sampler": "chees", "precision": np.dtype(dtype).name, "seed": 0},
        "versions": {"shoal": "0.1.0", "jax": "0.12.0"},
    }
    return Result(**{**fields, **changes})
