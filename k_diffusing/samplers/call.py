"""How a sampler is called.

    x = run_sampler(find_sampler("dpmpp_2m"), denoiser, x, sigmas)

calls k_diffusion's own function, unmodified, with some of its global names bound anew: the derivative `to_d`,
the progress bar, the source of noise.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from k_diffusing.noise.choose import noise_streams
from k_diffusing.noise.interval import Draw, Interval
from k_diffusing.noise.streams import Generators
from k_diffusing.protocols import Denoiser, NoiseSampler, Observer
from k_diffusing.samplers.comfyui import ComfyModel
from k_diffusing.samplers.find import parameters_of, sampler_options
from k_diffusing.samplers.host_numbers import HostNumber, host_grid
from k_diffusing.samplers.options import adds_noise
from k_diffusing.samplers.patch import Bound, rebound, to_d
from k_diffusing.samplers.records import SAMPLERS, Sampler
from k_diffusing.samplers.steps import StepWatch, fast_evaluations, is_single_step, leads_to_zero
from k_diffusing.samplers.user_draws import UserDraws


def step_noise(x, sigmas, generator: Generators, kind: str | None = "gaussian") -> NoiseSampler:
    """A `noise_sampler(sigma, sigma_next)` of unit variance, shaped as x, from one generator or one per image.

    kind "brownian": increments of one Brownian path, consistent where a sampler asks for overlapping intervals.
    """
    return noise_streams("torch", generator, None, len(x), x.device).step_noise(x, sigmas, kind)


def run_sampler(
    sampler: Sampler,
    denoiser: Denoiser,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    *,
    options: dict[str, Any] | None = None,
    generator: Generators = None,
    noise: Callable | None = None,
    derivative: Callable | None = None,
    observer: Observer | None = None,
    watch_noise: Callable[[Draw], Draw] | None = None,
) -> torch.Tensor:
    """Sample: from x at noise level sigmas[0] to sigmas[-1].

    A single step to 0 is one evaluation, and its result the denoised latents. A sampler that takes a range stops at the
    last sigma above 0; if the grid ends at 0, one Euler step goes on from there.

    Args:
        sampler: its record, as `find_sampler` gives it.
        denoiser: (x, sigma) -> denoised, sigma of shape [B].
        x: [B, ...] in float32 or wider.
        sigmas: n + 1 decreasing values on the CPU (0-dim CPU tensors mix with any device without a sync), the last one
            usually 0; a grid of one value has no step.
        options: of the sampler.
        generator: source of all step noise, one or one per image; None: torch's global one.
        noise: (x, sigmas, kind) -> the noise_sampler(sigma, sigma_next) in its place.
        derivative: stands in for `to_d`.
        observer: its `begin_step(index, x, sigma)` is called with the state at the start of every step, before any
            network evaluation in it, and may change x in place.
        watch_noise: stands between the sampler and draw(interval), its unit noise for an Interval.

    Returns:
        x at sigmas[-1].

    Raises:
        RuntimeError: dpm_adaptive finds no step that it accepts.
    """
    if len(sigmas) == 1:
        return x
    if is_single_step(sampler, sigmas):
        return _single_step(denoiser, x, sigmas[0], derivative, StepWatch(observer, denoiser, sigmas, _no_noise).begin)
    options, make = dict(options or {}), noise or partial(step_noise, generator=generator)
    noise = _noise_for(sampler, x, sigmas, options, make, watch_noise)
    if sampler.custom:
        own = _watched(make(x, sigmas, kind="gaussian"), watch_noise)
        draws = UserDraws(sampler.function, x.shape, sigmas.to(x.device), own)
        return _run_custom(sampler, denoiser, x, sigmas, options, noise, draws, derivative, observer)
    if "noise_sampler" in sampler_options(sampler):
        options["noise_sampler"] = _noise_sampler(noise)
    if sampler.uses_uncond and "model_options" in parameters_of(denoiser):
        options["extra_args"] = {"model_options": {}}  # where the sampler hangs what looks at the unguided estimate
    watch = StepWatch(observer, denoiser, sigmas, noise)
    names = {"to_d": derivative or to_d, "trange": watch.trange, "torch": Bound(torch, randn_like=watch.randn_like)}
    if sampler.takes == "sigmas":
        grid = host_grid(sigmas) if sampler.name in SAMPLERS else sigmas  # ours compute on plain numbers already
        return rebound(sampler.function, names)(watch.model, x, grid, disable=True, **options)
    function = rebound(sampler.function, {"DPMSolver": watch.DPMSolver})
    x = function(denoiser, x, *_range(sampler, sigmas), disable=True, **options)
    return _last_step(sampler, denoiser, x, sigmas, derivative, watch.begin)


def _no_noise(interval: Interval) -> float:
    return 0.0


def _noise_for(sampler, x, sigmas, options, make: Callable, watch_noise) -> Draw:
    """The sampler's noise: the user's own, or a new one; nothing is drawn for a sampler that adds none."""
    noise = options.get("noise_sampler")
    if noise is None:
        if sampler.noise is None or not adds_noise(sampler, options):
            return _no_noise
        noise = make(x, sigmas, kind=sampler.noise)
    return _watched(noise, watch_noise)


def _watched(noise_sampler: Callable, watch_noise: Callable[[Draw], Draw] | None) -> Draw:
    def draw(interval: Interval) -> torch.Tensor | float:
        return noise_sampler(interval.sigma, interval.sigma_next)

    return draw if watch_noise is None else watch_noise(draw)


def _noise_sampler(draw: Draw) -> Callable:
    """`draw` with the signature that k-diffusion's functions ask for."""

    def of_its_own(sigma):
        """What others may keep, and write into."""
        return sigma.plain.clone() if isinstance(sigma, HostNumber) else sigma

    return lambda sigma, sigma_next: draw(Interval(of_its_own(sigma), of_its_own(sigma_next)))


def _range(sampler: Sampler, sigmas: torch.Tensor) -> tuple:
    sigma_range = (float(sigmas[sigmas > 0].min()), float(sigmas.max()))
    needs_n = "n" in parameters_of(sampler.function)
    return (*sigma_range, fast_evaluations(sampler, sigmas)) if needs_n else sigma_range


def _single_step(denoiser, x, sigma, derivative, begin) -> torch.Tensor:
    """From sigma to 0; with a derivative of its own (flow coordinates) the denoiser may return what is not denoised."""
    begin(x, sigma)
    denoised = denoiser(x, sigma * x.new_ones(len(x)))
    return denoised if derivative is None else x - sigma * derivative(x, sigma, denoised)


def _last_step(sampler, denoiser, x, sigmas, derivative, begin) -> torch.Tensor:
    """From the smallest sigma above 0, where a sampler that takes a range stops, to 0 if the grid ends there."""
    if not leads_to_zero(sampler, sigmas):
        return x
    sigma = sigmas[sigmas > 0].min()
    begin(x, sigma)
    return x - sigma * (derivative or to_d)(x, sigma, denoiser(x, sigma * x.new_ones(len(x))))


def _run_custom(sampler, denoiser, x, sigmas, options, noise, draws: UserDraws, derivative, observer) -> torch.Tensor:
    """Run a user's function.

    It gets sigmas on x's device, as k-diffusion's callers give them, and our noise if it asks for it, or draws in the
    shape of x.
    Its steps are known from its `callback` alone, which comes after the first evaluation in the step. Where the
    observer changes something there, that evaluation is repeated.
    """
    parameters = parameters_of(sampler.function)
    swallows = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def callback(info):
        if observer is not None and observer.begin_step(info["i"], info["x"], info["sigma"]):
            sigma = torch.as_tensor(info.get("sigma_hat", info["sigma"])).to(info["x"])
            info["denoised"].copy_(denoiser(info["x"], sigma * info["x"].new_ones(len(x))))

    provided = {"extra_args": {}, "callback": draws.outside(callback), "disable": True}
    options |= {name: value for name, value in provided.items() if swallows or name in parameters}
    if "noise_sampler" in parameters:
        options["noise_sampler"] = draws.outside(_noise_sampler(noise))
    function = rebound(sampler.function, {} if derivative is None else {"to_d": derivative})
    is_comfy = isinstance(denoiser, ComfyModel)
    model = replace(denoiser, denoiser=draws.model(denoiser.denoiser)) if is_comfy else draws.model(denoiser)
    with draws:
        if sampler.takes == "sigmas":
            return _latents(sampler, function(model, x, sigmas.to(x.device), **options), x.shape)
        x = _latents(sampler, function(model, x, *_range(sampler, sigmas), **options), x.shape)
    return _last_step(sampler, denoiser, x, sigmas, derivative, begin=lambda *_: None)


def _latents(sampler: Sampler, returned, shape: torch.Size) -> torch.Tensor:
    """What a user's function returned. Raises TypeError or ValueError unless it is a tensor of the shape of x."""
    if not isinstance(returned, torch.Tensor):
        raise TypeError(f"{sampler.name} returned {returned!r:.60}: a sampler returns its final x, a tensor")
    if returned.shape != shape:
        raise ValueError(f"{sampler.name} returned the shape {list(returned.shape)}: its x has {list(shape)}")
    return returned
