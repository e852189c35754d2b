"""Every sampler function of ComfyUI, through both pipelines, judged by a closed-form model.

Nothing of ComfyUI is needed but its folder: its functions are imported from there, on the CPU. W1 is the
Wasserstein-1 distance of the latents to the mixture that the model knows. A function is right if W1 is at most RIGHT
at 100 steps; those that are not show theirs in bold.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks.data import select
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

STEPS, RIGHT = 100, 0.03  # the judge's
COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "SDXL, karras": ("sdxl", {"sigma_grid": "karras"}),
    "FLUX, flow coordinates": ("flux", {}),
    "FLUX, VE coordinates": ("flux", {"flow_coordinates": "ve"}),
}
# Those of comfy.k_diffusion.sampling, less one for video models alone.
FUNCTIONS = (
    "ddpm", "deis", "dpm_2", "dpm_2_ancestral", "dpm_2_ancestral_RF", "dpm_adaptive", "dpm_fast", "dpmpp_2m",
    "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu",
    "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_RF", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_3m_sde", "dpmpp_3m_sde_gpu",
    "dpmpp_sde", "dpmpp_sde_gpu", "er_sde", "euler", "euler_ancestral", "euler_ancestral_RF",
    "euler_ancestral_cfg_pp", "euler_cfg_pp", "exp_heun_2_x0", "exp_heun_2_x0_sde", "gradient_estimation",
    "gradient_estimation_cfg_pp", "heun", "heunpp2", "ipndm", "ipndm_v", "lcm", "lms", "res_multistep",
    "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "res_multistep_cfg_pp", "sa_solver",
    "sa_solver_pece", "seeds_2", "seeds_3",
)  # fmt: skip


def cells() -> list[Row]:
    return [{"function": name, "case": case} for name in FUNCTIONS for case in COLUMNS]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from k_diffusing.compare.sources import comfyui_module
    from k_diffusing.oracle.closed_form import oracle_flux, oracle_sdxl

    torch.set_num_threads(1)
    sys.path.insert(0, os.environ["COMFYUI"])
    sys.path.extend(filter(None, [os.environ.get("COMFYUI_SITE")]))
    sampling, pipes = comfyui_module(), {"sdxl": oracle_sdxl(), "flux": oracle_flux()}
    for cell in cells:
        family, settings = COLUMNS[cell["case"]]
        yield cell | judged(pipes[family], getattr(sampling, f"sample_{cell['function']}"), settings)


def judged(pipe, function, settings: dict[str, Any]) -> Row:
    from k_diffusing.oracle.closed_form import draw
    from k_diffusing.oracle.mixture import wasserstein

    try:
        return {"w1": round(wasserstein(draw(pipe, function, STEPS, **settings)), 4)}
    except Exception as failure:  # whatever a function that is not made for this model raises
        return {"raises": type(failure).__name__}


def table(data: Data) -> str:
    """A function a line."""
    rows = [[name, *(told(select(data, function=name, case=case)[0]) for case in COLUMNS)] for name in FUNCTIONS]
    return markdown_table(["function", *COLUMNS], rows)


def told(row: Row) -> str:
    if "raises" in row:
        return f"**{row['raises']}**"
    return f"{row['w1']:.3f}" if row["w1"] <= RIGHT else f"**{row['w1']:.3f}**"


BENCHMARK = Benchmark(
    name="comfyui_samplers",
    about="Every sampler function of ComfyUI in our pipelines, on closed-form models.",
    takes="5 minutes",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS},
    needs=("COMFYUI",),
    tables={"table": table, "count": lambda data: str(len(FUNCTIONS))},
)
