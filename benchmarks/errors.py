"""How far results are from what they should be: statistics of latents and of errors."""

import math


def relative_rms(found, reference) -> list[float]:
    """RMS of the difference, over that of the reference, of each image: latents [B, ...]."""
    found, reference = found.double().flatten(1), reference.double().flatten(1)
    return ((found - reference).square().mean(1) / reference.square().mean(1)).sqrt().tolist()


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def patches(latents):
    """The 2x2 patches of four channels, [n, 16]: FLUX's tokens [B, tokens, 16] as they are, SDXL's [B, 4, h, w] cut."""
    import torch

    if latents.ndim == 4:
        latents = torch.nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)
    return latents.reshape(-1, latents.shape[-1]).double()


def sliced_distance(a, b, seed: int = 0) -> float:
    """Sliced Wasserstein-1 distance of two sets of vectors, [n, d] and [m, d]: the mean over 64 random directions."""
    import torch

    directions = torch.randn(a.shape[1], 64, generator=torch.Generator().manual_seed(seed)).to(a)
    directions /= directions.norm(dim=0)
    p = (torch.arange(1024, dtype=torch.float64) + 0.5) / 1024
    quantiles = (torch.quantile(x @ directions, p, dim=0) for x in (a, b))
    first, second = quantiles
    return float((first - second).abs().mean())


def fitted_slope(points: list[tuple[float, float]], floor: float) -> float | None:
    """-d log(error) / d log(evaluations) by least squares, over 20 evaluations and more and over three times the floor.

    None where fewer than two points are left.
    """
    kept = [(math.log(n), math.log(error)) for n, error in points if n >= 19 and error > 3 * floor]
    if len(kept) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(kept) for values in zip(*kept, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in kept)
    return -covariance / sum((x - mean_x) ** 2 for x, _ in kept)
