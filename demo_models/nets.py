"""The architectures: diffusers' and transformers' own classes, at sizes that one CPU core can train."""

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel
from shape_tokens import clip_tokenizer, t5_tokenizer
from shapes import WORDS
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)


def pass_through(conv: nn.Conv2d) -> None:
    """Adds the identity to a convolution: channel i of the input starts out in channel i of the output."""
    middle = conv.kernel_size[0] // 2
    with torch.no_grad():
        conv.weight.mul_(0.5)
        for i in range(min(conv.in_channels, conv.out_channels)):
            conv.weight[i, i, middle, middle] += 1


def build_vae() -> AutoencoderKL:
    """0.4M parameters, 8x down-sampling, 4 latent channels. The near-identity start is worth many minutes."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 32, 48),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=128,
    )
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d) and not name.endswith(("conv1", "conv2")):
            pass_through(module)
        elif name.endswith("conv2"):
            nn.init.zeros_(module.weight)
    return vae


def build_clip(tokenizer: CLIPTokenizer, width: int = 64, projection: bool = False) -> CLIPTextModel:
    """Two layers of CLIP's text model, with the projection that SDXL's second encoder has where asked for."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def build_t5(tokenizer: T5TokenizerFast, width: int = 64) -> T5EncoderModel:
    """Two layers of T5's encoder.

    FLUX gives text tokens no position of their own, so which colour belongs to which noun can reach the image
    only through T5's relative bias: three heads start out looking at the word before, after and two before.
    """
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    encoder = T5EncoderModel(config)
    bias = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    with torch.no_grad():
        for head, bucket in enumerate((1, 17, 2)):
            bias[bucket, head] += 4
    return encoder


def build_unet(text_width: int, pooled_width: int) -> UNet2DConditionModel:
    """SDXL's layout (no attention at full resolution, two levels with it, text_time conditioning), shrunk."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4, 6),
        cross_attention_dim=text_width,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + pooled_width,
    )


def build_transformer(text_width: int, pooled_width: int) -> FluxTransformer2DModel:
    """FLUX.1-dev's layout, 2 double and 3 single blocks; modulation and output start at zero, as in DiT."""
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=text_width,
        pooled_projection_dim=pooled_width,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and ("norm" in name or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def build_sdxl_parts() -> nn.ModuleDict:
    """The trained parts of the SDXL pipeline, under the pipeline's names."""
    clip = clip_tokenizer(WORDS)
    encoders = {"text_encoder": build_clip(clip), "text_encoder_2": build_clip(clip, projection=True)}
    return nn.ModuleDict({"unet": build_unet(128, 64), **encoders})


def build_flux_parts() -> nn.ModuleDict:
    """The trained parts of the FLUX pipeline, under the pipeline's names."""
    encoders = {
        "text_encoder": build_clip(clip_tokenizer(WORDS)),
        "text_encoder_2": build_t5(t5_tokenizer(WORDS)),
    }
    return nn.ModuleDict({"transformer": build_transformer(64, 64), **encoders})
