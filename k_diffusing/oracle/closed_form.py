"""Networks that know the answer: closed-form models of a two-Gaussian mixture, called as SDXL's UNet and FLUX's
transformer are, in pipelines that are otherwise the real ones.

Every element of the clean latents x0 is drawn alone from the mixture, and a network sees a x0 + b eps. What it
should predict then has a closed form, so a sampler's result has only the sampler's own error, which
`wasserstein` measures. The networks compute in float64 and answer in the dtype they were asked in.
"""

import contextlib
import functools
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn.utils import skip_init
from torch.special import erf

from k_diffusing.models import pipeline_class

SIDE = 72  # of the latents, of 4 channels: 20736 elements
SDXL_SCHEDULE = {  # stabilityai/stable-diffusion-xl-base-1.0
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


class Mixture(NamedTuple):
    """One-dimensional Gaussian mixture; each field has one value per component."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    widths: tuple[float, ...]

    def tensors(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The three fields, float64, one row per component: they broadcast against `like` with a new first axis."""
        shape = (-1, *[1] * like.ndim)
        return tuple(torch.tensor(values, dtype=torch.float64).reshape(shape) for values in self)

    def posterior_mean(self, z: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """E[x0 | a x0 + b eps = z], elementwise, in float64; a and b broadcast against z."""
        z, a, b = z.double(), a.double(), b.double()
        weights, means, widths = self.tensors(z)
        variances = a**2 * widths**2 + b**2
        off = z - a * means
        likelihood = (weights.log() - variances.log() / 2 - off**2 / (2 * variances)).softmax(0)
        return (likelihood * (means + a * widths**2 / variances * off)).sum(0)

    def cdf(self, x: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """P(x0 + sigma eps <= x), elementwise, in float64."""
        weights, means, widths = self.tensors(x)
        return (weights * (1 + erf((x - means) / (2 * (widths**2 + sigma**2)).sqrt())) / 2).sum(0)

    def quantile(self, p: torch.Tensor, sigma: float = 0.0) -> torch.Tensor:
        """The x with cdf(x, sigma) = p, to float64's precision, by bisection."""
        reach = 10 * (max(self.widths) ** 2 + sigma**2) ** 0.5
        low = torch.full_like(p, min(self.means) - reach)
        high = torch.full_like(p, max(self.means) + reach)
        for _ in range(64):
            middle = (low + high) / 2
            below = self.cdf(middle, sigma) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


MIXTURE = Mixture(weights=(0.3, 0.7), means=(-1.2, 0.6), widths=(0.2, 0.3))  # unlike its mirror image


def wasserstein(samples: torch.Tensor, mixture: Mixture = MIXTURE) -> float:
    """Wasserstein-1 distance of samples (any shape) to the mixture: mean |sorted sample - quantile|."""
    ordered = samples.flatten().double().sort().values
    return float((ordered - _even_quantiles(len(ordered), mixture)).abs().mean())


@functools.cache
def _even_quantiles(n: int, mixture: Mixture) -> torch.Tensor:
    return mixture.quantile((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def exact_samples(n: int, seed: int = 0, mixture: Mixture = MIXTURE) -> torch.Tensor:
    """n independent draws: their distance to the mixture is the floor for any sampler of random samples."""
    generator = torch.Generator().manual_seed(seed)
    return mixture.quantile(torch.rand(n, generator=generator, dtype=torch.float64))


def training_sigmas(zero_terminal_snr: bool = False) -> torch.Tensor:
    """sigma at SDXL's 1000 timesteps, float64 (scaled-linear betas; Lin et al. 2023, algorithm 1, if asked for)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if zero_terminal_snr:
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas_cumprod = (root**2).clamp(min=2.0**-24)  # diffusers' stand-in for 0
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


class OracleUNet(ModelMixin, ConfigMixin):
    """The exact epsilon or v network for the mixture, on SDXL's noise schedule, with the UNet's call signature."""

    @register_to_config
    def __init__(
        self,
        prediction_type: str = "epsilon",
        zero_terminal_snr: bool = False,
        in_channels: int = 4,
        sample_size: int = SIDE,
        time_cond_proj_dim: int | None = None,
        addition_time_embed_dim: int = 8,
    ):
        super().__init__()
        self.add_embedding = torch.nn.Module()  # of which the pipeline checks the input width
        self.add_embedding.linear_1 = skip_init(torch.nn.Linear, 6 * addition_time_embed_dim + 16, 1)
        self.log_sigmas = training_sigmas(zero_terminal_snr).log()

    def sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """The noise level of a timestep [B], between the integers linear in log sigma."""
        low = timestep.double().floor().clamp(0, len(self.log_sigmas) - 2)
        low_log, high_log = self.log_sigmas[low.long()], self.log_sigmas[low.long() + 1]
        return (low_log + (timestep.double() - low) * (high_log - low_log)).exp()

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep_cond=None,
        cross_attention_kwargs=None,
        added_cond_kwargs=None,
        return_dict: bool = True,
    ):
        """sample [B, 4, h, w], of unit scale (x / sqrt(1 + sigma^2)); timestep [B]; the prediction."""
        sigma = self.sigma(timestep).reshape(-1, 1, 1, 1)
        a, b = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        x0 = MIXTURE.posterior_mean(sample, a, b)
        eps = (sample.double() - a * x0) / b
        output = eps if self.config.prediction_type == "epsilon" else a * eps - b * x0
        return (output.to(sample.dtype),)


class OracleTransformer(ModelMixin, ConfigMixin):
    """The exact velocity network for the mixture, with FluxTransformer2DModel's call signature."""

    @register_to_config
    def __init__(self, in_channels: int = 16, guidance_embeds: bool = True):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # gives the module a dtype and a device

    def cache_context(self, name: str):
        return contextlib.nullcontext()

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        img_ids: torch.Tensor,
        txt_ids: torch.Tensor,
        guidance: torch.Tensor | None = None,
        joint_attention_kwargs=None,
        return_dict: bool = True,
    ):
        """hidden_states [B, tokens, 16] = (1 - t) x0 + t eps at timestep [B] = t; the velocity E[eps - x0]."""
        t = timestep.double().reshape(-1, 1, 1)
        x0 = MIXTURE.posterior_mean(hidden_states, 1 - t, t)
        return (((hidden_states.double() - x0) / t).to(hidden_states.dtype),)


def oracle_sdxl(prediction_type: str = "epsilon", zero_terminal_snr: bool = False, **schedule):
    """Our SDXL pipeline on the oracle; schedule: changes to SDXL's EulerDiscrete config."""
    config = SDXL_SCHEDULE | {"prediction_type": prediction_type, "rescale_betas_zero_snr": zero_terminal_snr}
    config["clip_sample"] = False  # as in SDXL's config, for DDIM and others made from it
    return _quiet(
        pipeline_class("StableDiffusionXLPipeline")(
            vae=None,
            unet=OracleUNet(prediction_type, zero_terminal_snr),
            scheduler=EulerDiscreteScheduler.from_config(config | schedule),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
        )
    )


def oracle_flux(**schedule):
    """Our FLUX pipeline on the oracle; schedule: changes to FLUX's FlowMatchEuler config.

    mu is 1.15, FLUX.1-dev's at 1024 x 1024 pixels, whatever the size drawn here.
    """
    config = {"use_dynamic_shifting": True, "base_shift": 1.15, "max_shift": 1.15} | schedule
    return _quiet(
        pipeline_class("FluxPipeline")(
            vae=None,
            transformer=OracleTransformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(**config),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
        )
    )


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, comfy_sampler, steps: int = 30, seed: int = 0, side: int = SIDE, **options) -> torch.Tensor:
    """The final latents, float32, of one call of a pipeline from above without guidance.

    [1, 4, side, side] from SDXL, [1, side^2 / 4, 16] from FLUX. options: of the call.
    """
    embeds = {"prompt_embeds": torch.zeros(1, 5, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
    return pipe(
        **embeds,
        height=side * pipe.vae_scale_factor,
        width=side * pipe.vae_scale_factor,
        num_inference_steps=steps,
        guidance_scale=1.0,
        comfy_sampler=comfy_sampler,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **options,
    ).images
