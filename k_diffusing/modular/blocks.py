"""diffusers' text-to-image blocks, with a sampler function in place of the denoise loop.

blocks = sampler_blocks(StableDiffusionXLAutoBlocks().get_workflow("text2image"))
pipe = blocks.init_pipeline("stabilityai/stable-diffusion-xl-base-1.0")
"""

from typing import NamedTuple

from diffusers.modular_pipelines import ModularPipelineBlocks, SequentialPipelineBlocks
from diffusers.modular_pipelines.flux.before_denoise import FluxSetTimestepsStep
from diffusers.modular_pipelines.stable_diffusion_xl.before_denoise import StableDiffusionXLSetTimestepsStep

from k_diffusing.modular import flux, sdxl


class Steps(NamedTuple):
    """The blocks of a model: ours, and diffusers' that sets the timesteps of text to image."""

    plan: type
    latents: type
    denoise: type
    set_timesteps: type


STEPS = {
    "stable-diffusion-xl": Steps(
        sdxl.StableDiffusionXLSamplerPlanStep, sdxl.StableDiffusionXLSamplerLatentsStep,
        sdxl.StableDiffusionXLSamplerDenoiseStep, StableDiffusionXLSetTimestepsStep,
    ),
    "flux": Steps(
        flux.FluxSamplerPlanStep, flux.FluxSamplerLatentsStep, flux.FluxSamplerDenoiseStep, FluxSetTimestepsStep
    ),
}  # fmt: skip


def sampler_blocks(blocks: SequentialPipelineBlocks) -> SequentialPipelineBlocks:
    """New blocks for text to image, whose call takes `sampler=`, `sampler_options=`, `sigma_grid=`, `noise=`, ...

    A block that makes the plan comes first; the one that sets timesteps is left out; those that prepare latents and
    denoise are replaced. The denoiser inside of the loop, and all other blocks, are those that were given.

    Args:
        blocks: A text-to-image workflow of SDXL or FLUX, as `get_workflow("text2image")` returns it.

    Raises:
        ValueError: They are of another model or task.
    """
    steps = STEPS.get(blocks.model_name or "")
    if steps is None:
        raise ValueError(f"sampler blocks are for {' and '.join(STEPS)}, and these are for {blocks.model_name}")
    new: dict[str, ModularPipelineBlocks] = {"sampler": steps.plan()}
    set_timesteps = None
    for path, block in blocks.sub_blocks.items():
        name = path.rpartition(".")[2]
        if name == "set_timesteps":
            set_timesteps = block
        elif name == "prepare_latents":
            new[path] = steps.latents()
        elif name == "denoise" and "denoiser" in block.sub_blocks:
            new[path] = steps.denoise.from_blocks_dict({"denoiser": block.sub_blocks["denoiser"]})
        else:
            new[path] = block
    if type(set_timesteps) is not steps.set_timesteps:
        raise ValueError(
            "these are no blocks of text to image: take one workflow of them, with "
            'StableDiffusionXLAutoBlocks().get_workflow("text2image") or that of FluxAutoBlocks'
        )
    return SequentialPipelineBlocks.from_blocks_dict(new)
