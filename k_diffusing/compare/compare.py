"""Two samplers on the same model, noise and sigmas, and where they part first.

comparison = compare_samplers(pipe, "dpmpp_2m", "DPMSolverMultistepScheduler", {"prompt": "a red circle"}, steps=20)
print(comparison.verdict)
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from k_diffusing._versions import PROGRAMS, package_versions
from k_diffusing.compare.failure import sampler_errors
from k_diffusing.compare.shared_noise import SharedNoise
from k_diffusing.compare.sources import Source, find_source, overruled
from k_diffusing.grids.check import check_grid_choice
from k_diffusing.grids.given import GridChoice, given_grid, plain_grid
from k_diffusing.model.scheduler_config import is_flow
from k_diffusing.names.grids import AUTOMATIC, find_grid
from k_diffusing.noise.interval import Interval
from k_diffusing.plan import SamplingPlan
from k_diffusing.programs.choose import find_program
from k_diffusing.trace.difference import TOLERANCE, Difference, trace_difference
from k_diffusing.trace.record import Trace
from k_diffusing.web.tables import html_table


@dataclass
class Comparison:
    """Two runs, and where they part.

    Attributes:
        labels: what a and b were named by.
        difference: a `trace.difference.Difference`.
        traces: of a and of b, with tensors.
        pictures: of a and of b, the first of each run.
        call: what both were given, by name, but for tensors.
        notes: what must be known beside the verdict.
    """

    labels: tuple[str, str]
    difference: Difference
    traces: tuple[Trace, Trace]
    pictures: tuple
    call: dict[str, Any]
    notes: list[str]

    @property
    def verdict(self) -> str:
        """One line, without the notes."""
        return self.difference.verdict

    def table(self) -> str:
        """The steps (or network calls), a line each."""
        unit = self.difference.unit.split()[-1]
        lines = [f"{unit:>4} {'sigma':>10} {'timestep':>10} {'|x_a-x_b|':>10} {'|denoised|':>10}  parted first"]
        for row in self.difference.rows:
            cells = (f"{row.sigma[0]:10.4f}", f"{row.timestep[0]:10.3f}", f"{row.x:10.1e}", f"{row.denoised:10.1e}")
            lines.append(f"{row.step:4d} {' '.join(cells)}  {row.parted or ''}".rstrip())
        return "\n".join([*lines, f"{'end':>4} {'':21} {self.difference.result:10.1e}"])

    @property
    def _told(self) -> list[str]:
        return [f"{' and '.join(self.labels)} {self.verdict}", *(f"note: {note}" for note in self.notes)]

    def __repr__(self) -> str:
        return "\n".join([*self._told, "", self.table()])

    def _repr_html_(self) -> str:
        unit = self.difference.unit.split()[-1]
        columns = (unit, "sigma", "timestep", "|x_a - x_b|", "|denoised|", "parted first")
        rows = [
            (f"{row.step}", f"{row.sigma[0]:.4f}", f"{row.timestep[0]:.3f}", f"{row.x:.1e}", f"{row.denoised:.1e}",
             row.parted or "")
            for row in self.difference.rows
        ]  # fmt: skip
        return html_table(
            "; ".join(self._told), columns, [*rows, ("end", "", "", f"{self.difference.result:.1e}", "", "")]
        )

    def to_json(self) -> str:
        """Verdict, findings, rows, later calls of steps, the call and the versions."""
        found = self.difference
        texts = {"a": self.labels[0], "b": self.labels[1], "verdict": self.verdict, "agree": found.agree}
        texts |= {"tolerance": found.tolerance, "largest": found.largest, "result": found.result}
        texts |= {"unit": found.unit, "notes": self.notes, "findings": [asdict(one) for one in found.findings]}
        texts |= {"rows": [asdict(row) for row in found.rows]}
        texts |= {"later_calls": [asdict(one) for one in found.later_calls], "call": self.call}
        texts["versions"] = package_versions(*PROGRAMS)
        return json.dumps(texts, indent=1)


def compare_samplers(
    pipe,
    a: str | Callable,
    b: str | Callable,
    call: dict[str, Any],
    *,
    steps: int = 20,
    grid: GridChoice = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> Comparison:
    """Run a and b through a pipeline of ours from the same prompt, seed and noise, and compare the two runs.

    b gets the noise that a drew.

    Args:
        pipe: one of our pipelines.
        a: a sampler, as `sources.find_source` takes it.
        b: the other one.
        call: keywords for the pipeline, the prompt among them.
        steps: of both.
        grid: "scheduler" (that of pipe.scheduler for both), "own" (each its own), or one for both as a pipeline's
            sigma_grid= takes it; None: the one that the names of a and b imply, or "scheduler" if they imply none.
        seed: of the noise.
        tolerance: the |a - b| / |a| up to which they agree; `trace.difference.TOLERANCE` if it is left out.

    Returns:
        Both runs, and where they part.

    Raises:
        ValueError: bad input; no network has run.
        TypeError: likewise.
        SamplerError: a sampler fails.
    """
    if grid is not None and not (isinstance(grid, str) and grid in ("scheduler", "own")):
        program = find_program(call.get("program"))
        grid = plain_grid(given_grid(grid, program.grids))
        check_grid_choice(given_grid(grid, program.grids), program.grid_names)
        if isinstance(grid, str) and (named := find_grid(grid)) and named.name == AUTOMATIC:
            raise ValueError(f"sigma grid {grid} is another for each sampler, and both runs are on one: name that one")
    sources = [find_source(text, pipe.scheduler, own_sigmas=grid == "own") for text in (a, b)]
    grid = grid or _implied_grid(sources)
    if grid == "own":
        grids = [source.sigma_grid for source in sources]
    else:
        grids = [_shared_grid(pipe, sources, None if grid == "scheduler" else grid, call, steps)] * 2
    _plan(pipe, sources[1], call, grids[1], steps)  # raises before a runs
    first = Trace(tensors=True)
    pictures = [_run(pipe, sources[0], call, grids[0], steps, seed, first)]
    noise = SharedNoise(first)
    second = Trace(tensors=True, replay=noise)
    pictures.append(_run(pipe, sources[1], call, grids[1], steps, seed, second))
    notes = _noise_notes(noise.missing)
    if grid != "own":
        notes += _grid_notes(sources, pipe.scheduler, (first, second))
    difference = trace_difference(first, second, TOLERANCE if tolerance is None else tolerance)
    texts = {name: value for name, value in call.items() if not isinstance(value, torch.Tensor)}
    texts |= {"model": Path(pipe.name_or_path or type(pipe).__name__).name, "steps": steps, "grid": grid, "seed": seed}
    labels = sources[0].label, sources[1].label
    return Comparison(labels, difference, (first, second), tuple(pictures), texts, notes + difference.notes)


def _implied_grid(sources: list[Source]) -> str:
    """The grid that the samplers' names imply for both runs. Raises ValueError for two."""
    implied = {source.sigma_grid: source.label for source in sources if source.sigma_grid}
    if len(implied) > 1:
        told = ", ".join(f"{label} is on {grid}" for grid, label in implied.items())
        raise ValueError(
            f"{told}: name one sigma grid for both (--sigma-grid karras), or leave each its own (--sigma-grid own)"
        )
    return next(iter(implied), "scheduler")


def _plan(pipe, source: Source, call: dict[str, Any], sigma_grid, steps: int) -> SamplingPlan:
    """What the source's run will do. Raises ValueError or TypeError, as it would before its network is called."""
    known = inspect.signature(pipe.plan).parameters
    keywords = {name: value for name, value in {**call, **source.keywords}.items() if name in known}
    return pipe.plan(source.sampler, source.options, sigma_grid, steps, **keywords)


def _run(pipe, source: Source, call: dict[str, Any], sigma_grid, steps: int, seed: int, trace: Trace):
    """The picture; what the sampler did is in the trace. What is raised in decoding is not the sampler's."""
    call = dict(call)
    output_type = call.pop("output_type", "pil")
    with sampler_errors(source.label, source.sampler, trace):
        latents = pipe(
            **{**call, **source.keywords}, num_inference_steps=steps, comfy_sampler=source.sampler,
            sigma_grid=sigma_grid, sampler_options=source.options,
            generator=torch.Generator("cpu").manual_seed(seed), trace=trace, output_type="latent",
        ).images  # fmt: skip
    return (latents if output_type == "latent" else pipe.decode(latents, *(trace.size or ()), output_type))[0]


def _noise_notes(missing: list[Interval]) -> list[str]:
    """missing: the intervals for which b drew noise of its own."""
    if not missing:
        return []
    return [f"noise could not be shared in {len(missing)} draws of b: a drew none for {missing[0]}"]


def _grid_notes(sources: list[Source], scheduler, traces: tuple[Trace, Trace]) -> list[str]:
    """On the settings of a and b that one sigma grid for both leaves without effect."""
    notes = []
    for source, trace in zip(sources, traces, strict=True):
        without = overruled(source.label, scheduler, cast(torch.Tensor, trace.sigmas))
        if without:
            notes.append(
                f"{' and '.join(without)} of {source.label} had no effect: both runs are on one sigma grid; "
                "--sigma-grid own leaves each sampler its own"
            )
    return notes


def _shared_grid(pipe, sources: list[Source], sigma_grid, call: dict[str, Any], steps: int):
    """A grid that both runs can start from, of the program of both if there is one.

    On flow models that is the one VE coordinates have, whose first time is less than 1, if either run has them.
    """
    shared = {name: call[name] for name in ("height", "width", "latents", "program") if name in call}
    if not is_flow(pipe.scheduler):
        if not any("program" in source.keywords for source in sources):
            return sigma_grid
        program = shared.get("program")
        return lambda schedule, n: pipe.plan("euler", None, sigma_grid, n, program=program).sigmas
    in_time = "program" in call and all(
        _plan(pipe, source, call, sigma_grid, steps).coordinates == "flow" for source in sources
    )
    shared["flow_coordinates"] = "flow" if in_time else "ve"

    def grid(schedule, n: int) -> torch.Tensor:
        plan = pipe.plan("euler", None, sigma_grid, n, **shared)
        return plan.space.time(plan.sigmas)

    return grid
