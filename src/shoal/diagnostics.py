r"""Convergence diagnostics of draws `[chain, draw, ...]`, in NumPy, for every quantity at once.

R-hat, bulk and tail effective sample size and the error of the mean are those of Vehtari, Gelman, Simpson,
Carpenter and Bürkner (2021, arXiv:1903.08008), in ArviZ's arithmetic: chains are split in halves, ranks become
normal scores, autocorrelations end by Geyer's initial monotone sequence. Nested R-hat is that of Margossian et
al. (2024, arXiv:2110.13017). Everything is NaN for a quantity that is constant or not finite everywhere, and
where there are too few draws.

Sorting and Fourier transforms work on blocks of quantities, so that memory beyond the draws stays bounded. One
sort serves the ranks and the folded ranks; the power spectra of chains are averaged before the one transform
back, since only the mean autocovariance is needed.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft
import scipy.special

MIN_DRAWS = 4
TAILS = (0.05, 0.95)
# From this many chains on, the spread of their means tells the error of the mean to 18% and better, without
# autocovariances, for chains of any length.
MANY_CHAINS = 64
# Numbers in one block: 16 MB in double precision, and a few times that in temporaries.
BLOCK = 1 << 21


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat, the larger of bulk and folded (equations 14 and following of arXiv:1903.08008).

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
        split_draws: each half of a superchain counts as one, so that a drift common to all chains shows. False
            is the published form (ArviZ's `rhat_nested` with method `identity`).

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


def summarise(draws: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a summary, from one sort.

    Args:
        draws: `[chain, draw, *shape]`.

    Returns:
        `mean`, `sd`, `mcse_mean`, `ess_bulk`, `ess_tail` and `r_hat`, each `[*shape]`.
    """
    shape = np.shape(draws)[2:]
    count = int(np.prod(shape))
    columns = {
        name: np.full(count, np.nan) for name in ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")
    }
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
        columns["mcse_mean"][at] = columns["sd"][at] / np.sqrt(geyer_ess(halves))
        columns["ess_bulk"][at] = geyer_ess(bulk)
        columns["ess_tail"][at] = _tail_ess(rows)
        if rows.shape[1] > 1:
            columns["r_hat"][at] = np.maximum(_plain_r_hat(bulk), _plain_r_hat(folded))
    return {name: column.reshape(shape) for name, column in columns.items()}


# Below, `rows` are [quantity, chain, draw]: chains contiguous, quantities outermost.


def blocks(draws: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The draws as blocks of quantities.

    Args:
        draws: `[chain, draw, *shape]`.

    Yields:
        The place of the block among the quantities in C order, and its rows `[quantity, chain, draw]`, floating.
    """
    draws = np.asarray(draws)
    if draws.dtype not in (np.float32, np.float64):
        draws = draws.astype(np.float64)
    flat = draws.reshape(*draws.shape[:2], int(np.prod(draws.shape[2:])))
    width = max(1, BLOCK // max(1, flat.shape[0] * flat.shape[1]))
    for begin in range(0, flat.shape[2], width):
        place = slice(begin, min(begin + width, flat.shape[2]))
        yield place, np.ascontiguousarray(flat[:, :, place].transpose(2, 0, 1))


def moving(rows: np.ndarray) -> np.ndarray:
    """Which quantities are finite everywhere and not constant.

    Args:
        rows: `[quantity, chain, draw]`.

    Returns:
        `[quantity]`, bool.
    """
    if not rows[0].size:
        return np.zeros(rows.shape[0], bool)
    low, high = rows.min((1, 2)), rows.max((1, 2))
    return np.isfinite(low) & np.isfinite(high) & (low < high)


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


def split(rows: np.ndarray) -> np.ndarray:
    """Halves of chains as chains; the middle draw of an odd number is left out.

    Args:
        rows: `[quantity, chain, draw]`.

    Returns:
        `[quantity, 2 chain, draw // 2]`: all first halves, then all second halves.
    """
    half = rows.shape[2] // 2
    return np.concatenate([rows[:, :, :half], rows[:, :, rows.shape[2] - half :]], axis=1)


def _deviation(rows: np.ndarray) -> np.ndarray:
    if rows[0].size < 2:
        return np.full(rows.shape[0], np.nan)
    return np.std(rows, axis=(1, 2), ddof=1, dtype=float)


def normal_scores(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores of the ranks, and of the ranks of the distance from the median.

    Args:
        rows: `[quantity, chain, draw]`, finite.

    Returns:
        Two arrays of the same shape; Blom's scores, tied values share the mean of their ranks.
    """
    flat = rows.reshape(rows.shape[0], -1)
    size = flat.shape[1]
    # The mean of tied ranks is a whole or a half number: a table holds every score there is.
    table = scipy.special.ndtri((np.arange(2 * size - 1) / 2 + 1 - 3 / 8) / (size + 1 / 4))
    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, axis=1)
    bulk = np.empty(flat.shape)
    np.put_along_axis(bulk, order, table[_doubled_ranks(ordered)], axis=1)
    median = (ordered[:, (size - 1) // 2] + ordered[:, size // 2]) / 2
    # Distances from the median, lower half turned round: two ascending runs, which a merge sort joins quickly.
    turn = np.concatenate([np.arange(size // 2)[::-1], np.arange(size // 2, size)])
    distance = np.abs(ordered[:, turn] - median[:, None])
    merged = np.argsort(distance, axis=1, kind="stable")
    folded = np.empty(flat.shape)
    ranks = _doubled_ranks(np.take_along_axis(distance, merged, axis=1))
    np.put_along_axis(folded, np.take_along_axis(order, turn[merged], axis=1), table[ranks], axis=1)
    return bulk.reshape(rows.shape), folded.reshape(rows.shape)


def _doubled_ranks(ordered: np.ndarray) -> np.ndarray:
    """Twice the rank, from 0, of sorted rows; tied values share their mean rank."""
    size = ordered.shape[1]
    place = np.broadcast_to(np.arange(size), ordered.shape)
    differs = ordered[:, 1:] != ordered[:, :-1]
    if differs.all():
        return 2 * place
    edge = np.ones((len(ordered), 1), bool)
    first = np.where(np.concatenate([edge, differs], axis=1), place, 0)
    last = np.where(np.concatenate([differs, edge], axis=1), place, size - 1)
    first = np.maximum.accumulate(first, axis=1)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    return first + last


def _plain_r_hat(rows: np.ndarray) -> np.ndarray:
    count = rows.shape[2]
    within = rows.var(axis=2, ddof=1).mean(axis=1)
    between = count * rows.mean(axis=2).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + count - 1) / count)


def _rank_r_hat(rows: np.ndarray) -> np.ndarray:
    bulk, folded = normal_scores(split(rows))
    return np.maximum(_plain_r_hat(bulk), _plain_r_hat(folded))


def geyer_ess(rows: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean over chains and draws, by Geyer's initial monotone sequence.

    Args:
        rows: `[quantity, chain, draw]`, at least two draws.

    Returns:
        `[quantity]`; all draws for a constant, as in ArviZ (an indicator of a tail can be).
    """
    _, chains, count = rows.shape
    means = rows.mean(axis=2, dtype=float)
    length = scipy.fft.next_fast_len(2 * count, real=True)
    spectrum = scipy.fft.rfft(rows - means[:, :, None], n=length, axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    covariance = scipy.fft.irfft(power, n=length, axis=1)[:, :count] / count
    within = covariance[:, 0] * count / (count - 1)
    total = covariance[:, 0] + (means.var(axis=1, ddof=1) if chains > 1 else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1 - (within[:, None] - covariance) / total[:, None]
    correlation[:, 0] = 1
    draws = chains * count
    time = np.maximum(_geyer_time(correlation), 1 / np.log10(draws))
    return np.where(total > 0, draws / time, draws)


def _geyer_time(correlation: np.ndarray) -> np.ndarray:
    """Integrated autocorrelation time from `[quantity, lag]`, lag 0 first: ArviZ's sum, without its loops."""
    count = correlation.shape[1]
    pairs = max(1, (count - 1) // 2)  # ArviZ looks at no pair beyond lag count - 2
    even, odd = correlation[:, 0 : 2 * pairs : 2], correlation[:, 1 : 2 * pairs : 2]
    sums = even + odd
    negative = sums <= 0
    last = np.where(negative.any(axis=1), negative.argmax(axis=1), pairs - 1)
    monotone = np.minimum.accumulate(sums, axis=1)
    kept = np.where(np.arange(pairs) < last[:, None], monotone, 0.0).sum(axis=1)
    at = (np.arange(len(last)), last)
    rest = np.where((even[at] > 0) | (sums[at] >= 0), even[at], 0.0)
    return -1 + 2 * kept + rest


def _tail_ess(rows: np.ndarray) -> np.ndarray:
    quantiles = np.quantile(rows, TAILS, axis=(1, 2))
    below = [geyer_ess(split((rows <= q[:, None, None]).astype(float))) for q in quantiles]
    return np.minimum(*below)


def many_chain_ess(rows: np.ndarray) -> np.ndarray:
    """`ess_replicated` of rows.

    Args:
        rows: `[quantity, chain, draw]`, at least four draws.

    Returns:
        `[quantity]`.
    """
    _, chains, count = rows.shape
    if chains < MANY_CHAINS:
        return geyer_ess(split(rows))
    draws = chains * count
    spread = rows.mean(axis=2, dtype=float).var(axis=1, ddof=1)
    total = spread + rows.var(axis=2, dtype=float).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.minimum(chains * total / spread, draws * np.log10(draws))


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
    member = np.equal.outer(ids, np.arange(ids.max() + 1)).astype(float)
    size = member.sum(axis=0)
    means = rows.mean(axis=2, dtype=float)
    centre = means @ member / size
    between = (means - centre[:, ids]) ** 2 @ member / np.maximum(size - 1, 1)
    within = rows.var(axis=2, ddof=1, dtype=float) @ member / size if rows.shape[2] > 1 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(1 + centre.var(axis=1, ddof=1) / (within + between).mean(axis=1))
