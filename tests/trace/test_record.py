"""A trace tells what a sampler did, and changes nothing."""

import threading

import pytest
import torch
from traced_runs import STEPS, euler, run, silent_euler

from k_diffusing.model.scheduler_config import noise_schedule
from k_diffusing.trace.record import Trace, active_trace
from samplers_patch import SAMPLERS


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_tracing_changes_nothing(pipes, family, sampler):
    plain = run(pipes, family, sampler)
    for tensors in (False, True):
        trace = Trace(tensors=tensors)
        assert torch.equal(run(pipes, family, sampler, trace=trace), plain)
        assert len(trace.calls) >= STEPS and trace.sampler == sampler
        assert (trace.calls[0].x.values is not None) == tensors


def test_every_call_of_the_network_is_there(pipes):
    """Against what the UNet itself was given, step by step of heun's two stages."""
    seen, trace = [], Trace(tensors=True)
    pipe = pipes["sdxl"][0]
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[1])))
    run(pipes, comfy_sampler="heun", trace=trace)
    hook.remove()
    assert [(call.step, call.stage) for call in trace.calls] == [(i // 2, i % 2) for i in range(2 * STEPS - 1)]
    for call, (net_input, timestep) in zip(trace.calls, seen, strict=True):
        assert torch.equal(call.net_input.values, net_input[:1])
        assert call.timestep == timestep[0]
        # 1e-6: the square root of sums of squares in float32
        assert call.input_scale == pytest.approx(float(1 / (call.sigma**2 + 1) ** 0.5), rel=1e-6)


@pytest.mark.parametrize("sampler", ["euler", "heun", "lms", "dpmpp_2m", euler, silent_euler])
def test_states_and_denoised_follow_euler(pipes, sampler):
    """The states are those between the steps: an Euler step leads from each to the next, where it is Euler's method."""
    trace = Trace(tensors=True)
    latents = run(pipes, comfy_sampler=sampler, trace=trace)
    assert trace.step_count == STEPS
    assert torch.equal(trace.states[-1].x.values, latents)
    assert torch.equal(torch.stack([state.sigma for state in trace.states]), trace.sigmas)
    for i, call in enumerate(call for call in trace.calls if call.stage == 0):
        assert torch.equal(call.x.values, trace.states[i].x.values)
        if "euler" in trace.sampler:
            d = (call.x.values - call.denoised.values) / call.sigma
            following = call.x.values + d * (trace.states[i + 1].sigma - call.sigma)
            assert (following - trace.states[i + 1].x.values).abs().max() < 1e-5  # float32, another order of operations


def test_statistics_are_those_of_the_tensors(pipes):
    trace = Trace(tensors=True)
    run(pipes, "flux", "dpmpp_sde", trace=trace)
    for call in trace.calls:
        for reading in (call.x, call.net_input, call.denoised):
            values = reading.values.double()
            assert reading.rms == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
            assert reading.mean == pytest.approx(float(values.mean()), abs=1e-5)
            assert reading.largest == float(reading.values.abs().max())
    assert trace.coordinates == "ve" and trace.size == (16, 16)


def test_half_precision_does_not_overflow_the_statistics():
    trace = Trace()
    x = torch.full((1, 4), 300.0, dtype=torch.float16)
    trace.record_call(x, torch.ones(1), torch.ones(1), x, x)
    assert trace.calls[0].x.rms == pytest.approx(300)


@pytest.mark.parametrize(
    "sampler, options, draws",
    [("euler", {}, 0), ("euler", {"s_churn": 3.0}, STEPS), ("euler_ancestral", {}, STEPS - 1), ("dpmpp_sde", {}, 8)],
)
def test_draws_of_noise(pipes, sampler, options, draws):
    trace = Trace(tensors=True)
    run(pipes, comfy_sampler=sampler, sampler_options=options, trace=trace)
    assert len(trace.draws) == draws
    assert all(0.5 < draw.noise.rms < 1.5 for draw in trace.draws)  # unit noise, 256 values
    assert all(draw.churn == ("s_churn" in options) for draw in trace.draws)
    assert [draw.step for draw in trace.draws] == sorted(draw.step for draw in trace.draws)


CHURN = ["euler", "heun", "dpm_2"]


@pytest.mark.parametrize("family", ["sdxl", "flux"])
@pytest.mark.parametrize("sampler", CHURN)
def test_churn_raises_the_level_that_the_network_is_told(pipes, family, sampler):
    """A step begins at sigma_hat = (1 + gamma) sigma, gamma = s_churn / steps (Karras et al. 2022, algorithm 2)."""
    trace = Trace(tensors=True)
    run(pipes, family, sampler, sampler_options={"s_churn": 0.25 * STEPS}, trace=trace)
    first = [call for call in trace.calls if call.stage == 0]
    raised = 1.25 * trace.sigmas[:-1]
    assert torch.stack([call.sigma for call in first]).allclose(raised, rtol=1e-6)
    told = torch.stack([call.timestep for call in first])
    if family == "sdxl":
        expected, scale = noise_schedule(pipes["sdxl"][0].scheduler).timestep(raised), 1 / (raised**2 + 1) ** 0.5
    else:
        expected, scale = 1000 * raised / (1 + raised), 1 / (1 + raised)
    assert told.allclose(expected, rtol=1e-5)
    assert torch.tensor([call.input_scale for call in first]).allclose(scale, rtol=1e-5)


@pytest.mark.parametrize("sampler", CHURN)
def test_the_level_of_churn_noise_is_that_of_its_step(pipes, sampler):
    trace = Trace()
    run(pipes, comfy_sampler=sampler, sampler_options={"s_churn": 3.0}, trace=trace)
    assert [float(draw.sigma) for draw in trace.draws] == trace.sigmas[:-1].tolist()
    assert [draw.step for draw in trace.draws] == list(range(STEPS))


def test_a_replay_stands_in_for_the_noise(pipes):
    zeros = Trace(replay=lambda trace, draw, interval: 0 * draw(interval))
    noiseless = run(pipes, comfy_sampler="euler_ancestral", trace=zeros)
    assert torch.equal(noiseless, run(pipes, comfy_sampler="euler_ancestral", sampler_options={"s_noise": 0.0}))


def test_with_a_block_around_the_call(pipes):
    with Trace() as trace:
        run(pipes)
        assert active_trace() is trace
    assert active_trace() is None and len(trace.calls) == STEPS
    calls = trace.calls
    run(pipes)
    assert trace.calls is calls
    with pytest.raises(KeyError), Trace():
        raise KeyError
    assert active_trace() is None


def test_two_threads_have_two_traces(pipes):
    traces = {name: Trace() for name in ("euler", "heun")}

    def work(name):
        with traces[name]:
            run(pipes, "sdxl" if name == "euler" else "flux", name)

    threads = [threading.Thread(target=work, args=(name,)) for name in traces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: len(trace.calls) for name, trace in traces.items()} == {"euler": STEPS, "heun": 2 * STEPS - 1}


def test_the_latest_run_is_kept(pipes):
    trace = Trace()
    run(pipes, comfy_sampler="heun", trace=trace)
    run(pipes, comfy_sampler="euler", trace=trace)
    assert trace.sampler == "euler" and len(trace.calls) == STEPS and trace.step_count == STEPS


def test_a_run_that_is_left_early_is_kept(pipes):
    def stop(pipe, i, t, kwargs):
        pipe._interrupt = i == 1
        return kwargs

    trace = Trace()
    run(pipes, trace=trace, callback_on_step_end=stop)
    assert trace.step_count == 2 and len(trace.calls) == 2


def test_a_callback_that_changes_latents_shows(pipes):
    def scale(pipe, i, t, kwargs):
        return {"latents": kwargs["latents"] * 2 if i == 1 else kwargs["latents"]}

    plain, changed = Trace(tensors=True), Trace(tensors=True)
    run(pipes, trace=plain)
    run(pipes, trace=changed, callback_on_step_end=scale)
    assert torch.equal(changed.states[1].x.values, plain.states[1].x.values)
    assert torch.equal(changed.states[2].x.values, 2 * plain.states[2].x.values)


def test_diffusers_own_loop_is_not_traced(pipes):
    for settings in ({"trace": Trace()}, {}):
        with Trace(), pytest.raises(ValueError, match="trace"):
            run(pipes, comfy_sampler=None, **settings)
