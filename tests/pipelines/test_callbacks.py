"""What callbacks see and change, interruption, progress, nan: for every sampler, in both pipelines."""

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.callbacks import SDXLCFGCutoffCallback
from tiny_models import flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing import run as sampling_run
from k_diffusing.trace.record import Trace
from samplers_patch import SAMPLERS, run_sampler, step_count
from sdxl_comfy_pipeline import StableDiffusionXLPipeline

STEPS = 6
PIPELINES = {
    "sdxl": (tiny_sdxl, StableDiffusionXLPipeline, diffusers.StableDiffusionXLPipeline, sdxl_prompt),
    "flux": (tiny_flux, FluxPipeline, diffusers.FluxPipeline, flux_prompt),
}
EVERY_SAMPLER = [(model, sampler) for model in PIPELINES for sampler in SAMPLERS]


@pytest.fixture(scope="module")
def pipes():
    made = {}
    for model, (make, ours, theirs, prompt) in PIPELINES.items():
        made[model] = (make(ours), make(theirs), prompt)
    return made


def call(pipe, prompt, **arguments):
    arguments = {"num_inference_steps": STEPS, "height": 16, "width": 16, "output_type": "latent", **arguments}
    return pipe(**prompt(), generator=seeded(), **arguments).images


def halve_latents(pipe, i, t, kwargs):
    return {"latents": kwargs["latents"] * 0.5} if i == 2 else {}


def halve_in_place(pipe, i, t, kwargs):
    if i == 2:
        kwargs["latents"].mul_(0.5)
    return {}


def change_prompt(pipe, i, t, kwargs):
    return {"prompt_embeds": -kwargs["prompt_embeds"]} if i == 2 else {}


CHANGES = [halve_latents, halve_in_place, change_prompt]


@pytest.mark.parametrize("model", PIPELINES)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_take_effect_as_in_diffusers(pipes, model, change):
    ours, theirs, prompt = pipes[model]
    watch = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    a, b, unchanged = call(ours, prompt, **watch), call(theirs, prompt, **watch), call(ours, prompt)
    assert largest_difference(a, b) == 0.0
    assert largest_difference(a, unchanged) > 1e-2


@pytest.mark.parametrize("model", PIPELINES)
def test_callbacks_see_what_diffusers_shows(pipes, model):
    def record(into):
        def callback(pipe, i, t, kwargs):
            into.append((i, float(t), kwargs["latents"].clone(), pipe.num_timesteps))
            return {}

        return callback

    ours, theirs, prompt = pipes[model]
    seen, expected = [], []
    call(ours, prompt, callback_on_step_end=record(seen))
    call(theirs, prompt, callback_on_step_end=record(expected))
    assert [(i, t, n) for i, t, _, n in seen] == [(i, t, n) for i, t, _, n in expected]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("model, sampler", EVERY_SAMPLER)
def test_every_sampler_calls_back_once_a_step(pipes, model, sampler):
    ours, _, prompt = pipes[model]
    seen = []

    def callback(pipe, i, t, kwargs):
        seen.append((i, float(t), kwargs["latents"], kwargs["denoised"]))
        return kwargs

    arguments = {"comfy_sampler": sampler, "callback_on_step_end_tensor_inputs": ["latents", "denoised"]}
    with_callback = call(ours, prompt, callback_on_step_end=callback, **arguments)
    assert largest_difference(with_callback, call(ours, prompt, comfy_sampler=sampler)) == 0.0
    assert [i for i, *_ in seen] == list(range(len(seen)))
    assert torch.equal(seen[-1][2], with_callback)
    times = [t for _, t, _, _ in seen]
    assert times == sorted(times, reverse=True) and len(set(times)) == len(times)
    if sampler != "dpm_adaptive":
        assert len(seen) == ours.num_timesteps
    # The last step goes to sigma 0, where the latents are the estimate that it started from.
    assert seen[-1][3].shape == with_callback.shape
    if SAMPLERS[sampler].nfe_per_step == 1 and sampler != "lms":
        assert largest_difference(seen[-1][3], with_callback) < 1e-4


@pytest.mark.parametrize("model, sampler", EVERY_SAMPLER)
def test_replaced_latents_take_effect_in_every_sampler(pipes, model, sampler):
    ours, _, prompt = pipes[model]

    def callback(pipe, i, t, kwargs):
        return {"latents": torch.zeros_like(kwargs["latents"])} if i == 1 else {}

    changed = call(ours, prompt, comfy_sampler=sampler, callback_on_step_end=callback)
    assert largest_difference(changed, call(ours, prompt, comfy_sampler=sampler)) > 1e-2


@pytest.mark.parametrize("model, sampler", EVERY_SAMPLER)
def test_interruption_returns_the_latents_so_far(pipes, model, sampler):
    ours, _, prompt = pipes[model]
    seen = []

    def callback(pipe, i, t, kwargs):
        seen.append(kwargs["latents"])
        pipe._interrupt = i == 1
        return {}

    result = call(ours, prompt, comfy_sampler=sampler, callback_on_step_end=callback)
    assert len(seen) == 2
    assert torch.equal(result, seen[-1])
    assert not call(ours, prompt, comfy_sampler=sampler).equal(result)  # the next call starts afresh


@pytest.mark.parametrize("coordinates", ["flow", "ve", "velocity"])
def test_denoised_is_the_clean_estimate_in_any_coordinates(pipes, coordinates):
    """x0 = latents - t * velocity from the first network output; euler's steps are the same in all three."""
    ours, _, prompt = pipes["flux"]
    ours.scheduler = FlowMatchEulerDiscreteScheduler()
    seen, outputs = [], []
    hook = ours.transformer.register_forward_hook(lambda module, args, output: outputs.append(output[0].clone()))

    def callback(pipe, i, t, kwargs):
        seen.append(kwargs["denoised"])
        return {}

    noise = torch.randn(1, 16, 16, generator=seeded(9))
    try:
        call(
            ours, prompt, sigmas=[0.9, 0.6, 0.3], num_inference_steps=3, latents=noise, flow_coordinates=coordinates,
            callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["denoised"],
        )  # fmt: skip
    finally:
        hook.remove()
        ours.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert largest_difference(seen[0], noise - 0.9 * outputs[0]) < 1e-5  # float32 at sigma = 9


def test_pipeline_callbacks_work(pipes):
    """The cut-off changes the guidance scale and the batch of the embeddings in mid-flight."""
    ours, theirs, prompt = pipes["sdxl"]
    cutoff = SDXLCFGCutoffCallback(cutoff_step_ratio=0.4)
    a, b = (call(pipe, prompt, callback_on_step_end=cutoff) for pipe in (ours, theirs))
    assert largest_difference(a, b) == 0.0
    assert call(ours, prompt, callback_on_step_end=cutoff, comfy_sampler="dpmpp_sde").isfinite().all()


def test_deprecated_callback_of_sdxl(pipes):
    ours, theirs, prompt = pipes["sdxl"]
    seen = {ours: [], theirs: []}
    for pipe, into in seen.items():
        with pytest.warns(FutureWarning, match="callback"):
            call(pipe, prompt, callback=lambda i, t, latents, into=into: into.append((i, float(t))), callback_steps=2)
    assert seen[ours] == seen[theirs] != []


def custom_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler as a user writes it in a notebook: its steps are known from `callback` alone."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones([len(x)]))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


@pytest.mark.parametrize("change", [None, *CHANGES], ids=lambda change: getattr(change, "__name__", "none"))
def test_custom_samplers_get_the_same_callbacks(pipes, change):
    ours, _, prompt = pipes["sdxl"]
    watch = {"callback_on_step_end": change, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    watch = watch if change else {}
    a, b = (call(ours, prompt, comfy_sampler=sampler, **watch) for sampler in (custom_euler, "euler"))
    assert largest_difference(a, b) == 0.0


@pytest.mark.parametrize("sampler", ["euler", custom_euler])
def test_denoised_belongs_to_the_step(pipes, sampler):
    ours, _, prompt = pipes["sdxl"]
    seen = []

    def callback(pipe, i, t, kwargs):
        seen.append(kwargs["denoised"].clone())
        return {}

    call(
        ours, prompt, comfy_sampler=sampler, callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["denoised"],
    )  # fmt: skip
    expected = []
    call(
        ours, prompt,
        comfy_sampler=lambda model, x, sigmas: custom_euler(
            model, x, sigmas, callback=lambda info: expected.append(info["denoised"].clone())
        ),
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


CUSTOM_AND_KNOWN = (custom_euler, "euler")


def guide_more(pipe, i, t, kwargs):
    if i == 2:
        pipe._guidance_scale = 9.0
    return {}


def test_guidance_changed_in_a_custom_samplers_callback(pipes):
    """As for the samplers whose steps are known beforehand: from the next step on, its first evaluation included."""
    ours, _, prompt = pipes["sdxl"]
    custom, known = (call(ours, prompt, comfy_sampler=one, callback_on_step_end=guide_more) for one in CUSTOM_AND_KNOWN)
    assert largest_difference(custom, known) == 0.0
    assert largest_difference(custom, call(ours, prompt)) > 1e-2


def custom_churn(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler that calls the network above the grid's levels; of churn's noise it has none."""
    for i in range(len(sigmas) - 1):
        sigma_hat = 1.25 * sigmas[i]
        denoised = model(x, sigma_hat * x.new_ones([len(x)]))
        callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigma_hat, "denoised": denoised})
        x = x + (x - denoised) / sigma_hat * (sigmas[i + 1] - sigma_hat)
    return x


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_an_evaluation_is_repeated_at_the_level_it_was_made_at(pipes, change):
    ours, _, prompt = pipes["sdxl"]
    trace = Trace(tensors=True)
    call(
        ours, prompt, comfy_sampler=custom_churn, trace=trace, callback_on_step_end=change,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )  # fmt: skip
    made, repeated = trace.calls[3:5]
    assert len(trace.calls) == STEPS + 1 and repeated.sigma == made.sigma == 1.25 * trace.sigmas[3]
    assert largest_difference(repeated.denoised.values, made.denoised.values) > 1e-2
    # 1e-5: float32, latents of size 10, in the order of operations of custom_churn
    x, denoised, sigma = repeated.x.values, repeated.denoised.values, repeated.sigma
    following = x + (x - denoised) / sigma * (trace.sigmas[4] - sigma)
    assert largest_difference(trace.calls[5].x.values, following) < 1e-5


class Bar:
    """Stands in for tqdm: counts ticks."""

    def __init__(self, total):
        self.total, self.ticks, self.notes = total, 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, n=1):
        self.ticks += n

    def set_postfix(self, **notes):
        self.notes.append(notes)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_pipelines_own_progress_bar_fills(pipes, sampler, monkeypatch, capfd):
    ours, _, prompt = pipes["sdxl"]
    bars = []
    monkeypatch.setattr(ours, "progress_bar", lambda total: bars.append(Bar(total)) or bars[-1])
    call(ours, prompt, comfy_sampler=sampler)
    assert [bar.ticks for bar in bars] == [bar.total for bar in bars] and len(bars) == 1
    assert bool(bars[0].notes) == SAMPLERS[sampler].adaptive
    assert "it/s" not in capfd.readouterr().err  # nothing of k-diffusion's own bars


def test_progress_bar_settings_are_honoured(pipes, capfd):
    ours, _, prompt = pipes["sdxl"]
    ours.set_progress_bar_config(desc="rendering", disable=False)
    call(ours, prompt)
    assert "rendering" in capfd.readouterr().err
    ours.set_progress_bar_config(disable=True)
    call(ours, prompt)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_sde", "dpm_adaptive"])
@pytest.mark.parametrize("model", PIPELINES)
def test_nan_stops_with_step_sigma_sampler_and_dtype(model, sampler):
    make, ours, _, prompt = PIPELINES[model]
    pipe = make(ours)
    network = pipe.unet if model == "sdxl" else pipe.transformer
    calls = []

    def spoil(module, args, output):
        calls.append(1)
        return (output[0] * float("nan"),) if len(calls) == 5 else output

    network.register_forward_hook(spoil)
    with pytest.raises(FloatingPointError, match=rf"step \d.*sigma .*{sampler}.*float32"):
        call(pipe, prompt, comfy_sampler=sampler)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpm_adaptive"])
@pytest.mark.parametrize("model", PIPELINES)
def test_nan_of_the_model_is_the_models(pipes, model, sampler):
    pipe, _, prompt = pipes[model]
    network, calls = pipe.unet if model == "sdxl" else pipe.transformer, []

    def spoil(module, args, output):
        calls.append(1)
        return (output[0] * float("inf"),) if len(calls) == 2 else output

    hook = network.register_forward_hook(spoil)
    try:
        with pytest.raises(FloatingPointError, match="the model returned nan or inf at step .*try torch.float32"):
            call(pipe, prompt, comfy_sampler=sampler)
    finally:
        hook.remove()


def divides_by_zero(model, x, sigmas, extra_args=None, callback=None, disable=None, at=0):
    """Euler's method, with a division by 0 after step `at`."""
    for i in range(len(sigmas) - 1):
        d = (x - model(x, sigmas[i] * x.new_ones(len(x)))) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
        x = x / 0 if i == at else x
    return x


def bad_latents(pipe, i, t, kwargs):
    return {"latents": kwargs["latents"] / 0} if i == 2 else {}


def noise_of_nan(sigma, sigma_next):
    return torch.tensor(float("nan"))


BY_THE_SAMPLER = "the sampler made nan or inf of what were finite numbers, by step .*the model's answers were finite"
SPOILED = {
    "between steps": ({"comfy_sampler": divides_by_zero}, BY_THE_SAMPLER),
    "in the last step": ({"comfy_sampler": divides_by_zero, "sampler_options": {"at": STEPS - 1}}, BY_THE_SAMPLER),
    "by noise": ({"comfy_sampler": "dpmpp_2m_sde", "sampler_options": {"noise_sampler": noise_of_nan}}, BY_THE_SAMPLER),
    "by a callback": ({"callback_on_step_end": bad_latents}, f"{BY_THE_SAMPLER}.*callback"),
    "from the start": ({"latents": float("nan")}, "latents to start from hold nan or inf, at step 0.*latents="),
}


@pytest.mark.parametrize("model", PIPELINES)
@pytest.mark.parametrize("case", SPOILED)
def test_nan_that_is_not_the_models(pipes, model, case):
    pipe, _, prompt = pipes[model]
    arguments, message = SPOILED[case]
    if "latents" in arguments:
        arguments = {"latents": call(pipe, prompt) * arguments["latents"]}
    with pytest.raises(FloatingPointError, match=message) as error:
        call(pipe, prompt, **arguments)
    assert "float32 or bfloat16" not in str(error.value)


def returns_nan(model, x, sigmas):
    return model(x, sigmas[0] * x.new_ones([len(x)])) * float("nan")


@pytest.mark.parametrize("model", PIPELINES)
def test_nan_that_only_the_result_has(pipes, model):
    ours, _, prompt = pipes[model]
    with pytest.raises(FloatingPointError, match="returns_nan"):
        call(ours, prompt, comfy_sampler=returns_nan)


def test_step_count_is_known_beforehand():
    for n in range(1, 14):
        for last in (0.0, 0.3):
            sigmas = torch.linspace(10.0, 1.0, n).tolist() + [last]
            record, seen = SAMPLERS["dpm_fast"], []

            class Observer:
                def begin_step(self, index, x, sigma, seen=seen):
                    seen.append(index)

            run_sampler(record, lambda x, sigma: x * 0.5, torch.ones(1, 4), torch.tensor(sigmas), observer=Observer())
            assert len(seen) == step_count(record, torch.tensor(sigmas))


def test_xla_steps_are_marked(pipes, monkeypatch):
    ours, _, prompt = pipes["sdxl"]
    marks = []

    class Xla:
        @staticmethod
        def mark_step():
            marks.append(1)

    monkeypatch.setattr(sampling_run, "xla_model", Xla)
    call(ours, prompt)
    assert len(marks) == STEPS


def test_current_timestep_of_flux(pipes):
    ours, _, prompt = pipes["flux"]
    seen = []
    hook = ours.transformer.register_forward_pre_hook(lambda *_: seen.append(float(ours.current_timestep)))
    try:
        call(ours, prompt, comfy_sampler="heun")
    finally:
        hook.remove()
    assert seen[0] == 1000.0 and len(seen) == 2 * STEPS - 1 and ours.current_timestep is None
