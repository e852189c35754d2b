"""Port a sampler: write it as a function, hold it against the original, and let a closed form judge it.

python examples/port_a_sampler.py

The original here is diffusers' HeunDiscreteScheduler, a class with a state; the port is a function. Put yours in the
place of these two.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # not needed after `pip install .`

import torch

from k_diffusing import compare_samplers, judge
from k_diffusing.models import DEMOS, load

ORIGINAL = "diffusers:HeunDiscreteScheduler"


def sample_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Heun's method: the mean of the slopes at both ends of a step (Karras et al. 2022, algorithm 1)."""
    ones = x.new_ones([len(x)])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        slope = (x - denoised) / sigmas[i]
        ahead = x + slope * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            slope = (slope + (ahead - model(ahead, sigmas[i + 1] * ones)) / sigmas[i + 1]) / 2
        x = x + slope * (sigmas[i + 1] - sigmas[i])
    return x


def main() -> int:
    """Print both verdicts. The exit code is 0 if the port agrees with the original and is right."""
    torch.set_num_threads(1)  # fastest for a network this small
    comparison = compare_samplers(load("demo"), ORIGINAL, sample_heun, DEMOS["demo"].keywords, steps=10)
    judgement = judge(sample_heun, "sdxl")
    print(comparison, judgement.verdict, sep="\n\n")
    return 0 if comparison.difference.agree and judgement.right else 1


if __name__ == "__main__":
    sys.exit(main())
