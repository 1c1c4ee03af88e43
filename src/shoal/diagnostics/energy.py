r"""The energy Bayesian fraction of missing information: how much of its spread fresh momenta give the energy per draw.

Betancourt (2016, arXiv:1604.00695) compares the changes of the energy with its spread,

\[\text{E-BFMI} = E[(E_n - E_{n-1})^2] / \operatorname{Var}(E).\]

A draw has the energy \(E_n = V_n + K_n\), the potential \(V = -\log\pi\) and the kinetic energy of its own momentum.
A trajectory begins at \(V_{n-1}\) with a fresh momentum, of kinetic energy \(K'_n\), and keeps its energy: so
\(E_n - E_{n-1} = K'_n - K_{n-1}\). Kernels leave the density of position and momentum together invariant, which makes
\(K_{n-1}\), like \(K'_n\), half a \(\chi^2\) of \(d\) degrees of freedom, and independent of \(V_{n-1}\); both have the
mean \(d / 2\) and the variance \(d / 2\). Therefore

\[\text{E-BFMI} = 2 \operatorname{Var}(K) / \operatorname{Var}(E) = 2 E[K] / \operatorname{Var}(E)
= d / (d / 2 + \operatorname{Var}(V)),\]

and \(K_n = E_n + \log\pi_n\) is known of each draw: no two of them need to follow on each other. It is at most 2 and,
of a normal target in any dimension, 1. What errors of trajectories add to the changes is left out: ArviZ, which goes by
these, has 1.17 where this has 1.03, for a normal target in 7 dimensions and an acceptance of 0.87.

Measured with exact draws, 400 runs each of 4 chains of 250 and 1,000 draws, 16 of 4, 20 and 100, 128 of 4 to 400, 1,024
of 4 and 50: no alarm of a normal target in 1, 5 and 100 dimensions (13,200 runs; none in 10,000 with autocorrelations
of 0.9 to 0.999), nor of products of Laplace's and of Student's t with 3 degrees of freedom, whose E-BFMI is 0.67 and
0.60; 3 alarms, all of 16 chains of 4, of products of t with 2 and of a funnel in two dimensions, for which it is 0.48
and 0.47. Where it is low:

| Target, dimensions | E-BFMI | 16 chains of 4 | 16 of 100 | 4 of 1,000 | 128 of 20 |
|---|---:|---:|---:|---:|---:|
| Cauchy, 1 | 0.26 | 59 of 400 | 379 | 397 | 393 |
| product of Cauchy, 5 | 0.26 | 182 | 399 | 400 | 400 |
| Student's t, 2 degrees of freedom, 10 | 0.17 | 362 | 400 | 400 | 400 |
| funnel, 10 | 0.05 | 400 | 400 | 400 | 400 |
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from shoal.diagnostics.rows import blocks, moving, normal_scores, variable

# Below it, as ArviZ and Stan have it, fresh momenta change the energy too little.
LOW = 0.3
# So few chains tell how well it is known. It must be below 1/2, too, with a chance of error of one in so many.
FEWEST, SURELY, CHANCE = 4, 0.5, 1 / 200
# Units in the last place by which log densities are off, as a rule.
ROUNDING = 4.0
# Draws that are ranked, of a sample of all; a rank correlation that is worth a word, and beyond so many errors of it.
AMONG, CLEAR, ERRORS = 4096, 0.3, 4.0


class Fraction(NamedTuple):
    """How much of the energy's spread is of fresh momenta.

    Attributes:
        value: E-BFMI; NaN where it is not known.
        error: of its logarithm, by the spread over chains.
        low: whether it is too small, and known well enough to say so.
    """

    value: float
    error: float
    low: bool


class Partner(NamedTuple):
    """A quantity that goes with the energy.

    Attributes:
        name: of the variable.
        shape: its shape.
        quantity: the number of the quantity, in C order.
        far: whether it is its distance from the median that does.
        correlation: of normal scores.
    """

    name: str
    shape: tuple[int, ...]
    quantity: int
    far: bool
    correlation: float


def fraction(energy: np.ndarray, lp: np.ndarray) -> Fraction:
    """E-BFMI of all chains together.

    Its error is that of the ratio by the spread of chains (the delta method).

    Args:
        energy: of draws that need not follow on each other, `[chain, draw]`.
        lp: their log density, `[chain, draw]`.
    """
    exact, chains = np.asarray(energy, float), len(energy)
    if not exact.size:
        return Fraction(math.nan, math.nan, False)
    with np.errstate(invalid="ignore", divide="ignore"):
        kinetic, off = exact + lp, exact - exact.mean()
        squares = off**2
        value = 2.0 * kinetic.mean() / squares.mean()
        share = (kinetic / kinetic.mean() - squares / squares.mean()).mean(axis=1)
    if not (np.isfinite(value) and value > 0.0):
        return Fraction(math.nan, math.nan, False)
    if chains < FEWEST:
        return Fraction(float(value), math.nan, False)
    error = float(share.std(ddof=1)) / math.sqrt(chains)
    # Rounding spreads the energy, and momenta do not.
    rounded = ROUNDING * float(np.finfo(np.asarray(energy).dtype).eps) * float(np.median(np.abs(exact)))
    sure = math.log(SURELY / value) > -float(stdtrit(chains - 1, CHANCE)) * error
    return Fraction(float(value), error, bool(value < LOW and sure and rounded**2 < 0.1 * squares.mean()))


def partners(draws: Mapping[str, np.ndarray], energy: np.ndarray) -> tuple[Partner, ...]:
    """The quantities that go with the energy, or whose distance from the median does.

    Args:
        draws: by variable, `[chain, draw, *shape]`.
        energy: `[chain, draw]`.

    Returns:
        The clearest first; those whose rank correlation with it is 0.3 and more, and four times its error by the spread
        over chains.
    """
    step = max(1, math.ceil(energy.size / AMONG))
    some = slice(None, None, max(1, step // energy.shape[1])), slice(None, None, min(step, energy.shape[1]))
    level = normal_scores(np.asarray(energy, float)[some][None])[0]
    found: list[Partner] = []
    for name in draws:
        values = variable(draws, name)
        for place, rows in blocks(values):
            rows = rows[:, *some]
            moved = np.flatnonzero(moving(rows))
            if not len(moved):
                continue
            near, far = (_correlations(scores, level) for scores in normal_scores(rows[moved]))
            further = np.abs(far) > np.abs(near)
            clearest = np.where(further, far, near)
            found += [
                Partner(name, values.shape[2:], place.start + int(moved[i]), bool(further[i]), float(clearest[i]))
                for i in np.flatnonzero(np.abs(clearest) >= CLEAR)
            ]
    return tuple(sorted(found, key=lambda partner: -abs(partner.correlation)))


def _correlations(scores: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Of normal scores `[quantity, chain, draw]` with those of the energy; 0 where chance may explain it."""
    if scores.shape[1] < 2:  # One chain does not tell what is chance.
        return np.zeros(len(scores))
    centred = [each - each.mean(axis=(1, 2), keepdims=True) for each in (scores, level)]
    scale = centred[0].std(axis=(1, 2)) * centred[1].std(axis=(1, 2))
    each = (centred[0] * centred[1]).mean(axis=2) / scale[:, None]
    correlation, error = each.mean(axis=1), each.std(axis=1, ddof=1) / math.sqrt(each.shape[1])
    return np.where(np.abs(correlation) > ERRORS * error, correlation, 0.0)


def words(value: float, named: Partner | None, label: str, others: int) -> tuple[str, str]:
    """What was seen and what to do.

    Args:
        value: E-BFMI.
        named: what goes with the energy most, if anything does.
        label: its label.
        others: how many more numbers go with it.

    Returns:
        Words and remedy of a finding.
    """
    what = ""
    if named is not None:
        how = f"the distance of {label} from its median" if named.far else label
        more = f", and less with {others:,} more" if others else ""
        what = f" The energy goes with {how} (rank correlation {named.correlation:.2f}){more}."
    seen = (
        f"The energy spreads {math.sqrt(1 / value):.1f} times as far as fresh momenta change it from draw to draw: "
        f"E-BFMI is {value:.2f} (from {LOW} on is let pass). Chains wander slowly between the bulk and the tails, and "
        f"these are known less well than the middle.{what}"
    )
    return seen, (
        f"{_way(named, label)} A longer warmup or smaller steps do not help, since the posterior is so; more draws do, "
        "slowly: look at ess_tail of what you report."
    )


def _way(named: Partner | None, label: str) -> str:
    mixture = "as a scale mixture (a Student's t or Cauchy is a normal number over the root of a gamma number)"
    if named is None:
        return f"Reparametrise: do without centring what a scale multiplies, write heavy-tailed priors {mixture}."
    if not named.far:
        return f"Reparametrise what depends on {label}, for instance without centring."
    return (
        f"If the prior of {label} has heavy tails, write it {mixture}, or give it lighter ones; if a scale multiplies "
        f"{label}, do without centring."
    )
