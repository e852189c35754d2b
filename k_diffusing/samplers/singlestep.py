"""Exponential Runge-Kutta methods in lambda = -log sigma: several denoised estimates in a step, none kept for the next.

A step of length h = lambda_t - lambda_s, from sigma s to t, goes through stages at the fractions c of it. With
z = (1 + eta) h, where eta 0 is the probability-flow ODE and eta 1 the diffusion SDE,

    x_c = (s_c / s) e^(-c eta h) x + sum of weights(c, z) D + s_c N_c,    s_c = s e^(-c h)

and the last stage is x_t. The weights of a stage sum to 1 - e^(-c z), so that a constant D is followed exactly. N_c is
one path of noise through all stages, of variance 1 - e^(-2 c eta h).

Each function takes what k_diffusion's do, as told in `exponential_multistep`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator, levels_of
from k_diffusing.samplers.exponential_adams import phi

# The weights of the estimates so far, for each stage, at z.
Weights = Callable[[float], Sequence[Sequence[float]]]


@torch.no_grad()
def sample_seeds_2(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None, r=0.5,
    solver_type="phi_1",
):  # fmt: skip
    """SEEDS of two stages; r: the fraction of the first.

    solver_type: "phi_1" or "phi_2", the weight of the second estimate. Raises ValueError for another.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (r, 1), _two_stages(r, solver_type), eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_exp_heun_2_x0(model, x, sigmas, extra_args=None, callback=None, disable=None, solver_type="phi_2"):
    """Exponential Heun: the second estimate at the end of the step; solver_type as in `sample_seeds_2`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (1, 1), _two_stages(1, solver_type))


@torch.no_grad()
def sample_exp_heun_2_x0_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    solver_type="phi_2",
):  # fmt: skip
    """Exponential Heun for the SDE; solver_type as in `sample_seeds_2`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (1, 1), _two_stages(1, solver_type), eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_res_2s(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=0.0, s_noise=1.0, noise_sampler=None, c2=0.5
):
    """RES of two stages; c2: the fraction of the first."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (c2, 1), _two_stages(c2, "phi_2"), eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpmpp_2s(model, x, sigmas, extra_args=None, callback=None, disable=None, r=0.5):
    """DPM-Solver++(2S), of which k_diffusion has the ancestral form; r: the fraction of the first stage."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (r, 1), _two_stages(r, "phi_1"))


@torch.no_grad()
def sample_seeds_3(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    r_1=1 / 3, r_2=2 / 3,
):  # fmt: skip
    """SEEDS of three stages; r_1, r_2: the fractions of the first two."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    weights = partial(_three_stages, r_1, r_2)
    return singlestep(model, x, sigmas, steps, (r_1, r_2, 1), weights, eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpmpp_3s(model, x, sigmas, extra_args=None, callback=None, disable=None, r_1=1 / 3, r_2=2 / 3):
    """DPM-Solver++(3S); r_1, r_2: the fractions of the first two stages."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return singlestep(model, x, sigmas, steps, (r_1, r_2, 1), partial(_three_stages, r_1, r_2))


@torch.no_grad()
def sample_res_3s(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=0.0, s_noise=1.0, noise_sampler=None, c2=0.5,
    c3=1.0,
):  # fmt: skip
    """RES of three stages, Hochbruck and Ostermann's family of order 3; c2, c3: the fractions of the first two.

    Raises ValueError for c2 = 2/3 or c3 = c2, of which there is none.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    weights = _hochbruck_ostermann(c2, c3)
    return singlestep(model, x, sigmas, steps, (c2, c3, 1), weights, eta, s_noise, noise_sampler)


def singlestep(
    model: Evaluator,
    x: torch.Tensor,
    sigmas: Sequence[float] | torch.Tensor,
    steps: Iterable[int],
    fractions: Sequence[float],
    weights: Weights,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: Callable | None = None,
) -> torch.Tensor:
    """Sample by exponential Runge-Kutta steps.

    Args:
        model: the model, as an `Evaluator`.
        x: the state [B, ...] at sigmas[0].
        sigmas: n + 1 decreasing noise levels.
        steps: the numbers of the steps, one after the other.
        fractions: c of each stage, the last one 1.
        weights: of the estimates, for each stage.
        eta: of the SDE; 0 adds no noise.
        s_noise: a factor of the noise.
        noise_sampler: (sigma, sigma_next) -> unit noise; torch's global generator if None.

    Returns:
        The state at sigmas[-1].
    """
    levels, draw = levels_of(sigmas), noise_sampler or k_sampling.default_noise_sampler(x)
    for i in steps:
        estimates = [model.begin(i, x, sigmas[i])]
        s, t = levels[i], levels[i + 1]
        if t == 0:
            x = estimates[0]
            continue
        h, begun, done, sigma, noise = math.log(s / t), x, 0.0, sigmas[i], None
        for c, row in zip(fractions, weights((1 + eta) * h), strict=True):
            if len(estimates) < len(row):
                estimates.append(model(x, sigma))
            sigma_next = sigmas[i + 1] if c == 1 else s * math.exp(-c * h)
            x = begun * math.exp(-c * (1 + eta) * h)
            for weight, estimate in zip(row, estimates, strict=True):
                x.add_(estimate, alpha=weight)
            if eta > 0 and s_noise > 0:
                noise = _further(noise, draw(sigma, sigma_next), (c - done) * eta * h)
                x.add_(noise, alpha=s_noise * s * math.exp(-c * h))
            done, sigma = c, sigma_next
    return x


def _further(noise: torch.Tensor | None, fresh: torch.Tensor, length: float) -> torch.Tensor:
    """The path of noise, `length` further on. On no way at all nothing is added, though noise was drawn."""
    added = fresh * math.sqrt(-math.expm1(-2 * length))
    if noise is None:
        return added
    return noise * math.exp(-length) + added if length > 0 else noise


def _psi(order: int, z: float) -> float:
    return z * phi(order, z)


def _two_stages(c: float, solver_type: str) -> Weights:
    if solver_type not in ("phi_1", "phi_2"):
        raise ValueError(f"unknown solver_type {solver_type!r}: choose 'phi_1' or 'phi_2'")

    def weights(z):
        later = _psi(1, z) / (2 * c) if solver_type == "phi_1" else _psi(2, z) / c
        return [_psi(1, c * z)], [_psi(1, z) - later, later]

    return weights


def _three_stages(c1: float, c2: float, z: float):
    """Of SEEDS-3 and DPM-Solver++(3S)."""
    second, third = c2 / c1 * _psi(2, c2 * z), _psi(2, z) / c2
    return [_psi(1, c1 * z)], [_psi(1, c2 * z) - second, second], [_psi(1, z) - third, 0.0, third]


def _hochbruck_ostermann(c2: float, c3: float) -> Weights:
    if c3 == c2 or math.isclose(c2, 2 / 3):
        raise ValueError(f"there is no method of order 3 with c2={c2!r} and c3={c3!r}: give c2 but 2/3, and c3 but c2")
    gamma = (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))  # so that the two later estimates give the curvature its weight

    def weights(z):
        second = gamma * _psi(2, c2 * z) + c3 / c2 * _psi(2, c3 * z)
        third = _psi(2, z) / (gamma * c2 + c3)
        first = _psi(1, z) - (1 + gamma) * third
        return [_psi(1, c2 * z)], [_psi(1, c3 * z) - second, second], [first, gamma * third, third]

    return weights
