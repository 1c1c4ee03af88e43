"""Findings: what is wrong with a run, or worth knowing, in words."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the reader of a result should know.

    Attributes:
        kind: what sort of trouble: `too_few`, `non_finite`, `constant`, `r_hat`, `superchain`, `drift`, `improper`,
            `ess`, `tail_ess`, `heavy_tail`, `unkept`, `left_behind`, `stuck`, `sticking`, `log_density`, `energy`,
            `digits`, `neck` or `divergences`, or a kind of whoever made it.
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

    def __post_init__(self) -> None:
        # Of whatever type they were computed in, so that a finding that was written and read is the same.
        object.__setattr__(self, "number", float(self.number))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", float(self.threshold))

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


def count(number: int, noun: str) -> str:
    """A number of things: "1 draw", "1,200 draws".

    Args:
        number: how many.
        noun: of what, one of them.

    Returns:
        Words.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def name_chains(members: tuple[int, ...], shown: int = 6) -> str:
    """Chains by number: "chain 3", "chains 3 and 17", "chains 0, 1, 2, 3, 4, 5 and 12 more".

    Args:
        members: numbers of chains, at least one.
        shown: how many to name at most.

    Returns:
        Words.
    """
    if len(members) == 1:
        return f"chain {members[0]}"
    if len(members) <= shown:
        return f"chains {', '.join(map(str, members[:-1]))} and {members[-1]}"
    return f"chains {', '.join(map(str, members[:shown]))} and {len(members) - shown:,} more"
