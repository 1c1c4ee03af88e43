"""Targets whose answers are known: `TARGETS[name]`, in the order of the tables.

    from panel.targets import TARGETS

    target = TARGETS["funnel"]
    result = shoal.sample(target.model(), precision=target.precision)
    target.judge(result.draws)  # {"right": ..., "worst": (quantity, error in units of its tolerance)}

The names of the targets need nothing but this package; their data are read from `SHOAL_TARGETS` when asked for.
"""

from .adversaries import ADVERSARIES
from .base import Reference, Target
from .founding import FOUNDING
from .gym import GYM
from .posteriordb import POSTERIORDB

TARGETS: dict[str, Target] = {target.name: target for target in (*POSTERIORDB, *GYM, FOUNDING, *ADVERSARIES)}

__all__ = ["TARGETS", "Reference", "Target"]
