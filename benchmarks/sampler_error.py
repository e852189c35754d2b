"""How far each sampler's results are from the distribution that the model knows, as a markdown table.

    python benchmarks/sampler_error.py                # 30 steps, 65536 elements: about a minute on one core
    python benchmarks/sampler_error.py --steps 10

In place of the networks stand closed-form models of a two-Gaussian mixture (closed_form.py); the pipelines are
the real ones. W1 is the Wasserstein-1 distance of the latents to the mixture. FLUX: the older way, with the velocity
in place of the denoised latents; the right denoiser in flow coordinates; the right denoiser in VE coordinates; in
bold, the coordinates that "auto" chooses. SDXL: epsilon prediction on the "leading" grid and on Karras'.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl  # noqa: E402
from k_diffusing.oracle.mixture import exact_samples, wasserstein  # noqa: E402
from samplers_patch import SAMPLERS, choose_coordinates  # noqa: E402

COORDINATES = ("velocity", "flow", "ve")
GRIDS = (None, "karras")
SIDE = 128  # of the latents, of 4 channels


def row(name: str, flux, sdxl, **settings) -> list[str]:
    """W1 of one sampler in every column."""
    cells = []
    for coordinates in COORDINATES:
        error = f"{wasserstein(draw(flux, name, flow_coordinates=coordinates, **settings)):.3f}"
        chosen = coordinates == choose_coordinates("auto", SAMPLERS[name], None)
        cells.append(f"**{error}**" if chosen else error)
    for grid in GRIDS:
        cells.append(f"{wasserstein(draw(sdxl, name, sigma_grid=grid, **settings)):.3f}")
    return cells


def line(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # its hint at dpmpp_3m_sde's grid
    flux, sdxl = oracle_flux(), oracle_sdxl()
    line(["sampler", "FLUX, velocity", "FLUX, flow", "FLUX, VE", "SDXL, leading", "SDXL, karras"])
    line(["---"] + ["---:"] * 5)
    for name in SAMPLERS:
        line([name, *row(name, flux, sdxl, steps=arguments.steps, seed=arguments.seed, side=SIDE)])
    floor = wasserstein(exact_samples(4 * SIDE**2, arguments.seed))
    print(
        f"\nW1 at {arguments.steps} steps, seed {arguments.seed}, {4 * SIDE**2} elements; exact samples: {floor:.3f}."
    )


if __name__ == "__main__":
    main()
