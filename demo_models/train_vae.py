"""The autoencoder's training: reconstruction of crops, then of whole pictures; whitened latents."""

import copy
import random
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from loop import train
from nets import build_vae
from shapes import SIDE, draw_many, training_scenes
from torch.nn import functional as F


def pictures(n: int, generator: torch.Generator, crop: int = SIDE) -> torch.Tensor:
    """n training pictures in [-1, 1], (n, 3, crop, crop); crops are taken where there is an edge to see."""
    device = generator.device
    rng = random.Random(int(torch.randint(2**31, (), generator=generator, device=device)))
    full = draw_many(rng.choices(training_scenes(), k=n), rng.getrandbits(31), str(device)) * 2 - 1
    if crop == SIDE:
        return full
    corners = [crop_corner(picture, crop, rng) for picture in full]
    return torch.stack([p[:, y : y + crop, x : x + crop] for p, (y, x) in zip(full, corners, strict=True)])


def crop_corner(picture: torch.Tensor, crop: int, rng: random.Random) -> tuple[int, int]:
    """Upper left (y, x) of a crop with a strong edge in it; whole latents from the picture's edge, as checks are."""
    change = (picture[:, 1:, 1:] - picture[:, :-1, :-1]).abs().amax(0)
    edges = (change > 0.25).nonzero()
    y, x = edges[rng.randrange(len(edges))].tolist() if len(edges) else (SIDE // 2, SIDE // 2)
    return tuple(min(max(0, c - rng.randrange(crop)), SIDE - crop) // 8 * 8 for c in (y, x))


def slopes(picture: torch.Tensor) -> torch.Tensor:
    """Differences between neighbours, across and down, flat."""
    across, down = picture.diff(dim=-1), picture.diff(dim=-2)
    return torch.cat([across.flatten(), down.flatten()])


def picture_error(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """L1 + 2 MSE + L1 of the slopes, each a mean over its elements."""
    return F.l1_loss(fake, real) + 2 * F.mse_loss(fake, real) + F.l1_loss(slopes(fake), slopes(real))


def vae_loss(vae: AutoencoderKL, real: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The reconstruction's error + 3e-5 KL."""
    posterior = vae.encode(real).latent_dist
    fake = vae.decode(posterior.sample(generator)).sample
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return picture_error(fake, real) + 3e-5 * kl


def decoder_loss(vae: AutoencoderKL, real: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The reconstruction's error, the encoder held as it is."""
    with torch.no_grad():
        latents = vae.encode(real).latent_dist.sample(generator)
    return picture_error(vae.decode(latents).sample, real)


def psnr(vae: AutoencoderKL, seed: int = 7, n: int = 64) -> float:
    """Peak signal-to-noise ratio in dB of n whole pictures through the mean of the posterior."""
    real = pictures(n, torch.Generator(vae.device).manual_seed(seed))
    with torch.no_grad():
        fake = vae.decode(vae.encode(real).latent_dist.mean).sample.clamp(-1, 1)
    return float(-10 * (((fake - real) / 2) ** 2).mean((1, 2, 3)).log10().mean())


def start_vae(folder: Path | None) -> AutoencoderKL:
    """A fresh VAE, or the one of a diffusers checkpoint with its latents brought back to deviation 1."""
    if folder is None:
        return build_vae()
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    n, config = vae.config.latent_channels, vae.config
    gain = torch.full((n,), config.scaling_factor)
    rescale(vae, gain, -gain * (config.shift_factor or 0.0))
    return vae.train()


def fit_vae(vae: AutoencoderKL, loss: Callable, path: Path, *, steps: int, decay: int, seed: int) -> AutoencoderKL:
    """The weight average after training: four fifths of the steps on 64x64 crops, then whole pictures."""
    vae = vae.train().to(memory_format=torch.channels_last)
    average = copy.deepcopy(vae)

    def loss_at(step: int, generator: torch.Generator) -> torch.Tensor:
        batch, crop = (12, 64) if step < 0.8 * steps else (4, SIDE)
        if step % 200 == 0:
            print(f"PSNR {psnr(average):.2f} dB", flush=True)
        real = pictures(batch, generator, crop).contiguous(memory_format=torch.channels_last)
        return loss(vae, real, generator)

    train(vae, average, loss_at, path, steps=steps, decay=decay, lr=1.5e-3, seed=seed, memory=0.995)
    print(f"PSNR {psnr(average):.2f} dB")
    return average.to(memory_format=torch.contiguous_format)


def train_vae(runs: Path, start: Path | None, device: str, **last: int) -> None:
    """Encoder and decoder; leaves a whitened VAE in runs/vae."""
    average = fit_vae(start_vae(start).to(device), vae_loss, runs / "vae.safetensors", **last)
    whiten(average, pictures(256, torch.Generator(device).manual_seed(last["seed"])))
    average.save_pretrained(runs / "vae")


def train_decoder(runs: Path, device: str, **last: int) -> None:
    """Only the decoder of runs/vae, which latents and denoisers do not notice: at any time, beside or after them."""
    vae = AutoencoderKL.from_pretrained(runs / "vae").to(device)
    fit_vae(vae, decoder_loss, runs / "decoder.safetensors", **last).save_pretrained(runs / "vae")


@torch.no_grad()
def whiten(vae: AutoencoderKL, real: torch.Tensor) -> None:
    """Gives each latent channel mean 0 and deviation 1 over `real`, by rescaling the 1x1 convolutions."""
    posterior = vae.encode(real).latent_dist
    latents = posterior.sample(torch.Generator(real.device).manual_seed(0))
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
