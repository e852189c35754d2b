"""ComfyUI's UniPC for flow models: on the latents themselves, with the time as sigma.

It ends at the time 0.001 and divides what it has there by 1 - 0.001, as if it were (1 - t) x0.
"""

import torch
from tqdm.auto import trange

from k_diffusing.samplers.evaluate import Evaluator
from k_diffusing.samplers.predictor_corrector import bh1, bh2, uni_pc

END = 0.001


@torch.no_grad()
def sample_uni_pc(
    model, x, sigmas, extra_args=None, callback=None, disable=None, order=3, lower_order_final=True, variant="published"
):
    """With B(h) = h; options as those of `predictor_corrector.sample_uni_pc`. variant None ends at 0, undivided."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _divided(uni_pc(model, x, sigmas, steps, bh1, order, lower_order_final, variant), sigmas, variant)


@torch.no_grad()
def sample_uni_pc_bh2(
    model, x, sigmas, extra_args=None, callback=None, disable=None, order=3, lower_order_final=True, variant="published"
):
    """With B(h) = 1 - exp(-h); options as those of `sample_uni_pc`."""
    model, steps = Evaluator(model, x, extra_args, callback), trange(len(sigmas) - 1, disable=disable)
    return _divided(uni_pc(model, x, sigmas, steps, bh2, order, lower_order_final, variant), sigmas, variant)


def _divided(x: torch.Tensor, sigmas: torch.Tensor, variant: str | None) -> torch.Tensor:
    return x / (1 - END) if variant and sigmas[-1] == 0 else x


for _function in (sample_uni_pc, sample_uni_pc_bh2):
    _function.flow_coordinates = "flow"
