"""Pipelines of tiny random networks without text encoders: prompts are embeddings. Seconds to make, no download."""

import contextlib
from collections.abc import Iterator

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)

from k_diffusing.oracle.closed_form import SDXL_SCHEDULE


def prepared(pipe, dtype: torch.dtype):
    """The pipeline in the dtype, without a progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe if dtype == torch.float32 else pipe.to(dtype)


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest absolute difference, nan if there is one anywhere."""
    return float((a - b).abs().max())


@contextlib.contextmanager
def seeded_weights() -> Iterator[None]:
    """The same weights each time; the global generator, which tests look at, goes on as if none had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@seeded_weights()
def tiny_vae(latent_channels: int = 4, **config) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=2,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        sample_size=16,
        **config,
    ).eval()


TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "mid_block_type": None,  # a quarter of the time, and nothing that a pipeline sees
}


@seeded_weights()
def tiny_unet(**config) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 16,
        **(TINY_UNET | config),
    ).eval()


def tiny_sdxl(pipeline_class, scheduler=None, dtype=torch.float32, vae=None, **unet_config):
    """A pipeline of `pipeline_class`; the same weights each time."""
    pipe = pipeline_class(
        vae=vae or tiny_vae(),
        unet=tiny_unet(**unet_config),
        scheduler=scheduler or EulerDiscreteScheduler(**SDXL_SCHEDULE),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
    )
    return prepared(pipe, dtype)


def sdxl_prompt(images: int = 1, dtype=torch.float32) -> dict[str, torch.Tensor]:
    """Random prompt and negative prompt embeddings, one row per image."""
    g = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(images, *shape, generator=g).to(dtype)

    return {
        "prompt_embeds": random(5, 16),
        "negative_prompt_embeds": random(5, 16),
        "pooled_prompt_embeds": random(16),
        "negative_pooled_prompt_embeds": random(16),
    }


@seeded_weights()
def tiny_transformer(**config) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=16,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        **{"guidance_embeds": True, "num_layers": 1, "num_single_layers": 1, **config},
    ).eval()


def tiny_flux(pipeline_class, scheduler=None, dtype=torch.float32, **transformer_config):
    """A pipeline of `pipeline_class`; the same weights each time."""
    pipe = pipeline_class(
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_vae(scaling_factor=0.36, shift_factor=0.1),
        transformer=tiny_transformer(**transformer_config),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
    )
    return prepared(pipe, dtype)


def flux_prompt(images: int = 1, dtype=torch.float32, negative: bool = False) -> dict[str, torch.Tensor]:
    """Random prompt embeddings, one row per image; with negative ones for true CFG if asked for."""
    g = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(images, *shape, generator=g).to(dtype)

    prompt = {"prompt_embeds": random(5, 16), "pooled_prompt_embeds": random(16)}
    if negative:
        prompt |= {"negative_prompt_embeds": random(5, 16), "negative_pooled_prompt_embeds": random(16)}
    return prompt
