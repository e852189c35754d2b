"""Samplers in SDXL and FLUX pipelines, from the command line.

k-diffusing compare dpmpp_2m DPMSolverMultistepScheduler         where do two samplers part?
k-diffusing judge my_samplers.py:sample_heun --order 2           is a sampler right?
k-diffusing samplers                                             k_diffusion's samplers
k-diffusing render --samplers euler heun --steps 5 10 20         a grid of pictures
k-diffusing tune --sampler dpmpp_2m --evaluations 6 8 10 20      the sigma grid for a model, a sampler and a budget
k-diffusing reproduce ComfyUI_00001_.png                         how was a picture made, and the call that makes it

Each command tells of its options: k-diffusing compare --help. `python -m k_diffusing` is the same command.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k_diffusing import models
from k_diffusing._messages import SAMPLER_FORMS, parsed
from k_diffusing._versions import environment
from k_diffusing.model.guidance_asked import of_text
from k_diffusing.names.programs import PROGRAM_NAMES, check_program_name
from k_diffusing.render.launch import say_line
from k_diffusing.spelled import check_counts, check_spelling

COMPARE = """Run two samplers on the same model, prompt, noise and sigmas, and say where they part first.

k-diffusing compare dpmpp_2m DPMSolverMultistepScheduler --steps 20
k-diffusing compare k:euler diffusers:FlowMatchEulerDiscreteScheduler --model demo-flux --html
k-diffusing compare heun my_samplers.py:sample_heun --sigma-grid karras --tolerance 1e-5

{forms}
Exit code: 0 within --tolerance, 1 if they part, 2 for bad input, 3 if a sampler fails, 130 for Ctrl-C.
"""
JUDGE = """Judge samplers on a closed-form model, whose answer is known exactly: no weights are needed.

k-diffusing judge my_samplers.py:sample_heun
k-diffusing judge heun dpm_2 dpmpp_2m --model flux --order 2

{forms}
Exit code: 0 if all are right, 1 if one is wrong or below --order, 2 for bad input, 3 if a sampler fails, 130 for
Ctrl-C. A warning in a verdict leaves the exit code as it is.
"""
REPRODUCE = """Say how another program made a picture, as a table and as the call that makes it here, and make it.

k-diffusing reproduce ComfyUI_00001_.png
k-diffusing reproduce workflow.json --node 9
k-diffusing reproduce 00001-42.png --model my/sdxl.safetensors --lora add_detail=loras/add_detail.safetensors

FILE is a PNG, JPEG or WebP picture of ComfyUI, of A1111's web UI or Forge, or of ours, a workflow of ComfyUI in JSON,
or a text as A1111 writes it. Nothing in it is executed.
Exit code: 0 if all of it was understood, 1 if the picture cannot be the same, 2 for bad input, 130 for Ctrl-C.
"""
SAMPLERS = "Print the samplers: order of accuracy, evaluations in a step, noise, and sigmas they take."
FORMS = f"A sampler is {SAMPLER_FORMS}\n(comfy: with ComfyUI's folder on PYTHONPATH)."


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Its words. Those of this process if left out.

    Returns:
        The exit code, as the command's --help tells.
    """
    parser = _parser("k-diffusing", __doc__)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="those of the command")
    parser.add_argument("--version", action="version", version=environment(), help="of all that a run depends on")
    args = parser.parse_args(argv)
    return COMMANDS[args.command](args.options)


def compare(argv: list[str]) -> int:
    """`k-diffusing compare`: prints the verdict and a table, and writes JSON, a figure and, if asked for, a page."""
    parser = _parser("k-diffusing compare", COMPARE.format(forms=FORMS))
    add = parser.add_argument
    add("samplers", nargs="+", metavar="SAMPLER", help="two of them")
    add("--model", default="demo", help="demo, demo-flux, a hub name, diffusers folder or .safetensors file")
    add("--prompt")
    add("--steps", type=int, default=20)
    grids = "scheduler (its grid for both), own (each its own), or one for both: karras, karras,rho=5, sigmas.json, ..."
    add("--sigma-grid", "--grid", dest="grid", metavar="NAME", help=grids)
    add("--seed", type=int, default=0)
    noise = "torch, cpu, philox, comfy, a1111 or brownian_tree, for both; the program's, or torch, if left out"
    add("--noise", metavar="NAME", help=noise)
    add("--program", choices=PROGRAM_NAMES, help="run both as that program does; of one: SAMPLER,program=NAME")
    add("--tolerance", type=float, help="of |a - b| / |a|; default 5e-4")
    for name in ("guidance-scale", "true-cfg-scale"):
        add(f"--{name}", type=float)
    add("--guidance", metavar="WEIGHTS", help="in place of them: 7,5,3,1 (a weight for each step), cfg++=0.6, ...")
    for name in ("height", "width"):
        add(f"--{name}", type=int)
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    add("--device", default="cpu")
    add("--output", type=Path, default=Path("output/compare"), metavar="FOLDER")
    add("--html", action="store_true", help="also write one self-contained page")
    return _told(_compare, parsed(parser, argv))


def _compare(args: argparse.Namespace) -> int:
    if len(args.samplers) != 2:
        raise ValueError(f"give two samplers to compare, not {len(args.samplers)}")
    check_spelling(args.samplers, [args.grid], args.noise, [args.guidance])
    _check_run(args, steps=args.steps)
    from k_diffusing.compare.compare import compare_samplers

    pipe, (a, b) = _load(args), args.samplers
    args.output.mkdir(parents=True, exist_ok=True)  # fails before the model runs
    comparison = compare_samplers(
        pipe, a, b, _call_keywords(args),
        steps=args.steps, grid=args.grid, seed=args.seed, tolerance=args.tolerance,
    )  # fmt: skip
    say_line(f"{comparison}\n")
    for path in _write(comparison, pipe, args.output, args.html):
        say_line(f"wrote {path}")
    return 0 if comparison.difference.agree else 1


def _check_run(args: argparse.Namespace, **numbers: int | None) -> None:
    """Raise ValueError for weights, a size or a number that cannot be, before torch is imported."""
    check_counts(height=args.height, width=args.width, **numbers)
    if args.program is not None:
        check_program_name(args.program)
    try:
        models.check_model(args.model)
    except models.ModelError as error:
        raise ValueError(f"--model {error}") from error


def _load(args: argparse.Namespace):
    """The pipeline. Raises ValueError for a model that cannot be loaded."""
    import torch

    models.hide_loading_bars()
    threads = models.DEMOS[args.model].threads if args.model in models.DEMOS else None
    if threads:
        torch.set_num_threads(threads)
    try:
        return models.load(args.model, dtype=args.dtype, device=args.device)
    except models.ModelError as error:
        raise ValueError(f"--model {error}") from error


def _call_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """What both runs are given, the demo's defaults included."""
    of_demo = args.model in models.DEMOS
    call: dict[str, Any] = models.DEMOS[args.model].keywords if of_demo else {"prompt": models.REAL_PROMPT}
    if args.program:
        call["program"] = args.program
    if args.noise or not args.program:
        call["noise"] = args.noise or "torch"
    for name in ("prompt", "guidance_scale", "true_cfg_scale", "height", "width"):
        if getattr(args, name) not in (None, ""):
            call[name] = getattr(args, name)
    if args.guidance is not None:
        call["guidance"] = of_text(args.guidance)
    return call


def _write(comparison, pipe, folder: Path, html: bool) -> list[Path]:
    """JSON, figure and, if asked for, the page, in a folder that exists; each whole or not at all."""
    from k_diffusing._files import write_whole
    from k_diffusing.compare.figure import figure_png
    from k_diffusing.compare.page import page

    stem = folder / re.sub(r"[^\w.=+-]+", "_", "-".join(comparison.labels))[-160:]
    files = {".json": comparison.to_json().encode()}
    try:
        files[".png"] = figure_png(comparison)
    except ImportError:
        say_line("no figure: pip install matplotlib", file=sys.stderr)
    if html:
        strips = tuple(trace.strip(pipe) for trace in comparison.traces)
        files[".html"] = page(comparison, strips).encode()
    for suffix, content in files.items():
        write_whole(stem.with_name(stem.name + suffix), content)
    return [stem.with_name(stem.name + suffix) for suffix in files]


def judge(argv: list[str]) -> int:
    """`k-diffusing judge`: prints a verdict for each sampler."""
    parser = _parser("k-diffusing judge", JUDGE.format(forms=FORMS))
    parser.add_argument("samplers", nargs="+", metavar="SAMPLER", help="one or more")
    parser.add_argument("--model", choices=("sdxl", "flux"), default="sdxl", help="the closed-form model")
    order = "exit code 1 for an order of accuracy below N - 0.25"
    parser.add_argument("--order", type=float, metavar="N", help=order)
    parser.add_argument("--program", choices=PROGRAM_NAMES, help="judge what that program runs by a sampler's name")
    grids = "karras, karras,rho=5, ...; that of the sampler's name if left out, or on sdxl karras"
    parser.add_argument("--sigma-grid", metavar="NAME", help=grids)
    return _told(_judge, parsed(parser, argv))


def _judge(args: argparse.Namespace) -> int:
    if args.order is not None and not args.order > 0:
        raise ValueError(f"--order {args.order:g}: an order of accuracy is above 0")
    check_spelling(args.samplers, [args.sigma_grid])
    import torch

    from k_diffusing.oracle.judge import judge

    torch.set_num_threads(1)  # fastest for networks this small
    judgements = []
    for text in args.samplers:
        judgements.append(judge(text, args.model, args.program, args.sigma_grid))
        say_line(judgements[-1].verdict)
    low = [] if args.order is None else [one for one in judgements if not one.reaches(args.order)]
    for one in low:
        say_line(f"{one.label} does not reach order {args.order:g}")
    return 0 if all(one.right for one in judgements) and not low else 1


def samplers(argv: list[str]) -> int:
    """`k-diffusing samplers`: prints the table of them, or what they are called in other programs."""
    parser = _parser("k-diffusing samplers", SAMPLERS)
    parser.add_argument("name", nargs="*", metavar="NAME", help="one of them, by any name: all that is known of it")
    parser.add_argument("--names", action="store_true", help="their names in ComfyUI, A1111 and diffusers")
    parser.add_argument("--markdown", action="store_true", help="the same as a page, which is docs/names.md")
    return _told(_samplers, parsed(parser, argv))


def _samplers(args: argparse.Namespace) -> int:
    from k_diffusing.samplers import facts, show

    if args.name:
        say_line(show.about(" ".join(args.name)))
    elif args.markdown:
        say_line(show.names_page().rstrip())
    else:
        say_line(show.names_table() if args.names else facts.sampler_table())
    return 0


def render(argv: list[str]) -> int:
    """`k-diffusing render`: renders grids of pictures."""
    from k_diffusing.render import families

    return families.main(argv)


def tune(argv: list[str]) -> int:
    """`k-diffusing tune`: finds sigma grids and writes them."""
    from k_diffusing.tune import command

    parser = _parser("k-diffusing tune", command.TUNE.format(forms=FORMS))
    command.add_options(parser)

    def checked(args: argparse.Namespace) -> int:
        others = [text for text in args.sampler if text != command.FITTED]
        check_spelling(others, guidance=[args.guidance])
        _check_run(args, batch_size=args.batch_size)
        return command.run(args, _load, _call_keywords, say_line)

    return _told(checked, parsed(parser, argv))


def reproduce(argv: list[str]) -> int:
    """`k-diffusing reproduce`: prints how a picture was made, and renders it again."""
    from k_diffusing.reproduce import command

    parser = _parser("k-diffusing reproduce", REPRODUCE)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("--node", metavar="ID", help="of a workflow with several: the node that saves the picture")
    add("--model", metavar="NAME", help="render it: demo, demo-flux, a hub name, diffusers folder or .safetensors file")
    add("--lora", action="append", default=[], metavar="NAME=FILE", help="a LoRA of the file's, by its name there")
    add("--image", type=Path, metavar="FILE", help="the picture that it begins with, if not beside FILE")
    add("--mask", type=Path, metavar="FILE", help="the mask of what is made anew, likewise")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    add("--device", default="cpu")
    add("--output", type=Path, default=Path("output/reproduce"), metavar="FOLDER")
    return _told(lambda args: command.run(args, _load, say_line), parsed(parser, argv))


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "compare": compare,
    "judge": judge,
    "samplers": samplers,
    "render": render,
    "tune": tune,
    "reproduce": reproduce,
}


def _told(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; what it raises is told on standard error, in place of a traceback."""
    try:
        return command(args)
    except KeyboardInterrupt:
        say_line("interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, ImportError, OSError) as error:
        say_line(f"error: {error}", file=sys.stderr)
        if not isinstance(error, RuntimeError):  # torch is not imported for a misspelt name
            return 2
        from k_diffusing.compare.failure import SamplerError

        return 3 if isinstance(error, SamplerError) else 2


def _parser(name: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
