"""Runs of the demo models that are compared with another program's: one cell each, from the same settings."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from k_diffusing.models import load

PROMPT = "a large yellow square on a purple background"
SIDE = 8  # pixels of a latent


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        model: "sdxl"; "sdxl-v", with v-prediction and zero terminal SNR; "flux"; "flux-sized", whose time is shifted by
            the size of the picture; "schnell", whose time is not shifted.
        sampler, grid, steps, seed, cfg: as ComfyUI's KSampler has them.
        height, width: of the latents.
        batch: images from the one seed.
        guidance: distilled, of FLUX.
    """

    model: str
    sampler: str
    grid: str
    steps: int = 4
    seed: int = 0
    cfg: float = 1.0
    height: int = 8
    width: int = 8
    batch: int = 1
    guidance: float = 3.5

    def settings(self) -> dict[str, Any]:
        """What is not as it is by default."""
        plain = asdict(Cell(self.model, self.sampler, self.grid))
        return {
            name: value for name, value in asdict(self).items() if name in "model sampler grid" or value != plain[name]
        }


class Ours:
    """Our pipelines, and the embeddings of the prompts, which both programs are given."""

    def __init__(self):
        self.pipes, self.embeds = {}, {}

    def pipe(self, model: str):
        """The pipeline of a model, with the scheduler that stands for it."""
        if model not in self.pipes:
            self.pipes[model] = pipe = load("demo" if model.startswith("sdxl") else "demo-flux")
            pipe.set_progress_bar_config(disable=True)
            changes = {
                "sdxl-v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
                "schnell": {"use_dynamic_shifting": False, "shift": 1.0},
            }.get(model, {})
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **changes)
        return self.pipes[model]

    def prompts(self, model: str) -> dict[str, torch.Tensor]:
        """The embeddings of the prompt and of the empty negative prompt, by the pipeline's keywords."""
        flux = not model.startswith("sdxl")
        if flux not in self.embeds:
            pipe = self.pipe(model)
            with torch.no_grad():
                self.embeds[flux] = _flux_prompts(pipe) if flux else _sdxl_prompts(pipe)
        return self.embeds[flux]

    def latents(self, cell: Cell, **changes) -> torch.Tensor:
        """The final latents, [batch, 4, height, width]; changes: to the pipeline's keywords."""
        pipe, pixels = self.pipe(cell.model), {"height": SIDE * cell.height, "width": SIDE * cell.width}
        call = {"num_inference_steps": cell.steps, "comfy_sampler": cell.sampler, "sigma_grid": cell.grid, **pixels}
        call |= {"program": "comfyui", "output_type": "latent", **self.prompts(cell.model)}
        one_stream = {"generator": torch.Generator().manual_seed(cell.seed), "num_images_per_prompt": cell.batch}
        call |= {"seeds": cell.seed} if cell.batch == 1 else one_stream
        if cell.model.startswith("sdxl"):
            return pipe(**call | {"guidance_scale": cell.cfg} | changes).images
        if cell.model == "flux-sized":
            call["mu"] = sized_mu(cell)
        packed = pipe(**call | {"true_cfg_scale": cell.cfg, "guidance_scale": cell.guidance} | changes).images
        return pipe._unpack_latents(packed, pixels["height"], pixels["width"], SIDE)


def sized_mu(cell: Cell) -> float:
    """The log of the shift that FLUX's authors give a picture of this size: 0.5 at 256 tokens, 1.15 at 4096."""
    return 0.5 + (cell.height * cell.width / 4 - 256) * (1.15 - 0.5) / (4096 - 256)


def _sdxl_prompts(pipe) -> dict[str, torch.Tensor]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return dict(zip(names, pipe.encode_prompt(PROMPT, negative_prompt=""), strict=True))


def _flux_prompts(pipe) -> dict[str, torch.Tensor]:
    (embeds, pooled, _), (negative, negative_pooled, _) = (
        pipe.encode_prompt(text, None, max_sequence_length=64) for text in (PROMPT, "")
    )
    return {
        "prompt_embeds": embeds, "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": negative, "negative_pooled_prompt_embeds": negative_pooled,
    }  # fmt: skip
