"""Exponential Adams methods: the denoised estimate is a polynomial in lambda = -log sigma through the latest ones.

With it the step from sigma s to t has a closed form,

    x_t = (t/s)^k x + k * integral of exp(-k (lambda_t - u)) D(u) du + noise

which is exact where D is a polynomial of that degree. The exponent k is 1 for the probability-flow ODE and 2 for the
diffusion SDE, 1 + tau^2 for noise tau times that of the SDE.
Multistep DPM-Solver++, RES, UniPC and SA-Solver are this, with one number of past estimates or another. A corrector
does the step again with the estimate at its end among them. All numbers are computed on the host in float64, once a
step.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

import torch

from k_diffusing.samplers.evaluate import Evaluator, levels_of

MOST = 4  # past estimates that are kept


class Estimate(NamedTuple):
    """A denoised estimate [B, ...], and lambda where it was made."""

    at: float
    denoised: torch.Tensor


class Target(NamedTuple):
    """How a step goes: as far as the ODE would go to a sigma, and then up by noise of a standard deviation."""

    sigma: float
    noise: float = 0.0


def ode_target(sigma: float, sigma_next: float) -> Target:
    """Of the probability-flow ODE."""
    return Target(sigma_next)


def sde_target(tau: float, sigma: float, sigma_next: float) -> Target:
    """Of the SDE whose noise is tau times that of the diffusion itself."""
    kept = (sigma_next / sigma) ** (tau * tau)  # 0 for any tau too large to be squared
    return Target(sigma_next * kept, sigma_next * math.sqrt(1 - kept**2))


def ancestral_target(eta: float, sigma: float, sigma_next: float) -> Target:
    """Of an ancestral step; for eta 1 this is the SDE with tau 1."""
    up = min(sigma_next, eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2))
    return Target(math.sqrt(sigma_next**2 - up**2), up)


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


def lagrange(places: Sequence[float], j: int) -> list[float]:
    """The coefficients, of the powers 0, 1, ..., of the polynomial that is 1 at place j and 0 at the others."""
    coefficients = [1.0]
    for place in (*places[:j], *places[j + 1 :]):
        shifted = zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
        coefficients = [(lower - place * same) / (places[j] - place) for lower, same in shifted]
    return coefficients


def adams_weights(nodes: Sequence[float], start: float, end: float, exponent: float = 1.0) -> list[float]:
    """The integral above, over lambda from start to end, of each Lagrange polynomial of the nodes."""
    h = end - start
    places, z = [(node - start) / h for node in nodes], exponent * h
    moments = [z * math.factorial(n) * phi(n + 1, z) for n in range(len(nodes))]
    return [math.fsum(map(math.prod, zip(lagrange(places, j), moments, strict=True))) for j in range(len(places))]


def two_point_weights(
    slope: Callable[[float], float], nodes: Sequence[float], start: float, end: float, exponent: float = 1.0
) -> list[float]:
    """`adams_weights`, but that two nodes, one of them the start, get a simpler weight of the same order.

    slope: what stands for twice the integral of a line that rises by 1 over the step, from exponent * h.
    """
    if len(nodes) != 2:
        return adams_weights(nodes, start, end, exponent)
    z, other = exponent * (end - start), int(nodes[0] == start)
    weight = slope(z) / 2 * (end - start) / (nodes[other] - start)
    rest = -math.expm1(-z) - weight
    return [rest, weight] if other else [weight, rest]


def weighted(x: torch.Tensor, factor: float, weights: Iterable[float], past: Iterable[Estimate]) -> torch.Tensor:
    """Factor x plus the weighted sum of the estimates."""
    x = x * factor
    for weight, estimate in zip(weights, past, strict=False):
        x.add_(estimate.denoised, alpha=weight)
    return x


def exponential_adams(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    orders: Callable[[int], tuple[int, int]],
    target: Callable[[float, float], Target] = ode_target,
    weights: Callable[..., list[float]] = adams_weights,
    again: bool = False,
    noise_sampler: Callable | None = None,
    s_noise: float = 1.0,
) -> torch.Tensor:
    """Sample.

    Args:
        model: the model, as an `Evaluator`.
        x: the state [B, ...] at sigmas[0].
        sigmas: n + 1 decreasing noise levels.
        steps: the numbers of the steps, one after the other.
        orders: of a step: how many estimates its start is corrected with, 0 for not at all, the one there included;
            and how many its end is predicted with.
        target: (sigma, sigma_next) -> how the step goes.
        weights: (nodes, start, end, exponent) -> weights of the estimates, as `adams_weights`.
        again: whether the model is evaluated once more where the state was corrected.
        noise_sampler: (sigma, sigma_next) -> unit noise; torch's global generator if None.
        s_noise: a factor of the noise.

    Returns:
        The state at sigmas[-1].
    """
    levels, past, given, exponent = levels_of(sigmas), [], [], 1.0
    noise_sampler = noise_sampler or (lambda sigma, sigma_next: torch.randn_like(x))
    for i in steps:
        sigma, sigma_next, (correct, predict) = levels[i], levels[i + 1], orders(i)
        here = Estimate(-math.log(sigma), model.begin(i, x, sigmas[i]))
        if given and correct and (again or sigma_next > 0):
            x = _corrected(x, [here, *past][:correct], past, given, exponent, weights)
            here = Estimate(here.at, model(x, sigmas[i])) if again else here
        past = [here, *past[: MOST - 1]]
        goal = target(sigma, sigma_next) if sigma_next > 0 else Target(0.0)
        if goal.sigma == 0:
            x, given = here.denoised, []
        else:
            end = -math.log(sigma_next)
            exponent = (-math.log(goal.sigma) - here.at) / (end - here.at)
            given = weights([one.at for one in past[:predict]], here.at, end, exponent)
            x = weighted(x, goal.sigma / sigma, given, past)
        if goal.noise * s_noise > 0:
            x = x + goal.noise * s_noise * noise_sampler(sigmas[i], sigmas[i + 1])
    return x


def multistep(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    order: int,
    target: Callable[[float, float], Target] = ode_target,
    noise_sampler: Callable | None = None,
    s_noise: float = 1.0,
    weights: Callable[..., list[float]] = adams_weights,
) -> torch.Tensor:
    """`exponential_adams` without correction, with as many estimates as there are, `order` at most."""

    def orders(step: int) -> tuple[int, int]:
        return 0, min(order, step + 1)

    return exponential_adams(
        model, x, sigmas, steps, orders, target, weights, noise_sampler=noise_sampler, s_noise=s_noise
    )


def _corrected(x, estimates: list[Estimate], past: list[Estimate], given: list[float], exponent: float, weights):
    """The state x at the first of the estimates, predicted from `past` with the weights `given`, corrected with all.

    Only the weights change, so that what a callback did to the state stays, and so does the noise in it.
    """
    new, *rest = weights([one.at for one in estimates], past[0].at, estimates[0].at, exponent)
    changes = [after - before for after, before in zip_longest(rest, given, fillvalue=0.0)]
    return weighted(x, 1.0, [new, *changes], [estimates[0], *past])
