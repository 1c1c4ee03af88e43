"""What is wrong with a run, in words: findings, and the judge that makes them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the reader of a result should know.

    Attributes:
        kind: what sort of trouble, such as `"r_hat"`, `"ess"`, `"stuck"`.
        where: the quantity or the chains that it is about, the worst one where there are many.
        number: the number that was looked at.
        words: one or two sentences that say what was seen.
        remedy: what to do about it.
        blocking: whether it forbids to call the run converged.
        threshold: the number that `number` was compared with, or None.
        chains: the chains that it is about; empty when it is about all.
    """

    kind: str
    where: str
    number: float
    words: str
    remedy: str
    blocking: bool = True
    threshold: float | None = None
    chains: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Finding":
        """The inverse of `as_dict`, after a journey through JSON."""
        threshold = fields.get("threshold")
        return cls(
            kind=str(fields["kind"]),
            where=str(fields["where"]),
            number=float(fields["number"]),
            words=str(fields["words"]),
            remedy=str(fields["remedy"]),
            blocking=bool(fields["blocking"]),
            threshold=None if threshold is None else float(threshold),
            chains=tuple(int(chain) for chain in fields.get("chains", ())),
        )

    def __str__(self) -> str:
        return f"{self.words} {self.remedy}".strip()


def judge(
    draws: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    superchain: np.ndarray,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
    """Stub."""
    return ()
