"""All benchmarks, in the order in which `run all` takes them."""

from benchmarks import grid_points, sampler_curves, sampler_pictures, samplers

BENCHMARKS = (
    samplers.BENCHMARK,
    sampler_curves.BENCHMARK,
    sampler_pictures.BENCHMARK,
    grid_points.BENCHMARK,
)
