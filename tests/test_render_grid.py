"""The render scripts: files, their text, exit codes, bad input; on tiny random pipelines with text encoders."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tiny_models import tiny_flux, tiny_sdxl
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import contact_sheet
import render_grid
import samplers_patch
from flux_comfy_pipeline import FluxPipeline
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "demo_models"))
from shape_tokens import clip_tokenizer, t5_tokenizer  # noqa: E402

WORDS = ("a", "red", "blue", "circle", "on", "background")


def script(name):
    """test.py or test_flux.py as a module; `import test` may be the standard library's."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SDXL, FLUX = script("test"), script("test_flux")


def clip(model_class, width, tokenizer):
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model_class(config).eval()


def saved_sdxl(folder):
    pipe, words = tiny_sdxl(StableDiffusionXLPipeline), clip_tokenizer(WORDS)
    pipe.register_modules(
        tokenizer=words,
        tokenizer_2=words,
        text_encoder=clip(CLIPTextModel, 8, words),
        text_encoder_2=clip(CLIPTextModelWithProjection, 8, words),
    )
    pipe.save_pretrained(folder)


def saved_flux(folder):
    pipe, words, pieces = tiny_flux(FluxPipeline), clip_tokenizer(WORDS), t5_tokenizer(WORDS)
    torch.manual_seed(0)
    t5 = T5Config(vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipe.register_modules(
        tokenizer=words,
        tokenizer_2=pieces,
        text_encoder=clip(CLIPTextModel, 16, words),
        text_encoder_2=T5EncoderModel(t5).eval(),
    )
    pipe.save_pretrained(folder)


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
    return lambda *argv: SDXL.main([*fixed, "--prompt", "a red circle", "--steps", "3", *argv])


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
    return sorted(path.name for path in folder.iterdir())


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
        contact_sheet.write_png(Image.new("RGB", (4, 4)), tmp_path / "a.png", {})
    assert names(tmp_path) == []


def test_failed_write_keeps_the_older_file(tmp_path, request):
    (tmp_path / "a.png").write_bytes(b"older")
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="no space"):
        contact_sheet.write_png(Image.new("RGB", (4, 4)), tmp_path / "a.png", {})
    assert names(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"older"


def test_png_text_round_trip(tmp_path):
    text = {"prompt": "ein großer Kreis, 大きな円", "seed": "0"}
    contact_sheet.write_png(Image.new("RGB", (4, 4), "red"), tmp_path / "a.png", text)
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


def test_rendering_again_gives_the_same_bytes(sdxl, tmp_path):
    samplers = ["--samplers", "euler_ancestral", "dpmpp_sde"]
    assert sdxl(*samplers) == sdxl(*samplers, "--output", str(tmp_path / "again")) == 0
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 3
    for path in files:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    alone = tmp_path / "alone"  # the noise of one sampler does not depend on those before it
    assert sdxl("--samplers", "dpmpp_sde", "--output", str(alone)) == 0
    assert (alone / "sdxl-sample_dpmpp_sde.png").read_bytes() == (tmp_path / "sdxl-sample_dpmpp_sde.png").read_bytes()
    assert sdxl("--samplers", "dpmpp_sde", "--output", str(alone), "--seed", "1") == 0
    assert pixels(alone / "sdxl-sample_dpmpp_sde.png") != pixels(tmp_path / "sdxl-sample_dpmpp_sde.png")


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


def test_sdxl_loads_once_and_encodes_once(sdxl, encodings):
    assert sdxl("--samplers", "euler", "heun", "lms") == 0
    assert encodings == {"loads": 1, "text_encoder": 1, "text_encoder_2": 1}
    assert sdxl("--samplers", "euler", "heun", "--negative-prompt", "blue") == 0
    assert encodings == {"loads": 2, "text_encoder": 3, "text_encoder_2": 3}


def test_flux_loads_once_and_encodes_once(flux, encodings, tmp_path):
    assert flux("--samplers", "euler", "heun", "lms", "--true-cfg-scale", "4") == 0
    assert encodings == {"loads": 1, "text_encoder": 2, "text_encoder_2": 2}
    text = text_of(tmp_path / "flux-dev-sample_heun.png")
    expected = {"evaluations": "5", "true_cfg_scale": "4.0", "negative_prompt": "", "flow_coordinates": "auto"}
    assert expected.items() <= text.items()


def test_flux_options_change_the_picture(flux, tmp_path):
    pictures = []
    for options in ([], ["--true-cfg-scale", "4"], ["--flow-coordinates", "velocity"], ["--guidance-scale", "9"]):
        assert flux("--samplers", "dpmpp_2m", *options) == 0
        assert text_of(tmp_path / "flux-dev-sample_dpmpp_2m.png")["evaluations"] == "3"
        pictures.append(pixels(tmp_path / "flux-dev-sample_dpmpp_2m.png"))
    assert len(set(pictures)) == 4


def test_failing_sampler_is_reported_and_the_others_render(sdxl, tmp_path, monkeypatch, capsys):
    replace_sampler(monkeypatch, "euler", RuntimeError("boom\nand a long explanation"))
    assert sdxl("--samplers", "euler", "heun") == 1
    assert names(tmp_path) == ["sdxl-sample_heun.png", "sdxl-samplers.png"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split() for line in lines] == [["sample_euler", "failed:", "RuntimeError:", "boom"]]


def test_all_fail_and_older_files_stay(sdxl, tmp_path, monkeypatch):
    assert sdxl("--samplers", "euler") == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace_sampler(monkeypatch, "euler", RuntimeError("boom"))
    assert sdxl("--samplers", "euler") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupt_keeps_what_there_is(sdxl, tmp_path, monkeypatch):
    replace_sampler(monkeypatch, "heun", KeyboardInterrupt())
    assert sdxl("--samplers", "euler", "heun", "lms") == 130
    assert names(tmp_path) == ["sdxl-sample_euler.png"]


BAD = {
    "sampler": (["--samplers", "euler", "dpmp_2m"], ["'dpmp_2m'", "did you mean 'dpmpp_2m'", "euler_ancestral"]),
    "noise": (["--noise", "phlox"], ["'phlox'", "did you mean 'philox'", "a1111"]),
    "seed": (["--seed", "-1"], ["seed -1", "0 to 2**64 - 1"]),
    "grid": (["--sigma-grid", "karas"], ["'karas'", "did you mean 'karras'", "exponential"]),
    "steps": (["--steps", "0"], ["0", "at least 1"]),
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


def test_negative_prompt_that_would_not_count(flux, no_load, capsys):
    assert flux("--negative-prompt", "blue") == 2
    assert "--true-cfg-scale 4" in capsys.readouterr().err


class Weights:
    """Stands in for a pipeline class: notes how it is asked for weights, and has those of `variants`."""

    def __init__(self, *variants, error=None):
        self.variants, self.error, self.asked = variants, error or ValueError("no such files"), []

    def from_pretrained(self, model, dtype, variant=None):
        self.asked.append(variant)
        if variant not in self.variants:
            raise self.error
        return SimpleNamespace(variant=variant)

    def from_single_file(self, model, dtype):
        return "single file"


def asked_for(weights, model, dtype="float16"):
    return render_grid.read_weights(weights, SimpleNamespace(model=str(model), dtype=dtype, variant="fp16"))


def test_variant_of_the_weights(tmp_path):
    assert asked_for(Weights("fp16", None), "owner/name").variant == "fp16"
    assert asked_for(Weights("fp16", None), "owner/name", dtype="float32").variant is None
    without = Weights(None)
    assert asked_for(without, "owner/name").variant is None and without.asked == ["fp16", None]
    folder = Weights("fp16", None)
    assert asked_for(folder, tmp_path).variant is None and folder.asked == [None]
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").touch()
    assert asked_for(Weights("fp16", None), tmp_path).variant == "fp16"
    (tmp_path / "all.safetensors").touch()
    assert asked_for(Weights(), tmp_path / "all.safetensors") == "single file"


def test_unreachable_hub_is_one_line(monkeypatch, tmp_path, capsys):
    weights = Weights(error=OSError("Cannot reach the hub\nTraceback and sixty lines more"))
    monkeypatch.setattr(SDXL, "SCRIPT", SDXL.SCRIPT._replace(pipeline_class=lambda: weights))
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
    assert Path(demo.model).parent == ROOT / "demo_models" and "square" in demo.prompt
    assert (demo.steps, demo.height, demo.width, demo.dtype) == (28, 128, 128, "float32")
    assert real.prompt.startswith("Astronaut in a jungle") and (demo.seed, real.seed) == (0, 0)
    assert (mixed.steps, mixed.dtype, mixed.prompt) == (7, "float32", real.prompt)
    half = {SDXL: (50, 5.0, None, "float16"), FLUX: (20, 3.5, 512, "bfloat16")}[module]
    assert (real.steps, real.guidance_scale, real.height, real.dtype) == half


def tiles(count, size):
    colours = [(200, 40 + 10 * i, 30) for i in range(count)]
    return [(f"sampler_{i}", "28 nfe", Image.new("RGB", size, colour)) for i, colour in enumerate(colours)]


def test_contact_sheet_shows_every_picture_in_order():
    made = tiles(13, (128, 128))
    sheet = contact_sheet.contact_sheet(made, "model", "prompt")
    assert sheet.size == (2 * 24 + 5 * 256 + 4 * 16, 84 + 24 + 3 * (256 + 34) + 2 * 16)
    for i, (_, _, picture) in enumerate(made):
        x, y = 24 + i % 5 * 272, 84 + i // 5 * 306
        assert sheet.getpixel((x, y)) == sheet.getpixel((x + 255, y + 255)) == picture.getpixel((0, 0))
        label = sheet.crop((x, y + 258, x + 256, y + 290)).convert("L")
        assert label.getextrema()[0] < 60 and label.getextrema()[1] == 255
    last = sheet.crop((24 + 3 * 272, 84 + 2 * 306, *sheet.size))
    assert last.getextrema() == ((255, 255),) * 3  # two places of the last row are empty
    heading = sheet.crop((0, 0, sheet.width, 84)).convert("L")
    assert heading.getextrema()[0] < 60


SHOWN = {(1024, 512): (384, 192), (300, 200): (300, 200), (64, 32): (256, 128), (256, 1024): (96, 384)}


@pytest.mark.parametrize(("size", "shown"), SHOWN.items())
def test_contact_sheet_scales_pictures(size, shown):
    sheet = contact_sheet.contact_sheet(tiles(1, size), "model", "a very long prompt\nin two lines " * 20)
    assert sheet.size == (2 * 24 + max(shown[0], 256), 84 + 24 + shown[1] + 34)
    assert sheet.getpixel((24, 84)) == sheet.getpixel((23 + shown[0], 83 + shown[1])) == (200, 40, 30)
    assert sheet.crop((sheet.width - 24, 0, sheet.width, 84)).getextrema() == ((255, 255),) * 3


def test_one_line_of_an_error():
    assert render_grid.one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert render_grid.one_line(KeyError()) == "KeyError: "
    assert len(render_grid.one_line(ValueError("x" * 1000))) == 200


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
