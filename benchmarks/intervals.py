"""Intervals of shares, and of geometric means."""

import math
import statistics
from collections.abc import Sequence


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % of a share, from n of all (Wilson 1927)."""
    z, share = 1.96, hits / n
    middle, half = share + z**2 / 2 / n, z * (share * (1 - share) / n + z**2 / 4 / n**2) ** 0.5
    return max(0.0, (middle - half) / (1 + z**2 / n)), min(1.0, (middle + half) / (1 + z**2 / n))


def geometric(values: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean with its 95 %, by Student's t of the logs."""
    from scipy import stats

    logs = [math.log(max(value, 1e-12)) for value in values]
    mean, n = statistics.fmean(logs), len(logs)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(logs) / n**0.5
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
