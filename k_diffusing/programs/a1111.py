"""A1111's web UI, as it runs SDXL, and its fork Forge, which also runs FLUX.

Measured against A1111 1.10.1 and read from Forge f2.0.1; docs/reproduce.md has every convention with its source.

    pipe(prompt, program="a1111", comfy_sampler="dpmpp_2m", seeds=7)
    pipe(prompt, program=a1111(ensd=31337, sgm_noise_multiplier=True), ...)

A1111 has no FLUX: on FLUX its name stands for Forge's conventions.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from k_diffusing.images import rounded_mask
from k_diffusing.model.preconditioning import vp_scale
from k_diffusing.model.scheduler_config import noise_schedule, shifts_dynamically
from k_diffusing.model.schedules import DiscreteSchedule, FlowSchedule, LogSigmaSchedule
from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.noise.a1111 import a1111_noise
from k_diffusing.programs import comfyui
from k_diffusing.programs.a1111_grids import Range
from k_diffusing.programs.records import NOISE_OF_A1111, Program
from k_diffusing.programs.tables import alphas_cumprod_of, zero_terminal_snr
from k_diffusing.samplers import flow_time
from k_diffusing.samplers.facts import ALL_FACTS
from k_diffusing.samplers.find import sampler_options
from k_diffusing.samplers.records import SAMPLERS, Sampler

OLD_KARRAS = (0.1, 10.0)
DROPPING = frozenset({"dpm_2", "dpm_2_ancestral", "dpmpp_3m_sde"})
# The grid that its "Automatic" is for a sampler, where it is not "uniform".
AUTOMATIC = {row.name: row.automatic for row in SAMPLER_NAMES.values() if row.automatic != "normal"}
# Of Forge's samplers two have other formulas on FLUX; the rest run k_diffusion's on t as it is.
FORGE_FLOW = {
    "euler_ancestral": flow_time.sample_euler_ancestral,
    "dpm_2_ancestral": flow_time.sample_dpm_2_ancestral,
}


def discrete_schedule(scheduler, half: bool = False) -> DiscreteSchedule | LogSigmaSchedule:
    """The noise schedule of an epsilon or v model: alphas_cumprod from double precision, sigmas from float32.

    half: alphas_cumprod and sigmas in half precision, as in versions before 1.8.
    """
    schedule = noise_schedule(scheduler)
    alphas_cumprod = None if isinstance(schedule, LogSigmaSchedule) else alphas_cumprod_of(scheduler.config)
    if alphas_cumprod is None:
        return schedule
    alphas_cumprod = alphas_cumprod.float()
    if half:
        alphas_cumprod = alphas_cumprod.half()
    if scheduler.config.get("rescale_betas_zero_snr"):
        alphas_cumprod = zero_terminal_snr(alphas_cumprod)
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    return DiscreteSchedule(sigmas.float(), logs=sigmas.log().float())


def flow_schedule(scheduler, size_mu: float | None, mu: float | None) -> FlowSchedule:
    """Forge's flow times of FLUX: ComfyUI's; of FLUX.1 [schnell], whose scheduler shifts nothing, shifted by mu = 1."""
    still = not shifts_dynamically(scheduler) and scheduler.config.get("shift", 1.0) == 1.0
    return comfyui.flow_schedule(scheduler, size_mu, 1.0 if mu is None and still else mu)


def sampler(record: Sampler, flow: bool) -> Sampler:
    """What the name of one of k_diffusion's samplers means in it; a user's function is run as it is."""
    if record.name not in SAMPLERS or record.custom:
        return record
    if record.takes == "sigma_range":
        record = replace(record, last_step=False)
    if flow and record.name in FORGE_FLOW:
        record = replace(record, function=FORGE_FLOW[record.name], derivative_only=False)
    return replace(record, flow_coordinates="flow") if flow else record


def options(record: Sampler, schedule, eta: float = 1.0) -> dict[str, Any]:
    """The options that it gives to a sampler: an eta to each that has one, DPM fast and DPM adaptive too."""
    return {"eta": eta} if record.name in SAMPLERS and "eta" in sampler_options(record) else {}


MOST_DENOISING = 0.999  # a higher denoising strength counts as this one


def last_steps(steps: int, denoise: float, exact: bool = False) -> tuple[int, int]:
    """The steps of the grid, and the first of them that img2img takes: a part of those asked for, and one more.

    exact: as many as asked for, of a longer grid.
    """
    if exact:
        total = int(steps / min(denoise, MOST_DENOISING))
        return total, total - steps
    return steps, steps - 1 - int(min(denoise, MOST_DENOISING) * steps)


def a1111(
    *,
    old_karras: bool = False,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float | None = None,
    beta_alpha: float = 0.6,
    beta_beta: float = 0.6,
    quantize: bool = False,
    discard_penultimate: bool = False,
    sgm_noise_multiplier: bool = False,
    half_alphas: bool = False,
    eta: float = 1.0,
    rng: str = "GPU",
    ensd: int = 0,
    variation_seed: int | None = None,
    variation_strength: float = 0.0,
    exact_steps: bool = False,
    noise_multiplier: float = 1.0,
    extra_noise: float = 0.0,
) -> Program:
    """A1111's web UI with other settings than its own; what its pictures say of them is in `INFOTEXT`.

    Args:
        old_karras: "Use old karras scheduler sigmas": every grid that covers a range covers 0.1 to 10.
        sigma_min: "sigma min": the smallest sigma of such a grid; None, or 0: the model's.
        sigma_max: "sigma max": the largest; None, or 0: the model's.
        rho: Of karras and polyexponential; None, or 0: 7 and 1.
        beta_alpha: "Beta scheduler - alpha".
        beta_beta: "Beta scheduler - beta".
        quantize: "Enable quantization in K samplers": integer timesteps.
        discard_penultimate: "Always discard next-to-last sigma", whatever the sampler.
        sgm_noise_multiplier: Unit noise is multiplied by sqrt(1 + sigma^2), not by sigma.
        half_alphas: "Downcast model alphas_cumprod to fp16", as before version 1.8.
        eta: "Eta for k-diffusion samplers", of all that have an option eta.
        rng: "Random number generator source": "GPU", "CPU" or "NV".
        ensd: "Eta noise seed delta".
        variation_seed: Of the first image; the next have one more each.
        variation_strength: 0 to 1; above 0, all images have one seed.
        exact_steps: "With img2img, do exactly the amount of steps the slider specifies"; so does hires fix always.
        noise_multiplier: "Noise multiplier for img2img".
        extra_noise: "Extra noise multiplier for img2img and hires fix".

    Raises:
        ValueError: A value that it does not have.
    """
    low, high = OLD_KARRAS if old_karras else (None, None)
    span = Range(sigma_min or low, sigma_max or high, rho or None, beta_alpha, beta_beta, quantize)
    return replace(
        NOISE_OF_A1111,
        initial_scale=_sgm_scale if sgm_noise_multiplier else NOISE_OF_A1111.initial_scale,
        noise=a1111_noise(rng, ensd, variation_seed, variation_strength),
        noise_schedule=partial(discrete_schedule, half=half_alphas),
        flow_schedule=flow_schedule,
        image_scale=lambda sigma, sigma_max: noise_multiplier * (sigma + extra_noise),
        cut=partial(last_steps, exact=exact_steps),
        whole_tree=True,
        latent_mask=rounded_mask,
        shows_image=False,
        grids=span.grids(),
        default_grid="automatic",
        automatic=AUTOMATIC,
        quantize=quantize,
        sampler=sampler,
        options=partial(options, eta=eta),
        whole_range=True,
        flow_scale=lambda t: t,
        guides=comfyui.COMFYUI.guides,
        prompt_tokens=256,
        drops_penultimate=frozenset(ALL_FACTS) if discard_penultimate else DROPPING,
    )


def _sgm_scale(own, sigma, sigma_max):
    return vp_scale(sigma)


A1111 = a1111()
# Forge has ComfyUI's noise schedule, and tells an SDXL network integer timesteps.
FORGE = replace(a1111(quantize=True), name="Forge", noise_schedule=comfyui.discrete_schedule, shows_image=True)


def _is_true(text: str) -> bool:
    return text.strip().lower() == "true"


# What a picture's text says of settings: keyword of a1111() and type. Of old_karras, quantize and exact_steps it says
# nothing.
INFOTEXT = {
    "Schedule min sigma": ("sigma_min", float),
    "Schedule max sigma": ("sigma_max", float),
    "Schedule rho": ("rho", float),
    "Beta schedule alpha": ("beta_alpha", float),
    "Beta schedule beta": ("beta_beta", float),
    "Discard penultimate sigma": ("discard_penultimate", _is_true),
    "SGM noise multiplier": ("sgm_noise_multiplier", _is_true),
    "Downcast alphas_cumprod": ("half_alphas", _is_true),
    "Eta": ("eta", float),
    "RNG": ("rng", str),
    "ENSD": ("ensd", int),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
    "Noise multiplier": ("noise_multiplier", float),
    "Extra noise": ("extra_noise", float),
}


def a1111_of(fields: Mapping[str, str]) -> Program:
    """The program of the fields of a picture's text, by name; those of INFOTEXT are read.

    Raises:
        ValueError: A field's value is none of its kind.
    """
    given = {}
    for field, (keyword, kind) in INFOTEXT.items():
        if field in fields:
            try:
                given[keyword] = kind(fields[field])
            except ValueError:
                raise ValueError(f"{field}: {fields[field]!r} is no {kind.__name__}") from None
    return a1111(**given)
