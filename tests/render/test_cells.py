"""Cells of a grid: how many, their names, their order; no torch."""

import re
import subprocess
import sys
from pathlib import Path

from k_diffusing.render.axes import Axes, several
from k_diffusing.render.cells import Cell, Solver, cells, named_cells

ROOT = Path(__file__).resolve().parents[2]
EULER, HEUN, SDE = Solver("euler"), Solver("heun", 2), Solver("dpmpp_sde", 2, has_eta=True)
FULL = Axes(
    solvers=(EULER, HEUN, SDE, Solver("dpmpp_3m_sde", has_eta=True, sigma_grid="karras")),
    steps=(5, 10),
    seeds=(0, 7),
    prompts=("a / cat", "ein Hund?", "-x"),
    sigma_grids=("scheduler", "karras"),
    guidance_scales=(1.0, 5.5),
    true_cfg_scales=(1.0, 2.0),
    guidances=(None, "cfg++=0.6,rescale=0.7"),
    etas=(0.0, 0.5, 1.0),
    reference=200,
)


def test_default_names_have_no_suffix():
    assert list(named_cells("flux-dev", Axes((EULER, HEUN), steps=(28,)))) == [
        "flux-dev-sample_euler.png",
        "flux-dev-sample_heun.png",
    ]


def test_names_are_unique_and_safe():
    named = named_cells("sdxl", FULL)
    shared = 2 * 3 * 2 * 2 * 2  # seeds, prompts, guidance, true CFG, guidance by step
    assert len(named) == len(cells(FULL)) == shared * (2 * 2 * (1 + 1 + 3 + 3) + 1)
    assert len({name.lower() for name in named}) == len(named)  # some file systems know no case
    assert all(re.fullmatch(r"[\w.-]+", name) for name in named)
    assert "sdxl-sample_dpmpp_sde-steps10-seed7-prompt2-karras-g5.5-cfg2-guidance2-eta0.5.png" in named
    assert "sdxl-sample_euler-steps10-seed7-prompt2-karras-g5.5-cfg2-guidance1.png" in named
    assert "sdxl-converged-seed7-prompt3-g1-cfg1-guidance1.png" in named
    assert set(several(FULL)) == {*Cell._fields} - {"sampler", "budget", "reference"}


def test_numbers_close_to_each_other_get_different_names():
    axes = Axes((SDE,), steps=(5,), etas=(0.1, 0.10000001, 1e-7))
    assert len(named_cells("sdxl", axes)) == 3


def test_eta_multiplies_only_samplers_that_have_it():
    found = cells(Axes((EULER, SDE), steps=(5,), etas=(0.0, 1.0)))
    assert [(cell.sampler, cell.eta) for cell in found] == [("euler", None), ("dpmpp_sde", 0.0), ("dpmpp_sde", 1.0)]
    assert several(Axes((EULER,), steps=(5,), etas=(0.0, 1.0))) == []


def test_grid_left_out_is_the_samplers():
    [cell] = cells(Axes((FULL.solvers[3],), steps=(5,)))
    assert cell.sigma_grid == "karras"
    assert {one.sigma_grid for one in cells(Axes((EULER,), steps=(5,), sigma_grids=("scheduler",)))} == {"scheduler"}


def test_steps_within_evaluations():
    assert [EULER.steps_within(n) for n in (1, 10, 11)] == [1, 10, 11]
    for budget in range(1, 30):
        steps = HEUN.steps_within(budget)
        assert 2 * (steps - 1) + 1 <= budget < 2 * steps + 1
    named = named_cells("sdxl", Axes((HEUN,), budgets=(10, 20)))
    assert [(name, cell.steps) for name, cell in named.items()] == [
        ("sdxl-sample_heun-nfe10.png", 5),
        ("sdxl-sample_heun-nfe20.png", 10),
    ]


def test_reference_only_beside_several_steps():
    assert not any(cell.reference for cell in cells(FULL._replace(steps=(5,))))
    assert not any(cell.reference for cell in cells(FULL._replace(reference=0)))
    budgets = FULL._replace(steps=(), budgets=(5, 10))
    assert sum(cell.reference for cell in cells(budgets)) == 48
    assert all(cell.steps == 200 and cell.eta is None for cell in cells(budgets) if cell.reference)


def test_what_differs_in_seed_and_prompt_stands_together():
    axes = Axes((EULER, HEUN), steps=(5, 10), seeds=(0, 1, 2), prompts=("a", "b"))
    found = [(cell.sampler, cell.steps) for cell in named_cells("sdxl", axes).values()]
    assert found == [(name, steps) for name in ("euler", "heun") for steps in (5, 10) for _ in range(6)]


NO_TORCH = """
import importlib, pkgutil, sys
import k_diffusing.render, k_diffusing.web
for package in (k_diffusing.render, k_diffusing.web):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
assert "k_diffusing.render.engine" in sys.modules and "k_diffusing.web.pages" in sys.modules
sys.exit(str({"torch", "diffusers", "numpy"} & sys.modules.keys()))
"""


def test_no_torch():
    """The pipeline's part, too, imports it in functions alone."""
    done = subprocess.run([sys.executable, "-c", NO_TORCH], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"
