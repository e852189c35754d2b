"""`k-diffusing reproduce`: what is told, exit codes, and pictures made again, on the demo models."""

import json
from pathlib import Path

import pytest
from page_elements import HOSTILE, Elements
from PIL import Image, ImageOps
from workflows import change, flux, node, sdxl, write_json, write_picture

from k_diffusing import Trace, __version__, encode_prompts, models, read_recipe, render_recipe
from k_diffusing.cli import main
from k_diffusing.programs.a1111 import a1111
from k_diffusing.render import families
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.difference import apart
from k_diffusing.reproduce.page import page
from k_diffusing.reproduce.rendering import keywords_of
from k_diffusing.reproduce.show import python


@pytest.fixture
def reproduce(tmp_path, capsys):
    """The exit code, and what is said."""

    def reproduce(*argv):
        code = main(["reproduce", *map(str, argv), "--output", str(tmp_path / "again")])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return reproduce


def test_a_workflow_is_told(reproduce, tmp_path):
    code, out, _ = reproduce(write_json(tmp_path / "a.json", sdxl()))
    assert code == 0 and out.rstrip().endswith("all of it was understood")
    assert all(len(line) <= 100 for line in out.partition("\n\n")[0].splitlines())
    assert "3 KSampler" in out and "comfy_sampler='dpmpp_2m'," in out
    compile(out.partition("\n\n")[2].rpartition("\n\n")[0], "told", "exec")  # what is told to paste is Python


def test_what_cannot_be_the_same(reproduce, tmp_path):
    workflow = change(sdxl(n20=node("FreeU_V2", model=("4", 0))), "3", model=("20", 0))
    code, out, _ = reproduce(write_json(tmp_path / "a.json", workflow))
    assert code == 1 and "20 FreeU_V2: changes the network" in out


def test_bad_input(reproduce, tmp_path):
    for name in ("none.png", "."):
        code, out, err = reproduce(tmp_path / name)
        assert (code, out) == (2, "") and err.startswith("error: ")
    path = write_json(tmp_path / "a.json", sdxl())
    assert reproduce(path, "--node", "77")[0] == 2
    assert "give NAME=FILE" in reproduce(path, "--lora", "x")[2]
    assert "no LoRA" in reproduce(path, "--lora", f"x={path}")[2]
    code, _, err = reproduce(path, "--model", str(tmp_path / "nothing"))
    assert code == 2 and "cannot be loaded" in err


def test_a_lora_that_is_not_given(reproduce, tmp_path):
    lora = node("LoraLoader", model=("4", 0), clip=("4", 1), lora_name="styles/x.safetensors")
    path = write_json(tmp_path / "a.json", change(sdxl(n20=lora), "3", model=("20", 0)))
    assert reproduce(path)[0] == 0
    (tmp_path / "x.pt").write_bytes(b"")
    assert "no such .safetensors" in reproduce(path, "--lora", f"x={tmp_path / 'x.pt'}")[2]


def test_a_picture_to_begin_with_that_is_not_there(reproduce, tmp_path):
    workflow = sdxl(n5=node("VAEEncode", pixels=("20", 0), vae=("4", 2)), n20=node("LoadImage", image="begin.png"))
    code, _, err = reproduce(write_json(tmp_path / "a.json", workflow), "--model", "demo")
    assert code == 2 and "give --image FILE" in err


@pytest.fixture(scope="module")
def demo():
    return models.load("demo")


def test_a_picture_to_begin_with(reproduce, tmp_path, demo):
    """The picture of the call by hand, beside the workflow or given."""
    begin = Image.effect_noise((128, 128), 80).convert("RGB")
    begin.save(tmp_path / "begin.png")
    workflow = sdxl(n5=node("VAEEncode", pixels=("20", 0), vae=("4", 2)), n20=node("LoadImage", image="in/begin.png"))
    path = write_json(tmp_path / "a.json", change(workflow, "3", denoise=0.5))
    call = {"comfy_sampler": "dpmpp_2m", "sigma_grid": "karras", "guidance_scale": 4.5, "num_inference_steps": 6}
    texts = {"prompt": "a large yellow square", "negative_prompt": "blurry"}
    expected = demo(**texts, **call, seeds=5, program="comfyui", image=begin, denoise=0.5).images[0]
    code, out, _ = reproduce(path, "--model", "demo")
    assert code == 0 and "image=Image.open('in/begin.png')" in out and "denoise=0.5" in out
    assert apart(Image.open(tmp_path / "again" / "a-again.png"), expected).most == 0
    (tmp_path / "begin.png").rename(tmp_path / "other.png")
    assert reproduce(path, "--model", "demo", "--image", tmp_path / "other.png")[0] == 0


@pytest.mark.parametrize("channel", ["alpha", "red"])
def test_a_mask(reproduce, tmp_path, demo, channel):
    """Its right half is made anew: what is transparent, or red."""
    anew = Image.new("L", (128, 128), 0)
    anew.paste(255, (64, 0, 128, 128))
    begin = Image.new("RGBA", (128, 128), "green")
    begin.putalpha(ImageOps.invert(anew))
    begin.save(tmp_path / "begin.png")
    Image.merge("RGB", [anew] * 3).save(tmp_path / "mask.png")
    workflow = sdxl(
        n5=node("SetLatentNoiseMask", samples=("21", 0), mask=("20", 1) if channel == "alpha" else ("22", 0)),
        n20=node("LoadImage", image="begin.png"),
        n21=node("VAEEncode", pixels=("20", 0), vae=("4", 2)),
        n22=node("LoadImageMask", image="mask.png", channel="red"),
    )
    code, out, _ = reproduce(write_json(tmp_path / "a.json", workflow), "--model", "demo")
    call = {"comfy_sampler": "dpmpp_2m", "sigma_grid": "karras", "guidance_scale": 4.5, "num_inference_steps": 6}
    texts = {"prompt": "a large yellow square", "negative_prompt": "blurry"}
    begin = begin.convert("RGB")
    expected = demo(**texts, **call, seeds=5, program="comfyui", image=begin, mask_image=anew).images[0]
    assert code == 0 and apart(Image.open(tmp_path / "again" / "a-again.png"), expected).most == 0


def test_a_mask_of_no_picture(tmp_path, demo):
    masked = node("SetLatentNoiseMask", samples=("5", 0), mask=("22", 0))
    workflow = sdxl(n20=masked, n22=node("LoadImageMask", image="mask.png", channel="red"))
    recipe = read_recipe(write_json(tmp_path / "a.json", change(workflow, "3", latent_image=("20", 0))))
    assert "no picture's" in recipe.gaps[0].effect and render_recipe(recipe, demo)


def test_no_picture_is_lost(reproduce, tmp_path):
    """Another file of the same name is written beside the first one's picture; the same one again is not."""
    for seed in (1, 2, 1):
        code, out, _ = reproduce(
            write_json(tmp_path / "a.json", change(sdxl(), "3", seed=seed, steps=1)), "--model", "demo"
        )
        assert code == 0
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["a-again-v2.png", "a-again.png"]


CHAIN = {"steps": 6, "cfg": 4.5, "sampler_name": "euler", "scheduler": "normal", "noise_seed": 5}
CHAIN |= {"model": ("4", 0), "positive": ("6", 0), "negative": ("7", 0)}


def test_two_stages_are_one_run_of_a_sampler_without_noise(tmp_path, demo):
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 4, "return_with_leftover_noise": "enable"}
    second = {"add_noise": "disable", "start_at_step": 4, "end_at_step": 99, "return_with_leftover_noise": "disable"}
    workflow = sdxl(
        n3=node("KSamplerAdvanced", **CHAIN, **first, latent_image=("5", 0)),
        n20=node("KSamplerAdvanced", **CHAIN, **second, latent_image=("3", 0)),
    )
    recipe = read_recipe(write_json(tmp_path / "a.json", change(workflow, "8", samples=("20", 0))))
    [two] = render_recipe(recipe, demo)
    assert recipe.complete and "latents=latents" in python(recipe)
    whole = change(sdxl(), "3", sampler_name="euler", scheduler="normal")
    [one] = render_recipe(read_recipe(write_json(tmp_path / "b.json", whole)), demo)
    assert apart(one, two).most <= 1  # the state is rounded once more between the stages


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_a_second_stage_adds_noise(tmp_path, model):
    """Latents of the first stage are what the second begins with."""
    pipe = models.load(model)
    workflow = sdxl(n20={**sdxl()["3"], "inputs": {**sdxl()["3"]["inputs"], "latent_image": ["3", 0], "denoise": 0.5}})
    workflow = change(workflow, "8", samples=("20", 0))
    recipe = read_recipe(write_json(tmp_path / "a.json", workflow))
    [two] = render_recipe(recipe, pipe)
    [one] = render_recipe(read_recipe(write_json(tmp_path / "b.json", sdxl())), pipe)
    assert len(recipe.stages) == 2 and "image=latents" in python(recipe) and 0 < apart(one, two).mean < 60


def test_a_seed_that_is_not_known(reproduce, tmp_path):
    workflow = change(sdxl(n20=node("Random", low=1, high=9)), "3", seed=("20", 0))
    code, out, err = reproduce(write_json(tmp_path / "a.json", workflow), "--model", "demo")
    assert code == 2 and "20 Random" not in out.partition("pipe")[0] and "the seed cannot be read" in err


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_our_own_picture_again(reproduce, tmp_path, model):
    """The same to the last bit: on one thread the demo models' pictures are."""
    made = ["--model", model, "--samplers", "euler_ancestral", "--steps", "3", "--seed", "7", "--sigma-grid", "karras"]
    assert families.main([*made, "--output", str(tmp_path / "made")]) == 0
    [path] = [one for one in (tmp_path / "made").glob("*.png") if "samplers" not in one.name]
    code, out, _ = reproduce(path, "--model", model)
    assert code == 0 and "the same in every pixel" in out
    again = Image.open(tmp_path / "again" / f"{path.stem}-again.png")
    assert apart(Image.open(path), again).most == 0
    page = (tmp_path / "again" / f"{path.stem}-again.html").read_text(encoding="utf-8")
    assert "euler_ancestral" in page and page.count("data:image/png") == 2
    elements = Elements(page)
    assert elements.slider() == [1, 1, 1, 1]
    assert all(image["src"].startswith("data:") for image in elements.all("img"))


@pytest.mark.parametrize("model", ["demo", "demo-flux"])
def test_the_line_for_other_tools_says_the_same(reproduce, tmp_path, model):
    """Of our own picture, with A1111's `parameters` alone left in it."""
    made = ["--model", model, "--samplers", "dpmpp_sde", "--steps", "2", "--seed", "7", "--sigma-grid", "karras"]
    assert families.main([*made, "--output", str(tmp_path / "made")]) == 0
    [path] = [one for one in (tmp_path / "made").glob("*.png") if "samplers" not in one.name]
    with Image.open(path) as picture:
        line = picture.text["parameters"]
        write_picture(tmp_path / "line.png", picture.copy(), parameters=line)
    assert "\nSteps: 2, Sampler: DPM++ SDE, Schedule type: Karras, CFG scale: " in line and "Size: 128x128" in line
    assert read_recipe(path).source == f"text of k-diffusing {__version__}"
    code, out, _ = reproduce(tmp_path / "line.png", "--model", model)
    assert code == 0 and f"parameters of k-diffusing {__version__}" in out
    assert ("the same in every pixel" in out) == (model == "demo")  # of FLUX it lacks max_sequence_length


TEXT = "a (large:1.3) yellow square on a purple background"
WORKFLOWS = {
    "demo": (
        change(sdxl(), "6", text=TEXT),
        {"comfy_sampler": "dpmpp_2m", "sigma_grid": "karras", "guidance_scale": 4.5},
    ),
    "demo-flux": (
        change(change(flux(), "4", text=TEXT), "8", sampler_name="dpmpp_sde"),
        {"comfy_sampler": "dpmpp_sde", "sigma_grid": "simple", "guidance_scale": 2.5, "true_cfg_scale": 1.0},
    ),
}


@pytest.mark.parametrize("model", WORKFLOWS)
def test_a_workflow_is_rendered(reproduce, tmp_path, model):
    """The picture of the call by hand; and of a picture with the workflow in it, compared with that."""
    workflow, call = WORKFLOWS[model]
    pipe = models.load(model)
    texts = encode_prompts(pipe, TEXT, "blurry" if model == "demo" else None, program="comfyui")
    call |= {"seeds": 5 if model == "demo" else 11, "num_inference_steps": 6 if model == "demo" else 4}
    expected = pipe(**texts, **call, program="comfyui", width=128, height=128).images[0]
    code, out, _ = reproduce(write_json(tmp_path / "a.json", workflow), "--model", model)
    assert code == 0 and apart(Image.open(tmp_path / "again" / "a-again.png"), expected).most == 0
    path = write_picture(tmp_path / "b.png", expected, prompt=json.dumps(workflow))
    code, out, _ = reproduce(path, "--model", model)
    assert code == 0 and "the same in every pixel" in out and (tmp_path / "again" / "b-again.html").is_file()


SCHEDULES = ["Automatic", "Uniform", "Karras", "Align Your Steps", "SGM Uniform", "DDIM", "Beta", "KL Optimal"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_text_of_a1111_is_rendered(reproduce, tmp_path, schedule):
    """The picture of the call by hand, with the settings that the text tells."""
    settings = (
        f"Steps: 3, Sampler: DPM++ 2M SDE, Schedule type: {schedule}, CFG scale: 5, Seed: 7, Size: 128x128, ENSD: 3"
    )
    (tmp_path / "a.txt").write_text(f"{TEXT}\nNegative prompt: blurry\n{settings}")
    pipe = models.load("demo")
    expected = pipe(
        **encode_prompts(pipe, TEXT, "blurry", program="a1111"), width=128, height=128, seeds=7, guidance_scale=5.0,
        num_inference_steps=3, comfy_sampler="dpmpp_2m_sde", sigma_grid=schedule, program=a1111(ensd=3),
    ).images[0]  # fmt: skip
    code, _, _ = reproduce(tmp_path / "a.txt", "--model", "demo")
    assert code == 0 and apart(Image.open(tmp_path / "again" / "a-again.png"), expected).most == 0


def test_a_text_of_forge_on_flux_is_rendered(reproduce, tmp_path):
    settings = "Steps: 3, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 2.5, Seed: 7"
    (tmp_path / "a.txt").write_text(f"a small white ring\n{settings}, Size: 128x128, Version: f2.0.1v1.10.1")
    expected = models.load("demo-flux")(
        "a small white ring", width=128, height=128, seeds=7, guidance_scale=2.5, true_cfg_scale=1.0,
        num_inference_steps=3, comfy_sampler="euler", sigma_grid="simple", program="forge",
    ).images[0]  # fmt: skip
    code, _, _ = reproduce(tmp_path / "a.txt", "--model", "demo-flux")
    assert code == 0 and apart(Image.open(tmp_path / "again" / "a-again.png"), expected).most == 0


def test_weights_of_another_network(reproduce, tmp_path):
    code, out, _ = reproduce(write_json(tmp_path / "a.json", change(sdxl(), "3", steps=1)), "--model", "demo-flux")
    assert code == 1 and "--model demo-flux: is FLUX's, and the picture seems to be SDXL's" in out
    assert "true_cfg_scale=4.5" in out and (tmp_path / "again" / "a-again.png").is_file()


def test_a_batch_from_one_seed(reproduce, tmp_path):
    workflow = change(sdxl(), "5", batch_size=2)
    code, out, _ = reproduce(write_json(tmp_path / "a.json", workflow), "--model", "demo")
    assert code == 0
    alone, _, _ = reproduce(write_json(tmp_path / "b.json", sdxl()), "--model", "demo")
    first, second, one = (
        Image.open(tmp_path / "again" / f"{name}.png") for name in ("a-again-1", "a-again-2", "b-again")
    )
    assert apart(first, one).most <= 1 and apart(first, second).most > 50  # a batch sums in another order


def test_a_grid_node_runs_whole(tmp_path):
    """dpm_2's KSampler drops a sigma of a grid one step longer; a node with a grid of its own is run as it is."""
    parts = {
        "add_noise": True,
        "noise_seed": 5,
        "cfg": 4.5,
        "model": ("4", 0),
        "positive": ("6", 0),
        "negative": ("7", 0),
    }
    workflow = sdxl(
        n3=node("SamplerCustom", **parts, sampler=("20", 0), sigmas=("21", 0), latent_image=("5", 0)),
        n20=node("KSamplerSelect", sampler_name="dpm_2"),
        n21=node("BasicScheduler", model=("4", 0), scheduler="simple", steps=4, denoise=1.0),
    )
    recipe = read_recipe(write_json(tmp_path / "a.json", workflow))
    pipe, shown = models.load("demo"), Trace()
    [call] = calls_of(recipe)
    assert recipe.complete and "drops_penultimate=frozenset()" in python(recipe)
    pipe(**keywords_of(call, pipe), trace=shown)
    expected = pipe.plan("euler", sigma_grid="simple", num_inference_steps=4, program="comfyui").sigmas
    assert shown.step_count == 4 and shown.calls[-1].sigma == pytest.approx(float(expected[-2]))


def test_what_a_recipe_changes_of_the_pipeline_is_undone(tmp_path):
    told = node("ModelSamplingDiscrete", model=("4", 0), sampling="v_prediction", zsnr=True)
    recipe = read_recipe(write_json(tmp_path / "a.json", change(sdxl(n20=told), "3", model=("20", 0), steps=2)))
    pipe = models.load("demo")
    scheduler, seen = pipe.scheduler, []
    pipe.unet.register_forward_pre_hook(lambda *_: seen.append(pipe.scheduler.config.prediction_type))
    render_recipe(recipe, pipe)
    assert set(seen) == {"v_prediction"} and pipe.scheduler is scheduler


class WithLoras:
    """A pipeline that takes note of its LoRAs."""

    unet = scheduler = None

    def __init__(self):
        self.told = []

    def load_lora_weights(self, folder, **more):
        self.told.append(("load", Path(folder) / more["weight_name"], more["adapter_name"]))

    def set_adapters(self, names, strengths):
        self.told.append(("set", names, strengths))

    def unload_lora_weights(self):
        self.told.append(("unload",))

    def __call__(self, **keywords):
        raise RuntimeError("stopped")


def test_loras_are_loaded_and_unloaded(tmp_path):
    lora = {"clip": ("4", 1), "strength_model": 0.8, "strength_clip": 0.5}
    workflow = sdxl(
        n20=node("LoraLoader", model=("4", 0), lora_name="styles/first one.safetensors", **lora),
        n21=node("LoraLoader", model=("20", 0), lora_name="second.safetensors", **lora),
    )
    recipe = read_recipe(write_json(tmp_path / "a.json", change(workflow, "3", model=("21", 0))))
    pipe, path = WithLoras(), tmp_path / "x.safetensors"
    with pytest.raises(RuntimeError, match="stopped"):
        render_recipe(recipe, pipe, loras={"first_one": path})
    strengths = {"unet": 0.8, "text_encoder": 0.5, "text_encoder_2": 0.5}
    assert pipe.told == [("load", path, "first_one"), ("set", ["first_one"], [strengths]), ("unload",)]


GRID_NODE = node("KarrasScheduler", steps=3, sigma_max=14.0, sigma_min=0.1, rho=5.0)
CUSTOM = {"add_noise": True, "noise_seed": 5, "cfg": 4.5, "sigmas": ("21", 0), "sampler": ("20", 0)}
CUSTOM |= {"model": ("4", 0), "positive": ("6", 0), "negative": ("7", 0), "latent_image": ("5", 0)}
TOLD = {
    "weights": change(sdxl(), "6", text=TEXT),
    "batch": change(sdxl(), "5", batch_size=2),
    "sizes": sdxl(n6=node("CLIPTextEncodeSDXL", clip=("4", 1), text_g="a square", text_l="square", width=640)),
    "grid": sdxl(
        n3=node("SamplerCustom", **CUSTOM), n20=node("KSamplerSelect", sampler_name="dpm_2"), n21=GRID_NODE
    ),
    "prediction": change(
        sdxl(n20=node("ModelSamplingDiscrete", model=("4", 0), sampling="eps", zsnr=True)), "3", model=("20", 0)
    ),
    "stages": change(
        sdxl(n20={**sdxl()["3"], "inputs": {**sdxl()["3"]["inputs"], "latent_image": ["3", 0], "denoise": 0.5}}),
        "8", samples=("20", 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("workflow", TOLD.values(), ids=TOLD)
def test_the_python_that_is_told_makes_the_picture(tmp_path, demo, workflow):
    recipe, names = read_recipe(write_json(tmp_path / "a.json", workflow)), {}
    exec(compile(python(recipe, "demo"), "told", "exec"), names)  # our own text, of a workflow of ours
    assert recipe.complete and apart(names["image"], render_recipe(recipe, demo)[0]).most == 0


def test_another_picture_than_the_one_given(reproduce, tmp_path):
    """All is understood, and the picture is of other weights, say."""
    path = write_picture(tmp_path / "b.png", Image.new("RGB", (128, 128)), prompt=json.dumps(sdxl()))
    code, out, _ = reproduce(path, "--model", "demo")
    assert code == 0 and "make another picture" in out and "All of it was understood" in out
    page = (tmp_path / "again" / "b-again.html").read_text(encoding="utf-8")
    assert Elements(page).all("header") == [{"class": "part"}] and "make another picture" in page


def test_apart():
    red, other = Image.new("RGB", (4, 4), (250, 0, 0)), Image.new("RGB", (4, 4), (250, 0, 0))
    assert str(apart(red, other)) == "the same in every pixel"
    other.putpixel((1, 2), (250, 0, 30))
    found = apart(red, other)
    assert (found.most, found.share) == (30, 1 / 16) and found.mean == pytest.approx(30 / 48)
    with pytest.raises(ValueError, match="4 x 4 and 2 x 2"):
        apart(red, Image.new("RGB", (2, 2)))


def test_a_page_of_hostile_texts(tmp_path):
    workflow = sdxl(
        n6=node("CLIPTextEncode", text="".join(HOSTILE), clip=("4", 1)), n20=node(HOSTILE[0], model=("4", 0))
    )
    recipe = read_recipe(
        write_json(tmp_path / "a.json", change(workflow, "3", model=("20", 0), sampler_name=HOSTILE[1]))
    )
    red = Image.new("RGB", (4, 4), "red")
    elements = Elements(page(recipe, HOSTILE[2], red, red, apart(red, red), python(recipe)))
    calm = Elements(
        page(read_recipe(write_json(tmp_path / "b.json", sdxl())), "b", red, red, apart(red, red), "pipe()")
    )
    assert set(elements.tags()) <= {*calm.tags(), "p", "ul", "li"} and elements.all("script") == calm.all("script")
    assert elements.handlers() == elements.addresses() == []


def test_nothing_in_a_file_is_executed(reproduce, tmp_path, monkeypatch):
    """What looks like code stays text, in the table and in the Python."""
    monkeypatch.chdir(tmp_path)
    code = "'); __import__('pathlib').Path('made').touch(); ('"
    workflow = sdxl(n6=node("CLIPTextEncode", text=code, clip=("4", 1)))
    assert reproduce(write_json(tmp_path / "a.json", workflow))[0] == 0
    texts = {"k-diffusing": "1", "sampler": f"euler,eta={code}", "seed": "1", "steps": "1", "guidance_scale": "1"}
    assert reproduce(write_picture(tmp_path / "a.png", **texts))[0] in (0, 2)
    assert not (tmp_path / "made").exists()
