"""Every sampler of ComfyUI, through both pipelines, judged by a closed-form model: the table in docs/comfyui.md.

    python benchmarks/comfyui_samplers.py path/to/ComfyUI

Nothing of ComfyUI is needed but its folder: its functions are imported from there, on the CPU. W1 is the
Wasserstein-1 distance of the latents to the mixture that the model knows. A function is right if W1 is at most 0.03
at 100 steps; those that are not show theirs in bold.
"""

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from k_diffusing.compare.sources import comfyui_module  # noqa: E402
from k_diffusing.oracle.closed_form import draw, oracle_flux, oracle_sdxl  # noqa: E402
from k_diffusing.oracle.judge import RIGHT  # noqa: E402
from k_diffusing.oracle.mixture import wasserstein  # noqa: E402

STEPS = 100


def cell(pipe, function, **settings) -> str:
    try:
        error = wasserstein(draw(pipe, function, STEPS, **settings))
    except Exception as failure:  # whatever a function that is not made for this model raises
        return f"**{type(failure).__name__}**"
    return f"{error:.3f}" if error <= RIGHT else f"**{error:.3f}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    folder = parser.parse_args().comfyui
    torch.set_num_threads(1)
    sys.path.insert(0, str(folder))
    sampling, (sdxl, flux) = comfyui_module(), (oracle_sdxl(), oracle_flux())
    version = {}
    exec((folder / "comfyui_version.py").read_text(encoding="utf-8"), version)
    print(f"ComfyUI {version['__version__']}, {STEPS} steps.\n")
    print("| function | SDXL, karras | FLUX, flow coordinates | FLUX, VE coordinates |\n| --- | ---: | ---: | ---: |")
    for name in sorted(name for name in vars(sampling) if name.startswith("sample_")):
        function = getattr(sampling, name)
        cells = (
            cell(sdxl, function, sigma_grid="karras"),
            cell(flux, function),
            cell(flux, function, flow_coordinates="ve"),
        )
        print(f"| {name.removeprefix('sample_')} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
