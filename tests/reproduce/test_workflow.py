"""What a workflow in API form says of its picture."""

import math

import pytest
from diffusers import EulerDiscreteScheduler
from workflows import change, flux, node, sdxl, write_json

from k_diffusing import read_recipe
from k_diffusing.oracle.closed_form import SDXL_SCHEDULE
from k_diffusing.planning import discrete_plan
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.show import python
from k_diffusing.reproduce.stages import GRID_NODES, SAMPLER_NODES
from k_diffusing.samplers.find import find_sampler
from k_diffusing.samplers.options import check_options


@pytest.fixture
def read(tmp_path):
    return lambda workflow, output=None: read_recipe(write_json(tmp_path / "workflow.json", workflow), output)


def keywords(recipe):
    [call] = calls_of(recipe)
    return call.keywords


def test_text_to_image_on_sdxl(read):
    recipe = read(sdxl())
    assert recipe.complete and recipe.program == "comfyui" and recipe.family == "sdxl"
    assert keywords(recipe) == {
        "prompt": "a large yellow square", "negative_prompt": "blurry", "width": 128, "height": 128,
        "num_inference_steps": 6, "guidance_scale": 4.5, "comfy_sampler": "dpmpp_2m", "sigma_grid": "karras",
        "program": "comfyui", "seeds": [5],
    }  # fmt: skip
    [stage] = recipe.stages
    assert stage.models == ["xl.safetensors"]
    assert stage.where["seed"] == "3 KSampler" and stage.prompt.where == "6 CLIPTextEncode"


def test_text_to_image_on_flux(read):
    recipe = read(flux())
    assert recipe.complete and recipe.family == "flux"
    assert keywords(recipe) == {
        "prompt": "a small white ring", "width": 128, "height": 128, "num_inference_steps": 4, "guidance_scale": 2.5,
        "true_cfg_scale": 1.0, "comfy_sampler": "euler", "sigma_grid": "simple", "program": "comfyui", "seeds": [11],
    }  # fmt: skip
    assert recipe.stages[0].models == ["flux1-dev.safetensors", "t5.safetensors", "clip_l.safetensors"]
    assert any("ae.safetensors" in note for note in recipe.notes)


def test_flux_without_a_guidance_node_has_comfyuis_default(read):
    workflow = change(flux(), "6", conditioning=("4", 0))
    assert keywords(read(workflow))["guidance_scale"] == 3.5


def test_both_prompts_of_flux_and_sdxl(read):
    told = node("CLIPTextEncodeFlux", clip=("2", 0), clip_l="ring", t5xxl="a small ring", guidance=1.5)
    call = keywords(read(change(flux(n4=told), "6", conditioning=("4", 0))))
    assert (call["prompt"], call["prompt_2"], call["guidance_scale"]) == ("ring", "a small ring", 1.5)
    sizes = {"width": 640, "height": 512, "crop_w": 1, "crop_h": 2, "target_width": 256, "target_height": 128}
    told = node("CLIPTextEncodeSDXL", clip=("4", 1), text_g="a square", text_l="square", **sizes)
    call = keywords(read(sdxl(n6=told)))
    assert (call["prompt"], call["prompt_2"]) == ("square", "a square")
    assert call["original_size"] == (512, 640) and call["crops_coords_top_left"] == (2, 1)
    assert call["target_size"] == (128, 256)
    assert call["negative_original_size"] == call["negative_target_size"] == (128, 128)  # the picture's, as there


def test_a_negative_prompt_of_zeros(read):
    recipe = read(sdxl(n7=node("ConditioningZeroOut", conditioning=("6", 0))))
    [call] = calls_of(recipe)
    assert recipe.complete and call.prompts["zero_negative"] and call.prompts["program"] == "comfyui"


def test_the_nearest_guidance_node_counts(read):
    workflow = flux(n20=node("FluxGuidance", conditioning=("5", 0), guidance=7.0))
    assert keywords(read(change(workflow, "6", conditioning=("20", 0))))["guidance_scale"] == 7.0


def test_loras_in_the_order_of_their_use(read):
    lora = {"model": ("4", 0), "clip": ("4", 1), "strength_model": 0.8, "strength_clip": 0.5}
    workflow = sdxl(
        n20=node("LoraLoader", lora_name="first.safetensors", **lora),
        n21=node("LoraLoaderModelOnly", model=("20", 0), lora_name="second.safetensors", strength_model=-1),
    )
    recipe = read(change(change(workflow, "3", model=("21", 0)), "6", clip=("20", 1)))
    assert recipe.stages[0].loras == [("first.safetensors", 0.8, 0.5), ("second.safetensors", -1, 0)]
    assert recipe.complete


def test_denoise_and_a_picture(read):
    workflow = sdxl(n5=node("VAEEncode", pixels=("20", 0), vae=("4", 2)), n20=node("LoadImage", image="begin.png"))
    recipe = read(change(workflow, "3", denoise=0.6))
    [call] = calls_of(recipe)
    assert recipe.image == call.image == "begin.png" and call.keywords["denoise"] == 0.6


@pytest.mark.parametrize("step, slots, start, end", [(2, (0,), None, 2), (2, (1,), 2, None), (1, (1, 0), 1, 2)])
def test_split_sigmas(read, step, slots, start, end):
    workflow, last = flux(), "9"
    for i in range(len(slots)):
        workflow[f"2{i}"] = node("SplitSigmas", sigmas=(last, slots[i - 1] if i else 0), step=step)
        last = f"2{i}"
    [stage] = read(change(workflow, "11", sigmas=(last, slots[-1]))).stages
    assert (stage.start_step, stage.end_step, stage.leftover_noise) == (start, end, end is not None)


def test_split_by_denoise(read):
    workflow = flux(n20=node("SplitSigmasDenoise", sigmas=("9", 0), denoise=0.25))
    [stage] = read(change(workflow, "11", sigmas=("20", 1))).stages
    assert (stage.steps, stage.start_step) == (4, 3)


def test_two_samplers_are_two_stages(read):
    base = {"model": ("4", 0), "positive": ("6", 0), "negative": ("7", 0), "steps": 6, "cfg": 4.5}
    base |= {"sampler_name": "euler", "scheduler": "normal", "noise_seed": 5}
    workflow = sdxl(
        n3=node(
            "KSamplerAdvanced", **base, latent_image=("5", 0),
            add_noise="enable", start_at_step=0, end_at_step=4, return_with_leftover_noise="enable",
        ),
        n20=node(
            "KSamplerAdvanced", **base, latent_image=("3", 0),
            add_noise="disable", start_at_step=4, end_at_step=10_000, return_with_leftover_noise="disable",
        ),
    )  # fmt: skip
    first, second = calls_of(read(change(workflow, "8", samples=("20", 0))))
    assert first.keywords["end_step"] == 4 and first.keywords["return_with_leftover_noise"] and not first.last
    assert first.keywords["output_type"] == "latent" and "start_step" not in first.keywords
    assert second.goes_on and second.keywords["start_step"] == 4 and second.keywords["add_noise"] is False
    assert "end_step" not in second.keywords


def test_a_sampler_with_its_options(read):
    options = {"eta": 0.5, "s_noise": 1.1, "solver_type": "heun", "noise_device": "cpu"}
    call = keywords(read(flux(n8=node("SamplerDPMPP_2M_SDE", **options))))
    assert call["comfy_sampler"] == "dpmpp_2m_sde"
    assert call["sampler_options"] == {"eta": 0.5, "s_noise": 1.1, "solver_type": "heun"}


@pytest.mark.parametrize("kind", SAMPLER_NODES)
def test_every_node_of_a_sampler_names_one_of_ours_with_its_options(read, kind):
    device = {"noise_device": "cpu"} if "SDE" in kind and "DPMPP" in kind else {}
    recipe = read(flux(n8=node(kind, **device)))
    call = keywords(recipe)
    assert recipe.complete
    check_options(find_sampler(call["comfy_sampler"]), call["sampler_options"])  # raises for one that it has not


def test_an_er_sde_of_another_kind(read):
    assert "'ODE'" in read(flux(n8=node("SamplerER_SDE", solver_type="ODE"))).gaps[0].effect


def test_noise_of_the_gpu_is_told(read):
    recipe = read(change(sdxl(), "3", sampler_name="dpmpp_sde_gpu"))
    assert keywords(recipe)["comfy_sampler"] == "dpmpp_sde"
    assert "on the GPU" in recipe.gaps[0].effect


def test_flux_shift(read):
    shift = {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024}
    workflow = change(flux(n20=node("ModelSamplingFlux", model=("1", 0), **shift)), "6", model=("20", 0))
    mu = keywords(read(workflow))["mu"]
    assert math.isclose(mu, 1.15)  # the shift of 4096 tokens is max_shift
    workflow["20"]["inputs"] |= {"width": 256, "height": 256}
    assert math.isclose(keywords(read(workflow))["mu"], 0.5)  # that of 256 tokens is base_shift


def test_prediction_type(read):
    told = node("ModelSamplingDiscrete", model=("4", 0), sampling="v_prediction", zsnr=True)
    [call] = calls_of(read(change(sdxl(n20=told), "3", model=("20", 0))))
    assert call.scheduler == {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def test_sigmas_by_hand(read):
    recipe = read(flux(n9=node("ManualSigmas", sigmas="1.0, 0.7 and .25; 0")))
    [call] = calls_of(recipe)
    assert call.keywords["sigma_grid"] == [1.0, 0.7, 0.25, 0.0] and call.keywords["num_inference_steps"] == 3
    assert "sigma_grid=[1.0, 0.7, 0.25, 0.0]," in python(recipe)


def test_a_grid_node_with_its_numbers(read):
    [call] = calls_of(read(flux(n9=node("KarrasScheduler", steps=7, sigma_max=10.0, sigma_min=0.1, rho=5.0))))
    assert call.keywords["sigma_grid"] == {"KarrasScheduler": {"sigma_max": 10.0, "sigma_min": 0.1, "rho": 5.0}}
    assert call.keywords["num_inference_steps"] == 7


@pytest.mark.parametrize("kind", GRID_NODES)
def test_every_node_of_a_grid(read, kind):
    """It is a grid of the program's, with the node's inputs; a value that is not known is told."""
    recipe = read(change(sdxl(n20=node(kind), **custom_sampler()), "3", sigmas=("20", 0)))
    [call] = calls_of(recipe)
    grid, steps = call.keywords["sigma_grid"], call.keywords["num_inference_steps"]
    assert recipe.complete and grid.keys() == {kind} and grid[kind].keys() == {*GRID_NODES[kind]}
    sigmas = discrete_plan(
        EulerDiscreteScheduler(**SDXL_SCHEDULE), "dpm_2", None, grid, steps, program="comfyui"
    ).sigmas
    assert len(sigmas) == steps + (kind != "LaplaceScheduler")
    assert f"sigma_grid={grid!r}," in python(recipe)
    there = sdxl(n20=node(kind, **{GRID_NODES[kind][-1]: ("99", 0)}), n99=node("Another"), **custom_sampler())
    unknown = read(change(there, "3", sigmas=("20", 0)))
    assert not unknown.complete and repr(kind) in "".join(gap.effect for gap in unknown.gaps)


def custom_sampler():
    links = {"model": ("4", 0), "positive": ("6", 0), "negative": ("7", 0), "latent_image": ("5", 0)}
    sampler = node("SamplerCustom", add_noise=True, noise_seed=5, cfg=4.5, sampler=("21", 0), **links)
    return {"n3": sampler, "n21": node("KSamplerSelect", sampler_name="euler")}


def test_a_batch_has_one_stream(read):
    recipe = read(change(sdxl(), "5", batch_size=3))
    [call] = calls_of(recipe)
    assert call.one_stream == 5 and call.keywords["num_images_per_prompt"] == 3 and "seeds" not in call.keywords


def test_values_of_primitives_and_past_reroutes(read):
    workflow = sdxl(
        n20=node("PrimitiveInt", value=77), n21=node("Reroute", x=("20", 0)), n22=node("Reroute", x=("4", 0))
    )
    recipe = read(change(workflow, "3", seed=("21", 0), model=("22", 0)))
    assert recipe.complete and recipe.stages[0].seed == 77 and recipe.stages[0].models == ["xl.safetensors"]


@pytest.mark.parametrize("setting", [True, False])
def test_switches(read, setting):
    switch = {"on_true": ("20", 0), "on_false": ("5", 0)}
    larger = node("EmptyLatentImage", width=256, height=128, batch_size=1)
    primitive = {"n22": node("PrimitiveBoolean", value=setting)}
    for told in (setting, ("22", 0)):
        workflow = sdxl(n20=larger, n21=node("ComfySwitchNode", switch=told, **switch), **primitive)
        recipe = read(change(workflow, "3", latent_image=("21", 0)))
        assert recipe.complete and recipe.width == (256 if setting else 128)


def test_another_network_is_named(read):
    workflow = sdxl(n20=node("CLIPLoader", clip_name="qwen.safetensors"))
    assert "another network" in read(change(workflow, "6", clip=("20", 0))).gaps[0].effect
    recipe = read(change(sdxl(), "4", ckpt_name="v1-5-pruned.safetensors"))
    assert "nothing tells which network" in recipe.notes[0]


UNKNOWN = {
    "network": ("3", "model", node("FreeU_V2", model=("4", 0), b1=1.3), "changes the network"),
    "encoders": ("6", "clip", node("CLIPAttentionMultiply", clip=("4", 1), q=1.2), "changes the text encoders"),
    "prompt": ("3", "positive", node("ControlNetApply", conditioning=("6", 0)), "what the network is told"),
    "latents": ("8", "samples", node("LatentUpscale", samples=("3", 0)), "changes the latents"),
    "picture": ("9", "images", node("ImageSharpen", image=("8", 0)), "changes the picture after"),
}


@pytest.mark.parametrize("key, name, unknown, effect", UNKNOWN.values(), ids=UNKNOWN)
def test_a_node_that_is_not_known_is_named_with_what_it_changes(read, key, name, unknown, effect):
    recipe = read(change(sdxl(n20=unknown), key, **{name: ("20", 0)}))
    [gap] = recipe.gaps
    assert gap.where == f"20 {unknown['class_type']}" and effect in gap.effect
    assert recipe.stages[0].prompt.text == "a large yellow square"  # what is behind it is read


def test_a_value_of_a_node_that_is_not_known(read):
    recipe = read(change(sdxl(n20=node("Seed Everywhere", seed=9, label="x")), "3", seed=("20", 0)))
    assert recipe.stages[0].seed == 9 and "taken to be 9" in recipe.gaps[0].effect
    recipe = read(change(sdxl(n20=node("Random Text", path="a.txt", line=3)), "6", text=("20", 0)))
    assert "text of node 6 CLIPTextEncode" in recipe.gaps[0].effect


def test_samplers_and_grids_that_are_not_here(read):
    recipe = read(change(sdxl(), "3", sampler_name="no_such_sampler", scheduler="no_such_grid"))
    assert [gap.where for gap in recipe.gaps] == ["3 KSampler"] * 2
    assert "no_such_sampler" in recipe.gaps[0].effect and "no_such_grid" in recipe.gaps[1].effect


def test_which_picture(read):
    workflow = sdxl(n20=node("PreviewImage", images=("21", 0)), n21=node("ImageInvert", image=("8", 0)))
    recipe = read(workflow)
    assert recipe.complete and "9 SaveImage, 20 PreviewImage" in recipe.notes[0]
    assert not read(workflow, "20").complete


def test_a_workflow_as_it_is_sent_to_the_server(read):
    assert keywords(read({"prompt": sdxl(), "client_id": "x"}))["seeds"] == [5]
