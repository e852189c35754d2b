"""Guidance by step on the demo models: captions kept to, by number of steps, and the rows of the network they took.

    python benchmarks/guidance.py            # the table of docs/guidance.md, in minutes on one thread

euler on SDXL's scheduler's grid and on FLUX's, the captions and seeds of caption_adherence.py. A row is a call of the
network for one image with one prompt.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402

CAPTIONS, SEED, BATCH, STEPS = 64, 1000, 16, (6, 12, 24)
CHOICES = {
    "demo": {
        "`guidance=5`": {"guidance": 5},
        "`guidance=5`, `guidance_interval=(0.2, 0.8)`": {"guidance": 5, "guidance_interval": (0.2, 0.8)},
        '`guidance={"weight": 5, "rescale": 0.7}`': {"guidance": {"weight": 5, "rescale": 0.7}},
        '`guidance={"cfg++": 0.6}`': {"guidance": {"cfg++": 0.6}},
        '`guidance={"cfg++": 0.6, "reference_steps": 24}`': {"guidance": {"cfg++": 0.6, "reference_steps": 24}},
    },
    "demo-flux": {
        "`guidance=2`": {"guidance": 2},
        "`guidance=2`, `guidance_interval=(0.2, 0.8)`": {"guidance": 2, "guidance_interval": (0.2, 0.8)},
        '`guidance={"cfg++": 0.6}`': {"guidance": {"cfg++": 0.6}},
        '`guidance={"cfg++": 0.6, "reference_steps": 24}`': {"guidance": {"cfg++": 0.6, "reference_steps": 24}},
        '`comfy_sampler="rectified_cfg_pp"`, `guidance=1`': {"guidance": 1, "comfy_sampler": "rectified_cfg_pp"},
    },
}


def rows_seen(network, kept: list[int]):
    """Notes in `kept` the rows of each call of a network; returns the hook."""

    def see(_, args, kwargs):
        kept.append(len(args[0] if args else kwargs["hidden_states"]))

    return network.register_forward_pre_hook(see, with_kwargs=True)


def measure(pipe, call: dict, steps: int, captions: int) -> tuple[int, float]:
    """The captions kept to in all four words, and the rows an image took."""
    import torch
    from score import hits
    from shapes import evaluation_scenes, read

    scenes, right, rows = evaluation_scenes(captions), 0, []
    hook = rows_seen(pipe.unet if hasattr(pipe, "unet") else pipe.transformer, rows)
    for first in range(0, captions, BATCH):
        chunk, now = scenes[first : first + BATCH], {"comfy_sampler": "euler", **call}
        if "negative_prompt" in now:
            now["negative_prompt"] = [now["negative_prompt"]] * len(chunk)
        generators = [torch.Generator().manual_seed(SEED + first + i) for i in range(len(chunk))]
        prompts = [scene.caption for scene in chunk]
        pictures = pipe(prompts, **now, num_inference_steps=steps, output_type="np", generator=generators).images
        for scene, picture in zip(chunk, pictures, strict=True):
            kept = hits(scene, read(picture))
            right += all(kept[word] for word in ("ground", "colour", "shape", "one object"))
    hook.remove()
    return right, sum(rows) / captions


def main(models=tuple(CHOICES), captions: int = CAPTIONS, steps=STEPS) -> None:
    """Prints a table for each model."""
    from k_diffusing.models import DEMOS

    for model in models:
        pipe, table = figure_style.demo_pipeline(model), []
        for name, choice in CHOICES[model].items():
            found = [measure(pipe, DEMOS[model].call | choice, n, captions) for n in steps]
            table.append([name, *(f"{right} ({rows:g})" for right, rows in found)])
            print(table[-1], file=sys.stderr, flush=True)
        print(figure_style.markdown_table([f"{model}, captions of {captions}", *(f"{n} steps" for n in steps)], table))


if __name__ == "__main__":
    main()
