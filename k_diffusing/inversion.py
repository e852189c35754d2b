"""A picture back to the noise that it is sampled from: a deterministic sampler run on the rising sigma grid.

    noise = invert(pipe, picture, "a red circle", sampler="heun", steps=50)
    again = pipe("a red circle", latents=noise, comfy_sampler="heun", num_inference_steps=50, guidance_scale=1.0)

What it is good for: the same noise with another prompt, another model, another guidance scale.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from k_diffusing.images import clean_latents, size_of
from k_diffusing.plan import SamplingPlan
from k_diffusing.samplers.find import parameters_of
from k_diffusing.samplers.options import adds_noise
from k_diffusing.samplers.records import Sampler

# What a call of the pipeline may not be given here: it is what an inversion makes, or leaves out.
KEPT = (
    "latents", "image", "mask_image", "denoise", "start_step", "end_step", "add_noise", "return_with_leftover_noise",
    "denoising_end", "output_type", "return_dict", "generator", "seeds", "comfy_sampler", "num_inference_steps",
    "callback", "callback_on_step_end",
)  # fmt: skip
FALLING = {
    "deis": "extrapolates over its steps, which grow here, and goes astray: take ipndm or dpmpp_2m",
    "ipndm_v": "extrapolates over its steps, which grow here, and goes astray: take ipndm or dpmpp_2m",
    "heunpp2": "weighs its slopes by the first sigma, which it takes for the largest: take heun",
    "ddim": "goes to a sigma below the next one, whatever its eta: take euler, which it is",
    "res_multistep_ancestral": "goes to a sigma below the next one: take res_multistep, which it is at eta 0",
}


@torch.no_grad()
def invert(
    pipe,
    image,
    prompt: str | list[str] | None = None,
    *,
    sampler: str | Callable = "euler",
    sampler_options: dict[str, Any] | None = None,
    sigma_grid: Any = None,
    steps: int = 50,
    guidance_scale: float = 1.0,
    **call,
) -> torch.Tensor:
    """The noise that gives a picture back when it is sampled with the same settings.

    One Euler step leads from the clean latents to the smallest sigma above 0, and the sampler from there up to the
    largest. How near the picture comes back is a matter of the steps and of the sampler's order.

    Args:
        pipe: An SDXL or FLUX pipeline of ours.
        image: A PIL image, or what else a pipeline's image= takes; its latents [B, channels, h, w] too. With several
            prompts one serves for all.
        prompt: What the picture shows.
        sampler: A deterministic one, or a function (model, x, sigmas, ...) without noise_sampler.
        sampler_options: As a pipeline's.
        sigma_grid: Likewise; its sigmas are gone through from the last to the first.
        steps: The number of inference steps.
        guidance_scale: Of the pipeline. 1 does not guide; more makes what comes back less exact.
        call: Further keywords of the pipeline: program, height, true_cfg_scale, guidance_interval, trace, ...

    Returns:
        Noise as latents= of the pipeline takes it, in float32: [B, 4, height / 8, width / 8] of
        SDXL, packed [B, tokens, channels] of FLUX.

    Raises:
        ValueError: A sampler that cannot go up, or bad input, before a network runs.
        TypeError: Likewise, or a keyword that cannot be given.
    """
    wrong = [name for name in KEPT if name in call]
    if wrong:
        raise TypeError(f"invert takes no {wrong[0]}: it goes from a picture to all of its noise")
    height, width = size_of(image, call.pop("height", None), call.pop("width", None))
    side = pipe.default_sample_size * pipe.vae_scale_factor
    size = {"height": height or side, "width": width or side}
    call |= size
    known = inspect.signature(pipe.plan).parameters
    plan = pipe.plan(sampler, sampler_options, sigma_grid, steps, **{k: v for k, v in call.items() if k in known})
    check_rises(plan.sampler, plan.options, plan.sigmas)
    flow = plan.space.flow
    images = (1 if prompt is None or isinstance(prompt, str) else len(prompt)) * call.get("num_images_per_prompt", 1)
    shape = _latent_shape(pipe, images, flow, **size)
    clean = clean_latents(pipe, image, shape, pipe._execution_device)
    clean = pipe._pack_latents(clean, *shape) if flow else clean
    rising = Rising(plan, clean)
    if flow:
        call["flow_coordinates"] = plan.coordinates
    pipe(
        prompt, comfy_sampler=rising, sigma_grid=sigma_grid, num_inference_steps=steps, guidance_scale=guidance_scale,
        latents=torch.zeros_like(clean), output_type="latent", seeds=0, **call,
    )  # fmt: skip
    first = plan.sigmas[0]
    return plan.space.latents(rising.end, first) / plan.initial_scale if flow else rising.end / plan.initial_scale


class Rising:
    """A sampler as a pipeline takes it, which goes from clean latents up the plan's grid, whatever it is called with.

    Attributes:
        plan: Of the way down.
        clean: The latents [B, ...] to begin with.
        end: The state at the largest sigma, once it has run.
    """

    def __init__(self, plan: SamplingPlan, clean: torch.Tensor):
        self.plan, self.clean, self.end = plan, clean, clean
        self.__name__ = f"sample_{plan.sampler.name}"  # by which a program knows what it does to the grid

    def __call__(self, model, x, sigmas):
        """Go up. x is of the state's shape and device, and nothing of it is used."""
        up = self.plan.sigmas[self.plan.sigmas > 0].flip(0)
        state = self.clean
        if float(self.plan.sigmas[-1]) == 0:
            state = 2 * state - model(state, up[0] * state.new_ones(len(state)))  # Euler: the derivative at up[0]
        if len(up) > 1:
            function, options = self.plan.sampler.function, dict(self.plan.options)
            if "disable" in parameters_of(function):
                options["disable"] = True
            state = function(model, state, up.to(state.device), **options)
        self.end = state
        return state


def check_rises(sampler: Sampler, options: dict[str, Any], sigmas: torch.Tensor) -> None:
    """Raise ValueError for a sampler that cannot go up a grid, with the cure."""
    why = FALLING.get(sampler.name)
    if sampler.takes == "sigma_range":
        why = "chooses its own steps, from the largest sigma down: take heun or dpmpp_2m"
    elif sampler.grid_scheduler is not None or sampler.keeps_bounds:
        why = "is a scheduler of diffusers, whose steps go down: take the function of the same method, such as euler"
    elif sampler.uses_uncond:
        why = "guides along the answer to the negative prompt, and an inversion is not guided: take euler or dpmpp_2m"
    elif "noise_sampler" in parameters_of(sampler.function) if sampler.custom else adds_noise(sampler, options):
        without = (
            f"give sampler_options={dict(sampler.noiseless)}, or " if sampler.noiseless and not sampler.custom else ""
        )
        why = f"adds noise, which no inversion can take back: {without}take euler, heun or dpmpp_2m"
    if why:
        raise ValueError(f"{sampler.name} cannot go up a sigma grid: it {why}")
    if len(sigmas) < 2:
        raise ValueError("an inversion needs one step at least, and the sigma grid has none")


def _latent_shape(pipe, images: int, flow: bool, height: int, width: int) -> tuple[int, int, int, int]:
    """Of unpacked latents, [images, channels, h, w], for a picture's height and width in pixels."""
    if not flow:
        return images, pipe.unet.config.in_channels, height // pipe.vae_scale_factor, width // pipe.vae_scale_factor
    stride = 2 * pipe.vae_scale_factor  # packed two by two
    return images, pipe.transformer.config.in_channels // 4, height // stride * 2, width // stride * 2
