"""What is folded on the host over draws that are not kept, one after another, in memory that does not grow with them.

Everything depends on the number of a draw and on nothing else: chunks of any length give the same bits, and so does a
run that was stopped and went on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from shoal.results.sketch import Sketch

LOG_DENSITY = "lp"
# Chains whose sums are taken at once: what they take up in between is little then.
BLOCK = 256
# Of the draws that are kept beside the sums, at most: bytes, and draws of a chain.
BYTES, MANY = 2**24, 2000
# However many bytes they are, there is room for so many draws of a chain; and of a superchain, as long as these are no
# more than so many times as many. A half of a superchain has a quarter of them at least, and nested R-hat of 128 draws
# that are independent stays well below 1.01; of fewer it says "not converged".
FEW, FEW_OF_ALL, MORE = 16, 512, 4


class Slot(NamedTuple):
    """Where a variable is among the numbers of a draw.

    Attributes:
        begin: its first number.
        shape: of the variable.
        dtype: of its draws.
    """

    begin: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def place(self) -> slice:
        """Of its numbers."""
        return slice(self.begin, self.begin + int(np.prod(self.shape)))


class Folds:
    """Sums, quantiles and some of the draws of a run.

    The numbers of a draw are those of its variables in their order, then the log density, where no variable has its
    name. Moments are in double precision (Welford, 1962).

    Attributes:
        variables: their names.
        smallest: how many chains make up the smallest superchain.
        count: draws of each chain so far.
        slots: of the variables and the log density, by name.
        sketch: of the quantiles.
        mean: `[chain, number]`.
        squares: sums of squared deviations from it.
        missing: draws that are not finite, of each number.
        low: the smallest draw of each number.
        high: the largest.
        diverging: divergent transitions of each chain.
        acceptance: the sum of the acceptance rates over chains and draws.
        moved: for each chain, the number of the last draw that was not as the one before.
        last: the last draw.
        stride: of the draws beside the sums; the last of each so many.
        kept: how many these are.
        some: these draws, `[draw, chain, number]`, and room for more.
        some_stats: their sample statistics, `[draw, chain]`.
    """

    def __init__(self, slots: Mapping[str, Slot], stats: Mapping[str, np.dtype], chains: int, smallest: int) -> None:
        """Begin with no draw.

        Args:
            slots: of the variables.
            stats: types of the sample statistics, by name.
            chains: how many there are.
            smallest: how many make up the smallest superchain.
        """
        self.smallest = smallest
        self.variables, self.slots, self.stats = tuple(slots), dict(slots), dict(stats)
        numbers = max((slot.place.stop for slot in self.slots.values()), default=0)
        dtype = np.result_type(np.float32, self.stats[LOG_DENSITY], *(slot.dtype for slot in self.slots.values()))
        if LOG_DENSITY not in self.slots:
            self.slots[LOG_DENSITY] = Slot(numbers, (), self.stats[LOG_DENSITY])
            numbers += 1
        self.count, self.sketch = 0, Sketch(chains, numbers, dtype)
        self.mean, self.squares = np.zeros((chains, numbers)), np.zeros((chains, numbers))
        self.missing, self.diverging, self.moved = (np.zeros(size, np.int64) for size in (numbers, chains, chains))
        self.low, self.high = np.full(numbers, np.inf), np.full(numbers, -np.inf)
        self.acceptance = np.zeros(())
        self.last = np.zeros((chains, numbers), dtype)
        self.stride, self.kept = 1, 0
        per_draw = chains * (numbers * dtype.itemsize + sum(kind.itemsize for kind in self.stats.values()))
        fewest = max(FEW, min(-(-FEW_OF_ALL // smallest), MORE * BYTES // per_draw))
        room = 2 * (int(np.clip(BYTES // per_draw, min(fewest, MANY), MANY)) // 2)
        self.some = np.zeros((room, chains, numbers), dtype)
        self.some_stats = {name: np.zeros((room, chains), kind) for name, kind in self.stats.items()}

    @classmethod
    def of(cls, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], superchain: np.ndarray) -> "Folds":
        """For draws like those of a chunk, `[chain, draw, ...]`, of which there need not be any.

        Args:
            values: draws by variable.
            stats: sample statistics.
            superchain: which each chain belongs to.
        """
        slots, begin = {}, 0
        for name, value in values.items():
            slots[name] = Slot(begin, value.shape[2:], value.dtype)
            begin = slots[name].place.stop
        smallest = int(np.unique(superchain, return_counts=True)[1].min())
        return cls(slots, {name: stat.dtype for name, stat in stats.items()}, len(superchain), smallest)

    def update(self, values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> None:
        """Fold a chunk.

        Args:
            values: draws by variable, each `[chain, n, *shape]`.
            stats: sample statistics, each `[chain, n]`.
        """
        everything = {**values, **({} if LOG_DENSITY in values else {LOG_DENSITY: stats[LOG_DENSITY]})}
        row = np.empty_like(self.last)
        for draw in range(stats[LOG_DENSITY].shape[1]):
            for name, slot in self.slots.items():
                row[:, slot.place] = everything[name][:, draw].reshape(len(row), -1)
            with np.errstate(invalid="ignore", over="ignore"):
                self._fold(row, {name: stat[:, draw] for name, stat in stats.items()})

    def _fold(self, row: np.ndarray, stats: Mapping[str, np.ndarray]) -> None:
        self.count += 1
        for first in range(0, len(row), BLOCK):
            some = slice(first, first + BLOCK)
            off = row[some] - self.mean[some]
            self.mean[some] += off / self.count
            off *= row[some] - self.mean[some]
            self.squares[some] += off
        low, high = row.min(axis=0), row.max(axis=0)
        if not (np.isfinite(low) & np.isfinite(high)).all():
            self.missing += np.count_nonzero(~np.isfinite(row), axis=0)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        if self.count > 1:
            self.moved[(row != self.last).any(axis=1)] = self.count - 1
        self.last[...] = row
        self.diverging += stats["diverging"]
        self.acceptance += stats["acceptance_rate"].sum(dtype=float)
        self.sketch.update(row)
        self._keep(row, stats)

    def _keep(self, row: np.ndarray, stats: Mapping[str, np.ndarray]) -> None:
        """Keep the draw where it is the last of a stride; where there is no room, only every second one before it."""
        if self.count % self.stride:
            return
        if self.kept == len(self.some):
            self.stride, self.kept = 2 * self.stride, self.kept // 2
            for array in (self.some, *self.some_stats.values()):
                for place in range(self.kept):
                    array[place] = array[2 * place + 1]
            if self.count % self.stride:
                return
        self.some[self.kept] = row
        for name, stat in self.some_stats.items():
            stat[self.kept] = stats[name]
        self.kept += 1

    @property
    def facts(self) -> dict[str, Any]:
        """What it is about, as JSON holds it."""
        return {
            "count": self.count,
            "stride": self.stride,
            "smallest": self.smallest,
            "slots": {
                name: [slot.begin, list(slot.shape), slot.dtype.name]
                for name, slot in self.slots.items()
                if name in self.variables
            },
            "stats": {name: kind.name for name, kind in self.stats.items()},
        }

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What it remembers, by name."""
        sums = {name: np.asarray(getattr(self, name)) for name in SUMS}
        stats = {f"some_{name}": stat[: self.kept] for name, stat in self.some_stats.items()}
        sketch = {f"sketch_{name}": array for name, array in self.sketch.arrays.items()}
        return {**sums, "some": self.some[: self.kept], **stats, **sketch}

    @classmethod
    def restored(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> "Folds":
        """From what `facts` and `arrays` of another one were."""
        slots = {name: Slot(at, tuple(shape), np.dtype(kind)) for name, (at, shape, kind) in facts["slots"].items()}
        stats = {name: np.dtype(kind) for name, kind in facts["stats"].items()}
        folds = cls(slots, stats, len(arrays["mean"]), int(facts["smallest"]))
        folds.count, folds.stride, folds.kept = int(facts["count"]), int(facts["stride"]), len(arrays["some"])
        for name in SUMS:
            getattr(folds, name)[...] = arrays[name]
        folds.some[: folds.kept] = arrays["some"]
        for name, stat in folds.some_stats.items():
            stat[: folds.kept] = arrays[f"some_{name}"]
        folds.sketch.restore(
            {name.removeprefix("sketch_"): array for name, array in arrays.items() if name.startswith("sketch_")}
        )
        return folds


SUMS = ("mean", "squares", "missing", "low", "high", "diverging", "acceptance", "moved", "last")
