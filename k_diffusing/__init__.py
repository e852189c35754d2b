"""SDXL and FLUX pipelines for diffusers that hand sampling to k_diffusion's functions; tools to compare samplers.

A saved pipeline's model_index.json names the module of its SamplerScheduler, which is this one, and diffusers looks for
it among the modules that are imported. Files from before there was a package say `sampler_scheduler`: this module
answers to that name too.
"""

import importlib
import sys

__version__ = "0.1.0"

_HOMES = {
    "ALL_SAMPLERS": "samplers.records",
    "NOISE_SOURCES": "noise.sources",
    "OUR_SAMPLERS": "samplers.records",
    "PROGRAMS": "programs.choose",
    "SAMPLERS": "samplers.records",
    "SIGMA_GRIDS": "grids.named",
    "SamplerScheduler": "schedulers.as_scheduler",
    "SamplingPlan": "plan",
    "Trace": "trace.record",
    "as_sampler": "schedulers.as_sampler",
    "compare_samplers": "compare.compare",
    "encode_prompts": "reproduce.encode",
    "find_sampler": "samplers.find",
    "invert": "inversion",
    "judge": "oracle.judge",
    "load_grid": "grids.tuned",
    "load_sampler": "samplers.fitted",
    "read_recipe": "reproduce.read",
    "render_recipe": "reproduce.rendering",
    "run_sampler": "samplers.call",
    "sampler_blocks": "modular.blocks",
    "trace_difference": "trace.difference",
    "tune_grid": "tune.tune",
}
__all__ = list(_HOMES)

sys.modules.setdefault("sampler_scheduler", sys.modules[__name__])


def __getattr__(name: str):
    """The public names, each imported when it is first asked for: `import k_diffusing` takes no torch."""
    if name == "SchedulerMixin":  # diffusers asks the module of a class that it loads for the bases it knows to load
        return importlib.import_module("diffusers").SchedulerMixin
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
