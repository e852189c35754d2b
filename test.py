"""Renders prompts with every k_diffusion sampler through the SDXL pipeline, into output/sdxl-*.png.

python test.py                                                     the bundled demo model
python test.py --prompt "a small white ring on a green background" --samplers euler dpmpp_2m --steps 12
python test.py --samplers euler dpmpp_2m --evaluations 10 20 --seeds 0 1   a grid; the same command again continues it
python test.py --samplers euler mine.py:my_heun UniPCMultistepScheduler    a sampler of your own, diffusers', ComfyUI's
python test.py --model stabilityai/stable-diffusion-xl-base-1.0    real weights: from the hub,
python test.py --model my/folder --offload                         a diffusers folder, or a .safetensors file
"""

import argparse
import sys

from k_diffusing.models import DEMOS, REAL_WEIGHTS
from k_diffusing.render import families

SCRIPT = families.SDXL  # how the pipeline is called
# The defaults of --prompt, --steps, ...: for the demo model, and for real weights. --help ends with them.
DEMO = families.settings(DEMOS["demo"])
REAL = families.settings(REAL_WEIGHTS["StableDiffusionXLPipeline"])


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of the demo model or of real weights."""
    return families.arguments(SCRIPT, __doc__, argv, DEMO, REAL)


def main(argv: list[str] | None = None) -> int:
    """Render the grid. The exit code is 0, 1 (something failed), 2 (bad input) or 130 (Ctrl-C)."""
    return families.run(SCRIPT, arguments(argv), REAL["model"])


if __name__ == "__main__":
    sys.exit(main())
