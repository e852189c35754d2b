"""The render scripts: files, their text, axes, batches, exit codes, bad input; on tiny random pipelines."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from tiny_checkpoints import FLUX, ROOT, SDXL, saved_flux, saved_sdxl

import samplers_patch
from k_diffusing._files import write_png
from k_diffusing.render import pipelines as render_grid


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saved_sdxl(folder / "tiny-sdxl")
    saved_flux(folder / "tiny-flux")
    return folder


@pytest.fixture
def sdxl(models, tmp_path):
    """Runs test.py on the tiny model, into tmp_path unless told otherwise; its exit code."""
    fixed = ["--model", str(models / "tiny-sdxl"), "--dtype", "float32", "--device", "cpu", "--output", str(tmp_path)]
    steps = ["--steps", "3"]
    prompt = ["--prompt", "a red circle"]
    return lambda *argv: SDXL.main([*fixed, *prompt, *([] if "--evaluations" in argv else steps), *argv])


@pytest.fixture
def flux(models, tmp_path):
    fixed = ["--model", str(models / "tiny-flux"), "--dtype", "float32", "--device", "cpu", "--output", str(tmp_path)]
    size = ["--height", "16", "--width", "16", "--steps", "3"]
    return lambda *argv: FLUX.main([*fixed, *size, "--prompt", "a red circle", *argv])


@pytest.fixture
def no_load(monkeypatch):
    """Loading a model is an error."""
    monkeypatch.setattr(render_grid, "load", lambda *_: pytest.fail("a model was loaded"))


def text_of(path):
    with Image.open(path) as picture:
        return picture.text


def pixels(path):
    with Image.open(path) as picture:
        return picture.tobytes()


def names(folder):
    """All pictures."""
    return sorted(path.name for path in folder.iterdir() if path.suffix not in (".json", ".jsonl", ".html"))


def results(folder):
    [path] = folder.glob("*-results.jsonl")
    return {line["file"]: line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def replace_sampler(monkeypatch, name, error):
    def broken(model, x, sigmas, extra_args=None, callback=None, disable=None):
        raise error

    record = dataclasses.replace(samplers_patch.SAMPLERS[name], function=broken)
    monkeypatch.setitem(samplers_patch.SAMPLERS, name, record)


@pytest.fixture
def full_disk(monkeypatch):
    """Only half of a file finds room."""
    write = Path.write_bytes

    def write_half(path, content):
        write(path, content[: len(content) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)


def test_failed_write_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(OSError, match="no space"):
        write_png(Image.new("RGB", (4, 4)), tmp_path / "a.png", {})
    assert names(tmp_path) == []


def test_failed_write_keeps_the_older_file(tmp_path, request):
    (tmp_path / "a.png").write_bytes(b"older")
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="no space"):
        write_png(Image.new("RGB", (4, 4)), tmp_path / "a.png", {})
    assert names(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"older"


def test_png_text_round_trip(tmp_path):
    text = {"prompt": "ein großer Kreis, 大きな円", "seed": "0"}
    write_png(Image.new("RGB", (4, 4), "red"), tmp_path / "a.png", text)
    assert text_of(tmp_path / "a.png") == text and names(tmp_path) == ["a.png"]


def test_sdxl_files_and_text(sdxl, tmp_path, capsys):
    assert sdxl("--samplers", "heun", "sample_dpmpp_3m_sde", "heun", "--seed", "5") == 0
    assert names(tmp_path) == ["sdxl-sample_dpmpp_3m_sde.png", "sdxl-sample_heun.png", "sdxl-samplers.png"]
    heun = text_of(tmp_path / "sdxl-sample_heun.png")
    expected = {"sampler": "sample_heun", "steps": "3", "evaluations": "5", "seed": "5", "sigma_grid": "scheduler"}
    expected |= {"prompt": "a red circle", "negative_prompt": "(none)", "guidance_scale": "5.0", "model": "tiny-sdxl"}
    assert expected.items() <= heun.items()
    assert {"torch", "diffusers", "k-diffusion", "k-diffusing"} <= heun.keys()
    assert not any("/" in value for value in heun.values())
    smooth = text_of(tmp_path / "sdxl-sample_dpmpp_3m_sde.png")
    assert (smooth["sigma_grid"], smooth["evaluations"]) == ("karras", "3")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "evaluations" in line] == ["sample_heun", "sample_dpmpp_3m_sde"]
    assert str(tmp_path / "sdxl-sample_heun.png") in lines[0] and " 5 evaluations" in lines[0]


def test_sigma_grid_is_the_users(sdxl, tmp_path):
    assert sdxl("--samplers", "dpmpp_3m_sde", "--sigma-grid", "exponential") == 0
    assert text_of(tmp_path / "sdxl-sample_dpmpp_3m_sde.png")["sigma_grid"] == "exponential"


def test_sigma_grids_with_options_and_of_files(sdxl, tmp_path, capsys):
    """A file's content belongs to the grid of pictures, and its folder is told in no picture."""
    (path := tmp_path / "mine.json").write_text('{"sigmas": [9, 1, 0]}')
    argv = ["--samplers", "euler", "--sigma-grid", "Karras, rho=5", str(path), "--output", str(tmp_path / "out")]
    assert sdxl(*argv) == 0
    found = results(tmp_path / "out")
    assert [line["sigma_grid"] for line in found.values()] == ["karras,rho=5", "mine-3daaaefd.json"]
    assert [*found] == ["sdxl-sample_euler-karras_rho5.png", "sdxl-sample_euler-mine-3daaaefd.json.png"]
    assert [line["evaluations"] for line in found.values()] == [3, 2]
    texts = [text_of(tmp_path / "out" / file)["sigma_grid"] for file in found]
    assert texts == ["karras,rho=5", "mine-3daaaefd.json"]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "--sigma-grid &#39;karras,rho=5&#39;" in page or "karras,rho=5" in page
    assert sdxl(*argv) == 0  # all are there
    path.write_text('{"sigmas": [9, 2, 0]}')
    assert sdxl(*argv) == 2 and "sigma grid: karras,rho=5, mine-" in capsys.readouterr().err


def test_rendering_again_gives_the_same_bytes(sdxl, tmp_path):
    samplers = ["--samplers", "euler_ancestral", "dpmpp_sde"]
    assert sdxl(*samplers) == sdxl(*samplers, "--output", str(tmp_path / "again")) == 0
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 6
    for path in files:
        if path.suffix != ".png":
            continue
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    alone = tmp_path / "alone"  # the noise of one sampler does not depend on those before it
    assert sdxl("--samplers", "dpmpp_sde", "--output", str(alone)) == 0
    assert (alone / "sdxl-sample_dpmpp_sde.png").read_bytes() == (tmp_path / "sdxl-sample_dpmpp_sde.png").read_bytes()
    other = tmp_path / "other"
    assert sdxl("--samplers", "dpmpp_sde", "--output", str(other), "--seed", "1") == 0
    assert pixels(other / "sdxl-sample_dpmpp_sde.png") != pixels(tmp_path / "sdxl-sample_dpmpp_sde.png")


@pytest.fixture
def encodings(monkeypatch):
    """Counts the calls of both text encoders of the pipeline that is loaded; and the loads."""
    counts = {"loads": 0, "text_encoder": 0, "text_encoder_2": 0}
    load = render_grid.load

    def counting(*args):
        pipe = load(*args)
        counts["loads"] += 1
        for name in ("text_encoder", "text_encoder_2"):
            hook = lambda *_, name=name: counts.update({name: counts[name] + 1})  # noqa: E731
            getattr(pipe, name).register_forward_pre_hook(hook)
        return pipe

    monkeypatch.setattr(render_grid, "load", counting)
    return counts


def test_sdxl_loads_once_and_encodes_once(sdxl, encodings, tmp_path):
    assert sdxl("--samplers", "euler", "heun", "lms") == 0
    assert encodings == {"loads": 1, "text_encoder": 1, "text_encoder_2": 1}
    other = ["--output", str(tmp_path / "other"), "--prompt", "a red circle", "a blue circle", "--seeds", "0", "1"]
    assert sdxl("--samplers", "euler", "heun", "--negative-prompt", "blue", *other) == 0
    assert encodings == {"loads": 2, "text_encoder": 4, "text_encoder_2": 4}  # both prompts and one negative prompt


def test_a_prompt_is_encoded_when_it_is_needed(sdxl, encodings, monkeypatch):
    replace_sampler(monkeypatch, "euler", KeyboardInterrupt())
    assert sdxl("--samplers", "euler", "--prompt", "a red circle", "a blue circle") == 130
    assert encodings == {"loads": 1, "text_encoder": 1, "text_encoder_2": 1}  # the first prompt alone


def test_flux_loads_once_and_encodes_once(flux, encodings, tmp_path):
    assert flux("--samplers", "euler", "heun", "lms", "--true-cfg-scale", "4") == 0
    assert encodings == {"loads": 1, "text_encoder": 2, "text_encoder_2": 2}
    text = text_of(tmp_path / "flux-dev-sample_heun.png")
    expected = {"evaluations": "5", "true_cfg_scale": "4.0", "negative_prompt": "", "flow_coordinates": "auto"}
    assert expected.items() <= text.items()


def test_flux_options_change_the_picture(flux, tmp_path):
    pictures = []
    for options in ([], ["--true-cfg-scale", "4"], ["--flow-coordinates", "velocity"], ["--guidance-scale", "9"]):
        folder = tmp_path / str(len(pictures))
        assert flux("--samplers", "dpmpp_2m", *options, "--output", str(folder)) == 0
        assert text_of(folder / "flux-dev-sample_dpmpp_2m.png")["evaluations"] == "3"
        pictures.append(pixels(folder / "flux-dev-sample_dpmpp_2m.png"))
    assert len(set(pictures)) == 4


def test_failing_sampler_is_reported_and_the_others_render(sdxl, tmp_path, monkeypatch, capsys):
    replace_sampler(monkeypatch, "euler", RuntimeError("boom\nand a long explanation"))
    assert sdxl("--samplers", "euler", "heun") == 1
    assert names(tmp_path) == ["sdxl-sample_heun.png", "sdxl-samplers.png"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines] == [["sample_euler", "failed:", "RuntimeError:", "boom"]]
    monkeypatch.undo()  # it is tried again
    assert sdxl("--samplers", "euler", "heun") == 0
    assert names(tmp_path) == ["sdxl-sample_euler.png", "sdxl-sample_heun.png", "sdxl-samplers.png"]


def test_all_fail_and_older_files_stay(sdxl, tmp_path, monkeypatch):
    assert sdxl("--samplers", "euler") == 0
    (tmp_path / "sdxl-manifest.json").unlink()
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    replace_sampler(monkeypatch, "euler", RuntimeError("boom"))
    assert sdxl("--samplers", "euler") == 1
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


def test_interrupt_keeps_what_there_is(sdxl, tmp_path, monkeypatch):
    replace_sampler(monkeypatch, "heun", KeyboardInterrupt())
    assert sdxl("--samplers", "euler", "heun", "lms") == 130
    assert names(tmp_path) == ["sdxl-sample_euler.png"]


BAD = {
    "sampler": (["--samplers", "euler", "dpmp_2m"], ["'dpmp_2m'", "did you mean 'dpmpp_2m'", "euler_ancestral"]),
    "noise": (["--noise", "phlox"], ["'phlox'", "did you mean 'philox'", "a1111"]),
    "seed": (["--seed", "-1"], ["seed -1", "0 to 2**64 - 1"]),
    "grid": (["--sigma-grid", "karas"], ["'karas'", "did you mean 'karras'", "exponential"]),
    "grid's option": (["--sigma-grid", "karras,roh=5"], ["'roh'", "did you mean 'rho'"]),
    "grid's value": (["--sigma-grid", "karras,rho=0"], ["rho=0", "above 0"]),
    "grid's steps": (["--sigma-grid", "dmd2_sdxl", "--steps", "5"], ["4 or 1 steps, not 5"]),
    "grid of others": (["--sigma-grid", "bong_tangent"], ["for flow models", "take karras"]),
    "grid's file": (["--sigma-grid", "no/such.json"], ["no/such.json", "cannot be read"]),
    "steps": (["--steps", "5", "0"], ["0", "at least 1"]),
    "batch size": (["--batch-size", "0"], ["--batch-size 0", "at least 1"]),
    "reference": (["--steps", "5", "6", "--reference", "-1"], ["--reference -1", "0 for no reference"]),
    "eta": (["--samplers", "euler", "heun", "--eta", "0.5"], ["--eta 0.5", "leave it out"]),
    "negative eta": (["--eta", "1", "-1"], ["eta=-1.0", "at least 0"]),
    "model": (["--model", "./nowhere"], ["./nowhere does not exist", ".safetensors file", "owner/name"]),
    "no pipeline": (["--model", str(ROOT / "tests")], ["no model_index.json", "owner/name"]),
    "no weights": (["--model", __file__], ["is not a .safetensors file"]),
    "height": (["--height", "100"], ["--height 100", "multiple of 8"]),
    "device": (["--device", "gpu"], ["--device gpu", "try cpu"]),
    "offload": (["--offload"], ["--offload needs a GPU"]),
    "output": (["--output", __file__], ["--output", "cannot be made"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name, sdxl, no_load, capsys):
    argv, words = BAD[name]
    assert sdxl(*argv) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line


def test_eta_that_is_none(sdxl, no_load, capsys):
    with pytest.raises(SystemExit, match="2"):
        sdxl("--eta", "1", "nan")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "argument --eta: 'nan' is not a finite number: give one" in line


def test_negative_prompt_that_would_not_count(flux, no_load, capsys):
    assert flux("--negative-prompt", "blue") == 2
    assert "--true-cfg-scale 4" in capsys.readouterr().err


def test_every_axis_reaches_the_picture(sdxl, tmp_path):
    axes = ["--samplers", "euler", "dpmpp_2s_ancestral", "--steps", "2", "3", "--guidance-scale", "1", "5"]
    axes += ["--prompt", "a red circle", "a blue circle", "--eta", "0", "1", "--sigma-grid", "scheduler", "karras"]
    assert sdxl(*axes, "--reference", "4") == 0
    lines = results(tmp_path)
    assert len(lines) == (1 + 2) * 2**4 + 2**2
    seen = {pixels(tmp_path / file) for file in lines}
    assert len(seen) == len(lines), "two cells gave one picture"
    for file, line in lines.items():
        text = text_of(tmp_path / file)
        assert [text[name] for name in ("prompt", "steps", "seed", "guidance_scale", "sigma_grid", "evaluations")] == [
            str(line[name]) for name in ("prompt", "steps", "seed", "guidance_scale", "sigma_grid", "evaluations")
        ]
        assert text.get("eta") == (None if line["eta"] is None else str(line["eta"]))
        assert 0 < line["network_seconds"] < line["seconds"] and line["peak_memory"] > 50
    sheets = [name for name in names(tmp_path) if name.startswith("sdxl-samplers")]
    assert len(sheets) == 2**4 and "sdxl-samplers-prompt2-karras-g5-eta1.png" in sheets


def test_true_cfg_axis(flux, tmp_path):
    assert flux("--samplers", "euler", "--true-cfg-scale", "1", "4") == 0
    lines = results(tmp_path)
    assert [line["evaluations"] for line in lines.values()] == [3, 3]
    assert lines.keys() == {"flux-dev-sample_euler-cfg1.png", "flux-dev-sample_euler-cfg4.png"}
    assert len({pixels(tmp_path / file) for file in lines}) == 2


def test_a_program_of_the_whole_grid(sdxl, tmp_path, capsys):
    assert sdxl("--samplers", "euler", "euler,program=None", "--program", "comfyui") == 0
    text = text_of(tmp_path / "sdxl-sample_euler.png")
    assert text["program"] == "comfyui" and "noise" not in text  # which is the program's
    assert len({pixels(tmp_path / file) for file in results(tmp_path)}) == 2
    before, _ = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}, capsys.readouterr()
    assert sdxl("--samplers", "euler", "euler,program=None", "--program", "comfyui") == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert sdxl("--samplers", "euler", "euler,program=None") == 2
    assert "program: comfyui there, none here" in capsys.readouterr().err


def test_a_program_gives_its_own_noise_unless_the_user_does(sdxl, tmp_path):
    run = {name: ["--samplers", "euler", "--program", "comfyui", "--output", str(tmp_path / name)] for name in "abc"}
    assert sdxl(*run["a"]) == sdxl(*run["b"], "--noise", "comfy") == sdxl(*run["c"], "--noise", "philox") == 0
    a, b, c = (pixels(tmp_path / name / "sdxl-sample_euler.png") for name in "abc")
    assert a == b != c
    assert text_of(tmp_path / "c" / "sdxl-sample_euler.png")["noise"] == "philox"


def test_manifests_without_a_program_are_as_before(sdxl, tmp_path):
    assert sdxl("--samplers", "euler") == 0
    assert "program" not in json.loads((tmp_path / "sdxl-manifest.json").read_text(encoding="utf-8"))["settings"]
    assert "program" not in text_of(tmp_path / "sdxl-sample_euler.png")


def test_a_program_guides_below_1(flux, tmp_path):
    """ComfyUI asks for the negative prompt at any scale but 1, and a pair of answers is one evaluation."""
    assert flux("--samplers", "euler", "--true-cfg-scale", "0.5", "1", "--program", "comfyui") == 0
    assert [line["evaluations"] for line in results(tmp_path).values()] == [3, 3]
    assert len({pixels(tmp_path / file) for file in results(tmp_path)}) == 2


def test_evaluations_in_place_of_steps(sdxl, tmp_path):
    assert sdxl("--samplers", *samplers_patch.SAMPLERS, "--evaluations", "6") == 0
    found = {line["sampler"]: line["evaluations"] for line in results(tmp_path).values()}
    assert found.pop("dpm_adaptive") > 6
    assert all(5 <= count <= 6 for count in found.values()), found


def test_evaluations_of_samplers_with_other_first_or_last_steps(sdxl, tmp_path):
    assert sdxl("--samplers", "uni_pc", "er_sde", "sa_solver_pece", "heunpp2", "--evaluations", "6") == 0
    found = {line["sampler"]: (line["steps"], line["evaluations"]) for line in results(tmp_path).values()}
    assert found == {"uni_pc": (6, 6), "er_sde": (6, 6), "sa_solver_pece": (3, 5), "heunpp2": (3, 6)}


def difference(a, b):
    with Image.open(a) as one, Image.open(b) as two:
        return max(high for _, high in ImageChops.difference(one, two).getextrema())


@pytest.mark.parametrize("family", ["sdxl", "flux-dev"])
def test_batches_do_not_change_pictures(sdxl, flux, tmp_path, family):
    run = {"sdxl": sdxl, "flux-dev": flux}[family]
    argv = ["--samplers", "dpmpp_sde", "heun", "--seeds", "0", "5", "--prompt", "a red circle", "a blue circle"]
    argv += ["--true-cfg-scale", "2"] if family == "flux-dev" else []
    for size in ("1", "3"):
        assert run(*argv, "--batch-size", size, "--output", str(tmp_path / size)) == 0
    files = list(results(tmp_path / "1"))
    assert len(files) == 8 and names(tmp_path / "1") == names(tmp_path / "3")
    # 1 level: networks sum a batch in another order, so that a value near the middle of two levels goes to either
    assert max(difference(tmp_path / "1" / file, tmp_path / "3" / file) for file in files) <= 1
    assert "to a level or two of 255" in " ".join(render_grid.options("").format_help().split())
    evaluations = [{file: line["evaluations"] for file, line in results(tmp_path / size).items()} for size in "13"]
    assert evaluations[0] == evaluations[1]


def test_what_the_grid_knows_of_samplers():
    from k_diffusing.render.cells import Solver
    from k_diffusing.render.checks import solver_of

    known = {name: solver_of(sampler) for name, sampler in samplers_patch.SAMPLERS.items()}
    assert known["dpm_adaptive"] == Solver("dpm_adaptive", has_eta=True, alone=True)
    assert known["dpm_fast"] == Solver("dpm_fast", has_eta=True)
    assert known["dpmpp_sde"] == Solver("dpmpp_sde", 2, has_eta=True)
    assert known["dpmpp_3m_sde"].sigma_grid == "karras" and known["heun"] == Solver("heun", 2)


def test_adherence_of_a_caption():
    from k_diffusing.render.adherence import adherence_of

    scene = "a large yellow square on a purple background"
    with Image.open(ROOT / "output" / "sdxl-sample_heun.png") as picture:
        kept = adherence_of(SDXL.DEMO["model"])(scene, picture)
        assert list(kept) == ["ground", "colour", "shape", "size", "one object"] and all(kept.values())
        other = adherence_of(SDXL.DEMO["model"])("a small yellow square on a red background", picture)
        assert not other["ground"] and not other["size"] and other["colour"]
        assert adherence_of(SDXL.DEMO["model"])("an astronaut", picture) is None
        assert adherence_of("stabilityai/stable-diffusion-xl-base-1.0")(scene, picture) is None


def test_unreachable_hub_is_one_line(monkeypatch, tmp_path, capsys):
    class Unreachable:
        @staticmethod
        def from_pretrained(*_, **__):
            raise OSError("Cannot reach the hub\nTraceback and sixty lines more")

    monkeypatch.setattr(SDXL, "SCRIPT", SDXL.SCRIPT._replace(pipeline_class=lambda: Unreachable))
    assert SDXL.main(["--model", "owner/name", "--output", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--model owner/name cannot be loaded" in line and "Cannot reach the hub" in line


@pytest.mark.parametrize("module", [SDXL, FLUX])
def test_defaults_follow_the_model(module, monkeypatch):
    seen = []
    monkeypatch.setattr(render_grid, "run", lambda script, args, say: seen.append(args) or 0)
    for argv in ([], ["--model", "owner/name"], ["--model", "owner/name", "--steps", "7", "--dtype", "float32"]):
        assert module.main(argv) == 0
    demo, real, mixed = seen
    assert Path(demo.model).parent == ROOT / "demo_models" and "square" in demo.prompt[0]
    assert (demo.steps, demo.height, demo.width, demo.dtype) == ([28], 128, 128, "float32")
    assert real.prompt[0].startswith("Astronaut in a jungle") and (demo.seeds, real.seeds) == ([0], [0])
    assert (mixed.steps, mixed.dtype, mixed.prompt) == ([7], "float32", real.prompt)
    assert (demo.changed, real.changed, mixed.changed) == ([], ["model"], ["model", "steps", "dtype"])
    half = {SDXL: ([50], [5.0], None, "float16"), FLUX: ([20], [3.5], 512, "bfloat16")}[module]
    assert (real.steps, real.guidance_scale, real.height, real.dtype) == half


def python(*argv, cwd):
    return subprocess.run([sys.executable, *argv], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_importing_the_scripts_does_nothing_heavy():
    code = "import sys, test, test_flux; sys.exit('torch' in sys.modules or not hasattr(test, 'DEMO'))"
    done = python("-c", code, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path(SDXL.DEMO["model"]).is_dir(), reason="the demo model is not there")
def test_script_on_the_demo_model(tmp_path):
    done = python(str(ROOT / "test.py"), "--samplers", "euler", "--steps", "2", "--output", "new/out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "new" / "out") == ["sdxl-sample_euler.png", "sdxl-samplers.png"]
    assert "--model stabilityai/stable-diffusion-xl-base-1.0" in done.stdout
    with Image.open(tmp_path / "new" / "out" / "sdxl-sample_euler.png") as picture:
        assert picture.size == (128, 128) and picture.text["model"] == "sdxl-shapes"
    code = "import sys, test; sys.exit(test.main(sys.argv[1:]) or 'torch' in sys.modules or 'diffusers' in sys.modules)"
    argv = ["--samplers", "euler", "--steps", "2", "--output", str(tmp_path / "new" / "out")]
    again = python("-c", code, *argv, cwd=ROOT)
    assert again.returncode == 0 and "nothing left to do: 1 pictures in " in again.stdout, again.stderr


MINE = """
import torch

def my_heun(model, x, sigmas, scale=1.0, eta=0.0):
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * x.new_ones([len(x)]))) / sigmas[i]
        x_2 = x + d * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            d = (d + (x_2 - model(x_2, sigmas[i + 1] * x.new_ones([len(x)]))) / sigmas[i + 1]) / 2
        x = x + scale * d * (sigmas[i + 1] - sigmas[i])
    return x

def own_noise(model, x, sigmas):
    return model(x, sigmas[0] * x.new_ones([len(x)])) + 0.1 * torch.randn_like(x)

def broken(model, x, sigmas):
    raise RuntimeError("boom\\nand a long explanation")
"""
SOURCES = ["UniPCMultistepScheduler,solver_order=3", "comfy:euler", "euler", "euler_ancestral,eta=0.5"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's file of samplers, and ComfyUI."""
    installed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "comfy"}
    monkeypatch.syspath_prepend(ROOT / "tests" / "support" / "stand_in")
    path = tmp_path / "src" / "mine.py"
    path.parent.mkdir()
    path.write_text(MINE)
    yield path
    for name in [name for name in sys.modules if name.split(".")[0] == "comfy"]:
        del sys.modules[name]
    sys.modules.update(installed)


def test_samplers_from_everywhere(sdxl, mine, tmp_path):
    out = tmp_path / "out"
    texts = [f"{mine}:my_heun,scale=0.9", "diffusers:" + SOURCES[0], SOURCES[1], "k:sample_euler", SOURCES[3]]
    assert sdxl("--samplers", *texts, "--output", str(out)) == 0
    lines = results(out)
    assert [line["sampler"] for line in lines.values()] == ["mine.py:my_heun,scale=0.9", *SOURCES]
    tags = ["mine.py_my_heun_scale0.9", "UniPCMultistepScheduler_solver_order3", "comfy_euler", "euler"]
    assert list(lines) == [f"sdxl-sample_{tag}.png" for tag in [*tags, "euler_ancestral_eta0.5"]]
    assert [line["evaluations"] for line in lines.values()] == [5, 3, 3, 3, 3]
    text = [text_of(out / file)["sampler"] for file in lines]
    assert text == ["mine.py:my_heun,scale=0.9", *SOURCES[:2], "sample_euler", "sample_euler_ancestral,eta=0.5"]
    assert len({pixels(out / file) for file in lines}) == 4  # ComfyUI's euler is k_diffusion's
    # 1: another order of operations
    assert difference(out / "sdxl-sample_comfy_euler.png", out / "sdxl-sample_euler.png") <= 1
    page = (out / "index.html").read_text(encoding="utf-8")
    assert str(mine) in page and "mine.py:my_heun,scale=0.9" in page


@pytest.mark.parametrize("family", ["sdxl", "flux-dev"])
def test_own_heun_is_heun(sdxl, flux, mine, tmp_path, family):
    run = {"sdxl": sdxl, "flux-dev": flux}[family]
    coordinates = ",flow_coordinates=flow" if family == "flux-dev" else ""  # where k_diffusion's heun runs
    assert run("--samplers", f"{mine}:my_heun{coordinates}", "heun", "--output", str(tmp_path / "out")) == 0
    own, known = results(tmp_path / "out")
    assert difference(tmp_path / "out" / own, tmp_path / "out" / known) <= 1  # another order of operations


def test_option_in_a_name_and_as_an_axis(sdxl, mine, tmp_path):
    samplers = ["euler_ancestral", "euler_ancestral,eta=0.5", f"{mine}:my_heun"]
    assert sdxl("--samplers", *samplers, "--eta", "0", "0.5", "--output", str(tmp_path / "out")) == 0
    found = [(line["sampler"], line["eta"]) for line in results(tmp_path / "out").values()]
    assert found[:3] == [("euler_ancestral", 0.0), ("euler_ancestral", 0.5), ("euler_ancestral,eta=0.5", None)]
    assert found[3:] == [("mine.py:my_heun", 0.0), ("mine.py:my_heun", 0.5)]
    files = list(results(tmp_path / "out"))
    assert pixels(tmp_path / "out" / files[1]) == pixels(tmp_path / "out" / files[2])


def test_names_of_other_programs(sdxl, tmp_path):
    """The sigma grid that a name implies, unless the command line gives one; a grid by any of its names."""
    assert sdxl("--samplers", "DPM++ 2M Karras", "dpmpp_2m", "--output", str(tmp_path / "named")) == 0
    assert sdxl("--samplers", "dpmpp_2m", "--sigma-grid", "use_karras_sigmas", "--output", str(tmp_path / "ours")) == 0
    given = ["--sigma-grid", "SGM Uniform", "--output", str(tmp_path / "given")]
    assert sdxl("--samplers", "DPM++ 2M Karras", *given) == 0
    found = [results(tmp_path / folder) for folder in ("named", "ours", "given")]
    lines = [(line["sampler"], line["sigma_grid"]) for one in found for line in one.values()]
    assert lines[:2] == [("dpmpp_2m_karras", "karras"), ("dpmpp_2m", "scheduler")]
    assert lines[2:] == [("dpmpp_2m", "karras"), ("dpmpp_2m_karras", "sgm_uniform")]
    pictures = [pixels(tmp_path / "named" / file) for file in found[0]]
    assert pictures[0] == pixels(tmp_path / "ours" / next(iter(found[1]))) != pictures[1]


def test_edited_file_is_another_grid(sdxl, mine, tmp_path, monkeypatch, capsys):
    argv = ["--samplers", f"{mine}:my_heun", "euler", "--output", str(tmp_path / "out")]
    assert sdxl(*argv) == 0
    first = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    monkeypatch.setattr(render_grid, "load", lambda *_: pytest.fail("a model was loaded"))
    assert sdxl(*argv) == 0  # nothing left to do
    mine.write_text(MINE.replace("scale=1.0", "scale=0.8"))
    capsys.readouterr()
    assert sdxl(*argv) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("holds another grid: give another folder") and len(told) == 2
    assert "mine.py was edited since: sha256 " in told[1]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == first


def test_command_of_a_cell_names_the_users_file(sdxl, mine, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("k_diffusing.render.page.grid_page", lambda title, cells: told.append(list(cells)) or "page")
    assert sdxl("--samplers", f"{mine}:my_heun,scale=0.9", "--output", str(tmp_path / "out")) == 0
    [[cell]] = told
    words = shlex.split(cell["command"])
    assert words[words.index("--samplers") + 1] == f"{mine}:my_heun,scale=0.9"
    assert SDXL.main([*words[2:], "--output", str(tmp_path / "again")]) == 0
    assert pixels(tmp_path / "again" / cell["file"]) == pixels(tmp_path / "out" / cell["file"])


def test_failing_function_and_the_others(sdxl, mine, tmp_path, capsys):
    samplers = [f"{mine}:broken", f"{mine}:my_heun"]
    assert (
        sdxl("--samplers", *samplers, "--seeds", "0", "1", "--batch-size", "2", "--output", str(tmp_path / "out")) == 1
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1:] for line in lines] == [["failed:", "RuntimeError:", "boom"]] * 2
    assert len(results(tmp_path / "out")) == 2


def test_evaluations_of_functions_and_schedulers(sdxl, mine, tmp_path):
    samplers = [f"{mine}:my_heun", "HeunDiscreteScheduler", "UniPCMultistepScheduler", "comfy:euler"]
    assert sdxl("--samplers", *samplers, "--evaluations", "6", "--output", str(tmp_path / "out")) == 0
    assert [line["evaluations"] for line in results(tmp_path / "out").values()] == [5, 5, 6, 6]
    (tmp_path / "out" / "sdxl-sample_HeunDiscreteScheduler.png").unlink()
    assert sdxl("--samplers", *samplers, "--evaluations", "6", "--output", str(tmp_path / "out")) == 0
    assert len(results(tmp_path / "out")) == 4


def test_own_noise_depends_on_the_seed_alone(sdxl, mine, tmp_path):
    """A function that draws by itself: its picture is that of its seed, and torch's global generator is left alone."""
    argv = ["--seeds", "0", "1", "--batch-size", "2", "--samplers"]
    before = torch.random.get_rng_state()
    assert sdxl(*argv, f"{mine}:own_noise", "--output", str(tmp_path / "a")) == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sdxl(*argv, "euler_ancestral", f"{mine}:own_noise", "--output", str(tmp_path / "b")) == 0
    for seed in "01":
        file = f"sdxl-sample_mine.py_own_noise-seed{seed}.png"
        assert pixels(tmp_path / "a" / file) == pixels(tmp_path / "b" / file)


BAD_SOURCES = {
    "file": (["none.py:f"], ["no file none.py", "path/to/file.py:FUNCTION"]),
    "function": (["{mine}:my_hean"], ["no function 'my_hean'", "my_heun"]),
    "option": (["{mine}:my_heun,scala=1"], ["no option 'scala'", "scale=1.0"]),
    "scheduler": (["UniPCScheduler"], ["no scheduler 'UniPCScheduler'", "the nearest"]),
    "form": (["x:y"], ["unknown sampler source 'x:y'", "comfy:NAME"]),
    "keyword": (["euler,flow_coordinates=ve"], ["no option flow_coordinates", "leave it out"]),
    "eta twice": (["euler_ancestral,eta=1", "--eta", "1"], ["none of these samplers has an option eta"]),
    "unknown evaluations": (["{mine}:broken", "--evaluations", "5"], ["mine.py:broken", "boom", "give --steps"]),
    "too few": (
        ["HeunDiscreteScheduler,use_karras_sigmas=True", "{mine}:two", "--evaluations", "1"],
        ["2 in a single"],
    ),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_bad_sources(name, sdxl, mine, no_load, capsys):
    argv, words = BAD_SOURCES[name]
    mine.write_text(MINE + "\n\ndef two(model, x, sigmas):\n    return model(model(x, sigmas[:1]), sigmas[:1])\n")
    assert sdxl("--samplers", *(text.format(mine=mine) for text in argv)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
