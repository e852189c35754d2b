"""What other programs do besides their noise."""

import pytest
import torch

from k_diffusing.grids.choose import SigmaGrid
from k_diffusing.names.programs import PROGRAM_NAMES
from k_diffusing.noise.sources import NOISE_SOURCES
from k_diffusing.programs.choose import PROGRAMS, find_program
from k_diffusing.programs.comfyui import COMFYUI
from samplers_patch import ALL_SAMPLERS


def test_initial_scales():
    top = torch.tensor(14.0)
    scales = {noise: float(find_program(None, noise).initial_scale(5.0, top, top)) for noise in NOISE_SOURCES}
    # of ComfyUI sqrt(1 + 14^2) at the top, of A1111's web UI the first sigma, else the grid's own
    special = {"comfy": pytest.approx(197**0.5), "a1111": 14.0}
    assert scales == dict.fromkeys(NOISE_SOURCES, 5.0) | special
    assert float(find_program(None, "comfy").initial_scale(5.0, top, torch.tensor(20.0))) == 14.0


def test_comfyui_scales_and_grids():
    top = torch.tensor(14.6146)
    assert COMFYUI.initial_scale(1.0, top, top) == (1 + top**2).sqrt()
    assert COMFYUI.initial_scale(1.0, torch.tensor(9.0), top) == 9
    grid = SigmaGrid(torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([30.0, 20.0, 10.0])).without_penultimate()
    assert grid.sigmas.tolist() == [3, 2, 0] and grid.timesteps.tolist() == [30, 20]
    dropping = {
        (noise, name) for noise in NOISE_SOURCES for name in ALL_SAMPLERS if find_program(None, noise).drops(name)
    }
    both = {(noise, name) for noise in ("comfy", "a1111") for name in ("dpm_2", "dpm_2_ancestral")}
    assert dropping == both | {("comfy", "uni_pc"), ("comfy", "uni_pc_bh2")}
    assert COMFYUI.drops("sample_dpm_2") and COMFYUI.drops("sample_unipc")  # its functions


def test_names_without_torch_are_those_of_the_records():
    assert tuple(PROGRAMS) == PROGRAM_NAMES
