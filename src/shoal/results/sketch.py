"""Quantiles of many numbers at once in bounded memory: sorted buffers that are merged in pairs, without chance.

Munro and Paterson (1980), Manku, Rajagopalan and Lindsay (SIGMOD 1998). Draws are collected to blocks, and each block
is cut to `size` values of equal weight. Two buffers of one level are sorted together, and every second value of them,
with twice the weight, is a buffer of the next level: the first and the third and so on, or the second and the fourth,
by turns. So the levels that are there are the binary digits of the number of blocks, and nothing depends on anything
but the draws and their order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

# Values of a buffer, all numbers together, and the fewest and the most of one number.
ROOM, LEAST, MOST = 2**17, 256, 2048


class Sketch:
    """Quantiles of `numbers` quantities, pooled over chains.

    A cut to `size` values moves the rank of any value by at most a half of one of `size`, and so does each level that a
    draw has passed: see `rank_error`.

    Attributes:
        size: values of a buffer of one quantity.
        blocks: how many have been cut.
    """

    def __init__(self, chains: int, numbers: int, dtype: np.dtype) -> None:
        self.size = int(np.clip(2 ** int(np.log2(max(ROOM // max(numbers, 1), 1))), LEAST, MOST))
        self._chains = chains
        self._block = np.empty((numbers, max(1, -(-self.size // chains)) * chains), dtype)
        self._waiting = self.blocks = 0
        self._levels: dict[int, np.ndarray] = {}

    def update(self, row: np.ndarray) -> None:
        """Take in one draw of every chain, `[chain, number]`."""
        self._block[:, self._waiting : self._waiting + self._chains] = row.T
        self._waiting += self._chains
        if self._waiting < self._block.shape[1]:
            return
        self._block.sort(axis=1)
        middles = (np.arange(self.size) + 0.5) * (self._waiting / self.size)
        buffer, level = self._block[:, middles.astype(int)], 0
        while level in self._levels:
            both = np.concatenate([self._levels.pop(level), buffer], axis=1)
            both.sort(axis=1)
            buffer, level = np.ascontiguousarray(both[:, self.blocks >> (level + 1) & 1 :: 2]), level + 1
        self._levels[level] = buffer
        self._waiting, self.blocks = 0, self.blocks + 1

    @property
    def rank_error(self) -> float:
        """The rank of a quantile is off by at most this share of all draws."""
        draws = self.blocks * self._block.shape[1] + self._waiting
        levels = max(self._levels, default=-1) + 1
        return levels / (2 * self.size) * (draws - self._waiting) / draws if draws else float("nan")

    def quantiles(self, probabilities: Sequence[float]) -> np.ndarray:
        """Values that so large shares of the draws do not exceed, `[probability, number]`; NaN without draws."""
        numbers, weight = len(self._block), self._block.shape[1] / self.size
        found = np.full((len(probabilities), numbers), np.nan)
        buffers = [self._levels[level] for level in sorted(self._levels)]
        weights = [np.full(self.size, weight * 2**level) for level in sorted(self._levels)]
        weights = np.concatenate([*weights, np.ones(self._waiting)])
        for number in range(numbers if weights.size else 0):
            values = np.concatenate([*(buffer[number] for buffer in buffers), self._block[number, : self._waiting]])
            order = np.argsort(values, kind="stable")
            below = np.cumsum(weights[order])
            wanted = np.asarray(probabilities) * below[-1]
            found[:, number] = values[order[np.minimum(np.searchsorted(below, wanted), len(order) - 1)]]
        return found

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What it remembers, by name."""
        levels = {f"level_{level}": self._levels[level] for level in sorted(self._levels)}
        return {"waiting": self._block[:, : self._waiting], **levels}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Remember what `arrays` of another one of the same form were."""
        self._waiting = arrays["waiting"].shape[1]
        self._block[:, : self._waiting] = arrays["waiting"]
        named = {int(name.removeprefix("level_")): array for name, array in arrays.items() if name != "waiting"}
        self._levels = {level: np.array(named[level]) for level in sorted(named)}
        self.blocks = sum(2**level for level in named)
