"""What test.py and test_flux.py share: a pipeline as the grid engine's renderer.

torch, diffusers and k_diffusion are imported in the functions that need them: `--help` answers at once, and so does a
grid with nothing left to do.
"""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

from k_diffusing._messages import one_line
from k_diffusing.render import engine as grid_run
from k_diffusing.render.checks import check
from k_diffusing.render.engine import Ranks, Work, say_line
from k_diffusing.render.options import BadInput, options, parse
from k_diffusing.render.rendering import renderer
from k_diffusing.render.script import Script

__all__ = ["Script", "options", "parse", "run", "say_line"]


def run(script: Script, args: argparse.Namespace, say: Callable) -> int:
    """Render the grid; `say` (as print) what came of it. Exit code: 0, 1 (something failed), 2 (bad input), 130."""
    work = Work(
        script.family,
        script.program,
        check=lambda args: check(script, args),
        load=lambda args: renderer(script, args, load(script, args)),
    )
    return grid_run.run(work, args, say)


def is_main() -> bool:
    """Whether this process speaks for all of its launch."""
    return Ranks.of_environment().rank == 0


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
