"""What a sampler's scheduler saves of itself, and what a loaded config may do."""

import copy
import json
import sys

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler, UniPCMultistepScheduler
from stepped_schedulers import X, fresh, own_euler, stepped
from their_pipelines import EULER, STEPS
from tiny_models import SDXL_SCHEDULE, tiny_sdxl

from k_diffusing.model.scheduler_classes import RUNNABLE
from k_diffusing.schedulers.as_sampler import as_sampler
from k_diffusing.schedulers.as_scheduler import SamplerScheduler
from samplers_patch import k_sampling


def own_grid(schedule, n):
    return torch.cat([torch.linspace(float(schedule.sigmas[-1]), 0.1, n), torch.zeros(1)])


@pytest.mark.parametrize(
    "settings, again",
    [
        ({"sampler": "dpmpp_2m_sde", "sampler_options": {"eta": 0.3}, "sigma_grid": "karras"}, []),
        ({"sampler": own_euler, "sigma_grid": own_grid}, ["sampler", "sigma_grid"]),
        ({"sampler": k_sampling.sample_heun, "timestep_spacing": "trailing"}, []),
        ({"sampler": "heun", "sigma_grid": "karras,rho=5"}, []),
        ({"sampler": "heun", "sigma_grid": torch.tensor([9.0, 4.0, 1.5, 0.1, 0.0])}, []),
        ({"sampler": "heun", "sigma_grid": {"KarrasScheduler": {"rho": 5}}, "program": "comfyui"}, []),
    ],
    ids=["names", "functions", "a function of k_diffusion", "a grid with options", "a grid of numbers", "a node"],
)
def test_save_and_load(tmp_path, settings, again):
    """again: the settings that loading takes again, the functions or their paths."""
    scheduler = SamplerScheduler.from_config(EULER.config, **settings)
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    pipe.scheduler = scheduler
    pipe.save_pretrained(tmp_path)
    given = {name: settings[name] for name in again}
    paths = {name: scheduler.config[name] for name in again}
    alone = SamplerScheduler.from_pretrained(tmp_path, subfolder="scheduler", **given)
    by_path = SamplerScheduler.from_pretrained(tmp_path, subfolder="scheduler", **json.loads(json.dumps(paths)))
    whole = DiffusionPipeline.from_pretrained(tmp_path, **({"scheduler": alone} if again else {})).scheduler
    for loaded in (alone, by_path, whole, copy.deepcopy(scheduler)):
        for one in (loaded, scheduler):
            one.set_timesteps(STEPS)
        assert torch.equal(loaded.sigmas, scheduler.sigmas)
        assert torch.equal(stepped(loaded), stepped(scheduler))


def test_a_config_keeps_the_numbers_of_a_file(tmp_path):
    """So that a saved scheduler needs the file no more."""
    path = tmp_path / "grid.json"
    path.write_text('{"sigmas": [9.0, 2.0, 0.0], "model": "of whom"}')
    scheduler = SamplerScheduler.from_config(EULER.config, sampler="euler", sigma_grid=str(path))
    path.unlink()
    scheduler.save_pretrained(tmp_path)
    loaded = SamplerScheduler.from_pretrained(tmp_path)
    loaded.set_timesteps(STEPS)
    assert loaded.config.sigma_grid == [9.0, 2.0, 0.0] and loaded.sigmas.tolist() == [9.0, 2.0, 0.0]


def test_a_config_names_no_file(tmp_path):
    """Whoever wrote it would choose what is read here; our own configs have the numbers."""
    (path := tmp_path / "grid.json").write_text('{"sigmas": [9.0, 2.0, 0.0]}')
    with pytest.raises(
        ValueError, match="the config says sigma_grid=.*grid.json', and what a config names is not followed"
    ):
        SamplerScheduler.from_config({**EULER.config, "sampler": "euler", "sigma_grid": str(path)})


def test_a_config_in_memory_makes_the_scheduler_again():
    """Functions too, those without a name and those in options, through a scheduler of another class and copies."""
    drawn = []

    def noise_sampler(sigma, sigma_next):
        drawn.append(sigma)
        return torch.zeros_like(X)

    for sampler, options in ((lambda model, x, sigmas: own_euler(model, x, sigmas), None), (as_sampler(EULER), None),
                             ("euler_ancestral", {"noise_sampler": noise_sampler})):  # fmt: skip
        scheduler = fresh(sampler, sampler_options=options, sigma_grid=lambda schedule, n: own_grid(schedule, n))
        through = UniPCMultistepScheduler.from_config(scheduler.config)
        for config in (scheduler.config, copy.deepcopy(dict(scheduler.config)), through.config):
            again = SamplerScheduler.from_config(config, scheduler_class="EulerDiscreteScheduler")
            again.set_timesteps(STEPS)
            assert torch.equal(again.sigmas, scheduler.sigmas)
            assert torch.equal(stepped(again), stepped(fresh(sampler, sampler_options=options, sigma_grid=own_grid)))
    assert drawn


HOSTILE = {
    "sigma_grid": {"sigma_grid": "hostile:run"},
    "sampler": {"sampler": "hostile:run"},
    "of the class": {"_class_name": "SamplerScheduler", "scheduler_class": "DDIMScheduler", "sampler": "hostile:run"},
    "attribute": {"sampler": "hostile:run.__call__"},
    "no scheduler": {"scheduler_class": "StableDiffusionPipeline"},
    "no class": {"scheduler_class": "utils.import_utils"},
    "a list": {"scheduler_class": ["hostile", "run"]},
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module that must not be imported, and a pipeline's folder to put it into the config of."""
    (tmp_path / "hostile.py").write_text("def run(*_):\n    raise SystemError\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("hostile", None)


def loaded_by_us(folder):
    return SamplerScheduler.from_pretrained(folder, subfolder="scheduler")


def loaded_by_a_pipeline(folder):
    return DiffusionPipeline.from_pretrained(folder)


def taken_over(folder):
    """As README has it, for a model whose own scheduler is one of diffusers'."""
    config = EulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler").config
    return SamplerScheduler.from_config(config)


def loaded_as_a_dict(folder):
    return SamplerScheduler.from_config(SamplerScheduler.load_config(folder, subfolder="scheduler"))


@pytest.mark.parametrize("load", [loaded_by_us, loaded_by_a_pipeline, taken_over, loaded_as_a_dict])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_loaded_config_runs_nothing(hostile, case, load):
    pipe = tiny_sdxl(diffusers.StableDiffusionXLPipeline)
    pipe.scheduler = SamplerScheduler.from_config(EULER.config)
    pipe.save_pretrained(hostile)
    path = hostile / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {} if "scheduler_class" in HOSTILE[case] else {"scheduler_class": None}
    path.write_text(json.dumps({**config, "_class_name": "EulerDiscreteScheduler", **HOSTILE[case]}))
    with pytest.raises(ValueError, match="pass it in the call|knows the noise schedules of"):
        load(hostile)
    assert "hostile" not in sys.modules


def test_a_path_in_the_call_is_followed(hostile):
    """In place of the config's, which is not looked at then; also by the constructor. Of options, nothing is."""
    config = {**EULER.config, "sigma_grid": "hostile:walk"}
    SamplerScheduler.from_config(config, sigma_grid=None)
    with pytest.raises(TypeError, match="s_noise='hostile:run'"):
        SamplerScheduler.from_config({**EULER.config, "sampler_options": {"s_noise": "hostile:run"}})
    assert "hostile" not in sys.modules
    SamplerScheduler.from_config(config, sigma_grid="hostile:run")
    assert sys.modules.pop("hostile")
    SamplerScheduler(sigma_grid="hostile:run")
    assert "hostile" in sys.modules


def test_the_config_is_that_of_the_scheduler_it_came_from():
    """Also where the scheduler was made by its constructor, so that its config does not name the class."""
    euler = EulerDiscreteScheduler.from_config(DDIMScheduler(**SDXL_SCHEDULE).config, timestep_spacing="trailing")
    scheduler = SamplerScheduler.from_config(euler.config, sampler="heun", use_karras_sigmas=True)
    assert scheduler.config.scheduler_class == "EulerDiscreteScheduler"
    assert scheduler.config.timestep_spacing == "trailing" and scheduler.config.use_karras_sigmas
    again = SamplerScheduler.from_config(scheduler.config, sampler="euler")
    assert again.config.scheduler_class == "EulerDiscreteScheduler" and again.config.sampler == "euler"
    back = EulerDiscreteScheduler.from_config(again.config)
    assert back.config.timestep_spacing == "trailing"
    assert {cls.__name__ for cls in scheduler.compatibles} == set(RUNNABLE)


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_class_of_a_config_is_known(name):
    """KDPM2 has LMS's settings, and the noise schedule that goes with them."""
    scheduler_class = getattr(diffusers, name)
    config = scheduler_class(**({} if "EDM" in name else {"num_train_timesteps": 20})).config
    found = SamplerScheduler.from_config(config).config.scheduler_class
    assert found == ("LMSDiscreteScheduler" if "KDPM2" in name else name)


def test_names_of_other_programs_are_written_as_ours():
    scheduler = SamplerScheduler.from_config(EULER.config, sampler="DPM++ 2M Karras")
    assert (scheduler.config.sampler, scheduler.config.sigma_grid) == ("dpmpp_2m", "karras")
    other = SamplerScheduler.from_config(EULER.config, sampler="DPM++ 2M Karras", sigma_grid="SGM Uniform")
    assert other.config.sigma_grid == "sgm_uniform"
    again = SamplerScheduler.from_config(scheduler.config, sampler="Euler a Exponential")
    assert (again.config.sampler, again.config.sigma_grid) == ("euler_ancestral", "exponential")
    assert SamplerScheduler.from_config(scheduler.config, sampler="Euler a").config.sigma_grid == "karras"
