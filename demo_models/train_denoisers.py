"""What the denoisers are trained on: encoded pictures, token ids of their captions, and three losses."""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, FluxPipeline
from shape_tokens import clip_tokenizer, t5_tokenizer
from shapes import SIDE, WORDS, draw_many, training_scenes
from torch import nn
from torch.nn import functional as F


def on(generator: torch.Generator) -> dict:
    """Options that make torch's random functions draw from `generator`, on its device."""
    return {"generator": generator, "device": generator.device}


class Pictures(NamedTuple):
    """Posteriors of the whitened latents, (n, 4, 16, 16) each, and the captions' indices, (n,)."""

    mean: torch.Tensor
    deviation: torch.Tensor
    caption: torch.Tensor

    def sample(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """n pictures' latents, freshly drawn from their posteriors, and their captions' indices."""
        draws = on(generator)
        chosen = torch.randint(len(self.caption), (n,), **draws)
        noise = torch.randn(n, *self.mean.shape[1:], **draws)
        return self.mean[chosen] + self.deviation[chosen] * noise, self.caption[chosen]


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, n: int, seed: int) -> Pictures:
    """Draws n training pictures, the captions in turn from a random first, and encodes them."""
    scenes = training_scenes()
    captions = (torch.arange(n) + random.Random(seed).randrange(len(scenes))) % len(scenes)
    rng, device = random.Random(seed), str(vae.device)
    posteriors = []
    for chunk in captions.split(8 if device == "cpu" else 250):
        real = draw_many([scenes[i] for i in chunk.tolist()], rng.getrandbits(31), device) * 2 - 1
        posteriors.append(vae.encode(real).latent_dist)
    mean, deviation = (torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std"))
    return Pictures(mean.contiguous(), deviation.contiguous(), captions.to(device))


class Tokens(NamedTuple):
    """Padded ids of every training caption and, last, of the empty one: (captions + 1, length) each."""

    clip: torch.Tensor
    t5: torch.Tensor

    @classmethod
    def make(cls, clip_length: int, t5_length: int, device: str) -> "Tokens":
        captions = [scene.caption for scene in training_scenes()] + [""]
        options = {"padding": "max_length", "return_tensors": "pt"}
        clip = clip_tokenizer(WORDS)(captions, max_length=clip_length, **options).input_ids
        t5 = t5_tokenizer(WORDS)(captions, max_length=t5_length, **options).input_ids
        return cls(clip.to(device), t5.to(device))


def dropped(captions: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Replaces a share of the caption indices by the empty caption's, -1."""
    return torch.where(torch.rand(len(captions), **on(generator)) < share, -1, captions)


def sdxl_text(parts: nn.ModuleDict, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompt embeddings (b, length, 128) and pooled embedding (b, 64), as SDXL's encode_prompt makes them."""
    first = parts["text_encoder"](ids, output_hidden_states=True)
    second = parts["text_encoder_2"](ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds


# Weights of the squared error of x0, by signal-to-noise ratio.
WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "epsilon": lambda snr: snr.clamp(max=5),  # min-SNR-5 of Hang et al. 2023
    "velocity": lambda snr: (snr + 1).clamp(max=6),
    "between": lambda snr: snr.clamp(max=5).sqrt(),
}


def sdxl_loss(
    parts: nn.ModuleDict,
    latents: torch.Tensor,
    ids: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    generator: torch.Generator,
    weight_at: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Epsilon's error, weighted so that x0's is weighted by weight_at(snr); 7 % of conditions are zeros."""
    n, draws = len(latents), on(generator)
    text, pooled = sdxl_text(parts, ids)
    keep = (torch.rand(n, **draws) >= 0.07).float()
    timestep = torch.randint(len(alphas_cumprod), (n,), **draws)
    alpha = alphas_cumprod[timestep]
    noise = torch.randn(latents.shape, **draws)
    noisy = alpha.sqrt()[:, None, None, None] * latents + (1 - alpha).sqrt()[:, None, None, None] * noise
    sizes = latents.new_tensor([SIDE, SIDE, 0, 0, SIDE, SIDE]).expand(n, 6)
    added = {"text_embeds": pooled * keep[:, None], "time_ids": sizes}
    guess = parts["unet"](noisy, timestep, text * keep[:, None, None], added_cond_kwargs=added).sample
    snr = alpha / (1 - alpha)
    return (weight_at(snr) / snr * F.mse_loss(guess, noise, reduction="none").mean((1, 2, 3))).mean()


def sdxl_alphas() -> torch.Tensor:
    """Cumulative alphas of SDXL's training schedule, (1000,)."""
    return EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod


def flow_batch(latents: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Packed x_t = (1 - t) x0 + t eps and velocity eps - x0, both (b, 64, 16), and t, (b,).

    t is logit-normal (Esser et al. 2024, section 3.1), a fifth of it uniform.
    """
    n, draws = len(latents), on(generator)
    t = torch.randn(n, **draws).sigmoid()
    uniform = torch.rand(n, **draws)
    t = torch.where(torch.arange(n, device=t.device) % 5 == 0, uniform, t)
    packed = FluxPipeline._pack_latents(latents, *latents.shape)
    noise = torch.randn(packed.shape, **draws)
    mix = t[:, None, None]
    return (1 - mix) * packed + mix * noise, noise - packed, t


def velocity(
    parts: nn.ModuleDict,
    x: torch.Tensor,
    t: torch.Tensor,
    tokens: Tokens,
    captions: torch.Tensor,
    guidance: torch.Tensor,
) -> torch.Tensor:
    """The velocity, (b, 64, 16), at packed x (b, 64, 16); t, captions' indices and guidance are (b,)."""
    side = int(x.shape[1] ** 0.5)
    text = parts["text_encoder_2"](tokens.t5[captions]).last_hidden_state
    return parts["transformer"](
        hidden_states=x,
        timestep=t,
        guidance=guidance,
        pooled_projections=parts["text_encoder"](tokens.clip[captions]).pooler_output,
        encoder_hidden_states=text,
        txt_ids=torch.zeros(text.shape[1], 3, device=x.device),
        img_ids=FluxPipeline._prepare_latent_image_ids(len(x), side, side, x.device, x.dtype),
    ).sample


def flux_loss(
    parts: nn.ModuleDict,
    latents: torch.Tensor,
    tokens: Tokens,
    captions: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Rectified flow's squared error; the guidance input is held at 1, which stands for no guidance."""
    x, target, t = flow_batch(latents, generator)
    return F.mse_loss(velocity(parts, x, t, tokens, captions, x.new_ones(len(x))), target)


def distillation_loss(
    parts: nn.ModuleDict,
    teacher: nn.ModuleDict,
    latents: torch.Tensor,
    tokens: Tokens,
    captions: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Classifier-free guidance taught to the guidance embedding (Meng et al. 2023, eq. 4), g in [1, 5].

    g = 1 is no guidance; 3.5, FLUX.1-dev's default, is a scale of 2. For the empty caption the guided velocity is
    the plain one, so true CFG keeps working beside it.
    """
    x, _, t = flow_batch(latents, generator)
    guidance = 1 + 4 * torch.rand(len(x), **on(generator))
    one = x.new_ones(len(x))
    with torch.no_grad():
        plain = velocity(teacher, x, t, tokens, captions, one)
        empty = velocity(teacher, x, t, tokens, torch.full_like(captions, -1), one)
        scale = 1 + 0.4 * (guidance[:, None, None] - 1)
        target = empty + scale * (plain - empty)
    return F.mse_loss(velocity(parts, x, t, tokens, captions, guidance), target)
