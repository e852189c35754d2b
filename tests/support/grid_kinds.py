"""Which kinds of models each named grid refuses, and with how many steps it can be had."""

from k_diffusing.grids.named import SIGMA_GRIDS

FOR_FLOW = ("bong_tangent", "optimal_steps", "flux2_dev_turbo", "qwen_image_2_1_turbo", "ltx2_distilled")
FOR_TIMESTEPS = ("turbo", "lcm_timesteps", "dmd2_sdxl")
REFUSED = {(name, kind) for name in FOR_FLOW for kind in ("sdxl", "edm")}
REFUSED |= {(name, kind) for name in FOR_TIMESTEPS for kind in ("edm", "flow")}
REFUSED |= {("align_your_steps", "flow"), ("align_your_steps", "edm")}  # SVD's table begins above EDM's 80
STEPS_OF = {
    "turbo": range(1, 11),
    "lcm_timesteps": range(1, 51),
    "dmd2_sdxl": (1, 4),
    "flux2_dev_turbo": (8,),
    "qwen_image_2_1_turbo": (8,),
    "ltx2_distilled": (3, 8),
}
SUITED = [(name, kind) for name in SIGMA_GRIDS for kind in ("sdxl", "edm", "flow") if (name, kind) not in REFUSED]


def steps_of(name: str, wanted) -> list[int]:
    """Those of the numbers of steps that the grid can have, or all that it can have if it has none of them."""
    return [n for n in wanted if n in STEPS_OF.get(name, wanted)] or list(STEPS_OF[name])
