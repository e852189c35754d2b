"""What a user may pass to a pipeline's call."""

import logging

import diffusers
import numpy as np
import pytest
import torch

from k_diffusing.arguments import check_callback, check_sampler, count_images, diffusers_arguments, warn_of_bounds
from samplers_patch import SAMPLERS, find_sampler


@pytest.fixture
def warnings():
    """The messages of the module's own logger, whatever else listens to diffusers' logging."""
    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("diffusers.k_diffusing.arguments")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_sampler_that_needs_a_smooth_grid(warnings):
    told = ["dpmpp_3m_sde needs a grid smooth in log sigma: sigma_grid='karras' is one"]
    assert check_sampler("dpmpp_3m_sde", None, None, 5, sigmas=None) is SAMPLERS["dpmpp_3m_sde"]
    assert warnings == told
    check_sampler("dpmpp_3m_sde", None, "exponential", 5, sigmas=None)
    check_sampler("dpmpp_3m_sde", None, None, 5, sigmas=[1.0, 0.0])
    check_sampler("dpmpp_2m_sde", None, None, 5)
    assert warnings == told


@pytest.mark.parametrize("given", ["sigmas", "timesteps"])
def test_values_that_a_sampler_of_a_range_cannot_keep(given):
    values = {"sigmas": None, "timesteps": None, given: [9, 5]}
    with pytest.raises(ValueError) as error:
        check_sampler("dpm_fast", None, None, 5, **values)
    assert str(error.value) == (
        f"dpm_fast chooses its own steps between sigma_min and sigma_max, so {given}= cannot be kept: leave it out, or "
        "choose a sampler that takes a grid of sigmas"
    )
    assert check_sampler("heun", None, None, 0, **values).name == "heun"  # the number of steps is that of the values
    with pytest.raises(ValueError, match="num_inference_steps=0"):
        check_sampler("heun", None, None, 0, sigmas=None, timesteps=None)


class Pipeline:
    """An owner of a scheduler."""


def test_bounds_are_warned_of_once_for_each_owner_and_setting(warnings):
    both = diffusers.DDIMScheduler(clip_sample=True, thresholding=True)
    one, other = Pipeline(), Pipeline()
    for owner, count in ((one, 2), (one, 2), (other, 4)):
        warn_of_bounds(owner, SAMPLERS["heun"], both)
        assert len(warnings) == count
    assert [message.split("=")[0] for message in warnings] == ["clip_sample", "thresholding"] * 2
    assert warnings[0] == (
        "clip_sample=True in the config of DDIMScheduler has no effect here: it belongs to that scheduler's own step, "
        "and heun has another. as_sampler(DDIMScheduler.from_config(pipe.scheduler.config)) keeps it; "
        "from_config(pipe.scheduler.config, clip_sample=False) says that it is not wanted"
    )


def test_bounds_that_are_not_set_or_not_left_out(warnings):
    """A setting that the class does not have may still be in its config, from another class's."""

    def keeps(model, x, sigmas):
        return x

    keeps.keeps_bounds = True
    leftover = diffusers.EulerDiscreteScheduler.from_config(diffusers.DDIMScheduler(clip_sample=True).config)
    assert leftover.config.clip_sample
    warn_of_bounds(Pipeline(), SAMPLERS["heun"], leftover)
    warn_of_bounds(Pipeline(), SAMPLERS["heun"], diffusers.DDIMScheduler(clip_sample=False))
    warn_of_bounds(Pipeline(), find_sampler(keeps), diffusers.DDIMScheduler(clip_sample=True))
    assert warnings == []


def silent(model, x, sigmas, disable=None):
    return x


def swallows(model, x, sigmas, **rest):
    return x


def tells(model, x, sigmas, *, callback=None):
    return x


def test_who_can_tell_of_their_steps():
    for sampler in (swallows, tells, "euler", "dpm_adaptive"):
        check_callback(find_sampler(sampler), print, None)
    check_callback(find_sampler(silent), None, None)
    for callbacks in ((print,), (None, print), (print, None)):
        with pytest.raises(ValueError) as error:
            check_callback(find_sampler(silent), *callbacks)
        assert str(error.value) == "silent takes no `callback`, so no step-end callback can be called: add it"


@pytest.mark.parametrize(
    "prompt, embeds, per_prompt, images",
    [
        ("a bird", None, 1, 1),
        ("a bird", None, np.int64(3), 3),
        (["a bird", "a fish"], None, 2, 4),
        (["a bird", "a fish"], torch.zeros(5, 1), 1, 2),
        (None, torch.zeros(3, 5, 16), 2, 6),
    ],
)
def test_images_of_a_call(prompt, embeds, per_prompt, images):
    assert count_images(prompt, embeds, per_prompt) == images


@pytest.mark.parametrize(
    "prompt, per_prompt, message",
    [
        ([], 1, "prompt is an empty list: give one prompt at least"),
        ("a bird", 0, "num_images_per_prompt=0: give an integer of at least 1"),
        ("a bird", True, "num_images_per_prompt=True: give an integer of at least 1"),
        ("a bird", 2.0, "num_images_per_prompt=2.0: give an integer of at least 1"),
    ],
)
def test_no_images(prompt, per_prompt, message):
    with pytest.raises(ValueError) as error:
        count_images(prompt, None, per_prompt)
    assert str(error.value) == message


def pipeline_call(
    self, prompt=None, callback_on_step_end_tensor_inputs=None, *, comfy_sampler="euler", noise="torch",
    sigma_grid=None, callback=None, callback_steps=None,
):  # fmt: skip
    """Like a pipeline's: our own keywords, and two deprecated ones of diffusers'."""


def arguments(**given):
    defaults = {"callback_on_step_end_tensor_inputs": None, "callback": None, "callback_steps": None}
    ours = {"comfy_sampler": None, "noise": "torch", "sigma_grid": None}
    return {"self": 1, "prompt": "a bird", "a_local_name": 2, **defaults, **ours, **given}


def test_arguments_of_diffusers_own_loop():
    kept = {"prompt": "a bird", "callback_on_step_end_tensor_inputs": None}
    assert diffusers_arguments(pipeline_call, arguments()) == kept
    assert diffusers_arguments(pipeline_call, arguments(callback=print, callback_steps=2)) == {
        **kept, "callback": print, "callback_steps": 2,
    }  # fmt: skip
    assert diffusers_arguments(pipeline_call, arguments(callback_steps=2)) == {**kept, "callback_steps": 2}


@pytest.mark.parametrize("ours", [{"noise": "comfy"}, {"sigma_grid": "karras"}])
def test_arguments_that_need_a_sampler(ours):
    [(name, value)] = ours.items()
    with pytest.raises(ValueError) as error:
        diffusers_arguments(pipeline_call, arguments(**ours))
    message = f"{name}={value!r} needs a sampler, and comfy_sampler=None runs diffusers' own loop"
    assert str(error.value) == message


def test_denoised_latents_need_a_sampler():
    with pytest.raises(ValueError) as error:
        diffusers_arguments(pipeline_call, arguments(callback_on_step_end_tensor_inputs=["latents", "denoised"]))
    assert str(error.value) == "diffusers' own loop (comfy_sampler=None) has no 'denoised' to give to a callback"
