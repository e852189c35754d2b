"""Names as they are shown: the tables of the command line, docs/names.md."""

from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from tiny_models import SDXL_SCHEDULE

from k_diffusing.cli import main
from k_diffusing.grids.named import SIGMA_GRIDS
from k_diffusing.model.scheduler_config import noise_schedule
from k_diffusing.names.grids import GRID_NAMES
from k_diffusing.names.samplers import SAMPLER_NAMES
from k_diffusing.samplers.facts import ALL_FACTS
from k_diffusing.samplers.show import names_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_tables_say():
    """Made anew by `k-diffusing samplers --markdown > docs/names.md`."""
    assert (ROOT / "docs" / "names.md").read_text(encoding="utf-8") == names_page()


def test_all_names_in_120_columns(capsys):
    assert main(["samplers", "--names"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    words = {word for line in lines for word in line.replace(",", " ").split()}
    assert {name for row in SAMPLER_NAMES.values() for name in row.comfyui} <= words
    assert ALL_FACTS.keys() <= words
    assert {row.name for row in GRID_NAMES.values() if row.here} <= words


def test_the_page_from_the_command_line(capsys):
    assert main(["samplers", "--markdown"]) == 0
    assert capsys.readouterr().out == names_page()


TOLD = {
    "DPM++ 2M SDE Karras": ["sampler dpmpp_2m_sde", "order 2", "A1111, Forge DPM++ 2M SDE", "sigma grid karras"],
    "SGM Uniform": ["sigma grid sgm_uniform", "ComfyUI sgm_uniform"],
    "PLMS": ["sampler plms", "here no function", "diffusers PNDMScheduler"],
    "DDIM CFG++": ["note A1111 divides the guidance scale by 12.5"],
    "Align Your Steps 32": ["here no: give its values as a list"],
    "AYS": ["sigma grid align_your_steps", "ComfyUI AlignYourStepsScheduler"],
}


@pytest.mark.parametrize("name", TOLD)
def test_all_that_is_known_of_one(name, capsys):
    assert main(["samplers", *name.split(" ")]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert set(TOLD[name]) <= set(lines)


def test_a_name_that_is_none(capsys):
    assert main(["samplers", "karas"]) == 2
    assert capsys.readouterr().err == "error: unknown sampler 'karas': did you mean 'karras'?\n"


# What the notes say of diffusers' timestep_spacing, in timesteps: "trailing" is cut to integers from above, `simple`
# from below. The table's own interpolation is good to 0.01.
SPACINGS = [
    ("linspace", "normal", 12, 0.01),
    ("trailing", "simple", 20, 0.01),
    ("trailing", "simple", 12, 1.01),
    ("trailing", "sgm_uniform", 12, 1.5),
    ("leading", "ddim_uniform", 20, 0.01),
]


@pytest.mark.parametrize("spacing, grid, steps, tolerance", SPACINGS)
def test_spacings_of_timesteps_that_are_sigma_grids(spacing, grid, steps, tolerance):
    scheduler = EulerDiscreteScheduler(**SDXL_SCHEDULE | {"timestep_spacing": spacing, "steps_offset": 1})
    scheduler.set_timesteps(steps)
    schedule = noise_schedule(scheduler)
    theirs, ours = (schedule.timestep(sigmas[:-1]) for sigmas in (scheduler.sigmas, SIGMA_GRIDS[grid](schedule, steps)))
    assert float((theirs - ours).abs().max()) <= tolerance
    assert spacing in GRID_NAMES[grid].note
    assert torch.isfinite(ours).all()
