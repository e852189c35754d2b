"""A pipeline as what renders the cells of a grid: its prompts, its keywords, and what comes of each.

torch is imported in the functions that need it.
"""

import argparse
import functools
from collections.abc import Callable, Generator, Iterable
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
    """A function that renders cells, the calls of their networks joined: `--batch-size` rows in one."""
    from k_diffusing.render.joined import JoinedRuns

    encoders = functools.cache(lambda program: encoder(script, args, pipe, program))
    device, sources = pipe._execution_device, sources_for(args, pipe)
    outcome = functools.partial(outcome_of, adherence_of(args.model))

    def keywords(cell: Cell) -> dict[str, Any]:
        told = keywords_of(script, args, cell, sources.get(cell.sampler))
        embeds = encoders(told["program"])(cell.prompt)
        return told | {name: embed.to(device) for name, embed in embeds.items()}

    def render_cells(cells: Iterable[Cell], at_once: int) -> Generator[tuple[Cell, Rendered | Exception]]:
        cells = iter(cells)
        with JoinedRuns(pipe, script.network, args.batch_size, decode_last=args.offload) as runs:
            while True:
                while runs.has_room and len(runs.open) < at_once and (cell := next(cells, None)) is not None:
                    try:
                        runs.begin(cell, keywords(cell))
                    except Exception as error:  # of the text encoders
                        yield cell, error
                if not runs.open:
                    return
                for run in runs.advance():
                    yield run.cell, outcome(runs, run)

    return render_cells


def outcome_of(adherence: Callable, runs, run) -> Rendered | Exception:
    """What came of a run that is over, one of joined.JoinedRuns."""
    if isinstance(run.outcome, Exception):
        return run.outcome
    kept, (seconds, network_seconds) = adherence(run.cell.prompt, run.outcome), runs.seconds(run)
    return Rendered(run.outcome, run.evaluations, seconds, network_seconds, run.peak, kept)


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

        pipe.maybe_free_model_hooks()  # with --offload the network, of cells that are open, leaves the device
        with torch.no_grad():
            embeds = script.encode(pipe, args, prompt, guided and not negative)
        pipe.maybe_free_model_hooks()  # and so do the text encoders
        embeds = {name: embed.to("cpu") for name, embed in embeds.items() if embed is not None}
        negative.update({name: embed for name, embed in embeds.items() if name.startswith("negative")})
        return embeds | negative

    return encode


def keywords_of(script: Script, args: argparse.Namespace, cell: Cell, source) -> dict[str, Any]:
    """The pipeline's keywords for a cell, all but the embeddings; source: None for the reference's."""
    keywords = {name: getattr(args, name) for name in ("noise", "program", "height", "width", *script.keywords)}
    keywords |= {"seeds": [cell.seed], "num_inference_steps": cell.steps}
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
