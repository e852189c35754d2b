"""What samplers converge to, and how near that is to the exact answer.

- SDXL's mixture, whose ODE has an exact solution: the common limit and lms's against it, what the last Euler step
  leaves, what the start leaves.
- lms by its order on FLUX's demo model with 80 steps, to 0 and to the last time above 0.
- SDXL's demo model, four pictures, of which the worst is shown: dpmpp_2m and heun by their steps.
- FLUX's demo model, where a sampler goes astray: the size of its latents over that of euler's.
"""

import functools
from collections.abc import Iterable
from functools import partial
from typing import Any

from benchmarks.convergence import flow_karras, rounded
from benchmarks.data import select
from benchmarks.demos import SEED, UNDISTILLED, demo_pipeline, runs
from benchmarks.errors import relative_rms
from benchmarks.pages import listed, markdown_table
from benchmarks.record import Benchmark, Data, Row

PICTURES = 4
LMS_STEPS, LIMIT_STEPS = (80, 400), 640  # lms' and its limit's; the pictures' limit's
MIXTURE_STEPS = {"dpmpp_2m": 1000, "heun": 500, "lms": 320}
LAST_STEP, START = "the last Euler step alone", "start"
ENDS, ORDERS = ("to 0", "to t = 0.03"), (1, 2, 3, 4)
WORST_STEPS = {"dpmpp_2m": (40, 80, 160, 240), "heun": (40, 80)}
ASTRAY: tuple[Row, ...] = (
    {"sampler": "lms", "steps": 28, "guidance": 4.0, "grid": None, "order": 4},
    {"sampler": "lms", "steps": 28, "guidance": 2.0, "grid": None, "order": 4},
    {"sampler": "lms", "steps": 28, "guidance": 4.0, "grid": None, "order": 2},
    {"sampler": "lms", "steps": 28, "guidance": 4.0, "grid": "karras", "order": 4},
    {"sampler": "dpm_2_ancestral", "steps": 12, "guidance": 2.0, "grid": "karras"},
    {"sampler": "dpm_2_ancestral", "steps": 12, "guidance": 2.0, "grid": "exponential"},
    {"sampler": "dpm_2_ancestral", "steps": 12, "guidance": 2.0, "grid": "simple"},
)


def cells() -> list[Row]:
    mixture = [{"of": "mixture", "run": run} for run in (*MIXTURE_STEPS, LAST_STEP, START)]
    lms = [{"of": "lms", "grid": end, "order": order} for end in ENDS for order in ORDERS]
    pictures = [{"of": "pictures", "sampler": name, "steps": n} for name, steps in WORST_STEPS.items() for n in steps]
    return [*mixture, *lms, *pictures, *({"of": "astray"} | one for one in ASTRAY)]


def measure(cells: list[Row]) -> Iterable[Row]:
    import torch

    torch.set_num_threads(1)
    kinds = {"mixture": on_the_mixture, "lms": lms_by_order, "pictures": of_each_picture, "astray": astray}
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
def pictures(demo: str, sampler: str, steps: int, grid, count: int, order=None, guidance=None):
    """The final latents of so many pictures; guidance: other than the demo's own."""
    from k_diffusing.models import DEMOS

    options = {"order": order} if order else None
    call = {
        "comfy_sampler": sampler,
        "num_inference_steps": steps,
        "sigma_grid": grid,
        "sampler_options": options,
    }
    if guidance is not None:
        call |= {"guidance": guidance, **UNDISTILLED}
    [(_, latents)] = runs(demo_pipeline(demo), {**DEMOS[demo].call, **call}, count, output_type="latent")
    return latents


def to_the_last_time(schedule, n: int):
    return flow_karras(schedule, n)[:-1]


def lms_by_order(cell: Row) -> Row:
    grid = flow_karras if cell["grid"] == ENDS[0] else to_the_last_time
    found = pictures("demo-flux", "lms", LMS_STEPS[0], grid, 1, cell["order"])
    return {"error": apart(found, pictures("demo-flux", "dpmpp_2m", LMS_STEPS[1], grid, 1))}


def of_each_picture(cell: Row) -> Row:
    found = pictures("demo", cell["sampler"], cell["steps"], "karras", PICTURES)
    errors = relative_rms(found, pictures("demo", "dpmpp_2m", LIMIT_STEPS, "karras", PICTURES))
    return {"errors": [rounded(error, 2) for error in errors]}


def astray(cell: Row) -> Row:
    """The size of a sampler's latents over that of euler's, on a prompt's first picture."""
    call = {"grid": cell["grid"], "guidance": cell["guidance"], "count": 1}
    found, euler = (
        pictures("demo-flux", sampler, cell["steps"], order=order, **call)
        for sampler, order in ((cell["sampler"], cell.get("order")), ("euler", None))
    )
    return {"size": rounded(float(found.norm() / euler.norm()), 2)}


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
    """Of the picture with the largest error in the first run of the first sampler."""
    rows, first = [], select(data, of="pictures")[0]["errors"]
    worst = first.index(max(first))
    for name in WORST_STEPS:
        errors = [f"{row['errors'][worst]:.2g}" for row in select(data, of="pictures", sampler=name)]
        rows.append([name, *errors, *[""] * (len(WORST_STEPS["dpmpp_2m"]) - len(errors))])
    return markdown_table(["SDXL demo, the worst picture", *(f"{n} steps" for n in WORST_STEPS["dpmpp_2m"])], rows)


def error(data: Data, **cell: Any) -> str:
    """Of one run, as the tables have it."""
    return f"{select(data, **cell)[0]['error']:.2g}"


def size(data: Data, **cell: Any) -> str:
    """Of latents that may have gone astray, euler's being 1."""
    return f"{select(data, of='astray', **cell)[0]['size']:.2g}"


def sizes(data: Data, grids: tuple[str, ...]) -> str:
    """dpm_2_ancestral's on some grids."""
    return listed(size(data, sampler="dpm_2_ancestral", grid=grid) for grid in grids)


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
        "lms-guided": partial(size, sampler="lms", guidance=4.0, grid=None, order=4),
        "lms-less-guided": partial(size, sampler="lms", guidance=2.0),
        "lms-order-2": partial(size, sampler="lms", order=2),
        "lms-karras": partial(size, sampler="lms", grid="karras"),
        "dpm-2-ancestral": lambda data: sizes(data, ("karras", "exponential")),
        "dpm-2-ancestral-simple": lambda data: sizes(data, ("simple",)),
        "lms-4": partial(error, of="lms", grid=ENDS[0], order=4),
        "lms-2": partial(error, of="lms", grid=ENDS[0], order=2),
        "lms-ended": partial(error, of="lms", grid=ENDS[1], order=4),
    },
)
