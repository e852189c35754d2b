"""Adams methods for dx/dsigma = (x - D) / sigma: the derivative is a polynomial in a time of choice.

    x_t = x_s + sum of C_j e_j,    C_j = integral of l_j(theta(sigma)) dsigma from s to t

with e_j the latest derivatives and l_j the Lagrange polynomials of their times theta. DEIS, iPNDM and gradient
estimation are this, with one time or another. The step to sigma 0 is Euler's. What each takes is told in
`exponential_multistep`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator, levels_of
from k_diffusing.samplers.exponential_adams import lagrange

BETA_MIN, BETA_D = 0.1, 19.9  # of the variance-preserving SDE on whose time DEIS was published
PUBLISHED_SIGMAS, PUBLISHED_START, PUBLISHED_POINTS = (0.002, 80.0), 1e-3, 10_000


@torch.no_grad()
def sample_deis(
    model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=3, deis_mode="tab", variant=None
):
    """DEIS.

    max_order: derivatives for a step, 1 to 4. deis_mode: the time, "tab" that of the variance-preserving SDE, "rhoab"
    sigma itself, "logrho" its logarithm. variant: "published" takes for "tab" the time of an SDE from sigma 0.002 to
    80, and sums over 10000 points where an integral is meant.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    coefficients = {
        "tab": _published_tab if variant == "published" else functools.partial(in_time, vp_time),
        "rhoab": in_sigma,
        "logrho": functools.partial(in_time, math.log),
    }[deis_mode]
    return time_adams(model, x, sigmas, steps, max_order, coefficients)


@torch.no_grad()
def sample_ipndm(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=4):
    """iPNDM: the weights of even steps, whatever the steps. max_order: derivatives for a step, 1 to 4."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return time_adams(model, x, sigmas, steps, max_order, in_even_steps)


@torch.no_grad()
def sample_ipndm_v(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=4, variant=None):
    """iPNDM with the weights of the steps that there are.

    max_order: derivatives for a step, 1 to 4. variant: "published" has the published code's weights of three and four
    derivatives, which are wrong.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return time_adams(model, x, sigmas, steps, max_order, _published_ipndm_v if variant == "published" else in_sigma)


@torch.no_grad()
def sample_gradient_estimation(model, x, sigmas, extra_args=None, callback=None, disable=None, ge_gamma=2.0):
    """Gradient estimation: the derivative, and its last change ge_gamma - 1 times.

    ge_gamma: 2 as published, of order 1; 1.5 is of order 2 on even steps; 1 is Euler's method.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)

    def coefficients(nodes, end):
        return [(end - nodes[0]) * weight for weight in ((1.0,), (ge_gamma, 1 - ge_gamma))[len(nodes) - 1]]

    return time_adams(model, x, sigmas, steps, 2, coefficients)


def time_adams(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    order: int,
    coefficients: Callable[[list[float], float], list[float]],
) -> torch.Tensor:
    """Sample with up to `order` derivatives.

    coefficients: (their sigmas, the newest first, sigma_next) -> C_j. The rest is as in `exponential_adams`.
    """
    levels, nodes, slopes = levels_of(sigmas), [], []
    for i in steps:
        sigma, sigma_next = levels[i], levels[i + 1]
        denoised = model.begin(i, x, sigmas[i])
        if sigma_next == 0:
            x = denoised
            continue
        nodes, slopes = [sigma, *nodes[: order - 1]], [(x - denoised) / sigma, *slopes[: order - 1]]
        x = x.clone()
        for coefficient, slope in zip(coefficients(nodes, sigma_next), slopes, strict=True):
            x.add_(slope, alpha=coefficient)
    return x


def in_sigma(nodes: Sequence[float], end: float) -> list[float]:
    """Sigma itself is the time."""
    h = end - nodes[0]
    return _line_integrals([(node - nodes[0]) / h for node in nodes], h)


def in_even_steps(nodes: Sequence[float], end: float) -> list[float]:
    """The number of the step is the time, and a step of it is one of sigma."""
    return _line_integrals([-float(j) for j in range(len(nodes))], end - nodes[0])


def _line_integrals(places: Sequence[float], h: float) -> list[float]:
    """H times the integral of each Lagrange polynomial from 0 to 1."""
    return [h * math.fsum(each / (n + 1) for n, each in enumerate(lagrange(places, j))) for j in range(len(places))]


def in_time(theta: Callable[[float], float], nodes: Sequence[float], end: float) -> list[float]:
    """theta(sigma) is the time. The integrals are Gauss's, over log sigma, where they are smooth."""
    low, high, times = math.log(end), math.log(nodes[0]), [theta(node) for node in nodes]
    totals = [0.0] * len(nodes)
    for point, weight in _gauss():
        sigma = math.exp((low + high) / 2 + point * (high - low) / 2)
        time, share = theta(sigma), -weight * sigma * (high - low) / 2
        for j, own in enumerate(times):
            others = (other for k, other in enumerate(times) if k != j)
            totals[j] += share * math.prod((time - other) / (own - other) for other in others)
    return totals


@functools.cache
def _gauss() -> list[tuple[float, float]]:
    points, weights = np.polynomial.legendre.leggauss(16)
    return list(zip(points.tolist(), weights.tolist(), strict=True))


def vp_time(sigma: float, beta_min: float = BETA_MIN, beta_d: float = BETA_D) -> float:
    """The time of the variance-preserving SDE whose beta rises from beta_min by beta_d, at a sigma."""
    return (math.sqrt(beta_min**2 + 2 * beta_d * math.log1p(sigma**2)) - beta_min) / beta_d


def _published_tab(nodes: Sequence[float], end: float) -> list[float]:
    """`in_time` as DEIS's published code has it: another SDE, and sums, of which the last point is one too many."""
    low, high = (math.log1p(sigma**2) for sigma in PUBLISHED_SIGMAS)
    beta_d = 2 * (high - low / PUBLISHED_START) / (1 - PUBLISHED_START)
    beta_min = high - beta_d / 2
    *times, until = (vp_time(sigma, beta_min, beta_d) for sigma in (*nodes, end))
    if len(times) == 1:
        return [end - nodes[0]]
    points = np.linspace(times[0], until, PUBLISHED_POINTS)
    exponents, slopes = beta_d * points**2 / 2 + beta_min * points, beta_d * points + beta_min
    shares = np.exp(exponents) * slopes / (2 * np.sqrt(np.expm1(exponents))) * (until - times[0]) / PUBLISHED_POINTS
    return [
        float(
            (shares * np.prod([(points - other) / (own - other) for k, other in enumerate(times) if k != j], 0)).sum()
        )
        for j, own in enumerate(times)
    ]


def _published_ipndm_v(nodes: Sequence[float], end: float) -> list[float]:
    """`in_sigma` as published: from three derivatives on, a bracket stands in the wrong place.

    The weights are those of differences: of a slope, of its change by c, of the change of that by d.
    """
    h, *before = (after - sigma for sigma, after in zip(nodes, (end, *nodes), strict=False))
    if len(nodes) < 3:
        return in_sigma(nodes, end)
    a, b = before[:2]
    c = (1 - h / (3 * (h + a)) * (h * (h + a)) / (a * (a + b))) / 2
    near = a / b
    changes = [h / (2 * a) + c, -h / (2 * a) - (1 + near) * c, near * c, 0.0]
    if len(nodes) == 4:
        last = before[2]
        d = (1 - h / (3 * (h + a))) / 2 + (1 - h / (2 * (h + a))) * h / (6 * (h + a + b))
        d *= h * (h + a) * (h + a + b) / (a * (a + b) * (a + b + last))
        far = a * (a + b) / (b * (b + last))
        more = (1, -(1 + near + far), near + far * (1 + b / last), -far * near)
        changes = [change + d * each for change, each in zip(changes, more, strict=True)]
    return [h * ((j == 0) + change) for j, change in enumerate(changes[: len(nodes)])]
