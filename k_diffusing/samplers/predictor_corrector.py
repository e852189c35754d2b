"""Samplers that predict a step, evaluate the model at its end, and correct it: UniPC and SA-Solver.

The correction costs no evaluation of its own: the one at the end of a step is that at the beginning of the next. What
each takes is told in `exponential_multistep`.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator, levels_of
from k_diffusing.samplers.exponential_adams import adams_weights, exponential_adams, sde_target, two_point_weights

# Between them SA-Solver adds noise: SDXL's sigmas at 20 and 80 % of its timesteps.
NOISY = (0.57, 5.1)
PUBLISHED_END = 2**-10  # where the published code ends in place of sigma 0: what float32 makes there of 0.001


@torch.no_grad()
def sample_uni_pc(
    model, x, sigmas, extra_args=None, callback=None, disable=None, order=3, lower_order_final=True, variant=None
):
    """UniPC with B(h) = h.

    order: estimates for a prediction, 1 to 4; the correction takes one more. lower_order_final: whether the last steps
    to sigma 0 take fewer. variant: "published" ends at sigma 0.001 in place of 0.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return uni_pc(model, x, sigmas, steps, bh1, order, lower_order_final, variant)


@torch.no_grad()
def sample_uni_pc_bh2(
    model, x, sigmas, extra_args=None, callback=None, disable=None, order=3, lower_order_final=True, variant=None
):
    """UniPC with B(h) = 1 - exp(-h); options as those of `sample_uni_pc`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return uni_pc(model, x, sigmas, steps, bh2, order, lower_order_final, variant)


def bh1(h: float) -> float:
    """B(h) of UniPC, the first choice."""
    return h


def bh2(h: float) -> float:
    """B(h) of UniPC, the second choice."""
    return -math.expm1(-h)


def uni_pc(model, x, sigmas, steps, slope: Callable, order: int, lower: bool, variant: str | None) -> torch.Tensor:
    """UniPC with B(h) = slope(h); arguments as those of `sample_uni_pc`."""
    levels, n = levels_of(sigmas), len(sigmas) - 1
    if variant == "published":
        order, lower = max(1, min(order, n - 1)), True
        sigmas = [*levels[:-1], levels[-1] or PUBLISHED_END]
    elif levels[-1] > 0:
        lower = False  # the last step is as good as any

    def predict(step: int) -> int:
        return min(order, step + 1, n - step if lower else order)

    def orders(step: int) -> tuple[int, int]:
        return predict(step - 1) + 1 if step else 0, predict(step)

    return exponential_adams(model, x, sigmas, steps, orders, weights=partial(two_point_weights, slope))


@torch.no_grad()
def sample_sa_solver(
    model, x, sigmas, extra_args=None, callback=None, disable=None, tau_func=None, s_noise=1.0, noise_sampler=None,
    predictor_order=3, corrector_order=4, simple_order_2=False, eta=1.0,
):  # fmt: skip
    """SA-Solver: stochastic Adams methods, a prediction and a correction with one evaluation.

    tau_func: (sigma) -> tau, how much noise a step to that sigma adds, 1 as much as the diffusion itself; None: eta for
    sigmas from 0.57 to 5.1, 0 elsewhere. predictor_order: estimates for a prediction, 1 to 4. corrector_order: those
    for a correction, the newest among them, 1 to 4; 0: none. simple_order_2: whether two estimates get the paper's
    simpler weights.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    noise = {"target": _sa_target(tau_func, eta), "noise_sampler": noise_sampler, "s_noise": s_noise}
    return _sa_solver(model, x, sigmas, steps, predictor_order, corrector_order, simple_order_2, False, noise)


@torch.no_grad()
def sample_sa_solver_pece(
    model, x, sigmas, extra_args=None, callback=None, disable=None, tau_func=None, s_noise=1.0, noise_sampler=None,
    predictor_order=3, corrector_order=4, simple_order_2=False, eta=1.0,
):  # fmt: skip
    """SA-Solver with an evaluation more where the state was corrected; options as those of `sample_sa_solver`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    noise = {"target": _sa_target(tau_func, eta), "noise_sampler": noise_sampler, "s_noise": s_noise}
    return _sa_solver(model, x, sigmas, steps, predictor_order, corrector_order, simple_order_2, True, noise)


def _sa_target(tau_func: Callable[[float], float] | None, eta: float) -> Callable:
    def tau(sigma: float) -> float:
        if tau_func is not None:
            return float(tau_func(sigma))
        return eta if NOISY[0] <= sigma <= NOISY[1] else 0.0

    return lambda sigma, sigma_next: sde_target(tau(sigma_next), sigma, sigma_next)


def _sa_solver(model, x, sigmas, steps, predictor: int, corrector: int, simple: bool, again: bool, noise: dict):
    """The last two steps before sigma 0 are predicted from two estimates and one, as in the published code."""
    n, ends_at_zero = len(sigmas) - 1, float(sigmas[-1]) == 0

    def orders(step: int) -> tuple[int, int]:
        left = n - step if ends_at_zero else n
        return min(corrector, step + 1, left), max(1, min(predictor, step + 1, left - ends_at_zero))

    weights = partial(two_point_weights, lambda z: z) if simple else adams_weights
    return exponential_adams(model, x, sigmas, steps, orders, weights=weights, again=again, **noise)
