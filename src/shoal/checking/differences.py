"""Derivatives of a log density by its values alone, with what they are worth.

Central differences for several steps, extrapolated to none; of all extrapolations the one whose neighbours differ least
from it, and by how much (Ridders, 1982, Advances in Engineering Software 4:75). How noisy the values are is measured,
too, by differences of fourth order over points so close that nothing else is left of them (Moré & Wild, 2011, SIAM
Journal on Scientific Computing 33:1292): a density that rounds to single inside makes no false alarm.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from shoal.checking.probe import Probe

# Steps of the extrapolation, in unconstrained coordinates, in which a density usually changes over about 1.
STEPS = 0.1 / 4.0 ** np.arange(7)
# The step of a single difference balances its truncation, about its square, with noise over it.
SHORTEST, LONGEST = 1e-4, 0.1
# Points for the noise: 2^-20 apart a difference of fourth order of what is smooth is below 1e-20.
CLOSE, SPACING = 8, 2.0**-20


class Direction(NamedTuple):
    """A way to go from a point: one coordinate, or all of a parameter, up or down by the same.

    Attributes:
        label: the coordinate or the parameter.
        parameter: its name.
        coordinates: their numbers.
        sign: 1.0 or -1.0 for each.
    """

    label: str
    parameter: str
    coordinates: Int[np.ndarray, " coordinates"]
    sign: Float[np.ndarray, " coordinates"]

    def along(self, gradient: Float[np.ndarray, " dim"]) -> float:
        """The derivative in this direction."""
        return float(gradient[self.coordinates] @ self.sign)


class Noise(NamedTuple):
    """Standard deviations of what rounding does.

    Attributes:
        value: of the log density, `[points]`.
        gradient: of its gradient, `[points, dim]`.
    """

    value: Float[np.ndarray, " points"]
    gradient: Float[np.ndarray, "points dim"]


def noise_at(probe: Probe, points: Float[np.ndarray, "points dim"], rng: np.random.Generator) -> Noise:
    """How noisy log density and gradient are near some points."""
    count, dim = points.shape
    way = rng.choice([-1.0, 1.0], (count, 1, dim))
    spacing = SPACING if probe.dtype == np.float64 else 2.0**-14
    near = points[:, None] + spacing * np.arange(CLOSE)[:, None] * way
    value, gradient = probe.at(near.reshape(-1, dim))
    value, gradient = value.reshape(count, CLOSE), gradient.reshape(count, CLOSE, dim)
    # Of independent errors a difference of fourth order has 70 times the variance.
    of = lambda some: np.sqrt((np.diff(some, 4, axis=1) ** 2).mean(1) / 70)
    eps = float(np.finfo(probe.dtype).eps)
    return Noise(
        np.maximum(of(value), eps * np.abs(value).max(1)), np.maximum(of(gradient), eps * np.abs(gradient).max(1))
    )


def step_for(noise: Float[np.ndarray, "*rows"]) -> Float[np.ndarray, "*rows"]:
    """The step of a single central difference of values with this noise."""
    return np.clip(np.cbrt(noise), SHORTEST, LONGEST)


def central(
    probe: Probe,
    points: Float[np.ndarray, "rows dim"],
    directions: list[Direction],
    steps: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, " rows"]:
    """A central difference for each row: at a point, in a direction, with a step."""
    away = np.zeros(points.shape)
    for row, direction, step in zip(away, directions, steps, strict=True):
        row[direction.coordinates] = step * direction.sign
    points = points.astype(np.float64)
    value = probe.at(np.concatenate([points + away, points - away]))[0].astype(np.float64)
    up, down = np.split(value, 2)
    return (up - down) / (2 * steps)


def extrapolated(
    slopes: Float[np.ndarray, "rows steps"], noise: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Differences with `STEPS` extrapolated to no step.

    Args:
        slopes: by step; those that are not finite are left out.
        noise: of the values that they are made of.

    Returns:
        The derivative, and its error; an infinite one where there are too few.
    """
    best, error = np.full(len(slopes), np.nan), np.full(len(slopes), np.inf)
    rounding = noise[:, None] / STEPS
    column = slopes
    for order in range(1, len(STEPS)):
        ratio = 16.0**order
        later = (ratio * column[:, 1:] - column[:, :-1]) / (ratio - 1)
        apart = np.maximum(np.abs(later - column[:, 1:]), np.abs(later - column[:, :-1]))
        apart = np.where(np.isfinite(apart), apart + rounding[:, order:], np.inf)
        chosen = apart.argmin(1)
        rows = np.arange(len(slopes))
        better = apart[rows, chosen] < error
        best = np.where(better, later[rows, chosen], best)
        error = np.where(better, apart[rows, chosen], error)
        column = later
    return best, error
