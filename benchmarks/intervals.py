"""Intervals of shares."""


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % of a share, from n of all (Wilson 1927)."""
    z, share = 1.96, hits / n
    middle, half = share + z**2 / 2 / n, z * (share * (1 - share) / n + z**2 / 4 / n**2) ** 0.5
    return max(0.0, (middle - half) / (1 + z**2 / n)), min(1.0, (middle + half) / (1 + z**2 / n))
