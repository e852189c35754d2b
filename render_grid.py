"""What test.py and test_flux.py share: the command line, the renders, their files, the contact sheet.

torch, diffusers and k_diffusion are imported in the functions that need them: `--help` answers at once.
"""

import argparse
import contextlib
import re
import sys
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from contact_sheet import contact_sheet, write_png

UNRECORDED = ("model", "variant", "samplers", "device", "threads", "offload", "output", "sigma_grid", "height", "width")


class BadInput(Exception):  # noqa: N818 - the user's error, told in one line
    """What the command line asks for cannot be: the value, the reason and the choices."""


class Script(NamedTuple):
    """A render script.

    family: begins its files' names. network: the part of the pipeline whose calls are counted, calls_per_pair of
    them for a guided evaluation. multiple: divides a picture's sides. encode(pipe, args): keywords for the pipeline,
    the prompt's embeddings among them.
    """

    family: str
    network: str
    calls_per_pair: int
    multiple: int
    pipeline_class: Callable[[], type]
    encode: Callable[[Any, argparse.Namespace], dict[str, Any]]


def options(description: str) -> argparse.ArgumentParser:
    """The command line of both scripts; None stands for a default that depends on the model."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, usage="%(prog)s [options]"
    )
    add = parser.add_argument
    add("--model", help="hub name, diffusers folder or .safetensors file; the bundled demo model if left out")
    add("--prompt")
    add("--negative-prompt")
    add("--samplers", nargs="+", metavar="NAME", help="with or without sample_; all 13 if left out")
    for name in ("steps", "height", "width"):
        add(f"--{name}", type=int)
    add("--seed", type=int, default=0)
    add("--guidance-scale", type=float)
    add("--noise", default="torch", metavar="NAME", help="torch, cpu, philox, comfy, a1111 or brownian_tree")
    add("--sigma-grid", metavar="NAME", help="karras, simple, beta, ...; the scheduler's own if left out")
    add("--dtype", choices=("float32", "float16", "bfloat16"))
    add("--device", help="cpu, cuda, cuda:1, mps, ...")
    add("--offload", action="store_true", help="keep on the device only the part of the model that is at work")
    add("--output", type=Path, default=Path("output"), metavar="FOLDER")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None, demo: dict, real: dict) -> argparse.Namespace:
    """The command line with the defaults of the demo model or of real weights, whichever it names."""
    model = parser.parse_args(argv).model
    is_demo = model is None or Path(model).resolve() == Path(demo["model"]).resolve()
    parser.set_defaults(**(demo if is_demo else real))
    return parser.parse_args(argv)


def run(script: Script, args: argparse.Namespace, say: Callable) -> int:
    """Render; `say` (as print) what came of it. Exit code: 0, 1 (a sampler failed), 2 (bad input), 130 (Ctrl-C)."""
    try:
        samplers = check(script, args)
        return render_all(script, args, load(script, args), samplers, say)
    except BadInput as error:
        say(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say(f"interrupted: the pictures rendered so far are in {args.output}", file=sys.stderr)
        return 130


def check(script: Script, args: argparse.Namespace) -> list:
    """The records of the samplers asked for. Raises BadInput, before any model is loaded."""
    import torch

    from noise import check_noise
    from samplers_patch import SAMPLERS, find_sampler
    from sigma_grids import check_grid_choice, check_steps

    try:
        samplers = [find_sampler(name) for name in args.samplers or SAMPLERS]
        check_grid_choice(args.sigma_grid)
        check_steps(args.steps)
        check_noise(args.noise, None, args.seed, images=1)
    except ValueError as error:
        raise BadInput(error) from error
    for name, side in (("height", args.height), ("width", args.width)):
        if side is not None and (side < 1 or side % script.multiple):
            raise BadInput(f"--{name} {side}: give a positive multiple of {script.multiple}")
    check_model(args.model)
    if args.device is None:
        args.device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    try:
        device = torch.empty(0, device=args.device).device
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {args.output} cannot be made ({error.strerror}): give another folder") from error
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device {args.device} cannot be used here ({one_line(error)}): try cpu") from error
    if args.offload and device.type == "cpu":
        raise BadInput("--offload needs a GPU, and --device is cpu: leave it out, or name one, such as cuda")
    return list(dict.fromkeys(samplers))


def check_model(model: str) -> None:
    """Raise BadInput for what is neither weights on this machine nor the name of weights on the hub."""
    path, choices = Path(model), "give a diffusers folder, a .safetensors file, or a hub name such as owner/name"
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise BadInput(f"--model {model} has no model_index.json, so it holds no pipeline: {choices}")
    if path.is_file() and path.suffix != ".safetensors":
        raise BadInput(f"--model {model} is not a .safetensors file: {choices}")
    if not path.exists() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model):
        raise BadInput(f"--model {model} does not exist: {choices}")


def load(script: Script, args: argparse.Namespace):
    """The pipeline, on its device. Raises BadInput, in one line, whatever is wrong with the weights."""
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging

    if args.threads:
        torch.set_num_threads(args.threads)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    pipeline_class = script.pipeline_class()
    try:
        pipe = read_weights(pipeline_class, args)
        pipe.enable_model_cpu_offload(device=args.device) if args.offload else pipe.to(args.device)
    except Exception as error:  # diffusers, transformers, safetensors, huggingface_hub, torch: each raises its own
        sought = "" if Path(args.model).exists() else "no folder here, and from the hub "
        raise BadInput(
            f"--model {args.model} cannot be loaded ({sought}{one_line(error)}): check the name, the network, "
            "your access (`hf auth login`) and the memory (--offload, --dtype)"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read_weights(pipeline_class: type, args: argparse.Namespace):
    """A pipeline from a file, a folder or the hub; without `args.variant` of the weights where there is none."""
    import torch

    path, dtype = Path(args.model), getattr(torch, args.dtype)
    if path.is_file():
        return pipeline_class.from_single_file(args.model, dtype=dtype)
    if args.dtype == "float16" and args.variant and (not path.is_dir() or any(path.rglob(f"*.{args.variant}.*"))):
        with contextlib.suppress(ValueError):  # the hub has no such files
            return pipeline_class.from_pretrained(args.model, dtype=dtype, variant=args.variant)
    return pipeline_class.from_pretrained(args.model, dtype=dtype)


def render_all(script: Script, args: argparse.Namespace, pipe, samplers: list, say: Callable) -> int:
    """One picture per sampler from one encoding of the prompt, then the sheet. 1 if a sampler failed, else 0."""
    call = call_with_prompt(script, args, pipe)
    calls_each = 1 if call.get("negative_prompt_embeds") is None else script.calls_per_pair
    tiles = []
    for sampler in samplers:
        grid = args.sigma_grid or sampler.sigma_grid  # what it is known to need, if anything
        keywords = {**call, "sigma_grid": grid, "comfy_sampler": sampler.name}
        name = f"sample_{sampler.name}"
        path = args.output / f"{script.family}-{name}.png"
        try:
            picture, calls, seconds = render(pipe, getattr(pipe, script.network), keywords)
            nfe = calls // calls_each
            write_png(picture, path, png_text(args, sampler=name, sigma_grid=grid or "scheduler", evaluations=nfe))
        except Exception as error:  # whatever went wrong with this one, the others can be rendered
            say(f"{name:<26} failed: {one_line(error)}", file=sys.stderr)
            continue
        say(f"{name:<26} {seconds:6.2f} s {nfe:4d} evaluations  {path}")
        tiles.append((sampler.name, f"{nfe} nfe", picture))
    if tiles:
        path = args.output / f"{script.family}-samplers.png"
        heading = f"{model_name(args.model)}, {args.steps} steps, seed {args.seed}"
        write_png(contact_sheet(tiles, heading, args.prompt), path, png_text(args, sigma_grid=args.sigma_grid))
        say(f"all of them: {path}")
    return int(len(tiles) < len(samplers))


def call_with_prompt(script: Script, args: argparse.Namespace, pipe) -> dict[str, Any]:
    """Keywords for the pipeline that all samplers share; the prompt is encoded here, once."""
    import torch

    with torch.no_grad():
        call = script.encode(pipe, args)
    pipe.maybe_free_model_hooks()
    seeded = {"noise": args.noise, "seeds": args.seed}
    return call | seeded | {"height": args.height, "width": args.width, "num_inference_steps": args.steps}


def render(pipe, network, keywords: dict[str, Any]) -> tuple[Image.Image, int, float]:
    """A picture, the calls of `network` it took, and seconds."""
    calls, start = [], time.perf_counter()
    hook = network.register_forward_pre_hook(lambda *_: calls.append(None))
    try:
        picture = pipe(**keywords).images[0]
    finally:
        hook.remove()
    return picture, len(calls), time.perf_counter() - start


def one_line(error: BaseException) -> str:
    """The type and the first line of the message, 200 characters at most."""
    line = f"{type(error).__name__}: {error}".split("\n")[0]
    return line if len(line) <= 200 else f"{line[:197]}..."


def png_text(args: argparse.Namespace, **more) -> dict[str, str]:
    """What made a picture; nothing that differs from run to run or tells of the machine's folders."""
    made = {name: value for name, value in vars(args).items() if name not in UNRECORDED}
    made |= {**more, "model": model_name(args.model)}
    made |= {name: version(name) for name in ("torch", "diffusers", "k-diffusion")}
    with contextlib.suppress(OSError):
        project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]
        made[project["name"]] = project["version"]
    return {name: "(none)" if value is None else str(value) for name, value in made.items()}


def model_name(model: str) -> str:
    """A hub name as it is; of a folder or a file the last part."""
    return Path(model).resolve().name if Path(model).exists() else model
