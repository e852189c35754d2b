"""The pictures of ComfyUI, in figures that it made itself: tests/programs/golden/comfyui.json says how and when."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from program_cells import Cell, Ours

GOLDEN = json.loads((Path(__file__).parent / "golden" / "comfyui.json").read_text(encoding="utf-8"))
FIGURES = ("mean", "std", "elements")
# Of the latents' standard deviation. The programs were at most 1e-4 apart, as a norm, of which single elements may be
# a few times more. One timestep rounded the other way is 6e-3, and noise of another time of the Brownian tree 1e-2.
TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def ours():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # fastest for networks this small
    yield Ours()
    torch.set_num_threads(threads)


def by_sampler():
    rows = {}
    for row in GOLDEN["cells"]:
        rows.setdefault(row["sampler"], []).append(row)
    return rows


@pytest.mark.parametrize("sampler", by_sampler())
def test_final_latents(ours, sampler):
    apart = {}
    for row in by_sampler()[sampler]:
        cell = Cell(**{name: value for name, value in row.items() if name not in FIGURES})
        flat = ours.latents(cell).flatten()
        places = [0, len(flat) // 3, 2 * len(flat) // 3, len(flat) - 1]
        found = torch.tensor([flat.mean(), flat.std(), *flat[places]])
        told = torch.tensor([row["mean"], row["std"], *row["elements"]])
        apart[cell] = float((found - told).abs().max()) / row["std"]
    assert all(difference <= TOLERANCE for difference in apart.values()), apart


def name(row):
    return f"{row['model']}-{row['grid']}-{row['sampler']}-{row['steps']}"


@pytest.mark.parametrize("row", GOLDEN["grids"], ids=name)
def test_noise_levels_and_timesteps_to_the_last_bit(ours, row):
    """A change of 1e-7 in a sigma may be another time of the Brownian tree, and so other noise."""
    plan = ours.pipe(row["model"]).plan(row["sampler"], None, row["grid"], row["steps"], program="comfyui")
    sigmas = torch.tensor(row["sigmas"])
    # exp and pow by other instructions than those that made the figures differ in the last bit, in ComfyUI too
    last_bit = 0.0 if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") else 2.5e-7
    assert plan.sigmas.shape == sigmas.shape and ((plan.sigmas - sigmas).abs() <= last_bit * sigmas).all()
    if row["model"].startswith("sdxl"):
        assert torch.equal(plan.timesteps, torch.tensor(row["timesteps"]))
    else:  # here t * 1000, in float32
        assert (plan.timesteps / 1000 - torch.tensor(row["timesteps"])).abs().max() <= 2e-7


# ComfyUI's own, where it is installed (its folder on PYTHONPATH).

REAL = [
    Cell("sdxl", "dpmpp_2m", "karras", 12, 1, 5.0),
    Cell("sdxl", "dpmpp_sde", "sgm_uniform", 7, 2**63 + 5, 0.5, 12, 8),
    Cell("flux", "dpmpp_3m_sde", "normal", 12, 2, 2.0, batch=2),
    Cell("flux", "euler_ancestral", "linear_quadratic", 3, 0, 1.0),
]


@pytest.mark.skipif(
    importlib.util.find_spec("comfy") is None, reason="ComfyUI is not installed: put its folder on PYTHONPATH"
)
def test_its_own_runs():
    from benchmarks.comfyui_side import ComfyUI, apart

    [packages] = importlib.util.find_spec("comfy").submodule_search_locations
    theirs = ComfyUI(Path(packages).parent)
    for cell in REAL:
        # of the programs' norm: the largest that was measured in runs whose rounding errors do not grow
        assert apart(theirs.latents(cell), theirs.ours.latents(cell)) <= 1e-4, cell
