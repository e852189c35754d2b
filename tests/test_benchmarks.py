"""Every benchmark still measures: one row of it, or few, with the smallest settings."""

import functools
import shutil
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import (
    adherence,
    comfyui_samplers,
    convergence,
    convergence_limits,
    data,
    demo_models,
    demos,
    evaluations,
    flux_older,
    grid_cost,
    guidance,
    parity,
    pipelines,
    published,
    sigma_grids,
    step_cost,
    suspended,
    trace_cost,
    tune_grids,
    w1,
)  # fmt: skip
from samplers_patch import SAMPLERS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def threads():
    """Measurements set torch's."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded():
    """The demo models, each loaded once."""
    return functools.cache(demos.demo_pipeline)


@pytest.fixture(autouse=True)
def once(monkeypatch, loaded):
    for module in (adherence, convergence, convergence_limits, guidance, parity, sigma_grids, trace_cost):
        monkeypatch.setattr(module, "demo_pipeline", loaded)


@pytest.fixture
def root(monkeypatch, tmp_path):
    """A root of their own for the files that are made."""
    for folder in ("docs/images", "output"):
        (tmp_path / folder).mkdir(parents=True)
    for module in (data, evaluations, flux_older, published):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cell_of(module, **values) -> dict:
    """The first cell of a benchmark with these values."""
    return next(cell for cell in module.BENCHMARK.cells() if values.items() <= cell.items())


def few(module, monkeypatch, **constants) -> None:
    for name, value in constants.items():
        monkeypatch.setattr(module, name, value)


def test_adherence(monkeypatch):
    few(adherence, monkeypatch, CAPTIONS=2)
    cell = cell_of(adherence, model="flux, older", sampler="heun", setting=6)
    [found] = adherence.measure([cell])
    assert found["evaluations"] == 5 and set(found["right"]) == {*demos.READ.values(), demos.ALL}
    assert cell.items() <= found.items()


def test_demo_models(monkeypatch, loaded):
    few(demo_models, monkeypatch, CAPTIONS=2, DRAWINGS=3, STEPS=1)
    wanted = [cell_of(demo_models, case="SDXL, guidance 5"), {"of": "detector"}, {"of": "size", "model": "demo-flux"}]
    kept, detector, size = demo_models.measure(wanted)
    assert set(kept["right"]) == {*demo_models.WORDS} and (kept["of all"], kept["of left-out"]) == (2, 1)
    assert detector["drawings"] == detector["reconstructions"] == 0 and 25 < detector["decibels"] < 60
    transformer = loaded("demo-flux").transformer
    assert size["parameters"]["transformer"] == sum(each.numel() for each in transformer.parameters())


def test_comfyui_samplers(monkeypatch, tmp_path):
    """On the stand-in of ComfyUI: a function that runs, and one that there is not."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "comfy"}
    shutil.copytree(ROOT / "tests" / "support" / "stand_in", tmp_path, dirs_exist_ok=True)
    few(comfyui_samplers, monkeypatch, STEPS=2)
    monkeypatch.setenv("COMFYUI", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    cells = [cell for cell in comfyui_samplers.cells() if cell["function"] == "euler"]
    found = [*comfyui_samplers.measure(cells)]
    for name in [name for name in sys.modules if name.split(".")[0] == "comfy"]:
        del sys.modules[name]
    sys.modules.update(before)
    assert [row["case"] for row in found] == [*comfyui_samplers.COLUMNS] and all(row["w1"] > 0 for row in found)


def test_a_function_that_fails_is_told_by_its_error():
    def failing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        raise IndexError

    from k_diffusing.oracle.closed_form import oracle_sdxl

    found = comfyui_samplers.judged(oracle_sdxl(), failing, {})
    assert found == {"raises": "IndexError"} and comfyui_samplers.told(found) == "**IndexError**"


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("demo", [None, "demo"])
def test_convergence(monkeypatch, demo, stochastic):
    images = 2 if demo else 8
    models = {"small": convergence.Model("sdxl", demo, (3,), (3,), images, images)}
    few(convergence, monkeypatch, MODELS=models, REFERENCES=(("dpmpp_2m", 4), ("heun", 2)))
    few(convergence, monkeypatch, FINE=(("dpmpp_sde", 1), ("dpmpp_2m_sde", 2)))
    cells = [cell for cell in convergence.cells() if convergence.is_stochastic(cell) == stochastic]
    wanted = [cell for cell in cells if cell["sampler"] in ("reference", "heun", "euler_ancestral")]
    convergence.limits.cache_clear()
    reference, found = convergence.measure(wanted)
    convergence.limits.cache_clear()
    assert reference["floor"] > 0 and found["evaluations"] == 3 and found["error"] > 0


def test_convergence_limits(monkeypatch):
    few(convergence_limits, monkeypatch, MIXTURE_STEPS={"dpmpp_2m": 4}, LMS_STEPS=(2, 3), LIMIT_STEPS=3, PICTURES=2)
    convergence_limits.pictures.cache_clear()
    wanted = [{"of": "mixture", "run": "dpmpp_2m"}, {"of": "mixture", "run": convergence_limits.LAST_STEP}]
    wanted += [cell_of(convergence_limits, of="lms", order=2), {"of": "pictures", "sampler": "heun", "steps": 2}]
    wanted += [{"of": "astray", "sampler": "lms", "steps": 2, "guidance": 4.0, "grid": "karras", "order": 2}]
    run, last, lms, both, astray = convergence_limits.measure(wanted)
    convergence_limits.pictures.cache_clear()
    assert last["to the limit"] == 0 < last["to the solution"] < 0.01 < run["to the limit"]
    assert lms["error"] > 0 and len(both["errors"]) == 2 and min(both["errors"]) > 0 and 0.5 < astray["size"] < 2


@pytest.mark.parametrize("model, rows", [("demo", 4), ("demo-flux", 6)])
def test_guidance(monkeypatch, model, rows):
    few(guidance, monkeypatch, CAPTIONS=1)
    choice = [*guidance.CHOICES[model]][-1]
    [found] = guidance.measure([{"model": model, "guidance": choice, "steps": 2}])
    assert found["rows"] == rows and found["right"] in (0, 1)


def test_flux_older(monkeypatch, root):
    import test_flux

    arguments = test_flux.arguments
    monkeypatch.setattr(test_flux, "arguments", lambda argv: arguments(["--steps", "1", "--samplers", "euler"]))
    [found] = flux_older.measure(flux_older.BENCHMARK.cells())
    assert found == data.made(root / flux_older.PICTURE)


def test_evaluations(monkeypatch, root):
    import test

    grid = test.main
    smallest = ["--samplers", "euler", "--evaluations", "1", "2", "--reference", "3"]
    monkeypatch.setattr(test, "main", lambda argv: grid([*smallest, *argv[argv.index("--sigma-grid") :]]))
    [found] = evaluations.measure(evaluations.BENCHMARK.cells())
    assert found == data.made(root / evaluations.PICTURE)


def test_published(monkeypatch, root):
    """Both scripts run, from no manifest, and all pictures in output are listed."""
    import test
    import test_flux

    manifest = root / "output" / "sdxl-manifest.json"
    manifest.write_text("{}")
    (root / published.FILE).write_text("old")

    def script(name):
        def main(argv):
            assert argv == [] and not manifest.exists() and not (root / published.FILE).exists()
            (root / "output" / name).write_bytes(b"a picture")
            return 0

        return main

    monkeypatch.setattr(test, "main", script("sdxl.png"))
    monkeypatch.setattr(test_flux, "main", script("flux.png"))
    [found] = published.measure(published.BENCHMARK.cells())
    lines = (root / published.FILE).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["flux.png", "sdxl.png"] and found == data.made(root / published.FILE)


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_parity(monkeypatch, model):
    few(parity, monkeypatch, STEPS=2)
    [found] = parity.measure([cell_of(parity, model=model, sampler="euler")])
    assert found["default"]["largest"] < 1e-5 and found["same"]["largest"] < 1e-5
    assert found["loop"][0] == 0 and found["loop"][1] < 1e-5


def test_pipelines():
    from their_pipelines import PIPELINES

    assert [cell["pipeline"] for cell in pipelines.cells()] == [*PIPELINES]
    [found] = pipelines.measure([{"pipeline": "SDXL"}])
    assert found["class"] == "StableDiffusionXLPipeline"
    assert found["largest difference"] == 0 < found["largest latent"]


def test_sigma_grids():
    vae = cell_of(sigma_grids, model="demo-flux", sampler=sigma_grids.VAE)
    of_the_vae, trip = sigma_grids.measure([vae, {"model": "demo-flux", "sampler": "euler", "steps": 2}])
    assert 0 < of_the_vae["mean"] < trip["mean"] and trip["latents"] > 0 and trip["noise"] > 0


def test_suspended(monkeypatch):
    from benchmarks import suspended_runs

    few(suspended_runs, monkeypatch, CALLS=3, ROUNDS=1, SWITCHES=3, RUNS=2)
    wanted = [{"of": "step", "sampler": "heun", "side": 8}, *suspended.cells()[-6:]]
    step, *others = suspended.measure(wanted)
    assert step["its own"] > 0 and step["diffusers' Euler loop"] > 0
    assert all(row.get("microseconds", 1) > 0 for row in others) and [row["of"] for row in others][-1] == "left"


def test_trace_cost(monkeypatch):
    few(trace_cost, monkeypatch, TURNS=1, STEPS=1)
    [found] = trace_cost.measure([{"model": "demo"}])
    assert all(found[kind] > 0 for kind in trace_cost.KINDS)


def test_w1(monkeypatch):
    few(w1, monkeypatch, SIDE=8, STEPS=2)
    cells = [cell_of(w1, sampler="euler", case=case) for case in w1.COLUMNS] + w1.cells()[-1:]
    found = [*w1.measure(cells)]
    assert all(row["w1"] > 0 for row in found) and found[0]["w1"] > found[-1]["w1"]


def test_w1_shows_the_coordinates_that_are_chosen():
    from samplers_patch import choose_coordinates

    names = {"flow": "FLUX, flow", "ve": "FLUX, VE"}
    for name, sampler in SAMPLERS.items():
        assert w1.chosen(name) == names[choose_coordinates("auto", sampler, None)]


def test_grid_cost(monkeypatch):
    from benchmarks import grid_cost_runs

    few(grid_cost_runs, monkeypatch, TURNS=1)
    smallest = ["--steps", "1", "--samplers", "euler", "heun"]
    for script in (grid_cost_runs.test, grid_cost_runs.test_flux):
        whole = script.arguments
        monkeypatch.setattr(script, "arguments", lambda argv, whole=whole: whole([*argv, *smallest]))
    cells = [cell_of(grid_cost, **kind) for kind in ({"of": "grid"}, {"of": "row", "rows": 2}, {"of": "true CFG"})]
    grid, row, paired = grid_cost.measure(cells)
    assert grid["least"] == grid["median"] == grid["largest"] > 0 and row["milliseconds"] > 0
    assert paired["family"] == "flux" and paired["median"] > 0


def test_step_cost(monkeypatch, loaded):
    """All kinds of rows but that of a whole grid, at 64 x 64."""
    from benchmarks import step_cost_runs

    few(step_cost_runs, monkeypatch, TURNS=1, FEW=1, MANY=2, demo_pipeline=loaded)
    call = step_cost_runs.call
    monkeypatch.setattr(step_cost_runs, "call", lambda *args, side=0, **options: call(*args, side=64, **options))
    monkeypatch.setattr(step_cost_runs, "LATENTS", {"sdxl": (1, 4, 8, 8)})
    few(step_cost, monkeypatch, WEIGHED=("euler",))
    kinds = ({"of": "time"}, {"of": "draws"}, {"of": "operations", "sampler": "euler"}, {"of": "memory"})
    cells = [cell_of(step_cost, family="sdxl", **kind) for kind in kinds]
    times, draws, operations, memory = step_cost.measure(cells)
    assert {"diffusers", "euler", "first", "ratio"} <= set(times)  # differences of times: of so few steps any number
    assert {"path", "tree", "step"} <= set(draws) and operations["operations"] != 0
    assert 0.9 < memory["all"] < 1.1 and 0.8 < memory["without weights"] < 1.2


def test_step_cost_is_told_in_microseconds(monkeypatch):
    from benchmarks import step_cost_runs

    seconds = {"diffusers": 2e-4, "euler": 1e-4, "first": 3e-4}
    monkeypatch.setattr(step_cost_runs, "per_step", lambda pipe, family, kinds: {kind: seconds[kind] for kind in kinds})
    told = step_cost_runs.times(None, "sdxl", 64)
    assert told == {"diffusers": 200.0, "euler": 100.0, "first": 300.0, "ratio": 0.5}


def test_tuned_grids_are_compared_on_the_same_pictures():
    """Each ratio is of one picture's errors; fitted has dpmpp_2m's grids to be compared with."""
    errors = {"tuned": [0.1] * 3, "named": [0.2, 0.4, 0.1], "karras": [0.4] * 3, "longer": [0.05] * 3}
    row = {"model": "demo", "sampler": "dpmpp_2m", "evaluations": 6, "named": "beta", "errors": errors}
    fitted = row | {"sampler": "fitted", "named": "vp", "errors": {"tuned": [0.05] * 3}, "right": {"tuned": 3}}
    data = {"rows": [row | {"right": {"tuned": 2, "named": 1}}, fitted]}
    first, second = tune_grids.table(data, "demo").splitlines()[2:]
    assert first.startswith("| dpmpp_2m | 6 | 0.100 [0.100, 0.100] | 0.400 | 0.050 | 0.200 (beta) | 0.500 [")
    assert second.startswith("| fitted | 6 | 0.050 [0.050, 0.050] | 0.400 | 0.050 | 0.200 (beta) | 0.250 [")
    assert first.endswith("| 2 and 1 |") and second.endswith("| 3 and 1 |")


def test_a_fine_run_of_other_guidance_is_another(monkeypatch, tmp_path, loaded):
    """What a folder keeps of one call is not taken for that of another."""
    from k_diffusing.models import DEMOS

    few(tune_grids, monkeypatch, WORK=tmp_path, CAPTIONS=2)
    monkeypatch.setattr("k_diffusing.tune.fine.FINE", 3)

    def ends(guidance_scale: float):
        call = DEMOS["demo"].call | {"guidance_scale": guidance_scale}
        monkeypatch.setattr(tune_grids, "loaded", lambda _: (loaded("demo"), call, ["a prompt"]))
        return tune_grids.Others("demo").fine.ends

    assert not ends(3.0).equal(ends(5.0)) and ends(3.0).equal(ends(3.0))


def test_the_line_of_the_tuning_command():
    """As it prints it: what a grid is worth, or that the best named one is the choice."""
    row = {"model": "demo", "sampler": "dpmpp_2m", "evaluations": 10, "named": "beta", "sigmas": [1.0] * 11}
    row |= {"errors": {"tuned": [0.1] * 3, "named": [0.2] * 3}, "chosen": "beta, moved"}
    end = "error 0.100 [0.100, 0.100], 0.500 [0.500, 0.500] of beta's\n```"
    assert tune_grids.command({"rows": [row]}).endswith(f"# 10 evaluations, 10 steps: {end}")
    told = tune_grids.command({"rows": [row | {"chosen": "beta"}]})
    assert told.endswith("error 0.100 [0.100, 0.100], it is beta, which nothing tried beats\n```")
