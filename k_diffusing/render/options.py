"""The command line of test.py and test_flux.py, and the commands that say the same."""

import argparse
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from k_diffusing._messages import SAMPLER_FORMS, parsed
from k_diffusing.models import weights
from k_diffusing.names.programs import PROGRAM_NAMES
from k_diffusing.render.axes import AXES, Axes, Axis
from k_diffusing.render.cells import Cell, Solver
from k_diffusing.render.manifest import SCRIPT_SETTINGS, SETTINGS
from k_diffusing.render.names import grid_names, sampler_names
from k_diffusing.render.words import number, text, utf8


def options(description: str, family: str | None = None) -> argparse.ArgumentParser:
    """The command line of a script; None stands for a default that depends on the model.

    Args:
        description: What `--help` begins with.
        family: What the script's pictures are called. Axes of certain families are options of those alone.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    add = parser.add_argument
    choices = "demo, demo-flux, a hub name, diffusers folder or .safetensors file; the bundled demo model if left out"
    add("--model", type=weights, help=choices)
    prompts = parser.add_mutually_exclusive_group()
    add_axis(prompts, AXES["prompt"])
    prompts.add_argument("--prompt-file", type=Path, metavar="FILE", help="prompts, one a line")
    add("--negative-prompt", type=text)
    add("--samplers", nargs="+", metavar="SAMPLER", help=f"{SAMPLER_FORMS}; k_diffusion's 13 if left out")
    counts = parser.add_mutually_exclusive_group()
    for axis in AXES.values():
        if axis.field != "prompt" and (not axis.families or family in axis.families):
            add_axis(counts if axis.field in ("steps", "budget") else parser, axis)
    add("--reference", type=int, default=200, metavar="N", help="steps of the converged column; 0: none")
    add_settings(parser)
    return parser


def add_axis(parser: argparse._ActionsContainer, axis: Axis) -> None:
    """Its option, which takes one value or more."""
    default = None if axis.always is None else list(axis.always)
    parser.add_argument(
        axis.flag, *axis.aliases, nargs="+", type=axis.read, default=default, metavar=axis.metavar, help=axis.help
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What is the same in all cells of a grid, and where and how it is rendered."""
    add = parser.add_argument
    add("--height", type=int)
    add("--width", type=int)
    noise = "torch, cpu, philox, comfy, a1111 or brownian_tree; the program's, or torch, if left out"
    add("--noise", metavar="NAME", help=noise)
    add("--program", choices=PROGRAM_NAMES, help="the pictures of that program, from the same settings")
    add("--dtype", choices=("float32", "float16", "bfloat16"))
    add("--device", help="cpu, cuda, cuda:1, mps, ...")
    add("--offload", action="store_true", help="keep on the device only the part of the model that is at work")
    batches = (
        "rows of a network call at most: pictures are rendered side by side, whatever their samplers and prompts, a "
        "guided one of SDXL with two rows: the same as one by one, to a level or two of 255"
    )
    add("--batch-size", type=int, default=1, metavar="N", help=batches)
    add("--output", type=Path, metavar="FOLDER", help="output if left out, or a new folder in it for another grid")
    add("--list", action="store_true", help="render nothing; tell which grids are in --output, and how far they are")


def parse(parser: argparse.ArgumentParser, argv: list[str] | None, demo: dict, real: dict) -> argparse.Namespace:
    """Parse a command line, with the defaults of the demo model or of real weights, whichever it names.

    Args:
        parser: As `options` makes it.
        argv: The words, those of this process if None.
        demo: The defaults for the demo model, by option, `model` among them.
        real: Those for real weights.

    Returns:
        The options. Axes are lists, each value once. `changed` lists the options whose values are not the defaults.
        `sampler_texts` has by the names of the samplers, which are their axis, what they were given as; `grid_texts`
        likewise those of the sigma grids.

    Raises:
        SystemExit: A word cannot be; argparse has said so.
    """
    first = parsed(parser, argv)
    is_demo = first.model is None or os.path.realpath(first.model) == os.path.realpath(demo["model"])
    parser.set_defaults(**(demo if is_demo else real), noise=None if first.program else "torch")
    args = parser.parse_args(argv)
    if args.prompt_file is not None:
        args.prompt = read_prompts(parser, args.prompt_file)
    if args.evaluations is not None:
        args.steps = None
    plain = parser.parse_args(["--model", demo["model"] if is_demo else args.model])
    changed = [name for name, value in vars(args).items() if value != getattr(plain, name) or name == "model"]
    args.changed = [name for name in changed if not (name == "model" and is_demo)]
    for name in ("samplers", *(axis.option for axis in AXES.values())):
        value = getattr(args, name, None)
        if value is not None:
            setattr(args, name, list(dict.fromkeys(value if isinstance(value, list) else [value])))
    if len([*(args.evaluations or ()), *(args.steps or ())]) == 1:
        args.reference = 0  # nothing converges to it
    args.sampler_texts = sampler_names(args.samplers or ())
    args.samplers = list(args.sampler_texts) or None
    args.grid_texts = grid_names(args.sigma_grid or ())
    args.sigma_grid = list(args.grid_texts) or None
    return args


def read_prompts(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        parser.error(f"--prompt-file {path} cannot be read ({error}): give a text file in UTF-8")
    return prompts or parser.error(f"--prompt-file {path} is empty: write one prompt a line")


def axes(args: argparse.Namespace, solvers: Iterable[Solver]) -> Axes:
    """The axes of the grid, for samplers that have been looked up."""
    given = {axis.values: getattr(args, axis.option, None) for axis in AXES.values()}
    given = {name: tuple(values) for name, values in given.items() if values}
    return Axes(tuple(solvers), **given, reference=args.reference)


def plain_command(program: str, args: argparse.Namespace) -> list[str]:
    """The words of a command with all settings that are not defaults, without the axes."""
    words = program.split()
    for name in args.changed:
        value, flag = getattr(args, name), f"--{name.replace('_', '-')}"
        if name in ("model", *SETTINGS, *SCRIPT_SETTINGS) and name != "reference":
            words += [flag, utf8(str(value))]
    return words


def cell_command(words: list[str], cell: Cell, sampler: str) -> str:
    """The command that renders one cell, quoted for a shell; sampler, sigma grid: as the command line named them."""
    words = [*words, "--samplers", sampler]
    for axis in AXES.values():
        value = getattr(cell, axis.field)
        if value is None or axis.instead_of:
            continue
        if isinstance(value, str):
            words += [f"{axis.flag}={value}"] if value.startswith("-") else [axis.flag, value]
        else:
            words += [axis.flag, number(value)]
    return shlex.join(words)
