"""Each k_diffusion sampler beside its counterpart in diffusers, on both demo models: docs/parity.md.

    make parity        # or: python benchmarks/parity.py > docs/parity.md

|a - b| / |a| of the latents after 20 steps, float32, one seed, the noise of the one given to the other. Three cases:
both with the grid, scale and timesteps of their own scheduler ("default settings"); both on the same sigmas; and
k_diffusion's with `pipe.scheduler` set to the counterpart, against diffusers' own loop with it.
"""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing._versions import PROGRAMS, package_versions  # noqa: E402
from k_diffusing.compare.compare import compare_samplers  # noqa: E402
from k_diffusing.compare.sources import find_source  # noqa: E402
from k_diffusing.models import DEMOS, hide_loading_bars, load  # noqa: E402
from k_diffusing.trace.difference import TOLERANCE, distance  # noqa: E402
from samplers_patch import SAMPLERS  # noqa: E402

STEPS = 20
SDE = "DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++"
# On SDXL, on FLUX; None: diffusers has no scheduler with this method there.
COUNTERPARTS = {
    "euler": ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", None),
    "heun": ("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"),
    "dpm_2": ("KDPM2DiscreteScheduler", None),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", None),
    "lms": ("LMSDiscreteScheduler", None),
    "dpm_fast": (None, None),
    "dpm_adaptive": (None, None),
    "dpmpp_2s_ancestral": (None, None),
    "dpmpp_sde": ("DPMSolverSDEScheduler", None),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler"),
    "dpmpp_2m_sde": (SDE, SDE),
    "dpmpp_3m_sde": (f"{SDE},solver_order=3", f"{SDE},solver_order=3"),
}


TEXT = """# k_diffusion's samplers beside diffusers' schedulers

Made by `make parity`. {steps} steps, float32, the demo models, seed 0; {versions}. Two runs agree if |a - b| / |a| of
every state is at most {tolerance:g}; the figure is the largest of them. The columns:

- *default settings*: k_diffusion's sampler on the grid of the pipeline's scheduler (EulerDiscrete, FlowMatchEuler), the
  counterpart, made from that scheduler's config, on its own grid, through `as_sampler`;
- *same sigmas, same noise*: both on one grid (SDXL: Karras; FLUX: the scheduler's), the draws of the first run
  given to the second;
- *pipe.scheduler set to it*: with the counterpart for `pipe.scheduler`, diffusers' own loop (`comfy_sampler=None`)
  against k_diffusion's sampler, and against `as_sampler(pipe.scheduler)`. Where these agree, this is the setting that
  closes every gap of the default settings.

"none": diffusers has no scheduler with this method (dpm_fast's and dpm_adaptive's own choice of steps, the ancestral
form of DPM++ 2S; on flow matching most). Every sampler and every scheduler runs on FLUX all the same, in VE
coordinates: `comfy_sampler="dpm_2"`, `comfy_sampler=as_sampler(KDPM2DiscreteScheduler(...))`.

## SDXL

{sdxl}

## FLUX

{flux}

## Why they part, and what closes the gap

- **DPMSolverMultistep, default settings.** With "leading" spacing it divides the timesteps by n + 1 where EulerDiscrete
  divides by n, so that it starts lower. On the same sigmas the methods agree. To have its grid here:
  `pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)`, or its `sigmas` as `sigmas=`.
  On FLUX it starts at t = 0.9994, VE coordinates at 0.995, and it divides the time between a little otherwise.
- **DPMSolverMultistep on FLUX, diffusers' loop.** Its first time is 0.9994, that of VE coordinates 0.995, and at this
  seed that is enough for another picture. It also keeps its timesteps as integers, so that the transformer is told
  a time cut by up to 0.001: what `as_sampler`, which tells it the right one, differs by. No setting of diffusers does.
- **FlowMatchHeun, default settings.** It knows no dynamic shift: its config has a static one. diffusers' own
  FluxPipeline refuses it, as it takes no `sigmas`; here it runs.
- **DPMSolverMultistep, `sde-dpmsolver++`, order 3.** The two update rules differ. In diffusers the weight of the second
  difference is (1 - exp(-2h) - 2h) / (2h)^2 - 1/2. It should vanish with the step h, as it does with + 1/2 (the first
  term tends to -1/2); with - 1/2 it tends to -1. `k-diffusing judge
  diffusers:DPMSolverMultistepScheduler,algorithm_type=sde-dpmsolver++,solver_order=3` shows an error
  in distribution (W1 0.04) that does not fall with the steps. Take order 2.
- **DPMSolverSDE, DPMSolverMultistep SDE in diffusers' loop.** Their noise comes from elsewhere: a Brownian tree with
  a seed of its own, or independent draws where ours are a Brownian path's. The noise given to both, they agree.
- **lms.** The coefficients are integrals, which both find by quadrature with a tolerance of 1e-4.

Elsewhere, known and not seen in these tables: the first state of "linspace" and "trailing" grids is unit noise times
sigma in the Euler family, times sqrt(sigma^2 + 1) in the DPM-Solver family; DPM-Solver schedulers with
`use_karras_sigmas` round the timesteps that belong to the sigmas; DDIM and DDPM clip the denoised latents unless
the config says `clip_sample=False`; DDPM with `variance_type="fixed_large"` adds noise in its last step.
`k-diffusing compare` names each of them.
"""


def verdict(comparison) -> str:
    found = comparison.difference
    if found.agree:
        return f"agree: {found.largest:.0e}"
    return f"**part** at step {found.first.step}, {found.first}; the result differs by {found.result:.0e}"


def own_loop(pipe, call: dict, name: str, counterpart: str) -> str:
    """With the counterpart for pipe.scheduler: diffusers' own loop against k_diffusion's sampler, and as_sampler."""
    bridge = find_source(f"diffusers:{counterpart}", pipe.scheduler).sampler
    before, pipe.scheduler = pipe.scheduler, bridge.scheduler
    options = {"num_inference_steps": STEPS, "output_type": "latent"}
    try:
        loop, *others = (
            pipe(**call, **options, comfy_sampler=sampler, generator=torch.Generator().manual_seed(0)).images
            for sampler in (None, name, bridge)
        )
    except ValueError:
        return "its loop refuses it"
    finally:
        pipe.scheduler = before
    found = [distance(loop, latents) for latents in others]
    return " / ".join(f"{value:.0e}" if value <= TOLERANCE else f"**{value:.0e}**" for value in found)


def row(pipe, call: dict, name: str, counterpart: str | None, grid: str) -> str:
    if counterpart is None:
        return f"| {name} | none | | | |"
    pair, settings = (f"k:{name}", f"diffusers:{counterpart}"), {"steps": STEPS}
    default = verdict(compare_samplers(pipe, *pair, call, grid="own", **settings))
    equal = verdict(compare_samplers(pipe, *pair, call, grid=grid, **settings))
    if SAMPLERS[name].noise == "brownian":
        loop = "another source of noise"
    else:
        loop = own_loop(pipe, call, name, counterpart)
    label = counterpart.replace("Scheduler", "").replace(",", ", ")
    return f"| {name} | {label} | {default} | {equal} | {loop} |"


def table(model: str, which: int, grid: str) -> list[str]:
    pipe, call = load(model), DEMOS[model].keywords
    lines = ["| k_diffusion | diffusers | default settings | same sigmas, same noise | pipe.scheduler set to it |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, counterparts in COUNTERPARTS.items():
        lines.append(row(pipe, call, name, counterparts[which], grid))
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    torch.set_num_threads(1)
    hide_loading_bars()
    versions = ", ".join(f"{name} {version}" for name, version in package_versions(*PROGRAMS).items())
    print(
        TEXT.format(
            steps=STEPS,
            tolerance=TOLERANCE,
            versions=versions,
            sdxl="\n".join(table("demo", 0, "karras")),
            flux="\n".join(table("demo-flux", 1, "scheduler")),
        ),
        end="",
    )


if __name__ == "__main__":
    main()
