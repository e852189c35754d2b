"""Networks that know the answer: closed-form models of a two-Gaussian mixture.

They are called as SDXL's UNet and FLUX's transformer are, in pipelines that are otherwise the real ones.
Every element of the clean latents x0 is drawn alone from the mixture, and a network sees a x0 + b eps. What it
should predict then has a closed form, so a sampler's result has only the sampler's own error, which
`mixture.wasserstein` measures. The networks compute in float64 and answer in the dtype they were asked in.
"""

import contextlib

import torch
from diffusers import ConfigMixin, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn.utils import skip_init

from k_diffusing.models import pipeline_class
from k_diffusing.oracle.mixture import MIXTURE

SIDE = 72  # of the latents, of 4 channels: 20736 elements
SDXL_SCHEDULE = {  # stabilityai/stable-diffusion-xl-base-1.0
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def training_sigmas(zero_terminal_snr: bool = False) -> torch.Tensor:
    """The sigmas at SDXL's 1000 timesteps, float64: scaled-linear betas (Lin et al. 2023, algorithm 1, if wanted)."""
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
        for unused in self.add_embedding.parameters():
            torch.nn.init.zeros_(unused)
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
        """The sample is [B, 4, h, w], of unit scale (x / sqrt(1 + sigma^2)); timestep [B]; the prediction."""
        sigma = self.sigma(timestep).reshape(-1, 1, 1, 1)
        a, b = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        x0 = MIXTURE.posterior_mean(sample, a, b)
        eps = (sample.double() - a * x0) / b
        output = eps if self.config["prediction_type"] == "epsilon" else a * eps - b * x0
        return (output.to(sample.dtype),)


class OracleTransformer(ModelMixin, ConfigMixin):
    """The exact velocity network for the mixture, with FluxTransformer2DModel's call signature."""

    @register_to_config
    def __init__(self, in_channels: int = 16, guidance_embeds: bool = True):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # gives the module a dtype and a device

    def cache_context(self, name: str):
        """There is no cache."""
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
    """Make our SDXL pipeline on the closed-form UNet.

    Args:
        prediction_type: "epsilon" or "v_prediction".
        zero_terminal_snr: whether the schedule ends in pure noise.
        schedule: changes to SDXL's EulerDiscrete config.
    """
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
    """Make our FLUX pipeline on the closed-form transformer.

    mu is 1.15, FLUX.1-dev's at 1024 x 1024 pixels, whatever the size drawn here.

    Args:
        schedule: changes to FLUX's FlowMatchEuler config.
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
    """Call a pipeline from above, without guidance.

    Args:
        pipe: of `oracle_sdxl` or `oracle_flux`.
        comfy_sampler: as the pipeline takes it.
        steps: the number of inference steps.
        seed: of the noise.
        side: of the latents.
        options: further keywords of the call.

    Returns:
        The final latents, float32: [1, 4, side, side] from SDXL, [1, side^2 / 4, 16] from FLUX.
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
