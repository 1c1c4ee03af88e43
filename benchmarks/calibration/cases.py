"""Laws whose answer is known: those that a run should end on, and those that it should not be fooled by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

import shoal

from ..panel.targets import TARGETS
from ..panel.targets.base import Draws, Reference, Target
from ..panel.targets.plain import LogDensity, flattened, labels, plain, vector

Asked = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A law, and how it is sampled.

    Attributes:
        target: the law, with its answer.
        ask: what is asked for beside the default, for a number of chains and a seed.
        covers: whether the chains begin in all of its modes and tails, or can get there.
        note: what is hard about it.
    """

    target: Target
    ask: Callable[[int, int], Asked] = field(default=lambda chains, seed: {}, repr=False)
    covers: bool = True
    note: str = ""


def law(name: str, dim: int, log_density: LogDensity, refer: Callable[[], Reference], **rest: Any) -> Target:
    """Of one vector `z`."""
    return Target(name, dim, "calibration", partial(plain, name, dim, log_density), refer, vector, **rest)


SCALES = np.logspace(-1, 1, 10)
RHO = 0.9


def independent(z: Array) -> Array:
    return -0.5 * jnp.sum((z / jnp.asarray(SCALES, z.dtype)) ** 2)


def chained(z: Array) -> Array:
    return -0.5 * (z[0] ** 2 + jnp.sum((z[1:] - RHO * z[:-1]) ** 2) / (1 - RHO**2))


def normal(dim: int, sd: Any = 1.0, mean: Any = 0.0) -> Reference:
    sd, mean = np.broadcast_to(sd, dim).astype(float), np.broadcast_to(mean, dim).astype(float)
    return Reference.exact(labels("z", (dim,)), mean, sd, np.sqrt(2 * sd**4 + 4 * mean**2 * sd**2))


def student_t5(z: Array) -> Array:
    return -3.0 * jnp.sum(jnp.log1p(z**2 / 5.0))


def supports() -> shoal.Model:
    """A gamma, an exponential, a beta and a normal law on their supports."""
    return shoal.Model(
        name="supports",
        params={"g": shoal.positive(), "e": shoal.positive(), "b": shoal.unit_interval(), "x": shoal.real()},
        log_density=lambda p: (
            2 * jnp.log(p["g"]) - p["g"] - p["e"] + jnp.log(p["b"]) + 3 * jnp.log1p(-p["b"]) - 0.5 * (p["x"] - 3) ** 2
        ),
    )


def in_order(draws: Draws) -> np.ndarray:
    """The numbers of `supports`, in the order of its reference."""
    return flattened({name: draws[name] for name in "gebx"})


def supports_reference() -> Reference:
    mean = np.array([3.0, 1.0, 1 / 3, 3.0])
    variance = np.array([3.0, 1.0, 2 * 4 / 36 / 7, 1.0])
    # E x^4 of Gamma(3), Exponential, Beta(2, 4), N(3, 1).
    fourth = np.array([3 * 4 * 5 * 6.0, 24.0, 2 * 3 * 4 * 5 / (6 * 7 * 8 * 9), 81 + 6 * 9 + 3.0])
    return Reference.exact("gebx", mean, np.sqrt(variance), np.sqrt(fourth - (variance + mean**2) ** 2))


# What intervals and stops are counted on; all their moments up to the fourth exist.
STOPS: dict[str, Case] = {
    case.target.name: case
    for case in (
        Case(law("independent", 10, independent, partial(normal, 10, SCALES)), note="scales from 0.1 to 10"),
        Case(law("chained", 10, chained, partial(normal, 10)), note="correlation 0.9 of neighbours"),
        Case(
            law(
                "student_t5",
                5,
                student_t5,
                lambda: Reference.exact(labels("z", (5,)), 0.0, np.sqrt(5 / 3), np.sqrt(25.0 - 25 / 9)),
            ),
            note="kurtosis 9",
        ),
        Case(
            Target("supports", 4, "calibration", supports, supports_reference, in_order),
            note="gamma, exponential, beta",
        ),
        Case(TARGETS["eight_schools-eight_schools_noncentered"], note="certified reference"),
        Case(TARGETS["kidiq-kidscore_momhsiq"], note="certified reference"),
        Case(TARGETS["breast_cancer"], note="founding posterior, certified reference"),
    )
}


def modes(centres: np.ndarray, weights: np.ndarray) -> LogDensity:
    """A mixture of standard normal laws along the first coordinate."""

    def log_density(z: Array) -> Array:
        parts = jnp.log(jnp.asarray(weights, z.dtype)) - 0.5 * (z[0] - jnp.asarray(centres, z.dtype)) ** 2
        top = parts.max()
        return top + jnp.log(jnp.sum(jnp.exp(parts - top))) - 0.5 * jnp.sum(z[1:] ** 2)

    return log_density


def modes_reference(centres: np.ndarray, weights: np.ndarray, dim: int) -> Reference:
    mean = float(weights @ centres)
    sd = float(np.sqrt(weights @ (centres**2 + 1) - mean**2))
    return Reference.exact(labels("z", (dim,)), [mean, *[0.0] * (dim - 1)], [sd, *[1.0] * (dim - 1)])


TWO, HALVES = np.array([-5.0, 5.0]), np.array([0.5, 0.5])
TEN, TENTHS = np.arange(10) * 10.0 - 45, np.full(10, 0.1)


def groups_of(chains: int) -> int:
    """Superchains of eight chains, at least four."""
    return max(4, chains // 8)


def at(points: Callable[[np.random.Generator, int], np.ndarray], **rest: Any) -> Callable[[int, int], Asked]:
    """Superchains that begin at points `[group, dim]` of our own."""

    def ask(chains: int, seed: int) -> Asked:
        groups = groups_of(chains)
        starts = points(np.random.default_rng(seed), groups)
        return {"initial_positions": np.repeat(starts, -(-chains // groups), axis=0)[:chains], **rest}

    return ask


def in_modes(centres: np.ndarray, shares: np.ndarray) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Near the centres, so many of the superchains at each."""

    def points(rng: np.random.Generator, groups: int) -> np.ndarray:
        which = np.searchsorted(np.cumsum(shares), (np.arange(groups) + 0.5) / groups)
        starts = rng.normal(size=(groups, 5))
        starts[:, 0] += centres[which]
        return starts

    return points


# Moves along an orbit of a standard normal law for half of its period: x becomes -x, but for rounding.
HALF_PERIOD = shoal.HMC(step_size=float(np.pi / 32), num_steps=32)
# Small steps: chains hardly move from where they begin.
SMALL = shoal.HMC(step_size=0.05, num_steps=2)


def standard(z: Array) -> Array:
    return -0.5 * jnp.sum(z**2)


FAR = 30.0


def far_scale(z: Array) -> Array:
    """A normal law, and one draw in fifty of one that is far wider."""
    squares = jnp.sum(z**2)
    narrow = jnp.log(0.98) - 0.5 * squares
    return jnp.logaddexp(narrow, jnp.log(0.02) - 2 * jnp.log(FAR) - 0.5 * squares / FAR**2)


def far_scale_reference() -> Reference:
    variance, fourth = 0.98 + 0.02 * FAR**2, 3 * (0.98 + 0.02 * FAR**4)
    return Reference.exact(labels("z", (2,)), 0.0, np.sqrt(variance), np.sqrt(fourth - variance**2))


def flat(z: Array) -> Array:
    return -0.5 * jnp.sum(z[1:] ** 2)


def slow(z: Array) -> Array:
    return -0.5 * (jnp.sum(z[1:] ** 2) + (z[0] / 1000.0) ** 2)


def correlated(z: Array) -> Array:
    return -0.5 * (z[0] ** 2 + (z[1] - 0.95 * z[0]) ** 2 / (1 - 0.95**2))


ADVERSARIES: dict[str, Case] = {
    case.target.name: case
    for case in (
        *(
            Case(TARGETS[name], note=TARGETS[name].note)
            for name in (
                "bimodal",
                "funnel",
                "student_t2",
                "cauchy",
                "correlated_gaussian",
                "eight_schools-eight_schools_centered",
                "eight_schools",
                "brownian_motion_unknown_scales_missing_middle_observations",
            )
        ),
        Case(
            law("two_modes_begun_evenly", 5, modes(TWO, HALVES), partial(modes_reference, TWO, HALVES, 5)),
            at(in_modes(TWO, HALVES)),
            note="10 sd apart, half of the chains in each",
        ),
        Case(
            law("two_modes_begun_unevenly", 5, modes(TWO, HALVES), partial(modes_reference, TWO, HALVES, 5)),
            at(in_modes(TWO, np.array([0.75, 0.25]))),
            note="10 sd apart, three quarters of the chains in one",
        ),
        Case(
            law("two_modes_begun_in_one", 5, modes(TWO, HALVES), partial(modes_reference, TWO, HALVES, 5)),
            at(in_modes(TWO, np.array([1.0, 0.0]))),
            covers=False,
            note="10 sd apart, all chains in one: nobody can know",
        ),
        Case(
            law("ten_modes", 5, modes(TEN, TENTHS), partial(modes_reference, TEN, TENTHS, 5)),
            at(in_modes(TEN, TENTHS)),
            note="10 sd apart, chains in all of them",
        ),
        Case(
            law("shifted", 5, standard, partial(normal, 5)),
            at(lambda rng, groups: rng.normal(size=(groups, 5)) + 1.0, sampler=SMALL, num_warmup=0),
            note="begun 1 sd off, with the right covariance; tiny steps",
        ),
        Case(
            law("wrong_correlation", 2, correlated, partial(normal, 2)),
            at(lambda rng, groups: rng.normal(size=(groups, 2)), sampler=SMALL, num_warmup=0),
            note="begun with the right margins, and no correlation; tiny steps",
        ),
        Case(
            law("half_period", 5, standard, partial(normal, 5)),
            lambda chains, seed: {"sampler": HALF_PERIOD, "num_warmup": 0},
            note="every move ends at -x: means are exact, squares never move",
        ),
        Case(law("slow", 5, slow, partial(normal, 5, [1000.0, 1, 1, 1, 1])), note="one scale 1,000 times the others"),
        Case(law("improper", 5, flat, partial(normal, 5, [np.inf, 1, 1, 1, 1])), note="flat along one direction"),
        Case(
            law("far_scale", 2, far_scale, far_scale_reference),
            covers=False,
            note="2% from a law 30 times as wide, where no chain begins: nobody can know",
        ),
        Case(
            law("far_scale_begun_in_both", 2, far_scale, far_scale_reference),
            at(lambda rng, groups: rng.normal(size=(groups, 2)) * np.resize([1.0, FAR], groups)[:, None]),
            note="2% from a law 30 times as wide; half of the chains begin there",
        ),
    )
}
