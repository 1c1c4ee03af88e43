"""What a result knows of draws that were not kept: moments, quantiles, and some of the draws."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from shoal.diagnostics.counts import Counts
from shoal.diagnostics.effective import MANY_CHAINS, ess_of_spread
from shoal.diagnostics.estimates import summarise
from shoal.results.folds import Folds

# Of the summary.
QUANTILES = {"5%": 0.05, "50%": 0.5, "95%": 0.95}
# The coordinates of a run of which nothing but their moments is kept go by this name.
COORDINATES = "unconstrained"
# Numbers of the kept draws that are looked at together: temporary memory is several times as much.
PART = 2**18


class SomeVariable(NamedTuple):
    """Some draws of a variable, looked at part by part.

    Attributes:
        draws: `[chain, draw, number]`.
        shape: `[chain, draw, *shape]`.
        dtype: in which they were computed.
    """

    draws: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype

    def parts(self) -> Iterator[np.ndarray]:
        """Arrays `[chain, draw, n]` of numbers that follow on each other."""
        chains, count, numbers = self.draws.shape
        step = max(1, PART // max(1, chains * count))
        for begin in range(0, numbers, step):
            yield self.draws[:, :, begin : begin + step].astype(self.dtype, copy=False)


class SomeDraws(Mapping[str, np.ndarray]):
    """The draws that are kept beside the sums, by variable."""

    def __init__(self, folds: Folds) -> None:
        """Look at those of some folds."""
        self._folds = folds

    def variable(self, name: str) -> SomeVariable:
        """A variable that is looked at part by part."""
        slot, draws = self._folds.slots[name], self._folds.some[: self._folds.kept].swapaxes(0, 1)
        return SomeVariable(draws[:, :, slot.place], (*draws.shape[:2], *slot.shape), slot.dtype)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._folds.variables:
            raise KeyError(name)
        variable = self.variable(name)
        return variable.draws.reshape(variable.shape).astype(self._folds.slots[name].dtype, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._folds.variables)

    def __len__(self) -> int:
        return len(self._folds.variables)


class Moments:
    """Of a run with `keep="moments"` or `"none"`: what is known of draws that were not kept.

    Means, standard deviations, errors and divergences are of all draws, and so are quantiles, but for `rank_error`.
    Beside them every `stride`-th draw is kept, few enough that they take up 16 MB or so; R-hat, the tails and most of
    the verdict rest on these.

    Attributes:
        coordinates: with `keep="none"`, by column of the summary, that of each unconstrained coordinate; otherwise
            empty, and so it is before the end of a run.
    """

    def __init__(self, folds: Folds, coordinates: Mapping[str, np.ndarray] | None = None) -> None:
        """Look at folds that do not change any more.

        Args:
            folds: of all draws.
            coordinates: see above.
        """
        self.folds, self.coordinates = folds, dict(coordinates or {})

    @property
    def count(self) -> int:
        """Draws of each chain."""
        return self.folds.count

    @property
    def stride(self) -> int:
        """Of so many draws one is in `draws`, the last."""
        return self.folds.stride

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of what there are moments of."""
        return (COORDINATES,) if self.coordinates else self.folds.variables

    @property
    def draws(self) -> SomeDraws:
        """Some of the draws by variable, `[chain, draw, *shape]`, equally spaced."""
        return SomeDraws(self.folds)

    @property
    def sample_stats(self) -> dict[str, np.ndarray]:
        """The sample statistics of the same draws, `[chain, draw]` each."""
        return {name: np.ascontiguousarray(stat[: self.folds.kept].T) for name, stat in self.folds.some_stats.items()}

    @property
    def divergences(self) -> np.ndarray:
        """Divergent transitions of each chain."""
        return self.folds.diverging

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable."""
        return self.coordinates["mean"].shape if name in self._coordinates else self.folds.slots[name].shape

    def chain_means(self, name: str) -> np.ndarray:
        """The mean of every chain, `[chain, *shape]`, in double precision."""
        return self._of_chains(name, self.folds.mean)

    def chain_variances(self, name: str) -> np.ndarray:
        """The variance within every chain, by draws less one, `[chain, *shape]`."""
        return self._of_chains(name, self.folds.squares) / max(self.count - 1, 1)

    def quantile(self, name: str, probabilities: Sequence[float] | float) -> np.ndarray:
        """Quantiles over all chains; NaN where draws are not finite.

        Args:
            name: the variable.
            probabilities: between 0 and 1.

        Returns:
            `[*shape]`, with an axis of probabilities before where there are several.
        """
        slot, wanted = self.folds.slots[name], np.asarray(probabilities, float)
        found = self._all_quantiles(wanted.ravel().tolist())[:, slot.place]
        return found.reshape((*wanted.shape, *slot.shape))

    @property
    def rank_error(self) -> float:
        """The share of all draws by which the rank of a quantile may be off."""
        return self.folds.sketch.rank_error

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """The columns of the summary, each `[*shape]`.

        `mcse_mean` and `ess_bulk` are those of the mean by the spread of the means of chains, where there are 64 of
        them and more than the draws that are kept; other columns but `mean`, `sd` and quantiles are of the latter.
        """
        if name in self._coordinates:
            return self.coordinates
        folds, slot = self.folds, self.folds.slots[name]
        columns = summarise(self.draws.variable(name))
        of_some = columns["mcse_mean"] / columns["sd"]
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            means, squares = self.chain_means(name), self._of_chains(name, folds.squares)
            chains, mean = len(means), means.mean(axis=0)
            total = squares.sum(axis=0) + folds.count * ((means - mean) ** 2).sum(axis=0)
            columns |= {"mean": mean, "sd": np.sqrt(total / max(chains * folds.count - 1, 1))}
            if chains < MANY_CHAINS or self.stride == 1:
                columns["mcse_mean"] = columns["sd"] * of_some
            else:
                within = squares.mean(axis=0) / folds.count
                columns["ess_bulk"] = ess_of_spread(means.var(axis=0, ddof=1), within, chains, folds.count)
                columns["mcse_mean"] = columns["sd"] / np.sqrt(columns["ess_bulk"])
        quantiles = self._quantiles[:, slot.place].reshape((len(QUANTILES), *slot.shape))
        return columns | dict(zip(QUANTILES, quantiles, strict=True))

    @property
    def counts(self) -> Counts:
        """What the verdict looks at beside the draws that are kept."""
        folds = self.folds
        slots = folds.slots
        parts = {name: slot.place for name, slot in slots.items()}
        return Counts(
            draws=folds.count,
            moved=folds.moved,
            diverging=folds.diverging,
            acceptance=float(folds.acceptance / max(folds.mean.shape[0] * folds.count, 1)),
            missing={name: folds.missing[place] for name, place in parts.items()},
            low={name: folds.low[place] for name, place in parts.items()},
            high={name: folds.high[place] for name, place in parts.items()},
            precision={name: slot.dtype if slot.dtype.kind == "f" else np.dtype(float) for name, slot in slots.items()},
            off={name: self._off(name) for name in slots} if self.stride > 1 else {},
        )

    def _off(self, name: str) -> np.ndarray:
        """How far all draws of a chain are from those that are kept, `[2, number, chain]`; see `Counts`.

        0 for what these have in common.
        """
        folds, place, parts = self.folds, self.folds.slots[name].place, []
        begin = place.start
        for some in self.draws.variable(name).parts():
            here = slice(begin, begin + some.shape[2])
            with np.errstate(all="ignore"):
                mean, centre = some.mean(axis=1, dtype=float), some.mean(axis=(0, 1), dtype=float)
                square = ((some - centre) ** 2).mean(axis=1)
                squares = folds.squares[:, here] / folds.count + (folds.mean[:, here] - centre) ** 2
                variance = np.where(square.any(axis=0), square.mean(axis=0), np.inf)
                location = (folds.mean[:, here] - mean) / np.sqrt(variance)
                parts.append(np.stack([location, (squares - square) / variance]))
            begin = here.stop
        return np.concatenate(parts, axis=2).swapaxes(1, 2)

    @property
    def _coordinates(self) -> tuple[str, ...]:
        return (COORDINATES,) if self.coordinates else ()

    def _of_chains(self, name: str, sums: np.ndarray) -> np.ndarray:
        slot = self.folds.slots[name]
        return sums[:, slot.place].reshape(len(sums), *slot.shape)

    @functools.cached_property
    def _quantiles(self) -> np.ndarray:
        return self._all_quantiles(list(QUANTILES.values()))

    def _all_quantiles(self, probabilities: Sequence[float]) -> np.ndarray:
        return np.where(self.folds.missing > 0, np.nan, self.folds.sketch.quantiles(probabilities))

    def __repr__(self) -> str:
        chains, numbers = self.folds.mean.shape
        return f"Moments({chains:,} chains, {numbers:,} numbers; {self.folds.kept:,} of {self.count:,} draws kept)"
