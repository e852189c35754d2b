"""What a step costs outside the network, as ratios within one run: docs/step_cost.md is made by `make bench`.

Both pipelines at 1024 x 1024, the real classes around networks that answer at once, one thread, float32, CFG on.

- host: time of a step outside the network, ours with euler over diffusers' own loop with its Euler scheduler. On a
  CPU it is mostly the arithmetic on the latents, which is the same in both; at 128 x 128 it is Python and dispatch;
- draws: what an SDE sampler's step takes above euler's, in plain torch.randn of the latents, for each draw it needs;
- operations: tensor operations that a step of ours dispatches (that none of them waits for the device is tested, in
  tests/pipelines/test_optimizations.py);
- memory: the most that tensors take during a call on the demo models, ours over diffusers', the weights counted and
  not;
- grid: the 13 samplers at 4 steps on the demo models as the render scripts call them, one at a time, over calling the
  pipeline with the prompt once for each.
Medians of repetitions that take turns. Times but the grid's are those that the thread had the processor for.
"""

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import figure_style  # noqa: E402

import test  # noqa: E402
import test_flux  # noqa: E402
from k_diffusing.oracle.closed_form import OracleTransformer, OracleUNet, oracle_flux, oracle_sdxl  # noqa: E402
from k_diffusing.render import cells as grid_cells  # noqa: E402
from k_diffusing.render import checks as grid_checks  # noqa: E402
from k_diffusing.render import options as grid_options  # noqa: E402
from k_diffusing.render import pipelines as render_grid  # noqa: E402
from k_diffusing.render import rendering as grid_rendering  # noqa: E402
from samplers_patch import SAMPLERS  # noqa: E402

TURNS, FEW, MANY = 7, 5, 25
SDE = {"dpmpp_sde": 2, "dpmpp_2m_sde": 1, "dpmpp_3m_sde": 1}  # draws in a step
GUIDANCE = {"sdxl": {"guidance_scale": 5.0}, "flux": {"true_cfg_scale": 2.0, "guidance_scale": 1.0}}


class Clock:
    """Seconds spent in a network's calls."""

    def __init__(self):
        self.seconds = 0.0

    def answer(self, like: torch.Tensor) -> tuple[torch.Tensor]:
        start = time.thread_time()
        answer = like * 0.5
        self.seconds += time.thread_time() - start
        return (answer,)


class NullUNet(OracleUNet):
    """Answers at once."""

    def forward(self, sample, timestep, encoder_hidden_states, **_):
        return self.clock.answer(sample)


class NullTransformer(OracleTransformer):
    """Answers at once."""

    def forward(self, hidden_states, **_):
        return self.clock.answer(hidden_states)


def pipelines() -> dict:
    """Ours, by family, with null networks that share a clock."""
    sdxl, flux = oracle_sdxl(), oracle_flux()
    sdxl.unet, flux.transformer = NullUNet(), NullTransformer(in_channels=64)
    sdxl.unet.clock = flux.transformer.clock = Clock()
    return {"sdxl": sdxl, "flux": flux}


def embeds(family: str) -> dict[str, torch.Tensor]:
    prompt = {"prompt_embeds": torch.zeros(1, 77, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
    return prompt | {f"negative_{name}": value for name, value in prompt.items()} | GUIDANCE[family]


def call(pipe, family: str, sampler, steps: int, side: int = 1024, **options) -> float:
    """Seconds outside the network."""
    network = pipe.unet if family == "sdxl" else pipe.transformer
    network.clock.seconds = 0.0
    start = time.thread_time()
    pipe(
        **embeds(family),
        **options,
        height=side,
        width=side,
        num_inference_steps=steps,
        comfy_sampler=sampler,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    return time.thread_time() - start - network.clock.seconds


def per_step(pipe, family: str, kinds: dict) -> dict:
    """Seconds per step of each kind (sampler, options), what a call costs besides its steps taken out."""
    times = {name: [] for name in kinds}
    for _ in range(TURNS):
        for name, (sampler, options) in kinds.items():
            few, many = (call(pipe, family, sampler, steps, **options) for steps in (FEW, MANY))
            times[name].append((many - few) / (MANY - FEW))
    return {name: statistics.median(values) for name, values in times.items()}


def randn_seconds(shape: tuple) -> float:
    generator, times = torch.Generator().manual_seed(0), []
    for _ in range(100):
        start = time.thread_time()
        torch.randn(shape, generator=generator)
        times.append(time.thread_time() - start)
    return statistics.median(times)


class Counting(TorchDispatchMode):
    """Counts the tensor operations dispatched, by name."""

    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


def operations(pipe, family: str, sampler) -> float:
    """Tensor operations in a step, the null network's one among them."""
    counts = []
    for steps in (FEW, MANY):
        with Counting() as counting:
            call(pipe, family, sampler, steps)
        counts.append(sum(counting.names.values()))
    return (counts[1] - counts[0]) / (MANY - FEW)


def peak_bytes(pipe, sampler) -> int:
    """The most that tensors made during a call take at one time, its result among them."""
    call = {"height": 128, "width": 128, "num_inference_steps": 3, "comfy_sampler": sampler, "output_type": "latent"}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        pipe("a large yellow square on a purple background", **call)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    memory = sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"])
    return max(itertools.accumulate(event["args"]["Bytes"] for event in memory))


def memory() -> dict[str, list[str]]:
    """Table rows: ours over diffusers', by sampler, on both demo models."""
    rows = {}
    for demo in ("demo", "demo-flux"):
        pipe = figure_style.demo_pipeline(demo)
        parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        weights = sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())
        peak_bytes(pipe, None)  # what is made at the first call only
        theirs = peak_bytes(pipe, None)
        for sampler in ("euler", "dpmpp_2m", "dpmpp_2m_sde", "lms"):
            ours = peak_bytes(pipe, sampler)
            cells = f"{(ours + weights) / (theirs + weights):.4f}, without the weights {ours / theirs:.3f}"
            rows.setdefault(f"memory of a call over diffusers', {sampler}", []).append(cells)
    return rows


def grid() -> dict[str, list[str]]:
    """Table row: the time of a grid of all samplers over that of a call of the pipeline for each."""
    found = []
    for module in (test, test_flux):
        args = module.arguments(["--steps", "4", "--device", "cpu", "--batch-size", "1"])
        pipe = render_grid.load(module.SCRIPT, args)
        cells = grid_cells.cells(grid_options.axes(args, grid_checks.check(module.SCRIPT, args)))
        times = {"grid": [], "calls": []}
        for _ in range(FEW):
            start = time.perf_counter()
            render = grid_rendering.renderer(module.SCRIPT, args, pipe)
            for _, outcome in render(iter(cells), 1):
                assert not isinstance(outcome, Exception), outcome
            times["grid"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for cell in cells:
                call = grid_rendering.keywords_of(module.SCRIPT, args, cell, None)
                pipe(cell.prompt, negative_prompt=args.negative_prompt, **call)
            times["calls"].append(time.perf_counter() - start)
        found.append(f"{statistics.median(times['grid']) / statistics.median(times['calls']):.2f}")
    return {"time of a grid over a call for each": found}


def main() -> None:
    torch.set_num_threads(1)
    pipes = pipelines()
    print("# What a step costs outside the network\n\nMade by `make bench`. " + figure_style.machine() + ".\n")
    print("\n".join(__doc__.split("\n")[2:]))
    print("| | SDXL | FLUX |\n| --- | ---: | ---: |")
    cells = {}
    for family, pipe in pipes.items():
        pair = {"diffusers": (None, {}), "euler": ("euler", {})}
        small = per_step(pipe, family, {name: (sampler, {"side": 128}) for name, (sampler, _) in pair.items()})
        kinds = pair | {name: (name, {"sigma_grid": "karras"}) for name in SDE}
        kinds |= {f"{name}, tree": (name, {"sigma_grid": "karras", "noise": "brownian_tree"}) for name in SDE}
        found = per_step(pipe, family, kinds)
        draw = randn_seconds((1, 4, 128, 128) if family == "sdxl" else (1, 4096, 64))
        for side, times in ((1024, found), (128, small)):
            for name, seconds in times.items():
                if name in pair:
                    cells.setdefault(f"{name}: microseconds a step, {side} x {side}", []).append(f"{seconds * 1e6:.0f}")
            ratio = times["euler"] / times["diffusers"]
            cells.setdefault(f"euler over diffusers, {side} x {side}", []).append(f"{ratio:.2f}")
        for name, needed in SDE.items():
            for kind in (name, f"{name}, tree"):
                above = (found[kind] - found["euler"]) / draw / needed
                cells.setdefault(f"{kind}: randn for each draw", []).append(f"{above:.1f}")
        for name in (None, *(name for name in SAMPLERS if name not in ("dpm_adaptive", "dpm_fast"))):
            label = f"operations in a step, {name or 'diffusers'}"
            cells.setdefault(label, []).append(f"{operations(pipe, family, name):.0f}")
    for label, values in (cells | memory() | grid()).items():
        print(f"| {label} | {' | '.join(values)} |")


if __name__ == "__main__":
    main()
