"""Writes trained parts as diffusers folders in half precision; a finished folder is swapped in whole."""

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file
from shape_tokens import clip_tokenizer, t5_tokenizer
from shapes import WORDS
from torch import nn
from train_vae import rescale


def scaled_vae(folder: Path, scaling_factor: float, shift_factor: float | None) -> AutoencoderKL:
    """The VAE with its whitened latents moved so that the pipeline's (z - shift) * scale undoes it."""
    vae = AutoencoderKL.from_pretrained(folder)
    n = vae.config.latent_channels
    rescale(vae, torch.full((n,), 1 / scaling_factor), torch.full((n,), shift_factor or 0.0))
    vae.register_to_config(scaling_factor=scaling_factor, shift_factor=shift_factor, force_upcast=False)
    return vae


def edit_json(path: Path, **changes) -> None:
    """Changes entries of a JSON file; None removes one."""
    config = json.loads(path.read_text()) | changes
    config = {name: value for name, value in config.items() if name not in changes or value is not None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def tidy(folder: Path) -> None:
    """Makes a saved pipeline load alike everywhere.

    transformers loads a text encoder in the dtype its config names, diffusers in float32 unless told otherwise: the
    configs name float32, so that a plain from_pretrained is float32 all through. Newer transformers save CLIP's text
    model without the prefix `text_model.` that older ones look for, and would start at random without; all read it.
    The VAE's config names a folder of the machine that trained it.
    """
    for path in folder.glob("text_encoder*/config.json"):
        edit_json(path, dtype="float32")
        weights = path.with_name("model.safetensors")
        tensors = load_file(weights)
        if "embeddings.token_embedding.weight" in tensors:
            save_file({f"text_model.{name}": value for name, value in tensors.items()}, weights, {"format": "pt"})
    edit_json(folder / "vae" / "config.json", _name_or_path=None)


def write(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Saves `pipeline` in float16 beside `folder`, then swaps it in."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(fresh)
    tidy(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    print(f"wrote {folder}")


def export_sdxl(parts: nn.ModuleDict, vae: Path, folder: Path) -> None:
    """`parts` under the pipeline's names, the VAE in folder `vae`, and SDXL's own scheduler settings."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    # As in SDXL's own config: for DDIM, PNDM and others made from it, which would clip the latents.
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    pipeline = StableDiffusionXLPipeline(
        vae=scaled_vae(vae, 0.13025, None),
        tokenizer=clip_tokenizer(WORDS),
        tokenizer_2=clip_tokenizer(WORDS),
        scheduler=scheduler,
        **copy.deepcopy(dict(parts.cpu().items())),
    )
    write(pipeline, folder)


def export_flux(parts: nn.ModuleDict, vae: Path, folder: Path) -> None:
    """`parts` under the pipeline's names, the VAE in folder `vae`, and FLUX.1-dev's scheduler settings."""
    pipeline = FluxPipeline(
        vae=scaled_vae(vae, 0.3611, 0.1159),
        tokenizer=clip_tokenizer(WORDS),
        tokenizer_2=t5_tokenizer(WORDS),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        **copy.deepcopy(dict(parts.cpu().items())),
    )
    write(pipeline, folder)
