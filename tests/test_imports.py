"""Importing our modules where k_diffusion, or torchvision, does not import: each in a fresh interpreter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from k_diffusing._k_diffusion import REQUIREMENT, import_k_sampling

ROOT = Path(__file__).parent.parent

IMPORT_ALL = """
import torch
state = torch.random.get_rng_state()
import socket
def refuse(*args, **kwargs):
    raise AssertionError("network access at import")
socket.socket.connect = socket.getaddrinfo = refuse
import samplers_patch, sdxl_comfy_pipeline, flux_comfy_pipeline
import k_diffusing
for name in k_diffusing.__all__:
    getattr(k_diffusing, name)
assert torch.equal(torch.random.get_rng_state(), state), "import drew random numbers"
assert len(samplers_patch.SAMPLERS) == 13
"""

USE_AFTERWARDS = """
import k_diffusion
import k_diffusion.external
import k_diffusion.sampling as user_sampling
assert k_diffusion.sampling is user_sampling is samplers_patch.k_sampling
assert k_diffusion.external.sampling is user_sampling and k_diffusion.utils.append_dims
assert k_diffusion.__spec__ is not None and not hasattr(k_diffusion, "no_such_module")
"""

BLOCK_PKG_RESOURCES = """
import sys
sys.modules["pkg_resources"] = None
try:
    import k_diffusion
    raise AssertionError("clip no longer needs pkg_resources: this test shows nothing")
except ImportError:
    pass
"""

BLOCK_TORCHVISION = """
import sys
sys.modules["torchvision"] = None
"""

BREAK_TORCHVISION = """
import sys, tempfile, pathlib
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "torchvision").mkdir()
(folder / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
sys.path.insert(0, str(folder))
"""

# With stand-ins for what only its training code imports, most of which is not installed.
IMPORT_BEFORE = """
import sys, unittest.mock
training = ["clip", "cleanfid", "cleanfid.inception_torchscript", "dctorch", "einops", "jsonmerge", "skimage"]
training += ["torchvision", "torchvision.transforms"]
with unittest.mock.patch.dict(sys.modules, {name: unittest.mock.MagicMock() for name in training}):
    import k_diffusion
    import k_diffusion.sampling as before
    theirs = {name: module for name, module in sys.modules.items() if name.split(".")[0] not in training}
sys.modules.update(theirs)
before.to_d = None
"""

SAME_AS_BEFORE = """
assert k_diffusion.sampling is before is samplers_patch.k_sampling and before.to_d is None
assert k_diffusion.layers.Denoiser is k_diffusion.Denoiser
"""

CASES = {
    "no pkg_resources": BLOCK_PKG_RESOURCES + IMPORT_ALL + USE_AFTERWARDS,
    "no torchvision": BLOCK_TORCHVISION
    + IMPORT_ALL
    + USE_AFTERWARDS
    + "assert 'torchvision.transforms' not in sys.modules",
    "broken torchvision": BREAK_TORCHVISION + IMPORT_ALL + USE_AFTERWARDS,
    "the user's import first": IMPORT_BEFORE + IMPORT_ALL + SAME_AS_BEFORE,
}


@pytest.mark.parametrize("case", CASES)
def test_import(case):
    run = subprocess.run([sys.executable, "-c", CASES[case]], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == "" and "torchvision" not in run.stderr


def test_without_k_diffusion_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "k_diffusion", None)  # as if it were not installed
    told = re.escape(f'k_diffusion is not installed: pip install --no-deps "{REQUIREMENT}"')
    with pytest.raises(ImportError, match=told):
        import_k_sampling()
