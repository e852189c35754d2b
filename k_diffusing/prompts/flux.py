"""What FLUX's transformer is told of prompts: words, image prompts, guidance."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers.image_processor import PipelineImageInput

from k_diffusing._tensors import cast, twice


class Prompt(NamedTuple):
    """A prompt or a negative prompt: its words, or embeddings in their place, and its image, as the user gave them."""

    text: str | list[str] | None
    text_2: str | list[str] | None
    embeds: torch.Tensor | None
    pooled_embeds: torch.Tensor | None
    image: PipelineImageInput | None
    image_embeds: list[torch.Tensor] | None

    @property
    def has_text(self) -> bool:
        """Whether there are words to encode, or embeddings of some."""
        return self.text is not None or (self.embeds is not None and self.pooled_embeds is not None)

    @property
    def has_image(self) -> bool:
        """Whether there is an image to encode, or embeddings of one."""
        return self.image is not None or self.image_embeds is not None

    def embeds_shape(self, pipe: "diffusers.FluxPipeline", images_per_prompt: int, tokens: int) -> tuple[int, ...]:
        """Of the embeddings: of those given, or of what the encoder will make of the words."""
        if self.embeds is not None:
            return tuple(self.embeds.shape)
        text = self.text_2 or self.text
        prompts = len(text) if isinstance(text, list) else 1
        return prompts * images_per_prompt, tokens, pipe.transformer.config.joint_attention_dim


def check_shapes(
    pipe: "diffusers.FluxPipeline",
    positive: Prompt,
    negative: Prompt,
    images_per_prompt: int,
    tokens: int,
    joined: bool,
) -> None:
    """Raise ValueError for prompts whose embeddings cannot go together; joined: in one call of the transformer."""
    given = [tuple(prompt.embeds.shape) for prompt in (positive, negative) if prompt.embeds is not None]
    if len(set(given)) > 1:
        raise ValueError(
            "prompt_embeds and negative_prompt_embeds must have the same shape when passed directly: "
            f"{given[0]} != {given[1]}"
        )
    shapes = [prompt.embeds_shape(pipe, images_per_prompt, tokens) for prompt in (negative, positive)]
    if joined and shapes[0] != shapes[1]:
        raise ValueError(
            f"batch_guidance=True cannot join prompts of the shapes {shapes[0]} and {shapes[1]}: leave it out, "
            "or pass as many negative prompts as prompts, with embeddings of max_sequence_length tokens"
        )


class Side(NamedTuple):
    """What the transformer is told of a prompt, besides the prompt's embeddings.

    Attributes:
        text: by the transformer's keywords.
        images: image-prompt embeddings, one for each adapter; None without adapters.
    """

    text: dict[str, Any]
    images: list[torch.Tensor] | None

    def joined(self, other: "Side") -> "Side":
        """Both in one batch, this one first."""
        pooled = torch.cat([self.text["pooled_projections"], other.text["pooled_projections"]])
        guidance = None if other.text["guidance"] is None else other.text["guidance"].repeat(2)
        text = other.text | {"pooled_projections": pooled, "guidance": guidance}
        if self.images is None or other.images is None:
            return Side(text, None)
        return Side(text, [torch.cat(pair) for pair in zip(self.images, other.images, strict=True)])


@dataclass
class Conditioning:
    """What the transformer is told besides latents and timestep.

    Attributes:
        dtype: the prompt embeddings', which latents and timestep get.
        tensors: the prompt's embeddings by the name under which callbacks see and replace them.
        negative_tensors: the negative prompt's, which callbacks do not see; empty without true CFG.
        image_ids: [tokens, 3], the places of the image's tokens.
        sides: by the names of calls: "cond" (prompt), "uncond" (negative prompt), "both" (negative prompt first).
    """

    pipe: "diffusers.FluxPipeline"
    dtype: torch.dtype
    tensors: dict[str, torch.Tensor]
    negative_tensors: dict[str, torch.Tensor]
    image_ids: torch.Tensor
    sides: dict[str, Side]

    def velocity(self, net_input: torch.Tensor, timestep: torch.Tensor, stage: int, dtype) -> torch.Tensor:
        """With the prompt, [B, tokens, channels] in `dtype`, for input alike and timestep [B] from 0 to 1."""
        return self._call("cond", self.tensors["prompt_embeds"], net_input, timestep, stage, dtype)

    def velocities(self, net_input: torch.Tensor, timestep: torch.Tensor, stage: int, dtype, joined: bool) -> tuple:
        """With the prompt, and with the negative prompt; joined: in one call of the transformer."""
        negative = self.negative_tensors["prompt_embeds"]
        if not joined:
            velocity = self.velocity(net_input, timestep, stage, dtype)
            return velocity, self._call("uncond", negative, net_input, timestep, stage, dtype)
        embeds = torch.cat([negative, self.tensors["prompt_embeds"]])
        both = self._call("both", embeds, twice(net_input), twice(timestep), stage, dtype)
        return both.chunk(2)[::-1]

    def _call(self, name: str, embeds, net_input: torch.Tensor, timestep, stage: int, dtype) -> torch.Tensor:
        """A cache keeps what it knows by name: the stages of a step are as far apart as two prompts are."""
        side, kwargs = self.sides[name], self.pipe.joint_attention_kwargs
        if side.images is not None:
            kwargs = {**(kwargs or {}), "ip_adapter_image_embeds": side.images}
        with self.pipe.transformer.cache_context(f"{name}_{stage}" if stage else name):
            velocity = self.pipe.transformer(
                hidden_states=net_input,
                timestep=timestep,
                encoder_hidden_states=embeds,
                img_ids=self.image_ids,
                joint_attention_kwargs=kwargs,
                return_dict=False,
                **side.text,
            )[0]
        return cast(velocity, dtype)


def conditioning(
    pipe: "diffusers.FluxPipeline", positive: Prompt, negative: Prompt, true_cfg: bool,
    shape: tuple[int, int, int, int], images_per_prompt: int, tokens: int, size: tuple[int, int],
) -> Conditioning:  # fmt: skip
    """Encode the prompts for latents of `shape` [B, channels, h, w].

    true_cfg: whether the negative prompt is encoded. tokens: of a prompt. size: in pixels, (height, width).
    """
    device, guidance = pipe._execution_device, None
    encode_prompt: Any = pipe.encode_prompt  # diffusers annotates what it returns as what it takes
    if pipe.transformer.config.guidance_embeds:
        guidance = torch.full([shape[0]], pipe.guidance_scale, device=device, dtype=torch.float32)

    def encode(prompt: Prompt) -> Any:
        return encode_prompt(
            prompt.text,
            prompt.text_2,
            prompt_embeds=prompt.embeds,
            pooled_prompt_embeds=prompt.pooled_embeds,
            device=device,
            num_images_per_prompt=images_per_prompt,
            max_sequence_length=tokens,
            lora_scale=(pipe.joint_attention_kwargs or {}).get("scale"),
        )

    def side(encoded: tuple, images: list[torch.Tensor] | None) -> Side:
        _, pooled, text_ids = encoded
        return Side({"pooled_projections": pooled, "txt_ids": text_ids, "guidance": guidance}, images)

    prompt, negative_prompt = encode(positive), encode(negative) if true_cfg else None
    images, negative_images = _image_embeds(pipe, positive, negative, size, device, shape[0])
    embeds, negative_tensors, sides = prompt[0], {}, {"cond": side(prompt, images)}
    if negative_prompt is not None:
        negative_tensors["prompt_embeds"] = negative_prompt[0]
        sides["uncond"] = side(negative_prompt, negative_images)
        sides["both"] = sides["uncond"].joined(sides["cond"])
    image_ids = pipe._prepare_latent_image_ids(shape[0], shape[2] // 2, shape[3] // 2, device, embeds.dtype)
    return Conditioning(pipe, embeds.dtype, {"prompt_embeds": embeds}, negative_tensors, image_ids, sides)


def _image_embeds(
    pipe: "diffusers.FluxPipeline", positive: Prompt, negative: Prompt, size: tuple[int, int], device, images: int
):
    """Image-prompt embeddings of both prompts, each None if no adapter is used.

    Where only one of them has an image, a black one stands for the other.
    """
    if not (positive.has_image or negative.has_image):
        return None, None
    black = [np.zeros((size[1], size[0], 3), dtype=np.uint8)] * pipe.transformer.encoder_hid_proj.num_ip_adapters
    given = [(each.image, each.image_embeds) if each.has_image else (black, None) for each in (positive, negative)]
    return [pipe.prepare_ip_adapter_image_embeds(*each, device, images) for each in given]
