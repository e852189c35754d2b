"""What test.py and test_flux.py share: a pipeline as the grid engine's renderer.

torch, diffusers and k_diffusion are imported in the functions that need them: `--help` answers at once, and so does a
grid with nothing left to do.
"""

import argparse
import contextlib
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from k_diffusing._messages import one_line
from k_diffusing.render import engine as grid_run
from k_diffusing.render.adherence import adherence_of
from k_diffusing.render.cells import Cell, Solver
from k_diffusing.render.engine import Ranks, Rendered, Work, say_line
from k_diffusing.render.options import BadInput, options, parse

__all__ = ["Script", "options", "parse", "run", "say_line"]


class Script(NamedTuple):
    """A render script.

    family: begins its files' names. program: its own name. network: the part of the pipeline whose calls are counted,
    calls_per_pair of them for an evaluation with true CFG. multiple: divides a picture's sides.
    encode(pipe, args, prompt, guided): the prompt's embeddings by the pipeline's keywords; with those of the negative
    prompt, in keywords that begin with "negative", if guided. guidance: the fields of a cell that guide; a value above
    1 takes a negative prompt. keywords: further options that the pipeline takes as they are.
    """

    family: str
    program: str
    network: str
    calls_per_pair: int
    multiple: int
    pipeline_class: Callable[[], type]
    encode: Callable[[Any, argparse.Namespace, str, bool], dict[str, Any]]
    guidance: str
    keywords: tuple[str, ...] = ()


def run(script: Script, args: argparse.Namespace, say: Callable) -> int:
    """Render the grid; `say` (as print) what came of it. Exit code: 0, 1 (something failed), 2 (bad input), 130."""
    work = Work(
        script.family,
        script.program,
        check=lambda args: check(script, args),
        load=lambda args, prompts: renderer(script, args, load(script, args), prompts),
    )
    return grid_run.run(work, args, say)


def is_main() -> bool:
    """Whether this process speaks for all of its launch."""
    return Ranks.of_environment().rank == 0


def check(script: Script, args: argparse.Namespace) -> list[Solver]:
    """The samplers asked for. Raises BadInput, before any model is loaded. Chooses the device if none is given.

    args.sources is filled with what they are, so that a user's file is run once.
    """
    import torch

    from k_diffusing.grids.check import check_grid_choice, check_steps
    from k_diffusing.noise.check import check_noise
    from k_diffusing.samplers.find import find_sampler, sampler_options
    from k_diffusing.samplers.options import check_options

    try:
        args.sources = find_sources(script, args)
        for name in args.sigma_grid or ():
            check_grid_choice(None if name == "scheduler" else name)
        for steps in args.steps or ():
            check_steps(steps)
        for seed in args.seeds:
            check_noise(args.noise, None, seed, images=1)
        for eta, source in product(args.eta or (), args.sources.values()):
            if "eta" in sampler_options(find_sampler(source.sampler)):
                check_options(find_sampler(source.sampler), {"eta": eta, **source.options})
    except (ValueError, TypeError) as error:
        raise BadInput(error) from error
    check_numbers(script, args)
    check_model(args.model)
    solvers = [solver_of_source(script, args, name, source) for name, source in args.sources.items()]
    if args.eta is not None and not any(solver.has_eta for solver in solvers):
        raise BadInput(f"--eta {args.eta[0]:g}: none of these samplers has an option eta: leave it out")
    if args.device is None:
        args.device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
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
    return solvers


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
                raise ValueError(f"{name}: the pipeline of {script.program} has no option {keyword}: leave it out")
        if "flow_coordinates" in source.keywords:
            choose_coordinates(source.keywords["flow_coordinates"], find_sampler(source.sampler), source.options)
    return found


def scheduler_of(model: str):
    """The scheduler of a model that is not loaded yet; None for a file, or where loading is to tell what is wrong."""
    import diffusers

    if Path(model).is_file():
        return None
    try:
        name = diffusers.DiffusionPipeline.load_config(model)["scheduler"][1]
        return getattr(diffusers, name).from_pretrained(model, subfolder="scheduler")
    except Exception:  # diffusers, huggingface_hub: each raises its own
        return None


def check_numbers(script: Script, args: argparse.Namespace) -> None:
    """Raise BadInput for a number that cannot be."""
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
    if "eta" in source.options:
        solver = solver._replace(has_eta=False)
    if not sampler.custom:
        return solver
    coordinates = sampler.flow_coordinates
    if "flow_coordinates" in script.keywords:
        chosen = source.keywords.get("flow_coordinates", args.flow_coordinates)
        coordinates = choose_coordinates(chosen, sampler, source.options)
    probe = Probe(sampler, source.options, flow=coordinates == "flow")
    return solver._replace(per_step=1, alone=probe.mixes_images(), counted=counted(name, probe, args.evaluations or ()))


def counted(name: str, probe, budgets: Iterable[int]) -> list[list[int]]:
    """Each number of evaluations with the steps that it is enough for. Raises BadInput where there are none, or no
    telling."""
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


def renderer(script: Script, args: argparse.Namespace, pipe, prompts: list[str]) -> grid_run.Render:
    """A function that renders a batch of cells of one recipe, from prompts that are encoded here, each once."""
    encoded = encodings(script, args, pipe, prompts)
    adherence = adherence_of(args.model)
    network, device = getattr(pipe, script.network), pipe._execution_device
    sources = sources_for(args, pipe)

    def render_cells(cells: list[Cell]) -> Rendered:
        keywords = keywords_of(script, args, cells, sources.get(cells[0].sampler))
        keywords |= gathered([encoded[cell.prompt] for cell in cells], device)
        pictures, calls, seconds, network_seconds, memory = render(pipe, network, device, keywords)
        per_evaluation = script.calls_per_pair if getattr(cells[0], script.guidance) > 1 else 1
        kept = [adherence(cell.prompt, picture) for cell, picture in zip(cells, pictures, strict=True)]
        return Rendered(pictures, calls // per_evaluation, seconds, network_seconds, memory, kept)

    return render_cells


def sources_for(args: argparse.Namespace, pipe) -> dict[str, Any]:
    """The samplers by their names; diffusers' schedulers made from the config of the pipeline's. Raises BadInput."""
    from k_diffusing.compare.sources import find_source
    from k_diffusing.schedulers.as_sampler import SchedulerSampler

    found = dict(args.sources)
    for name, source in found.items():
        if isinstance(source.sampler, SchedulerSampler):
            try:
                found[name] = find_source(source.label, pipe.scheduler)
            except (ValueError, TypeError) as error:
                raise BadInput(f"{name}, made from the config of this model's scheduler: {error}") from error
    return found


def encodings(script: Script, args: argparse.Namespace, pipe, prompts: list[str]) -> dict[str, dict[str, Any]]:
    """The embeddings of each prompt, on the CPU; the negative prompt is encoded with the first, for all."""
    import torch

    scales = getattr(args, script.guidance)
    found, negative = {}, {}
    with torch.no_grad():
        for prompt in prompts:
            embeds = script.encode(pipe, args, prompt, max(scales) > 1 and not negative)
            embeds = {name: embed.to("cpu") for name, embed in embeds.items() if embed is not None}
            negative = negative or {name: embed for name, embed in embeds.items() if name.startswith("negative")}
            found[prompt] = embeds | negative
    pipe.maybe_free_model_hooks()  # with --offload the text encoders leave the device
    return found


def gathered(embeds: list[dict[str, Any]], device) -> dict[str, Any]:
    """The embeddings of a batch, on a device."""
    import torch

    return {name: torch.cat([one[name] for one in embeds]).to(device) for name in embeds[0]}


def keywords_of(script: Script, args: argparse.Namespace, cells: list[Cell], source) -> dict[str, Any]:
    """The pipeline's keywords for cells of one recipe, all but the embeddings; source: None for the reference's."""
    cell = cells[0]
    keywords = {name: getattr(args, name) for name in ("noise", "height", "width", *script.keywords)}
    keywords |= {"seeds": [one.seed for one in cells], "num_inference_steps": cell.steps}
    keywords |= {"comfy_sampler": cell.sampler, "guidance_scale": cell.guidance_scale}
    if source is not None:
        keywords |= {"comfy_sampler": source.sampler, "sampler_options": source.options, **source.keywords}
    keywords["sigma_grid"] = None if cell.sigma_grid == "scheduler" else cell.sigma_grid
    if cell.true_cfg_scale is not None:
        keywords["true_cfg_scale"] = cell.true_cfg_scale
    if cell.eta is not None:
        keywords["sampler_options"] = {**keywords.get("sampler_options", {}), "eta": cell.eta}
    return keywords


def render(pipe, network, device, keywords: dict[str, Any]) -> tuple[list, int, float, float, float | None]:
    """The pictures, the calls of `network` they took, seconds, those of the network, and MiB at most."""
    import torch

    cuda = device.type == "cuda"
    marks = []

    def mark(*_) -> None:
        marks.append(torch.cuda.Event(enable_timing=True) if cuda else time.perf_counter())
        if cuda:
            marks[-1].record()  # the device takes the time as it gets there: nothing waits

    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    hooks = [network.register_forward_pre_hook(mark), network.register_forward_hook(mark)]
    start = time.perf_counter()
    try:
        pictures = pipe(**keywords).images
        if cuda:
            torch.cuda.synchronize(device)
    finally:
        for hook in hooks:
            hook.remove()
    seconds = time.perf_counter() - start
    pairs = list(zip(marks[::2], marks[1::2], strict=True))
    network_seconds = sum(a.elapsed_time(b) / 1000 if cuda else b - a for a, b in pairs)
    return pictures, len(pairs), seconds, network_seconds, peak_memory(device)


def peak_memory(device) -> float | None:
    """MiB at most: of a GPU since the last reset, else of this process since its start (None on Windows)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
