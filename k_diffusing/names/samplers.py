"""The names of every sampler: one table, a row for each method.

ComfyUI's are those of its KSampler (version 0.29), A1111's those of its web UI 1.10 and of Forge 2.0.1.
"""

from typing import NamedTuple

SHARED = "diffusers' takes two or three steps of the sigma grid for one"
SDE = "DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++"


class SamplerNames(NamedTuple):
    """A sampler's names.

    Attributes:
        name: Here, which is ComfyUI's where it has the sampler.
        comfyui: As ComfyUI's KSampler lists it.
        a1111: The label in A1111's web UI or in Forge.
        diffusers: Scheduler classes with this method, each with the settings that make it so.
        automatic: The sigma grid that A1111's schedule "Automatic" means for it.
        others: Further spellings.
        note: What differs between the programs.
    """

    name: str
    comfyui: tuple[str, ...] = ()
    a1111: tuple[str, ...] = ()
    diffusers: tuple[str, ...] = ()
    automatic: str = "normal"
    others: tuple[str, ...] = ()
    note: str = ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names, the one here first; a class with settings is not one."""
        classes = (text for text in self.diffusers if "," not in text)
        return (self.name, *self.comfyui, *self.a1111, *classes, *self.others)


def _comfyui(name: str, *a1111: str, diffusers: tuple[str, ...] = (), gpu: bool = False, **columns) -> SamplerNames:
    """A sampler that ComfyUI lists under our name; gpu: with `_gpu` too, for noise drawn on the device."""
    listed = (name, f"{name}_gpu") if gpu else (name,)
    return SamplerNames(name, listed, a1111, diffusers, **columns)


_ROWS = (
    _comfyui(
        "euler", "Euler",
        diffusers=("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"),
    ),
    _comfyui("euler_ancestral", "Euler a", diffusers=("EulerAncestralDiscreteScheduler",)),
    _comfyui("heun", "Heun", diffusers=("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")),
    _comfyui("dpm_2", "DPM2", diffusers=("KDPM2DiscreteScheduler",), automatic="karras"),
    _comfyui("dpm_2_ancestral", "DPM2 a", diffusers=("KDPM2AncestralDiscreteScheduler",), automatic="karras"),
    _comfyui("lms", "LMS", diffusers=("LMSDiscreteScheduler",)),
    _comfyui("dpm_fast", "DPM fast"),
    _comfyui("dpm_adaptive", "DPM adaptive", others=("dpm_ad",)),
    _comfyui("dpmpp_2s_ancestral", "DPM++ 2S a", automatic="karras"),
    _comfyui("dpmpp_sde", "DPM++ SDE", diffusers=("DPMSolverSDEScheduler",), gpu=True, automatic="karras"),
    _comfyui(
        "dpmpp_2m", "DPM++ 2M", diffusers=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
        automatic="karras", others=("DPM-Solver++(2M)",),
    ),
    _comfyui(
        "dpmpp_2m_sde", "DPM++ 2M SDE", diffusers=(SDE,), gpu=True, automatic="exponential",
        others=("SDE-DPM-Solver++(2M)",),
    ),
    _comfyui(
        "dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun", diffusers=(f"{SDE},solver_type=heun",), gpu=True,
        automatic="exponential",
    ),
    _comfyui("dpmpp_3m_sde", "DPM++ 3M SDE", gpu=True, automatic="exponential"),
    SamplerNames(
        "ddim", ("ddim",), ("DDIM",), ("DDIMScheduler", "DDIMParallelScheduler"), automatic="ddim_uniform"),
    _comfyui("ddpm", "DDPM", diffusers=("DDPMScheduler", "DDPMParallelScheduler")),
    _comfyui(
        "uni_pc", "UniPC", diffusers=("UniPCMultistepScheduler",),
        note='diffusers\' defaults are solver_type="bh2", solver_order=2',
    ),
    _comfyui("uni_pc_bh2", diffusers=("UniPCMultistepScheduler,solver_type=bh2",)),
    _comfyui("lcm", "LCM", diffusers=("LCMScheduler", "FlowMatchLCMScheduler")),
    _comfyui("deis", "DEIS", diffusers=("DEISMultistepScheduler",)),
    _comfyui("ipndm", "IPNDM", diffusers=("IPNDMScheduler",)),
    _comfyui("ipndm_v", "IPNDM_V"),
    _comfyui("heunpp2", "HeunPP2"),
    _comfyui("res_multistep"),
    _comfyui("res_multistep_ancestral"),
    _comfyui("gradient_estimation"),
    _comfyui("er_sde"),
    _comfyui("seeds_2"),
    _comfyui("seeds_3"),
    _comfyui("exp_heun_2_x0"),
    _comfyui("exp_heun_2_x0_sde"),
    _comfyui("sa_solver", diffusers=("SASolverScheduler",)),
    _comfyui("sa_solver_pece"),
    _comfyui(
        "euler_cfg_pp", "DDIM CFG++", automatic="ddim_uniform", note="A1111 divides the guidance scale by 12.5",
    ),
    _comfyui("euler_ancestral_cfg_pp"),
    _comfyui("dpmpp_2s_ancestral_cfg_pp"),
    _comfyui("dpmpp_2m_cfg_pp"),
    _comfyui("res_multistep_cfg_pp"),
    _comfyui("res_multistep_ancestral_cfg_pp"),
    _comfyui("gradient_estimation_cfg_pp"),
    SamplerNames("restart", a1111=("Restart",), automatic="karras"),
    SamplerNames("plms", a1111=("PLMS",), diffusers=("PNDMScheduler",), automatic="ddim_uniform"),
    SamplerNames("dpmpp_2s", diffusers=("DPMSolverSinglestepScheduler",), note=SHARED),
    SamplerNames("dpmpp_3s", diffusers=("DPMSolverSinglestepScheduler,solver_order=3",), note=SHARED),
    SamplerNames("tcd", diffusers=("TCDScheduler",)),
)  # fmt: skip
SAMPLER_NAMES = {row.name: row for row in _ROWS}
# The settings that tell the methods of one class apart, with what they are where they are not given: DPM-Solver's own
# defaults, and for UniPC, whose own is bh2, the method that its name alone means.
METHODS_OF = {
    "DPMSolverMultistepScheduler": {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    "DPMSolverSinglestepScheduler": {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    "UniPCMultistepScheduler": {"solver_type": "bh1"},
}
# The settings of a class that are options here: each with the option's name and the class's default.
OPTIONS_OF = {"UniPCMultistepScheduler": {"solver_order": ("order", 2)}}
# Scheduler classes whose step as_sampler does not run: distilled models' own, and a step of unknown kind.
NOT_RUN = frozenset(
    {"DDIMParallelScheduler", "DDPMParallelScheduler", "IPNDMScheduler", "LCMScheduler", "TCDScheduler"}
)
