"""Explicit Runge-Kutta methods on dx/dsigma = (x - D) / sigma, by tableau.

Each function takes what k_diffusion's do, as told in `exponential_multistep`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator, levels_of


class Tableau(NamedTuple):
    """A method.

    nodes: the fraction of the step at which each further derivative is taken. rows: for each of these, the weights of
    the derivatives before it, which sum to the node. weights: of all derivatives, for the step.
    """

    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


MIDPOINT = Tableau((1 / 2,), ((1 / 2,),), (0, 1))
RALSTON = Tableau((2 / 3,), ((2 / 3,),), (1 / 4, 3 / 4))
RALSTON_3 = Tableau((1 / 2, 3 / 4), ((1 / 2,), (0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9))
RK4 = Tableau((1 / 2, 1 / 2, 1), ((1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@torch.no_grad()
def sample_runge_kutta(model, x, sigmas, extra_args=None, callback=None, disable=None, tableau=RK4):
    """The method of any `Tableau`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return runge_kutta(model, x, sigmas, steps, Tableau(*tableau))


@torch.no_grad()
def sample_midpoint(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """The derivative in the middle of the step."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return runge_kutta(model, x, sigmas, steps, MIDPOINT)


@torch.no_grad()
def sample_ralston(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Ralston's method of order 2, with the smallest bound of its error."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return runge_kutta(model, x, sigmas, steps, RALSTON)


@torch.no_grad()
def sample_ralston_3(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Ralston's method of order 3."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return runge_kutta(model, x, sigmas, steps, RALSTON_3)


@torch.no_grad()
def sample_rk4(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """The classical method of order 4."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return runge_kutta(model, x, sigmas, steps, RK4)


def runge_kutta(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    tableau: Tableau,
) -> torch.Tensor:
    """From x [B, ...] at sigmas[0] to sigmas[-1]; a step to 0 returns the denoised estimate."""
    levels = levels_of(sigmas)
    for i in steps:
        denoised = model.begin(i, x, sigmas[i])
        sigma, length = levels[i], levels[i + 1] - levels[i]
        if levels[i + 1] == 0:
            x = denoised
            continue
        slopes = [(x - denoised) / sigma]
        for node, row in zip(tableau.nodes, tableau.rows, strict=True):
            ahead, there = _moved(x, length, row, slopes), sigma + node * length
            slopes.append((ahead - model(ahead, there)) / there)
        x = _moved(x, length, tableau.weights, slopes)
    return x


@torch.no_grad()
def sample_heunpp2(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Heun++: the derivatives now and at the next two levels, weighted by these levels over three times the first.

    Nobody has published it. It costs three evaluations a step and is of order 1.
    """
    model, levels = Evaluator(model, x, extra_args, callback), levels_of(sigmas)
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = model.begin(i, x, sigmas[i])
        if levels[i + 1] == 0:
            x = denoised
            continue
        slopes, ahead = [(x - denoised) / levels[i]], x
        for j in range(i, min(i + 2, len(levels) - 2)):
            ahead = ahead + slopes[-1] * (levels[j + 1] - levels[j])
            slopes.append((ahead - model(ahead, sigmas[j + 1])) / levels[j + 1])
        later = [level / (len(slopes) * levels[0]) for level in levels[i + 1 : i + len(slopes)]]
        x = _moved(x, levels[i + 1] - levels[i], (1 - sum(later), *later), slopes)
    return x


def _moved(x: torch.Tensor, length: float, weights: Sequence[float], slopes: Sequence[torch.Tensor]) -> torch.Tensor:
    """The state of x plus the length times the weighted sum of the slopes."""
    x = x.clone()
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x.add_(slope, alpha=length * weight)
    return x
