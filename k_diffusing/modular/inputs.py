"""What blocks of both models ask for, and check before a network runs."""

from typing import Any

from diffusers.modular_pipelines import InputParam, OutputParam

from k_diffusing.arguments import count_images, warn_of_bounds
from k_diffusing.noise.check import check_noise
from k_diffusing.plan import SamplingPlan

PLAN = OutputParam("plan", type_hint=SamplingPlan, description="all that is known of the sampling before it")
STEPS = OutputParam("num_inference_steps", type_hint=int, description="the steps that the sampler takes")
TIMESTEPS = OutputParam("timesteps", description="what the network is told at the start of each step")


def sampler_inputs() -> list[InputParam]:
    """The sampler and its settings, as the pipelines' keywords have them; `sampler` is their `comfy_sampler`."""
    return [
        InputParam("sampler", default="euler", description="a sampler's name, or a function as k_diffusion's are"),
        InputParam("sampler_options", type_hint=dict, description="given to the sampler: eta, s_noise, ..."),
        InputParam("sigma_grid", description="a name of k_diffusing.SIGMA_GRIDS, or a function (schedule, n)"),
        InputParam("num_inference_steps", type_hint=int, default=50),
        InputParam("sigmas", type_hint=list, description="the user's own noise levels"),
        InputParam("noise", type_hint=str, description="a name of k_diffusing.NOISE_SOURCES"),
        InputParam("program", description="the program whose picture it is to be: comfyui, a1111, forge"),
    ]  # fmt: skip


def noise_inputs() -> list[InputParam]:
    """Whose noise it is, and for how many images."""
    return [
        InputParam("generator", description="source of all noise"),
        InputParam("seeds", description="in its place: a whole number, or one for each image"),
        InputParam("num_images_per_prompt", type_hint=int, default=1),
    ]


def prompt_inputs() -> list[InputParam]:
    """What tells how many images there will be."""
    return [InputParam("prompt"), InputParam("prompt_embeds")]


def check_plan(components: Any, plan: SamplingPlan, block_state: Any) -> None:
    """Raise ValueError or TypeError for noise that cannot be right, or a sampler that a guider cannot serve."""
    if plan.sampler.uses_uncond:
        raise ValueError(
            f"{plan.sampler.name} steps along the answer to the negative prompt, and diffusers' denoiser block keeps "
            "only what its guider made of both: run it in our pipelines, or choose a sampler without cfg_pp"
        )
    images = count_images(block_state.prompt, block_state.prompt_embeds, block_state.num_images_per_prompt)
    check_noise(plan.noise, block_state.generator, block_state.seeds, images)
    warn_of_bounds(components, plan.sampler, components.scheduler)


def tell_plan(block_state: Any, plan: SamplingPlan) -> None:
    """Leave the plan in the state, and what diffusers' blocks after it look for."""
    block_state.plan = plan
    block_state.timesteps, block_state.num_inference_steps = plan.timesteps, plan.num_timesteps
