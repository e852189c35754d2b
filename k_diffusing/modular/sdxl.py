"""Blocks of SDXL, text to image: the plan, the initial latents, and the sampler in place of the denoise loop."""

# What diffusers declares as properties is one value for all here.
# pyright: reportAssignmentType=false

from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.modular_pipelines import (
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
)
from diffusers.modular_pipelines.stable_diffusion_xl.denoise import StableDiffusionXLLoopDenoiser

from k_diffusing.modular.inputs import (
    PLAN,
    STEPS,
    TIMESTEPS,
    check_plan,
    noise_inputs,
    prompt_inputs,
    sampler_inputs,
    tell_plan,
)
from k_diffusing.modular.sampling import Start, sample
from k_diffusing.noise.choose import noise_streams
from k_diffusing.planning import discrete_plan


class StableDiffusionXLSamplerPlanStep(ModularPipelineBlocks):
    """Makes the plan; the first block, so that what cannot be right is refused before a model runs."""

    model_name = "stable-diffusion-xl"
    description = "Chooses sampler, noise levels and timesteps, from the scheduler's config and the user's settings."
    expected_components = [ComponentSpec("scheduler", EulerDiscreteScheduler)]
    intermediate_outputs = [PLAN, TIMESTEPS, STEPS]

    @property
    def inputs(self) -> list[InputParam]:
        """The sampler's settings, and what its noise is checked against."""
        own = [
            InputParam("timesteps", type_hint=list, description="the user's own timesteps"),
            InputParam("denoising_end", type_hint=float),
            InputParam("quantize", type_hint=bool, description="tell the network the nearest integer timestep"),
            InputParam("negative_prompt"),
        ]
        return [*sampler_inputs(), *own, *noise_inputs(), *prompt_inputs()]

    def __call__(self, components, state):
        """Make the plan and check the noise."""
        block_state: Any = self.get_block_state(state)
        plan = discrete_plan(
            components.scheduler, block_state.sampler, block_state.sampler_options, block_state.sigma_grid,
            block_state.num_inference_steps, timesteps=block_state.timesteps, sigmas=block_state.sigmas,
            denoising_end=block_state.denoising_end, quantize=block_state.quantize, noise=block_state.noise,
            program=block_state.program,
        )  # fmt: skip
        check_plan(components, plan, block_state)
        if block_state.negative_prompt is None and block_state.prompt is not None:
            block_state.negative_prompt = plan.program.empty_negative
        tell_plan(block_state, plan)
        self.set_block_state(state, block_state)
        return components, state


class StableDiffusionXLSamplerLatentsStep(ModularPipelineBlocks):
    """Draws the initial noise, or takes the user's, and scales it to the plan's first noise level."""

    model_name = "stable-diffusion-xl"
    description = "Prepares the latents that the sampler begins with, and the streams of its noise."
    expected_components = [ComponentSpec("unet", UNet2DConditionModel)]
    intermediate_outputs = [
        OutputParam("latents", type_hint=torch.Tensor, description="at the first noise level"),
        OutputParam("start", type_hint=Start, description="what the sampler begins with"),
    ]

    @property
    def inputs(self) -> list[InputParam]:
        """The plan, the size, whose noise."""
        own = [InputParam("plan", required=True), InputParam("batch_size", required=True), InputParam("dtype")]
        return [*own, InputParam("height"), InputParam("width"), InputParam("latents"), *noise_inputs()]

    @torch.no_grad()
    def __call__(self, components, state):
        """Draw, and scale to the first noise level."""
        block_state: Any = self.get_block_state(state)
        plan, device, factor = block_state.plan, components._execution_device, components.vae_scale_factor
        side, images = components.default_sample_size * factor, block_state.batch_size
        images *= block_state.num_images_per_prompt
        size = block_state.height or side, block_state.width or side
        shape = (images, components.unet.config.in_channels, *(edge // factor for edge in size))
        streams = noise_streams(plan.noise, block_state.generator, block_state.seeds, images, device)
        drawn = block_state.latents
        drawn = streams.initial(shape, device, block_state.dtype) if drawn is None else drawn
        drawn = drawn.to(device, torch.promote_types(drawn.dtype, torch.float32))
        block_state.latents = plan.start(drawn)
        block_state.start = Start(plan, streams, block_state.latents, block_state.dtype, size, shape)
        self.set_block_state(state, block_state)
        return components, state


class StableDiffusionXLSamplerDenoiseStep(LoopSequentialPipelineBlocks):
    """The sampler drives; each time that it asks for its model, diffusers' denoiser block runs with its guider."""

    model_name = "stable-diffusion-xl"
    description = "Denoises the latents by a sampler function, which calls the sub-block `denoiser` as its model."
    block_classes = [StableDiffusionXLLoopDenoiser]
    block_names = ["denoiser"]
    loop_inputs = [InputParam("start", required=True, type_hint=Start), InputParam("trace")]
    loop_intermediate_outputs = [OutputParam("latents", type_hint=torch.Tensor, description="The denoised latents")]
    interrupt, name_or_path = False, None  # which a run asks of its pipeline

    @torch.no_grad()
    def __call__(self, components, state):
        """Run the sampler."""
        block_state: Any = self.get_block_state(state)
        start, guider = block_state.start, components.guider
        # A network that was distilled to be told the guidance scale is not guided besides.
        (guider.enable if components.unet.config.time_cond_proj_dim is None else guider.disable)()

        def network(net_input, timestep, step):
            block_state.scaled_latents = net_input
            self.loop_step(components, block_state, i=step, t=timestep)
            return block_state.noise_pred

        block_state.latents = sample(self, start, network, block_state.trace).to(start.dtype)
        self.set_block_state(state, block_state)
        return components, state
