"""A multistep sampler whose weights were fitted to one model, on one grid for each number of steps.

    sampler = load_sampler("tuned-fitted.json")
    pipe(prompt, comfy_sampler=sampler, sigma_grid="tuned-fitted.json", num_inference_steps=8)

A step is x_{i+1} = sigma_{i+1} / sigma_i x_i + sum_j w_ij D_j over the latest denoised estimates D, of states
x0 + sigma eps. `k-diffusing tune --sampler fitted` finds w.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from k_diffusing.samplers.evaluate import Evaluator, levels_of

MEMORY = 3  # estimates that a step is made of, at most
NEAR = 1e-3  # relative: grids that differ by less are one


@dataclass(frozen=True)
class Table:
    """What was fitted for a number of steps.

    Attributes:
        sigmas: [n + 1], of x0 + sigma eps, the last one 0.
        weights: For each step those of the latest estimates, the newest last.
    """

    sigmas: Sequence[float]
    weights: Sequence[Sequence[float]]


class FittedSampler:
    """A sampler as a pipeline takes it.

    Attributes:
        tables: What was fitted, by the number of steps.
    """

    __name__ = "fitted"

    def __init__(self, tables: dict[int, Table]):
        self.tables = tables

    def __call__(self, model, x, sigmas, extra_args=None, callback=None, disable=None):
        """As k_diffusion's. Raises ValueError for a grid that it was not fitted on."""
        levels = levels_of(sigmas)
        weights, model = self.weights(levels), Evaluator(model, x, extra_args, callback)
        estimates: list[torch.Tensor] = []
        for i in range(len(levels) - 1):
            estimates = [*estimates, model.begin(i, x, levels[i])][-MEMORY:]
            x = stepped(x, levels[i + 1] / levels[i], estimates, weights[i])
        return x

    def weights(self, levels: Sequence[float]) -> Sequence[Sequence[float]]:
        """Those of a grid [n + 1]. Raises ValueError for one that it was not fitted on."""
        table = self.tables.get(len(levels) - 1)
        if table is None:
            known = ", ".join(map(str, self.tables))
            raise ValueError(f"this sampler was fitted for {known} steps, not {len(levels) - 1}: take one of these")
        if any(abs(a - b) > NEAR * max(a, b) for a, b in zip(levels[1:], table.sigmas[1:], strict=True)):
            raise ValueError(
                "this sampler was fitted on other sigmas than the run's: give sigma_grid= the file that it came from, "
                "and leave flow_coordinates, denoise and the like out"
            )
        return table.weights


def stepped(x: torch.Tensor, ratio: float, estimates: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The state after a step, whose ratio of sigmas is given."""
    x = ratio * x
    for weight, estimate in zip(weights, estimates, strict=True):
        x = x + weight * estimate
    return x


def load_sampler(path: str | os.PathLike) -> FittedSampler:
    """The sampler of a file that `k-diffusing tune --sampler fitted` has written.

    Raises:
        ValueError: There is no such file, or it holds no weights.
    """
    try:
        facts: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): k-diffusing tune --sampler fitted writes one") from error
    weights = facts.get("weights") if isinstance(facts, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path} holds no weights of a sampler: k-diffusing tune --sampler fitted writes them")
    return FittedSampler({int(n): Table(one["sigmas"], one["weights"]) for n, one in weights.items()})
