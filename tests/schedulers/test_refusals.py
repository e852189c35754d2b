"""Bad input of a sampler's scheduler, and steps that cannot be taken."""

import copy

import diffusers
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from stepped_schedulers import X, fresh, one_step, own_euler, stepped, witnessed
from their_pipelines import EULER, SHIFTING, STEPS
from tiny_models import seeded

from k_diffusing.schedulers.as_sampler import as_sampler
from k_diffusing.schedulers.as_scheduler import SamplerScheduler


def adaptive(model, x, sigmas, extra_args=None, callback=None, disable=None):
    while float(model(x, sigmas[:1]).abs().max()) > 0.5 and float(x.abs().max()) > 0.1:
        x = x / 2
    return model(x, sigmas[:1])


def endless(model, x, sigmas, extra_args=None, callback=None, disable=None):
    while True:
        model(x, sigmas[:1])


def late(model, x, sigmas, extra_args=None, callback=None, disable=None):
    if len(x) > 1:  # unlike the state of the null run
        x = model(x, sigmas[:1])
    return own_euler(model, x, sigmas)


def step_twice(scheduler):
    one_step(scheduler), one_step(scheduler)


def step_on(scheduler):
    stepped(scheduler), one_step(scheduler)


def flow(**settings):
    return SamplerScheduler.from_config(SHIFTING.config, **settings)


BAD_INPUT = {
    "adaptive": (lambda: fresh("dpm_adaptive"), ValueError, "dpm_adaptive chooses its steps.*comfy_sampler="),
    "custom adaptive": (lambda: fresh(adaptive), ValueError, "adaptive chooses its steps"),
    "endless": (lambda: fresh(endless), ValueError, "endless chooses its steps"),
    "other calls than planned": (lambda: stepped(fresh(late)), RuntimeError, "did not call the network 6 times"),
    "no set_timesteps": (lambda: SamplerScheduler().step(X, 999.0, X), RuntimeError, "call set_timesteps first"),
    "step twice": (lambda: step_twice(fresh()), RuntimeError, "got timestep .* next one, 1 of 6.*in order.*deepcopy"),
    "after the end": (lambda: step_on(fresh()), RuntimeError, "over after 6 steps.*set_timesteps"),
    "unknown timestep": (lambda: fresh().step(X, 3.5, X), ValueError, "3.5 is none of scheduler.timesteps"),
    "variance": (
        lambda: fresh().step(X.repeat(1, 2, 1, 1), fresh().timesteps[0], X),
        ValueError,
        "without the variance",
    ),
    "generators": (
        lambda: fresh().step(X, fresh().timesteps[0], X, generator=[seeded()] * 3),
        ValueError,
        "3 generators for 2 images",
    ),
    "attribute": (lambda: fresh().alphas_cumprod, AttributeError, "'alphas_cumprod'.*give it back a scheduler"),
    "step index": (lambda: fresh()._step_index, AttributeError, "'_step_index'"),
    "copied run": (lambda: copy.deepcopy(suspended().__dict__), TypeError, "cannot be copied"),
    "unknown setting": (lambda: fresh(etaa=1), TypeError, "no setting 'etaa'.*timestep_spacing"),
    "no config": (lambda: SamplerScheduler.from_config(EULER), TypeError, "pipe.scheduler.config"),
    "no calls": (lambda: fresh(lambda model, x, sigmas: x), ValueError, "never calls the model"),
    "unknown option": (lambda: fresh("euler", sampler_options={"eta": 1}), TypeError, "no option 'eta'"),
    "option's value": (
        lambda: fresh("dpmpp_2m_sde", sampler_options={"eta": -1}),
        ValueError,
        "eta=-1: give a finite number of at least 0",
    ),
    "unknown sampler": (lambda: fresh("eular"), ValueError, "did you mean 'euler'"),
    "import path": (lambda: fresh("no_such_module:f"), ValueError, "cannot be imported.*pass the function"),
    "unknown class": (
        lambda: SamplerScheduler.from_config(diffusers.LCMScheduler().config),
        ValueError,
        "no scheduler class we know.*EulerDiscreteScheduler",
    ),
    "a list of classes": (
        lambda: SamplerScheduler.from_config({"_class_name": ["hostile", "run"]}),
        ValueError,
        r"config is of \['hostile', 'run'\].*EulerDiscreteScheduler",
    ),
    "not saved": (lambda: fresh(witnessed([])).save_pretrained("never_made"), ValueError, "cannot be saved"),
    "two grids": (lambda: fresh(sigma_grid="karras").set_timesteps(timesteps=[9, 5]), ValueError, "choose one"),
    "no sigmas": (lambda: fresh().set_timesteps(sigmas=[]), ValueError, r"sigmas must be .* 1 at least, got \[\]"),
    "one of a range": (lambda: fresh("dpm_fast").set_timesteps(sigmas=[9.0]), ValueError, "dpm_fast chooses"),
    "doubled sigmas": (lambda: fresh().set_timesteps(sigmas=[3.0, 3.0]), ValueError, "sigmas must decrease strictly"),
    "negative sigmas": (lambda: fresh().set_timesteps(sigmas=[-1.0]), ValueError, r"sigmas\[0\] is -1.0"),
    "rising timesteps": (lambda: fresh().set_timesteps(timesteps=[100, 500]), ValueError, "timesteps must decrease"),
    "no list": (lambda: fresh().set_timesteps(timesteps=500), ValueError, "timesteps must be a list of numbers"),
    "words": (lambda: flow().set_timesteps(sigmas=["a"], mu=1), ValueError, "sigmas must be a list of numbers"),
    "begin before the first": (lambda: fresh().set_begin_index(-1), ValueError, "begin_index=-1: .*0 or more"),
    "begin in the middle of one": (lambda: fresh().set_begin_index(1.5), ValueError, "begin_index=1.5: .*0 or more"),
    "begin after the end": (lambda: fresh("heun").set_begin_index(13), ValueError, "begin_index=13.* give 0 to 11"),
    "grid of a range": (lambda: fresh("dpm_fast").set_timesteps(sigmas=[9, 5, 0]), ValueError, "dpm_fast chooses"),
    "unknown noise": (lambda: fresh(noise="comfi"), ValueError, "did you mean 'comfy'"),
    "no seed": (
        lambda: fresh("euler_ancestral", noise="philox").step(X, fresh().timesteps[0], X),
        ValueError,
        "generator after manual_seed",
    ),
    "no steps": (lambda: fresh(steps=0), ValueError, "at least 1"),
    "begin with churn": (
        lambda: fresh("euler", sampler_options={"s_churn": 2}).set_begin_index(3),
        ValueError,
        "cannot begin with call 3 of 6.*s_churn",
    ),
    "velocity": (lambda: flow(flow_coordinates="velocity"), ValueError, "'auto', 'flow' or 've'"),
    "no mu": (lambda: flow().set_timesteps(5), ValueError, "pass mu="),
    "flow timesteps": (lambda: flow().set_timesteps(timesteps=[900, 500], mu=1), ValueError, "sigmas="),
    "two grids of flow": (
        lambda: flow(sigma_grid="karras").set_timesteps(sigmas=[1.0, 0.3], mu=1),
        ValueError,
        "choose one",
    ),
    "flow sampler": (
        lambda: fresh(as_sampler(FlowMatchEulerDiscreteScheduler())),
        ValueError,
        "integrate flow matching, and this model is none",
    ),
}


def suspended() -> SamplerScheduler:
    scheduler = fresh()
    one_step(scheduler)
    return scheduler


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case):
    act, error, message = BAD_INPUT[case]
    with pytest.raises(error, match=message):
        act()


def test_two_pipelines_by_turns():
    """A second run may begin, and ends the first, which is told so; each on its own scheduler, both go on."""
    scheduler = suspended()
    scheduler.set_begin_index(0)
    times = scheduler.timesteps
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(0)
    with pytest.raises(RuntimeError, match="two pipelines that run by turns"):
        scheduler.step(X, times[1], X)
    one_step(scheduler)


def test_an_error_in_the_sampler_ends_the_run():
    def failing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        x = model(x, sigmas[:1].expand(len(x)))
        if len(x) > 1:
            raise KeyError("the sampler's")
        return model(x, sigmas[1:2].expand(len(x)))

    scheduler = fresh(failing)
    with pytest.raises(KeyError, match="the sampler's"):
        one_step(scheduler)
    with pytest.raises(RuntimeError, match="set_timesteps first"):
        one_step(scheduler)
