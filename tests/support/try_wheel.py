"""Try what `make wheel` has built: python tests/support/try_wheel.py dist.

The wheel there was built from the sdist; the checkout must build the same one. Then a fresh environment runs it from
outside the checkout: the pipelines on the demo models, and the command. The environment has the project from the wheel
alone, and torch and the like from this one, through a path file, which saves their gigabytes.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURES = """
import sys
from importlib.metadata import version
from pathlib import Path

import k_diffusing
from flux_comfy_pipeline import FluxPipeline
from k_diffusing.models import DEMOS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

assert Path(k_diffusing.__file__).is_relative_to(sys.prefix), k_diffusing.__file__
assert version("k-diffusing") == k_diffusing.__version__
for name, pipeline in {"demo": StableDiffusionXLPipeline, "demo-flux": FluxPipeline}.items():
    pipe = pipeline.from_pretrained(DEMOS[name].weights)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(**DEMOS[name].keywords, num_inference_steps=4, comfy_sampler="dpmpp_2m").images[0]
    print(name, picture.size)
"""


def run(*command: object, folder: Path) -> None:
    """Run a command in a folder, without the checkout on its path; the script ends if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=True)


def contents(wheel: Path) -> dict[str, bytes]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as files:
        return {name: files.read(name) for name in files.namelist()}


def fresh_environment(folder: Path) -> Path:
    """A new virtual environment that sees this one's packages, but not the checkout; the folder of its commands."""
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


def main(dist: Path) -> None:
    """Try the wheel in a folder."""
    [wheel] = dist.glob("*.whl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build = (sys.executable, "-m", "build", "--quiet", "--no-isolation", "--wheel")
        run(*build, "--outdir", folder, folder=ROOT)
        if contents(wheel) != contents(folder / wheel.name):
            sys.exit("the sdist and the checkout do not build the same wheel")
        commands = fresh_environment(folder / "environment")
        pip = (sys.executable, "-m", "pip", "--python", commands / "python", "install", "-q")
        run(*pip, "--no-index", "--no-deps", "--ignore-installed", wheel, folder=folder)
        run(commands / "python", "-c", PICTURES, folder=folder)
        run(commands / "k-diffusing", "judge", "heun", "--order", 2, folder=folder)
        run(commands / "k-diffusing", "compare", "k:euler", "EulerDiscreteScheduler", "--steps", 4, folder=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
