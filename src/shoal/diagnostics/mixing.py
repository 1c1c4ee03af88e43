r"""What the verdict rests on: for every quantity, do the superchains agree, do the halves, and how precisely?

All tests look at normal scores of the ranks, as they are (location) and folded about the median (scale). On
the draws themselves nested R-hat never raises a false alarm for a Cauchy quantity, and never a true one: an
outlier is in W and in B alike. Measured with 16 superchains of 8 and one of them shifted by one standard
deviation of the underlying normal, 1.01 is passed by a Cauchy quantity in 0.3% of runs on the draws and in
all runs on the scores; for a normal quantity both see it always.

Nested R-hat at 1.01 cannot see one superchain among 16 that is half a standard deviation off, however long
the run. Two t tests fill the gap. They use means of chains, which are independent at stationarity, so that
autocorrelation cannot mislead them: a superchain against the others, with the spread between chains inside
superchains as the error, and the second half against the first, chain by chain. Both must be significant and
large to count.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from shoal.diagnostics.effective import many_chain_ess
from shoal.diagnostics.estimates import MIN_DRAWS, halved, nested
from shoal.diagnostics.rows import InParts, blocks, moving, normal_scores, split
from shoal.diagnostics.tails import heaviest, tail_ess

# One in ten million: some thousands of tests in a run leave less than one false alarm in a thousand runs.
LEVEL = 1e-7
# In standard deviations of the quantity. A smaller shift matters less than the Monte Carlo error that
# 400 effective draws leave in a group of chains.
APART = 0.25
DRIFT = 0.1
# Draws made on the way to the bulk are few and far out: halves, and ranks, hardly notice them. So the beginning of
# a run, in several lengths, is held against its second half, too.
EARLY, EARLY_DRIFT = (0.01, 0.02, 0.05, 0.1, 0.2), 0.5
# A quantity that spreads from half to half and from the third quarter to the last, both by a test: at stationarity one
# in seventy million does.
HALF_LEVEL, LATE_LEVEL, LATE = 1e-6, 0.05, 0.2
# A quantity whose range is this many roundings is a constant that was computed in floating point.
ROUNDINGS = 8


class Mixing(NamedTuple):
    """Numbers for every quantity of one variable, in C order; NaN for quantities that are not judged.

    Attributes:
        missing: how many draws are not finite.
        judged: whether the quantity is finite and not constant.
        r_hat: nested R-hat of halves of superchains, the larger of location and scale.
        ess: effective sample size, the smallest of location, scale and the draws as they are.
        apart: how far the farthest superchain is from all others, in standard deviations; 0 if by chance.
        farthest: which superchain that is, counted from 0.
        drift: how far the second half is from the first, in standard deviations; 0 if by chance.
        growing: whether that is because the quantity spreads, and still does in the last quarter.
        tail_ess: effective sample size of the share below the 5% or beyond the 95% quantile, the smaller.
        heavy: Pareto's k of the heavier tail, 0 where its mean means something (`shoal.diagnostics.tails`).
        upper: whether that tail is the upper one.
    """

    missing: np.ndarray
    judged: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray
    apart: np.ndarray
    farthest: np.ndarray
    drift: np.ndarray
    growing: np.ndarray
    tail_ess: np.ndarray
    heavy: np.ndarray
    upper: np.ndarray


def mixing(draws: np.ndarray | InParts, ids: np.ndarray) -> Mixing:
    """Judge every quantity of one variable.

    Args:
        draws: `[chain, draw, *shape]`.
        ids: `[chain]`, superchains from 0.

    Returns:
        Arrays over quantities.
    """
    count = int(np.prod(draws.shape[2:]))
    result = Mixing(
        missing=np.zeros(count, int),
        judged=np.zeros(count, bool),
        r_hat=np.full(count, np.nan),
        ess=np.full(count, np.nan),
        apart=np.zeros(count),
        farthest=np.zeros(count, int),
        drift=np.zeros(count),
        growing=np.zeros(count, bool),
        tail_ess=np.full(count, np.nan),
        heavy=np.zeros(count),
        upper=np.zeros(count, bool),
    )
    for place, rows in blocks(draws):
        result.missing[place] = np.count_nonzero(~np.isfinite(rows), axis=(1, 2))
        judged = moving(rows) & _varies(rows)
        result.judged[place] = judged
        if rows.shape[2] < MIN_DRAWS or not judged.any():
            continue
        at = np.arange(place.start, place.stop)[judged]
        _judge(rows[judged], ids, at, result)
    return result


def _varies(rows: np.ndarray) -> np.ndarray:
    if not rows[0].size:
        return np.zeros(rows.shape[0], bool)
    return beyond_rounding(rows.min((1, 2)), rows.max((1, 2)), rows.dtype)


def beyond_rounding(low: np.ndarray, high: np.ndarray, precision: np.dtype) -> np.ndarray:
    """Whether numbers between these bounds differ by more than rounding.

    Args:
        low: the smallest of each quantity.
        high: the largest.
        precision: in which they were computed.

    Returns:
        `[quantity]`, bool.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return high - low > ROUNDINGS * np.finfo(precision).eps * np.maximum(np.abs(low), np.abs(high))


def _judge(rows: np.ndarray, ids: np.ndarray, at: np.ndarray, result: Mixing) -> None:
    parts = split(rows)
    scores = normal_scores(parts)
    halves = halved(ids)
    result.ess[at] = many_chain_ess(rows)
    result.r_hat[at] = nested(scores[0], halves)
    for score in scores:
        result.r_hat[at] = np.maximum(result.r_hat[at], nested(score, halves))
        first, second = np.split(score.mean(axis=2), 2, axis=1)
        whole = np.concatenate(np.split(score, 2, axis=1), axis=2)
        result.ess[at] = np.minimum(result.ess[at], many_chain_ess(whole))
        apart, farthest = superchains_apart((first + second) / 2, ids)
        farther = apart > result.apart[at]
        result.farthest[at] = np.where(farther, farthest, result.farthest[at])
        result.apart[at] = np.maximum(result.apart[at], apart)
        result.drift[at] = np.maximum(result.drift[at], half_drift(second - first))
        for share in EARLY:
            start = whole[:, :, : max(1, int(share * whole.shape[2]))].mean(axis=2)
            result.drift[at] = np.maximum(result.drift[at], half_drift(second - start, EARLY_DRIFT))
        if score is scores[0]:
            result.tail_ess[at] = tail_ess(whole)
            result.heavy[at], result.upper[at] = heaviest(parts, score, result.tail_ess[at])
        else:
            result.growing[at] = _grows(second - first, whole)


def _grows(difference: np.ndarray, folded: np.ndarray) -> np.ndarray:
    """Whether a quantity is farther out in the second half, and goes on to be so in the last quarter.

    The variance of a random walk grows like 1, 3, 5, 7 from quarter to quarter: from the third to the fourth it makes a
    third of the way, by ranks, that it makes from half to half. Chains that had not arrived slow down, and make less.
    """
    half = folded.shape[2] // 2
    third, fourth = np.split(folded[:, :, half : half + half // 2 * 2], 2, axis=2)
    later, way = fourth.mean(axis=2) - third.mean(axis=2), difference.mean(axis=1)
    lasts = (half_drift(later, 0.0, LATE_LEVEL) > 0) & (later.mean(axis=1) > LATE * way)
    return (way > 0) & (half_drift(difference, DRIFT, HALF_LEVEL) > 0) & lasts


def superchains_apart(means: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The superchain farthest from the others, where chance does not explain it.

    Args:
        means: `[quantity, chain]`, means of chains, in standard deviations of the quantity.
        ids: `[chain]`, superchains from 0.

    Returns:
        Its distance, 0 where it is small or may be chance, and its number.
    """
    member = np.equal.outer(ids, np.arange(ids.max() + 1)).astype(float)
    size = member.sum(axis=0)
    freedom = int(len(ids) - len(size))
    if len(size) < 2 or freedom < 8:
        return np.zeros(len(means)), np.zeros(len(means), int)
    centre = means @ member / size
    variance = ((means - centre[:, ids]) ** 2).sum(axis=1) / freedom
    others = (means.sum(axis=1, keepdims=True) - centre * size) / (len(ids) - size)
    distance = np.abs(centre - others)
    error = np.sqrt(variance[:, None] * (1 / size + 1 / (len(ids) - size)))
    counts = (distance > APART) & (distance > -stdtrit(freedom, LEVEL / 2) * error)
    farthest = np.where(counts, distance, 0).argmax(axis=1)
    return np.where(counts, distance, 0).max(axis=1), farthest


def half_drift(difference: np.ndarray, least: float = DRIFT, level: float = LEVEL) -> np.ndarray:
    """How far two stretches of a run are from each other, where chance does not explain it.

    Args:
        difference: `[quantity, chain]`, the later mean less the earlier, in standard deviations.
        least: what is not worth a word.
        level: of the test.

    Returns:
        `[quantity]`, 0 where it is small or may be chance.
    """
    chains = difference.shape[1]
    if chains < 8:
        return np.zeros(len(difference))
    drift = np.abs(difference.mean(axis=1))
    error = difference.std(axis=1, ddof=1) / np.sqrt(chains)
    counts = (drift > least) & (drift > -stdtrit(chains - 1, level / 2) * error)
    return np.where(counts, drift, 0)
