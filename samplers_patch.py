"""k_diffusion's samplers: what each of them is, and how one is called.

    x = run_sampler(find_sampler("dpmpp_2m"), denoiser, x, sigmas)

calls k_diffusion's own function, unmodified, with some of its global names bound anew: the derivative `to_d`,
the progress bar, the source of noise. The bindings live in a copy of the function made for that one call, so
there is nothing to restore when a sampler raises and nothing that another thread could see.
"""

import difflib
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from comfy_model import ComfyModel, is_comfyui_function
from denoisers import FLOW_COORDINATES
from k_diffusion_import import k_sampling
from noise import Generators, noise_streams
from option_ranges import check_value
from user_draws import UserDraws

Denoiser = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Sampler:
    """One sampling function, and what a caller must know of it.

    order: of accuracy, as published. nfe_per_step: network evaluations in a step. stochastic: adds noise with
    its default options. derivative_only: uses the model only as (x - denoised) / sigma. noise: the kind it draws,
    "churn" (only if s_churn > 0), "gaussian", "brownian" or None. takes: "sigmas" (a grid) or "sigma_range"
    (sigma_min, sigma_max and, unless adaptive, n). sigma_grid: the named grid it is known to need, or None.
    single_step: whether the function, if it takes a grid, can go from sigma to 0 in its first step.
    flow_coordinates: "flow" if it is written for those. grid_scheduler: whose sigmas it wants where the user gives
    none; None: those of the pipeline's scheduler.
    """

    name: str
    function: Callable
    order: int | None = None
    nfe_per_step: int | None = None
    stochastic: bool = True
    derivative_only: bool = False
    noise: str | None = "gaussian"
    takes: str = "sigmas"
    adaptive: bool = False
    sigma_grid: str | None = None
    single_step: bool = True
    custom: bool = False
    flow_coordinates: str | None = None
    grid_scheduler: Any = None


SAMPLERS = {
    "euler": Sampler("euler", k_sampling.sample_euler, 1, 1, False, True, "churn"),
    "euler_ancestral": Sampler("euler_ancestral", k_sampling.sample_euler_ancestral, 1, 1, True, True),
    "heun": Sampler("heun", k_sampling.sample_heun, 2, 2, False, True, "churn"),
    "dpm_2": Sampler("dpm_2", k_sampling.sample_dpm_2, 2, 2, False, True, "churn"),
    "dpm_2_ancestral": Sampler("dpm_2_ancestral", k_sampling.sample_dpm_2_ancestral, 2, 2, True, True),
    "lms": Sampler("lms", k_sampling.sample_lms, 4, 1, False, True, None),
    "dpm_fast": Sampler("dpm_fast", k_sampling.sample_dpm_fast, 3, 3, False, True, takes="sigma_range"),
    "dpm_adaptive": Sampler(
        "dpm_adaptive", k_sampling.sample_dpm_adaptive, 3, 3, False, True, takes="sigma_range", adaptive=True
    ),
    "dpmpp_2s_ancestral": Sampler("dpmpp_2s_ancestral", k_sampling.sample_dpmpp_2s_ancestral, 2, 2),
    "dpmpp_sde": Sampler("dpmpp_sde", k_sampling.sample_dpmpp_sde, 2, 2, noise="brownian"),
    "dpmpp_2m": Sampler("dpmpp_2m", k_sampling.sample_dpmpp_2m, 2, 1, False, noise=None),
    "dpmpp_2m_sde": Sampler("dpmpp_2m_sde", k_sampling.sample_dpmpp_2m_sde, 2, 1, noise="brownian", single_step=False),
    "dpmpp_3m_sde": Sampler(
        "dpmpp_3m_sde", k_sampling.sample_dpmpp_3m_sde, 3, 1, noise="brownian", sigma_grid="karras", single_step=False
    ),
}

REJECTED = 100  # attempts in a row at one step of dpm_adaptive: each makes it smaller, by a fifth with its defaults

# What the caller of a sampler provides; everything else in its signature is an option of the user's.
_PROVIDED = {"model", "x", "sigmas", "sigma_min", "sigma_max", "n", "extra_args", "callback", "disable", "return_info"}


def find_sampler(sampler: str | Callable) -> Sampler:
    """The record for a name (with or without `sample_`) or for a callable with k-diffusion's signature.

    Raises ValueError for an unknown name, TypeError for a callable that cannot be called as a sampler.
    """
    if isinstance(sampler, Sampler):
        return sampler
    if isinstance(sampler, str):
        return _sampler_by_name(sampler)
    for record in SAMPLERS.values():
        if sampler is record.function:
            return record
    return _custom_sampler(sampler)


def _sampler_by_name(name: str) -> Sampler:
    short = name.removeprefix("sample_")
    if short in SAMPLERS:
        return SAMPLERS[short]
    nearest = difflib.get_close_matches(short, SAMPLERS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown sampler {name!r}: did you mean {nearest!r}? Choose one of {', '.join(SAMPLERS)} "
        "(each also with the prefix sample_), or pass a function with k-diffusion's signature."
    )


def _custom_sampler(function: Callable) -> Sampler:
    expected = "sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, **options)"
    if not callable(function):
        raise TypeError(f"a sampler is a name or a callable {expected}, not {function!r}")
    parameters = list(_parameters(function, expected).values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_range = [p.name for p in positional[2:4]] == ["sigma_min", "sigma_max"]
    given = {p.name for p in positional[:3]} | _PROVIDED
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {p.name for p in parameters if p.default is p.empty and p.kind not in variadic}
    if len(positional) < 3 or required - given:
        found = f"{_name(function)}({', '.join(p.name for p in parameters)})"
        raise TypeError(f"{found} cannot be called as a sampler: expected {expected}")
    return Sampler(
        _name(function),
        function,
        noise=_usual_noise(_name(function)),
        takes="sigma_range" if takes_range else "sigmas",
        custom=True,
        flow_coordinates="flow" if is_comfyui_function(function) else getattr(function, "flow_coordinates", None),
        grid_scheduler=getattr(function, "grid_scheduler", None),
    )


def _usual_noise(name: str) -> str:
    """The kind of noise for a function that asks for some: that of k_diffusion's sampler of the same name, if any."""
    namesake = SAMPLERS.get(name.removeprefix("sample_").removesuffix("_gpu"))
    return "brownian" if namesake is not None and namesake.noise == "brownian" else "gaussian"


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _parameters(function: Callable, expected: str = "a function with k-diffusion's signature"):
    try:
        return inspect.signature(function).parameters
    except (ValueError, TypeError) as error:
        raise TypeError(f"the signature of {function!r} cannot be read ({error}): pass {expected}") from error


def sampler_options(sampler: Sampler) -> dict[str, Any]:
    """The options a sampler takes, with their defaults."""
    parameters = _parameters(sampler.function).values()
    return {p.name: p.default for p in parameters if p.name not in _PROVIDED and p.default is not p.empty}


def check_options(sampler: Sampler, options: dict[str, Any] | None) -> None:
    """Raise TypeError for an option that the sampler does not have, naming those it has, or for a value of the wrong
    kind; ValueError for one out of range. Of a user's function only the names are known."""
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"sampler_options is a dict such as {{'eta': 0.5}}, not {options!r}")
    if any(p.kind is p.VAR_KEYWORD for p in _parameters(sampler.function).values()):
        return
    known = sampler_options(sampler)
    for name, value in (options or {}).items():
        if name not in known:
            choices = ", ".join(f"{key}={value!r}" for key, value in known.items()) or "none"
            raise TypeError(f"{sampler.name} has no option {name!r}; its options: {choices}")
        if not sampler.custom:
            check_value(sampler.name, name, value)


def adds_noise(sampler: Sampler, options: dict[str, Any] | None) -> bool:
    """Whether the sampler, with these options, adds noise as it goes; of a custom one it is taken for granted."""
    values = sampler_options(sampler) | (options or {})
    return sampler.custom or bool(values.get("eta", 0) or values.get("s_churn", 0))


def choose_coordinates(flow_coordinates: str, sampler: Sampler, options: dict | None) -> str:
    """The coordinates that "auto" means for a sampler; ValueError for a choice that there is not."""
    if flow_coordinates not in ("auto", *FLOW_COORDINATES):
        choices = ", ".join(("auto", *FLOW_COORDINATES))
        raise ValueError(f"unknown flow_coordinates {flow_coordinates!r}: choose one of {choices}")
    if flow_coordinates == "flow" and (options or {}).get("s_churn"):
        raise ValueError("s_churn adds noise for x0 + sigma * eps, which flow coordinates are not: use 'auto' or 've'")
    if flow_coordinates == "auto" and sampler.flow_coordinates is not None:
        return sampler.flow_coordinates
    if flow_coordinates == "auto":
        noiseless = not adds_noise(sampler, options)
        return "flow" if sampler.derivative_only and noiseless else "ve"
    return flow_coordinates


def to_d(x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """The derivative dx/dsigma of the probability-flow ODE (Karras et al. 2022, eq. 3); sigma is 0-dim or [B]."""
    return (x - denoised) / (sigma if sigma.ndim == 0 else sigma.reshape(-1, *[1] * (x.ndim - 1)))


def step_count(sampler: Sampler, sigmas: torch.Tensor) -> int | None:
    """The number of steps a sampler takes on `sigmas` (n + 1 values); None where it depends on the model."""
    steps = len(sigmas) - 1
    if _is_single_step(sampler, sigmas):
        return 1
    if sampler.adaptive or (sampler.custom and sampler.takes == "sigma_range"):
        return None
    if sampler.takes == "sigma_range":
        return _fast_evaluations(sigmas) // 3 + 1 + int(sigmas[-1] == 0)
    return steps


def _is_single_step(sampler: Sampler, sigmas: torch.Tensor) -> bool:
    """Whether all there is to do is one step to 0 that k_diffusion's function cannot take: it is left no range, or
    lacks a variable of an earlier step."""
    cannot = sampler.takes == "sigma_range" or not sampler.single_step
    return cannot and not sampler.custom and len(sigmas) == 2 and float(sigmas[-1]) == 0


def _fast_evaluations(sigmas: torch.Tensor) -> int:
    """The n of dpm_fast: with the last denoising step, as many evaluations as the grid has steps (one at least)."""
    return max(len(sigmas) - 1 - int(sigmas[-1] == 0), 1)


def step_noise(x, sigmas, generator: Generators, kind: str | None = "gaussian") -> Callable:
    """A `noise_sampler(sigma, sigma_next)` of unit variance, shaped as x, from one generator or one per image.

    kind "brownian": increments of one Brownian path, consistent where a sampler asks for overlapping intervals.
    """
    return noise_streams("torch", generator, None, len(x), x.device).step_noise(x, sigmas, kind)


class _Bound:
    """A module with some of its names bound anew; the module itself is left as it is."""

    def __init__(self, module, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


def rebound(function: Callable, names: dict[str, Any]) -> Callable:
    """A copy of a Python function that sees `names` in place of the globals it uses by those names.

    The function itself if it uses none of them, or is not written in Python.
    """
    plain = inspect.unwrap(function)
    if not isinstance(plain, types.FunctionType):
        return function
    names = {name: value for name, value in names.items() if name in plain.__globals__}
    if not names:
        return function
    namespace = {**plain.__globals__, **names}
    copy = types.FunctionType(plain.__code__, namespace, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__kwdefaults__ = plain.__kwdefaults__
    return torch.no_grad()(copy)


class _StepWatch:
    """Tells an observer when a sampler begins a step, with its state at that moment.

    A loop over `trange` begins a step, and the state is what the sampler next shows us: to `randn_like` (the
    churn samplers draw before they do anything else) or to the model. DPMSolver's steps begin with a new "eps".
    """

    def __init__(self, observer, denoiser: Denoiser, sigmas: torch.Tensor, noise: Callable):
        self.observer, self.denoiser, self.sigmas, self.noise = observer, denoiser, sigmas.unbind(), noise
        self.index, self.pending, self.state = -1, False, None

    def begin(self, x, sigma) -> None:
        self.index, self.pending = self.index + 1, False
        if self.observer is not None:
            self.observer.begin_step(self.index, x, sigma)

    def see(self, x) -> None:
        if self.pending:
            self.begin(x, self.sigmas[self.index + 1])

    def trange(self, steps, **_):
        for i in range(steps):
            self.pending = True
            yield i

    def randn_like(self, x):
        self.see(x)
        return self.noise(self.sigmas[self.index], None)

    def model(self, x, sigma, **extra_args):
        self.see(x)
        return self.denoiser(x, sigma, **extra_args)

    def DPMSolver(self, *args, **kwargs):  # noqa: N802 - the name it stands in for
        solver = k_sampling.DPMSolver(*args, **kwargs)
        evaluate, rejected = solver.eps, 0

        def eps(cache, key, x, t):
            nonlocal rejected
            if key == "eps" and not cache:
                rejected = rejected + 1 if x is self.state else 0  # the same state again: the attempt was rejected
                if rejected == 0:
                    self.state = x
                    self.begin(x, solver.sigma(t))
                elif rejected == REJECTED:
                    raise RuntimeError(
                        f"dpm_adaptive rejected {REJECTED} attempts in a row at its step from sigma "
                        f"{float(solver.sigma(t)):.4g}, and would go on: raise its options rtol or atol, lower "
                        "accept_safety, or take a sampler with fixed steps"
                    )
            return evaluate(cache, key, x, t)

        solver.eps = eps
        return solver


def run_sampler(
    sampler: Sampler,
    denoiser: Denoiser,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    *,
    options: dict[str, Any] | None = None,
    generator: Generators = None,
    noise: Callable | None = None,
    derivative: Callable = to_d,
    observer=None,
    watch_noise: Callable[[Callable], Callable] | None = None,
) -> torch.Tensor:
    """Sample: from x at noise level sigmas[0] to sigmas[-1].

    denoiser: (x, sigma) -> denoised, x of shape [B, ...] in float32 or wider, sigma of shape [B].
    sigmas: n + 1 decreasing values on the CPU (0-dim CPU tensors mix with any device without a sync), the last
    one usually 0. A single step to 0 is one evaluation, and its result the denoised latents. A sampler that takes a
    range stops at the last sigma above 0; if the grid ends at 0, one Euler step goes on from there. generator: source
    of all step noise, one or one per image; None: torch's global one. noise(x, sigmas, kind): makes the
    noise_sampler(sigma, sigma_next) in its place. derivative: stands in for `to_d`. observer: its
    `begin_step(index, x, sigma)` is called with the state at the start of every step, before any network evaluation in
    it, and may change x in place. watch_noise: makes of the noise_sampler about to be used the one that is; churn is
    drawn for (sigma, None).

    Raises RuntimeError where dpm_adaptive finds no step that it accepts.
    """
    if _is_single_step(sampler, sigmas):
        return _single_step(denoiser, x, sigmas[0], derivative, _StepWatch(observer, denoiser, sigmas, None).begin)
    options, make = dict(options or {}), noise or partial(step_noise, generator=generator)
    noise = _noise_for(sampler, x, sigmas, options, make, watch_noise)
    if sampler.custom:
        own = make(x, sigmas, kind="gaussian")
        own = own if watch_noise is None else watch_noise(own)
        draws = UserDraws(sampler.function, x.shape, sigmas.to(x.device), own)
        return _run_custom(sampler, denoiser, x, sigmas, options, noise, draws, derivative, observer)
    if "noise_sampler" in sampler_options(sampler):
        options["noise_sampler"] = noise
    watch = _StepWatch(observer, denoiser, sigmas, noise)
    names = {"to_d": derivative, "trange": watch.trange, "torch": _Bound(torch, randn_like=watch.randn_like)}
    if sampler.takes == "sigmas":
        return rebound(sampler.function, names)(watch.model, x, sigmas, disable=True, **options)
    function = rebound(sampler.function, {"DPMSolver": watch.DPMSolver})
    x = function(denoiser, x, *_range(sampler, sigmas), disable=True, **options)
    return _last_step(denoiser, x, sigmas, derivative, watch.begin)


def _noise_for(sampler, x, sigmas, options, make: Callable, watch_noise) -> Callable:
    """The sampler's noise: the user's own, or a new one; nothing is drawn for a sampler that adds none."""
    noise = options.get("noise_sampler")
    if noise is None:
        if sampler.noise is None or not adds_noise(sampler, options):
            return lambda *_: 0.0
        noise = make(x, sigmas, kind=sampler.noise)
    return noise if watch_noise is None else watch_noise(noise)


def _range(sampler: Sampler, sigmas: torch.Tensor) -> tuple:
    sigma_range = (float(sigmas[sigmas > 0].min()), float(sigmas.max()))
    needs_n = "n" in _parameters(sampler.function)
    return (*sigma_range, _fast_evaluations(sigmas)) if needs_n else sigma_range


def _single_step(denoiser, x, sigma, derivative, begin) -> torch.Tensor:
    """From sigma to 0; with a derivative of its own (flow coordinates) the denoiser may return what is not denoised."""
    begin(x, sigma)
    denoised = denoiser(x, sigma * x.new_ones(len(x)))
    return denoised if derivative is to_d else x - sigma * derivative(x, sigma, denoised)


def _last_step(denoiser, x, sigmas, derivative, begin) -> torch.Tensor:
    """From the smallest sigma above 0, where a sampler that takes a range stops, to 0 if the grid ends there."""
    if sigmas[-1] > 0:
        return x
    sigma = sigmas[sigmas > 0].min()
    begin(x, sigma)
    return x - sigma * derivative(x, sigma, denoiser(x, sigma * x.new_ones(len(x))))


def _run_custom(sampler, denoiser, x, sigmas, options, noise, draws: UserDraws, derivative, observer) -> torch.Tensor:
    """A user's function: it gets sigmas on x's device, as k-diffusion's callers give them, and our noise if it asks
    for it, or draws in the shape of x.

    Its steps are known from its `callback` alone, which comes after the first evaluation in the step. Where the
    observer changes something there, that evaluation is repeated.
    """
    parameters = _parameters(sampler.function)
    swallows = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def callback(info):
        if observer is not None and observer.begin_step(info["i"], info["x"], info["sigma"]):
            sigma = torch.as_tensor(info.get("sigma_hat", info["sigma"])).to(info["x"])
            info["denoised"].copy_(denoiser(info["x"], sigma * info["x"].new_ones(len(x))))

    provided = {"extra_args": {}, "callback": draws.outside(callback), "disable": True}
    options |= {name: value for name, value in provided.items() if swallows or name in parameters}
    if "noise_sampler" in parameters:
        options["noise_sampler"] = draws.outside(noise)
    function = rebound(sampler.function, {} if derivative is to_d else {"to_d": derivative})
    is_comfy = isinstance(denoiser, ComfyModel)
    model = replace(denoiser, denoiser=draws.model(denoiser.denoiser)) if is_comfy else draws.model(denoiser)
    with draws:
        if sampler.takes == "sigmas":
            return _latents(sampler, function(model, x, sigmas.to(x.device), **options), x.shape)
        x = _latents(sampler, function(model, x, *_range(sampler, sigmas), **options), x.shape)
    return _last_step(denoiser, x, sigmas, derivative, begin=lambda *_: None)


def _latents(sampler: Sampler, returned, shape: torch.Size) -> torch.Tensor:
    """What a user's function returned. Raises TypeError or ValueError unless it is a tensor of the shape of x."""
    if not isinstance(returned, torch.Tensor):
        raise TypeError(f"{sampler.name} returned {returned!r:.60}: a sampler returns its final x, a tensor")
    if returned.shape != shape:
        raise ValueError(f"{sampler.name} returned the shape {list(returned.shape)}: its x has {list(shape)}")
    return returned
