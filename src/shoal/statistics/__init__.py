"""Statistics that are folded while sampling, in constant memory."""

from shoal.statistics.base import Statistic
from shoal.statistics.chain_means import ChainMeans
from shoal.statistics.health import Health
from shoal.statistics.moments import Moments

__all__ = ["ChainMeans", "Health", "Moments", "Statistic"]
