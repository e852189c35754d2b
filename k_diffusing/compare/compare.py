"""Runs two samplers on the same model, noise and sigmas, and says where they part first.

python compare_samplers.py dpmpp_2m DPMSolverMultistepScheduler --steps 20
python compare_samplers.py k:euler diffusers:FlowMatchEulerDiscreteScheduler --model demo-flux --html
python compare_samplers.py heun my_samplers.py:sample_heun --sigma-grid karras --tolerance 1e-5
python compare_samplers.py my_samplers.py:sample_heun --oracle sdxl --order 2      right on a closed-form model?

A sampler is [k:]NAME, [diffusers:]CLASS, comfy:NAME (ComfyUI's folder on PYTHONPATH) or path/to/file.py:FUNCTION, each
with ,option=value after it. Exit code: 0 within --tolerance (or right), 1 if they part (or wrong, or below --order),
2 for bad input, 3 if a sampler fails. A warning in a verdict leaves the exit code as it is.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from k_diffusing.models import DEMOS, REAL, ModelError, hide_loading_bars
from k_diffusing.models import load as load_model


@dataclass
class Comparison:
    """difference: a `trace.difference.Difference`. labels, traces, pictures: of a and of b; call: what both were
    given; notes: what must be known beside the verdict."""

    labels: tuple[str, str]
    difference: Any
    traces: tuple
    pictures: tuple
    call: dict[str, Any]
    notes: list[str]

    @property
    def verdict(self) -> str:
        return self.difference.verdict

    def table(self) -> str:
        """The steps (or network calls), a line each."""
        unit = self.difference.unit.split()[-1]
        lines = [f"{unit:>4} {'sigma':>10} {'timestep':>10} {'|x_a-x_b|':>10} {'|denoised|':>10}  parted first"]
        for row in self.difference.rows:
            cells = (f"{row.sigma[0]:10.4f}", f"{row.timestep[0]:10.3f}", f"{row.x:10.1e}", f"{row.denoised:10.1e}")
            lines.append(f"{row.step:4d} {' '.join(cells)}  {row.parted or ''}".rstrip())
        return "\n".join([*lines, f"{'end':>4} {'':21} {self.difference.result:10.1e}"])

    def to_json(self) -> str:
        """Verdict, findings, rows, the call and the versions."""
        found = self.difference
        texts = {"a": self.labels[0], "b": self.labels[1], "verdict": self.verdict, "agree": found.agree}
        texts |= {"tolerance": found.tolerance, "largest": found.largest, "result": found.result}
        texts |= {"unit": found.unit, "notes": self.notes, "findings": [asdict(one) for one in found.findings]}
        texts |= {"rows": [asdict(row) for row in found.rows], "call": self.call}
        texts["versions"] = {name: version(name) for name in ("torch", "diffusers", "k-diffusion")}
        return json.dumps(texts, indent=1)


def compare_samplers(
    pipe,
    a: str | Callable,
    b: str | Callable,
    call: dict[str, Any],
    *,
    steps: int = 20,
    grid: str = "scheduler",
    seed: int = 0,
    tolerance: float | None = None,
) -> Comparison:
    """Run a and b through a pipeline of ours from the same prompt, seed and noise, and compare the two runs.

    a, b: as `sources.find_source` takes them. call: keywords for the pipeline, the prompt among them.
    grid: "scheduler" (that of pipe.scheduler for both), "own" (each its own), or a name of SIGMA_GRIDS for both.
    b gets the noise that a drew. Raises ValueError or TypeError for bad input, before any network runs, and
    SamplerError for a sampler that fails.
    """
    import torch

    from k_diffusing.compare.shared_noise import SharedNoise
    from k_diffusing.compare.sources import find_source, overruled
    from k_diffusing.grids.check import check_grid_choice
    from k_diffusing.trace.difference import TOLERANCE, trace_difference
    from k_diffusing.trace.record import Trace

    if grid not in ("scheduler", "own"):
        check_grid_choice(grid)
    sources = [find_source(text, pipe.scheduler, own_sigmas=grid == "own") for text in (a, b)]
    given = None if grid in ("scheduler", "own") else grid
    shared = given if grid == "own" else _shared_grid(pipe, given, call, steps)
    first, notes = Trace(tensors=True), []
    pictures = [_run(pipe, sources[0], call, shared, steps, seed, first)]
    noise = SharedNoise(first)
    second = Trace(tensors=True, replay=noise)
    pictures.append(_run(pipe, sources[1], call, shared, steps, seed, second))
    if noise.missing:
        count, example = len(noise.missing), noise.missing[0]
        notes.append(f"noise could not be shared in {count} draws of b: a drew none for {example}")
    for source, trace in zip(sources, (first, second), strict=True):
        without = [] if grid == "own" else overruled(source.label, pipe.scheduler, trace.sigmas)
        if without:
            notes.append(
                f"{' and '.join(without)} of {source.label} had no effect: both runs are on one sigma grid; "
                "--sigma-grid own leaves each sampler its own"
            )
    difference = trace_difference(first, second, TOLERANCE if tolerance is None else tolerance)
    labels = tuple(source.label for source in sources)
    texts = {name: value for name, value in call.items() if not isinstance(value, torch.Tensor)}
    texts |= {"model": Path(pipe.name_or_path or type(pipe).__name__).name, "steps": steps, "grid": grid, "seed": seed}
    return Comparison(labels, difference, (first, second), tuple(pictures), texts, notes + difference.notes)


def _run(pipe, source, call, sigma_grid, steps: int, seed: int, trace):
    """The picture; what the sampler did is in the trace."""
    import torch

    from k_diffusing.compare.failure import sampler_errors

    with sampler_errors(source.label, source.sampler, trace):
        return pipe(
            **call, **source.keywords, num_inference_steps=steps, comfy_sampler=source.sampler, sigma_grid=sigma_grid,
            sampler_options=source.options, generator=torch.Generator("cpu").manual_seed(seed), trace=trace,
        ).images[0]  # fmt: skip


def _shared_grid(pipe, sigma_grid, call: dict[str, Any], steps: int):
    """A grid that both runs can start from. On flow models that is the one VE coordinates have, whose first time is
    less than 1."""
    from k_diffusing.model.scheduler_config import is_flow

    if not is_flow(pipe.scheduler):
        return sigma_grid
    size = {name: call.get(name) for name in ("height", "width", "latents")}
    sigmas = pipe.plan("euler", None, sigma_grid, steps, flow_coordinates="ve", **size).sigmas
    return lambda schedule, n: sigmas / (1 + sigmas)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("samplers", nargs="+", metavar="SAMPLER", help="two; with --oracle one or more")
    add("--model", default="demo", help="demo, demo-flux, a hub name, diffusers folder or .safetensors file")
    add("--oracle", choices=("sdxl", "flux"), help="judge on this closed-form model instead")
    add("--order", type=float, metavar="N", help="with --oracle: exit code 1 for an order of accuracy below N - 0.25")
    add("--prompt")
    add("--steps", type=int, default=20)
    grids = "scheduler (its grid for both; the default), own (each its own), or karras, simple, ..."
    add("--sigma-grid", "--grid", dest="grid", default="scheduler", metavar="NAME", help=grids)
    add("--seed", type=int, default=0)
    add("--noise", default="torch", metavar="NAME", help="torch, cpu, philox, comfy, a1111 or brownian_tree, for both")
    add("--tolerance", type=float, help="of |a - b| / |a|; default 5e-4")
    for name in ("guidance-scale", "true-cfg-scale"):
        add(f"--{name}", type=float)
    for name in ("height", "width"):
        add(f"--{name}", type=int)
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    add("--device", default="cpu")
    add("--output", type=Path, default=Path("output/compare"), metavar="FOLDER")
    add("--html", action="store_true", help="also write one self-contained page")
    return parser.parse_args(argv)


def load(args: argparse.Namespace):
    """The pipeline, of our class for the model's family. Raises ValueError for a model that cannot be loaded."""
    import torch

    hide_loading_bars()
    if args.model in DEMOS:
        torch.set_num_threads(DEMOS[args.model].threads)
    try:
        return load_model(args.model, dtype=args.dtype, device=args.device)
    except ModelError as error:
        raise ModelError(f"--model {error}") from error


def call_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """What both runs are given, the demo's defaults included."""
    demo = DEMOS.get(args.model)
    prompt = (demo or REAL["StableDiffusionXLPipeline"]).prompt
    call = {"prompt": args.prompt or prompt, "noise": args.noise, **(demo.call if demo else {})}
    for name in ("guidance_scale", "true_cfg_scale", "height", "width"):
        if getattr(args, name) is not None:
            call[name] = getattr(args, name)
    return call


def write(comparison: Comparison, pipe, folder: Path, html: bool) -> list[Path]:
    """JSON, figure and, if asked for, the page, in a folder that exists; each whole or not at all."""
    from k_diffusing._files import write_whole
    from k_diffusing.compare.figure import figure_png
    from k_diffusing.compare.page import page

    stem = folder / re.sub(r"[^\w.=+-]+", "_", "-".join(comparison.labels))[-160:]
    files = {".json": comparison.to_json().encode()}
    try:
        files[".png"] = figure_png(comparison)
    except ImportError:
        print("no figure: pip install matplotlib", file=sys.stderr)
    if html:
        strips = tuple(trace.strip(pipe) for trace in comparison.traces)
        files[".html"] = page(comparison, strips).encode()
    for suffix, content in files.items():
        write_whole(stem.with_name(stem.name + suffix), content)
    return [stem.with_name(stem.name + suffix) for suffix in files]


def judge_all(args: argparse.Namespace) -> int:
    import torch

    from k_diffusing.oracle.judge import judge

    torch.set_num_threads(1)  # fastest for networks this small
    judgements = []
    for text in args.samplers:
        judgements.append(judge(text, args.oracle))
        print(judgements[-1].verdict, flush=True)
    right = all(one.right for one in judgements)
    if args.order is not None:
        low = [one for one in judgements if not one.reaches(args.order)]
        for one in low:
            print(f"{one.label} does not reach order {args.order:g}")
        right = right and not low
    return 0 if right else 1


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    from k_diffusing.compare.failure import SamplerError

    try:
        if args.order is not None and not (args.oracle and args.order > 0):
            raise ValueError(f"--order {args.order:g} is an order of accuracy above 0, measured with --oracle")
        return judge_all(args) if args.oracle else compare_both(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (SamplerError, ValueError, TypeError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3 if isinstance(error, SamplerError) else 2


def compare_both(args: argparse.Namespace) -> int:
    if len(args.samplers) != 2:
        raise ValueError(f"give two samplers to compare, not {len(args.samplers)}")
    pipe = load(args)
    args.output.mkdir(parents=True, exist_ok=True)  # fails before the model runs
    comparison = compare_samplers(
        pipe, *args.samplers, call_keywords(args),
        steps=args.steps, grid=args.grid, seed=args.seed, tolerance=args.tolerance,
    )  # fmt: skip
    print(f"{comparison.labels[0]} and {comparison.labels[1]} {comparison.verdict}")
    for note in comparison.notes:
        print(f"note: {note}")
    print(f"\n{comparison.table()}\n")
    for path in write(comparison, pipe, args.output, args.html):
        print(f"wrote {path}")
    return 0 if comparison.difference.agree else 1


if __name__ == "__main__":
    sys.exit(main())
