r"""Convergence diagnostics of draws `[chain, draw, ...]`, in NumPy, for every quantity at once.

R-hat, bulk and tail effective sample size and the error of the mean are those of Vehtari, Gelman, Simpson,
Carpenter and Bürkner (2021, arXiv:1903.08008), in ArviZ's arithmetic: chains are split in halves, ranks
become normal scores, autocorrelations end by Geyer's initial monotone sequence. Nested R-hat is that of
Margossian et al. (2024, arXiv:2110.13017). Everything is NaN for a quantity that is constant or not finite
everywhere, and where there are too few draws.

Sorting and Fourier transforms work on blocks of quantities, so that memory beyond the draws stays bounded.
One sort serves the ranks and the folded ranks; the power spectra of chains are averaged before the one
transform back, since only the mean autocovariance is needed.
"""

from collections.abc import Callable

import numpy as np

from shoal.diagnostics.effective import geyer_ess, many_chain_ess
from shoal.diagnostics.rows import InParts, blocks, moving, normal_scores, split

MIN_DRAWS = 4
TAILS = (0.05, 0.95)


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat, the larger of bulk and folded.

    Args:
        draws: `[chain, draw, *shape]`, at least two chains.

    Returns:
        `[*shape]`, 1 at convergence; NaN where it cannot be told.
    """
    return _apply(draws, _rank_r_hat, min_chains=2)


def ess_bulk(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the normal scores of the ranks.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`; NaN where it cannot be told.
    """
    return _apply(draws, lambda rows: geyer_ess(normal_scores(split(rows))[0]))


def ess_tail(draws: np.ndarray) -> np.ndarray:
    """The smaller effective sample size of the 5% and the 95% quantile.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`; NaN where it cannot be told.
    """
    return _apply(draws, _tail_ess)


def ess_mean(draws: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean, from the draws as they are.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`; NaN where it cannot be told.
    """
    return _apply(draws, lambda rows: geyer_ess(split(rows)))


def mcse_mean(draws: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean: the standard deviation over the root of `ess_mean`.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`, in the unit of the draws; NaN where it cannot be told.
    """
    return _apply(draws, lambda rows: _deviation(rows) / np.sqrt(geyer_ess(split(rows))))


def ess_replicated(draws: np.ndarray) -> np.ndarray:
    r"""Effective sample size of the mean from the spread of chain means, for many chains.

    \(\mathrm{ESS} = C\, \hat\sigma^2 / \mathrm{Var}_c(\bar x_c)\): replicated batch means with one batch per
    chain (Gupta and Vats, arXiv:2007.04229), right for chains of any length, with relative standard deviation
    \(\sqrt{2/(C-1)}\). Below 64 chains it is `ess_mean`.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`; NaN where it cannot be told.
    """
    return _apply(draws, many_chain_ess)


def mcse_replicated(draws: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean from `ess_replicated`.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `[*shape]`, in the unit of the draws; NaN where it cannot be told.
    """
    return _apply(draws, lambda rows: _deviation(rows) / np.sqrt(many_chain_ess(rows)))


def rhat_nested(draws: np.ndarray, superchain: np.ndarray, split_draws: bool = True) -> np.ndarray:
    r"""Nested R-hat, on the draws as they are: \(\sqrt{1 + B/W}\) (equation 8 of arXiv:2110.13017).

    B is the variance of the means of superchains, W the mean over superchains of the variance between their
    chains plus the variance within them. At stationarity B/W is about one over the effective draws of a
    superchain.

    Args:
        draws: `[chain, draw, *shape]`, at least two superchains.
        superchain: `[chain]`, which superchain each chain belongs to.
        split_draws: each half of a superchain counts as one, so that a drift common to all chains shows.
            False is the published form (ArviZ's `rhat_nested` with method `identity`).

    Returns:
        `[*shape]`; NaN where it cannot be told, infinite where superchains differ and do not move.

    Raises:
        ValueError: `superchain` does not have one entry for each chain.
    """
    ids = superchain_index(superchain, np.shape(draws)[0])

    def law(rows: np.ndarray) -> np.ndarray:
        return nested(split(rows), halved(ids)) if split_draws else nested(rows, ids)

    if ids.max(initial=-1) < 1:
        return np.full(np.shape(draws)[2:], np.nan)
    return _apply(draws, law, min_draws=MIN_DRAWS if split_draws else 1)


def summarise(draws: np.ndarray | InParts) -> dict[str, np.ndarray]:
    """The columns of a summary, from one sort.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `mean`, `sd`, `mcse_mean`, `ess_bulk`, `ess_tail` and `r_hat`, each `[*shape]`. The error is that of
        `mcse_replicated`: that of `mcse_mean` was measured to be a fifth too small for 1,024 chains of 16 draws.
    """
    shape = draws.shape[2:]
    count = int(np.prod(shape))
    columns = {name: np.full(count, np.nan) for name in ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")}
    for place, rows in blocks(draws):
        with np.errstate(invalid="ignore", over="ignore"):
            columns["mean"][place] = rows.mean((1, 2), dtype=float) if rows[0].size else np.nan
            columns["sd"][place] = _deviation(rows)
        told = np.flatnonzero(moving(rows))
        if rows.shape[2] < MIN_DRAWS or not told.size:
            continue
        rows, at = rows[told], np.arange(place.start, place.stop)[told]
        halves = split(rows)
        bulk, folded = normal_scores(halves)
        columns["mcse_mean"][at] = columns["sd"][at] / np.sqrt(many_chain_ess(rows))
        columns["ess_bulk"][at] = geyer_ess(bulk)
        columns["ess_tail"][at] = _tail_ess(rows)
        if rows.shape[1] > 1:
            columns["r_hat"][at] = np.maximum(_plain_r_hat(bulk), _plain_r_hat(folded))
    return {name: column.reshape(shape) for name, column in columns.items()}


def _apply(
    draws: np.ndarray,
    law: Callable[[np.ndarray], np.ndarray],
    min_chains: int = 1,
    min_draws: int = MIN_DRAWS,
) -> np.ndarray:
    shape = np.shape(draws)
    values = np.full(int(np.prod(shape[2:])), np.nan)
    if shape[0] >= min_chains and shape[1] >= min_draws:
        for place, rows in blocks(draws):
            told = np.flatnonzero(moving(rows))
            if told.size:
                values[np.arange(place.start, place.stop)[told]] = law(rows[told])
    return values.reshape(shape[2:])


def _deviation(rows: np.ndarray) -> np.ndarray:
    if rows[0].size < 2:
        return np.full(rows.shape[0], np.nan)
    return np.std(rows, axis=(1, 2), ddof=1, dtype=float)


def _plain_r_hat(rows: np.ndarray) -> np.ndarray:
    spread, within = rows.mean(axis=2).var(axis=1, ddof=1), rows.var(axis=2, ddof=1).mean(axis=1)
    return r_hat_of_spread(spread, within, rows.shape[2])


def _rank_r_hat(rows: np.ndarray) -> np.ndarray:
    bulk, folded = normal_scores(split(rows))
    return np.maximum(_plain_r_hat(bulk), _plain_r_hat(folded))


def _tail_ess(rows: np.ndarray) -> np.ndarray:
    quantiles = np.quantile(rows, TAILS, axis=(1, 2))
    below = [geyer_ess(split((rows <= q[:, None, None]).astype(float))) for q in quantiles]
    return np.minimum(*below)


def superchain_index(superchain: np.ndarray, num_chains: int) -> np.ndarray:
    """Superchains numbered from 0.

    Args:
        superchain: `[chain]`, any integers.
        num_chains: how many chains there are.

    Returns:
        `[chain]`, the same groups as 0, 1, 2, ...

    Raises:
        ValueError: there is not one entry for each chain.
    """
    ids = np.asarray(superchain)
    if ids.shape != (num_chains,):
        raise ValueError(
            f"superchain came with shape {ids.shape} for {num_chains} chains: give one number for each chain."
        )
    return np.unique(ids, return_inverse=True)[1]


def halved(ids: np.ndarray) -> np.ndarray:
    """Superchains of the halves that `split` makes: each half counts as a superchain.

    Args:
        ids: `[chain]`, from 0.

    Returns:
        `[2 chain]`, from 0.
    """
    return np.concatenate([ids, ids + ids.max() + 1])


def nested(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Nested R-hat of rows, not split.

    Args:
        rows: `[quantity, chain, draw]`.
        ids: `[chain]`, superchains from 0.

    Returns:
        `[quantity]`.
    """
    variances = rows.var(axis=2, ddof=1, dtype=float) if rows.shape[2] > 1 else np.zeros(rows.shape[:2])
    return nested_of_moments(rows.mean(axis=2, dtype=float), variances, ids)


def r_hat_of_spread(spread: np.ndarray, within: np.ndarray, count: int) -> np.ndarray:
    """R-hat over chains, neither split nor by rank, from variances that a run can keep without its draws.

    Args:
        spread: `[quantity]`, the variance of the means of chains, by chains less one.
        within: `[quantity]`, the mean over chains of the variance within them, by draws less one.
        count: of draws of each chain.

    Returns:
        `[quantity]`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((count * spread / within + count - 1) / count)


def nested_of_moments(means: np.ndarray, variances: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Nested R-hat from the mean and the variance of each chain, which a run can keep without its draws.

    Args:
        means: `[quantity, chain]`.
        variances: `[quantity, chain]`, within chains.
        ids: `[chain]`, superchains from 0.

    Returns:
        `[quantity]`.
    """
    # Superchains may be as many as chains: nothing here has the size of both.
    order = np.argsort(ids, kind="stable")
    size = np.bincount(ids)
    first = np.cumsum(size) - size
    total = lambda values: np.add.reduceat(values[:, order], first, axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centre = total(means) / size
        between = total((means - centre[:, ids]) ** 2) / np.maximum(size - 1, 1)
        within = total(variances) / size
        return np.sqrt(1 + centre.var(axis=1, ddof=1) / (within + between).mean(axis=1))
