"""What a command line asks for, checked before any model is loaded; and what a grid must know of its samplers.

torch, diffusers and k_diffusion are imported in the functions that need them.
"""

import argparse
import inspect
import os
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from k_diffusing._messages import one_line
from k_diffusing.model.guidance_asked import of_text
from k_diffusing.models import ModelError, check_model
from k_diffusing.render.cells import Solver
from k_diffusing.render.errors import BadInput
from k_diffusing.render.launch import Ranks
from k_diffusing.render.script import Script
from k_diffusing.spelled import check_counts, check_spelling


def check(script: Script, args: argparse.Namespace) -> list[Solver]:
    """Check all that a command line asks for, before any model is loaded.

    Args:
        script: Whose command line it is.
        args: What was parsed. `device` is chosen if none is given; `sources` is filled with what the samplers are, so
            that a user's file is run once.

    Returns:
        The samplers asked for.

    Raises:
        BadInput: Something cannot be: the value, the reason, the choices.
    """
    try:
        check_spelling(args.sampler_texts.values(), args.grid_texts.values(), args.noise)
        for steps in args.steps or ():
            check_counts(steps=steps)
        check_numbers(script, args)
        check_weights(args.model)
        check_names(script, args)
    except (ValueError, TypeError) as error:
        raise BadInput(error) from error
    solvers = [solver_of_source(script, args, name, source) for name, source in args.sources.items()]
    if args.eta is not None and not any(solver.has_eta for solver in solvers):
        raise BadInput(f"--eta {args.eta[0]:g}: none of these samplers has an option eta: leave it out")
    choose_device(args)
    return solvers


def check_names(script: Script, args: argparse.Namespace) -> None:
    """Find the samplers and check what else has a name or a range. Raises ValueError or TypeError."""
    from k_diffusing.grids.check import check_grid_choice
    from k_diffusing.grids.given import given_grid
    from k_diffusing.noise.check import check_noise
    from k_diffusing.programs.choose import find_program
    from k_diffusing.samplers.find import find_sampler, sampler_options
    from k_diffusing.samplers.options import check_options

    args.sources = find_sources(script, args)
    for name, text in args.grid_texts.items():
        check_grid_choice(None if name == "scheduler" else given_grid(text, find_program(args.program).grids))
    check_grids(args)
    for seed in args.seeds:
        check_noise(args.noise or find_program(args.program).noise, None, seed, images=1)
    for eta, source in product(args.eta or (), args.sources.values()):
        if "eta" in sampler_options(find_sampler(source.sampler)):
            check_options(find_sampler(source.sampler), {"eta": eta, **source.options})


def check_grids(args: argparse.Namespace) -> None:
    """Make each sigma grid for each number of steps, where the model's scheduler is known. Raises ValueError."""
    from k_diffusing.model.scheduler_config import is_flow
    from k_diffusing.planning import discrete_plan, flow_plan

    scheduler = scheduler_of(args.model) if args.sigma_grid else None
    for grid, steps in product(args.grid_texts.values(), args.steps or ()):
        if scheduler is not None and grid != "scheduler":
            asked = scheduler, "euler", None, grid, steps
            if is_flow(scheduler):
                flow_plan(*asked, program=args.program, size_mu=1.0)
            else:
                discrete_plan(*asked, program=args.program)


def choose_device(args: argparse.Namespace) -> None:
    """Put the device in `args`, an accelerator if there is one and none is named, and try it. Raises BadInput."""
    import torch

    if args.device is None:
        there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        args.device = there.type if there else "cpu"
    if args.device == "cuda" and Ranks.of_environment().world > 1:
        args.device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.empty(0, device=args.device).device
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"--device {args.device} cannot be used here ({one_line(error)}): try cpu") from error
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if args.offload and device.type == "cpu":
        raise BadInput("--offload needs a GPU, and --device is cpu: leave it out, or name one, such as cuda")


def find_sources(script: Script, args: argparse.Namespace) -> dict[str, Any]:
    """The samplers by their names. Raises ValueError or TypeError, with what there is to choose from."""
    from k_diffusing.compare.sources import find_source
    from k_diffusing.samplers.find import find_sampler
    from k_diffusing.samplers.options import choose_coordinates
    from k_diffusing.samplers.records import SAMPLERS

    texts = args.sampler_texts or {name: name for name in SAMPLERS}
    scheduler = scheduler_of(args.model) if any("Scheduler" in name for name in texts) else None
    found = {name: find_source(text, scheduler) for name, text in texts.items()}
    for name, source in found.items():
        for keyword in source.keywords:
            if keyword not in inspect.signature(script.pipeline_class().__call__).parameters:
                raise ValueError(f"{name}: {script.pipeline_class().__name__} has no option {keyword}: leave it out")
        if "flow_coordinates" in source.keywords:
            choose_coordinates(source.keywords["flow_coordinates"], find_sampler(source.sampler), source.options)
    return found


def scheduler_of(model: str):
    """The scheduler of a model that is not loaded yet; None for a file, or where loading is to tell what is wrong."""
    import diffusers

    if Path(model).is_file():
        return None
    try:
        config: Any = diffusers.DiffusionPipeline.load_config(model)  # pyright: ignore[reportPrivateImportUsage]
        return getattr(diffusers, config["scheduler"][1]).from_pretrained(model, subfolder="scheduler")
    except Exception:  # diffusers, huggingface_hub: each raises its own
        return None


def check_numbers(script: Script, args: argparse.Namespace) -> None:
    """Raise BadInput for a number that cannot be."""
    for word in args.guidance or ():
        weights = of_text(word)
        if isinstance(weights, list) and set(args.steps or ()) != {len(weights)}:
            raise BadInput(
                f"--guidance {word} has {len(weights)} weights, one for each step: give --steps {len(weights)}, and no "
                "other number of steps"
            )
    for name, side in (("height", args.height), ("width", args.width)):
        if side is not None and (side < 1 or side % script.multiple):
            raise BadInput(f"--{name} {side}: give a positive multiple of {script.multiple}")
    for evaluations in args.evaluations or ():
        if evaluations < 1:
            raise BadInput(f"--evaluations {evaluations}: give an integer of at least 1")
    if args.batch_size < 1:
        raise BadInput(f"--batch-size {args.batch_size}: give an integer of at least 1")
    if args.reference < 0:
        raise BadInput(f"--reference {args.reference}: give a number of steps, or 0 for no reference")


def check_weights(model: str) -> None:
    """Raise BadInput for what is neither weights on this machine nor the name of weights on the hub."""
    try:
        check_model(model)
    except ModelError as error:
        raise BadInput(f"--model {error}") from error


def solver_of(sampler) -> Solver:
    """What the grid must know of a sampler. dpm_fast takes as many evaluations as its grid has steps."""
    from k_diffusing.samplers.find import sampler_options

    per_step = 1 if sampler.takes == "sigma_range" else sampler.nfe_per_step
    return Solver(sampler.name, per_step, "eta" in sampler_options(sampler), sampler.sigma_grid, sampler.adaptive)


def solver_of_source(script: Script, args: argparse.Namespace, name: str, source) -> Solver:
    """What the grid must know of a sampler from anywhere. Raises BadInput where its evaluations are not known."""
    from k_diffusing.samplers.find import find_sampler
    from k_diffusing.samplers.options import choose_coordinates
    from k_diffusing.samplers.probe import Probe

    sampler = find_sampler(source.sampler)
    solver = solver_of(sampler)._replace(name=name)
    if source.sigma_grid:
        solver = solver._replace(sigma_grid=source.sigma_grid)
    if "eta" in source.options:
        solver = solver._replace(has_eta=False)
    if not sampler.custom and (sampler.even or sampler.adaptive):
        return solver
    coordinates = sampler.flow_coordinates
    if "flow_coordinates" in script.keywords:
        chosen = source.keywords.get("flow_coordinates", args.flow_coordinates)
        coordinates = choose_coordinates(chosen, sampler, source.options)
    probe = Probe(sampler, source.options, flow=coordinates == "flow")
    return solver._replace(per_step=1, alone=probe.mixes_images(), counted=counted(name, probe, args.evaluations or ()))


def counted(name: str, probe, budgets: Iterable[int]) -> list[list[int]]:
    """Each number of evaluations with the steps that it is enough for.

    Raises BadInput where it is enough for none, and where there is no telling.
    """
    found = []
    for budget in budgets:
        try:
            steps = probe.steps_within(budget)
        except Exception as error:  # the user's code: whatever it raises
            raise BadInput(
                f"--evaluations: how many {name} takes is not known ({one_line(error)}): give --steps"
            ) from error
        if steps == 0:
            raise BadInput(
                f"--evaluations {budget}: {name} takes {probe.evaluations(1)} in a single step: give at least that many"
            )
        found.append([budget, steps])
    return found
