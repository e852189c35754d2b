"""What names mean: A1111's, ComfyUI's and diffusers'. Without torch."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import diffusers
import pytest

from k_diffusing.model.scheduler_classes import RUNNABLE
from k_diffusing.names.grids import GRID_NAMES, find_grid
from k_diffusing.names.samplers import NOT_RUN, SAMPLER_NAMES
from k_diffusing.names.spelling import spelling
from k_diffusing.names.texts import sampler_text
from k_diffusing.samplers.asked import asked
from k_diffusing.samplers.named import ROWS, Named, find_name, nearest_name, of_scheduler
from samplers_patch import ALL_SAMPLERS, find_sampler

ROOT = Path(__file__).resolve().parents[2]
# What ComfyUI 0.29's KSampler lists, A1111 1.10 and Forge 2.0.1 by their labels and the aliases beside these.
COMFYUI = (
    "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2 "
    "dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu "
    "dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde "
    "dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral "
    "res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver "
    "sa_solver_pece ddim uni_pc uni_pc_bh2"
).split()
COMFYUI_GRIDS = "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal".split()
A1111 = {
    "DPM++ 2M": "k_dpmpp_2m", "DPM++ SDE": "k_dpmpp_sde", "DPM++ 2M SDE": "k_dpmpp_2m_sde",
    "DPM++ 2M SDE Heun": "k_dpmpp_2m_sde_heun", "DPM++ 2S a": "k_dpmpp_2s_a", "DPM++ 3M SDE": "k_dpmpp_3m_sde",
    "Euler a": "k_euler_a", "Euler": "k_euler", "LMS": "k_lms", "Heun": "k_heun", "DPM2": "k_dpm_2",
    "DPM2 a": "k_dpm_2_a", "DPM fast": "k_dpm_fast", "DPM adaptive": "k_dpm_ad", "Restart": "restart",
    "HeunPP2": "heunpp2", "IPNDM": "ipndm", "IPNDM_V": "ipndm_v", "DEIS": "deis", "DDIM": "ddim",
    "DDIM CFG++": "ddim_cfgpp", "PLMS": "plms", "UniPC": "unipc", "LCM": "k_lcm", "DDPM": "ddpm",
}  # fmt: skip
A1111_GRIDS = {
    "Automatic": "automatic", "Uniform": "uniform", "Karras": "karras", "Exponential": "exponential",
    "Polyexponential": "polyexponential", "SGM Uniform": "SGMUniform", "KL Optimal": "kl_optimal",
    "Align Your Steps": "align_your_steps", "Simple": "simple", "Normal": "normal", "DDIM": "ddim", "Beta": "beta",
    "Turbo": "turbo", "Align Your Steps GITS": "align_your_steps_GITS", "Align Your Steps 11": "align_your_steps_11",
    "Align Your Steps 32": "align_your_steps_32",
}  # fmt: skip


def test_the_table_has_what_the_programs_list():
    assert sorted(COMFYUI) == sorted(name for row in SAMPLER_NAMES.values() for name in row.comfyui)
    assert sorted(A1111) == sorted(label for row in SAMPLER_NAMES.values() for label in row.a1111)
    listed = [name for row in GRID_NAMES.values() for name in row.comfyui if not name.endswith("Scheduler")]
    assert sorted(COMFYUI_GRIDS) == sorted(listed)
    assert sorted(A1111_GRIDS) == sorted(label for row in GRID_NAMES.values() for label in row.a1111)


def test_no_spelling_is_of_two_rows():
    for rows in (ROWS.values(), GRID_NAMES.values()):
        count = Counter(key for row in rows for key in {spelling(text) for text in row.spellings})
        assert max(count.values()) == 1


@pytest.mark.parametrize("name", COMFYUI)
def test_comfyuis_names(name):
    assert find_name(name).name == find_name(f"sample_{name}").name == name.removesuffix("_gpu")
    assert find_sampler(name).name == asked(name).sampler  # all of them are functions here


@pytest.mark.parametrize("label", A1111)
def test_a1111s_names_are_its_aliases_and_take_a_schedule(label):
    row = find_name(label).sampler
    assert label in row.a1111 and find_name(A1111[label]).sampler is row
    for schedule in A1111_GRIDS:
        combined = find_name(f"{label} {schedule}")
        assert combined.sampler is row and combined.grid is find_grid(schedule)
        assert find_name(combined.name) == combined  # our own spelling of it is one more name


@pytest.mark.parametrize("label", A1111_GRIDS)
def test_a1111s_schedules(label):
    assert label in find_grid(label).a1111 and find_grid(A1111_GRIDS[label]) is find_grid(label)


MEANINGS = {
    "DPM++ 2M SDE Karras": "dpmpp_2m_sde_karras",
    "dpmpp_2m_sde_gpu + karras": "dpmpp_2m_sde_karras",
    "  euler-ANCESTRAL ": "euler_ancestral",
    "LMS Karras": "lms_karras",
    "Euler SGMUniform": "euler_sgm_uniform",
    "UniPCMultistepScheduler": "uni_pc",
    "UniPCMultistep": "uni_pc",
    "KDPM2Discrete": "dpm_2",
    "DPM-Solver++(2M)": "dpmpp_2m",
    "FlowMatchHeunDiscreteScheduler": "heun",
    "euler KarrasScheduler": "euler_karras",
}


@pytest.mark.parametrize("text", MEANINGS)
def test_names_however_they_are_spelt(text):
    assert find_name(text).name == MEANINGS[text]


@pytest.mark.parametrize("text", ["", "karras", "eular", "dpmpp", "karras euler", "Scheduler"])
def test_what_names_no_sampler(text):
    assert find_name(text) is None


MISSPELT = {
    "DPM++ 2M Karas": "dpmpp_2m_karras",
    "uni-pcc": "uni_pc",
    "Eular a": "euler_ancestral",
    "dpmp_2m": "dpmpp_2m",
    "UniPCMultistepSheduler": "uni_pc",
}


@pytest.mark.parametrize("text", MISSPELT)
def test_misspelt_names(text):
    assert nearest_name(text) == MISSPELT[text]


SDE = {"algorithm_type": "sde-dpmsolver++"}
CONFIGS = [
    ("DPMSolverMultistepScheduler", {}, "dpmpp_2m"),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "prediction_type": "epsilon"}, "dpmpp_2m_karras"),
    ("DPMSolverMultistepScheduler", SDE | {"use_exponential_sigmas": True}, "dpmpp_2m_sde_exponential"),
    ("DPMSolverMultistepScheduler", SDE | {"solver_type": "heun"}, "dpmpp_2m_sde_heun"),
    ("UniPCMultistepScheduler", {"solver_type": "bh2", "use_beta_sigmas": True}, "uni_pc_bh2_beta"),
    ("LMSDiscreteScheduler", {"use_karras_sigmas": False}, "lms"),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3}, "dpmpp_3s"),
]


@pytest.mark.parametrize("class_name, config, name", CONFIGS)
def test_schedulers_with_their_settings(class_name, config, name):
    assert of_scheduler(class_name, config).name == name
    text = ",".join([class_name, *(f"{setting}={value}" for setting, value in config.items())])
    assert find_name(text) == of_scheduler(class_name, config)


OTHERS = [{"solver_type": "heun"}, {"algorithm_type": "dpmsolver"}, SDE | {"solver_order": 3}]


@pytest.mark.parametrize("config", OTHERS, ids=str)
def test_settings_that_no_sampler_has(config):
    assert of_scheduler("DPMSolverMultistepScheduler", config) is None
    assert of_scheduler("NoScheduler", {}) is None


def test_schedulers_of_the_table_are_diffusers_and_run_unless_it_says_not():
    classes = {text.split(",")[0] for row in SAMPLER_NAMES.values() for text in row.diffusers}
    assert all(hasattr(diffusers, name) for name in classes)
    assert {name for name in classes if name not in RUNNABLE} == NOT_RUN
    for row in SAMPLER_NAMES.values():
        for text in row.diffusers:
            name, *settings = text.split(",")
            values = dict(setting.split("=") for setting in settings)
            values = {key: int(value) if value.isdigit() else value for key, value in values.items()}
            made = getattr(diffusers, name)(**values)
            if text != "UniPCMultistepScheduler":  # by itself it names the method, whose default there is bh2
                assert of_scheduler(name, made.config).name == find_name(text).name == row.name


def test_every_sampler_here_is_found_by_its_name_and_aliases():
    for name, record in ALL_SAMPLERS.items():
        assert find_name(name).name == name
        for alias in record.aliases:
            if alias not in SAMPLER_NAMES:  # else it has a row of its own, with its own names
                assert find_name(f"{alias} Karras") == Named(ROWS[name], GRID_NAMES["karras"])


def test_parts_of_a_text():
    assert sampler_text("DPM++ 2M Karras, eta=0.5") == ("k", "DPM++ 2M Karras", ["eta=0.5"])
    assert sampler_text("diffusers:EulerDiscreteScheduler") == ("diffusers", "EulerDiscreteScheduler", [])
    assert sampler_text("EulerDiscreteScheduler").kind == "diffusers"
    assert sampler_text("a/mine.py:f").kind == "a/mine.py" and sampler_text("mine.py").kind == ""


def test_no_torch():
    modules = "k_diffusing.samplers.named, k_diffusing.samplers.asked, k_diffusing.names.texts"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'diffusers', 'numpy'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
