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


def write(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Saves `pipeline` in float16 beside `folder`, then swaps it in.

    transformers loads a text encoder in the dtype its config names, diffusers loads in float32 unless told
    otherwise; the encoders' configs therefore name float32: a plain from_pretrained is float32 all through.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(fresh)
    for path in fresh.glob("text_encoder*/config.json"):
        config = json.loads(path.read_text()) | {"dtype": "float32"}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    path = fresh / "vae" / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)  # a path of the machine that trained it
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
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
    pipeline = StableDiffusionXLPipeline(
        vae=scaled_vae(vae, 0.13025, None),
        tokenizer=clip_tokenizer(WORDS),
        tokenizer_2=clip_tokenizer(WORDS),
        scheduler=scheduler,
        **copy.deepcopy(dict(parts.items())),
    )
    write(pipeline, folder)


def export_flux(parts: nn.ModuleDict, vae: Path, folder: Path) -> None:
    """`parts` under the pipeline's names, the VAE in folder `vae`, and FLUX.1-dev's scheduler settings."""
    pipeline = FluxPipeline(
        vae=scaled_vae(vae, 0.3611, 0.1159),
        tokenizer=clip_tokenizer(WORDS),
        tokenizer_2=t5_tokenizer(WORDS),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        **copy.deepcopy(dict(parts.items())),
    )
    write(pipeline, folder)
