"""The front door: parameters from the prior, data from them, posteriors from these, and the ranks of the truth."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from shoal.arguments import check_count, check_seed
from shoal.calibration.figure import num_points_of
from shoal.calibration.outcome import Calibration
from shoal.calibration.ranks import independent_draws, quantities, ranked, thinned
from shoal.calibration.simulated import log_densities, simulated
from shoal.calibration.uniformity import p_values
from shoal.many.data import read_many
from shoal.many.sampling import asked, sample_many
from shoal.models.model import Model
from shoal.randomness import root_key
from shoal.samplers import Sampler

# Sets the key of simulations apart from the keys of data sets, which count from 0.
_SIMULATIONS = 2**32 - 2
FEWEST_DATASETS = 20


def sbc(  # noqa: PLR0913  (a front door: each is a choice that users make)
    model: Model,
    simulate: Callable[[Any], tuple[Any, Any]],
    num_datasets: int = 200,
    *,
    num_chains: int = 64,
    num_warmup: int | None = None,
    num_samples: int = 200,
    sampler: str | Sampler = "chees",
    seed: int = 0,
    false_alarm: float = 0.01,
    precision: str = "float32",
    progress_bar: bool = True,
    block: int | None = None,
) -> Calibration:
    r"""Simulation-based calibration: do posteriors give back the parameters that their data were made with?

    Parameters are drawn from the prior, data given these, and the posterior of every data set is sampled, all at once
    (`shoal.sample_many`). If simulation, model and sampler are about the same law, the true value of each number stands
    at any rank among independent draws of its posterior with the same probability (Cook, Gelman & Rubin, 2006; Talts et
    al., 2018, arXiv:1804.06788, theorem 1). So does the log density at the truth among its draws, which sees wrong
    priors, and data that count twice, where single parameters hardly do (Modrák et al., 2023, arXiv:2211.02383).

    Each quantity's ranks are tested for their mean, their spread and their whole distribution
    (`shoal.calibration.uniformity`).

    Args:
        model: a `shoal.Model` with data, which the simulated data replace.
        simulate: from a random key of JAX to `(values, data)`: the true value of every parameter by name, on its
            support, and the data as `shoal.sample_many` takes them. Deterministic quantities may be among the values
            and are then ranked, too. A function of `jax.numpy` is mapped over the keys; one that cannot be traced, as
            of numpy, is called once for each.
        num_datasets: how many, at least 20.
        num_chains: of each data set, as for `shoal.sample_many`.
        num_warmup: draws of every chain in which the sampler is tuned; 500 by default.
        num_samples: draws of every chain after it. Ranks are among at most 256 of them that are about independent.
        sampler: as for `shoal.sample_many`.
        seed: of everything.
        false_alarm: the probability that anything is said against ranks that are uniform, in (0, 1): of all tests of
            all quantities together.
        precision: "float32" or "float64".
        progress_bar: show how many data sets are done.
        block: as for `shoal.sample_many`.

    Returns:
        Ranks, p values, findings and `passed`. Data sets that have not converged are counted like all others, and
        named in a finding, which blocks where they are more than a tenth.

    Raises:
        ValueError: an argument is out of its range, `simulate` gives something else or fails, or a data set cannot be
            sampled; the message says which.

    Example:
        `shoal.sbc(model, lambda key: ({"mu": mu := 10 * jax.random.normal(key)}, {"y": mu + noise(key)})).passed`
    """
    asked(model, num_chains, num_warmup, num_samples, sampler, precision)
    if not callable(simulate):
        raise ValueError(
            f"simulate: got {type(simulate).__name__}, expected a function from a random key of JAX to the true "
            "parameters and the data."
        )
    check_count("num_datasets", num_datasets, FEWEST_DATASETS)
    check_seed(seed)
    if isinstance(false_alarm, bool) or not isinstance(false_alarm, float | np.floating) or not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm={false_alarm!r}: expected a probability between 0 and 1, such as 0.01.")
    double = precision == "float64"
    with jax.enable_x64(double):
        made = simulated(model, simulate, jax.random.fold_in(root_key(int(seed)), _SIMULATIONS), int(num_datasets))
        data, _ = read_many(model, made.data)
        log_density = log_densities(model, made.values, data, np.float64 if double else np.float32)
    results = sample_many(
        model,
        data,
        num_chains=num_chains,
        num_warmup=num_warmup,
        num_samples=num_samples,
        sampler=sampler,
        seed=seed,
        progress_bar=progress_bar,
        precision=precision,
        keep=list(made.values),
        block=block,
    )
    found = quantities(results, made.values, log_density)
    wanted, rng = independent_draws(found), np.random.default_rng(int(seed))
    chosen = [thinned(quantity.draws, wanted) for quantity in found]
    num_draws = chosen[0].shape[1]
    pairs = [ranked(draws, quantity.truth, rng) for draws, quantity in zip(chosen, found, strict=True)]
    ranks, places = (np.stack(parts, axis=1) for parts in zip(*pairs, strict=True))
    points = num_points_of(len(ranks), num_draws)
    return Calibration(
        labels=tuple(quantity.label for quantity in found),
        ranks=ranks,
        places=places,
        num_draws=num_draws,
        p_values=np.stack([p_values(column, points) for column in places.T]),
        false_alarm=float(false_alarm),
        truth=made.values,
        results=results,
    )
