"""The two families of models that a grid is rendered with, and their command lines.

test.py is SDXL's, test_flux.py FLUX's; `k-diffusing render` takes the family that the weights are of.
"""

import argparse
import sys
import textwrap
from typing import Any

from k_diffusing.models import DEMOS, REAL_WEIGHTS, Model, ModelError, check_model, pipeline_class, pipeline_name
from k_diffusing.render import pipelines
from k_diffusing.render.pipelines import Script, is_main, say_line
from k_diffusing.render.published import OUTPUT
from k_diffusing.render.shelf import listing

COMMAND = "k-diffusing render"
RENDER = """Render prompts with samplers, as grids of pictures that the same command goes on with, into output.

k-diffusing render                                              k_diffusion's samplers, the bundled SDXL demo model
k-diffusing render --model demo-flux --samplers euler heun --steps 5 10 20
k-diffusing render --samplers euler mine.py:my_heun UniPCMultistepScheduler --evaluations 10 20 --seeds 0 1
k-diffusing render --model black-forest-labs/FLUX.1-dev         real weights: from the hub,
k-diffusing render --model my/folder --offload                  a diffusers folder, or a .safetensors file

Exit code: 0, 1 if a sampler or the disk fails, 2 for bad input, 130 for Ctrl-C.
"""


def encode_sdxl(pipe, args: argparse.Namespace, prompt: str, guided: bool) -> dict[str, Any]:
    """The prompt's embeddings, and those of the negative prompt; a guided pair is one call of the UNet."""
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeds = pipe.encode_prompt(
        prompt,
        device=pipe._execution_device,
        do_classifier_free_guidance=guided,
        negative_prompt=args.negative_prompt,
    )
    return dict(zip(names, embeds, strict=True))


def encode_flux(pipe, args: argparse.Namespace, prompt: str, guided: bool) -> dict[str, Any]:
    """The prompt's embeddings, and those of the negative prompt; with true CFG a guided pair is two calls."""
    text = {"prompt_2": None, "device": pipe._execution_device, "max_sequence_length": args.max_sequence_length}
    embeds, pooled, _ = pipe.encode_prompt(prompt, **text)
    positive = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
    if not guided:
        return positive
    embeds, pooled, _ = pipe.encode_prompt(args.negative_prompt, **text)
    return positive | {"negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled}


SDXL = Script(
    family="sdxl",
    program="python test.py",
    network="unet",
    multiple=8,
    pipeline_class=lambda: pipeline_class("StableDiffusionXLPipeline"),
    encode=encode_sdxl,
    guidance="guidance_scale",
)
FLUX = Script(
    family="flux-dev",
    program="python test_flux.py",
    network="transformer",
    multiple=16,
    pipeline_class=lambda: pipeline_class("FluxPipeline"),
    encode=encode_flux,
    guidance="true_cfg_scale",
    keywords=("flow_coordinates", "max_sequence_length"),
)
# By the class of their pipeline: the script, and the name of the demo model.
FAMILIES = {"StableDiffusionXLPipeline": (SDXL, "demo"), "FluxPipeline": (FLUX, "demo-flux")}


def settings(model: Model) -> dict[str, Any]:
    """The defaults of the command line for a model: --prompt, --steps, --guidance-scale, ..."""
    names = ("prompt", "steps", "dtype", "variant", "device", "threads", "batch_size")
    return {"model": model.weights, **{name: getattr(model, name) for name in names}, **model.call}


def arguments(
    script: Script, description: str, argv: list[str] | None, demo: dict[str, Any], real: dict[str, Any]
) -> argparse.Namespace:
    """The command line of a family, with the defaults of its demo model or of real weights."""
    parser = pipelines.options(description, script.family)
    if "flow_coordinates" in script.keywords:
        parser.add_argument("--flow-coordinates", choices=("auto", "flow", "ve", "velocity"), default="auto")
    if not script.program.endswith(".py"):
        parser.prog = COMMAND
    parser.epilog = f"Defaults for the demo model: {_told(demo)}.\n\nFor real weights: {_told(real)}."
    return pipelines.parse(parser, argv, demo, real)


def _told(settings: dict[str, Any]) -> str:
    """Settings as lines of a command line's help."""
    given = (f"{name} {value!r}" for name, value in settings.items() if name != "model" and value is not None)
    return textwrap.fill(", ".join(given), 100)


def run(script: Script, args: argparse.Namespace, real: str) -> int:
    """Render the grid that a command line asks for.

    Args:
        script: The family.
        args: Of `pipelines.parse`.
        real: The name of real weights, told beside the demo model's.

    Returns:
        The exit code: 0 (as after --list), 1 (something failed), 2 (bad input), 130 (Ctrl-C).
    """
    if args.list:
        for line in listing(args.output or OUTPUT):
            say_line(line)
        return 0
    unguided = script.guidance == "true_cfg_scale" and max(args.true_cfg_scale) <= 1 and args.program is None
    unguided = unguided and args.guidance is None
    if unguided and args.negative_prompt:
        say_line("error: --negative-prompt counts only with true CFG: give --true-cfg-scale 4, say", file=sys.stderr)
        return 2
    if "model" not in args.changed and is_main():
        program = " ".join(script.program.split()[:2])
        say_line(f"the bundled demo model; for real weights: {program} --model {real}")
    return pipelines.run(script, args, say_line)


def main(argv: list[str]) -> int:
    """`k-diffusing render`, of the family that the weights are of.

    Args:
        argv: The words after it.

    Returns:
        The exit code, as of `run`.
    """
    first = argparse.ArgumentParser(COMMAND, add_help=False)
    first.add_argument("--model")
    first.add_argument("-h", "--help", action="store_true")
    known, _ = first.parse_known_args(argv)
    model = known.model or "demo"
    if known.help and known.model not in DEMOS:
        model = "demo-flux"  # which has all options
    try:
        check_model(model)
        name = pipeline_name(model)
    except (ModelError, OSError) as error:
        say_line(f"error: --model {error}", file=sys.stderr)
        return 2
    script, demo = FAMILIES[name]
    script = script._replace(program=COMMAND)
    args = arguments(script, RENDER, argv, settings(DEMOS[demo]), settings(REAL_WEIGHTS[name]))
    if demo != "demo" and "model" not in args.changed:
        script = script._replace(program=f"{COMMAND} --model {demo}")  # begins the command of each picture
    return run(script, args, REAL_WEIGHTS[name].weights)
