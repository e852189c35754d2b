"""What another program does: one record each, with everything in which its pictures differ from diffusers' own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from k_diffusing._tensors import same_level
from k_diffusing.grids.given import ListedGrid, OptionGrid
from k_diffusing.grids.part import ends_of_longer_grids
from k_diffusing.images import latent_mask
from k_diffusing.model.coordinates import FLOW_COORDINATES
from k_diffusing.model.preconditioning import vp_scale
from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule, shifts_dynamically
from k_diffusing.model.schedules import FlowSchedule
from k_diffusing.names.spelling import spelling
from k_diffusing.noise.sources import NoiseSource
from k_diffusing.samplers.records import Sampler

Scale = torch.Tensor | float


def _as_named(sampler: Sampler, flow: bool) -> Sampler:
    return sampler


def _flow_schedule(scheduler, size_mu: float | None, mu: float | None) -> FlowSchedule:
    """That of the scheduler's config, with the user's mu in place of the size's."""
    if mu is not None and not shifts_dynamically(scheduler):
        raise ValueError(
            f"mu={mu:g} takes the place of the shift for the size, and the config of {type(scheduler).__name__} has a "
            "static one: FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, shift=math.exp(mu))"
        )
    return flow_schedule(scheduler, size_mu if mu is None else mu)


def _flow_levels(sampler: Sampler, coordinates: str, times: torch.Tensor, schedule: FlowSchedule) -> torch.Tensor:
    return FLOW_COORDINATES[coordinates].sigmas(times)


@dataclass(frozen=True)
class Program:
    """A program whose pictures can be reproduced. What is left out is as in diffusers.

    Attributes:
        name: What it is called.
        initial_scale: What it multiplies unit noise by where data are x0 + sigma eps, from the scale that the
            scheduler's config has, the first sigma of the grid and the model's largest.
        flow_scale: The same on flow models, from the flow time at the first sigma.
        image_scale: The same where noise is added to an image's latents, from the first sigma and the model's largest;
            on flow models from the time there and None.
        cut: What denoise takes of which grid, as `Part.cut` has it.
        whole_tree: Whether the Brownian tree spans the whole grid where a part of it is taken.
        latent_mask: The mask of latents, from that of pixels, the latents' shape and the device.
        shows_image: Whether, where a mask keeps an image, the network sees that image noised; or else what the sampler
            made there, and the image comes back in the answers and at the end.
        drops_penultimate: The samplers whose grid it makes one step longer, less the last sigma above 0.
        noise: Its noise source, a name of NOISE_SOURCES or a record.
        quantize: Whether it tells the network integer timesteps.
        noise_schedule: Its noise schedule of an epsilon, v or sample model, from the diffusers scheduler.
        flow_schedule: That of a flow model, from the scheduler, the mu that diffusers has for the size, and the user's.
        grids: Its sigma grids, where they differ from ours of the same names.
        whole_grids: Those of its grids from which it drops no sigma, whatever the sampler.
        default_grid: The grid it takes where the user names none; None: that of the scheduler's config.
        automatic: The grid that "automatic" is for a sampler of a name; "uniform" for any other.
        whole_range: Whether samplers that take a range go over the model's, whatever the grid.
        sampler: What a sampler's record means in it, from our record and whether the model is a flow model.
        options: What it gives to a sampler besides the user's options, from the record and the noise schedule.
        flow_levels: The sampler's grid on a flow model, from its record, its coordinates, the times and the schedule.
        guides: Whether it calls the network with the negative prompt, from the guidance scale.
        empty_negative: What it takes for the negative prompt where the user gives none.
        hands_on_ve: Whether a run that ends early leaves x0 + sigma eps, also of a flow model, and one that adds no
            noise takes that.
        prompt_tokens: To how many tokens it pads the T5 prompt of FLUX.
    """

    name: str
    initial_scale: Callable[[Scale, torch.Tensor, torch.Tensor], Scale] = lambda own, sigma, sigma_max: own
    flow_scale: Callable[[torch.Tensor], Scale] = lambda t: 1.0
    image_scale: Callable[[torch.Tensor, torch.Tensor | None], Scale] = lambda sigma, sigma_max: sigma
    cut: Callable[[int, float], tuple[int, int]] = ends_of_longer_grids
    whole_tree: bool = False
    latent_mask: Callable[[Any, tuple[int, ...], torch.device], torch.Tensor] = latent_mask
    shows_image: bool = True
    drops_penultimate: frozenset[str] = frozenset()
    noise: str | NoiseSource = "torch"
    quantize: bool = False
    noise_schedule: Callable[[Any], Any] = noise_schedule
    flow_schedule: Callable[[Any, float | None, float | None], FlowSchedule] = _flow_schedule
    grids: Mapping[str, Callable] = field(default_factory=dict)
    whole_grids: frozenset[str] = frozenset()
    default_grid: str | None = None
    automatic: Mapping[str, str] = field(default_factory=dict)
    whole_range: bool = False
    sampler: Callable[[Sampler, bool], Sampler] = _as_named
    options: Callable[[Sampler, Any], dict[str, Any]] = lambda sampler, schedule: {}
    flow_levels: Callable[[Sampler, str, torch.Tensor, FlowSchedule], torch.Tensor] = _flow_levels
    guides: Callable[[float], bool] = lambda scale: scale > 1
    empty_negative: str | None = None
    hands_on_ve: bool = False
    prompt_tokens: int = 512

    def drops(self, sampler: str, sigma_grid: Any = None) -> bool:
        """Whether it drops the last sigma above 0 of a sampler of this name, or of a function `sample_NAME`.

        sigma_grid: The user's, as `given_grid` reads it. Numbers, and the grids of nodes, are left whole.
        """
        name = sigma_grid.name if isinstance(sigma_grid, OptionGrid) else sigma_grid
        if isinstance(sigma_grid, ListedGrid) or (isinstance(name, str) and name in self.whole_grids):
            return False
        return sampler.removeprefix("sample_").removesuffix("_gpu") in self.drops_penultimate

    @property
    def grid_names(self) -> list[str]:
        """The names of sigma grids that it has besides ours."""
        return [*self.grids, *(["automatic"] if self.automatic else [])]

    def own_grid(self, sigma_grid: str | Callable | None) -> str | None:
        """The grid of its own that a text names, in whatever spelling; one of that name may be another elsewhere."""
        spelt = {spelling(name): name for name in self.grid_names}
        return spelt.get(spelling(sigma_grid)) if isinstance(sigma_grid, str) else None

    def grid(self, sigma_grid: str | Callable | None, sampler: str) -> str | Callable | None:
        """What a choice of sigma grid means in it for a sampler: ours by name, a function, or None for the config's."""
        if sigma_grid == "automatic" and self.automatic:
            sigma_grid = self.automatic.get(sampler, "uniform")
        return self.grids.get(sigma_grid, sigma_grid) if isinstance(sigma_grid, str) else sigma_grid


def comfyui_scale(own: Scale, sigma: torch.Tensor, sigma_max: torch.Tensor) -> torch.Tensor:
    """sqrt(1 + sigma^2) at the model's largest sigma, and sigma below it."""
    at_top = float(sigma) > float(sigma_max) or same_level(float(sigma), float(sigma_max))
    return vp_scale(sigma) if at_top else sigma


DIFFUSERS = Program("diffusers")
# What goes with either program's noise, also where nothing else of it is wanted.
NOISE_OF_COMFYUI = Program(
    "ComfyUI",
    initial_scale=comfyui_scale,
    flow_scale=lambda t: t,
    image_scale=lambda sigma, sigma_max: sigma if sigma_max is None else comfyui_scale(sigma, sigma, sigma_max),
    drops_penultimate=frozenset({"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2", "unipc", "unipc_bh2"}),
    noise="comfy",
)
NOISE_OF_A1111 = Program(
    "A1111's web UI",
    initial_scale=lambda own, sigma, sigma_max: sigma,  # unless it is told to use its "SGM noise multiplier"
    drops_penultimate=frozenset({"dpm_2", "dpm_2_ancestral"}),
    noise="a1111",
)
