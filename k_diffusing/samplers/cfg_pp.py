"""CFG++: guidance moves the denoised estimate, and the noise that is left is what the model finds without the prompt.

With the guided estimate D_g and the unguided D_u, Euler's step from sigma s to t is x_t = D_g + (t / s) (x - D_u). That
is the step by D_u alone, and D_g - D_u on top. So is every step here: what a sampler of higher order adds are
differences of unguided estimates.

The model is asked for D_u through model_options["sampler_post_cfg_function"] of extra_args, as ComfyUI's functions ask.
Without model_options there, or a model that heeds them, D_u is D_g and each is the sampler that its name has before
`_cfg_pp`. Each takes what k_diffusion's functions do, as told in `exponential_multistep`.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator, levels_of
from k_diffusing.samplers.exponential_adams import (
    Estimate,
    Target,
    adams_weights,
    ancestral_target,
    two_point_weights,
    weighted,
)
from k_diffusing.samplers.exponential_multistep import published_weights

Past = list[Estimate]  # the unguided estimates, latest first
Step = Callable[[torch.Tensor, Past, float, float, Target], tuple[torch.Tensor, float]]


@torch.no_grad()
def sample_euler_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler's step."""
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _adams(1))


@torch.no_grad()
def sample_euler_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Euler's step to below the next level, and noise up to it."""
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _adams(1), eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpmpp_2m_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None, variant=None):
    """DPM-Solver++(2M).

    variant: "published" takes the change since the step before from that one's unguided estimate to this one's guided,
    and so guides twice.
    """
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _dpmpp_2m(variant))


@torch.no_grad()
def sample_res_multistep_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None, variant=None):
    """RES, two estimates; variant: "published" guides by t / s of what it should after the first step."""
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _res(variant))


@torch.no_grad()
def sample_res_multistep_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    variant=None,
):  # fmt: skip
    """RES to below the next level, and noise up to it.

    variant: "published" as for `sample_res_multistep_cfg_pp`, and as for res_multistep_ancestral.
    """
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _res(variant), eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_gradient_estimation_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None, ge_gamma=2.0):
    """Gradient estimation; ge_gamma: 1 plus the weight of the derivative's change, 2 as published, 1.5 of order 2."""
    model, steps = _both(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _sample(model, x, sigmas, steps, _gradient_estimation(ge_gamma))


@torch.no_grad()
def sample_dpmpp_2s_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    variant=None,
):  # fmt: skip
    """DPM-Solver++(2S) to below the next level, and noise up to it.

    variant: "published" takes the second unguided estimate where the first belongs.
    """
    model, levels = _both(model, x, extra_args, callback), levels_of(sigmas)
    noise_sampler = noise_sampler or k_sampling.default_noise_sampler(x)
    for i in trange(len(sigmas) - 1, disable=disable):
        guided, unguided = model.begin(i, x, sigmas[i])
        if levels[i + 1] == 0:
            x = guided
            continue
        goal = ancestral_target(eta, levels[i], levels[i + 1])
        middle = math.sqrt(levels[i] * goal.sigma)
        if middle == 0:
            x = guided
        else:
            ahead = guided + (middle / levels[i]) * (x - unguided)
            later, later_unguided = model(ahead, middle)
            first = later_unguided if variant == "published" else unguided
            x = later + (goal.sigma / levels[i]) * (x + guided - first - later)
        if goal.noise * s_noise > 0:
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * (goal.noise * s_noise)
    return x


@torch.no_grad()
def sample_rectified_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Rectified-CFG++, for flow models (arXiv 2510.07631, algorithm 1), in whatever coordinates.

    The derivative is that of the prompt alone. On top is what guidance adds to the derivative without the prompt, half
    a step ahead, where the prompt alone leads. The weight with which the model is guided is the paper's alpha(t). As
    steps get shorter this becomes ordinary guidance with a weight of 1 + alpha. A step takes an evaluation with the
    prompt and one with both prompts.
    """
    alone = Evaluator(model, x, _prompt_alone(extra_args or {}), callback)
    model, levels = _both(model, x, extra_args, None), levels_of(sigmas)
    for i in trange(len(sigmas) - 1, disable=disable):
        slope, length = (x - alone.begin(i, x, sigmas[i])) / levels[i], levels[i + 1] - levels[i]
        middle = levels[i] + length / 2
        guided, unguided = model(x + length / 2 * slope, middle)
        x = x + length * (slope + (unguided - guided) / middle)
    return x


class Both(NamedTuple):
    """A model, of which every answer is the guided and the unguided estimate."""

    evaluator: Evaluator
    seen: list[torch.Tensor]

    def __call__(self, x, sigma) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, of x at sigma."""
        return self._with_unguided(self.evaluator(x, sigma))

    def begin(self, step: int, x, sigma) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, at the beginning of a step."""
        return self._with_unguided(self.evaluator.begin(step, x, sigma))

    def _with_unguided(self, guided):
        return guided, (self.seen.pop() if self.seen else guided)


def _both(model: Callable, x: torch.Tensor, extra_args: dict[str, Any] | None, callback: Callable | None) -> Both:
    seen, extra_args = [], dict(extra_args or {})

    def look(told):
        seen[:] = [told["uncond_denoised"]]
        return told["denoised"]

    if "model_options" in extra_args:
        options = dict(extra_args["model_options"] or {})
        hooks = [*options.get("sampler_post_cfg_function", ()), look]
        # the second: ComfyUI leaves out the unguided estimate at a guidance of 1, where it has no weight in D_g
        options |= {"sampler_post_cfg_function": hooks, "disable_cfg1_optimization": True}
        extra_args["model_options"] = options
    return Both(Evaluator(model, x, extra_args, callback), seen)


def _prompt_alone(extra_args: dict[str, Any]) -> dict[str, Any]:
    """What asks the model for the estimate with the prompt; a model that heeds it evaluates no other."""
    if "model_options" not in extra_args:
        return extra_args
    options = dict(extra_args["model_options"] or {})
    hooks = [*options.get("sampler_post_cfg_function", ()), lambda told: told["cond_denoised"]]
    options |= {"sampler_post_cfg_function": hooks, "prompt_alone": True}
    return extra_args | {"model_options": options}


def _sample(
    model: Both, x, sigmas, steps: Iterable[int], go: Step, eta=0.0, s_noise=1.0, noise_sampler=None
) -> torch.Tensor:
    """go(x, past, sigma, sigma_next, goal): the step by the unguided estimates, and the weight of D_g - D_u on top."""
    levels, past, noise_sampler = levels_of(sigmas), [], noise_sampler or k_sampling.default_noise_sampler(x)
    for i in steps:
        guided, unguided = model.begin(i, x, sigmas[i])
        if levels[i + 1] == 0:
            x = guided
            continue
        past = [Estimate(-math.log(levels[i]), unguided), *past[:1]]
        goal = ancestral_target(eta, levels[i], levels[i + 1])
        if goal.sigma == 0:
            x = guided
        else:
            x, weight = go(x, past, levels[i], levels[i + 1], goal)
            x = x + weight * (guided - unguided)
        if goal.noise * s_noise > 0:
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * (goal.noise * s_noise)
    return x


def _adams(order: int, weights: Callable[..., list[float]] = adams_weights, on_top: Callable | None = None) -> Step:
    """on_top(weights, t / s): of D_g - D_u, from the second step on; None: 1."""

    def go(x, past, sigma, sigma_next, goal):
        nodes, end = [one.at for one in past[:order]], -math.log(sigma_next)
        exponent = (-math.log(goal.sigma) - nodes[0]) / (end - nodes[0])
        given = weights(nodes, nodes[0], end, exponent)
        weight = on_top(given, goal.sigma / sigma) if on_top and len(nodes) > 1 else 1.0
        return weighted(x, goal.sigma / sigma, given, past), weight

    return go


def _res(variant: str | None) -> Step:
    return _adams(2, published_weights(), lambda weights, kept: kept) if variant == "published" else _adams(2)


def _dpmpp_2m(variant: str | None) -> Step:
    on_top = (lambda weights, kept: 1 - weights[1]) if variant == "published" else None
    return _adams(2, partial(two_point_weights, lambda z: -math.expm1(-z)), on_top)


def _gradient_estimation(gamma: float) -> Step:
    slopes = []

    def go(x, past, sigma, sigma_next, goal):
        slopes[:] = [(x - past[0].denoised) / sigma, *slopes[:1]]
        change = (gamma - 1) * (slopes[0] - slopes[1]) if len(slopes) > 1 else 0.0
        return x + (sigma_next - sigma) * (slopes[0] + change), 1.0

    return go
