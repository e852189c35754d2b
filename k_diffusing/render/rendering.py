"""A pipeline as what renders the cells of a grid: its prompts, its keywords, the time and memory it takes.

torch is imported in the functions that need it.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from k_diffusing.model.guidance_asked import of_text
from k_diffusing.render.adherence import adherence_of
from k_diffusing.render.cells import Cell
from k_diffusing.render.errors import BadInput
from k_diffusing.render.script import Script
from k_diffusing.render.work import Render, Rendered

FLUX_TOKENS = 512  # of the T5 prompt, where the user says nothing
KEPT = 256  # prompts whose embeddings are in memory: a large T5's are 4 MB each


def renderer(script: Script, args: argparse.Namespace, pipe) -> Render:
    """A function that renders a batch of cells of one recipe."""
    encoders = functools.cache(lambda program: encoder(script, args, pipe, program))
    adherence = adherence_of(args.model)
    network, device = getattr(pipe, script.network), pipe._execution_device
    sources = sources_for(args, pipe)

    def render_cells(cells: list[Cell]) -> Rendered:
        keywords = keywords_of(script, args, cells, sources.get(cells[0].sampler))
        encode = encoders(keywords["program"])
        keywords |= gathered([encode(cell.prompt) for cell in cells], device)
        pictures, evaluations, seconds, network_seconds, memory = render(pipe, network, device, keywords)
        kept = [adherence(cell.prompt, picture) for cell, picture in zip(cells, pictures, strict=True)]
        return Rendered(pictures, evaluations, seconds, network_seconds, memory, kept)

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


def encoder(
    script: Script, args: argparse.Namespace, pipe, program: str | None = None
) -> Callable[[str], dict[str, Any]]:
    """A function that encodes a prompt as it is first needed: its embeddings by the pipeline's keywords, on the CPU.

    The negative prompt is encoded with the first one, for all. Empty prompts and lengths are the program's.
    """
    from k_diffusing.programs.choose import find_program

    whose, negative = find_program(program), {}
    guided = args.guidance is not None or any(map(whose.guides, getattr(args, script.guidance)))
    args = argparse.Namespace(**vars(args))
    if args.negative_prompt is None:
        args.negative_prompt = whose.empty_negative
    if getattr(args, "max_sequence_length", None) == FLUX_TOKENS:
        args.max_sequence_length = whose.prompt_tokens

    @functools.lru_cache(KEPT)
    def encode(prompt: str) -> dict[str, Any]:
        import torch

        with torch.no_grad():
            embeds = script.encode(pipe, args, prompt, guided and not negative)
        pipe.maybe_free_model_hooks()  # with --offload the text encoders leave the device
        embeds = {name: embed.to("cpu") for name, embed in embeds.items() if embed is not None}
        negative.update({name: embed for name, embed in embeds.items() if name.startswith("negative")})
        return embeds | negative

    return encode


def gathered(embeds: list[dict[str, Any]], device) -> dict[str, Any]:
    """The embeddings of a batch, on a device."""
    import torch

    return {name: torch.cat([one[name] for one in embeds]).to(device) for name in embeds[0]}


def keywords_of(script: Script, args: argparse.Namespace, cells: list[Cell], source) -> dict[str, Any]:
    """The pipeline's keywords for cells of one recipe, all but the embeddings; source: None for the reference's."""
    cell = cells[0]
    keywords = {name: getattr(args, name) for name in ("noise", "program", "height", "width", *script.keywords)}
    keywords |= {"seeds": [one.seed for one in cells], "num_inference_steps": cell.steps}
    keywords |= {"comfy_sampler": cell.sampler, "guidance_scale": cell.guidance_scale}
    if source is not None:
        keywords |= {"comfy_sampler": source.sampler, "sampler_options": source.options, **source.keywords}
    grid = args.grid_texts.get(cell.sigma_grid, cell.sigma_grid)
    keywords["sigma_grid"] = None if grid == "scheduler" else grid
    if cell.true_cfg_scale is not None:
        keywords["true_cfg_scale"] = cell.true_cfg_scale
    if cell.guidance is not None:
        keywords["guidance"] = of_text(cell.guidance)
    if cell.eta is not None:
        keywords["sampler_options"] = {**keywords.get("sampler_options", {}), "eta": cell.eta}
    return keywords


def render(pipe, network, device, keywords: dict[str, Any]) -> tuple[list, int, float, float, float | None]:
    """The pictures, the evaluations they took, seconds, those of `network`, and MiB at most.

    Calls one after the other on the same input, with the prompt and without it, are one evaluation.
    """
    import torch

    cuda = device.type == "cuda"
    marks, seen, evaluations = [], None, 0

    def count(_, args, kwargs) -> None:
        nonlocal seen, evaluations
        given = args[0] if args else kwargs["hidden_states"]
        evaluations += given is not seen
        seen = given

    def mark(*_) -> None:
        marks.append(torch.cuda.Event(enable_timing=True) if cuda else time.perf_counter())
        if cuda:
            marks[-1].record()  # the device takes the time as it gets there: nothing waits

    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    hooks = [network.register_forward_pre_hook(mark), network.register_forward_hook(mark)]
    hooks.append(network.register_forward_pre_hook(count, with_kwargs=True))
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
    return pictures, evaluations, seconds, network_seconds, peak_memory(device)


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
