"""Published sigma grids, as numbers with their sources.

A list ends above 0 where its source does. What a model's maker publishes for a distilled model is for its steps alone.
"""

from typing import NamedTuple

# Sabour et al. 2024, arXiv 2404.14507: the tables of its page "How to use Align Your Steps", in ten digits as ComfyUI's
# node has them. Their last value stands in the place of 0.
ALIGN_YOUR_STEPS = {
    "sdxl": (
        14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
        0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
    ),
    "sd15": (
        14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
        0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582,
    ),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}  # fmt: skip

# Pei et al. 2025, arXiv 2503.21774 (github.com/bebebe666/OptimalSteps), as ComfyUI's node has them: flow times.
OPTIMAL_STEPS = {
    "flux": (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001),
    "wan": (
        1.0, 0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98, 0.975, 0.973, 0.968, 0.96, 0.946, 0.927, 0.902,
        0.864, 0.776, 0.539, 0.208, 0.001,
    ),
    "chroma": (
        0.992, 0.99, 0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943, 0.931, 0.917, 0.9, 0.881, 0.858,
        0.832, 0.802, 0.769, 0.731, 0.69, 0.646, 0.599, 0.55, 0.501, 0.451, 0.402, 0.355, 0.311, 0.27, 0.232, 0.199,
        0.169, 0.143, 0.12, 0.101, 0.084, 0.07, 0.058, 0.048, 0.001,
    ),
}  # fmt: skip


class Distilled(NamedTuple):
    """The lists that the maker of a distilled model publishes.

    Attributes:
        model: Whose they are.
        lists: By their number of steps, without the 0 that all end with.
        source: Where they are published.
        kind: "timesteps" of an epsilon model, "times" of a flow model, or "before shift": times that the scheduler's
            own shift is still to be applied to, as diffusers does with `sigmas=`.
    """

    model: str
    lists: dict[int, tuple[float, ...]]
    source: str
    kind: str = "times"


DISTILLED = {
    "dmd2_sdxl": Distilled(
        "DMD2's SDXL", {4: (999, 749, 499, 249), 1: (399,)}, "huggingface.co/tianweiy/DMD2", "timesteps",
    ),
    "flux2_dev_turbo": Distilled(
        "FLUX.2-dev-Turbo", {8: (1.0, 0.6509, 0.4374, 0.2932, 0.1893, 0.1108, 0.0495, 0.00031)},
        "huggingface.co/fal/FLUX.2-dev-Turbo", "before shift",
    ),
    "qwen_image_2_1_turbo": Distilled(
        "Qwen-Image-2.1-turbo",
        {8: (1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568)},
        "ComfyUI's workflow templates",
    ),
    "ltx2_distilled": Distilled(
        "LTX-2 distilled",
        {8: (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875), 3: (0.909375, 0.725, 0.421875)},
        "github.com/Lightricks/LTX-2; the three steps are those of its second stage",
    ),
}  # fmt: skip
