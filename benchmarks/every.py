"""All benchmarks, in the order in which `run all` takes them."""

from benchmarks import samplers

BENCHMARKS = (samplers.BENCHMARK,)
