"""Statistics that are folded while sampling, in constant memory."""

from shoal.statistics.base import Statistic
from shoal.statistics.chain_means import ChainMeans
from shoal.statistics.health import Health
from shoal.statistics.moments import Moments
from shoal.statistics.reach import Reach

__all__ = ["ChainMeans", "Health", "Moments", "Reach", "Statistic"]
