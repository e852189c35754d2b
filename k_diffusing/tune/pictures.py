"""Pictures that grids are judged on: a pipeline, what it is told, and a prompt and a seed for each picture."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from k_diffusing.compare.failure import sampler_errors
from k_diffusing.plan import SamplingPlan
from k_diffusing.samplers.find import find_sampler
from k_diffusing.trace.record import Trace

SIZE = ("height", "width")  # on which a grid may depend


@dataclass(frozen=True)
class Pictures:
    """Some pictures of one pipeline.

    Attributes:
        pipe: One of our pipelines.
        call: Keywords of its call for every picture: guidance, height, width, ... `prompt_embeds` and the like of one
            prompt stand in place of prompts.
        prompts: One for each picture, empty texts beside `prompt_embeds`.
        seeds: Of the noise, one for each picture.
        batch_size: The most pictures in one call.
    """

    pipe: Any
    call: dict[str, Any]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    batch_size: int = 16

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> "Pictures":
        return replace(self, prompts=self.prompts[part], seeds=self.seeds[part])

    def batches(self) -> list["Pictures"]:
        """These pictures in parts of at most batch_size."""
        return [self[start : start + self.batch_size] for start in range(0, len(self), self.batch_size)]

    def plan(self, sampler, options=None, sigma_grid=None, steps: int = 8) -> SamplingPlan:
        """What a run would do. Raises as the pipeline's plan does."""
        size = {name: self.call[name] for name in SIZE if name in self.call and hasattr(self.pipe, "transformer")}
        shared = {name: self.call[name] for name in ("program", "flow_coordinates", "mu") if name in self.call}
        return self.pipe.plan(sampler, options, sigma_grid, steps, **size, **shared)

    def run(self, sampler, options, sigma_grid, steps: int, replay: Callable | None = None) -> torch.Tensor:
        """Sample all of them.

        Args:
            sampler: As the pipeline takes it.
            options: Of the sampler.
            sigma_grid: As the pipeline takes it.
            steps: Of the grid.
            replay: (seeds) -> what a Trace takes for the noise of a batch, in place of the pipeline's own.

        Returns:
            Their final latents [P, elements], float32 on the CPU.

        Raises:
            SamplerError: The sampler fails.
        """
        ends = []
        for batch in self.batches():
            trace = Trace(replay=replay and replay(batch.seeds))
            with sampler_errors(find_sampler(sampler).name, sampler, trace):
                latents = copy.copy(self.pipe)(  # what a call notes on its pipeline is its own
                    **batch.told(), comfy_sampler=sampler, sampler_options=options, sigma_grid=sigma_grid,
                    num_inference_steps=steps, generator=batch.generators(), output_type="latent", trace=trace,
                ).images  # fmt: skip
            ends.append(latents.flatten(1).float().cpu())
        return torch.cat(ends)

    def told(self) -> dict[str, Any]:
        """The pipeline's keywords for all of them in one call."""
        if "prompt_embeds" in self.call:
            return {**self.call, "num_images_per_prompt": len(self)}
        call = {**self.call, "prompt": list(self.prompts)}
        if isinstance(call.get("negative_prompt"), str):
            call["negative_prompt"] = [call["negative_prompt"]] * len(self)
        return call

    def generators(self) -> list[torch.Generator]:
        """New ones, on the CPU, so that the noise is the same on any device."""
        return [torch.Generator("cpu").manual_seed(seed) for seed in self.seeds]


def as_function(grid: Sequence[float]) -> Callable:
    """A grid as a pipeline takes it."""
    return lambda schedule, n: torch.tensor(grid, dtype=torch.float32)
