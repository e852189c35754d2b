"""The autoencoder's training: reconstruction of crops, then of whole pictures; whitened latents."""

import copy
import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from loop import train
from nets import build_vae
from shapes import SIDE, draw_many, training_scenes
from torch.nn import functional as F


def pictures(n: int, generator: torch.Generator, crop: int = SIDE) -> torch.Tensor:
    """n training pictures in [-1, 1], (n, 3, crop, crop); crops are taken where there is an edge to see."""
    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
    full = draw_many(rng.choices(training_scenes(), k=n), rng.getrandbits(31)) * 2 - 1
    if crop == SIDE:
        return full
    crops = []
    for picture in full:
        edges = (picture[:, :-1, :-1] != picture[:, 1:, 1:]).any(0).nonzero()
        y, x = edges[rng.randrange(len(edges))].tolist()
        top, left = (min(max(0, c - rng.randrange(crop)), SIDE - crop) for c in (y, x))
        crops.append(picture[:, top : top + crop, left : left + crop])
    return torch.stack(crops)


def vae_loss(vae: AutoencoderKL, real: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """L1 + 2 MSE + 1e-4 KL, each a mean over its elements."""
    posterior = vae.encode(real).latent_dist
    fake = vae.decode(posterior.sample(generator)).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return F.l1_loss(fake, real) + 2 * F.mse_loss(fake, real) + 1e-4 * kl


def psnr(vae: AutoencoderKL, seed: int = 7, n: int = 64) -> float:
    """Peak signal-to-noise ratio in dB of n whole pictures through the mean of the posterior."""
    real = pictures(n, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        fake = vae.decode(vae.encode(real).latent_dist.mean).sample.clamp(-1, 1)
    return float(-10 * (((fake - real) / 2) ** 2).mean((1, 2, 3)).log10().mean())


def train_vae(runs: Path, steps: int, seed: int) -> None:
    """Four fifths of the steps on 64x64 crops, then whole pictures; leaves a whitened VAE in runs/vae."""
    torch.manual_seed(seed)
    vae = build_vae()
    average = copy.deepcopy(vae)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        batch, crop = (12, 64) if step < 0.8 * steps else (4, SIDE)
        if (step + 1) % 200 == 0:
            print(f"PSNR {psnr(average):.2f} dB", flush=True)
        return vae_loss(vae, pictures(batch, generator, crop), generator)

    train(vae, average, loss_at, runs / "vae.safetensors", steps=steps, lr=2e-3, seed=seed, decay=0.995)
    whiten(average, pictures(256, torch.Generator().manual_seed(seed)))
    average.save_pretrained(runs / "vae")
    print(f"PSNR {psnr(average):.2f} dB; wrote {runs / 'vae'}")


@torch.no_grad()
def whiten(vae: AutoencoderKL, real: torch.Tensor) -> None:
    """Gives each latent channel mean 0 and deviation 1 over `real`, by rescaling the 1x1 convolutions."""
    posterior = vae.encode(real).latent_dist
    latents = posterior.sample(torch.Generator().manual_seed(0))
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    rescale(vae, 1 / deviation, -mean / deviation)


@torch.no_grad()
def rescale(vae: AutoencoderKL, gain: torch.Tensor, offset: torch.Tensor) -> None:
    """Replaces latent channel z by gain * z + offset (both (channels,)); reconstructions stay as they are."""
    encode, decode = vae.quant_conv, vae.post_quant_conv
    n = len(gain)
    encode.weight[:n] *= gain[:, None, None, None]
    encode.bias[:n] = encode.bias[:n] * gain + offset
    encode.bias[n:] += 2 * gain.abs().log()
    decode.bias -= decode.weight[:, :, 0, 0] @ (offset / gain)
    decode.weight /= gain[:, None, None]
