"""What test.py and test_flux.py share: a pipeline as the grid engine's renderer.

torch, diffusers and k_diffusion are imported in the functions that need them: `--help` answers at once, and so does a
grid with nothing left to do.
"""

import argparse
from collections.abc import Callable

from k_diffusing import models
from k_diffusing.render import engine
from k_diffusing.render.checks import check
from k_diffusing.render.errors import BadInput
from k_diffusing.render.launch import Ranks, say_line
from k_diffusing.render.options import options, parse
from k_diffusing.render.rendering import renderer
from k_diffusing.render.script import Script
from k_diffusing.render.work import Work

__all__ = ["Script", "options", "parse", "run", "say_line"]


def run(script: Script, args: argparse.Namespace, say: Callable) -> int:
    """Render the grid; `say` (as print) what came of it. Exit code: 0, 1 (something failed), 2 (bad input), 130."""
    work = Work(
        script.family,
        script.program,
        check=lambda args: check(script, args),
        load=lambda args: renderer(script, args, load(script, args)),
    )
    return engine.run(work, args, say)


def is_main() -> bool:
    """Whether this process speaks for all of its launch."""
    return Ranks.of_environment().rank == 0


def load(script: Script, args: argparse.Namespace):
    """The pipeline, on its device. Raises BadInput, in one line, whatever is wrong with the weights."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    models.hide_loading_bars()
    weights = {name: getattr(args, name) for name in ("dtype", "variant", "device", "offload")}
    try:
        return models.load(args.model, kind=script.pipeline_class(), **weights)
    except models.ModelError as error:
        raise BadInput(f"--model {error}") from error
