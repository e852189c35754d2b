"""ComfyUI's samplers for flow models: on the latents themselves, (1 - t) x0 + t eps, with the time t as sigma.

    x = flow_time.sample_euler_ancestral(model, latents, times)

Each has k_diffusion's signature and is for flow coordinates alone.

The three ancestral ones go down to u = t' (1 + eta (t' / t - 1)) and add noise up to t'. That is the ancestral step of
x0 + sigma eps, with sigma = t / (1 - t) and sigma_down = u / (1 - u). The three SDE ones are exponential integrators
in the half log-SNR log((1 - t) / t), which has no value at t = 1: `first_time` stands for it.

Scalars are 0-dim tensors in the times' dtype, made in ComfyUI's order of operations: dpmpp_sde asks for noise at times
that it computes, and a Brownian tree gives other noise for a time that is off by its last bit.
"""

import math
from collections.abc import Callable, Iterable

import torch
from tqdm.auto import trange

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.samplers.evaluate import Evaluator

NEAR_ONE = 0.9999  # stands for the middle, in half log-SNR, between t = 1 and a time below


def largest_time(shift: float, percent: float = 1e-4) -> float:
    """What ComfyUI takes for t = 1 where that has no value: t when `percent` of the uniform times u are done.

    shift: that of the model's times, t = shift u / (1 + (shift - 1) u).
    """
    return shift / (shift + 1 / (1 - percent) - 1)


FIRST_TIME = largest_time(math.exp(1.15))  # 0.99996834: ComfyUI shifts FLUX's times so, at any size


# Ancestral steps in t


@torch.no_grad()
def sample_euler_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Take Euler steps to u, then add noise.

    Args:
        model: (latents [B, ...], times [B]) -> denoised latents.
        x: latents [B, ...] at the time sigmas[0].
        sigmas: n + 1 decreasing times from 1 to 0, a tensor.
        extra_args: further keywords of the model.
        callback: told of each step, as k_diffusion's.
        disable: whether no progress bar is shown.
        eta: how far below t' a step goes before it adds noise; 0: not at all.
        s_noise: factor of the noise.
        noise_sampler: (t, t') -> unit noise; None: from torch's global generator.
    """
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _ancestral(model, x, sigmas, steps, _euler, eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpm_2_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Take steps to u by the derivative at sqrt(t u), then add noise; arguments as `sample_euler_ancestral`'s."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _ancestral(model, x, sigmas, steps, _dpm_2, eta, s_noise, noise_sampler)


@torch.no_grad()
def sample_dpmpp_2s_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Take steps to u by DPM-Solver++(2S), then add noise; arguments as `sample_euler_ancestral`'s."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _ancestral(model, x, sigmas, steps, _dpmpp_2s, eta, s_noise, noise_sampler)


def _ancestral(
    model: Evaluator, x, sigmas, steps: Iterable[int], go_down: Callable, eta, s_noise, noise_sampler
) -> torch.Tensor:
    """go_down(model, x, denoised, t, u): the latents at u, between 0 and t."""
    noise_sampler = noise_sampler or k_sampling.default_noise_sampler(x)
    for i in steps:
        t, t_next = sigmas[i], sigmas[i + 1]
        denoised = model.begin(i, x, t)
        u = (t_next * (1 + (t_next / t - 1) * eta)).clamp(min=0)
        x = go_down(model, x, denoised, t, u) if u > 0 else denoised
        if eta > 0 and t_next > 0:
            kept = (1 - t_next) / (1 - u)
            fresh = (t_next**2 - (u * kept) ** 2).clamp(min=0).sqrt()
            x = kept * x + noise_sampler(t, t_next) * s_noise * fresh
    return x


def _straight(x, denoised, t, to):
    """The latents at the time `to`, on the straight line through x at t and `denoised` at 0."""
    return (to / t) * x + (1 - to / t) * denoised


def _euler(model, x, denoised, t, u):
    return _straight(x, denoised, t, u)


def _dpm_2(model, x, denoised, t, u):
    middle = t.log().lerp(u.log(), 0.5).exp()
    x_middle = x + (x - denoised) / t * (middle - t)
    return x + (x_middle - model(x_middle, middle)) / middle * (u - t)


def _dpmpp_2s(model, x, denoised, t, u):
    start, end = ((1 - t) / t).log(), ((1 - u) / u).log()
    middle = 1 / ((start + (end - start) / 2).exp() + 1) if t < 1 else torch.full_like(t, NEAR_ONE)
    return _straight(x, model(_straight(x, denoised, t, middle), middle), t, u)


# Exponential integrators in half log-SNR


@torch.no_grad()
def sample_dpmpp_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    r=1 / 2, first_time=FIRST_TIME,
):  # fmt: skip
    """DPM-Solver++ for the SDE, two evaluations a step; arguments as `sample_euler_ancestral`'s, but for three.

    noise_sampler: None is a Brownian tree over t. r: where in the step, in half log-SNR, the second evaluation is.
    first_time: stands for a first time of 1.
    """
    noise_sampler, times = noise_sampler or _tree(x, sigmas), _begun_at(first_time, sigmas)
    model, noisy = Evaluator(model, x, extra_args, callback), eta > 0 and s_noise > 0
    for i in trange(len(sigmas) - 1, disable=disable):
        t, t_next = times[i], times[i + 1]
        denoised = model.begin(i, x, t)
        if t_next == 0:
            x = denoised
            continue
        start, end = _half_log_snr(t), _half_log_snr(t_next)
        middle = start + r * (end - start)
        t_middle = _time(middle)
        x_middle, up = _ancestral_step(x, denoised, (t, start), (t_middle, middle), eta)
        if noisy:
            x_middle = x_middle + noise_sampler(t, t_middle) * s_noise * up
        later = 1 / (2 * r)
        denoised = (1 - later) * denoised + later * model(x_middle, t_middle)
        x, up = _ancestral_step(x, denoised, (t, start), (t_next, end), eta)
        if noisy:
            x = x + noise_sampler(t, t_next) * s_noise * up
    return x


def _ancestral_step(x, denoised, start, end, eta) -> tuple[torch.Tensor, torch.Tensor]:
    """From and to (time, half log-SNR): the latents before noise is added, and how much is to be."""
    (t, t_log_snr), (to, to_log_snr) = start, end
    signal, signal_next = t * t_log_snr.exp(), to * to_log_snr.exp()
    down, up = k_sampling.get_ancestral_step(t_log_snr.neg().exp(), to_log_snr.neg().exp(), eta)
    h = down.log().neg() - t_log_snr
    return (signal_next / signal) * (-h).exp() * x - signal_next * (-h).expm1() * denoised, signal_next * up


@torch.no_grad()
def sample_dpmpp_2m_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    solver_type="midpoint", first_time=FIRST_TIME,
):  # fmt: skip
    """DPM-Solver++(2M) for the SDE; arguments as `sample_dpmpp_sde`'s.

    solver_type: "midpoint" or "heun", the weight of the latest change of the denoised latents. Raises ValueError for
    another.
    """
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"unknown solver_type {solver_type!r}: choose 'midpoint' or 'heun'")
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    change = _change_2m_midpoint if solver_type == "midpoint" else _change_2m
    return _multistep(model, x, sigmas, steps, change, eta, s_noise, noise_sampler, first_time)


@torch.no_grad()
def sample_dpmpp_3m_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None,
    first_time=FIRST_TIME,
):  # fmt: skip
    """DPM-Solver++(3M) for the SDE, with k_diffusion's coefficients; arguments as `sample_dpmpp_sde`'s."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _multistep(model, x, sigmas, steps, _change_3m, eta, s_noise, noise_sampler, first_time)


def _multistep(
    model: Evaluator, x, sigmas, steps: Iterable[int], change: Callable, eta, s_noise, noise_sampler, first_time
) -> torch.Tensor:
    """change(x, signal, h (1 + eta), denoised, lengths): x with what earlier steps tell, the latest first."""
    noise_sampler, times = noise_sampler or _tree(x, sigmas), _begun_at(first_time, sigmas)
    denoised, lengths = [], []
    for i in steps:
        t, t_next = times[i], times[i + 1]
        denoised = [model.begin(i, x, t), *denoised[:2]]
        if t_next == 0:
            x = denoised[0]
            continue
        start, end = _half_log_snr(t), _half_log_snr(t_next)
        h, signal = end - start, t_next * end.exp()
        lengths, h_eta = [h, *lengths[:2]], h * (eta + 1)
        x = t_next / t * (-h * eta).exp() * x - signal * (-h_eta).expm1() * denoised[0]
        if len(denoised) > 1:
            x = change(x, signal, h_eta, denoised, lengths)
        if eta > 0 and s_noise > 0:
            x = x + noise_sampler(t, t_next) * s_noise * t_next * (-2 * h * eta).expm1().neg().sqrt()
    return x


def _change_2m_midpoint(x, signal, h_eta, denoised, lengths):
    return x - 0.5 * signal * (-h_eta).expm1() * (lengths[0] / lengths[1]) * (denoised[0] - denoised[1])


def _change_2m(x, signal, h_eta, denoised, lengths):
    return x + signal * _phi_2(h_eta) * (lengths[0] / lengths[1]) * (denoised[0] - denoised[1])


def _change_3m(x, signal, h_eta, denoised, lengths):
    if len(denoised) < 3:
        return _change_2m(x, signal, h_eta, denoised, lengths)
    r, r_before = lengths[1] / lengths[0], lengths[2] / lengths[0]
    slope, slope_before = (denoised[0] - denoised[1]) / r, (denoised[1] - denoised[2]) / r_before
    first = slope + (slope - slope_before) * r / (r + r_before)
    second = (slope - slope_before) / (r + r_before)
    return x + signal * _phi_2(h_eta) * first - signal * (_phi_2(h_eta) / h_eta - 0.5) * second


def _phi_2(h):
    return (-h).expm1() / h + 1


def _half_log_snr(t):
    return t.logit().neg()


def _time(half_log_snr):
    return half_log_snr.neg().sigmoid()


def _begun_at(first_time: float, times: torch.Tensor) -> torch.Tensor:
    """The times, with another in place of a first one of 1."""
    if times[0] < 1:
        return times
    times = times.clone()
    times[0] = first_time
    return times


def _tree(x, times) -> Callable:
    return k_sampling.BrownianTreeNoiseSampler(x, times[times > 0].min(), times.max())


for _function in (
    sample_euler_ancestral,
    sample_dpm_2_ancestral,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_sde,
    sample_dpmpp_2m_sde,
    sample_dpmpp_3m_sde,
):
    _function.flow_coordinates = "flow"
