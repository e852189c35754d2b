"""Renders prompts with every k_diffusion sampler through the FLUX pipeline, into output/flux-dev-*.png.

python test_flux.py                                           the bundled demo model
python test_flux.py --samplers euler dpmpp_2m dpmpp_3m_sde --flow-coordinates velocity
python test_flux.py --samplers euler heun --steps 5 10 20     a grid; the same command again continues it
python test_flux.py --model black-forest-labs/FLUX.1-dev      real weights: from the hub,
python test_flux.py --model my/folder --offload               a diffusers folder, or a .safetensors file
"""

import argparse
import sys
from pathlib import Path

from k_diffusing.render import pipelines as render_grid

REAL_MODEL = "black-forest-labs/FLUX.1-dev"

# The defaults of --prompt, --steps, ...: for the demo model, and for real weights. A picture's last bits depend on
# the number of threads: the demo's pictures are the same on any number of cores.
# The demo model is guided by true CFG (distilled guidance would be: true_cfg_scale 1, guidance_scale 3.5).
DEMO = {
    "model": str(Path(__file__).resolve().parent / "demo_models" / "flux-shapes"),
    "variant": None,
    "prompt": "a large yellow square on a purple background",
    "negative_prompt": "",
    "steps": 28,
    "guidance_scale": 1.0,
    "true_cfg_scale": 2.0,
    "max_sequence_length": 64,
    "height": 128,
    "width": 128,
    "dtype": "float32",
    "device": "cpu",
    "threads": 1,
}
REAL = {
    "variant": None,
    "prompt": "Astronaut in a jungle, cold color palette, muted colors, detailed, 8k",
    "negative_prompt": "",
    "steps": 20,
    "guidance_scale": 3.5,
    "true_cfg_scale": 1.0,
    "max_sequence_length": 512,
    "height": 512,
    "width": 512,
    "dtype": "bfloat16",
    "threads": None,
}


def pipeline_class() -> type:
    """Imported only when there is something to render: it takes seconds."""
    from flux_comfy_pipeline import FluxPipeline

    return FluxPipeline


def encode(pipe, args: argparse.Namespace, prompt: str, guided: bool) -> dict:
    """The prompt's embeddings, and those of the negative prompt; with true CFG a guided pair is two calls."""
    text = {"prompt_2": None, "device": pipe._execution_device, "max_sequence_length": args.max_sequence_length}
    embeds, pooled, _ = pipe.encode_prompt(prompt, **text)
    positive = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if not guided:
        return positive
    embeds, pooled, _ = pipe.encode_prompt(args.negative_prompt, **text)
    return positive | {"negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled}


SCRIPT = render_grid.Script(
    family="flux-dev",
    program="test_flux.py",
    network="transformer",
    calls_per_pair=2,
    multiple=16,
    pipeline_class=pipeline_class,
    encode=encode,
    guidance="true_cfg_scale",
    keywords=("flow_coordinates", "max_sequence_length"),
)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of the demo model or of real weights."""
    parser = render_grid.options(__doc__, SCRIPT.family)
    parser.add_argument("--flow-coordinates", choices=("auto", "flow", "ve", "velocity"), default="auto")
    return render_grid.parse(parser, argv, DEMO, REAL)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    if args.negative_prompt and max(args.true_cfg_scale) <= 1:
        render_grid.say_line(
            "error: --negative-prompt counts only with true CFG: give --true-cfg-scale 4, say", file=sys.stderr
        )
        return 2
    if args.model == DEMO["model"] and render_grid.is_main():
        render_grid.say_line(f"the bundled demo model; for real weights: python test_flux.py --model {REAL_MODEL}")
    return render_grid.run(SCRIPT, args, render_grid.say_line)


if __name__ == "__main__":
    sys.exit(main())
