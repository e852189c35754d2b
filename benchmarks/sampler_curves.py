"""How every sampler's error falls with network evaluations, on an ODE whose solution is known.

error: the largest of the probability-flow ODE's result, as `k_diffusing.oracle.order` has it, with the options without
noise. Those that always add noise, or choose their own steps, have none.
"""

from collections.abc import Iterable

from benchmarks.record import Benchmark, Row
from k_diffusing.samplers.facts import ALL_FACTS

STEPS = (5, 10, 20, 40, 80, 160)


def cells() -> list[Row]:
    noisy = {name for name, facts in ALL_FACTS.items() if facts["stochastic"] and facts.get("noiseless", {}) is None}
    return [{"sampler": name} for name, facts in ALL_FACTS.items() if name not in noisy and not facts.get("adaptive")]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    from k_diffusing.oracle.order import ode_error
    from samplers_patch import ALL_SAMPLERS

    torch.set_num_threads(1)
    for cell in cells:
        record = ALL_SAMPLERS[cell["sampler"]]
        each = 1 if record.takes == "sigma_range" else record.nfe_per_step or 1  # dpm_fast's steps are evaluations
        options = dict(record.noiseless or {}) if record.stochastic else {}
        errors = [float(f"{ode_error(record.name, n, options):.3g}") for n in STEPS]
        yield cell | {"evaluations": [each * n for n in STEPS], "errors": errors}


BENCHMARK = Benchmark(
    name="sampler_curves",
    about="How every sampler's error falls with network evaluations, on an ODE whose solution is known.",
    takes="a minute",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS},
)
