"""What a run tells while it goes on: progress, where nan came from, what callbacks are given and may return."""

import math

import pytest
import torch
from diffusers import DDIMScheduler
from tiny_models import SDXL_SCHEDULE, flux_prompt, largest_difference, sdxl_prompt, seeded, tiny_flux, tiny_sdxl

from flux_comfy_pipeline import FluxPipeline
from k_diffusing.trace.record import Trace
from samplers_patch import SAMPLERS
from sdxl_comfy_pipeline import StableDiffusionXLPipeline


@pytest.fixture(scope="module")
def sdxl():
    return tiny_sdxl(StableDiffusionXLPipeline)


def call(pipe, **arguments):
    size = {"height": 16, "width": 16, "output_type": "latent", "num_inference_steps": 4}
    return pipe(**sdxl_prompt(), generator=seeded(), **{**size, **arguments}).images


class Bar:
    """Stands in for tqdm: what it is told, in order."""

    def __init__(self, total):
        self.total, self.told, self.open, self.left_by = total, [], False, None

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *error):
        self.open, self.left_by = False, error

    def update(self, n=1):
        assert self.open
        self.told.append(n)

    def set_postfix(self, **notes):
        self.told.append(notes)


@pytest.fixture
def bars(sdxl, monkeypatch):
    bars = []
    monkeypatch.setattr(sdxl, "progress_bar", lambda total: bars.append(Bar(total)) or bars[-1])
    return bars


def test_a_tick_for_each_step(sdxl, bars):
    call(sdxl, comfy_sampler="dpmpp_sde")
    assert (bars[0].total, bars[0].told, bars[0].open) == (4, [1, 1, 1, 1], False)


def test_hundredths_of_the_way_in_log_sigma_where_steps_are_not_known(sdxl, bars):
    trace = Trace()
    call(sdxl, comfy_sampler="dpm_adaptive", sigma_grid="karras", trace=trace)
    levels = [float(state.sigma) for state in trace.states[1:]]
    high, low = math.log(float(trace.sigmas[0])), math.log(float(trace.sigmas[-2]))
    done = [100 * (high - math.log(level)) / (high - low) if level else 100 for level in levels]
    [bar] = bars
    notes, ticks = bar.told[::2], bar.told[1::2]
    assert bar.total == 100 and notes == [{"sigma": f"{level:.3g}"} for level in levels]
    passed = [sum(ticks[: i + 1]) for i in range(len(ticks))]
    assert passed == [int(hundredth) for hundredth in done[:-2]] + [100, 100]
    assert len(ticks) > 3


def test_the_bar_is_closed_when_a_sampler_raises(sdxl, bars):
    def raises(model, x, sigmas):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as error:
        call(sdxl, comfy_sampler=raises)
    kind, value, traceback = bars[0].left_by
    assert not bars[0].open and bars[0].told == []
    assert kind is KeyError and value is error.value and traceback is not None


def spoil(network, at: int, value: float, element=slice(None)):
    """A hook that puts a value into the network's output at its call number `at`."""
    calls = []

    def hook(module, args, output):
        calls.append(1)
        if len(calls) == at:
            output = (output[0].clone(), *output[1:])
            output[0].flatten()[element] = value
        return output

    return network.register_forward_hook(hook)


ANSWER = (
    "the model returned nan or inf at step {}, sigma {} (sampler {}, model in torch.float32): try torch.float32 or "
    "bfloat16, a lower guidance scale or another sigma grid"
)


@pytest.mark.parametrize("name, at, step", [("euler", 1, 0), ("euler", 4, 3), ("heun", 4, 1), ("dpm_adaptive", 3, 0)])
def test_whose_nan_it_is_and_where(sdxl, name, at, step):
    """Its level is that of the call: heun's second call in a step is at the next level."""
    level = sdxl.plan(name, sigma_grid="karras", num_inference_steps=4).sigmas[{("heun", 4): 2}.get((name, at), step)]
    hook = spoil(sdxl.unet, at, float("nan"))
    try:
        with pytest.raises(FloatingPointError) as error:
            call(sdxl, comfy_sampler=name, sigma_grid="karras", guidance_scale=1.0)
    finally:
        hook.remove()
    if name == "dpm_adaptive":  # whose steps end where the model's answers say
        assert str(error.value).startswith("the model returned nan or inf at step 0, sigma ")
    else:
        assert str(error.value) == ANSWER.format(step, f"{float(level):.4g}", name)


@pytest.mark.parametrize("element", [0, 1, 255])
def test_no_element_of_a_small_picture_is_overlooked(sdxl, element):
    hook = spoil(sdxl.unet, 2, math.inf, element)
    try:
        with pytest.raises(FloatingPointError, match="^the model returned nan or inf at step 1, sigma "):
            call(sdxl, guidance_scale=1.0)
    finally:
        hook.remove()


def silent(model, x, sigmas):
    return model(x, sigmas[0])


def spoils_last_element(model, x, sigmas):
    x = model(x, sigmas[0]).clone()
    x.flatten()[-1] = math.inf
    return x


def spoils_all(model, x, sigmas):
    return model(x, sigmas[0]) * math.nan


BY_THE_SAMPLER = (
    "the sampler made nan or inf of what were finite numbers, by step 0, sigma 9.78 (sampler spoils_all, model in "
    "torch.float32): the model's answers were finite. Look at its options, the sigma grid, and what your own code "
    "does, if the sampler or a callback is yours"
)
BY_EITHER = (
    "a few elements of the result are nan or inf, at step 0, sigma 9.78 (sampler spoils_last_element, model in "
    "torch.float32), made by the model or by the sampler: try torch.float32 or bfloat16, and other options"
)


@pytest.mark.parametrize(
    "size, sampler, message", [(16, spoils_all, BY_THE_SAMPLER), (64, spoils_last_element, BY_EITHER)]
)
def test_nan_of_the_result(sdxl, size, sampler, message):
    """Of 32 rows every eighth is looked at as the model's, not the last; of the result all are summed."""
    with pytest.raises(FloatingPointError) as error:
        call(sdxl, comfy_sampler=sampler, sigmas=[9.78, 1.0, 0.0], height=size, width=size)
    assert str(error.value) == message


def test_nan_of_a_state_is_of_the_step_that_begins_with_it(sdxl):
    level = float(sdxl.plan(num_inference_steps=4).sigmas[1])
    options = {"noise_sampler": lambda sigma, sigma_next: torch.tensor(math.nan)}
    with pytest.raises(FloatingPointError) as error:
        call(sdxl, comfy_sampler="dpmpp_2m_sde", sampler_options=options)
    told = BY_THE_SAMPLER.replace("step 0", "step 1").replace("9.78", f"{level:.4g}")
    assert str(error.value) == told.replace("spoils_all", "dpmpp_2m_sde")


def test_a_sampler_that_never_calls_the_model(sdxl):
    def idle(model, x, sigmas):
        return x

    with pytest.raises(ValueError) as error:
        call(sdxl, comfy_sampler=idle)
    assert str(error.value) == "idle never called the model: its result is no picture"
    assert call(sdxl, comfy_sampler=idle, sigmas=[9.78]).isfinite().all()  # no step to take


@pytest.mark.parametrize(
    "returned, found", [(torch.zeros(1, 4, 2, 1), "of the shape (1, 4, 2, 1)"), ("a word", "'a word'")]
)
def test_latents_of_a_callback_that_cannot_be(sdxl, returned, found):
    def callback(pipe, i, t, kwargs):
        return {"latents": returned} if i == 1 else {}

    with pytest.raises(ValueError) as error:
        call(sdxl, callback_on_step_end=callback)
    assert str(error.value) == (
        f"callback_on_step_end returned latents {found} after step 1, and those of the run are of the shape "
        "(1, 4, 8, 8): return a tensor of that shape, or no latents to go on as they are"
    )


def test_a_callback_that_changes_conditioning_alone(sdxl):
    """What it returns is the conditioning of the calls to come, and of what it is given next."""
    seen = []

    def callback(pipe, i, t, kwargs):
        assert list(kwargs) == ["prompt_embeds", "add_time_ids"]
        seen.append({name: value.clone() for name, value in kwargs.items()})
        return {"prompt_embeds": kwargs["prompt_embeds"] * 2} if i == 1 else {}

    inputs = ["prompt_embeds", "add_time_ids"]
    changed = call(sdxl, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=inputs)
    assert largest_difference(changed, call(sdxl)) > 1e-2
    first = seen[0]["prompt_embeds"]
    assert [torch.equal(one["prompt_embeds"], first * n) for one, n in zip(seen, [1, 1, 2, 2], strict=True)] == [
        True
    ] * 4
    assert all(torch.equal(one["add_time_ids"], seen[0]["add_time_ids"]) for one in seen)


def custom_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i])
        callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_what_a_sampler_adds_before_its_first_call_is_not_lost(sdxl, model):
    """FLUX's network is given the latents that the run started from only while the state is that still."""
    pipe = sdxl if model == "sdxl" else tiny_flux(FluxPipeline)
    latents = torch.ones((1, 4, 8, 8) if model == "sdxl" else (1, 16, 16))

    def first_input(sampler, **options):
        trace, prompt = Trace(tensors=True), sdxl_prompt() if model == "sdxl" else flux_prompt()
        pipe(
            **prompt, comfy_sampler=sampler, sampler_options=options, latents=latents, height=16, width=16,
            num_inference_steps=3, output_type="latent", generator=seeded(), trace=trace,
        )  # fmt: skip
        return trace.calls[0].net_input.values

    def lifted(model, x, sigmas):
        return model(x + sigmas[0], sigmas[0])

    assert largest_difference(first_input("euler", s_churn=0.0), first_input("euler", s_churn=4.0)) > 1e-2
    assert largest_difference(first_input(silent), first_input(lifted)) > 1e-2


@pytest.mark.parametrize("sampler", ["heun", custom_euler])
@pytest.mark.parametrize("model", ["sdxl", "flux"])
def test_callbacks_see_the_schedulers_own_latents(model, sampler):
    """DDIM's are the sampler's state over sqrt(sigma^2 + 1); FLUX's, in VE coordinates, over 1 + sigma."""
    if model == "sdxl":
        pipe, prompt, more = tiny_sdxl(StableDiffusionXLPipeline, DDIMScheduler(**SDXL_SCHEDULE)), sdxl_prompt(), {}
    else:
        pipe, prompt, more = tiny_flux(FluxPipeline), flux_prompt(), {"flow_coordinates": "ve"}
    seen, trace = [], Trace(tensors=True)

    def callback(pipe, i, t, kwargs):
        seen.append(kwargs["latents"].clone())
        return {"latents": kwargs["latents"]}

    pipe(
        **prompt, **more, height=16, width=16, num_inference_steps=4, output_type="latent", comfy_sampler=sampler,
        generator=seeded(), trace=trace, callback_on_step_end=callback,
    )  # fmt: skip
    for latents, state in zip(seen, trace.states[1:], strict=True):
        sigma = float(state.sigma)
        divisor = (sigma**2 + 1) ** 0.5 if model == "sdxl" else 1 + sigma
        # 2e-6: float32, latents of up to 4
        assert largest_difference(latents, state.x.values / divisor) < 2e-6


@pytest.mark.parametrize("every, steps", [(None, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_the_deprecated_callback(sdxl, every, steps):
    told, trace = [], Trace()
    with pytest.warns(FutureWarning):
        images = call(sdxl, callback=lambda *arguments: told.append(arguments), callback_steps=every, trace=trace)
    assert [i for i, *_ in told] == steps
    assert [float(t) for _, t, _ in told] == [sdxl.plan(num_inference_steps=4).rows()[i]["timestep"] for i in steps]
    assert all(latents.shape == images.shape and latents.dtype == images.dtype for *_, latents in told)
    assert torch.equal(told[-1][2], images) == (steps[-1] == 3)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_adaptive", silent])
def test_interrupted_in_the_last_step(sdxl, name):
    """There is nothing to leave out."""

    def stop(module, args):
        calls.append(1)
        sdxl._interrupt = len(calls) >= total

    calls, whole, total = [], Trace(), 0
    images = call(sdxl, comfy_sampler=name, guidance_scale=1.0, trace=whole)
    total = len(whole.calls)
    hook = sdxl.unet.register_forward_pre_hook(stop)
    try:
        assert torch.equal(call(sdxl, comfy_sampler=name, guidance_scale=1.0), images)
    finally:
        hook.remove()


@pytest.mark.parametrize("coordinates", ["ve", "flow", "velocity"])
@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", custom_euler])
def test_a_trace_knows_its_coordinates_and_size(coordinates, name):
    pipe, trace = tiny_flux(FluxPipeline), Trace()
    pipe(
        **flux_prompt(), height=16, width=32, num_inference_steps=3, output_type="latent", comfy_sampler=name,
        flow_coordinates=coordinates, trace=trace, generator=seeded(),
    )  # fmt: skip
    assert trace.coordinates == ("ve" if coordinates == "ve" else "flow") and trace.size == (16, 32)
    assert trace.sampler == (name if name in SAMPLERS else "custom_euler")
    stages = [one.stage for one in trace.calls]
    assert stages == ([0, 1, 0, 1, 0] if name == "heun" else [0, 0, 0])
