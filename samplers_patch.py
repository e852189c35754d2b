"""The samplers by name, and what is bound anew of k_diffusion's.

    x = run_sampler(find_sampler("dpmpp_2m"), denoiser, x, sigmas)

calls k_diffusion's own function, unmodified, with some of its global names bound anew (PATCHED). The bindings live in a
copy of the function made for that one call, so there is nothing to restore when a sampler raises and nothing that
another thread could see.

    python samplers_patch.py    prints the samplers
"""

import sys

from k_diffusing._k_diffusion import k_sampling
from k_diffusing.noise.streams import Generators
from k_diffusing.protocols import Denoiser
from k_diffusing.samplers.call import run_sampler, step_noise
from k_diffusing.samplers.facts import sampler_table
from k_diffusing.samplers.find import find_sampler, sampler_options
from k_diffusing.samplers.options import adds_noise, check_options, choose_coordinates
from k_diffusing.samplers.patch import rebound, to_d
from k_diffusing.samplers.records import ALL_SAMPLERS, OUR_SAMPLERS, SAMPLERS, Sampler
from k_diffusing.samplers.steps import step_count

# A name of k_diffusion's module: the samplers for which it is bound anew, and why.
PATCHED = {
    "to_d": ("all that take sigmas and use it", "on a flow model the network's output is the derivative already"),
    "trange": ("all that take sigmas", "a step begins where its loop does: callbacks, and no bar of its own"),
    "torch.randn_like": ("all that take sigmas", "churn and step noise come from the call's generators"),
    "DPMSolver": ("dpm_fast, dpm_adaptive", "they choose steps between two sigmas: one begins where it does"),
}

__all__ = [
    "ALL_SAMPLERS",
    "OUR_SAMPLERS",
    "PATCHED",
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

if __name__ == "__main__":
    sys.stdout.write(f"{sampler_table()}\n")
