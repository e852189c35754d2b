"""Renders prompts with every k_diffusion sampler through the FLUX pipeline, into output/flux-dev-*.png.

python test_flux.py                                           the bundled demo model
python test_flux.py --samplers euler dpmpp_2m dpmpp_3m_sde --flow-coordinates velocity
python test_flux.py --samplers euler heun --steps 5 10 20     a grid; the same command again continues it
python test_flux.py --model black-forest-labs/FLUX.1-dev      real weights: from the hub,
python test_flux.py --model my/folder --offload               a diffusers folder, or a .safetensors file
"""

import argparse
import sys

from k_diffusing.models import DEMOS, REAL_WEIGHTS
from k_diffusing.render import families

SCRIPT = families.FLUX  # how the pipeline is called
# The defaults of --prompt, --steps, ...: for the demo model, and for real weights. --help ends with them.
DEMO = families.settings(DEMOS["demo-flux"])
REAL = families.settings(REAL_WEIGHTS["FluxPipeline"])


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of the demo model or of real weights."""
    return families.arguments(SCRIPT, __doc__, argv, DEMO, REAL)


def main(argv: list[str] | None = None) -> int:
    """Render the grid. The exit code is 0, 1 (something failed), 2 (bad input) or 130 (Ctrl-C)."""
    return families.run(SCRIPT, arguments(argv), REAL["model"])


if __name__ == "__main__":
    sys.exit(main())
