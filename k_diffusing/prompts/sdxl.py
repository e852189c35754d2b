"""What SDXL's UNet is told of prompts: words, image prompts, sizes, guidance."""

from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from k_diffusing._tensors import cast, twice


@dataclass
class Conditioning:
    """What the UNet is told besides latents and timestep.

    Attributes:
        dtype: the prompt embeddings', which latents get.
        tensors: by the names under which callbacks see and replace them. With guidance the negative prompts' rows
            come first.
        images: image-prompt embeddings, if there are any, with rows alike.
        timestep_cond: [B, n], the embedding of the guidance scale, for networks that take one.
        negative, positive: the rows of either, with guidance.
    """

    pipe: "diffusers.StableDiffusionXLPipeline"
    dtype: torch.dtype
    tensors: dict[str, torch.Tensor]
    images: dict[str, list[torch.Tensor]]
    timestep_cond: torch.Tensor | None
    negative: slice | None
    positive: slice | None

    def output(self, net_input: torch.Tensor, timestep: torch.Tensor, two_prompts: bool, dtype) -> torch.Tensor:
        """The UNet's output [B, 4, h, w] with the prompt, in `dtype`, for input alike and timestep [B].

        two_prompts: whether there are rows of negative prompts, which callbacks that end guidance cut off.
        """
        return self._call(net_input, timestep, dtype, self.positive if two_prompts else None)

    def outputs(self, net_input: torch.Tensor, timestep: torch.Tensor, joined: bool, dtype) -> tuple:
        """With the prompt, and with the negative prompt, in `dtype`; joined: in one call of the UNet."""
        if not joined:
            uncond, text = (self._call(net_input, timestep, dtype, rows) for rows in (self.negative, self.positive))
            return text, uncond
        return self._call(twice(net_input), twice(timestep), dtype).chunk(2)[::-1]

    def _call(self, net_input: torch.Tensor, timestep: torch.Tensor, dtype, rows: slice | None = None) -> torch.Tensor:
        tensors, images = self.tensors, self.images
        if rows is not None:
            tensors = {name: tensor[rows] for name, tensor in tensors.items()}
            images = {name: [tensor[rows] for tensor in each] for name, each in images.items()}
        added = {"text_embeds": tensors["add_text_embeds"], "time_ids": tensors["add_time_ids"], **images}
        output = self.pipe.unet(
            net_input,
            timestep,
            encoder_hidden_states=tensors["prompt_embeds"],
            timestep_cond=self.timestep_cond,
            cross_attention_kwargs=self.pipe.cross_attention_kwargs,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return cast(output, dtype)


def conditioning(
    pipe: "diffusers.StableDiffusionXLPipeline", guided: bool, device: torch.device, images: int,
    images_per_prompt: int, ip_adapter_image, ip_adapter_image_embeds, size: tuple, negative_size: tuple, **prompts,
) -> Conditioning:  # fmt: skip
    """Encode prompts, sizes and image prompts, for as many images; guided: negative prompts too.

    size, negative_size: (original size, crop, target size). prompts: as encode_prompt takes them.
    """
    encode_prompt: Any = pipe.encode_prompt  # diffusers annotates what it returns as what it takes
    embeds, negative_embeds, pooled, negative_pooled = encode_prompt(
        **prompts,
        device=device,
        num_images_per_prompt=images_per_prompt,
        do_classifier_free_guidance=guided,
        lora_scale=(pipe.cross_attention_kwargs or {}).get("scale"),
        clip_skip=pipe.clip_skip,
    )
    dtype, time_ids = embeds.dtype, _time_ids(pipe, size, pooled)
    if guided:
        both_given = negative_size[0] is not None and negative_size[2] is not None
        negative_time_ids = _time_ids(pipe, negative_size, pooled) if both_given else time_ids
        embeds, pooled = torch.cat([negative_embeds, embeds]), torch.cat([negative_pooled, pooled])
        time_ids = torch.cat([negative_time_ids, time_ids])
    tensors = {
        "prompt_embeds": embeds.to(device),
        "add_text_embeds": pooled.to(device),
        "add_time_ids": time_ids.to(device).repeat(images, 1),
    }
    image_embeds = {}
    if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
        image_embeds["image_embeds"] = pipe.prepare_ip_adapter_image_embeds(
            ip_adapter_image, ip_adapter_image_embeds, device, images, guided
        )
    rows = (slice(images), slice(images, None)) if guided else (None, None)
    return Conditioning(pipe, dtype, tensors, image_embeds, _timestep_cond(pipe, device, images, dtype), *rows)


def _time_ids(
    pipe: "diffusers.StableDiffusionXLPipeline", size: tuple, pooled_prompt_embeds: torch.Tensor
) -> torch.Tensor:
    """The micro-conditioning vector [1, 6] of an (original size, crop, target size)."""
    encoder = pipe.text_encoder_2
    width = pooled_prompt_embeds.shape[-1] if encoder is None else encoder.config.projection_dim
    return pipe._get_add_time_ids(*size, dtype=pooled_prompt_embeds.dtype, text_encoder_projection_dim=width)


def _timestep_cond(
    pipe: "diffusers.StableDiffusionXLPipeline", device: torch.device, images: int, dtype: torch.dtype
) -> torch.Tensor | None:
    """The embedding of the guidance scale, for networks that were distilled to take one."""
    width = pipe.unet.config.time_cond_proj_dim
    if width is None:
        return None
    scales = torch.tensor(pipe.guidance_scale - 1).repeat(images)
    return pipe.get_guidance_scale_embedding(scales, embedding_dim=width).to(device=device, dtype=dtype)
