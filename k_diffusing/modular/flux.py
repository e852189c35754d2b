"""Blocks of FLUX, text to image: the plan, the initial latents, and the sampler in place of the denoise loop."""

# What diffusers declares as properties is one value for all here.
# pyright: reportAssignmentType=false

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.modular_pipelines import (
    ComponentSpec,
    InputParam,
    LoopSequentialPipelineBlocks,
    ModularPipelineBlocks,
    OutputParam,
)
from diffusers.modular_pipelines.flux.denoise import FluxLoopDenoiser

from k_diffusing.model.scheduler_config import size_mu
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
from k_diffusing.planning import flow_plan

USUAL_TOKENS = 512  # diffusers' max_sequence_length where it is left as it is


class FluxSamplerPlanStep(ModularPipelineBlocks):
    """Makes the plan; the first block, so that what cannot be right is refused before a model runs."""

    model_name = "flux"
    description = "Chooses sampler, flow times and coordinates, from the scheduler's config and the user's settings."
    expected_components = [ComponentSpec("scheduler", FlowMatchEulerDiscreteScheduler)]
    intermediate_outputs = [PLAN, TIMESTEPS, STEPS]

    @property
    def inputs(self) -> list[InputParam]:
        """The sampler's settings, the size, and what its noise is checked against."""
        own = [
            InputParam("flow_coordinates", type_hint=str, default="auto", description="flow, ve, velocity or auto"),
            InputParam("mu", type_hint=float, description="the log of flow time's shift, in place of the size's"),
            InputParam("height"),
            InputParam("width"),
            InputParam("max_sequence_length", type_hint=int, default=USUAL_TOKENS),
        ]
        return [*sampler_inputs(), *own, *noise_inputs(), *prompt_inputs()]

    def __call__(self, components, state):
        """Make the plan and check the noise."""
        block_state: Any = self.get_block_state(state)
        block_state.height = block_state.height or components.default_height
        block_state.width = block_state.width or components.default_width
        rows, columns = (edge // (components.vae_scale_factor * 2) for edge in (block_state.height, block_state.width))
        plan = flow_plan(
            components.scheduler, block_state.sampler, block_state.sampler_options, block_state.sigma_grid,
            block_state.num_inference_steps, size_mu=size_mu(components.scheduler, rows * columns), mu=block_state.mu,
            sigmas=block_state.sigmas, flow_coordinates=block_state.flow_coordinates, noise=block_state.noise,
            program=block_state.program,
        )  # fmt: skip
        check_plan(components, plan, block_state)
        if block_state.max_sequence_length == USUAL_TOKENS:
            block_state.max_sequence_length = plan.program.prompt_tokens
        tell_plan(block_state, plan)
        self.set_block_state(state, block_state)
        return components, state


class FluxSamplerLatentsStep(ModularPipelineBlocks):
    """Draws the initial noise, or takes the user's; and tells the guidance that the network was distilled for."""

    model_name = "flux"
    description = "Prepares the packed latents that the sampler begins with, the streams of its noise, and guidance."
    expected_components = [ComponentSpec("transformer", FluxTransformer2DModel)]
    intermediate_outputs = [
        OutputParam("latents", type_hint=torch.Tensor, description="packed, at the first noise level"),
        OutputParam("start", type_hint=Start, description="what the sampler begins with"),
        OutputParam("guidance", type_hint=torch.Tensor, description="the guidance scale of each image"),
    ]

    @property
    def inputs(self) -> list[InputParam]:
        """The plan, the size, whose noise, the guidance scale."""
        own = [InputParam("plan", required=True), InputParam("batch_size", required=True), InputParam("dtype")]
        size = [InputParam("height", required=True), InputParam("width", required=True), InputParam("latents")]
        return [*own, *size, *noise_inputs(), InputParam("guidance_scale", type_hint=float, default=3.5)]

    @torch.no_grad()
    def __call__(self, components, state):
        """Draw, and scale to the first noise level."""
        block_state: Any = self.get_block_state(state)
        plan, device, config = block_state.plan, components._execution_device, components.transformer.config
        images, size = (
            block_state.batch_size * block_state.num_images_per_prompt,
            (block_state.height, block_state.width),
        )
        edges = (2 * (edge // (components.vae_scale_factor * 2)) for edge in size)
        shape = (images, config.in_channels // 4, *edges)
        streams = noise_streams(plan.noise, block_state.generator, block_state.seeds, images, device)
        drawn, dtype = block_state.latents, block_state.dtype
        drawn = _pack(streams.initial(shape, device, dtype)) if drawn is None else drawn.to(device, dtype)
        block_state.latents = plan.start(drawn.to(torch.promote_types(dtype, torch.float32)))
        block_state.start = Start(plan, streams, block_state.latents, dtype, size, shape, _pack)
        block_state.guidance = None
        if config.guidance_embeds:
            block_state.guidance = torch.full([images], block_state.guidance_scale, device=device, dtype=torch.float32)
        self.set_block_state(state, block_state)
        return components, state


class FluxSamplerDenoiseStep(LoopSequentialPipelineBlocks):
    """The sampler drives; each time that it asks for its model, diffusers' denoiser block runs."""

    model_name = "flux"
    description = "Denoises the latents by a sampler function, which calls the sub-block `denoiser` as its model."
    block_classes = [FluxLoopDenoiser]
    block_names = ["denoiser"]
    loop_inputs = [InputParam("start", required=True, type_hint=Start), InputParam("trace")]
    loop_intermediate_outputs = [OutputParam("latents", type_hint=torch.Tensor, description="The denoised latents")]
    interrupt, name_or_path = False, None  # which a run asks of its pipeline

    @torch.no_grad()
    def __call__(self, components, state):
        """Run the sampler."""
        block_state: Any = self.get_block_state(state)
        start = block_state.start

        def network(net_input, timestep, step):
            block_state.latents = net_input
            self.loop_step(components, block_state, i=step, t=timestep.to(start.dtype))
            return block_state.noise_pred

        block_state.latents = sample(self, start, network, block_state.trace).to(start.dtype)
        self.set_block_state(state, block_state)
        return components, state


def _pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, channels, h, w] as tokens [B, h / 2 * w / 2, 4 * channels]."""
    return FluxPipeline._pack_latents(latents, *latents.shape)
