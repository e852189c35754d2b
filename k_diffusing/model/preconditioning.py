"""How a network's output becomes the denoised sample.

A sampler of k-diffusion sees data as `x = x0 + sigma * eps` (variance exploding, VE). A network was trained on its own
scale of x, is told a timestep, and predicts noise, velocity or the clean sample:

    denoised = c_skip * x + c_out * net(c_in * x, c_noise)

Noise schedules give c_noise, the rows here the other three, flow coordinates all four for flow matching.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Preconditioning(NamedTuple):
    """One row of the table: the network's input, and the denoised sample from its output.

    network_input(x, sigma) is c_in * x; denoised(x, output, sigma) is c_skip * x + c_out * output, and
    output(x, denoised, sigma) its inverse for sigma > 0; sigma must broadcast against x. The operations are in
    diffusers' order, so that results agree to the last bit.
    """

    network_input: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    denoised: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    output: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def vp_scale(sigma):
    """The size of x = x0 + sigma eps in units of x0's, by which it is divided for the network; a number or a tensor."""
    return (sigma**2 + 1) ** 0.5


def _vp_input(x, sigma):
    return x / vp_scale(sigma)


PRECONDITIONINGS = {
    "epsilon": Preconditioning(
        _vp_input,
        lambda x, output, sigma: x - sigma * output,
        lambda x, denoised, sigma: (x - denoised) / sigma,
    ),
    "v_prediction": Preconditioning(
        _vp_input,
        lambda x, output, sigma: output * (-sigma / vp_scale(sigma)) + x / (sigma**2 + 1),
        lambda x, denoised, sigma: (x / (sigma**2 + 1) - denoised) * (vp_scale(sigma) / sigma),
    ),
    "sample": Preconditioning(_vp_input, lambda x, output, sigma: output, lambda x, denoised, sigma: denoised),
}


def edm_preconditioning(prediction_type: str, sigma_data: float) -> Preconditioning:
    """Karras et al. 2022, table 1, for data of standard deviation sigma_data; "v_prediction" flips c_out's sign."""
    sign = -1 if prediction_type == "v_prediction" else 1

    def denoised(x, output, sigma):
        variance = sigma**2 + sigma_data**2
        return sigma_data**2 / variance * x + sign * sigma * sigma_data / variance**0.5 * output

    def output(x, denoised, sigma):
        variance = sigma**2 + sigma_data**2
        return (denoised - sigma_data**2 / variance * x) / (sign * sigma * sigma_data / variance**0.5)

    return Preconditioning(lambda x, sigma: x * (1 / (sigma**2 + sigma_data**2) ** 0.5), denoised, output)
