"""Where each sigma grid puts its steps, for the drawings beside their formulas."""

from collections.abc import Iterable

from benchmarks.record import Benchmark, Row
from k_diffusing.names.grids import AUTOMATIC, GRID_NAMES

STEPS = 10
ONLY = {  # of distilled models, for their own numbers of steps
    "turbo": 4,
    "lcm_timesteps": 4,
    "dmd2_sdxl": 4,
    "flux2_dev_turbo": 8,
    "qwen_image_2_1_turbo": 8,
    "ltx2_distilled": 8,
}
FLOW_SHIFT = 3.0


def cells() -> list[Row]:
    drawn = [name for name, row in GRID_NAMES.items() if row.here and name != AUTOMATIC]
    return [{"grid": name, "steps": ONLY.get(name, STEPS)} for name in drawn]


def measure(cells: list[Row]) -> Iterable[Row]:
    import diffusers

    from k_diffusing.grids.named import SIGMA_GRIDS
    from k_diffusing.model.scheduler_config import flow_schedule, noise_schedule
    from k_diffusing.oracle.closed_form import SDXL_SCHEDULE

    schedules = {
        "sdxl": noise_schedule(diffusers.EulerDiscreteScheduler(**SDXL_SCHEDULE)),
        "flow": flow_schedule(diffusers.FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT)),
    }
    for cell in cells:
        row = dict(cell)
        for model, schedule in schedules.items():
            try:
                sigmas = SIGMA_GRIDS[cell["grid"]](schedule, cell["steps"])
            except ValueError:  # it is for the other kind of model
                continue
            row[model] = [float(f"{float(sigma):.4g}") for sigma in sigmas]
        yield row


BENCHMARK = Benchmark(
    name="grid_points",
    about="Where each sigma grid puts ten steps, or as many as it has, on SDXL and on a flow model of shift 3.",
    cells=cells,
    measure=measure,
    settings={"steps": STEPS, "flow_shift": FLOW_SHIFT},
)
