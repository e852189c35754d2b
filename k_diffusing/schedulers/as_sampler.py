"""diffusers' schedulers as samplers: their own `step`, on any denoiser and any grid of sigmas.

    pipe(prompt, comfy_sampler=as_sampler(UniPCMultistepScheduler.from_config(pipe.scheduler.config)))

A scheduler has a state: it steps its own form of the latents down its own tables, and is told what a network
predicted. A sampler is a function of a denoiser and a grid. So the tables are made from the grid, and around each step
the latents and the denoised sample are translated.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import SchedulerMixin

from k_diffusing._tensors import Stamp
from k_diffusing.grids.check import check_sigmas
from k_diffusing.model.scheduler_config import fresh_scheduler, is_flow, noise_schedule, preconditioning
from k_diffusing.samplers.call import step_noise
from k_diffusing.samplers.patch import rebound
from k_diffusing.samplers.records import Denoiser  # before diffusers: it copes with a bad torchvision

# Stands for the flow time 1 where a scheduler takes log(1 - t). Nearer to 1, DEIS loses its digits in differences of
# numbers over 1 - t: at 1 - 1e-6, of float32's seven all but two.
ALMOST_ONE = 1 - 1e-4


def _sigmas(scheduler) -> torch.Tensor:
    return scheduler.sigmas[: len(scheduler.timesteps) + 1].float().cpu()


def _from_alphas(scheduler) -> torch.Tensor:
    last = torch.as_tensor(getattr(scheduler, "final_alpha_cumprod", 1.0))
    alphas = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], last.reshape(1)])
    return (((1 - alphas) / alphas) ** 0.5).float()


def _with_listed_middles(offset: int) -> Callable:
    def levels(scheduler) -> torch.Tensor:
        sigmas = _sigmas(scheduler).clone()
        sigmas[1::2] = scheduler.sigmas_interpol[offset : offset + len(sigmas) - 1 : 2]
        return sigmas

    return levels


def _with_log_middles(scheduler) -> torch.Tensor:
    sigmas = _sigmas(scheduler).clone()
    sigmas[1::2] = (sigmas[::2] * sigmas[1::2]) ** 0.5
    return sigmas


class Kind(NamedTuple):
    """What one has to know of a scheduler class to step it.

    levels(scheduler): after set_timesteps, the sigma of each network call, then that of the result, [calls + 1].
    derived: its tables are more than a list of sigmas, and set_timesteps makes them from `alphas_cumprod`. scaled: it
    holds x as x / sqrt(sigma^2 + 1), unless it is set up for flow matching.
    """

    levels: Callable[[SchedulerMixin], torch.Tensor]
    derived: bool = False
    scaled: bool = False


KINDS = {
    "DDIMScheduler": Kind(_from_alphas, derived=True, scaled=True),
    "DDPMScheduler": Kind(_from_alphas, derived=True, scaled=True),
    "PNDMScheduler": Kind(_from_alphas, derived=True, scaled=True),
    "LMSDiscreteScheduler": Kind(_sigmas),
    "EulerDiscreteScheduler": Kind(_sigmas),
    "EulerAncestralDiscreteScheduler": Kind(_sigmas),
    "HeunDiscreteScheduler": Kind(_sigmas, derived=True),
    "KDPM2DiscreteScheduler": Kind(_with_listed_middles(1), derived=True),
    "KDPM2AncestralDiscreteScheduler": Kind(_with_listed_middles(0), derived=True),
    "DPMSolverSDEScheduler": Kind(_with_log_middles, derived=True),
    "DPMSolverMultistepScheduler": Kind(_sigmas, scaled=True),
    "DPMSolverSinglestepScheduler": Kind(_sigmas, scaled=True),
    "DEISMultistepScheduler": Kind(_sigmas, scaled=True),
    "UniPCMultistepScheduler": Kind(_sigmas, scaled=True),
    "SASolverScheduler": Kind(_sigmas, scaled=True),
    "EDMEulerScheduler": Kind(_sigmas),
    "EDMDPMSolverMultistepScheduler": Kind(_sigmas),
    "FlowMatchEulerDiscreteScheduler": Kind(_sigmas),
    "FlowMatchHeunDiscreteScheduler": Kind(_sigmas),
    "FlowMatchLCMScheduler": Kind(_sigmas),
}


def _kind(scheduler) -> Kind | None:
    """That of the class whose `step` it has, so that a subclass counts as its parent unless it steps differently."""
    owner = next((cls for cls in type(scheduler).__mro__ if "step" in vars(cls)), SchedulerMixin)
    return KINDS.get(owner.__name__)


def as_sampler(scheduler: SchedulerMixin, own_sigmas: bool = False) -> "SchedulerSampler":
    """A sampler with k-diffusion's signature that steps copies of a diffusers scheduler, made from its config.

    own_sigmas: where a pipeline is given no grid, take that of this scheduler's config, not of `pipe.scheduler`'s.
    Raises TypeError for what is not a scheduler, ValueError for one that cannot be run on a denoiser.
    """
    if not isinstance(scheduler, SchedulerMixin):
        raise TypeError(
            "as_sampler takes an instance of a diffusers scheduler, such as UniPCMultistepScheduler(), not "
            f"{scheduler!r}; k_diffusion's samplers go by their names, such as comfy_sampler='euler'"
        )
    reason = _refusal(scheduler)
    if reason is not None:
        name = type(scheduler).__name__
        raise ValueError(f"{name} cannot be run as a sampler: {reason}. These can: {', '.join(KINDS)}")
    if not is_flow(scheduler):
        preconditioning(scheduler)  # raises for a prediction type that is not known
    return SchedulerSampler(fresh_scheduler(scheduler), own_sigmas)


def _refusal(scheduler) -> str | None:
    name = type(scheduler).__name__
    if "Inverse" in name:
        return "it goes from images to noise"
    if _kind(scheduler) is None and any(word in name for word in ("Consistency", "CM", "TCD")):
        return "it is made for distilled models and chooses their timesteps itself"
    if _kind(scheduler) is None:
        return "its step is not known to lead from x at one sigma to x at the next, given the denoised sample"
    if scheduler.config.get("solver_p") is not None:
        return "its solver_p is a second scheduler, with a state of its own: use that one by itself"
    if scheduler.config.get("scale_factors"):
        return "its scale_factors change the size of the latents between steps"
    if scheduler.config.get("variance_type") in ("learned", "learned_range"):
        return "its variance_type needs a variance from the network, and a denoiser gives none"
    return None


@dataclass(frozen=True, eq=False)
class SchedulerSampler:
    """A diffusers scheduler with the signature of a k-diffusion sampler; made by `as_sampler`.

    It keeps nothing from one call to the next, so it can be used again, after an error, and from several threads.
    """

    scheduler: SchedulerMixin
    own_sigmas: bool = False
    keeps_bounds = True

    @property
    def __name__(self) -> str:
        return type(self.scheduler).__name__

    @property
    def flow_coordinates(self) -> str | None:
        """ "flow" if x is (1 - t) x0 + t eps and sigma is t; None if x is x0 + sigma eps."""
        return "flow" if is_flow(self.scheduler) else None

    @property
    def grid_scheduler(self) -> SchedulerMixin | None:
        """Whose config gives the sigmas where the user gives none; None: that of the pipeline's scheduler."""
        return self.scheduler if self.own_sigmas else None

    @torch.no_grad()
    def __call__(
        self,
        model: Denoiser,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: dict | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
        *,
        noise_sampler: Callable | None = None,
    ) -> torch.Tensor:
        """Sample from x [B, ...] at sigmas[0] to sigmas[-1]; sigmas: n + 1 decreasing values, the last usually 0.

        model: (x, sigma [B]) -> denoised. callback: called in each of the n steps after the first evaluation, with x,
        i, sigma, sigma_hat and denoised; x and denoised may be changed in place. disable: there is no progress bar.
        noise_sampler(sigma, sigma_next): source of all noise; by default torch's global generator.
        Raises ValueError, before the model runs, for sigmas that the scheduler cannot go down.
        """
        grid = sigmas.detach().float().cpu()
        self._check(grid)
        plan = _plan(self.scheduler, grid)
        noise_sampler = noise_sampler or step_noise(x, sigmas, None)
        i = -1

        def draw(shape, dtype, **_):
            # A step to 0 adds none: it would be multiplied by 0, and a Brownian path may not reach that far.
            return x.new_zeros(shape) if grid[i + 1] == 0 else noise_sampler(sigmas[i], sigmas[i + 1]).to(dtype)

        if hasattr(plan.scheduler, "noise_sampler"):  # DPMSolverSDE
            plan.scheduler.noise_sampler = _one_path(noise_sampler)
        step = rebound(type(plan.scheduler).step, {"randn_tensor": draw})
        for call, begins in enumerate(plan.begins):
            i += begins
            if i == len(grid) - 1:
                break
            denoised = model(x, x.new_full((len(x),), float(plan.levels[call])), **(extra_args or {}))
            if begins and callback is not None:
                before = Stamp(x)
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
                if not before.holds(x):
                    _forget_the_state(plan.scheduler)
            x = plan.advance(step, call, x, denoised)
        return x

    def _check(self, grid: torch.Tensor) -> None:
        check_sigmas(grid)
        if len(grid) < 2:
            raise ValueError(f"sigmas={grid.tolist()} leave no step to take: give at least two, the last usually 0")
        if self.flow_coordinates and grid[0] > 1:
            raise ValueError(
                f"sigmas[0] is {float(grid[0]):g}, but {self.__name__} integrates flow matching, where sigma is a "
                "time between 0 and 1: on FLUX choose flow_coordinates='auto' or 'flow'; on SDXL take a scheduler "
                "with betas, without use_flow_sigmas, from_config(pipe.scheduler.config)"
            )


class Plan(NamedTuple):
    """A scheduler made ready for a grid.

    levels: the sigma of each network call, then that of the result, [calls + 1]. begins: whether a call is the first
    in a step of the grid, [calls]. output(x, denoised, sigma): what the scheduler is told that a network predicted.
    scaled: it holds x as x / sqrt(sigma^2 + 1).
    """

    scheduler: SchedulerMixin
    levels: torch.Tensor
    begins: list[bool]
    output: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    scaled: bool

    def grid(self) -> torch.Tensor:
        return torch.cat([self.levels[:-1][torch.tensor(self.begins)], self.levels[-1:]])

    def advance(self, step: Callable, call: int, x: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
        """The state at levels[call + 1], from the state x at levels[call] and its denoised sample."""
        sigma, sigma_next = self.levels[call], self.levels[call + 1]
        if sigma_next == 0 and _infinite_at_zero(self.scheduler):
            return self.scheduler._threshold_sample(denoised) if self.scheduler.config.thresholding else denoised
        sample = x / (sigma**2 + 1) ** 0.5 if self.scaled else x
        output = self.output(x, denoised, sigma)
        sample = step(self.scheduler, output, self.scheduler.timesteps[call], sample, return_dict=False)[0]
        return (sample * (sigma_next**2 + 1) ** 0.5 if self.scaled else sample).to(x.dtype)


def _infinite_at_zero(scheduler) -> bool:
    """Whether its formula for a step to sigma = 0 is 0 * inf, for some config at least.

    So it is for UniPC, SA-Solver and solvers of noise prediction such as DEIS. A first-order step, which they would
    take there, gives the denoised sample.
    """
    config = scheduler.config
    algorithms = ("deis", "dpmsolver", "sde-dpmsolver", "data_prediction", "noise_prediction")
    return config.get("algorithm_type") in algorithms or "predict_x0" in config


def _plan(scheduler, grid: torch.Tensor) -> Plan:
    """A copy of the scheduler: on its own tables if they have the grid's sigmas, as in diffusers' loop, else on others.

    A grid that stops above 0 is given two more steps, to 0, which are not taken: what schedulers do only in their last
    two steps does not belong there.
    """
    steps, changes = len(grid) - 1, {}
    if scheduler.config.get("prediction_type") == "sample":
        changes["prediction_type"] = "epsilon"  # some do not know "sample", and the denoiser serves any
    if steps < 4:
        changes["skip_prk_steps"] = True  # PNDM's warm-up takes three steps
    if is_flow(scheduler):
        changes |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "use_dynamic_shifting": False}
    elif steps <= scheduler.config.num_train_timesteps:
        own = _copy(scheduler, changes)
        own.set_timesteps(steps)
        plan = _ready(own)
        if torch.equal(plan.grid(), grid):
            return plan
    whole = grid if grid[-1] == 0 else torch.cat([grid, grid[-1:] / 2, grid.new_zeros(1)])
    return _ready((_derived if _kind(scheduler).derived else _assigned)(scheduler, whole, changes))


def _copy(scheduler, changes: dict) -> SchedulerMixin:
    """With those of the changes that its config knows."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.register_to_config(**{name: value for name, value in changes.items() if name in scheduler.config})
    return scheduler


def _ready(scheduler) -> Plan:
    scheduler.is_scale_input_called = True  # it was, by the denoiser; some warn otherwise
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    calls = range(len(scheduler.timesteps))
    begins = [call % scheduler.order == 0 for call in calls]
    if hasattr(scheduler, "prk_timesteps"):  # PNDM: three Runge-Kutta steps come first, or the first step twice
        begins = [call % 4 == 0 if call < len(scheduler.prk_timesteps) else call != 1 for call in calls]
    kind, flow = _kind(scheduler), is_flow(scheduler)
    output = _velocity if flow else preconditioning(scheduler).output
    return Plan(scheduler, kind.levels(scheduler), begins, output, kind.scaled and not flow)


def _velocity(x: torch.Tensor, denoised: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (x - denoised) / t


def _assigned(scheduler, grid: torch.Tensor, changes: dict) -> SchedulerMixin:
    """A copy with the grid, which ends at 0, for its sigmas."""
    if not _infinite_at_zero(scheduler):
        changes = changes | {"final_sigmas_type": "zero"}
    scheduler, flow = _copy(scheduler, changes), is_flow(scheduler)
    scheduler.set_timesteps(len(grid) - 1)
    if flow and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        almost_one = ((1 + grid[1:2]) / 2).clamp(min=ALMOST_ONE)  # above the next
        grid = torch.cat([torch.where(grid[:1] < 1, grid[:1], almost_one), grid[1:]])
    if scheduler.order == 2:
        grid = torch.cat([grid[:1], grid[1:-1].repeat_interleave(2), grid[-1:]])
    train_steps = scheduler.config.num_train_timesteps
    timestep = (lambda t: t * train_steps) if flow else noise_schedule(scheduler).timestep
    scheduler.sigmas, scheduler.timesteps = grid, timestep(grid[:-1])
    return scheduler


def _derived(scheduler, grid: torch.Tensor, changes: dict) -> SchedulerMixin:
    """A copy with the tables for a model of these noise levels only: the grid's, which ends at 0, and those between.

    The n levels above 0 are the odd timesteps of 2 n, as "trailing" spacing chooses them; the even ones are half-way
    in log sigma.
    """
    levels = grid[:-1].flip(0).double()
    middles = torch.cat([levels[:1], (levels[1:] * levels[:-1]) ** 0.5])
    table = torch.stack([middles, levels], 1).flatten()
    plain = {f"use_{name}_sigmas": False for name in ("karras", "exponential", "beta")}
    spacing = {"num_train_timesteps": len(table), "timestep_spacing": "trailing"}
    scheduler = _copy(scheduler, changes | plain | spacing)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = 1 / (1 + table**2), torch.ones(())
    scheduler.set_timesteps(len(levels))
    return scheduler


def _one_path(noise_sampler: Callable) -> Callable:
    """The noise of one Brownian path for the two intervals, (sigma, middle) and (sigma, sigma_next), of a step.

    Over an interval a path's increment has variance |sigma - sigma_next|; the second one is the first and what follows.
    """
    start = middle = first = None

    def noise(sigma, sigma_next):
        nonlocal start, middle, first
        if start is None or sigma != start:
            start, middle, first = sigma, sigma_next, noise_sampler(sigma, sigma_next)
            return first
        parts = (start - middle) ** 0.5 * first + (middle - sigma_next) ** 0.5 * noise_sampler(middle, sigma_next)
        return parts / (start - sigma_next) ** 0.5

    return noise


def _forget_the_state(scheduler) -> None:
    """After x was changed, drop what a scheduler keeps of x itself from the steps before, and would go on from."""
    if hasattr(scheduler, "last_sample"):  # UniPC and SA-Solver correct x by it
        scheduler.last_sample = None
    if hasattr(scheduler, "order_list"):  # DPMSolverSinglestep begins a new group of steps if it has no outputs
        scheduler.model_outputs = [None] * len(scheduler.model_outputs)
