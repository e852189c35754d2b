"""What samplers converge to, and how near that is to the exact answer.

- SDXL's mixture, whose ODE has an exact solution: the common limit and lms's against it, what the last Euler step
  leaves, what the start leaves.
- lms by its order on FLUX's demo model with 80 steps, to 0 and to the last time above 0.
- SDXL's demo model, the worst of the four pictures: dpmpp_2m and heun by their steps.
"""

import functools
from collections.abc import Iterable
from functools import partial
from typing import Any

from benchmarks.convergence import flow_karras, rounded
from benchmarks.data import select
from benchmarks.demos import SEED, demo_pipeline
from benchmarks.errors import relative_rms
from benchmarks.pages import markdown_table
from benchmarks.record import Benchmark, Data, Row

WORST = 2  # of the four pictures
LMS_STEPS, LIMIT_STEPS = (80, 400), 640  # lms' and its limit's; the worst picture's limit's
MIXTURE_STEPS = {"dpmpp_2m": 1000, "heun": 500, "lms": 320}
LAST_STEP, START = "the last Euler step alone", "start"
ENDS, ORDERS = ("to 0", "to t = 0.03"), (1, 2, 3, 4)
WORST_STEPS = {"dpmpp_2m": (40, 80, 160, 240), "heun": (40, 80)}


def cells() -> list[Row]:
    mixture = [{"of": "mixture", "run": run} for run in (*MIXTURE_STEPS, LAST_STEP, START)]
    lms = [{"of": "lms", "grid": end, "order": order} for end in ENDS for order in ORDERS]
    worst = [{"of": "worst", "sampler": name, "steps": n} for name, steps in WORST_STEPS.items() for n in steps]
    return [*mixture, *lms, *worst]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    torch.set_num_threads(1)
    kinds = {"mixture": on_the_mixture, "lms": lms_by_order, "worst": of_the_worst_picture}
    for cell in cells:
        yield cell | kinds[cell["of"]](cell)


def apart(a, b) -> float:
    """Relative RMS difference of one image."""
    return rounded(relative_rms(a, b)[0], 2)


def exact(noise):
    """The ODE's solution at sigma 0 from a state of this noise: with an Euler step from sigma_min, and all exact."""
    import torch

    from k_diffusing.oracle.closed_form import training_sigmas
    from k_diffusing.oracle.mixture import MIXTURE

    smallest, largest = float(training_sigmas()[0]), float(training_sigmas()[-1])
    rank = MIXTURE.cdf(noise.double() * (largest**2 + 1) ** 0.5, largest)
    at_smallest = MIXTURE.quantile(rank, smallest)
    stepped = MIXTURE.posterior_mean(at_smallest, torch.ones(()), torch.tensor(smallest))
    return stepped, MIXTURE.quantile(rank)


def on_the_mixture(cell: Row, side: int = 32) -> Row:
    """How far a run is from the limit with an Euler step last and from the exact solution; W1 of the start."""
    import torch

    from k_diffusing.oracle.closed_form import draw, oracle_sdxl
    from k_diffusing.oracle.mixture import wasserstein

    if cell["run"] == START:
        even = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
        return {"w1": rounded(wasserstein(exact(torch.special.ndtri(even))[1]))}
    stepped, solution = exact(torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(SEED)))
    found = stepped
    if cell["run"] in MIXTURE_STEPS:
        steps = MIXTURE_STEPS[cell["run"]]
        found = draw(oracle_sdxl(), cell["run"], steps, SEED, side=side, sigma_grid="karras")
    return {"to the limit": apart(found, stepped), "to the solution": apart(found, solution)}


@functools.cache
def picture(demo: str, sampler: str, steps: int, sigma_grid, index: int, order: int | None = None):
    """The final latents of the picture with this index."""
    import torch
    from shapes import evaluation_scenes

    from k_diffusing.models import DEMOS

    return demo_pipeline(demo)(
        evaluation_scenes(index + 1)[index].caption, **DEMOS[demo].call, output_type="latent",
        comfy_sampler=sampler, num_inference_steps=steps, sigma_grid=sigma_grid,
        sampler_options={"order": order} if order else None, generator=torch.Generator().manual_seed(SEED + index),
    ).images  # fmt: skip


def to_the_last_time(schedule, n: int):
    return flow_karras(schedule, n)[:-1]


def lms_by_order(cell: Row) -> Row:
    grid = flow_karras if cell["grid"] == ENDS[0] else to_the_last_time
    found = picture("demo-flux", "lms", LMS_STEPS[0], grid, 0, cell["order"])
    return {"error": apart(found, picture("demo-flux", "dpmpp_2m", LMS_STEPS[1], grid, 0))}


def of_the_worst_picture(cell: Row) -> Row:
    found = picture("demo", cell["sampler"], cell["steps"], "karras", WORST)
    return {"error": apart(found, picture("demo", "dpmpp_2m", LIMIT_STEPS, "karras", WORST))}


def mixture_table(data: Data) -> str:
    rows = []
    for run in (*MIXTURE_STEPS, LAST_STEP):
        [row] = select(data, of="mixture", run=run)
        steps = f", {MIXTURE_STEPS[run]} steps" if run in MIXTURE_STEPS else ""
        rows.append([run + steps, f"{row['to the limit']:.2g}", f"{row['to the solution']:.2g}"])
    return markdown_table(["SDXL's mixture", "to the limit with an Euler step last", "to the exact solution"], rows)


def start(data: Data) -> str:
    """W1 of the start, carried exactly to sigma 0."""
    return f"{select(data, of='mixture', run=START)[0]['w1']:.4f}"


def lms_table(data: Data) -> str:
    rows = [[end, *(f"{row['error']:.2g}" for row in select(data, of="lms", grid=end))] for end in ENDS]
    return markdown_table(
        [f"lms on the FLUX demo, {LMS_STEPS[0]} steps", *(f"order {order}" for order in ORDERS)], rows
    )


def worst_table(data: Data) -> str:
    rows = []
    for name in WORST_STEPS:
        errors = [f"{row['error']:.2g}" for row in select(data, of="worst", sampler=name)]
        rows.append([name, *errors, *[""] * (len(WORST_STEPS["dpmpp_2m"]) - len(errors))])
    return markdown_table(["SDXL demo, the worst picture", *(f"{n} steps" for n in WORST_STEPS["dpmpp_2m"])], rows)


def error(data: Data, **cell: Any) -> str:
    """Of one run, as the tables have it."""
    return f"{select(data, **cell)[0]['error']:.2g}"


BENCHMARK = Benchmark(
    name="convergence_limits",
    about="What samplers converge to, against the exact answer where one is known.",
    takes="5 minutes",
    cells=cells,
    measure=measure,
    settings={"seed": SEED},
    models=("demo", "demo-flux"),
    tables={
        "mixture": mixture_table,
        "start": start,
        "lms": lms_table,
        "worst": worst_table,
        "lms-4": partial(error, of="lms", grid=ENDS[0], order=4),
        "lms-2": partial(error, of="lms", grid=ENDS[0], order=2),
        "lms-ended": partial(error, of="lms", grid=ENDS[1], order=4),
        **{
            f"worst-{name}-{steps}": partial(error, of="worst", sampler=name, steps=steps)
            for name, counts in WORST_STEPS.items()
            for steps in counts
        },
    },
)
