"""The command line of test.py and test_flux.py, and what it asks for, as a manifest holds it."""

import argparse
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from k_diffusing.render.axes import AXES, Axes, Axis
from k_diffusing.render.cells import Cell, Solver
from k_diffusing.render.folder import model_identity, versions
from k_diffusing.render.names import FORMS, contents, sampler_names
from k_diffusing.render.words import number, shown, text, utf8

SETTINGS = ("negative_prompt", "height", "width", "noise", "dtype", "device", "reference")
SCRIPT_SETTINGS = ("flow_coordinates", "max_sequence_length")  # of test_flux.py alone


class BadInput(Exception):  # noqa: N818 - the user's error, told in one line
    """What the command line asks for cannot be: the value, the reason and the choices."""


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
    add("--model", help="hub name, diffusers folder or .safetensors file; the bundled demo model if left out")
    prompts = parser.add_mutually_exclusive_group()
    add_axis(prompts, AXES["prompt"])
    prompts.add_argument("--prompt-file", type=Path, metavar="FILE", help="prompts, one a line")
    add("--negative-prompt", type=text)
    add("--samplers", nargs="+", metavar="SAMPLER", help=f"{FORMS}; k_diffusion's 13 if left out")
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
    read = {} if axis.read is None else {"type": axis.read}
    parser.add_argument(
        axis.flag, *axis.aliases, nargs="+", default=default, metavar=axis.metavar, help=axis.help, **read
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """What is the same in all cells of a grid, and where and how it is rendered."""
    add = parser.add_argument
    add("--height", type=int)
    add("--width", type=int)
    add("--noise", default="torch", metavar="NAME", help="torch, cpu, philox, comfy, a1111 or brownian_tree")
    add("--dtype", choices=("float32", "float16", "bfloat16"))
    add("--device", help="cpu, cuda, cuda:1, mps, ...")
    add("--offload", action="store_true", help="keep on the device only the part of the model that is at work")
    batches = "pictures at a time, of one sampler and several seeds: the same as one by one, to a level or two of 255"
    add("--batch-size", type=int, default=1, metavar="N", help=batches)
    add("--output", type=Path, metavar="FOLDER", help="output if left out, or a new folder in it for another grid")


def parse(parser: argparse.ArgumentParser, argv: list[str] | None, demo: dict, real: dict) -> argparse.Namespace:
    """The command line with the defaults of the demo model or of real weights, whichever it names.

    Axes are lists, each value once. `changed` lists the options whose values are not the defaults. `sampler_texts` has
    by the names of the samplers, which are their axis, what they were given as.
    """
    model = parser.parse_args(argv).model
    is_demo = model is None or os.path.realpath(model) == os.path.realpath(demo["model"])
    parser.set_defaults(**(demo if is_demo else real))
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
    if len(args.evaluations or args.steps) == 1:
        args.reference = 0  # nothing converges to it
    args.sampler_texts = sampler_names(args.samplers or ())
    args.samplers = list(args.sampler_texts) or None
    return args


def read_prompts(parser: argparse.ArgumentParser, path: Path) -> list[str]:
    """The lines of a file that are not empty."""
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        parser.error(f"--prompt-file {path} cannot be read ({error}): give a text file in UTF-8")
    return prompts or parser.error(f"--prompt-file {path} is empty: write one prompt a line")


def asked(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks for: all that a picture depends on, and nothing of this machine's folders.

    The device counts without its number: one grid may be shared by several of a kind.
    """
    axes: dict[str, Any] = {"samplers": args.samplers or "all"}
    axes |= {axis.option: given for axis in AXES.values() if (given := getattr(args, axis.option, None)) is not None}
    axes |= {axis.option: "default" for axis in AXES.values() if axis.own and axis.option not in axes}
    settings = {name: getattr(args, name) for name in (*SETTINGS, *SCRIPT_SETTINGS) if hasattr(args, name)}
    settings["device"] = args.device and args.device.split(":")[0]
    made = {"model": model_identity(args.model), "axes": axes, "settings": settings, "versions": versions()}
    files = contents(args.sampler_texts)
    return made | {"sampler_files": files} if files else made


def axes(args: argparse.Namespace, solvers: Iterable[Solver]) -> Axes:
    """The axes of the grid, for samplers that have been looked up."""
    given = {axis.values: getattr(args, axis.option, None) for axis in AXES.values()}
    given = {name: tuple(values) for name, values in given.items() if values}
    return Axes(tuple(solvers), **given, reference=args.reference)


def plain_command(program: str, args: argparse.Namespace) -> list[str]:
    """The words of a command with all settings that are not defaults, without the axes."""
    words = ["python", program]
    for name in args.changed:
        value, flag = getattr(args, name), f"--{name.replace('_', '-')}"
        if name in ("model", *SETTINGS, *SCRIPT_SETTINGS) and name != "reference":
            words += [flag, utf8(str(value))]
    return words


def fault_of(manifest: dict[str, Any]) -> str | None:
    """What is wrong with a manifest that somebody has edited, in a few words; None if it can be compared and shown."""
    kinds = {name: dict for name in ("model", "axes", "settings", "versions")} | {"solvers": list, "command": list}
    for name, kind in kinds.items():
        if not isinstance(manifest.get(name), kind):
            kept = shown(manifest[name]) if name in manifest else "missing"
            return f'"{name}" is {kept} and should be {"an object" if kind is dict else "a list"}'
    model, optional = manifest["model"], str | None
    if not isinstance(model.get("name"), str):
        return f'the name in "model" is {shown(model.get("name"))} and should be a text'
    for name in ("revision", "fingerprint"):
        if name not in model or not isinstance(model[name], optional):
            return f'the {name} in "model" is {shown(model.get(name))} and should be a text or null'
    for facts in manifest["solvers"]:
        if not (isinstance(facts, list) and is_solver(facts)):
            return f'"solvers" has {shown(facts)}, which is no sampler'
    for name in ("sampler_texts", "sampler_files"):
        texts = manifest.get(name, {})
        if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
            return f'"{name}" is {shown(texts)} and should be an object of texts'
    if not all(isinstance(word, str) for word in manifest["command"]):
        return f'"command" is {shown(manifest["command"])} and should be words'
    return None


def is_solver(facts: list) -> bool:
    """Whether a manifest's list is a Solver."""
    *kinds, _ = Solver.__annotations__.values()
    known, counted = facts[: len(kinds)], facts[len(kinds) :]
    if not (len(known) == len(kinds) and all(map(isinstance, known, kinds)) and known[1] >= 1):
        return False
    return not counted or (len(counted) == 1 and isinstance(counted[0], list) and all(map(is_pair, counted[0])))


def is_pair(value) -> bool:
    """Whether it is two integers."""
    return isinstance(value, list) and [type(one) for one in value] == [int, int]


def cell_command(words: list[str], cell: Cell, sampler: str) -> str:
    """The command that renders one cell, quoted for a shell; sampler: as the command line named it."""
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
