"""Which stages the draws of a warmup are of."""

from collections.abc import Mapping

import numpy as np

# Along the draws: the phase, the number of the stage from 1 on, and the kernel that made them.
COORDINATES = {"warmup_phase": np.str_, "warmup_stage": np.int32, "warmup_kernel": np.str_}


class Course:
    """The stages of a warmup, and how many draws are kept of each. One thread may add while others read."""

    def __init__(self) -> None:
        self._stages: list[tuple[str, int, str]] = []
        self._ends: list[int] = []

    @classmethod
    def of(cls, coords: Mapping[str, np.ndarray]) -> "Course":
        """The inverse of `labels`, of all draws."""
        course = cls()
        for phase, stage, kernel in zip(*(coords[name] for name in COORDINATES), strict=True):
            course.add(str(phase), int(stage), str(kernel), 1)
        return course

    @property
    def count(self) -> int:
        """Draws so far."""
        return self._ends[-1] if self._ends else 0

    def add(self, phase: str, stage: int, kernel: str, draws: int) -> None:
        """Draws that follow on those so far."""
        end = self.count + draws
        if self._stages[-1:] == [(phase, stage, kernel)]:
            self._ends[-1] = end
        else:
            self._stages.append((phase, stage, kernel))
            self._ends.append(end)

    def labels(self, begin: int, end: int) -> dict[str, np.ndarray]:
        """The coordinates of the draws from one number to before another."""
        where = np.searchsorted(self._ends[: len(self._stages)], np.arange(begin, end), side="right")
        stages = [self._stages[number] for number in where]
        parts = zip(*stages, strict=True) if stages else ((), (), ())
        return {name: np.array(part, kind) for (name, kind), part in zip(COORDINATES.items(), parts, strict=True)}
