"""Renders prompts with every k_diffusion sampler through the SDXL pipeline, into output/sdxl-*.png.

python test.py                                                     the bundled demo model
python test.py --prompt "a small white ring on a green background" --samplers euler dpmpp_2m --steps 12
python test.py --samplers euler dpmpp_2m --evaluations 10 20 --seeds 0 1   a grid; the same command again continues it
python test.py --samplers euler mine.py:my_heun UniPCMultistepScheduler    a sampler of your own, diffusers', ComfyUI's
python test.py --model stabilityai/stable-diffusion-xl-base-1.0    real weights: from the hub,
python test.py --model my/folder --offload                         a diffusers folder, or a .safetensors file
"""

import argparse
import sys
from pathlib import Path

from k_diffusing.render import pipelines as render_grid

REAL_MODEL = "stabilityai/stable-diffusion-xl-base-1.0"

# The defaults of --prompt, --steps, ...: for the demo model, and for real weights. A picture's last bits depend on
# the number of threads: the demo's pictures are the same on any number of cores.
DEMO = {
    "model": str(Path(__file__).resolve().parent / "demo_models" / "sdxl-shapes"),
    "variant": None,
    "prompt": "a large yellow square on a purple background",
    "steps": 28,
    "guidance_scale": 5.0,
    "height": 128,
    "width": 128,
    "dtype": "float32",
    "device": "cpu",
    "threads": 1,
}
REAL = {
    "variant": "fp16",
    "prompt": "Astronaut in a jungle, cold color palette, muted colors, detailed, 8k",
    "steps": 50,
    "guidance_scale": 5.0,
    "dtype": "float16",
    "threads": None,
}


def pipeline_class() -> type:
    """Imported only when there is something to render: it takes seconds."""
    from sdxl_comfy_pipeline import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline


def encode(pipe, args: argparse.Namespace, prompt: str, guided: bool) -> dict:
    """The prompt's embeddings, and those of the negative prompt; a guided pair is one call of the UNet."""
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = pipe.encode_prompt(
        prompt,
        device=pipe._execution_device,
        do_classifier_free_guidance=guided,
        negative_prompt=args.negative_prompt,
    )
    return dict(zip(names, embeds, strict=True))


SCRIPT = render_grid.Script(
    family="sdxl",
    program="test.py",
    network="unet",
    calls_per_pair=1,
    multiple=8,
    pipeline_class=pipeline_class,
    encode=encode,
    guidance="guidance_scale",
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of the demo model or of real weights."""
    return render_grid.parse(render_grid.options(__doc__), argv, DEMO, REAL)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.model == DEMO["model"] and render_grid.is_main():
        render_grid.say_line(f"the bundled demo model; for real weights: python test.py --model {REAL_MODEL}")
    return render_grid.run(SCRIPT, args, render_grid.say_line)


if __name__ == "__main__":
    sys.exit(main())
