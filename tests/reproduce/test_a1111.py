"""The text of A1111's web UI and of Forge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k_diffusing.reproduce.a1111 import SETTINGS as SETTINGS_OF_A1111
from k_diffusing.reproduce.a1111 import read_parameters
from k_diffusing.reproduce.call import calls_of
from k_diffusing.reproduce.infotext import is_infotext, read_infotext, write_infotext
from k_diffusing.reproduce.limits import note_limits
from k_diffusing.reproduce.show import python, table
from k_diffusing.reproduce.values import BadFile

SETTINGS = (
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 5, Size: 512x768, Version: v1.10.1"
)


def recipe_of(settings=SETTINGS, prompt="a square", negative="blurry"):
    recipe = read_parameters(read_infotext(f"{prompt}\nNegative prompt: {negative}\n{settings}"))
    note_limits(recipe)
    return recipe


def test_all_of_it():
    recipe = recipe_of()
    [call] = calls_of(recipe)
    assert recipe.complete and recipe.source == "parameters of A1111 v1.10.1"
    assert call.keywords == {
        "prompt": "a square", "negative_prompt": "blurry", "width": 512, "height": 768, "num_inference_steps": 20,
        "guidance_scale": 6.5, "comfy_sampler": "dpmpp_2m", "sigma_grid": "karras", "program": "a1111", "seeds": [5],
    }  # fmt: skip


def test_prompts_of_several_lines():
    text = read_infotext("one\ntwo, Steps: 3\nNegative prompt: no\nnor this\nSteps: 20, Sampler: Euler, Seed: 5")
    assert (text.prompt, text.negative) == ("one\ntwo, Steps: 3", "no\nnor this")
    assert text.fields == {"Steps": "20", "Sampler": "Euler", "Seed": "5"}
    assert read_infotext("Steps: 20, Sampler: Euler, Seed: 5").prompt == ""


def test_values_in_quotes():
    text = read_infotext(
        r"a" "\n" r'Steps: 2, Lora hashes: "a: 1, b: 2", Hires prompt: "x\n\"y\", z", Seed: 5, Sampler: Euler'
    )
    assert text.fields["Lora hashes"] == "a: 1, b: 2" and text.fields["Hires prompt"] == 'x\n"y", z'
    assert text.fields["Seed"] == "5"


@pytest.mark.parametrize(
    "sampler, ours, grid",
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("DPM++ 2S a Karras", "dpmpp_2s_ancestral", "karras"),
        ("DPM2 a", "dpm_2_ancestral", "uniform"),
        ("Euler a", "euler_ancestral", "uniform"),
        ("DPM++ 3M SDE Exponential", "dpmpp_3m_sde", "exponential"),
    ],
)
def test_older_names_have_the_grid_in_them(sampler, ours, grid):
    recipe = recipe_of(f"Steps: 20, Sampler: {sampler}, CFG scale: 7, Seed: 5, Size: 64x64")
    [call] = calls_of(recipe)
    assert recipe.complete and call.keywords["comfy_sampler"] == ours
    assert call.keywords["sigma_grid"] == grid


def test_flux_of_forge():
    settings = "Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 5, "
    recipe = recipe_of(
        f"{settings}Size: 64x64, Model: flux1-dev, Module 1: t5xxl, Module 2: ae, Version: f2.0.1v1.10.1"
    )
    [call] = calls_of(recipe)
    assert recipe.complete and recipe.family == "flux" and recipe.source == "parameters of Forge f2.0.1v1.10.1"
    assert call.keywords["guidance_scale"] == 3.5 and call.keywords["true_cfg_scale"] == 1
    assert recipe.stages[0].models == ["flux1-dev", "t5xxl", "ae"]


def test_loras_stand_in_the_prompt():
    recipe = recipe_of(prompt="a square <lora:detail_v2:0.7>, red <lora:other:1:0.5>")
    assert recipe.stages[0].loras == [("detail_v2", 0.7, 0.7), ("other", 0.5, 1.0)]
    assert "lora" not in recipe.stages[0].prompt.text


@pytest.mark.parametrize("field", ["ADetailer model: x.pt", "Tiling: True", "NGMS: 0.5"])
def test_what_is_not_done_is_named(field):
    recipe = recipe_of(f"{SETTINGS}, {field}")
    [gap] = recipe.gaps
    assert gap.where.startswith(field.partition(":")[0]) and gap.effect


def test_hires_fix_is_a_second_stage():
    more = "Denoising strength: 0.45, Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent"
    recipe = recipe_of(f"{SETTINGS}, {more}")
    first, second = recipe.stages
    assert (first.denoise, second.denoise, second.steps) == (None, 0.45, 10)
    [gap] = recipe.gaps
    assert "larger (2) with Latent" in gap.effect


def test_img2img_is_named():
    recipe = recipe_of(f"{SETTINGS}, Denoising strength: 0.6")
    assert recipe.stages[0].denoise == 0.6 and "not in this file" in recipe.gaps[0].effect


def test_settings_of_the_program():
    given = {"ENSD": "31337", "RNG": "CPU", "Eta": "0.5", "Variation seed": "3", "Schedule rho": "5.0"}
    recipe = recipe_of(", ".join([SETTINGS, *(f"{name}: {value}" for name, value in given.items())]))
    [call] = calls_of(recipe)
    assert recipe.complete and call.settings == given
    assert "program=a1111_of({'ENSD': '31337'," in python(recipe)
    recipe = recipe_of(SETTINGS.replace("v1.10.1", "f2.0.1") + ", ENSD: 31337")
    assert recipe.program == "forge" and recipe.gaps[0].where == "ENSD: '31337'"


def test_settings_are_those_that_the_program_reads():
    from k_diffusing.programs.a1111 import INFOTEXT

    assert set(INFOTEXT) == SETTINGS_OF_A1111


@pytest.mark.parametrize("schedule", ["Automatic", "Uniform", "SGM Uniform", "Align Your Steps", "DDIM", "Beta"])
def test_schedule_types(schedule):
    recipe = recipe_of(SETTINGS.replace("Karras", schedule))
    assert recipe.complete and calls_of(recipe)[0].keywords["sigma_grid"] == schedule.lower().replace(" ", "_")


def test_marks_of_a_prompt():
    recipe = recipe_of(prompt="a cat AND a dog, [red:blue:0.5], [a|b]")
    assert len(recipe.gaps) == 3 and all(gap.where == "prompt" for gap in recipe.gaps)
    assert recipe_of(prompt="a cat BREAK (a dog:1.2)").complete
    forge = recipe_of(f"{SETTINGS}, Distilled CFG Scale: 3", prompt="(a dog:1.2)")
    assert "not applied" in forge.gaps[0].effect and "not applied" in table(forge)


@pytest.mark.parametrize("field", ["Steps: many", "Steps: 0", "Seed: -1", "Size: big", "CFG scale: nan", "Size: 9x9"])
def test_values_that_cannot_be(field):
    with pytest.raises(BadFile, match=field.partition(":")[0]):
        recipe_of(", ".join([one for one in SETTINGS.split(", ") if one[:4] != field[:4]] + [field]))


def test_no_settings():
    with pytest.raises(BadFile, match="no settings"):
        read_parameters(read_infotext("only a prompt"))
    assert not is_infotext("a prompt with Steps: 3 in it")


WORDS = st.text(
    st.characters(blacklist_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", codec="utf-8"), max_size=30
)


@given(values=st.lists(WORDS.map(str.strip).filter(bool), min_size=3, max_size=6))
def test_what_is_written_is_read(values):
    fields = {"Steps": "3"} | {f"Field {i}": value for i, value in enumerate(values)}
    text = write_infotext("a prompt", "another", fields)
    found = read_infotext(text)
    assert (found.prompt, found.negative, found.fields) == ("a prompt", "another", fields)
