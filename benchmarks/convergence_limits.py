"""What samplers converge to, and how near that is to the exact answer: figures that docs/convergence.md gives.

    python benchmarks/convergence_limits.py    # five minutes on one core

- SDXL's mixture, whose ODE has an exact solution: the common limit and lms's against it, what the last Euler step
  leaves, what the start leaves.
- lms by its order on FLUX's demo model with 80 steps, to 0 and to the last time above 0.
- SDXL's demo model, the worst of the four pictures: dpmpp_2m and heun by their steps.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_models"), str(ROOT / "benchmarks")]

import figure_style  # noqa: E402
import torch  # noqa: E402
from convergence import SEED, flow_karras, relative_rms  # noqa: E402
from shapes import evaluation_scenes  # noqa: E402

from k_diffusing.models import DEMOS  # noqa: E402
from k_diffusing.oracle.closed_form import draw, oracle_sdxl, training_sigmas  # noqa: E402
from k_diffusing.oracle.mixture import MIXTURE, wasserstein  # noqa: E402

WORST = 2  # of the four pictures


def line(*cells) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def apart(a: torch.Tensor, b: torch.Tensor) -> str:
    """Relative RMS difference of one image."""
    return f"{relative_rms(a, b)[0]:.2g}"


def exact(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ODE's solution at sigma 0 from a state of this noise: with an Euler step from sigma_min, and all exact."""
    smallest, largest = float(training_sigmas()[0]), float(training_sigmas()[-1])
    rank = MIXTURE.cdf(noise.double() * (largest**2 + 1) ** 0.5, largest)
    at_smallest = MIXTURE.quantile(rank, smallest)
    stepped = MIXTURE.posterior_mean(at_smallest, torch.ones(()), torch.tensor(smallest))
    return stepped, MIXTURE.quantile(rank)


def mixture() -> None:
    pipe, side = oracle_sdxl(), 32
    stepped, solution = exact(torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(SEED)))
    drawn = {
        name: draw(pipe, name, steps, SEED, side=side, sigma_grid="karras")
        for name, steps in (("dpmpp_2m", 1000), ("heun", 500), ("lms", 320))
    }
    line("SDXL's mixture", "to the limit with an Euler step last", "to the exact solution")
    line("---", "---:", "---:")
    for name, latents in {**drawn, "the last Euler step alone": stepped}.items():
        line(name, apart(latents, stepped), apart(latents, solution))
    even = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    _, carried = exact(torch.special.ndtri(even))
    print(f"\nW1 of the start, carried exactly to sigma 0: {wasserstein(carried):.4f}\n")


def picture(pipe, demo: str, sampler: str, steps: int, sigma_grid, index: int, **options) -> torch.Tensor:
    """The final latents of the picture with this index."""
    return pipe(
        evaluation_scenes(WORST + 1)[index].caption, **DEMOS[demo].call, output_type="latent",
        comfy_sampler=sampler, num_inference_steps=steps, sigma_grid=sigma_grid, sampler_options=options,
        generator=torch.Generator().manual_seed(SEED + index),
    ).images  # fmt: skip


def lms_by_order() -> None:
    pipe = figure_style.demo_pipeline("demo-flux")
    grids = {"to 0": flow_karras, "to t = 0.03": lambda schedule, n: flow_karras(schedule, n)[:-1]}
    line("lms on the FLUX demo, 80 steps", *(f"order {order}" for order in (1, 2, 3, 4)))
    line("---", *["---:"] * 4)
    for title, grid in grids.items():
        limit = picture(pipe, "demo-flux", "dpmpp_2m", 400, grid, 0)
        line(title, *(apart(picture(pipe, "demo-flux", "lms", 80, grid, 0, order=n), limit) for n in (1, 2, 3, 4)))
    print()


def worst_picture() -> None:
    pipe, steps = figure_style.demo_pipeline("demo"), (40, 80, 160, 240)
    limit = picture(pipe, "demo", "dpmpp_2m", 640, "karras", WORST)
    line("SDXL demo, the worst picture", *(f"{n} steps" for n in steps))
    line("---", *["---:"] * len(steps))
    for name in ("dpmpp_2m", "heun"):
        counts = steps if name == "dpmpp_2m" else steps[:2]
        errors = [apart(picture(pipe, "demo", name, n, "karras", WORST), limit) for n in counts]
        line(name, *errors, *[""] * (len(steps) - len(errors)))


def main() -> None:
    torch.set_num_threads(1)
    mixture()
    lms_by_order()
    worst_picture()


if __name__ == "__main__":
    main()
