"""Statistics that are folded while sampling, in constant memory."""

from shoal.statistics.base import Statistic
from shoal.statistics.health import Health
from shoal.statistics.moments import Moments

__all__ = ["Health", "Moments", "Statistic"]
