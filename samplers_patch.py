"""k_diffusion's samplers, and what is bound anew of them.

    x = run_sampler(find_sampler("dpmpp_2m"), denoiser, x, sigmas)

calls k_diffusion's own function, unmodified, with some of its global names bound anew: the derivative `to_d`,
the progress bar, the source of noise. The bindings live in a copy of the function made for that one call, so
there is nothing to restore when a sampler raises and nothing that another thread could see.
"""

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.noise.streams import Generators
from k_diffusing.protocols import Denoiser
from k_diffusing.samplers.call import run_sampler, step_noise
from k_diffusing.samplers.find import find_sampler, sampler_options
from k_diffusing.samplers.options import adds_noise, check_options, choose_coordinates
from k_diffusing.samplers.patch import rebound, to_d
from k_diffusing.samplers.records import SAMPLERS, Sampler
from k_diffusing.samplers.steps import step_count

__all__ = [
    "SAMPLERS",
    "Denoiser",
    "Generators",
    "Sampler",
    "adds_noise",
    "check_options",
    "choose_coordinates",
    "find_sampler",
    "k_sampling",
    "rebound",
    "run_sampler",
    "sampler_options",
    "step_count",
    "step_noise",
    "to_d",
]
