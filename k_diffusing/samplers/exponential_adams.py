"""Exponential Adams methods: the denoised estimate is a polynomial in lambda = -log sigma through the latest ones.

With it the step from sigma s to t has a closed form,

    x_t = (t/s)^k x + k * integral of exp(-k (lambda_t - u)) D(u) du + noise,    k = 1 + tau^2,

which is exact where D is a polynomial of that degree. tau = 0 is the probability-flow ODE, tau = 1 the diffusion SDE.
Multistep DPM-Solver++, RES, UniPC and SA-Solver are this, with one number of past estimates or another.
All numbers are computed on the host in float64, once a step.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from k_diffusing.samplers.evaluate import Evaluator, levels_of


class Estimate(NamedTuple):
    """A denoised estimate [B, ...], and lambda where it was made."""

    at: float
    denoised: torch.Tensor


class Target(NamedTuple):
    """Where a step goes before noise is added: to a sigma, with the exponent k; and how much noise is added then."""

    sigma: float
    exponent: float = 1.0
    noise: float = 0.0


def sde_target(tau: float, sigma: float, sigma_next: float) -> Target:
    """The step of the SDE whose noise is tau times that of the diffusion itself."""
    h = math.log(sigma / sigma_next)
    return Target(sigma_next, 1 + tau**2, sigma_next * math.sqrt(-math.expm1(-2 * tau**2 * h)))


def ancestral_target(eta: float, sigma: float, sigma_next: float) -> Target:
    """The ancestral step: down to below sigma_next, and up to it by noise."""
    up = min(sigma_next, eta * sigma_next * math.sqrt(max(1 - (sigma_next / sigma) ** 2, 0.0)))
    return Target(math.sqrt(sigma_next**2 - up**2), noise=up)


def phi(order: int, z: float) -> float:
    """The integral over v from 0 to 1 of exp(-z v) (1 - v)^(order - 1) / (order - 1)!; exp(-z) for order 0."""
    if z < 1:  # there the recursion below loses digits
        terms, term = [], 1 / math.factorial(order)
        for n in range(1, 20):
            terms.append(term)
            term *= -z / (order + n)
        return math.fsum(terms)
    value = math.exp(-z)
    for n in range(order):
        value = (1 / math.factorial(n) - value) / z
    return value


def adams_weights(nodes: Sequence[float], start: float, end: float, exponent: float = 1.0) -> list[float]:
    """The integral above, over lambda from start to end, of each Lagrange polynomial of the nodes."""
    h = end - start
    places, z = [(node - start) / h for node in nodes], exponent * h
    moments = [z * math.factorial(n) * phi(n + 1, z) for n in range(len(nodes))]
    return [
        math.fsum(map(math.prod, zip(polynomial, moments, strict=True)))
        for polynomial in (lagrange(places, j) for j in range(len(places)))
    ]


def lagrange(places: Sequence[float], j: int) -> list[float]:
    """The coefficients, of the powers 0, 1, ..., of the polynomial that is 1 at place j and 0 at the others."""
    coefficients = [1.0]
    for place in (*places[:j], *places[j + 1 :]):
        shifted = zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
        coefficients = [(lower - place * same) / (places[j] - place) for lower, same in shifted]
    return coefficients


def weighted(x: torch.Tensor, factor: float, weights: Iterable[float], past: Iterable[Estimate]) -> torch.Tensor:
    """Factor x plus the weighted sum of the estimates."""
    x = x * factor
    for weight, estimate in zip(weights, past, strict=True):
        x.add_(estimate.denoised, alpha=weight)
    return x


def multistep(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    order: int,
    target: Callable[[float, float], Target] = lambda sigma, sigma_next: Target(sigma_next),
    noise_sampler: Callable | None = None,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """Sample with the predictor alone.

    Args:
        model: the model, as an `Evaluator`.
        x: the state [B, ...] at sigmas[0].
        sigmas: n + 1 decreasing noise levels.
        steps: the numbers of the steps, one after the other.
        order: how many estimates the polynomial goes through, once there are as many.
        target: (sigma, sigma_next) -> where the step goes.
        noise_sampler: (sigma, sigma_next) -> unit noise; torch's global generator if None.
        s_noise: a factor of the noise.

    Returns:
        The state at sigmas[-1].
    """
    levels, past = levels_of(sigmas), []
    for i in steps:
        sigma, sigma_next = levels[i], levels[i + 1]
        denoised = model.begin(i, x, sigmas[i])
        past = [Estimate(-math.log(sigma), denoised), *past[: order - 1]]
        if sigma_next == 0:
            x = denoised
            continue
        goal = target(sigma, sigma_next)
        if goal.sigma == 0:
            x = denoised
        else:
            weights = adams_weights([one.at for one in past], past[0].at, -math.log(goal.sigma), goal.exponent)
            x = weighted(x, (goal.sigma / sigma) ** goal.exponent, weights, past)
        if goal.noise > 0:
            x = x + goal.noise * s_noise * (noise_sampler or _noise_like(x))(sigmas[i], sigmas[i + 1])
    return x


def _noise_like(x: torch.Tensor) -> Callable:
    return lambda sigma, sigma_next: torch.randn_like(x)
