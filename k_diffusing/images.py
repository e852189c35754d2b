"""Images to start from: their clean latents, and the mask of what is to be made anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import retrieve_latents


def check_images(image, mask_image, add_noise: bool, latents: torch.Tensor | None) -> None:
    """Raise ValueError for a mask without its image, or for a run without noise that has nothing to start from."""
    if mask_image is not None and image is None:
        raise ValueError("mask_image= says which part of image= is made anew, and there is no image=: pass it too")
    if not add_noise and image is None and latents is None:
        raise ValueError(
            "add_noise=False goes on from what an earlier run left (return_with_leftover_noise=True): pass latents="
        )


def size_of(image, height: int | None, width: int | None) -> tuple[int | None, int | None]:
    """Height and width in pixels: the user's, or else those of a PIL image, cut to multiples of 8."""
    first = image[0] if isinstance(image, list) and image else image
    if isinstance(first, PIL.Image.Image):
        return height or first.height // 8 * 8, width or first.width // 8 * 8
    return height, width


@torch.no_grad()
def clean_latents(pipe: Any, image, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The latents of an image, in float32 and the network's scale; a VAE's most likely ones, so that nothing is drawn.

    Args:
        pipe: The pipeline, with its VAE.
        image: A PIL image, an array or a tensor of pixels as diffusers takes them, a list of those, or latents already:
            a tensor with as many channels as the network's.
        shape: Of the result, [images, channels, h, w]. One image serves for all.
        device: Of the result.

    Raises:
        ValueError: There are neither one nor as many images as there are to be, or latents of another size.
    """
    if isinstance(image, torch.Tensor) and image.ndim == 4 and image.shape[1] == shape[1]:
        latents = image.to(device, torch.promote_types(image.dtype, torch.float32))
    else:
        height, width = (side * pipe.vae_scale_factor for side in shape[2:])
        latents = _encoded(pipe, pipe.image_processor.preprocess(image, height, width)).to(device)
    if len(latents) not in (1, shape[0]) or latents.shape[1:] != torch.Size(shape[1:]):
        raise ValueError(
            f"image= has latents of the shape {list(latents.shape)}, and {list(shape)} are to be made: give one image, "
            "or one for each, of the height and width asked for"
        )
    return latents.expand(shape)


def _encoded(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Latents [B, channels, h, w] of pixels in -1 to 1, in the network's scale and float32."""
    vae, config = pipe.vae, pipe.vae.config
    upcast = vae.dtype == torch.float16 and config.get("force_upcast")
    if upcast:
        vae.to(torch.float32)
    device = next(vae.parameters()).device
    raw = retrieve_latents(vae.encode(pixels.to(device, vae.dtype)), sample_mode="argmax").float()
    if upcast:
        vae.to(torch.float16)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(raw) for v in (config.latents_mean, config.latents_std))
        return (raw - mean) / std * config.scaling_factor
    return (raw - (config.get("shift_factor") or 0.0)) * config.scaling_factor


def latent_mask(mask_image, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A mask of pixels as one of latents [images, channels, h, w]: 1 where the picture is made anew, 0 where it stays.

    mask_image: a PIL image, white where it is made anew, or a tensor or array [..., H, W] in 0 to 1. Raises ValueError
    for values outside of that.
    """
    if isinstance(mask_image, PIL.Image.Image):
        mask_image = np.asarray(mask_image.convert("L"), dtype=np.float32) / 255
    mask = torch.as_tensor(mask_image, dtype=torch.float32)
    if mask.ndim < 2 or mask.min() < 0 or mask.max() > 1:
        raise ValueError("mask_image= is a picture, or numbers [H, W] from 0 (kept) to 1 (made anew)")
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    mask = torch.nn.functional.interpolate(mask, size=shape[2:], mode="bilinear")
    return mask.expand(shape).to(device)


def rounded_mask(mask_image, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """As latent_mask, but each latent is kept or made anew: the picture of the mask is made smaller, then rounded."""
    if not isinstance(mask_image, PIL.Image.Image):
        levels = latent_mask(mask_image, (1, 1, *np.shape(mask_image)[-2:]), torch.device("cpu"))
        mask_image = PIL.Image.fromarray((levels[0, 0].numpy() * 255).round().astype(np.uint8))
    levels = np.asarray(mask_image.convert("L").resize((shape[3], shape[2])), dtype=np.float32) / 255
    return torch.from_numpy(levels.round()).expand(shape).to(device)


@dataclass(frozen=True)
class Kept:
    """The part of an image that stays: in it every network call answers the image.

    Attributes:
        mask: 1 where the picture is made anew, shaped as the state.
        clean: the image's latents, shaped alike.
        noised: (sigma) -> the state that the image has with the run's own noise, which the network sees there; None:
            it sees what the sampler made.
    """

    mask: torch.Tensor
    clean: torch.Tensor
    noised: Callable[[torch.Tensor], torch.Tensor] | None

    def before(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The state that the network sees, at sigma, which broadcasts against x."""
        return x if self.noised is None else x * self.mask + self.noised(sigma) * (1 - self.mask)

    def after(self, denoised: torch.Tensor) -> torch.Tensor:
        """The denoised sample that the sampler gets."""
        return denoised * self.mask + self.clean * (1 - self.mask)

    def result(self, latents: torch.Tensor) -> torch.Tensor:
        """What a run ends with: where the network saw no image, the image comes back."""
        return latents if self.noised is not None else self.after(latents)
