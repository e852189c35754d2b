"""The names of every sigma grid: one table, a row for each grid.

ComfyUI's are those of its KSampler, which calls them schedulers, and its nodes; A1111's are its schedule types.
"""

from typing import NamedTuple

from k_diffusing._messages import nearest
from k_diffusing.names.spelling import by_spelling, spelling

AUTOMATIC = "automatic"  # A1111's name for the grid that it takes for a sampler where none is chosen


class GridNames(NamedTuple):
    """A sigma grid's names.

    Attributes:
        name: Here.
        comfyui: As ComfyUI's KSampler lists it, and the node that makes it.
        a1111: The label in A1111's web UI or in Forge.
        diffusers: The setting of a scheduler that asks for it.
        here: Whether it is one of SIGMA_GRIDS.
        note: What differs between the programs, or what it is.
        others: Further spellings.
    """

    name: str
    comfyui: tuple[str, ...] = ()
    a1111: tuple[str, ...] = ()
    diffusers: tuple[str, ...] = ()
    here: bool = True
    note: str = ""
    others: tuple[str, ...] = ()

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names, the one here first."""
        return (self.name, *self.comfyui, *self.a1111, *self.diffusers, *self.others)


# The steps of distilled models, as their makers publish them.
DISTILLED = {
    "dmd2_sdxl": "SDXL distilled by DMD2, 4 steps or 1",
    "flux2_dev_turbo": "FLUX.2-dev-Turbo, 8 steps",
    "qwen_image_2_1_turbo": "Qwen-Image-2.1-turbo, 8 steps",
    "ltx2_distilled": "LTX-2 distilled, 8 steps, or 3 of its second stage",
}
_ROWS = (
    GridNames("karras", ("karras", "KarrasScheduler"), ("Karras",), ("use_karras_sigmas",)),
    GridNames("exponential", ("exponential", "ExponentialScheduler"), ("Exponential",), ("use_exponential_sigmas",)),
    GridNames("polyexponential", ("PolyexponentialScheduler",), ("Polyexponential",)),
    GridNames("vp", ("VPScheduler",)),
    GridNames(
        "simple", ("simple",), ("Simple",),
        note='diffusers\' timestep_spacing="trailing" is it, to one timestep',
    ),
    GridNames("normal", ("normal",), ("Normal", "Uniform"), note='diffusers\' timestep_spacing="linspace" is it'),
    GridNames("sgm_uniform", ("sgm_uniform",), ("SGM Uniform",), note='near diffusers\' timestep_spacing="trailing"'),
    GridNames(
        "ddim_uniform", ("ddim_uniform",), ("DDIM",),
        note='diffusers\' timestep_spacing="leading" is it, where the steps divide the timesteps',
    ),
    GridNames(
        "beta", ("beta", "BetaSamplingScheduler"), ("Beta",), ("use_beta_sigmas",),
        note="over timesteps here and in ComfyUI, over sigmas in A1111 and diffusers",
    ),
    GridNames("beta57", note="beta with a = 0.5, b = 0.7: RES4LYF's"),
    GridNames("linear_quadratic", ("linear_quadratic",)),
    GridNames(
        "kl_optimal", ("kl_optimal",), ("KL Optimal",), note="A1111's ends at the model's smallest sigma, not at 0",
    ),
    GridNames("bong_tangent", note="RES4LYF's; for flow models"),
    GridNames("laplace", ("LaplaceScheduler",), note="ComfyUI's ends at the smallest sigma, not at 0"),
    GridNames(
        "align_your_steps", ("AlignYourStepsScheduler",), ("Align Your Steps", "Align Your Steps 11"),
        note="A1111 has three digits of it, and 0 after its last sigma; here and in ComfyUI 0 is in its place",
        others=("AYS",),
    ),
    GridNames(
        "optimal_steps", ("OptimalStepsScheduler",), note="for FLUX, Wan and Chroma", others=("OSS",),
    ),
    GridNames(
        "turbo", ("SDTurboScheduler",), ("Turbo",), note="Forge's Turbo spreads the steps over all timesteps instead",
        others=("SD Turbo", "SDXL Turbo"),
    ),
    GridNames("lcm_timesteps", note="diffusers' LCMScheduler and TCDScheduler", others=("tcd_timesteps",)),
    *(GridNames(name, note=note) for name, note in DISTILLED.items()),
    GridNames(AUTOMATIC, a1111=("Automatic",), note="of each sampler what A1111 takes for it: the table above"),
    GridNames("align_your_steps_32", a1111=("Align Your Steps 32",), here=False),
    GridNames("align_your_steps_gits", ("GITSScheduler",), ("Align Your Steps GITS",), here=False, others=("GITS",)),
    GridNames("lu", diffusers=("use_lu_lambdas",), here=False),
)  # fmt: skip
GRID_NAMES = {row.name: row for row in _ROWS}
GRIDS_BY_SPELLING: dict[str, GridNames] = by_spelling(GRID_NAMES.values())


def find_grid(text: str) -> GridNames | None:
    """The sigma grid that a text names, in whatever program; None where it names none."""
    return GRIDS_BY_SPELLING.get(spelling(text))


def check_grid_name(text: object) -> None:
    """Raise ValueError unless a text names a sigma grid that is here, in whatever program."""
    row, here = find_grid(str(text)), [row.name for row in GRID_NAMES.values() if row.here and row.name != AUTOMATIC]
    choices = (
        f"Choose one of {', '.join(here)}, a function (schedule, n) -> sigmas, "
        "or None for the grid of the scheduler's config"
    )
    if row is None:
        names = {key: row.name for key, row in GRIDS_BY_SPELLING.items() if row.here}
        [close] = nearest(spelling(str(text)), names)
        raise ValueError(f"unknown sigma_grid {text!r}: did you mean {names[close]!r}? {choices}")
    if not row.here:
        raise ValueError(f"sigma_grid {text!r} is known and not here: give its values as a list. {choices}")
