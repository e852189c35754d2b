"""What a name asks for: sampler, options, sigma grid; and what is said of a sampler that is no function here."""

import pytest

from k_diffusing.samplers.asked import Asked, asked, check_texts
from samplers_patch import SAMPLERS, find_sampler, k_sampling


def euler_karras(model, x, sigmas, extra_args=None, callback=None, disable=None):
    return x


ASKED = [
    (("euler",), Asked("euler")),
    (("DPM++ 2M SDE Karras",), Asked("dpmpp_2m_sde", None, "karras")),
    (("DPM++ 2M SDE Karras", {"eta": 0}, "SGM Uniform"), Asked("dpmpp_2m_sde", {"eta": 0}, "sgm_uniform")),
    (("DPM++ 2M Karras", None, None, None, [5.0, 0.0]), Asked("dpmpp_2m")),
    (("dpmpp_sde_gpu",), Asked("dpmpp_sde")),
    (("Euler a Uniform",), Asked("euler_ancestral", None, "normal")),
    (("DPM++ 2M", None, "Automatic"), Asked("dpmpp_2m", None, "karras")),
    (("DDIM", None, "Automatic"), Asked("ddim", None, "ddim_uniform")),
    (("Euler Automatic",), Asked("euler", None, "normal")),
    ((k_sampling.sample_dpmpp_3m_sde, None, "automatic"), Asked(k_sampling.sample_dpmpp_3m_sde, None, "exponential")),
    ((SAMPLERS["dpm_2"], None, "automatic"), Asked(SAMPLERS["dpm_2"], None, "karras")),
    ((euler_karras,), Asked(euler_karras)),  # the name of a user's function implies nothing
    ((euler_karras, None, "no such grid"), Asked(euler_karras, None, "no such grid")),  # refused where it is looked up
    ((3, "no dict", max), Asked(3, "no dict", max)),
]


@pytest.mark.parametrize("arguments, meant", ASKED, ids=[f"row {i}" for i in range(len(ASKED))])
def test_what_is_asked_for(arguments, meant):
    assert asked(*arguments) == meant


def test_options_that_a_name_implies_are_the_users_to_change():
    text = "UniPCMultistepScheduler,solver_type=bh2,use_karras_sigmas=True"
    assert asked(text) == ("uni_pc_bh2", {"order": 2}, "karras")
    assert asked(text, {"order": 3, "variant": None}).options == {"order": 3, "variant": None}
    assert asked(text, "no dict").options == "no dict"  # refused where options are checked
    with pytest.raises(ValueError, match="is 'uni_pc_bh2' with sampler_options={'order': 2}: ask for these"):
        find_sampler(text)


def test_records_by_names_of_other_programs():
    assert find_sampler("Euler a") is find_sampler("EulerAncestralDiscreteScheduler") is SAMPLERS["euler_ancestral"]
    assert find_sampler("DPM++ 2M Karras") is SAMPLERS["dpmpp_2m"]


ABSENT = {
    "UniPC": "(ComfyUI's uni_pc, A1111's UniPC, diffusers' UniPCMultistepScheduler): take "
    "as_sampler(UniPCMultistepScheduler.from_config(pipe.scheduler.config)), or UniPCMultistepScheduler on the "
    "command line",
    "Restart Karras": "(A1111's Restart): pass a function of your own with its method",
    "TCD": "(diffusers' TCDScheduler): pass a function of your own with its method",
}


@pytest.mark.parametrize("text", ABSENT)
def test_a_sampler_that_is_no_function_here(text, monkeypatch):
    monkeypatch.setattr("k_diffusing.samplers.asked.ALL_FACTS", {"euler": {}})
    with pytest.raises(ValueError, match=f"^{text!r} is no function here ") as error:
        asked(text)
    assert str(error.value).endswith(ABSENT[text])


def test_a_sigma_grid_in_place_of_a_sampler():
    with pytest.raises(ValueError, match="'SGM Uniform' is a sigma grid and no sampler: give it as sigma_grid"):
        asked("SGM Uniform")


def test_texts_of_the_command_line():
    check_texts(["euler", "k:DPM++ 2M Karras,eta=1", "NoSuchScheduler", f"{__file__}:f", "comfy:none"])
    with pytest.raises(ValueError, match="unknown sampler source 'UniPCSheduler:x'"):
        check_texts(["UniPCSheduler:x"])
    with pytest.raises(ValueError, match="there is no file nowhere.py"):
        check_texts(["nowhere.py:f"])
    with pytest.raises(ValueError, match="unknown sampler 'eular': did you mean 'euler'"):
        check_texts(["euler", "k:eular,eta=1"])
