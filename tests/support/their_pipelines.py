"""Pipelines of diffusers on tiny random networks, each with the scheduler that is native to it."""

import copy
import functools
import inspect

import diffusers
import torch
from diffusers import ControlNetModel, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from tiny_models import (
    SDXL_SCHEDULE,
    TINY_UNET,
    flux_prompt,
    largest_difference,
    prepared,
    sdxl_prompt,
    seeded,
    seeded_weights,
    tiny_flux,
    tiny_sdxl,
    tiny_unet,
    tiny_vae,
)

from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from samplers_patch import SAMPLERS

SAME = 1e-6
STEPS = 6
SIZE = {"height": 16, "width": 16}
NOT_ADAPTIVE = [name for name, sampler in SAMPLERS.items() if not sampler.adaptive]
STOCHASTIC = [name for name in NOT_ADAPTIVE if SAMPLERS[name].stochastic]
TWO_STAGES = ["heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"]
EULER = EulerDiscreteScheduler(**SDXL_SCHEDULE)
SHIFTING = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


# Pipelines of diffusers on tiny random networks, each with the scheduler that is native to it.


def random(*shape, seed: int = 7) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


@seeded_weights()
def make(network_class, **config):
    return network_class(**config).eval()


def assembled(pipeline_class, scheduler, **parts):
    """The pipeline of these parts, with None for all others it has."""
    parameters = inspect.signature(pipeline_class.__init__).parameters.values()
    absent = {p.name: None for p in parameters if p.name != "self" and p.default is p.empty}
    return prepared(pipeline_class(**{**absent, **parts, "scheduler": copy.deepcopy(scheduler)}), torch.float32)


IMAGE = torch.rand(1, 3, 16, 16, generator=seeded())
MASK = (torch.rand(1, 1, 16, 16, generator=seeded()) > 0.5).float()
TINY = {"num_layers": 1, "num_attention_heads": 2}
EMBEDS = {"prompt_embeds": random(1, 5, 16), "negative_prompt_embeds": random(1, 5, 16, seed=8)}
ON_IMAGE = {"image": IMAGE, "strength": 0.5}
ON_MASK = {**SIZE, **ON_IMAGE, "mask_image": MASK}


def controlnet() -> ControlNetModel:
    known, unet = inspect.signature(ControlNetModel.__init__).parameters, tiny_unet().config
    config = {name: value for name, value in unet.items() if name in known}
    config["mid_block_type"] = "UNetMidBlock2DCrossAttn"  # it knows no network without one
    network = make(ControlNetModel, **config, conditioning_embedding_out_channels=(4, 8))
    for parameter in network.parameters():  # what starts at zero would make the image count for nothing
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def sd15(pipeline_class):
    unet = make(diffusers.UNet2DConditionModel, **TINY_UNET, attention_head_dim=2)
    return assembled(pipeline_class, EULER, vae=tiny_vae(), unet=unet, requires_safety_checker=False)


def sd3(pipeline_class):
    transformer = make(
        diffusers.SD3Transformer2DModel,
        **TINY,
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        attention_head_dim=8,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
    )
    vae = tiny_vae(scaling_factor=1.5, shift_factor=0.1)
    return assembled(pipeline_class, FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, transformer=transformer)


def flux_fill():
    pipe = tiny_flux(diffusers.FluxFillPipeline)
    config = {**pipe.transformer.config, "in_channels": 16 + 16 + 16, "out_channels": 16}
    pipe.transformer = make(diffusers.FluxTransformer2DModel, **{k: v for k, v in config.items() if k[0] != "_"})
    return pipe


def flux2():
    config = {"in_channels": 16, "num_single_layers": 1, "attention_head_dim": 16, "joint_attention_dim": 16}
    config |= {"timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4)}
    return assembled(
        diffusers.Flux2Pipeline, SHIFTING, transformer=make(diffusers.Flux2Transformer2DModel, **TINY, **config)
    )


def qwen_image():
    config = {"in_channels": 16, "out_channels": 4, "attention_head_dim": 16, "joint_attention_dim": 16}
    transformer = make(diffusers.QwenImageTransformer2DModel, **TINY, **config, axes_dims_rope=(4, 4, 8))
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    return assembled(diffusers.QwenImagePipeline, scheduler, transformer=transformer)


def wan():
    config = {"in_channels": 4, "out_channels": 4, "attention_head_dim": 12, "text_dim": 16, "freq_dim": 16}
    transformer = make(diffusers.WanTransformer3DModel, **TINY, **config, ffn_dim=16, rope_max_seq_len=32)
    return assembled(diffusers.WanPipeline, FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer)


def ltx():
    config = {"in_channels": 8, "out_channels": 8, "attention_head_dim": 8, "cross_attention_dim": 16}
    transformer = make(diffusers.LTXVideoTransformer3DModel, **TINY, **config, caption_channels=16)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    return assembled(diffusers.LTXPipeline, scheduler, transformer=transformer)


def with_controlnet():
    parts = {"vae": tiny_vae(), "unet": tiny_unet(), "controlnet": controlnet()}
    return assembled(diffusers.StableDiffusionXLControlNetPipeline, EULER, **parts)


def video(frames: int, **more) -> dict:
    return {**EMBEDS, "num_frames": frames, "height": 64, "width": 64, **more}


def masks(shape: tuple) -> dict:
    return {f"{sign}prompt_attention_mask": torch.ones(shape) for sign in ("", "negative_")}


ALONE = {"prompt_embeds": EMBEDS["prompt_embeds"], "height": 64, "width": 64}


# What it is, and (the pipeline, the arguments of a call).
PIPELINES = {
    "SDXL": lambda: (tiny_sdxl(diffusers.StableDiffusionXLPipeline), {**sdxl_prompt(), **SIZE}),
    "SDXL img2img": lambda: (tiny_sdxl(diffusers.StableDiffusionXLImg2ImgPipeline), {**sdxl_prompt(), **ON_IMAGE}),
    "SDXL inpainting": lambda: (tiny_sdxl(diffusers.StableDiffusionXLInpaintPipeline), {**sdxl_prompt(), **ON_MASK}),
    "SDXL ControlNet": lambda: (with_controlnet(), {**sdxl_prompt(), **SIZE, "image": IMAGE}),
    "SD 1.5": lambda: (sd15(diffusers.StableDiffusionPipeline), {**EMBEDS, **SIZE}),
    "SD 1.5 img2img": lambda: (sd15(diffusers.StableDiffusionImg2ImgPipeline), {**EMBEDS, **ON_IMAGE}),
    "SD 1.5 inpainting": lambda: (sd15(diffusers.StableDiffusionInpaintPipeline), {**EMBEDS, **ON_MASK}),
    "SD3": lambda: (sd3(diffusers.StableDiffusion3Pipeline), {**sdxl_prompt(), **SIZE}),
    "SD3 img2img": lambda: (sd3(diffusers.StableDiffusion3Img2ImgPipeline), {**sdxl_prompt(), **SIZE, **ON_IMAGE}),
    "FLUX": lambda: (tiny_flux(diffusers.FluxPipeline), {**flux_prompt(), **SIZE}),
    "FLUX img2img": lambda: (tiny_flux(diffusers.FluxImg2ImgPipeline), {**flux_prompt(), **SIZE, **ON_IMAGE}),
    "FLUX inpainting": lambda: (tiny_flux(diffusers.FluxInpaintPipeline), {**flux_prompt(), **ON_MASK}),
    "FLUX Fill": lambda: (flux_fill(), {**flux_prompt(), **SIZE, "image": IMAGE, "mask_image": MASK}),
    "FLUX Kontext": lambda: (
        tiny_flux(diffusers.FluxKontextPipeline),
        {**flux_prompt(), **SIZE, "image": IMAGE, "max_area": 256, "_auto_resize": False},
    ),
    "FLUX.2": lambda: (flux2(), ALONE),
    "Qwen-Image": lambda: (qwen_image(), {**ALONE, "prompt_embeds_mask": torch.ones(1, 5).long()}),
    "Wan (video)": lambda: (wan(), video(5)),
    "LTX (video)": lambda: (ltx(), video(9, **masks((1, 5)))),
}


@functools.cache
def pipeline(name: str):
    return PIPELINES[name]()


def latents(name: str, scheduler, steps: int = STEPS, **call) -> torch.Tensor:
    """The final latents of diffusers' pipeline with this scheduler."""
    pipe, arguments = pipeline(name)
    pipe.scheduler = scheduler
    call = {"generator": seeded(), "num_inference_steps": steps, "output_type": "latent", **arguments, **call}
    return pipe(**call, return_dict=False)[0]


@functools.cache
def native(name: str):
    return PIPELINES[name]()[0].scheduler


def scheduler_for(name: str, sampler="euler", generator=None, **settings) -> SamplerScheduler:
    scheduler = SamplerScheduler.from_config(native(name).config, sampler=sampler, **settings)
    scheduler.generator = generator
    return scheduler


def difference_to_native(name: str) -> tuple[float, float]:
    """The largest difference of `euler` to the scheduler that is native to the pipeline, and the largest latent."""
    expected = latents(name, copy.deepcopy(native(name)))
    return largest_difference(latents(name, scheduler_for(name)), expected), float(expected.abs().max())
