"""Every benchmark still runs: its table with the smallest settings, or one row of it."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from samplers_patch import SAMPLERS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "sys.path" in path.read_text(encoding="utf-8"))  # scripts

IMPORT_ALL = """
import runpy, sys
for path in sys.argv[1:]:
    before = [*sys.path]
    runpy.run_path(path, run_name="imported")
    sys.path[:] = before
"""


@pytest.fixture
def benchmark(monkeypatch):
    """Imports one by name."""
    monkeypatch.setattr(sys, "path", [str(ROOT), str(FOLDER), *sys.path])
    monkeypatch.delitem(sys.modules, "sampler_scheduler", raising=False)  # the package's own former name of a module
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


def rows(capsys) -> list[str]:
    """The lines of a table on stdout, below its head."""
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "---" not in line][1:]


def test_importing_them_says_nothing_and_needs_no_folder(tmp_path):
    paths = [str(FOLDER / f"{name}.py") for name in NAMES if name != "figure_style"]
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL, *paths], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(paths) > 10 and run.stdout == "" and not list(tmp_path.iterdir())


def test_caption_adherence(benchmark, monkeypatch):
    module = benchmark("caption_adherence")
    monkeypatch.setattr(module, "CAPTIONS", 2)
    case = {"model": "flux, older", "sampler": "heun", "setting": 6}
    found = module.measure(module.figure_style.demo_pipeline("demo-flux"), case)
    assert found["evaluations"] == 5 and set(found["right"]) == {*module.READ.values(), module.ALL}


def test_grid_cost(benchmark):
    module = benchmark("grid_cost")
    grid = module.Grid(module.test, "--steps", "1", "--samplers", "euler", "heun")
    assert grid.seconds(1) > 0 and grid.seconds(4) > 0
    assert list(module.row_milliseconds(grid)) == list(module.ROWS)


def test_comfyui_samplers(benchmark, monkeypatch, capsys, tmp_path):
    """On the stand-in of ComfyUI."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "comfy"}
    shutil.copytree(ROOT / "tests" / "support" / "stand_in", tmp_path, dirs_exist_ok=True)
    (tmp_path / "comfyui_version.py").write_text('__version__ = "0"\n')
    module = benchmark("comfyui_samplers")
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(sys, "argv", ["comfyui_samplers.py", str(tmp_path)])
    module.main()
    for name in [name for name in sys.modules if name.split(".")[0] == "comfy"]:
        del sys.modules[name]
    sys.modules.update(before)
    assert rows(capsys)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("demo", [None, "demo"])
def test_convergence(benchmark, monkeypatch, tmp_path, demo, stochastic):
    module, images = benchmark("convergence"), 2 if demo else 8
    small = module.Model("sdxl", "small", demo, (3,), (3,), images, images)
    known = {name: SAMPLERS[name] for name in ("heun", "euler_ancestral")}
    few = {"REFERENCES": (("dpmpp_2m", 4), ("heun", 2)), "FINE": (("dpmpp_sde", 1), ("dpmpp_2m_sde", 2))}
    for name, value in (few | {"MODELS": {"small": small}, "SAMPLERS": known}).items():
        monkeypatch.setattr(module, name, value)
    module.limits.cache_clear()
    module.measure_missing(tmp_path / "data.json", ("small",), (stochastic,))
    module.limits.cache_clear()
    reference, found = module.figure_style.read_data(tmp_path / "data.json", {})["rows"]
    assert reference["floor"] > 0 and found["evaluations"] == 3 and found["error"] > 0


def test_convergence_limits(benchmark):
    module = benchmark("convergence_limits")
    pipe = module.figure_style.demo_pipeline("demo")
    stepped, solution = module.exact(torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert 0 < float(module.apart(stepped, solution)) < 0.01
    assert module.picture(pipe, "demo", "lms", 2, "karras", 0, order=2).isfinite().all()


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_guidance(benchmark, monkeypatch, capsys, model):
    module = benchmark("guidance")
    monkeypatch.setattr(module, "CHOICES", {model: dict(list(module.CHOICES[model].items())[-1:])})
    module.main((model,), captions=1, steps=(2,))
    rows_of = {"demo": "(4)", "demo-flux": "(6)"}[model]
    assert [rows_of in line for line in rows(capsys)] == [True]


def test_older_flux(benchmark, monkeypatch, tmp_path):
    module, picture = benchmark("older_flux"), tmp_path / "older.png"
    arguments = module.test_flux.arguments
    monkeypatch.setattr(module.test_flux, "arguments", lambda argv: arguments(["--steps", "1", "--samplers", "euler"]))
    monkeypatch.setattr(sys, "argv", ["older_flux.py", "--output", str(picture)])
    module.main()
    assert picture.is_file()


@pytest.mark.parametrize("model, which, grid", [("demo", 0, "karras"), ("demo-flux", 1, "scheduler")])
def test_parity(benchmark, monkeypatch, model, which, grid):
    module = benchmark("parity")
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "COUNTERPARTS", {name: module.COUNTERPARTS[name] for name in ("euler", "dpm_fast")})
    head, _, euler, fast = module.table(model, which, grid)
    assert "agree" in euler and fast == "| dpm_fast | none | | | |" and len(head.split("|")) == len(fast.split("|"))


def test_sampler_error(benchmark, monkeypatch, capsys):
    module = benchmark("sampler_error")
    monkeypatch.setattr(module, "SIDE", 8)
    monkeypatch.setattr(module, "SAMPLERS", {"euler": SAMPLERS["euler"]})
    monkeypatch.setattr(sys, "argv", ["sampler_error.py", "--steps", "2"])
    module.main()
    assert [line.split(" ")[1] for line in rows(capsys)] == ["euler"]


def test_sampler_scheduler(benchmark, monkeypatch, capsys):
    module = benchmark("sampler_scheduler")
    for name, value in {"CALLS": 3, "ROUNDS": 1, "SAMPLERS": ("heun",), "PIPELINES": {}}.items():
        monkeypatch.setattr(module, name, value)
    there_and_back, leak = module.there_and_back, module.leak
    monkeypatch.setattr(module, "there_and_back", lambda run, busy: there_and_back(run, busy, calls=3))
    monkeypatch.setattr(module, "leak", lambda runs, in_threads: leak(2, in_threads))
    module.main()
    assert [line.split(" ")[1] for line in rows(capsys)][:2] == ["heun", "heun"]


def test_samplers_evaluations(benchmark, monkeypatch, tmp_path):
    module = benchmark("samplers_evaluations")
    grid = module.test.main
    few = ["--samplers", "euler", "--evaluations", "1", "2", "--reference", "3"]
    monkeypatch.setattr(module.test, "main", lambda argv: grid([*few, *argv[argv.index("--sigma-grid") :]]))
    monkeypatch.setattr(module, "PICTURE", tmp_path / "sheet.png")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main() == 0 and (tmp_path / "sheet.png").is_file()


def test_step_cost(benchmark, monkeypatch, capsys):
    module = benchmark("step_cost")
    for name, value in {"TURNS": 1, "FEW": 1, "MANY": 2, "SDE": {"dpmpp_sde": 2}, "memory": dict, "grid": dict}.items():
        monkeypatch.setattr(module, name, value)
    call = module.call
    monkeypatch.setattr(module, "call", lambda *args, side=0, **options: call(*args, side=64, **options))
    monkeypatch.setattr(module, "SAMPLERS", {"euler": SAMPLERS["euler"]})
    module.main()
    assert len(rows(capsys)) >= 8
    pipe = module.figure_style.demo_pipeline("demo")
    assert module.peak_bytes(pipe, "euler") > 0


def test_trace_cost(benchmark, monkeypatch, capsys):
    module = benchmark("trace_cost")

    def seconds(pipe, call, trace):
        pipe(**call, num_inference_steps=1, trace=trace)
        return 1.0

    monkeypatch.setattr(module, "TURNS", 1)
    monkeypatch.setattr(module, "seconds", seconds)
    module.main()
    assert len(capsys.readouterr().out.splitlines()) == 2
