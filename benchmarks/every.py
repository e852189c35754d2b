"""All benchmarks, in the order in which `run all` takes them."""

from benchmarks import (
    adherence,
    comfyui_agreement,
    comfyui_goldens,
    comfyui_samplers,
    convergence,
    convergence_limits,
    data,
    demo_models,
    evaluations,
    flux_older,
    grid_cost,
    grid_points,
    guidance,
    mutants,
    notebook,
    parity,
    pipelines,
    published,
    sampler_curves,
    sampler_pictures,
    samplers,
    sigma_grids,
    step_cost,
    suspended,
    trace_cost,
    tune_grids,
    w1,
)
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data

MEASURED = (
    demo_models.BENCHMARK,
    published.BENCHMARK,
    notebook.BENCHMARK,
    flux_older.BENCHMARK,
    evaluations.BENCHMARK,
    w1.BENCHMARK,
    samplers.BENCHMARK,
    sampler_curves.BENCHMARK,
    sampler_pictures.BENCHMARK,
    grid_points.BENCHMARK,
    parity.BENCHMARK,
    pipelines.BENCHMARK,
    sigma_grids.BENCHMARK,
    suspended.BENCHMARK,
    trace_cost.BENCHMARK,
    step_cost.BENCHMARK,
    grid_cost.BENCHMARK,
    tune_grids.BENCHMARK,
    guidance.BENCHMARK,
    convergence.BENCHMARK,
    convergence_limits.BENCHMARK,
    adherence.BENCHMARK,
    comfyui_samplers.BENCHMARK,
    comfyui_agreement.BENCHMARK,
    comfyui_goldens.BENCHMARK,
    mutants.BENCHMARK,
)


def listed(_: Data) -> str:
    """A benchmark a line, and when it was measured."""
    rows = []
    for each in MEASURED:
        found, takes = data.read(each.name), each.takes + (", needs ComfyUI" if each.needs else "")
        rows.append([f"`{each.name}`", each.about, takes, f"{found['measured']}, torch {found['versions']['torch']}"])
    return markdown_table(["`NAME`", "what it is", "takes, about", "measured"], rows, left=4)


FIGURES = Benchmark("figures", "The list of benchmarks in docs/figures.md.", tables={"list": listed})
BENCHMARKS = (*MEASURED, FIGURES)
