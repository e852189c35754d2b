"""The runs behind step_cost: the pipelines around networks that answer at once, and what their calls take."""

import gc
import itertools
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import test
import test_flux
from benchmarks.demos import demo_pipeline, network_of
from k_diffusing.oracle.closed_form import OracleTransformer, OracleUNet, oracle_flux, oracle_sdxl
from k_diffusing.render import cells as grid_cells
from k_diffusing.render import checks, rendering
from k_diffusing.render import options as grid_options
from k_diffusing.render import pipelines as render_grid

TURNS, FEW, MANY = 21, 5, 45
TREES = 3  # turns of k-diffusion's tree, whose draws take a hundred times as long
_another = itertools.count()
DEMOS, SCRIPTS = {"sdxl": "demo", "flux": "demo-flux"}, {"sdxl": test, "flux": test_flux}
LATENTS = {"sdxl": (1, 4, 128, 128), "flux": (1, 4096, 64)}
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


def pipeline(family: str):
    """Ours, with a null network that has a clock."""
    if family == "sdxl":
        pipe = oracle_sdxl()
        pipe.unet = NullUNet()
    else:
        pipe = oracle_flux()
        pipe.transformer = NullTransformer(in_channels=64)
    network_of(pipe).clock = Clock()
    return pipe


def embeds(family: str) -> dict[str, Any]:
    prompt = {"prompt_embeds": torch.zeros(1, 77, 16), "pooled_prompt_embeds": torch.zeros(1, 16)}
    return prompt | {f"negative_{name}": value for name, value in prompt.items()} | GUIDANCE[family]


def call(pipe, family: str, sampler, steps: int, side: int = 1024, **options) -> float:
    """Seconds outside the network."""
    clock = network_of(pipe).clock
    clock.seconds = 0.0
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
    return time.thread_time() - start - clock.seconds


def made(options: dict[str, Any] | Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return options if isinstance(options, dict) else options()


def per_step(pipe, family: str, kinds: dict[str, tuple[Any, Any]], turns: int | None = None) -> dict:
    """Seconds per step of each kind (sampler, options), what a call costs besides its steps taken out."""
    times = {name: [] for name in kinds}
    gc.collect()
    gc.freeze()  # what is there already: to go through it takes as long as a hundred steps, in whichever call that is
    for _ in range(turns or TURNS):
        for name, (sampler, options) in kinds.items():
            few, many = (call(pipe, family, sampler, n, **made(options)) for n in (FEW, MANY))
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


def times(pipe, family: str, side: int) -> dict[str, float]:
    """Microseconds of a step, diffusers' loop and ours with euler, and the one over the other; first: on a new grid."""
    kinds: dict = {name or "diffusers": (name, {"side": side}) for name in (None, "euler")}
    kinds["first"] = "euler", lambda: {"side": side} | new_grid(family)
    found = per_step(pipe, family, kinds)
    told = {name: round(1e6 * seconds, 1) for name, seconds in found.items()}
    return told | {"ratio": round(found["euler"] / found["diffusers"], 3)}


def new_grid(family: str) -> dict:
    """A setting whose noise levels no run had yet."""
    near = next(_another) / 1000
    return {"sigma_grid": {"karras": {"rho": 7 + near}}} if family == "sdxl" else {"mu": 1 + near}


def draws(pipe, family: str, sampler: str, needed: int) -> dict[str, float]:
    """Randn of the latents that each draw takes, on a path and by the tree; step: what a step takes above euler's."""
    settings, ready = {"sigma_grid": "karras"}, torch.zeros(LATENTS[family])
    given = settings | {"sampler_options": {"noise_sampler": lambda sigma, sigma_next: ready}}
    found = per_step(pipe, family, {"euler": ("euler", {}), "ready": (sampler, given), "path": (sampler, settings)})
    found |= per_step(pipe, family, {"tree": (sampler, settings | {"noise": "brownian_tree"})}, TREES)
    draw = randn_seconds(LATENTS[family]) * needed
    told = {kind: round((found[kind] - found["ready"]) / draw, 2) for kind in ("path", "tree")}
    return told | {"step": round((found["path"] - found["euler"]) / draw, 2)}


def memory(family: str, samplers: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """By sampler, ours over diffusers': with the weights, and without."""
    pipe = demo_pipeline(DEMOS[family])
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    weights = sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())
    peak_bytes(pipe, None)  # what is made at the first call only
    theirs, found = peak_bytes(pipe, None), {}
    for sampler in samplers:
        ours = peak_bytes(pipe, sampler)
        found[sampler] = {"all": (ours + weights) / (theirs + weights), "without weights": ours / theirs}
    return found


def grid(family: str) -> float:
    """The time of a grid of all samplers over that of a call of the pipeline for each."""
    script = SCRIPTS[family]
    args = script.arguments(["--steps", "4", "--device", "cpu", "--batch-size", "1"])
    pipe = render_grid.load(script.SCRIPT, args)
    cells = grid_cells.cells(grid_options.axes(args, checks.check(script.SCRIPT, args)))
    times = {"grid": [], "calls": []}
    for _ in range(FEW):
        start = time.perf_counter()
        for _, outcome in rendering.renderer(script.SCRIPT, args, pipe)(iter(cells), 1):
            if isinstance(outcome, Exception):
                raise outcome
        times["grid"].append(time.perf_counter() - start)
        start = time.perf_counter()
        for cell in cells:
            call = rendering.keywords_of(script.SCRIPT, args, cell, None)
            pipe(cell.prompt, negative_prompt=args.negative_prompt, **call)
        times["calls"].append(time.perf_counter() - start)
    return statistics.median(times["grid"]) / statistics.median(times["calls"])
