"""A two-Gaussian mixture whose every answer is known: distribution, quantiles, posterior mean, distance to it."""

import functools
from typing import NamedTuple

import torch
from torch.special import erf


class Mixture(NamedTuple):
    """One-dimensional Gaussian mixture.

    Attributes:
        weights: of the components; their sum is 1.
        means: of the components.
        widths: their standard deviations.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    widths: tuple[float, ...]

    def tensors(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The three fields, float64, one row per component: they broadcast against `like` with a new first axis."""
        shape = (-1, *[1] * like.ndim)
        return tuple(torch.tensor(values, dtype=torch.float64).reshape(shape) for values in self)

    def posterior_mean(self, z: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """E[x0 | a x0 + b eps = z], elementwise, in float64; a and b broadcast against z."""
        z, a, b = z.double(), a.double(), b.double()
        weights, means, widths = self.tensors(z)
        variances = a**2 * widths**2 + b**2
        off = z - a * means
        likelihood = (weights.log() - variances.log() / 2 - off**2 / (2 * variances)).softmax(0)
        return (likelihood * (means + a * widths**2 / variances * off)).sum(0)

    def cdf(self, x: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """P(x0 + sigma eps <= x), elementwise, in float64."""
        weights, means, widths = self.tensors(x)
        return (weights * (1 + erf((x - means) / (2 * (widths**2 + sigma**2)).sqrt())) / 2).sum(0)

    def quantile(self, p: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """The x with cdf(x, sigma) = p, to float64's precision, by bisection."""
        reach = 10 * (max(self.widths) ** 2 + sigma**2) ** 0.5
        low = torch.full_like(p, min(self.means) - reach)
        high = torch.full_like(p, max(self.means) + reach)
        for _ in range(64):
            middle = (low + high) / 2
            below = self.cdf(middle, sigma) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


MIXTURE = Mixture(weights=(0.3, 0.7), means=(-1.2, 0.6), widths=(0.2, 0.3))  # unlike its mirror image


def wasserstein(samples: torch.Tensor, mixture: Mixture = MIXTURE) -> float:
    """Measure how far samples are from a mixture.

    Args:
        samples: of any shape.
        mixture: the distribution that they should have.

    Returns:
        The Wasserstein-1 distance: mean |sorted sample - quantile|.
    """
    ordered = samples.flatten().double().sort().values
    return float((ordered - _even_quantiles(len(ordered), mixture)).abs().mean())


@functools.cache
def _even_quantiles(n: int, mixture: Mixture) -> torch.Tensor:
    return mixture.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def exact_samples(n: int, seed: int = 0, mixture: Mixture = MIXTURE) -> torch.Tensor:
    """Draw from a mixture.

    Args:
        n: how many samples.
        seed: of the draws.
        mixture: their distribution.

    Returns:
        [n], float64. Their distance to the mixture is the floor for any sampler of random samples.
    """
    generator = torch.Generator().manual_seed(seed)
    return mixture.quantile(torch.rand(n, generator=generator, dtype=torch.float64))
